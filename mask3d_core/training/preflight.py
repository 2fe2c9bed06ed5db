"""What a fine-tuning is asked before it may start: one finding per question, in words, with the numbers behind it.

Frames are read one at a time, some hundred at most; how many is said. Nothing that stays is written and no weight is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mask3d_core.doctor.report import Finding, many
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.models.starts import open_start
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.finetuning import LABELS, build_dense, build_detector, labelled_share, seen_frames
from mask3d_core.training.held_out import part_of, truth_words, with_truth
from mask3d_core.training.preflight_cost import cost_findings
from mask3d_core.training.preflight_data import (
    LOOKED_AT,
    Parts,
    check_holes,
    check_labelled_frames,
    check_labels,
    check_scenes,
    check_scored_part,
    unscorable,
)
from mask3d_core.training.running import check_same_run


def preflight(config: FinetuneConfig, device: str | None = None, measure: bool = True, run: str | Path | None = None
              ) -> tuple[Finding, ...]:
    """Ask everything that would spoil a fine-tuning, or its score, before it starts.

    Args:
        config: of the run.
        device: "cpu" or "cuda", for the measured steps; None: the GPU if there is one.
        measure: train a few steps on copies and say what the run will take.
        run: the run folder, if it is known: whether another run lies there, and the room on its disk.

    Returns:
        Findings; one of severity "error" means that the run would not start, or that its score would mean nothing.
    """
    parts, found = Parts(config), []
    problems = config.problems()
    found.append(Finding("configuration", "error", "; ".join(problems)) if problems else _configuration(config))
    if problems:
        return tuple(found)
    if run is not None:
        found.append(_asked("run folder", lambda: [_run_folder(config, Path(run))])[0])
    found += _asked("data", lambda: _data(parts))
    if "train" in parts.frames:
        found += _asked("scenes", lambda: [check_scenes(parts)])
        found += _asked("labelled frames", lambda: [check_labelled_frames(parts)])
        if config.task != "depth" and parts.store.semantic is not None:
            found += _asked("labels", lambda: check_labels(parts))
        found += _asked("holes", lambda: [check_holes(parts)])
        found += _asked("scored part", lambda: [check_scored_part(parts)])
    found += _asked("start", lambda: [_start(parts)])
    if parts.start is not None and "train" in parts.frames:
        found += _asked("not seen before", lambda: [_not_seen(parts)])
        found += _asked("head", lambda: [_head(parts)])
        if measure and not any(f.severity == "error" for f in found):
            found += _asked("cost", lambda: cost_findings(config, parts.start, parts.store, parts.used, _scored(parts), device,
                                                          None if run is None else Path(run)))
    return tuple(found)


def refuse_vain(config: FinetuneConfig, split: str = "") -> None:
    """The cheap questions: what would make a run, or its score, worth nothing. Some hundred frames' labels are read.

    Args:
        config: of the run.
        split: what is to be scored at the end, if it is known.

    Raises:
        ConfigError: all that was found.
    """
    parts = Parts(config)
    found = _data(parts)
    if "train" in parts.frames:
        found.append(check_scenes(parts))
        if config.task == "depth":
            found.append(check_holes(parts))
        elif parts.store.semantic is not None and parts.store.header.class_names:
            found += check_labels(parts)
    problems = [finding.text for finding in found if finding.severity == "error"]
    wanted = {split} | ({"val"} if config.select == "best" else set())
    problems += [finding.text for finding in found if finding.numbers.get("unscorable") in wanted]
    if problems:
        raise ConfigError(problems)


def _asked(check: str, ask: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings, or one that says why the question could not be asked."""
    try:
        return ask()
    except ConfigError as problem:
        return [Finding(check, "error", "; ".join(problem.problems))]
    except (Mask3DError, OSError) as problem:
        return [Finding(check, "error", " ".join(str(problem).split()))]


def _configuration(config: FinetuneConfig) -> Finding:
    fit, size = config.fit, config.image_size
    frozen = {0: "the whole encoder learns", -1: "the encoder is frozen"}.get(config.freeze, f"{config.freeze} blocks are frozen")
    frames = fit.batch_size * fit.accumulate
    head = "Mask R-CNN" if config.task == "detect" else config.head.kind
    return Finding("configuration", "ok", f"{config.task} at {size[0]}x{size[1]}, {fit.steps} steps of {frames} frames, "
                   f"head {head}, {frozen}; the {config.select} weights are scored",
                   {"steps": fit.steps, "frames_per_step": frames})


