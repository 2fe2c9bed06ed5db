"""Detection and instance segmentation: RGB in, boxes, masks, classes and scores out.

What is an object is said in :mod:`mask3d_core.objects`. Targets are made after augmentation, so a box always fits its mask. A
pixel without a class belongs to no object: training takes it for background (torchvision's Mask R-CNN knows no third answer),
scoring leaves it out (:mod:`mask3d_core.evaluation.detection`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mask3d_core.batches import Batch
from mask3d_core.evaluation.detection import DetectionScores, coco_results
from mask3d_core.models.detector import Detector
from mask3d_core.objects import FrameObjects, decode_mask, frame_objects
from mask3d_core.tasks import LossSum
from mask3d_core.training.config import to_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.held_out import HeldOut, marked
from mask3d_core.training.schedule import layer_decay

SHOWN = ("mask_ap", "mask_ap50", "box_ap")  # of the periodic evaluation
DRAWN = 30  # detections per previewed frame, best first

Shown = tuple[np.ndarray, np.ndarray, int, float]  # mask, box, class id, score


def batch_objects(batch: Batch, things: Sequence[int], smallest: int) -> list[FrameObjects]:
    """The objects of each frame of a batch that was read with "semantic" and "instance" labels."""
    return [frame_objects(semantic, instance, things, smallest)
            for semantic, instance in zip(batch.semantic, batch.instance, strict=True)]


def score_objects(answer: Callable[[Batch], list[list[dict[str, Any]]]], frames: HeldOut, class_names: Sequence[str],
                  things: Sequence[int], smallest: int) -> DetectionScores:
    """Collect an answer's detections and the truth, streamed.

    Args:
        answer: from a batch to the COCO results of each frame, at the batch's size.
        frames: read with "semantic" and "instance" labels.
        class_names: by class id. things: class ids that are scored.
        smallest: objects of fewer pixels are ignored.
    """
    scores = DetectionScores(class_names, things)
    for batch, sequences in frames:
        for truth, results, sequence in zip(batch_objects(batch, things, smallest), answer(batch), sequences, strict=True):
            scores.add(truth, results, sequence)
    return scores


def detect_batch(model: Detector, batch: Batch) -> list[list[dict[str, Any]]]:
    """A detector's answer for :func:`score_objects`."""
    return coco_results(model.detect(batch.color), tuple(batch.color.shape[-2:]))


class Detect:
    """The task the engine trains.

    A loss of torchvision is a mean over regions that it draws at random in the whole batch; times the number of frames it is the
    sum that the engine wants. Two micro-batches draw other regions than one batch of both, so they agree on average only. The
    draws come from torch's generator, which the engine saves: a resumed run repeats them (bit for bit on a CPU; torchvision's
    backward pass through the pooled regions adds up in no fixed order on a GPU).

    Args:
        config: the whole run.
        model: its ``things`` are class ids of the data set.
        validation: frames of the periodic evaluation, or None.
        class_names: by class id.
        data: what the checkpoint's record says about the data.
    """

    name = "detect"

    def __init__(self, config: FinetuneConfig, model: Detector, validation: HeldOut | None, class_names: Sequence[str],
                 data: dict[str, Any]):
        self.config, self.model, self.validation, self.data = config, model, validation, data
        self.shown = validation  # the fixed frames of previews
        self.class_names, self.things = tuple(class_names), model.config.things
        self.selection = ("mask_ap", True) if config.select == "best" else None
        self.layer_scale = layer_decay(config.layer_decay, len(model.encoder.blocks))

    def loss(self, model: nn.Module, batch: Batch, step: int) -> LossSum:
        """The sum of Mask R-CNN's five losses."""
        targets = [one.as_target() for one in batch_objects(batch, self.things, self.config.detect.smallest)]
        losses = model(batch.color, targets)
        frames = torch.tensor(float(len(batch)), device=batch.color.device)
        return LossSum(sum(losses.values()) * frames, frames, {name: value.detach() * frames for name, value in losses.items()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mask AP, mask AP50 and box AP of the validation frames."""
        if self.validation is None:
            return {}
        found = score_objects(lambda batch: detect_batch(model, batch), self.validation, self.class_names, self.things,
                              self.config.detect.smallest).scores()
        return {name: found[name] for name in SHOWN if np.isfinite(found[name])}

    def preview(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Objects of the fixed frames with the truth, as small arrays.

        ``object_ids`` and ``truth_ids`` are uint8 (n, h, w): 0 nothing, k the k-th object of the frame, the best score on top.
        ``object_labels`` and ``truth_labels`` are int16 (n, m), class ids, -1 where the frame has fewer; ``object_boxes`` and
        ``truth_boxes`` float32 (n, m, 4), left, top, right, bottom; ``object_scores`` float32 (n, m); ``is_ignored`` bool.
        """
        batch = self.shown.first(self.config.preview) if self.shown is not None else None
        if batch is None:
            return {}
        truth = batch_objects(batch, self.things, self.config.detect.smallest)
        found = [frame[:DRAWN] for frame in detect_batch(model, batch)]
        arrays = {"color": (batch.color * 255).round().byte().cpu().numpy(),
                  "is_ignored": torch.stack([one.is_ignored for one in truth]).cpu().numpy()}
        for name, frames in (("truth", [_of_truth(one) for one in truth]), ("object", [_of_results(one) for one in found])):
            arrays |= _padded(name, frames, batch.color.shape[-2:])
        return marked(arrays, self.shown, self.validation)

    def record(self) -> dict[str, Any]:
        """Configuration, classes and data of the run."""
        return {"task": self.name, "training": to_dict(self.config), "class_names": list(self.class_names),
                "things": [self.class_names[k] for k in self.things], "data": self.data}

    def extras(self) -> dict[str, Tensor]:
        """Nothing travels along."""
        return {}

    def may_leave_unused(self) -> bool:
        """Weights of a timm model that no patch passes through (its own head's norm, say) get no gradient."""
        return self.config.start.startswith("timm:")


def _of_truth(one: FrameObjects) -> list[Shown]:
    """Mask, box, class and score 1 of up to 255 objects."""
    parts = zip(one.masks.cpu().numpy(), one.boxes.cpu().numpy(), one.labels.tolist())
    return [(mask, box, label, 1.0) for mask, box, label in parts][:255]


def _of_results(results: list[dict[str, Any]]) -> list[Shown]:
    """Mask, box, class and score of each detection."""
    boxes = (np.array(one["bbox"]) + [0, 0, *one["bbox"][:2]] for one in results)
    return [(decode_mask(one["segmentation"]), box, one["category_id"], one["score"]) for one, box in zip(results, boxes)]


def _padded(name: str, frames: list[list[Shown]], size: Sequence[int]) -> dict[str, np.ndarray]:
    """Objects of several frames as arrays of one shape; see ``Detect.preview``."""
    most = max((len(frame) for frame in frames), default=0)
    ids = np.zeros((len(frames), *size), np.uint8)
    labels = np.full((len(frames), most), -1, np.int16)
    boxes, scores = np.zeros((len(frames), most, 4), np.float32), np.zeros((len(frames), most), np.float32)
    for number, frame in enumerate(frames):
        for place in reversed(range(len(frame))):  # the best last, so on top
            mask, boxes[number, place], labels[number, place], scores[number, place] = frame[place]
            ids[number][mask] = place + 1
    return {f"{name}_ids": ids, f"{name}_labels": labels, f"{name}_boxes": boxes, f"{name}_scores": scores}
