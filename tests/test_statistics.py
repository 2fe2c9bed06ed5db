"""Intervals over sequences and seeds."""

import math

import numpy as np
import pytest
import torch

from mask3d_core.errors import Mask3DError
from mask3d_core.evaluation import statistics
from mask3d_core.evaluation.statistics import (
    Estimate,
    interval,
    paired_interval,
    resampled,
    resampled_difference,
    student_cdf,
    student_interval,
    student_quantile,
)


def rooms(count, frames_each, seed, spread=1.0, noise=0.3):
    """Values whose mean is 0 over all rooms, and the room of each."""
    generator = np.random.default_rng(seed)
    effect = generator.normal(size=count) * spread
    sizes = generator.integers(max(1, frames_each // 2), 2 * frames_each, count)
    values = np.concatenate([effect[i] + noise * generator.normal(size=sizes[i]) for i in range(count)])
    return values, [f"room {i}" for i in range(count) for _ in range(sizes[i])]


def test_the_mean_is_over_frames_and_lies_inside():
    values = [1.0, 1.0, 1.0, 5.0]
    estimate = interval(values, ["a", "a", "a", "b"])
    assert estimate.mean == 2.0 and estimate.frames == 4 and estimate.sequences == 2
    assert 1.0 <= estimate.low <= 2.0 <= estimate.high <= 5.0
    assert "only 2 scenes" in estimate.words


def test_one_scene_has_no_interval_and_says_so():
    estimate = interval([0.1, 0.2], ["desk", "desk"])
    assert (estimate.low, estimate.high, estimate.words) == (None, None, "one scene, no interval")
    assert estimate.excludes_zero is None
    assert str(estimate) == "0.15 (one scene, no interval)"


def test_nothing_counted_is_no_number_in_json():
    estimate = interval([math.nan, math.nan], ["a", "b"])
    assert math.isnan(estimate.mean) and estimate.frames == 0
    assert estimate.as_dict()["mean"] is None and "nothing" in estimate.words


def test_frames_without_counted_pixels_are_left_out():
    with_holes = interval([1.0, math.nan, 2.0, math.nan, 4.0], ["a", "a", "b", "c", "d"])
    assert with_holes == interval([1.0, 2.0, 4.0], ["a", "b", "d"])


def test_deterministic_in_the_seed_and_blind_to_the_order_of_frames():
    values, names = rooms(12, 6, 0)
    first = interval(values, names)
    assert first == interval(values, names)
    shuffled = np.random.default_rng(1).permutation(len(values))
    again = interval(values[shuffled], [names[i] for i in shuffled])
    assert again.low == pytest.approx(first.low, abs=1e-12) and again.high == pytest.approx(first.high, abs=1e-12)
    assert interval(values, names, seed=1).low != first.low


def test_tensors_and_lists_are_the_same():
    values, names = rooms(6, 4, 0)
    assert interval(torch.from_numpy(values), names) == interval(list(values), names) == interval(values, names)


def test_sequences_are_resampled_never_frames():
    """Copying every frame ten times adds no information, so the interval stays where it was."""
    values, names = rooms(15, 5, 0)
    once, ten = interval(values, names), interval(np.repeat(values, 10), np.repeat(names, 10).tolist())
    assert ten.low == pytest.approx(once.low) and ten.high == pytest.approx(once.high)


@pytest.mark.parametrize("count, least", [(5, 0.86), (10, 0.89), (30, 0.91)])
def test_the_true_mean_is_inside_about_as_often_as_promised(count, least):
    hits = 0
    for seed in range(200):
        estimate = interval(*rooms(count, 8, seed), resamples=400, seed=seed)
        hits += estimate.low <= 0.0 <= estimate.high
    assert least <= hits / 200 <= 0.99


def test_rooms_are_drawn_within_their_stratum_each_alike():
    strata = np.repeat([0, 1, 2], [17, 8, 12])
    drawn = statistics._draws(0, 4000, len(strata), 0, tuple(strata.tolist()))
    assert (strata[drawn] == strata).all()
    times = np.bincount(drawn.ravel(), minlength=len(strata)) / 4000
    assert np.abs(times - 1).max() < 0.08  # each place is drawn as often as any other: 1 of as many as there are, 0.016 apart by chance
    counts = np.arange(37.0)[:, None]
    found = statistics.resampled(counts, lambda sums: sums[:, 0], strata=strata)
    assert found.mean == counts.sum() and found.low < found.mean < found.high
    assert found.high - found.low < 0.7 * (lambda all: all.high - all.low)(statistics.resampled(counts, lambda sums: sums[:, 0]))


def test_a_higher_level_is_wider_and_more_rooms_are_narrower():
    values, names = rooms(20, 5, 0)
    wide, narrow = interval(values, names, level=0.99), interval(values, names, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high
    many = interval(*rooms(200, 5, 0))
    assert many.high - many.low < 0.5 * (wide.high - wide.low)


def test_pairing_removes_what_is_hard_for_both():
    values, names = rooms(20, 5, 0, spread=10.0)
    estimate = paired_interval(values, values + 0.01 * np.random.default_rng(0).random(len(values)), names)
    assert estimate.excludes_zero and -0.01 < estimate.low < estimate.mean < estimate.high < 0.0
    assert not interval(values, names).excludes_zero


def test_pairing_drops_frames_that_either_lacks():
    estimate = paired_interval([1.0, math.nan, 3.0, 4.0], [0.0, 0.0, math.nan, 1.0], ["a", "b", "c", "d"])
    assert estimate.frames == 2 and estimate.mean == 2.0


def test_wrong_input_is_refused_in_words():
    with pytest.raises(Mask3DError, match="2 sequences"):
        interval([1.0], ["a", "b"])
    with pytest.raises(Mask3DError, match="level 1.5"):
        interval([1.0], ["a"], level=1.5)
    with pytest.raises(Mask3DError, match="infinite"):
        interval([math.inf, 1.0], ["a", "b"])
    with pytest.raises(Mask3DError, match="infinite"):
        paired_interval([math.inf, 1.0], [math.inf, 1.0], ["a", "b"])
    with pytest.raises(Mask3DError, match="1 and 2"):
        paired_interval([1.0], [1.0, 2.0], ["a", "b"])
    with pytest.raises(Mask3DError, match="shape"):
        interval(np.zeros((2, 2)), ["a", "b"])


def test_many_rooms_are_resampled_in_parts_with_the_same_answer(monkeypatch):
    values = np.random.default_rng(0).random(4000)
    names = [str(i // 4) for i in range(4000)]
    whole = interval(values, names, resamples=500)
    assert whole.high - whole.low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 4000), rel=0.15)
    monkeypatch.setattr(statistics, "_CHUNK", 30_000)
    assert interval(values, names, resamples=500) == whole


@pytest.mark.parametrize("probability, freedom, value", [  # tables of Student's t
    (0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 4, 2.7764), (0.95, 9, 1.8331), (0.995, 30, 2.7500),
    (0.975, 100_000, 1.95999), (0.025, 4, -2.7764), (0.5, 3, 0.0)])
def test_student_quantiles(probability, freedom, value):
    assert student_quantile(probability, freedom) == pytest.approx(value, abs=1e-4)


def test_student_quantile_inverts_its_distribution():
    for freedom in (1, 2, 3, 10, 11, 500):
        assert student_cdf(student_quantile(0.9, freedom), freedom) == pytest.approx(0.9, abs=1e-9)
    with pytest.raises(Mask3DError, match="degree of freedom"):
        student_quantile(0.9, 0)


def test_student_interval_of_three_seeds():
    estimate = student_interval([1.0, 2.0, 3.0])
    half = 4.30265 / math.sqrt(3)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-4)
    assert student_interval([1.0]).words == "one seed, no interval"
    assert student_interval([1.0, math.nan]) == student_interval([1.0])
    assert isinstance(student_interval([]), Estimate)


class TestResampledCounts:
    """Scores of added-up counts: sequences are drawn whole, and within strata where there are any."""

    @staticmethod
    def share(counts):
        return counts[..., 0] / counts[..., 1]

    def test_agrees_with_the_interval_of_a_mean(self):
        values = np.random.default_rng(0).normal(1.0, 0.3, 30)
        counts = np.stack([values, np.ones(30)], axis=1)
        found, known = resampled(counts, self.share), interval(values, [f"{k:02d}" for k in range(30)])
        assert found.mean == pytest.approx(known.mean) and found.low == pytest.approx(known.low, abs=0.02)
        assert found.high == pytest.approx(known.high, abs=0.02)

    def test_strata_take_the_difference_between_them_out(self):
        strata = np.repeat([0, 1], 20)
        values = np.where(strata == 0, 0.0, 10.0) + np.random.default_rng(0).normal(0, 0.1, 40)
        counts = np.stack([values, np.ones(40)], axis=1)
        free, within = resampled(counts, self.share), resampled(counts, self.share, strata=strata)
        assert within.high - within.low < 0.1 < 1.0 < free.high - free.low and within.mean == free.mean

    def test_one_sequence_has_no_interval(self):
        found = resampled(np.array([[1.0, 2.0]]), self.share)
        assert found.mean == 0.5 and found.low is None and found.words

    def test_other_shapes_are_refused(self):
        with pytest.raises(Mask3DError, match="the same sequences twice"):
            resampled_difference(np.ones((3, 2)), np.ones((4, 2)), self.share)