def _run_folder(config: FinetuneConfig, run: Path) -> Finding:
    from mask3d_core.training.checkpoint import latest_state

    check_same_run(run, config)
    state = latest_state(run / "state")
    if state is None:
        return Finding("run folder", "ok", f"{run}: a new run")
    return Finding("run folder", "ok", f"{run} holds this very run, saved at step {state[1].get('step')}: it goes on from there")


def _data(parts: Parts) -> list[Finding]:
    """Opens the stores; later questions need them."""
    config, problems = parts.config, []
    whole = {part: part_of(config, part, only_with_truth=False) for part in ("train", "val", "test")}
    store = whole["train"][0]
    for part, (other, indices) in whole.items():
        needed = LABELS[config.task] if len(indices) else ()
        missing = [name for name in needed if getattr(other, name) is None]
        if missing:
            problems.append(f"{other.path} ({part}) holds no {' and no '.join(missing)} labels; prepare it from a labelled "
                            f"source")
        if other.header.height < config.image_size[0] or other.header.width < config.image_size[1]:
            problems.append(f"the frames of {other.path} ({other.header.height}x{other.header.width}) are smaller than "
                            f"image_size {config.image_size[0]}x{config.image_size[1]}; choose a smaller one, or "
                            "prepare them larger")
        if needed and tuple(other.header.class_names) != tuple(store.header.class_names):
            problems.append(f"{other.path} ({part}) has other classes than {store.path}")
    if config.task != "depth" and not store.header.class_names:
        problems.append(f"the store {store.path} names no classes, so labels mean nothing; prepare it from a source with "
                        f"class names")
    if not len(whole["train"][1]):
        problems.append(f"the store {store.path} has no training frames ({store.header.split_rule})")
    frames = {part: (other, indices[with_truth(other, config.task)[indices]]) for part, (other, indices) in whole.items()}
    if len(whole["train"][1]) and not len(frames["train"][1]):
        problems.append(f"no pixel of the {len(whole['train'][1])} training frames of {store.path} {truth_words(config.task)}")
    elif len(frames["train"][1]):
        parts.frames = frames
        parts.used = labelled_share(store, frames["train"][1], config.label_fraction, config.label_seed)
    if problems:
        return [Finding("data", "error", problem) for problem in problems]
    return [_counted(parts, {part: len(indices) for part, (_, indices) in whole.items()}),
            *(unscorable(part, f"pixel of the {part} part {truth_words(config.task)}") for part in ("val", "test")
              if len(whole[part][1]) and not len(frames[part][1]))]


def _counted(parts: Parts, whole: dict[str, int]) -> Finding:
    """How many frames of each part can be learned from or scored.

    Args:
        whole: part to its frames, with truth or without.
    """
    counts = {part: len(indices) for part, (_, indices) in parts.frames.items()}
    said = f"{parts.store.path}: {counts['train']} training, {counts['val']} validation, {counts['test']} test frames"
    without = {part: f"{whole[part] - counts[part]} of {whole[part]} {part}" for part in whole if whole[part] > counts[part]}
    if without:
        what = "measured pixel" if parts.config.task == "depth" else "label"
        said += f"; left out, as they have no {what}: {', '.join(without.values())} frames"
    if not counts["test"]:
        return Finding("data", "warn", said + ". No frames to test with: there will be no final score of frames that nothing "
                       "was chosen on", counts)
    if not counts["val"]:
        return Finding("data", "warn", said + ". No validation frames: nothing is scored while it trains", counts)
    return Finding("data", "ok", said, counts)


