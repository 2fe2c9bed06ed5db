"""Fine-tuning configuration: one for every downstream task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mask3d_core.batches import AugmentConfig
from mask3d_core.errors import ConfigError
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.heads import HeadConfig
from mask3d_core.training.config import FitConfig

TASKS = ("segment", "depth", "detect")
SELECTIONS = ("last", "best")
VIEWS = ("whole", "centre")


@dataclass(frozen=True)
class DepthConfig:
    """Monocular depth.

    Args:
        loss: "silog" (scale-invariant logarithmic error of Eigen et al. 2014, with half its mean kept) or "l1" of the log.
        balance: how much of the mean error silog forgives, 0..1; 0.85 as in BTS and AdaBins.
        max_depth: metres; truth beyond is neither trained on nor scored.
        clamp: predictions are brought into the range, up to ``max_depth``, before they are scored, as NYUv2's usual protocol does.
        crop: "none", or "eigen": only the pixels that NYUv2's usual protocol scores (Eigen et al. 2014). "auto": "eigen" where the
            scored store came from NYUv2.
        reference_focal: depth is made camera-independent with it (pixels at the training size).
    """

    loss: str = "silog"
    balance: float = 0.85
    max_depth: float = 10.0
    clamp: bool = True
    crop: str = "auto"
    reference_focal: float = 260.0

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [f"depth.{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}" for name, allowed in
                 (("loss", ("silog", "l1")), ("crop", ("auto", "none", "eigen"))) if getattr(self, name) not in allowed]
        found += [f"depth.{name} must be positive; got {getattr(self, name)}" for name in ("max_depth", "reference_focal")
                  if getattr(self, name) <= 0]
        if not 0 <= self.balance <= 1:
            found.append(f"depth.balance must lie in 0..1; got {self.balance}")
        return found


@dataclass(frozen=True)
class DetectConfig:
    """Instance segmentation and detection: torchvision's Mask R-CNN on a simple feature pyramid (ViTDet, Li et al. 2022).

    Args:
        things: names of the classes that are objects; the others are background. Empty: all classes but walls, floors, roads and
            their like (``objects.STUFF``).
        width: channels of the pyramid (256 in ViTDet).
        smallest: objects of fewer pixels than this are left out of the training targets and of the truth.
        samples: regions per frame that the heads learn from (512 in torchvision).
        proposals: regions per frame that are looked at (2000 in training and 1000 later in torchvision).
        min_score: detections below this are dropped.
        most: detections kept per picture.
    """

    things: tuple[str, ...] = ()
    width: int = 128
    smallest: int = 32
    samples: int = 128
    proposals: int = 500
    min_score: float = 0.05
    most: int = 100

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = [f"detect.{name} must be at least 1; got {getattr(self, name)}" for name in
                 ("width", "smallest", "samples", "proposals", "most") if getattr(self, name) < 1]
        if not 0 <= self.min_score < 1:
            found.append(f"detect.min_score must lie in 0..1; got {self.min_score}")
        return found


@dataclass(frozen=True)
class FinetuneConfig:
    """A whole fine-tuning run: colour in.

    Args:
        task: "segment", "depth" or "detect".
        data: a prepared store; its training frames are learned from. Frames without any label (of depth: without any measured pixel)
            are left out everywhere, so a recording may be labelled here and there.
        validation_data, test_data: other stores whose frames validate and test; empty: the store's own splits. Of another store
            its split of that name is taken, or all of it where it has none.
        hold_out: patterns of sequence names (as in a shell, "boxes/*") that test: all other frames of ``data`` train, and nothing
            validates. Empty: the store's splits.
        leave_out: patterns of sequence names that are not used at all.
        start: where the encoder comes from: "random", "timm:<name>", "timm:<name>@<file>" or a checkpoint (see ``models.starts``).
        shape, patch: the architecture of "random" and the side of its patches in pixels; other starts bring their own.
        image_size: (height, width) of training and scoring; labels are brought to it by nearest neighbour.
        head: what is put on the encoder (segment, depth).
        label_fraction: share of the labelled training *sequences* that are used, 0..1; drawn with ``label_seed``. A smaller
            share lies within a larger one.
        label_seed: of that draw.
        freeze: blocks of the encoder, from the first, that do not learn (the embedding neither); -1 = the whole encoder.
        layer_decay: learning rate of each block as a share of that of the block above it (0.65..0.8 is usual with MAE; 1 = none).
        drop_path: stochastic depth.
        view: what of a stored frame is scored, in validation too: "whole", all of it brought to ``image_size``, each side by its
            own factor; or "centre", a crop of its middle (stores are a little larger than the training size).
        select: which weights are scored: "last", or "best" on validation. Never by the test split.
        eval_frames: validation frames scored at every evaluation, evenly spaced; 0 = all.
        preview: how many fixed validation frames are predicted at every evaluation; training frames where none validates.
        depth, detect: of those tasks.
        augment, fit: as in pre-training.
        name: for the record.
    """

    task: str = "segment"
    data: str = "stores/new"
    validation_data: str = ""
    test_data: str = ""
    hold_out: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    start: str = "random"
    shape: EncoderConfig = field(default_factory=EncoderConfig)
    patch: int = 16
    image_size: tuple[int, int] = (240, 320)
    head: HeadConfig = field(default_factory=HeadConfig)
    label_fraction: float = 1.0
    label_seed: int = 0
    freeze: int = 0
    layer_decay: float = 0.75
    drop_path: float = 0.1
    view: str = "whole"
    select: str = "last"
    eval_frames: int = 64
    preview: int = 4
    depth: DepthConfig = field(default_factory=DepthConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=1000, batch_size=16, learning_rate=8e-3, beta2=0.999,
                                                             eval_every=100, save_every=100))
    name: str = ""

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        found = (self.shape.problems("shape") + self.head.problems() + self.depth.problems() + self.detect.problems()
                 + self.augment.problems() + self.fit.problems())
        for name, allowed in (("task", TASKS), ("view", VIEWS), ("select", SELECTIONS)):
            if getattr(self, name) not in allowed:
                found.append(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if not 0 < self.label_fraction <= 1:
            found.append(f"label_fraction is a share in 0..1, above 0; got {self.label_fraction}")
        if self.freeze < -1:
            found.append(f"freeze is a number of blocks, or -1 for the whole encoder; got {self.freeze}")
        if not 0 < self.layer_decay <= 1:
            found.append(f"layer_decay must lie in 0..1, above 0; got {self.layer_decay}")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path is a chance in 0..1; got {self.drop_path}")
        if self.hold_out and (self.validation_data or self.test_data):
            found.append("hold_out says which sequences test; leave validation_data and test_data out")
        if self.hold_out and self.select == "best":
            found.append("select=best needs validation frames, and hold_out leaves none; use select=last")
        if self.eval_frames < 0 or self.preview < 0:
            found.append(f"eval_frames and preview must be at least 0; got {self.eval_frames}, {self.preview}")
        if self.patch < 1:
            found.append(f"patch must be at least 1 pixel; got {self.patch}")
        if not self.start:
            found.append("start must be random, timm:<name> or a checkpoint")
        return found

    def validate(self) -> FinetuneConfig:
        """Itself, or a ConfigError that lists all problems at once."""
        found = self.problems()
        if found:
            raise ConfigError(found)
        return self


def finetune_config(task: str = "segment", **changes: Any) -> FinetuneConfig:
    """The recipe of a task; ``changes`` replace whole fields of :class:`FinetuneConfig`. The paper's values are not known.

    AdamW with layer-wise decay and stochastic depth as in MAE's fine-tuning, shortened for a small machine.
    """
    base = FinetuneConfig(task=task)
    if task == "depth":
        base = replace(base, head=HeadConfig("dpt"))
    elif task == "detect":  # its steps cost several times as much
        base = replace(base, fit=replace(base.fit, batch_size=8, learning_rate=3.2e-2))
    return replace(base, **{"name": task, **changes}).validate()
