"""What a study is: which starts, how many labels, how often, on which rooms, and what was decided before it ran."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mask3d_core.errors import ConfigError
from mask3d_core.models.config import CONTROLS, split_name
from mask3d_core.models.heads import HeadConfig
from mask3d_core.training.config import FitConfig, PretrainConfig, from_dict, pretrain_config, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig, finetune_config

RANDOM = "random"
COLORS_SHOWN = "mask3d;ratios=[[0.0,0.8]]"
"""Mask3D with all of the colour shown and a fifth of the depth: the recipe of the primary study, chosen on validation rooms by
frozen probes after 600 steps, before any test room was scored. With a fifth of the colour shown as well (80/80), the encoder of
colour learned less than nothing; see the README."""
LABELS = {
    RANDOM: "random", "mask3d": "Mask3D 80/80", "mask3d;inputs=[\"rgb\"];ratios=[[0.8,1.0]]": "Mask3D without depth input",
    "rgb-to-depth": "unmasked RGB to depth", "multimae": "RGB + depth targets (MultiMAE-style)", "mae": "MAE",
    "depth-only": "depth only",
}
SHORT = {"inputs": "model.inputs", "targets": "model.targets", "fusion": "model.fusion", "anchor": "model.anchor",
         "target": "model.target", "normalisation": "model.target.normalisation", "ratios": "mask.ratios", "loss": "loss.kind",
         "counted": "loss.counted", "normal": "loss.normal", "gradient": "loss.gradient", "multi_scale": "loss.multi_scale"}
"""What may stand after a control's name, and the key of the configuration that it changes."""


@dataclass(frozen=True)
class RoomsData:
    """The rooms of a study. Test rooms hold out furniture models and materials; no encoder sees them, unlabelled included.

    Args:
        train_rooms, val_rooms, test_rooms: how many.
        train_views, held_out_views: frames of each.
        seed: train rooms; the others take the next two.
        sensor: share of frames whose depth passes through a Kinect-like sensor.
        plain: share of rooms done up as most homes are. desk: share of frames that bend over a table (``RoomsConfig``).
    """

    train_rooms: int = 3000
    val_rooms: int = 100
    test_rooms: int = 300
    train_views: int = 4
    held_out_views: int = 2
    seed: int = 400
    sensor: float = 0.35
    plain: float = 1.0
    desk: float = 0.15


@dataclass(frozen=True)
class TuneConfig:
    """What is chosen per start and label fraction on validation frames, with the same number of trials for everyone.

    Args:
        learning_rates: peak rates for 256 frames per step.
        layer_decays: of the encoder.
        lengths: multiples of ``finetune_steps``, tried with the best of the others.
        random_lengths: further ones for the random start alone, which has not been trained before.
        seed: of the labels and the order in the trials; no seed of the study.
    """

    learning_rates: tuple[float, ...] = (4e-3, 1.6e-2, 6.4e-2)
    layer_decays: tuple[float, ...] = (0.7, 1.0)
    lengths: tuple[float, ...] = (1.0, 4.0)
    random_lengths: tuple[float, ...] = ()
    seed: int = 1000

    @property
    def grid(self) -> list[dict[str, float]]:
        """The choices at length 1, the same for every start."""
        return [{"learning_rate": rate, "layer_decay": decay, "length": 1.0} for rate in self.learning_rates for decay in self.layer_decays]

    def lengths_of(self, start: str) -> tuple[float, ...]:
        """The lengths that a start is tried with."""
        return (*self.lengths, *(self.random_lengths if start == RANDOM else ()))

    def longer_for(self, start: str) -> list[float]:
        """The lengths but 1, tried with the best choice of the grid."""
        return [length for length in self.lengths_of(start) if length != 1.0]

    def trials_of(self, start: str) -> int:
        """How many runs a start gets."""
        return len(self.grid) + len(self.longer_for(start))

    def trials_words(self, starts: tuple[str, ...]) -> str:
        """How many runs each start gets, in words."""
        others = {self.trials_of(start) for start in starts if start != RANDOM} or {self.trials_of(RANDOM)}
        of_random = self.trials_of(RANDOM) if RANDOM in starts else 0
        return f"{max(others)} trials for each start" + (f", {of_random} for random" if of_random > max(others) else "")


