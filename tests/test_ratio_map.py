"""The map over both ratios: right against a slow computation, stopped and resumed, kept in a file; and what spread is worth."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import random_model
from test_training import MODEL, ROOT

from mask3d_core.batches import from_frames
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation import OPPONENTS, ratio_cells
from mask3d_core.evaluation.opponents import predict
from mask3d_core.evaluation.ratio_cells import fill_ratio_map
from mask3d_core.evaluation.ratio_map import (MAP_METRICS, MEAN_MAP, MODEL as MASK3D, NOTHING_HIDDEN, NOTHING_VISIBLE, SCORED,
                                              UNKNOWN, MapFrame, RatioMap, checkpoint_digest, coarse_to_fine, empty_map,
                                              map_frames)
from mask3d_core.evaluation.uncertainty import measure_mask_spread, rank_correlation, sparsification
from mask3d_core.masking import Masks, to_pixels
from mask3d_core.sources import open_source
from mask3d_core.training.checkpoint import load_model

RATIOS = (0.0, 0.5, 0.8, 1.0)
NAMES = ("room-a/view-0", "room-b/view-0", "room-b/view-1")


@pytest.fixture(scope="module")
def batch():
    source = open_source("rooms", count=3, seed=4, views_per_room=1, height=72, width=96, sensor=1.0)
    return from_frames([source.read(k) for k in range(3)], MODEL.image_size)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def whole(model, batch):
    """A complete map with the mean map 2 m everywhere."""
    *_, last = fill_ratio_map(empty_map(model, map_frames(batch, NAMES), (0, 3), RATIOS), model, batch, torch.full((64, 80), 2.0))
    return last


def equal(first, second, tolerance=0.0):
    assert first.cells.keys() == second.cells.keys()
    for place in first.cells:
        assert first.cells[place].keys() == second.cells[place].keys()
        for name in first.cells[place]:
            np.testing.assert_allclose(first.cells[place][name], second.cells[place][name], rtol=tolerance)


def test_coarse_to_fine_is_a_whole_coarser_grid_at_every_stage():
    for rows, columns in ((9, 9), (5, 9), (2, 3), (1, 4), (4, 7)):
        places = coarse_to_fine(rows, columns)
        assert sorted(places) == [(r, c) for r in range(rows) for c in range(columns)]
    places = coarse_to_fine(9, 9)
    assert set(places[:4]) == {(0, 0), (0, 8), (8, 0), (8, 8)}
    assert set(places[:9]) == {(r, c) for r in (0, 4, 8) for c in (0, 4, 8)}
    assert set(places[:25]) == {(r, c) for r in range(0, 9, 2) for c in range(0, 9, 2)}
    with pytest.raises(ConfigError):
        coarse_to_fine(0, 3)


@torch.no_grad()
def slowly(model, batch, ratios, seed, frame):
    """AbsRel, MAE, RMSE and delta1 of everybody for one frame, as the definitions read."""
    one = batch[frame:frame + 1]
    masks = Masks.random(ratios, one.frame_ids, 0, one.is_valid, 16, seed)
    hidden, grid = to_pixels(masks.depth, (4, 5), 16), (4, 5)
    made = {MASK3D: model(one.color, one.depth, one.is_valid, one.intrinsics, masks).depth}
    for name, opponent in OPPONENTS.items():
        known, shown = one.is_valid & ~hidden, ~to_pixels(masks.rgb, grid, 16)
        made[name] = opponent(torch.where(known, one.depth, 0.0), known, one.color * shown[:, None], shown)
    where = (one.is_valid & hidden & (one.depth <= 10.0)).numpy()
    truth, found = one.depth.numpy()[where], {}
    for name, depth in made.items():
        guess = np.maximum(depth.numpy()[where], np.float32(1e-3))
        error = np.abs(guess - truth).astype(float)
        found[name] = [(error / truth).mean(), error.mean(), np.sqrt((error ** 2).mean()),
                       (np.maximum(guess / truth, truth / guess) < 1.25).mean()]
    return found


@pytest.mark.parametrize("place", [(2, 1), (1, 3)])
def test_every_number_agrees_with_the_slow_computation(whole, model, batch, place):
    assert set(whole.cells[place]) == {MASK3D, *OPPONENTS}
    for frame in (0, 2):
        for draw, seed in enumerate(whole.seeds):
            for name, numbers in slowly(model, batch, whole.ratios(place), seed, frame).items():
                np.testing.assert_allclose(whole.cells[place][name][:, frame, draw], numbers, rtol=2e-4, atol=1e-6,
                                           err_msg=f"{name}, frame {frame}, seed {seed}")
    values = whole.frame_values(place, "nearest", "mae")
    np.testing.assert_allclose(values, whole.cells[place]["nearest"][1].mean(axis=1))
    assert whole.table("mae", "nearest")[place] == pytest.approx(values.mean())
    low, high = whole.mask_range(place, MASK3D, "mae")
    assert low < whole.table("mae")[place] < high


def test_cells_without_a_score_say_why_and_are_never_measured(whole, model, batch):
    states = {whole.ratios(place): whole.state(place) for place in coarse_to_fine(4, 4)}
    assert states[1.0, 1.0] == NOTHING_VISIBLE and states[0.5, 0.0] == NOTHING_HIDDEN and states[0.8, 1.0] == SCORED
    assert len(whole.places) == 11 and not whole.missing and set(whole.cells) == set(whole.places)
    assert np.isnan(whole.table("abs_rel")[0]).all() and whole.compare((0, 1), "abs_rel") is None
    start = empty_map(model, whole.frames, (0,), RATIOS)
    assert start.state((1, 1)) == UNKNOWN and start.state((3, 3)) == NOTHING_VISIBLE and start.compare((1, 1), "mae") is None
    color_only = random_model(dataclasses.replace(MODEL, inputs=("rgb",)))
    alone = empty_map(color_only, whole.frames, (0,), (0.0, 1.0))
    assert alone.places == [(0, 0), (1, 0)], "depth ratios change nothing, so even 0 is scored"
    *_, alone = fill_ratio_map(alone, color_only, batch)
    assert alone.opponents((0, 0)) == [], "who sees no depth is not measured against those that do"
    assert alone.compare((0, 0), "abs_rel") is None


def test_without_depth_the_mean_map_is_the_opponent_or_nobody(whole, model, batch):
    place = (3, 1)
    assert whole.opponents(place) == [MEAN_MAP] and whole.compare(place, "mae").best == MEAN_MAP
    focal = (batch.intrinsics[:, 0] * batch.intrinsics[:, 1]).sqrt()
    guess = 2.0 * focal / model.config.target.reference_focal
    counted = batch.is_valid & (batch.depth <= 10)
    expected = [float((guess[k] - batch.depth[k][counted[k]]).abs().mean()) for k in range(3)]
    np.testing.assert_allclose(whole.frame_values(place, MEAN_MAP, "mae"), expected, rtol=1e-5)
    alone = empty_map(model, whole.frames, (0,), (0.5, 1.0))
    *_, alone = fill_ratio_map(alone, model, batch)
    assert alone.opponents((1, 0)) == [] and alone.compare((1, 0), "mae") is None and alone.state((1, 0)) == SCORED


def test_stopped_kept_in_a_file_and_resumed_it_ends_the_same(whole, model, batch, tmp_path, monkeypatch):
    cells, calls = fill_ratio_map(empty_map(model, whole.frames, (0, 3), RATIOS), model, batch, torch.full((64, 80), 2.0)), []
    for _ in range(5):
        part = next(cells)
    cells.close()
    assert len(part.cells) == 5 and part.missing == whole.places[5:]
    back = RatioMap.load(part.save(tmp_path / "deep" / "map.json"))
    assert back.frames == part.frames and back.missing == part.missing
    equal(back, part, 6e-5)
    monkeypatch.setattr(ratio_cells, "predict", lambda name, *given: calls.append(name) or predict(name, *given))
    *_, last = fill_ratio_map(back, model, batch, torch.full((64, 80), 2.0))
    equal(last, whole, 6e-5)
    rest = [p for p in whole.places[5:] if whole.depth_ratios[p[0]] < 1]
    assert calls.count("color_guided") == 2 * len(rest), "one call a cell and mask"
    new_rows = {p[0] for p in rest} - {p[0] for p in back.cells}
    assert calls.count("nearest") == 2 * len(new_rows), "what sees no colour is measured once per depth ratio"
    assert list(fill_ratio_map(last, model, batch)) == []
    again = RatioMap.load(last.save(tmp_path / "again.json"))
    assert RatioMap.load(again.save(tmp_path / "third.json")).as_dict() == again.as_dict()
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "third.json").read_bytes()


def test_chunks_and_parts_change_nothing(whole, model, batch):
    start = empty_map(model, whole.frames, (0, 3), RATIOS)
    by_one = next(fill_ratio_map(start, model, batch, torch.full((64, 80), 2.0), chunk=1))
    place = next(iter(by_one.cells))
    for name, values in by_one.cells[place].items():
        np.testing.assert_allclose(values, whole.cells[place][name], rtol=1e-4)
    part = whole.of_frames([2, 0])
    assert [f.name for f in part.frames] == [NAMES[2], NAMES[0]]
    np.testing.assert_array_equal(part.frame_values((1, 1), MASK3D, "mae"), whole.frame_values((1, 1), MASK3D, "mae")[[2, 0]])
    assert part.estimate((1, 1), MASK3D, "mae").mean != whole.estimate((1, 1), MASK3D, "mae").mean, "no number of the whole is left"
    with pytest.raises(ConfigError, match="frames of the map"):
        next(fill_ratio_map(part, model, batch))


def made(model_errors, opponent_errors, metric="abs_rel", names=None):
    """A map of one cell whose numbers are known: frames in sequences of their own, one mask."""
    count = len(model_errors)
    frames = tuple(MapFrame((names or [f"s{k}/0" for k in range(count)])[k], k, (1.0, 1.0, 0.5)) for k in range(count))
    table = {}
    for name, errors in {MASK3D: model_errors, **opponent_errors}.items():
        table[name] = np.full((len(MAP_METRICS), count, 1), np.nan)
        table[name][MAP_METRICS.index(metric), :, 0] = errors
    return RatioMap((0.5,), (0.5,), frames, (0,), ("rgb", "depth"), "d").with_cell((0, 0), table)


def test_a_cell_names_its_best_opponent_and_whether_the_model_wins():
    own = np.linspace(0.10, 0.20, 8)
    against = made(own, {"nearest": own + 0.05, "linear": own + 0.01}).compare((0, 0), "abs_rel")
    assert against.best == "linear" and against.is_ahead and against.is_sure and against.words == "wins"
    assert against.difference.mean == pytest.approx(-0.01) and against.difference.frames == 8
    loses = made(own, {"linear": own - 0.01, "nearest": own + 1}).compare((0, 0), "abs_rel")
    assert loses.best == "linear" and not loses.is_ahead and loses.words == "loses"
    unsure = made(own, {"linear": own + np.array([1, -1] * 4) * 0.05 - 0.001}).compare((0, 0), "abs_rel")
    assert not unsure.is_ahead and unsure.is_sure is False and unsure.words == "behind, interval includes 0"
    share = made(own, {"linear": own - 0.01, "nearest": own - 0.02}, "delta1").compare((0, 0), "delta1")
    assert share.best == "linear" and share.is_ahead and share.words == "wins", "a share that is higher is better"
    one_room = made(own, {"linear": own + 0.01}, names=[f"room/{k}" for k in range(8)]).compare((0, 0), "abs_rel")
    assert one_room.is_sure is None and one_room.words == "ahead, no interval", "frames of one room are one sample"
    gaps = own.copy()
    gaps[0] = np.nan
    assert made(gaps, {"linear": own + 0.01}).compare((0, 0), "abs_rel").difference.frames == 7


def test_digest_and_frames_know_their_own(model, batch):
    digest = checkpoint_digest(model)
    assert digest == checkpoint_digest(random_model()) and len(digest) == 16
    other = random_model()
    with torch.no_grad():
        other.mask_token[0] += 1e-6
    assert checkpoint_digest(other) != digest
    frames = map_frames(batch, NAMES)
    near = dataclasses.replace(frames[0], signature=tuple(v * (1 + 2e-4) for v in frames[0].signature))
    assert frames[0].is_like(near) and frames[1].sequence == "room-b" and frames[0].sequence == "room-a"
    assert not frames[0].is_like(dataclasses.replace(frames[0], signature=frames[1].signature))
    assert not frames[0].is_like(dataclasses.replace(frames[0], number=5))


def test_impossible_maps_and_broken_files_are_one_line(model, whole, batch, tmp_path):
    with pytest.raises(ConfigError, match="ascending") as caught:
        empty_map(model, (), (0, 0), (0.5, 0.2))
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="metric must be"):
        whole.estimate((1, 1), MASK3D, "speed")
    path = whole.save(tmp_path / "map.json")
    saved = json.loads(path.read_text())
    for change, match in (({"kind": "session"}, "ratio map in format"), ({"format": 9}, "format 9"), ({"cells": 3}, "whole ratio map"),
                          ({"seeds": [0]}, "numbers"), ({"rgb_ratios": [0.5]}, "numbers|IndexError")):
        path.write_text(json.dumps({**saved, **change}))
        with pytest.raises(Mask3DError, match=match):
            RatioMap.load(path)
    path.write_text("{")
    with pytest.raises(Mask3DError, match="as JSON"):
        RatioMap.load(path)
    with pytest.raises(Mask3DError, match="nowhere.json"):
        RatioMap.load(tmp_path / "nowhere.json")
    broken = random_model()
    with torch.no_grad():
        broken.depth_head.bias.fill_(float("nan"))
    with pytest.raises(Mask3DError, match="finite predictions"):
        next(fill_ratio_map(empty_map(broken, whole.frames, (0,), (0.5, 0.8)), broken, batch))


def test_the_map_that_ships_is_of_the_shipped_checkpoint_and_can_be_measured_again():
    path = ROOT / "data" / "ratio_maps" / "tiny_rooms.json"
    shipped, (model, record) = RatioMap.load(path), load_model(ROOT / "data" / "checkpoints" / "tiny")
    assert path.stat().st_size < 200_000 and not shipped.missing and len(shipped.frames) == 8
    assert shipped.digest == checkpoint_digest(model), "make it again: python docs/make_ratio_maps.py"
    source = {k: v for k, v in shipped.provenance["source"].items() if k != "source"}
    frame, one = open_source("rooms", **source).read(3), shipped.of_frames([3])
    batch = from_frames([frame], model.config.image_size, [3])
    assert map_frames(batch, [shipped.frames[3].name])[0].is_like(shipped.frames[3])
    place = (shipped.depth_ratios.index(0.95), shipped.rgb_ratios.index(0.8))
    rest = dataclasses.replace(one, cells={p: s for p, s in one.cells.items() if p != place})
    assert rest.missing == [place]
    *_, again = fill_ratio_map(rest, model, batch, record["extras"]["mean_map"])
    for name, values in again.cells[place].items():
        np.testing.assert_allclose(values, one.cells[place][name], rtol=5e-3, err_msg=name)


# ---- spread over masks ----------------------------------------------------------------------------------------------


def test_perfect_uncertainty_is_the_oracle_and_constant_uncertainty_is_chance():
    error = np.abs(np.random.default_rng(0).normal(size=500)) + 0.01
    perfect, constant = sparsification(error ** 2, error), sparsification(np.ones(500), error)
    np.testing.assert_allclose(perfect.by_spread, perfect.oracle)
    assert perfect.ause == pytest.approx(0) and perfect.ause_random > 0.3
    np.testing.assert_allclose(constant.by_spread, error.mean())
    assert constant.ause == pytest.approx(constant.ause_random)
    worst = sparsification(-error, error)
    assert worst.ause > constant.ause and (np.diff(worst.by_spread) >= -1e-12).all()
    assert perfect.removed[0] == 0 and perfect.oracle[0] == pytest.approx(error.mean())
    assert perfect.oracle[25] == pytest.approx(np.sort(error)[:250].mean()), "half of them left out"


def test_sparsification_by_hand_with_ties():
    curve = sparsification(np.array([3.0, 1.0, 1.0, 2.0]), np.array([8.0, 0.0, 4.0, 2.0]), steps=4)
    np.testing.assert_allclose(curve.removed, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve.by_spread, [3.5, 2.0, 2.0, 2.0], err_msg="the tied two count as their mean")
    np.testing.assert_allclose(curve.oracle, [3.5, 2.0, 1.0, 0.0])
    assert curve.ause == pytest.approx((0 + 0 + 1.0 / 2 + 1.0 / 2 + 2.0 / 2) * 0.25 / 3.5)
    assert curve.ause_random == pytest.approx(((1.5 + 2.5 + 3.5 / 2) * 0.25) / 3.5)
    assert sparsification(np.arange(5.0), np.zeros(5)).ause == 0
    for wrong in ((np.ones(3), np.ones(4)), (np.ones(1), np.ones(1)), (np.ones(2), np.array([1, np.nan])),
                  (np.ones(2), np.array([1, -1.0]))):
        with pytest.raises(Mask3DError):
            sparsification(*wrong)


def test_rank_correlation_shares_ranks_of_ties():
    of = lambda first, second: rank_correlation(np.array(first), np.array(second))  # noqa: E731
    assert of([1, 2, 3, 9], [2, 3, 5, 100]) == pytest.approx(1) and of([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert of([1, 1, 2, 2], [0, 1, 0, 1]) == pytest.approx(0)
    assert of([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 3, 2, 4])[0, 1])
    assert np.isnan(of([1, 1, 1], [3, 2, 1])) and np.isnan(of([1, 2], [1, 2]))
    with pytest.raises(Mask3DError):
        of([1, 2, 3], [1, 2])


@torch.no_grad()
def test_spread_is_over_the_draws_that_hid_a_pixel_and_nothing_else(model, batch):
    one, draws, told = batch[1:2], 7, []
    found = measure_mask_spread(model, one, (0.5, 0.6), draws, seed=2, chunk=3, progress=lambda *a: told.append(a))
    assert told == [(3, 7), (6, 7), (7, 7)]
    values = np.full((draws, 64, 80), np.nan)
    for draw in range(draws):
        masks = Masks.random((0.5, 0.6), one.frame_ids, draw, one.is_valid, 16, 2)
        depth = model(one.color, one.depth, one.is_valid, one.intrinsics, masks).depth[0].numpy()
        hidden = to_pixels(masks.depth, (4, 5), 16)[0].numpy()
        values[draw][hidden] = depth[hidden]
    count = (~np.isnan(values)).sum(axis=0)
    np.testing.assert_array_equal(found.draws, count)
    assert count.min() < draws, "some draws show a pixel"
    enough = count > 1
    np.testing.assert_allclose(found.spread[enough], np.nanstd(values[:, enough], axis=0, ddof=1), rtol=1e-3, atol=1e-5)
    assert np.isnan(found.spread[~enough]).all()
    np.testing.assert_allclose(found.mean[enough], np.nanmean(values[:, enough], axis=0), rtol=1e-5)
    valid = one.is_valid[0].numpy() & enough & (one.depth[0].numpy() <= 10)
    np.testing.assert_array_equal(found.is_scored, valid)
    assert np.isnan(found.error[~valid]).all()
    np.testing.assert_allclose(found.error[valid], np.abs(found.mean - one.depth[0].numpy())[valid])
    assert found.correlation == pytest.approx(rank_correlation(found.spread[valid], found.error[valid]))
    assert found.sparsification().by_spread[0] == pytest.approx(found.error[valid].mean(), rel=1e-5)
    for wrong, match in (({"draws": 1}, "at least 2"), ({"ratios": (0.5, 0.0)}, "no depth is hidden"),
                         ({"painted": ({}, {20: True})}, r"painted patches must be 0..19; got \[20\]")):
        with pytest.raises(ConfigError, match=match):
            measure_mask_spread(model, one, **{"ratios": (0.5, 0.5), **wrong})
    with pytest.raises(ConfigError, match="one frame"):
        measure_mask_spread(model, batch, (0.5, 0.5))
    with pytest.raises(ConfigError, match="visible token"):
        measure_mask_spread(model, one, (1.0, 1.0))


@torch.no_grad()
def test_painted_patches_are_the_same_in_every_draw(model, batch):
    one = batch[:1]
    measured = [p for p in range(20) if bool(one.is_valid[0].view(4, 16, 5, 16).any(3).any(1).flatten()[p])]
    shown, hidden = measured[:2]
    found = measure_mask_spread(model, one, (0.5, 0.6), 6, seed=2, painted=({3: True}, {shown: False, hidden: True}))
    cell = lambda p: np.s_[p // 5 * 16:p // 5 * 16 + 16, p % 5 * 16:p % 5 * 16 + 16]  # noqa: E731
    assert (found.draws[cell(shown)] == 0).all() and np.isnan(found.spread[cell(shown)]).all(), "never hidden: it has no spread"
    assert (found.draws[cell(hidden)] == 6).all()
    masks = Masks.random((0.5, 0.6), one.frame_ids.expand(6), torch.arange(6), one.is_valid.expand(6, -1, -1), 16, 2)
    rgb, depth = masks.rgb.clone(), masks.depth.clone()
    rgb[:, 3], depth[:, shown], depth[:, hidden] = True, False, True
    painted = [Masks.painted(rgb[k:k + 1], depth[k:k + 1], one.is_valid, 16) for k in range(6)]
    made = [model(one.color, one.depth, one.is_valid, one.intrinsics, each).depth[0].numpy() for each in painted]
    np.testing.assert_allclose(found.mean[cell(hidden)], np.mean(made, axis=0)[cell(hidden)], rtol=1e-4)
    only = measure_mask_spread(model, one, (0.5, 0.0), 2, seed=2, painted=({}, {hidden: True}))
    rows, columns = np.nonzero(only.is_scored)
    assert len(rows) and set(rows // 16 * 5 + columns // 16) == {hidden}, "hidden by hand alone is hidden enough"
