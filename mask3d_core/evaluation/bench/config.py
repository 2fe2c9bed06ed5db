"""The bench's protocol: everything that is the same for every encoder, in one frozen place."""

from __future__ import annotations

from dataclasses import dataclass

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.metrics import METRICS as DEPTH_METRICS
from mask3d_core.evaluation.metrics import Metric

DEPTH, NORMALS, SEMANTICS, MATCHING = "depth", "normals", "semantics", "correspondence"
TASKS = (DEPTH, NORMALS, SEMANTICS, MATCHING)
LINEAR, NEAREST, UNTRAINED = "linear", "k-NN", "no training"  # how an answer is read off frozen features
READOUTS = {DEPTH: (LINEAR, NEAREST), NORMALS: (LINEAR, NEAREST), SEMANTICS: (LINEAR, NEAREST), MATCHING: (UNTRAINED,)}
TRAIN, VAL, TEST = "train", "val", "test"
PARTS = (TRAIN, VAL, TEST)

METRICS: dict[str, dict[str, Metric]] = {
    DEPTH: {name: DEPTH_METRICS[name] for name in ("abs_rel", "rmse", "mae", "delta1")},
    NORMALS: {"mean": Metric("mean angle", "deg", True, "mean angle to the true normal, per frame"),
              "median": Metric("median angle", "deg", True, "median angle, per frame"),
              "within_11": Metric("< 11.25 deg", "", False, "share of normals within 11.25 degrees"),
              "within_22": Metric("< 22.5 deg", "", False, "share within 22.5 degrees"),
              "within_30": Metric("< 30 deg", "", False, "share within 30 degrees")},
    SEMANTICS: {"miou": Metric("mIoU", "", False, "mean intersection over union, one confusion matrix over all frames"),
                "mean_accuracy": Metric("mean accuracy", "", False, "mean over classes of the share found"),
                "pixel_accuracy": Metric("pixel accuracy", "", False, "share of labelled pixels")},
    MATCHING: {"recall_1": Metric("recall, 1 patch", "", False, "share matched within one patch of the true place"),
               "recall_2": Metric("recall, 2 patches", "", False, "share matched within two patches"),
               "recall_25cm": Metric("recall, 25 cm", "", False, "share matched within 25 cm in space"),
               "median_cm": Metric("median error", "cm", True, "median distance in space, per pair of views")}}
"""By task; the first of each task is its main number: the one that layers and strengths are chosen by."""

FAVOURED = (DEPTH, NORMALS)  # by construction, of encoders that were trained to predict depth
FAVOURED_WORDS = "depth and normals favour, by construction, encoders that were trained to predict depth"
NO_INSTANCES = "instances are not asked of a frozen encoder here: `mask3d finetune --task detect --freeze -1` trains Mask R-CNN on one"
SELECTION = ("For every encoder, task and readout alike, the layer and the strength (linear) or the number of neighbours "
             "(k-NN) are those with the best main number on the validation frames, from one grid for all; the test frames are "
             "scored once, with that choice.")


def main_metric(task: str) -> str:
    """The metric that a task is chosen and drawn by."""
    return next(iter(METRICS[task]))


@dataclass(frozen=True)
class BenchConfig:
    """How encoders are measured. Every value is ours.

    Args:
        size: (height, width) of pictures and of truth, pixels.
        cell: side of a cell in pixels: pictures are scaled so that every encoder has one patch per cell.
        parts: depth and normals are answered for parts x parts of each cell and scored at every pixel.
        layers: how many layers are tried, evenly spaced and ending with the last.
        strengths: of the ridge (depth, normals), relative to standardised features.
        class_strengths: of the squared weights in the logistic regression (semantics).
        class_steps: most steps of L-BFGS for each strength.
        neighbours: how many nearest patches are tried.
        patches_per_frame: training patches that are kept of each frame, drawn with ``seed``.
        max_megabytes: of kept training features; beyond it fewer patches are kept, and the result says how many.
        max_depth: truth beyond this many metres is neither fitted nor scored.
        reference_focal: depth is made camera-independent (times this over the camera's fx) before it is fitted.
        least_measured: share of a cell's pixels that must be measured, or labelled, before it is fitted.
        least_matches: a pair of views with fewer places that both see is not scored.
        batch_size: frames at a time.
        seed: of the drawn patches.
    """

    size: tuple[int, int] = (240, 320)
    cell: int = 16
    parts: int = 4
    layers: int = 4
    strengths: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    class_strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    class_steps: int = 40
    neighbours: tuple[int, ...] = (1, 5, 20, 80)
    patches_per_frame: int = 64
    max_megabytes: float = 512.0
    max_depth: float = 10.0
    reference_focal: float = 260.0
    least_measured: float = 0.25
    least_matches: int = 12
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [f"{name} must be positive; got {getattr(self, name)}" for name in (
            "cell", "parts", "layers", "class_steps", "patches_per_frame", "max_megabytes", "max_depth", "reference_focal",
            "least_measured", "least_matches", "batch_size") if getattr(self, name) <= 0]
        if self.cell > 0 and (self.size[0] % self.cell or self.size[1] % self.cell or min(self.size) < self.cell):
            problems.append(f"size must be multiples of the cell of {self.cell} pixels; got {self.size[0]}x{self.size[1]}")
        for name in ("strengths", "class_strengths", "neighbours"):
            grid = getattr(self, name)
            if not grid or min(grid) <= 0 or list(grid) != sorted(set(grid)):
                problems.append(f"{name} must be positive and rising; got {grid}")
        if problems:
            raise ConfigError(problems, "BenchConfig")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of cells."""
        return self.size[0] // self.cell, self.size[1] // self.cell

    def words(self) -> str:
        """The protocol in words, for tables and figures."""
        rows, columns = self.grid
        return (f"pictures scaled so that every encoder has {rows} x {columns} patches; answers of {self.parts} x {self.parts} "
                f"parts per patch (depth, normals; nearest neighbour) or one per patch (semantics; bilinear) brought to "
                f"{self.size[0]} x {self.size[1]} pixels and scored at every measured or labelled pixel; no scale alignment, "
                f"truth beyond {self.max_depth:g} m left out")