@dataclass(frozen=True)
class StudyConfig:
    """A whole study.

    Args:
        name: for its files.
        question: what it asks, in a sentence.
        endpoint: the primary number, named before running.
        preset: size of the models.
        starts: "random", a control's name, a control with changes ("mask3d;loss=l2;ratios=[[0.5,0.8]]"), "timm:<name>" or a
            checkpoint. Everything but random, timm and checkpoints is pre-trained here, on the same frames, as many for all.
        where_reachable: further starts, taken up only where their weights can be had (``timm:<name>``: ImageNet's).
        reference: the start that the others are compared with.
        fractions: shares of the training rooms whose labels are used. folder, folds: instead, real labelled frames and
            patterns of their sequence names ("boxes/*"): each fold in turn tests, the others train, and rates are chosen with
            the fold after it as validation; pre-training stays on the rooms.
        seeds: each repeats pre-training and fine-tuning.
        task: of fine-tuning.
        freeze: -1: a frozen probe.
        is_exploratory: False only where the endpoint was named before and is the study's only one.
        rooms: the data. tune: what is chosen on validation.
        pretrain_steps, pretrain_batch, pretrain_rate: the same for all that are pre-trained.
        finetune_steps, finetune_batch: of fine-tuning; lengths of the tuning multiply the first.
        head: of fine-tuning.
    """

    name: str = "primary"
    question: str = "Does Mask3D's pre-training make an RGB encoder better at naming things when labels are few?"
    endpoint: str = "semantic mIoU on test rooms, Mask3D minus each other start, at each label fraction"
    preset: str = "micro"
    starts: tuple[str, ...] = (RANDOM, COLORS_SHOWN, "rgb-to-depth", "mae")
    where_reachable: tuple[str, ...] = ()
    reference: str = COLORS_SHOWN
    fractions: tuple[float, ...] = (0.01, 0.1)
    folder: str = ""
    folds: tuple[str, ...] = ()
    seeds: int = 5
    task: str = "segment"
    freeze: int = 0
    is_exploratory: bool = False
    rooms: RoomsData = field(default_factory=RoomsData)
    tune: TuneConfig = field(default_factory=TuneConfig)
    pretrain_steps: int = 1000
    pretrain_batch: int = 32
    pretrain_rate: float = 8e-3
    finetune_steps: int = 150
    finetune_batch: int = 16
    head: HeadConfig = field(default_factory=lambda: HeadConfig("linear", cells=2))

    @property
    def conditions(self) -> tuple[float | str, ...]:
        """What every start is tried under: label fractions, or folds of real frames."""
        return self.folds or self.fractions

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [f"{name} must be at least 1; got {getattr(self, name)}" for name in (
            "seeds", "pretrain_steps", "pretrain_batch", "finetune_steps", "finetune_batch") if getattr(self, name) < 1]
        if len(set(self.starts)) != len(self.starts) or not self.starts:
            found.append(f"starts must be different ones; got {self.starts}")
        if self.reference not in self.starts:
            found.append(f"reference must be one of the starts; got {self.reference!r}")
        if not self.fractions or any(not 0 < f <= 1 for f in self.fractions):
            found.append(f"fractions must lie in 0..1, above 0; got {self.fractions}")
        if bool(self.folds) != bool(self.folder) or len(self.folds) in (1, 2):
            found.append(f"real frames want a folder and at least three folds; got {self.folder!r} and {self.folds}")
        if self.rooms.test_rooms < 2 or self.rooms.val_rooms < 1 or self.rooms.train_rooms < 1:
            found.append("a study wants at least 2 test rooms, or nothing can be said of other rooms, and one to train on and to validate; "
                         f"got {self.rooms.test_rooms}, {self.rooms.train_rooms} and {self.rooms.val_rooms}")
        if self.task not in ("segment", "depth"):
            found.append(f"a study's task is segment or depth; got {self.task!r}")
        if 1.0 not in self.tune.lengths:
            found.append(f"tune.lengths must hold 1, the length at which rates are compared; got {self.tune.lengths}")
        if any(not start.startswith("timm:") or start in self.starts for start in self.where_reachable):
            found.append(f"where_reachable names timm:<name> starts that are not among starts; got {self.where_reachable}")
        for start in self.starts:
            if is_pretrained_here(start):
                try:
                    self.pretraining(start, 0, Path("."))
                except ConfigError as problem:
                    found += [f"start {start}: {line}" for line in problem.problems]
        return found

    def validate(self) -> StudyConfig:
        """Itself, or a ConfigError that lists all problems at once."""
        found = self.problems()
        if found:
            raise ConfigError(found, "study")
        return self

    def pretraining(self, start: str, seed: int, store: Path) -> PretrainConfig:
        """The pre-training of a start.

        Raises:
            ConfigError: an unknown control or key.
        """
        control, *changes = start.split(";")
        if control not in CONTROLS:
            raise ConfigError(f"a start is {RANDOM}, one of {', '.join(CONTROLS)} (with changes after ;), timm:<name> or a "
                              f"checkpoint; got {start!r}")
        base = pretrain_config(self.preset, control)
        values = to_dict(base)
        for change in changes:
            key, _, text = change.partition("=")
            *parents, last = SHORT.get(key, key).split(".")
            place: Any = values
            for name in parents:
                place = place.get(name, {}) if isinstance(place, dict) else {}
            if last not in place:
                raise ConfigError(f"unknown key {key!r}; short ones are {', '.join(SHORT)}")
            try:
                place[last] = json.loads(text)
            except ValueError:
                place[last] = text
        made = from_dict(PretrainConfig, values, start)
        fit = replace(made.fit, steps=self.pretrain_steps, batch_size=self.pretrain_batch, learning_rate=self.pretrain_rate, seed=seed,
                      eval_every=0, save_every=max(1, self.pretrain_steps // 4))
        return replace(made, data=str(store), name=f"{self.preset}/{start}", mask=replace(made.mask, seed=seed), fit=fit,
                       preview=0, eval_frames=64).validate()

    def finetuning(self, start: str, condition: float | str, seed: int, stores: dict[str, Path], choice: dict[str, float],
                   is_trial: bool = False) -> FinetuneConfig:
        """A fine-tuning run.

        Args:
            start: as ``open_start`` wants it: "random", "timm:...", or the path of a run.
            condition: a label fraction, or the fold that tests.
            is_trial: choose on validation: of folds, the one after the tested one takes its place, and that one is not used.
            stores: "train", "val" and "test".
            choice: learning_rate, layer_decay and length.
        """
        model = pretrain_config(self.preset).model
        fit = FitConfig(steps=max(1, round(self.finetune_steps * choice["length"])), batch_size=self.finetune_batch,
                        learning_rate=choice["learning_rate"], beta2=0.999, seed=seed, warmup=0.1, log_every=50)
        if self.folds:
            after = self.folds[(self.folds.index(condition) + 1) % len(self.folds)]
            data: dict[str, Any] = {"data": str(stores["real"]), "hold_out": (after if is_trial else condition,),
                                    "leave_out": (condition,) if is_trial else ()}
        else:
            data = {"data": str(stores["train"]), "validation_data": str(stores["val"]), "test_data": str(stores["test"]),
                    "label_fraction": condition}
        return finetune_config(self.task, **data, start=start, shape=model.rgb, patch=model.patch, image_size=model.image_size,
                               head=self.head, label_seed=seed, freeze=self.freeze, layer_decay=choice["layer_decay"],
                               drop_path=0.0 if self.freeze == -1 else FinetuneConfig.drop_path, eval_frames=0, preview=0, fit=fit,
                               name=f"{self.name}/{self.task}")


def is_pretrained_here(start: str) -> bool:
    """Whether the study trains this start itself."""
    return start != RANDOM and not start.startswith(("timm:", "random:", "step-zero:")) and not is_checkpoint(start)


def is_checkpoint(start: str) -> bool:
    """Whether a start is a path."""
    return start.split(";")[0] not in CONTROLS and (Path(start).exists() or Path(f"{start}.json").exists())


def label_of(start: str) -> str:
    """What tables call a start; ratios are per cent of the colour hidden / of the depth hidden."""
    if start.startswith("timm:"):
        name, file = split_name(start[5:])
        return f"timm {name}" + (f"@{Path(file).name}" if file else "")
    if start in LABELS or not is_pretrained_here(start):
        return LABELS.get(start, start)
    control, *changes = start.split(";")
    name = {"mask3d": "Mask3D"}.get(control, LABELS.get(control, control))
    for change in [change for change in changes if change.startswith("ratios=")]:
        name += " " + " or ".join("/".join(f"{100 * share:g}" for share in pair) for pair in json.loads(change[7:]))
        changes.remove(change)
    return ", ".join([name, *changes])


def ratios_of(start: str) -> tuple[float, float] | None:
    """Shares of colour and depth that a Mask3D start hides, where these alone are changed and are one pair; else None."""
    control, *changes = start.split(";")
    if control != "mask3d" or len(changes) != 1 or not changes[0].startswith("ratios="):
        return None
    pairs = json.loads(changes[0][7:])
    return (float(pairs[0][0]), float(pairs[0][1])) if len(pairs) == 1 else None


def fingerprint(values: Any) -> str:
    """A short hash of plain values or of a configuration."""
    plain = values if isinstance(values, (dict, list, str)) else to_dict(values)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=list).encode()).hexdigest()[:16]


