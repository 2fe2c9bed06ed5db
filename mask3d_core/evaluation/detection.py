"""Detection and instance segmentation measured by COCO's own evaluator, streamed, with intervals over rooms.

AP, AP50 and AP75 are what pycocotools' ``COCOeval`` says (area "all", at most 100 detections per picture), over the classes
that occur in the truth. Objects are kept as run lengths, never as pixels of a whole data set.

Pixels that the truth knows nothing of are handled by COCO's rule for crowds: a detection that matches no object and lies on
ignored pixels with at least the asked-for share (0.5 for AP50, say) is neither right nor wrong. Two things are said more
sharply than COCO does, because sensor holes are scattered over the picture while crowds are compact. A predicted mask is
compared without its ignored pixels; and the share of a *box* on ignored pixels is that of the detection's mask, since the box
around scattered holes is the whole picture and would forgive everything.

pycocotools and not a faster equal: the rule above is put into its ``computeIoU``, and the intervals need its matches per
picture; rewrites in C++ keep both inside.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.statistics import Estimate, resampled
from mask3d_core.objects import FrameObjects, encode_mask, mask_tools

KINDS = {"mask": "segm", "box": "bbox"}  # our word and pycocotools'
SHARES = {"ap": None, "ap50": 0.5, "ap75": 0.75}  # None: the mean over 0.5, 0.55, ... 0.95
METRICS = tuple(f"{kind}_{name}" for kind in KINDS for name in SHARES)
MOST = 100  # detections per picture, as COCO
_CHUNK = 2_000_000  # entries of (draws, detections) that are held at once
PROTOCOL = ("COCO AP over IoU 0.50..0.95 (pycocotools, all areas, at most 100 detections per picture), mean over the classes "
            "in the truth; ignored pixels by COCO's crowd rule, and taken out of predicted masks")


def coco_results(detections: Sequence[dict[str, Any]], size: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """A detector's objects as COCO results (without image id), drawn at a size of the caller's choice.

    Args:
        detections: as ``Detector.detect`` gave them.
        size: (height, width) of the picture that is asked about.

    Returns:
        For each frame a list, best first, of "category_id" (our class id), "bbox" [left, top, width, height] in pixels, "score"
        and "segmentation" (compressed run lengths, plain text); objects without a pixel at this size are left out.
    """
    from mask3d_core.models.detector import paste_mask

    found = []
    for one in detections:
        down, across = size[0] / one["size"][0], size[1] / one["size"][1]
        boxes, masks = (one["boxes"] * one["boxes"].new_tensor([across, down] * 2)).cpu(), one["masks"].cpu()
        frame = []
        for box, mask, label, score in zip(boxes, masks, one["labels"].tolist(), one["scores"].tolist(), strict=True):
            pixels = paste_mask(mask, box, size, scale=(down, across))
            if not bool(pixels.any()):
                continue
            left, top, right, bottom = box.tolist()
            frame.append({"category_id": int(label), "bbox": [left, top, right - left, bottom - top], "score": float(score),
                          "segmentation": encode_mask(pixels)})
        found.append(frame)
    return found


class DetectionScores:
    """Objects and detections collected frame by frame, scored when they are asked for.

    Args:
        class_names: of the data set, by class id.
        things: class ids that are scored.
    """

    def __init__(self, class_names: Sequence[str], things: Sequence[int]):
        self.class_names, self.things = tuple(class_names), tuple(things)
        self.truth: list[dict[str, Any]] = []
        self.detections: list[dict[str, Any]] = []
        self.sequences: list[str] = []  # of each frame
        self.sizes: list[list[int]] = []
        self.pixels = self.ignored_pixels = 0

    def add(self, truth: FrameObjects, results: Sequence[dict[str, Any]], sequence: str) -> None:
        """One frame.

        Args:
            truth: its objects.
            results: its detections at the truth's size, as :func:`coco_results` gives them.
            sequence: the recording or room it belongs to.

        Raises:
            ConfigError: a detection of a class that is not scored, or at another size.
        """
        tools, image, size = mask_tools(), len(self.sequences), [int(side) for side in truth.is_ignored.shape]
        wrong = [r for r in results if r["category_id"] not in self.things or list(r["segmentation"]["size"]) != size]
        if wrong:
            raise ConfigError(f"detections must be of the classes {list(self.things)} at {size[0]}x{size[1]}; got class "
                              f"{wrong[0]['category_id']} at {wrong[0]['segmentation']['size']}")
        self.__dict__.pop("evaluators", None)  # what was scored before this frame is out of date
        self.sequences.append(sequence)
        self.sizes.append(size)
        ignored, counted = encode_mask(truth.is_ignored), encode_mask(~truth.is_ignored)
        self.pixels += size[0] * size[1]
        self.ignored_pixels += int(tools.area(ignored))
        for mask, label, box in zip(truth.masks, truth.labels.tolist(), truth.boxes.tolist(), strict=True):
            self._keep_truth(image, label, encode_mask(mask), [box[0], box[1], box[2] - box[0], box[3] - box[1]], crowd=0)
        if tools.area(ignored):
            for label in self.things:
                self._keep_truth(image, label, ignored, tools.toBbox(ignored).tolist(), crowd=1)
        for result in results:
            whole = int(tools.area(result["segmentation"]))
            kept = tools.merge([result["segmentation"], counted], intersect=True)
            self.detections.append({
                "id": len(self.detections) + 1, "image_id": image, "category_id": result["category_id"],
                "score": result["score"], "bbox": result["bbox"], "segmentation": kept, "area": whole, "iscrowd": 0,
                "ignored": 1 - int(tools.area(kept)) / whole if whole else 0.0})

    def _keep_truth(self, image: int, label: int, encoded: dict[str, Any], box: list[float], crowd: int) -> None:
        # ids count from 1: COCOeval takes a match with id 0 for none
        self.truth.append({"id": len(self.truth) + 1, "image_id": image, "category_id": label, "segmentation": encoded,
                           "bbox": box, "area": int(mask_tools().area(encoded)), "iscrowd": crowd})

    @property
    def objects(self) -> int:
        """How many objects the truth has."""
        return sum(1 for one in self.truth if not one["iscrowd"])

    def _coco(self, annotations: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO

        made = COCO()
        made.dataset = {"images": [{"id": k, "height": h, "width": w} for k, (h, w) in enumerate(self.sizes)],
                        "categories": [{"id": k, "name": self.class_names[k]} for k in self.things],
                        "annotations": [dict(one) for one in annotations]}  # the evaluator writes into them
        made.createIndex()
        return made

    @cached_property
    def evaluators(self) -> dict[str, Any]:
        """pycocotools' evaluator after its work, for masks and for boxes."""
        kind_of = _evaluator_class()
        found = {}
        with contextlib.redirect_stdout(io.StringIO()):
            truth, detections = self._coco(self.truth), self._coco(self.detections)
            for kind, word in KINDS.items():
                made = kind_of(truth, detections, word)
                made.params.areaRng, made.params.areaRngLbl, made.params.maxDets = [[0, 1e10]], ["all"], [MOST]
                made.evaluate()
                made.accumulate()
                found[kind] = made
        return found

    def _table(self, metric: str) -> np.ndarray:
        """float64 (classes,): the evaluator's AP of each class, NaN where the truth has none."""
        kind, name = metric.split("_")
        made = self.evaluators[kind]
        precision = made.eval["precision"][:, :, :, 0, 0]  # (thresholds, recalls, classes)
        if SHARES[name] is not None:
            precision = precision[np.isclose(made.params.iouThrs, SHARES[name])]
        mean = precision.mean(axis=(0, 1))
        return np.where(mean < 0, np.nan, mean)

    def scores(self) -> dict[str, float]:
        """The six numbers, 0..1; NaN where the truth has no object."""
        tables = {metric: self._table(metric) for metric in METRICS}
        return {metric: float(np.nanmean(t)) if np.isfinite(t).any() else math.nan for metric, t in tables.items()}

    def per_class(self, metric: str = "mask_ap") -> dict[str, float]:
        """A score by class name; NaN where the truth lacks the class."""
        return {self.class_names[k]: float(v) for k, v in zip(self.things, self._table(metric), strict=True)}

    def _weighted(self, metric: str) -> Any:
        """From how often each sequence is drawn, (draws, sequences), to the score of each draw, (draws,)."""
        kind, name = metric.split("_")
        made = self.evaluators[kind]
        levels = np.arange(len(made.params.iouThrs)) if SHARES[name] is None else \
            np.flatnonzero(np.isclose(made.params.iouThrs, SHARES[name]))
        _, of_frame = np.unique(np.asarray(self.sequences), return_inverse=True)
        curves = [_matches(made, number, len(self.sequences)) for number in range(len(self.things))]

        step = max(1, _CHUNK // max(1, len(self.detections)))

        def score(times: np.ndarray) -> np.ndarray:
            weights = times[:, of_frame]
            table = np.stack([np.concatenate([_average_precision(weights[k:k + step], *curve, levels, made.params.recThrs)
                                              for k in range(0, len(weights), step)]) for curve in curves])
            known = np.isfinite(table)
            with np.errstate(invalid="ignore"):
                return np.where(known, table, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)

        return score

    def estimate(self, metric: str = "mask_ap", level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
        """A score with its interval from drawing whole sequences again; matches are kept, precision is added up anew."""
        return resampled(np.eye(len(set(self.sequences))), self._weighted(metric), level, resamples, seed)

    def difference(self, other: DetectionScores, metric: str = "mask_ap", level: float = 0.95, resamples: int = 1000,
                   seed: int = 0) -> Estimate:
        """This minus another answer's score on the same frames, drawn again together.

        Raises:
            ConfigError: other frames.
        """
        if self.sequences != other.sequences:
            raise ConfigError("both answers must be scored on the same frames in the same order")
        mine, others = self._weighted(metric), other._weighted(metric)
        return resampled(np.eye(len(set(self.sequences))), lambda times: mine(times) - others(times), level, resamples, seed)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not a number becomes None."""
        plain = lambda v: v if math.isfinite(v) else None  # noqa: E731
        return {**{k: plain(v) for k, v in self.scores().items()},
                **{f"{m}_interval": self.estimate(m).as_dict() for m in METRICS},
                "classes": {kind: {k: plain(v) for k, v in self.per_class(f"{kind}_ap").items()} for kind in KINDS},
                "objects": self.objects, "detections": len(self.detections), "frames": len(self.sequences),
                "sequences": len(set(self.sequences)), "ignored_share": self.ignored_pixels / max(1, self.pixels)}


def _evaluator_class() -> type:
    """pycocotools' evaluator with our rule for ignored pixels."""
    mask_tools()
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        """Overlap with an ignored region is the share of the detection's mask that lies on it, for masks and boxes alike."""

        def computeIoU(self, imgId, catId):
            found = super().computeIoU(imgId, catId)
            crowd = [number for number, one in enumerate(self._gts[imgId, catId]) if one["iscrowd"]]
            made = self._dts[imgId, catId]
            if len(found) and crowd:
                order = np.argsort([-one["score"] for one in made], kind="mergesort")[:self.params.maxDets[-1]]
                found[:, crowd] = np.array([made[k]["ignored"] for k in order])[:, None]
            return found

    return Evaluator


def _matches(made: Any, number: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the evaluator matched of one class: right and wrong, bool (thresholds, n), best score first; the frame of each
    detection (n,); and how many objects each frame has, (frames,)."""
    found = [one for one in made.evalImgs[number * frames:(number + 1) * frames] if one is not None]
    objects = np.zeros(frames)
    for one in found:
        objects[one["image_id"]] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
    if not found:
        empty = np.zeros((len(made.params.iouThrs), 0), bool)
        return empty, empty, np.zeros(0, int), objects
    order = np.argsort(-np.concatenate([one["dtScores"] for one in found]), kind="mergesort")
    matched = np.concatenate([one["dtMatches"] for one in found], axis=1)[:, order] > 0
    ignored = np.concatenate([one["dtIgnore"] for one in found], axis=1)[:, order].astype(bool)
    frame = np.concatenate([np.full(len(one["dtScores"]), one["image_id"]) for one in found])[order].astype(int)
    return matched & ~ignored, ~matched & ~ignored, frame, objects


def _average_precision(weights: np.ndarray, right: np.ndarray, wrong: np.ndarray, frame: np.ndarray, objects: np.ndarray,
                       levels: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """COCO's average precision of one class where each frame counts as often as it was drawn.

    Args:
        weights: (draws, frames). right, wrong, frame, objects: as :func:`_matches`. levels: which thresholds, averaged.
        recalls: where precision is read off.

    Returns:
        (draws,), NaN where no object was drawn.
    """
    total = weights @ objects
    found = np.full(len(weights), np.nan)
    if not frame.size:
        return np.where(total > 0, 0.0, np.nan)
    times = weights[:, frame]
    sums = np.zeros(len(weights))
    for level in levels:
        hits, misses = np.cumsum(times * right[level], axis=1), np.cumsum(times * wrong[level], axis=1)
        precision = hits / (hits + misses + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for draw in np.flatnonzero(total > 0):
            place = np.searchsorted(hits[draw] / total[draw], recalls, side="left")
            sums[draw] += precision[draw, place[place < frame.size]].sum() / len(recalls)
    found[total > 0] = sums[total > 0] / len(levels)
    return found
