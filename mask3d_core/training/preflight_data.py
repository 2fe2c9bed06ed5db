"""What a pre-flight asks of the frames and their labels: scenes, classes, holes. See :mod:`mask3d_core.training.preflight`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from mask3d_core.doctor.report import Finding, many
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.models.starts import Start
from mask3d_core.objects import frame_objects, thing_classes
from mask3d_core.splits import BY_TIME
from mask3d_core.store import Store
from mask3d_core.tasks.depth import crop_of
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, is_torn_officially, overlaps

LOOKED_AT = {"train": 200, "val": 60, "test": 60}  # frames whose labels and depth are read, evenly spread
FEW_FRAMES = 8  # labelled training frames below which a score tells little of a recipe
STRETCH = 1.05  # of one side against the other that is said
NAMED = 6  # classes that are named in a line


@dataclass
class Parts:
    """What the questions are asked about; each is there once it could be opened.

    Args:
        config: of the run.
        start: the opened encoder.
        frames: part ("train", "val", "test") to its store and int64 (k,) indices.
        used: int64 (k,), the training frames whose labels are used.
    """

    config: FinetuneConfig
    start: Start | None = None
    frames: dict[str, tuple[Store, np.ndarray]] = field(default_factory=dict)
    used: np.ndarray | None = None

    @property
    def store(self) -> Store:
        """Of the training frames."""
        return self.frames["train"][0]

    def looked_at(self, part: str) -> tuple[Store, np.ndarray]:
        """The frames of a part that are read: of the training frames only those whose labels are used."""
        store, indices = self.frames[part]
        indices = self.used if part == "train" else indices
        most = min(len(indices), LOOKED_AT[part])
        return store, indices[np.unique(np.linspace(0, len(indices) - 1, most).round().astype(int))] if most else indices

    def is_anywhere(self, part: str, holds: Callable[[Store, int], bool]) -> bool:
        """Whether any frame of a part holds something; for what the frames looked at do not hold."""
        store, indices = self.frames[part]
        return any(holds(store, int(index)) for index in (self.used if part == "train" else indices))


def check_scenes(parts: Parts) -> Finding:
    """No sequence in two parts."""
    store = parts.store
    sequences = {part: len(np.unique(s.sequence_index[indices])) for part, (s, indices) in parts.frames.items()}
    torn = overlaps(parts.frames)
    if torn:
        said = ", ".join(f"{many(count, 'sequence')} of the {second} part {'also train' if first == 'train' else 'also validate'}"
                         for (first, second), count in torn.items())
        numbers = {**sequences, **{f"torn_{second}" if first == "train" else f"torn_{first}_{second}": count
                                   for (first, second), count in torn.items()}}
        if all(is_torn_officially(parts.frames[first], parts.frames[second]) for first, second in torn):
            return Finding("scenes", "warn", f"{said}: the data set's own split is so. Its numbers compare with published ones, and are of "
                           "rooms that were seen in training", numbers)
        return Finding("scenes", "error", f"{said}; a score on them would be of rooms seen before. Split by sequence: prepare the store "
                       "again with split=auto, or name stores with other recordings", numbers)
    if store.header.split_kind == BY_TIME and not parts.config.hold_out:
        return Finding("scenes", "warn", f"{store.header.split_rule}: scores will be of a room seen in training. A second "
                       "recording would say more", sequences)
    return Finding("scenes", "ok", f"no scene is in two parts: {sequences['train']} train, {sequences['val']} validate, "
                   f"{sequences['test']} test", sequences)


def check_labelled_frames(parts: Parts) -> Finding:
    """How many labelled scenes and frames are used, and how often each is seen; a warning where they are few."""
    config, used = parts.config, len(parts.used)
    sequences = len(np.unique(parts.store.sequence_index[parts.used]))
    passes = config.fit.steps * config.fit.batch_size * config.fit.accumulate / used
    said = (f"{config.label_fraction:.0%} of the training scenes: {many(sequences, 'scene')}, {many(used, 'labelled frame')}, "
            f"each seen about {passes:.3g} times")
    numbers = {"frames": used, "sequences": sequences, "passes": passes}
    if used < FEW_FRAMES:
        return Finding("labelled frames", "warn", said + ". So few tell little: raise label_fraction, or repeat with other "
                                                         "label_seeds",
                       numbers)
    return Finding("labelled frames", "ok", said, numbers)


def check_labels(parts: Parts) -> list[Finding]:
    """Ids beyond the classes; classes that are never learned or never measured; what is not scored."""
    names = parts.store.header.class_names
    counts, looked, objects = {}, {}, {}
    things = thing_classes(parts.config.detect.things, names) if parts.config.task == "detect" else ()
    for part in parts.frames:
        store, chosen = parts.looked_at(part)
        counts[part], objects[part], looked[part] = np.zeros(256, np.int64), np.zeros(256, np.int64), len(chosen)
        for index in chosen if store.semantic is not None else ():
            ids = store.semantic[index]
            counts[part] += np.bincount(ids.ravel(), minlength=256)
            if things and store.instance is not None:
                semantic, instance = (torch.from_numpy(a.astype(np.int64)) for a in (ids, store.instance[index]))
                objects[part] += np.bincount(frame_objects(semantic, instance, things).labels.numpy(), minlength=256)
    words = f"looked at {looked['train']} training, {looked['val']} validation and {looked['test']} test frames"
    beyond = sorted({int(k) for part in counts for k in np.flatnonzero(counts[part][:IGNORE_LABEL])} - set(range(len(names))))
    if beyond:
        return [Finding("labels", "error", f"ids {', '.join(map(str, beyond[:NAMED]))} have no class name ({len(names)} "
                        f"classes, 0..{len(names) - 1}): the class map does not fit this data set ({words})", {"beyond": beyond})]
    train = counts["train"][:len(names)]
    found = []
    never = [k for k in range(len(names)) if not train[k] and (counts["val"][k] or counts["test"][k])]
    nowhere = [k for k in range(len(names)) if not any(counts[part][k] for part in counts)]
    share = {name: float(count / train.sum()) for name, count in zip(names, train)}
    numbers = {"share": share, "looked_at": looked, "never_learned": [names[k] for k in never],
               "nowhere": [names[k] for k in nowhere]}
    most = max(share, key=share.get)
    said = f"{len(names)} classes, all ids have a name; most frequent in the used labels: {most}, {share[most]:.0%} of the pixels"
    if nowhere:
        said += f"; nowhere: {_some([names[k] for k in nowhere])}"
    if never:
        found.append(Finding("labels", "warn", f"never in the used training labels, but scored: "
                             f"{_some([names[k] for k in never])}. Their IoU will be 0; use more labels. "
                             f"{said} ({words})", numbers))
    else:
        found.append(Finding("labels", "ok", f"{said} ({words})", numbers))
    if things:
        found += _objects(parts, things, objects, looked)
    return found


def unscorable(part: str, what: str) -> Finding:
    """A part that cannot be scored, as many data sets keep the labels of their test part to themselves.

    Args:
        what: there is none of.
    """
    remedy = "score the validation part (--split val)" if part == "test" else "use select=last, and score another part"
    return Finding("labels", "warn", f"no {what}, so it cannot be scored: {remedy}", {"unscorable": part})


def _objects(parts: Parts, things: tuple[int, ...], objects: dict[str, np.ndarray], looked: dict[str, int]) -> list[Finding]:
    """The objects that are there, and the classes that are asked for but have none.

    Args:
        objects: part to int64 (256,), objects of the frames looked at, by class id.
        looked: part to how many frames were looked at.
    """
    def has_object(store: Store, index: int) -> bool:
        return store.instance is not None and bool((np.isin(store.semantic[index], things) & (store.instance[index] > 0)).any())

    empty = {part: not counts.sum() and bool(looked[part]) and not parts.is_anywhere(part, has_object) for part, counts in objects.items()}
    names, train = parts.store.header.class_names, objects["train"]
    there, missing = ([names[k] for k in things if bool(train[k]) == is_there] for is_there in (True, False))
    where = f"in {many(looked['train'], 'training frame')}"
    if empty["train"]:
        return [Finding("objects", "error", f"no instance of: {_some(missing)} {where}. There is nothing to detect; name other "
                                            "classes in detect.things, or use more labels")]
    found = [unscorable(part, f"object of the classes asked for in the {part} part") for part in ("val", "test") if empty[part]]
    said = f"{many(int(train.sum()), 'object')} of {_some(there)} {where}"
    numbers = {"objects": int(train.sum()), "things": [names[k] for k in things], "without_instance": missing}
    if missing:
        return [Finding("objects", "warn", f"{said}; no instance of: {_some(missing)}. What has none cannot be learned: name "
                                           "those that have some in detect.things, or use more labels", numbers), *found]
    return [Finding("objects", "ok", said, numbers), *found]


def check_scored_part(parts: Parts) -> Finding:
    """What of a frame is scored, and where that is not what published numbers are of."""
    config, doubts, numbers = parts.config, [], {}
    is_whole = config.view == "whole"
    said = "validation and test frames are scored whole" if is_whole else "only the centre crop of the stored frames is scored"
    for part in ("val", "test"):
        store, indices = parts.frames[part]
        if not len(indices):
            continue
        frames = HeldOut(store, indices, config.image_size, view=config.view)
        numbers[f"{part}_share"] = frames.share
        stretch = (store.header.width / config.image_size[1]) / (store.header.height / config.image_size[0])
        if is_whole and not 1 / STRETCH <= stretch <= STRETCH:
            doubts.append(f"{store.header.height}x{store.header.width} ({part}) is brought to {config.image_size[0]}x"
                          f"{config.image_size[1]}: stretched by {max(stretch, 1 / stretch) - 1:.0%} in one direction, training is not. "
                          "Choose an image_size of the frames' aspect")
        if config.task == "depth" and store.first_source.get("source") == "nyuv2" and crop_of(config.depth, store) == "none":
            doubts.append(f"{store.path} ({part}) is of NYUv2, whose published depth errors are of the Eigen crop: with depth.crop "
                          "\"none\" the numbers do not compare; use \"auto\" or \"eigen\"")
        elif config.task == "depth" and crop_of(config.depth, store) == "eigen":
            said += f", {part}: the Eigen crop of them"
    shares = " and ".join(f"{value:.0%} of {name[:-6]}" for name, value in numbers.items() if value < 1 - 1e-9)
    if shares:
        said += f" ({shares})"
    return Finding("scored part", "warn" if doubts else "ok", ". ".join([said, *doubts]), numbers)


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def check_holes(parts: Parts) -> Finding:
    """What is not labelled, not measured, and therefore not scored."""
    unlabelled, unmeasured, far, pixels, looked = 0, 0, 0, 0, 0
    has_labels = parts.config.task != "depth" and parts.store.semantic is not None
    for part in parts.frames:
        store, chosen = parts.looked_at(part)
        limit = parts.config.depth.max_depth * store.header.depth_units_per_metre
        looked += len(chosen)
        for index in chosen:
            depth = store.depth[index]
            pixels += depth.size
            unmeasured += int((depth == 0).sum())
            far += int((depth > limit).sum())
            if has_labels:
                unlabelled += int((store.semantic[index] == IGNORE_LABEL).sum())
    numbers = {"unlabelled": unlabelled / pixels, "unmeasured": unmeasured / pixels, "looked_at": looked}
    measured = f"{unmeasured / pixels:.1%} of the pixels were never measured"
    if has_labels:
        share = unlabelled / pixels
        said = (f"{share:.1%} of the pixels have no class: neither learned from nor scored. {measured}, which matters not: only "
                "colour is fed")
        if parts.config.task == "detect":
            said += "; detection learns them as background"
    else:
        share = (unmeasured + far) / pixels
        numbers["beyond_range"] = far / pixels
        said = (f"{measured} and {far / pixels:.1%} lie beyond {parts.config.depth.max_depth:g} m: neither learned from nor "
                f"scored")
    if share == 1:
        return Finding("holes", "error", f"{said}. Nothing is left to learn from", numbers)
    return Finding("holes", "warn" if share > 0.5 else "ok", f"{said} ({many(looked, 'frame')} looked at)", numbers)


__all__ = ["LOOKED_AT", "Parts", "check_holes", "check_labelled_frames", "check_labels", "check_scenes", "check_scored_part"]