def _start(parts: Parts) -> Finding:
    """Opens the start and says what it was trained to predict."""
    config = parts.config
    with torch.random.fork_rng(devices=[]):
        parts.start = start = open_start(config.start, config.image_size, config.patch, config.fit.seed, config.shape)
    weights = sum(p.numel() for p in start.vit.parameters())
    size = f"{weights / 1e6:.1f} M weights, {len(start.vit.blocks)} blocks, patches of {start.patch}"
    kind, seen = start.record.get("kind"), start.record.get("frames_seen")
    numbers = {"kind": kind or "none", "frames_seen": seen, "patch": start.patch, "blocks": len(start.vit.blocks),
               "width": start.vit.embed_dim}
    if kind is None:
        known = {"timm": "timm's weights; what they were trained on is in timm's model card",
                 "step-zero": "a checkpoint's architecture as its training began"}
        words = known.get(config.start.partition(":")[0], "random weights: nothing was learned before")
        return Finding("start", "ok", f"{start.record['start']}: {words}; {size}", numbers)
    words, target = _target(config.start, kind)
    ago = f", {seen:,} frames seen" if seen else ""
    return Finding("start", "ok", f"{start.record['start']}: {words}{ago}; {size}", {**numbers, "target": target})


def _target(path: str, kind: str) -> tuple[str, str]:
    """What a checkpoint was trained to predict, in words and as a key."""
    from mask3d_core.training.checkpoint import read_json, stem

    record = read_json(stem(path).with_name(stem(path).name + ".json"))
    if kind in ("finetuned", "detector"):
        return f"fine-tuned before ({record.get('task')})", "finetuned"
    model = record.get("model", {}) if kind == "mask3d" else record.get("record", {}).get("model", {})
    targets, depth = model.get("targets"), model.get("target", {})
    if not targets:
        return "an exported encoder whose record does not say what it was trained to predict", "unknown"
    said = []
    if "depth" in targets:
        said.append({"metric": "depth in metres", "standardised": "depth standardised by each frame's visible pixels"}.get(
            depth.get("normalisation"), "depth") + f" ({depth.get('representation')})")
    if "rgb" in targets:
        said.append("colour as normalised pixels (as MAE)")
    fed = " and ".join(model.get("inputs", []))
    return f"pre-trained to predict {' and '.join(said)} from {fed}", "+".join([*targets, depth.get("normalisation", "")][:3])


def _not_seen(parts: Parts) -> Finding:
    seen = {}
    for part in ("val", "test"):
        store, indices = parts.frames[part]
        seen[part] = int(seen_frames(store, indices, parts.start.record).sum())
    if any(seen.values()):
        said = ", ".join(f"{count} of {len(parts.frames[part][1])} {part} frames" for part, count in seen.items() if count)
        return Finding("not seen before", "error", f"{said} were in the start's own training data; a score on them would say "
                       "nothing. Use a start that has not seen them, or other stores in validation_data and test_data", seen)
    total = sum(len(parts.frames[part][1]) for part in seen)
    return Finding("not seen before", "ok", f"none of the {total} validation and test frames was in the start's own training "
                                            f"data", seen)


def _head(parts: Parts) -> Finding:
    """The model can be built with the start's weights in it."""
    config, start = parts.config, parts.start
    names = parts.store.header.class_names
    with torch.random.fork_rng(devices=[]):
        if config.task == "detect":
            model = build_detector(config, start, names)
            words = f"Mask R-CNN over {many(len(model.config.things), 'class')}"
        else:
            model = build_dense(config, start, 1 if config.task == "depth" else len(names))
            read = ", ".join(str(layer + 1) for layer in model.layers)
            words = f"{config.head.kind} head on block {read} of {len(start.vit.blocks)}"
    rows, columns = (side // start.patch for side in config.image_size)
    own = start.vit.patch_embed.grid_size
    grid = f"a grid of {rows}x{columns} patches"
    if (rows, columns) != tuple(own):
        grid += f", position codes interpolated from {own[0]}x{own[1]}"
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Finding("head", "ok", f"{words}; {grid}; {learns / 1e6:.2f} M weights learn",
                   {"learning": learns, "grid": [rows, columns]})


def _scored(parts: Parts) -> dict[str, int]:
    """Frames scored at each evaluation and at the end."""
    val, test = (len(parts.frames[part][1]) for part in ("val", "test"))
    limit = parts.config.eval_frames
    return {"val": min(val, limit) if limit else val, "test": test}


__all__ = ["LOOKED_AT", "preflight", "refuse_vain"]
