"""What speaks against a run, in words a person can act on, and the runs it is compared with."""

from __future__ import annotations

from pathlib import Path

from mask3d_core.errors import CheckpointError, Mask3DError
from mask3d_core.masking import visible_count
from mask3d_core.plan_report import Plan, ReferenceRun, duration, share, size
from mask3d_core.shipped import shipped
from mask3d_core.training.checkpoint import read_json
from mask3d_core.training.config import PretrainConfig

PARAMETERS_PER_FRAME = 2500
"""Rule of thumb, ours: with fewer distinct frames than parameters / 2500 a model learns them by heart before it learns
rooms; tiny needs some 3,000, base some 50,000. (Mask3D's own data, every 25th frame of ScanNet, is some 100,000.)"""

MAE_EPOCHS, IMAGENET = 1600, 1_281_167
PUBLISHED = (ReferenceRun("MAE on ImageNet", MAE_EPOCHS * IMAGENET,
                          "1600 epochs of 1,281,167 pictures; He et al., CVPR 2022"),)
SHIPPED = shipped("data", "checkpoints")

USUAL_RATES = (1e-5, 3e-3)  # peak rates; MAE's, with 4096 frames per step, is 2.4e-3
USUAL_FRAMES_PER_STEP = (16, 8192)
FEW_RECORDINGS = 10
LONG_BETWEEN_SAVES = 3600.0  # seconds


def reference_runs(path: Path | None, name: str) -> tuple[ReferenceRun, ...]:
    """The runs to compare with: one of our own whose record says ``frames_seen``, and a published one.

    Args:
        path: a checkpoint's JSON or a folder of them; None: what ships, if it is there.
        name: of the configuration; a run of this name goes before others, a long one before short ones.

    Raises:
        Mask3DError: ``path`` is given and holds no such run.
    """
    place = SHIPPED if path is None else path
    files = sorted(place.glob("*.json")) if place.is_dir() else [place] if place.is_file() else []
    found = []
    for file in files:
        try:
            record = read_json(file)
        except CheckpointError:
            if path == file:
                raise
            continue  # a folder may hold other things
        frames = record.get("frames_seen")
        if record.get("kind") == "mask3d" and type(frames) is int and frames > 0:
            training = record.get("training")
            its_name = str(training.get("name", file.stem)) if isinstance(training, dict) else file.stem
            found.append((its_name == name, frames, ReferenceRun(f"{file.stem} ({its_name})", frames, file.name)))
    if path is not None and not found:
        raise Mask3DError("a checkpoint's JSON that says frames_seen, or a folder of them",
                          "none" if files or path.is_dir() else "no such file or folder",
                          "Name one, or leave it out to compare with what ships.", path)
    best = max(found, key=lambda item: item[:2], default=None)
    return (*([best[2]] if best else []), *PUBLISHED)


def advice(config: PretrainConfig, plan: Plan, validation_frames: int, valid_share: float | None) -> tuple[str, ...]:
    """Everything that speaks against this run, most costly first.

    Args:
        config: the run.
        plan: measured, without warnings.
        validation_frames: how many are scored at each evaluation.
        valid_share: share of the store's pixels that were measured, or None.
    """
    return (*_resources(config, plan), *_data(config, plan, validation_frames, valid_share), *_recipe(config, plan),
            *_measurement(plan))