def said_of(condition: float | str) -> str:
    """A label fraction or a fold, as tables name it."""
    return condition.removesuffix("/*") if isinstance(condition, str) else f"{condition:.0%}"


WITHOUT_DEPTH = 'mask3d;inputs=["rgb"];ratios=[[0.8,1.0]]'
_PROBE = dict(freeze=-1, fractions=(0.1,), seeds=3, is_exploratory=True)
_PROBE_RATES = TuneConfig(learning_rates=(3.2e-2, 1.28e-1, 5.12e-1), layer_decays=(1.0,), lengths=(1.0,))  # about the best of `recipe`
STUDIES: dict[str, StudyConfig] = {
    "primary": StudyConfig(),
    "recipe": StudyConfig(
        "recipe", "How much must be hidden for colour to be needed? What the primary study's recipe was chosen by, on validation alone: "
        "mask3d study recipe --trials.", "none: exploratory", pretrain_steps=600,
        starts=(RANDOM, "mask3d", "mask3d;ratios=[[0.8,0.95]]", "mask3d;ratios=[[0.5,0.95]]", "mask3d;ratios=[[0.8,0.8],[0.5,1.0]]",
                "mask3d;ratios=[[0.5,1.0]]", "mask3d;ratios=[[0.0,0.95]]", COLORS_SHOWN, "rgb-to-depth", "mae"),
        tune=TuneConfig(learning_rates=(1.6e-2, 6.4e-2, 2.56e-1), layer_decays=(1.0,), lengths=(1.0,)), **_PROBE),
    "strange": StudyConfig(
        "strange", "The same where any material covers anything, and half the frames bend over a table: the primary study as it was "
        "first laid out.", "none: exploratory", is_exploratory=True, rooms=RoomsData(plain=0.0, desk=0.5), pretrain_steps=1200,
        starts=(RANDOM, "mask3d", "rgb-to-depth", "mae"), reference="mask3d"),
    "starts": StudyConfig(
        "starts", "Which of the starts helps?", "none: exploratory",
        starts=(RANDOM, COLORS_SHOWN, "mask3d", WITHOUT_DEPTH, "rgb-to-depth", "multimae", "mae"),
        where_reachable=("timm:vit_tiny_patch16_224.augreg_in21k",), seeds=3, is_exploratory=True),
    "depth": StudyConfig("depth", "Does it help to see depth in colour, which favours depth targets by construction?", "none: exploratory",
                         task="depth", seeds=3, is_exploratory=True),
    "tables": StudyConfig(
        "tables", "Does it help on real frames? Table tops, one type of scene left out in turn.", "none: exploratory",
        folder="../shared/data/mosd_learn", folds=("boxes/*", "stacked/*", "occluded/*", "cylindric/*"), is_exploratory=True,
        seeds=3, finetune_steps=150, finetune_batch=8, tune=TuneConfig(lengths=(1.0,))),
    "long": StudyConfig(
        "long", "The primary study again, with schedules of up to sixteen times the shortest for everyone: is what pre-training buys more "
        "than a shorter fine-tuning?", "none: exploratory", is_exploratory=True, seeds=3, tune=TuneConfig(lengths=(1.0, 4.0, 16.0))),
    "factors": StudyConfig(
        "factors", "Which choice of ours matters? One factor at a time from the default, read off a frozen encoder.",
        "none: exploratory", pretrain_steps=250, tune=_PROBE_RATES,
        starts=(RANDOM, COLORS_SHOWN, *(f"{COLORS_SHOWN};{change}" for change in (
            "loss=l2", "loss=berhu", "counted=all", "normalisation=standardised", "fusion=concat_channels", "fusion=concat_tokens",
            "normal=0.5", "multi_scale=0.5", "gradient=0.5"))), **_PROBE),
    "ratios": StudyConfig(
        "ratios", "How much to hide? RGB ratio by depth ratio, read off a frozen encoder.", "none: exploratory",
        pretrain_steps=250, tune=_PROBE_RATES,
        starts=(RANDOM, *(f"mask3d;ratios=[[{a},{b}]]" for a in (0.0, 0.4, 0.8, 0.95) for b in (0.4, 0.8, 0.95, 1.0))), **_PROBE),
}
