"""mIoU from one confusion matrix, against answers worked out by hand and by torchmetrics."""

import numpy as np
import pytest
import torch

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.segmentation import SegmentationScores, confusion, most_frequent, scores_of
from mask3d_core.frames import IGNORE_LABEL

NAMES = ("wall", "chair", "lamp")


def pictures(seed=0, count=6, classes=3):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (count, 8, 9), generator=generator)
    truth[:, 0] = IGNORE_LABEL
    return torch.randint(0, classes, (count, 8, 9), generator=generator), truth


def test_a_worked_example():
    truth = torch.tensor([[[0, 0, 0, 1], [1, IGNORE_LABEL, 0, 1]]])
    made = torch.tensor([[[0, 0, 1, 1], [0, 2, 0, 1]]])
    matrix = confusion(made, truth, 3)[0]
    assert matrix.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]  # the ignored pixel is nowhere
    found = scores_of(matrix.numpy())
    assert found["pixel_accuracy"] == pytest.approx(5 / 7)
    assert found["iou"][:2].tolist() == pytest.approx([3 / 5, 2 / 4]) and np.isnan(found["iou"][2])
    assert found["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2), "a class that the truth lacks does not count"
    assert found["mean_accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_one_matrix_over_all_frames_is_not_the_mean_over_frames():
    truth = torch.zeros(2, 2, 2, dtype=torch.long)
    truth[1, 0, 0] = 1
    made = torch.zeros_like(truth)
    scores = SegmentationScores(("a", "b"))
    scores.add(made, truth, ["one", "two"])
    assert scores.scores()["miou"] == pytest.approx((7 / 8 + 0) / 2)
    per_frame = [float(scores_of(scores.matrices[k])["miou"]) for k in ("one", "two")]
    assert np.mean(per_frame) != pytest.approx(scores.scores()["miou"])


def test_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    made, truth = pictures()
    scores = SegmentationScores(NAMES)
    for i in range(len(made)):  # batch by batch, as it is streamed
        scores.add(made[i:i + 1], truth[i:i + 1], [f"room{i % 2}"])
    theirs = multiclass_jaccard_index(made, truth, 3, average="macro", ignore_index=IGNORE_LABEL)
    assert scores.scores()["miou"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = multiclass_accuracy(made, truth, 3, average="micro", ignore_index=IGNORE_LABEL)
    assert scores.scores()["pixel_accuracy"] == pytest.approx(float(theirs), abs=1e-6)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ConfigError, match="labels must be 0..2.*got 7: the class map does not fit"):
        confusion(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), 7), 3)


def test_the_interval_holds_the_score_and_narrows_with_rooms():
    def spread(rooms):
        scores = SegmentationScores(NAMES)
        for room in range(rooms):
            made, truth = pictures(room, 1)
            is_good = torch.rand(truth.shape, generator=torch.Generator().manual_seed(room)) < 0.3 + 0.6 * (room % 7) / 7
            scores.add(torch.where(is_good & (truth != IGNORE_LABEL), truth, made), truth, [f"room{room}"])
        found = scores.estimate()
        assert found.low < scores.scores()["miou"] < found.high and found.sequences == rooms
        return found.high - found.low

    assert spread(64) < spread(8)


def test_a_difference_is_paired():
    first, second = SegmentationScores(NAMES), SegmentationScores(NAMES)
    for room in range(12):  # rooms differ much in difficulty, the answers hardly
        _, truth = pictures(room, 1)
        noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(room))
        for scores, extra in ((first, 0.0), (second, 0.02)):
            is_good = noise > 0.05 * room + extra
            scores.add(torch.where(is_good | (truth == IGNORE_LABEL), truth, (truth + 1) % 3).clamp(max=2), truth, [f"room{room}"])
    found, alone = first.difference(second), first.estimate()
    assert found.low > 0 and found.high - found.low < alone.high - alone.low
    assert first.difference(first).mean == 0
    with pytest.raises(ConfigError, match="same sequences"):
        first.difference(SegmentationScores(NAMES))


def test_nothing_labelled_gives_no_number():
    scores = SegmentationScores(NAMES)
    scores.add(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), IGNORE_LABEL), ["room"])
    assert np.isnan(scores.scores()["miou"]) and scores.as_dict()["miou"] is None


def test_the_trivial_answer_is_the_most_frequent_class():
    assert most_frequent({0: 3, 4: 9}) == 1 and most_frequent(np.array([1, 5, 2])) == 1