def _resources(config: PretrainConfig, plan: Plan) -> list[str]:
    found = []
    if plan.memory_bytes is not None and plan.memory_limit is not None and plan.memory_bytes > plan.memory_limit:
        parts = -(-plan.batch_size // plan.measured_batch)
        found.append(f"does not fit into memory: it needs about {size(plan.memory_bytes)} and {size(plan.memory_limit)} are "
                     f"there; fit.batch_size={plan.measured_batch} fit.accumulate={parts * plan.accumulate} takes the same "
                     "steps in smaller parts, or choose a smaller preset")
    if plan.disk_peak > plan.disk_free:
        found.append(f"does not fit on the disk: {size(plan.disk_peak)} and {size(plan.disk_free)} are free; lower fit.keep "
                     "or choose another disk")
    if plan.store_bytes is not None and plan.memory_limit is not None and plan.store_bytes > plan.memory_limit \
            and plan.device.startswith("cpu"):
        found.append(f"the training split is {size(plan.store_bytes)}, more than memory holds: the steps measured here may "
                     "have read from memory what the run will read from disk")
    interval = config.fit.save_every * plan.step_seconds
    if plan.saves == 1 and plan.total_seconds > LONG_BETWEEN_SAVES:
        found.append(f"nothing is saved before the end: a power cut loses up to {duration(plan.total_seconds)}; set "
                     "fit.save_every")
    elif interval > LONG_BETWEEN_SAVES:
        found.append(f"saved every {duration(interval)} only, and a power cut loses up to that; lower fit.save_every")
    aside = plan.evaluations * plan.evaluation_seconds + plan.saves * plan.save_seconds
    if aside > 0.2 * plan.total_seconds and plan.total_seconds > 60:
        found.append(f"evaluating and saving take {share(aside / plan.total_seconds)} of the time; raise fit.eval_every and "
                     "fit.save_every, or lower eval_frames")
    if plan.waited > 0.3:
        cure = ("prepare a store of rooms once (`mask3d prepare rooms`) and train on it" if config.data == "rooms" else
                "put the store on a faster disk, or give the run more CPU threads")
        found.append(f"{share(plan.waited)} of each step waits for its batch; {cure}")
    return found


def _data(config: PretrainConfig, plan: Plan, validation_frames: int, valid_share: float | None) -> list[str]:
    found, frames = [], plan.distinct_frames
    if frames is not None and not config.overfit:
        needed = plan.parameters // PARAMETERS_PER_FRAME
        if frames < needed:
            found.append(f"too little data for this preset: {frames:,} distinct frames for {plan.parameters / 1e6:.0f} M "
                         f"parameters; rule of thumb (ours): {needed:,} or more. Add recordings or rooms, choose a smaller "
                         "preset, or continue a checkpoint with --init")
        if plan.epochs > MAE_EPOCHS:
            found.append(f"each frame is seen {plan.epochs:,.0f} times, more than MAE's {MAE_EPOCHS}; fewer fit.steps will do")
        elif plan.epochs < 1:
            found.append(f"only {share(plan.epochs)} of the training frames are ever seen; raise fit.steps to see all")
        if plan.recordings is not None and plan.recordings < FEW_RECORDINGS:
            found.append(f"all frames come from {plan.recordings} recording(s): neighbours in a video are near copies, so "
                         "this is less data than the number of frames says")
        if not validation_frames:
            found.append("the store has no validation frames: no scores and no pictures while training")
    if config.overfit:
        found.append(f"overfit={config.overfit}: a check that the model can learn at all, not a training run")
    if valid_share is not None and valid_share < 0.5:
        found.append(f"only {share(valid_share)} of the pixels hold a depth; look at the data with `mask3d doctor`")
    return found


def _recipe(config: PretrainConfig, plan: Plan) -> list[str]:
    found, fit = [], config.fit
    peak = fit.learning_rate * plan.frames_per_step / 256
    if not USUAL_RATES[0] <= peak <= USUAL_RATES[1]:
        found.append(f"unusual learning rate: the peak is {peak:.2g} (fit.learning_rate x {plan.frames_per_step} / 256); "
                     f"{USUAL_RATES[0]:g} to {USUAL_RATES[1]:g} is usual")
    if not USUAL_FRAMES_PER_STEP[0] <= plan.frames_per_step <= USUAL_FRAMES_PER_STEP[1]:
        found.append(f"unusual batch: {plan.frames_per_step} frames per step; {USUAL_FRAMES_PER_STEP[0]} to "
                     f"{USUAL_FRAMES_PER_STEP[1]} is usual")
    count = config.model.grid[0] * config.model.grid[1]
    for place, name, what in ((0, "rgb", "RGB encoder, which is what is kept,"), (1, "depth", "depth encoder")):
        if name not in config.model.inputs:
            continue
        shown = [visible_count(pair[place], count) for pair in config.mask.ratios]
        if not any(shown):
            found.append(f"the {what} never sees anything: every pair of mask.ratios hides all {name}")
        few = [pair for pair, number in zip(config.mask.ratios, shown, strict=True) if 0 < number < 4]
        if few:
            found.append(f"mask.ratios {', '.join(map(str, few))} leave fewer than 4 of {count} {name} patches visible")
    pairs = len(set(config.mask.ratios))
    if fit.compile and pairs > 1:
        found.append(f"fit.compile with {pairs} pairs of ratios compiles anew for new shapes; the start will take longer "
                     "than measured")
    if fit.precision == "bf16" and plan.device.startswith("cpu"):
        from mask3d_core.training.precision import cpu_has_bf16

        if not cpu_has_bf16():
            found.append("this CPU multiplies bf16 in software, slowly; fit.precision=auto chooses float32")
    ours = plan.references[0] if len(plan.references) > 1 else None
    if ours is not None and plan.frames_seen < 0.1 * ours.frames_seen and config.init in ("random",):
        found.append(f"sees {share(plan.frames_seen / ours.frames_seen)} of the frames of {ours.name}; expect less of it")
    return found


def _measurement(plan: Plan) -> list[str]:
    found = []
    if plan.load_average is not None and plan.load_average > plan.cores:
        found.append(f"other work kept this machine busy ({plan.load_average:.1f} running on {plan.cores} cores); alone the "
                     "run will be faster than measured")
    if plan.measured_batch < plan.batch_size:
        found.append(f"measured with batches of {plan.measured_batch} instead of {plan.batch_size} and scaled")
    if plan.step_error > 0.25 * plan.step_seconds:
        found.append(f"the measured steps differ a lot ({share(plan.step_error / plan.step_seconds)} uncertain); measure "
                     "again with more steps or on a quiet machine")
    return found
