"""The bench for any encoder: known answers, no leakage, the same numbers twice, and one line for every wrong start."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import timm
import torch
from list_source import ListSource
from test_training import MODEL

from mask3d_core import cli
from mask3d_core.batches import Batch
from mask3d_core.errors import ConfigError, StoreError
from mask3d_core.evaluation.bench import (BenchConfig, BenchFrames, RoomsBench, bench_encoders, bench_entries, rooms_frames,
                                          store_frames, untrained_twin)
from mask3d_core.evaluation.bench.config import (DEPTH, LINEAR, MATCHING, METRICS, NEAREST, NORMALS, SEMANTICS, TEST, TRAIN,
                                                 UNTRAINED, VAL)
from mask3d_core.evaluation.bench.correspondence import chance_scores, match_scores, view_pairs
from mask3d_core.evaluation.bench.entries import (PIXELS, PIXELS_ALONE, POSITION, TRIVIAL, encoder_entry, function_entry,
                                                  opponent_entries, spaced_layers)
from mask3d_core.evaluation.bench.readouts import Linear, Nearest, Standard, logistic_maps
from mask3d_core.evaluation.bench.report import open_bench
from mask3d_core.evaluation.bench.rooms import Signature, check_signature, rooms_stores
from mask3d_core.evaluation.bench.targets import Target, Truth
from mask3d_core.evaluation.features import RGBEncoder
from mask3d_core.evaluation.segmentation import scores_of
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.models import Mask3D
from mask3d_core.models.starts import open_start
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.store import Store
from mask3d_core.training.checkpoint import save_model

SIZE, CELL, CLASSES = (32, 48), 8, 3
SMALL = BenchConfig(SIZE, CELL, parts=2, layers=2, strengths=(1e-4, 1.0), class_strengths=(1e-3, 1e-1), class_steps=20,
                    neighbours=(1, 3), patches_per_frame=16, least_matches=4)
ROOMS = RoomsBench(rooms=(4, 2, 4), views=(1, 2, 2), probed=1, height=SIZE[0], width=SIZE[1])


def world(frames=28, seed=0, size=SIZE):
    """Frames of piecewise constant depth that is written into the colour: blue = log depth, and red = class / 4."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 1, size[0] // CELL, size[1] // CELL, generator=generator)
    label = torch.randint(0, CLASSES, coarse.shape, generator=generator)
    fine = lambda values: torch.nn.functional.interpolate(values.float(), size, mode="nearest")[:, 0]  # noqa: E731
    color = torch.rand(frames, 3, *size, generator=generator)
    color[:, 2], color[:, 0] = fine(coarse), fine(label) / 4
    intrinsics = torch.tensor([260.0, 260.0, size[1] / 2, size[0] / 2]).expand(frames, -1)
    return Batch(color, fine(coarse).exp(), torch.ones(frames, *size, dtype=torch.bool), intrinsics, torch.arange(frames),
                 torch.zeros(frames, dtype=torch.int64), True, fine(label).long())


PARTS = {TRAIN: range(0, 14), VAL: range(14, 20), TEST: range(20, 28)}


def frames_of(batch, classes=CLASSES, changes=None, seen=lambda record: 0):
    def read(part, numbers):
        chosen = torch.as_tensor([PARTS[part][int(k)] for k in numbers])
        source = batch if changes is None or part not in changes else changes[part]
        return source._each(lambda t: t[chosen]), torch.full((len(chosen), 4, 4), math.nan)

    return BenchFrames("memory", "frames in memory", "0", read, {p: tuple(f"room {k}" for k in r) for p, r in PARTS.items()},
                       {p: np.ones(len(r), bool) for p, r in PARTS.items()}, tuple("abc"[:classes]), False, seen)


def cells(picture):
    """(b, h, w) to (b, n, 1): the mean of each cell."""
    return torch.nn.functional.avg_pool2d(picture[:, None], CELL).flatten(2).transpose(1, 2)


def one_hot(color):
    return torch.nn.functional.one_hot((4 * cells(color[:, 0])[..., 0]).round().long(), CLASSES).float()


def noise(color):
    generator = torch.Generator().manual_seed(int(color.sum() * 1000))
    return torch.randn(len(color), SIZE[0] // CELL * (SIZE[1] // CELL), 6, generator=generator)


@pytest.fixture(scope="module")
def bench_cache(tmp_path_factory):
    place = tmp_path_factory.mktemp("bench")
    rooms_stores(place, ROOMS, progress=False)
    return place


@pytest.fixture(scope="module")
def rooms(bench_cache):
    return rooms_frames(bench_cache, SMALL, ROOMS, progress=False)


# ---- known answers ----------------------------------------------------------------------------------------------------

def test_an_encoder_that_is_given_the_truth_wins_and_noise_is_worth_the_trivial_answer():
    told = function_entry("told", lambda color: torch.cat([3 * cells(color[:, 2]) - 8, one_hot(color)], -1), 4, "encoder")
    steps = []
    result = bench_entries([told, function_entry("noise", noise, 6), *opponent_entries(SMALL)], frames_of(world()), SMALL,
                           progress=lambda *step: steps.append(step))
    assert list(result.rows) == ["told", "noise", PIXELS, POSITION, TRIVIAL], "raw pixels alone only match views"
    assert steps[-1][1] == steps[-1][2]
    trivial = result.estimate(TRIVIAL, DEPTH, LINEAR).mean
    assert result.estimate("told", DEPTH, LINEAR).mean < 0.01 < 0.2 < trivial
    assert result.estimate("told", DEPTH, NEAREST).mean < 0.1
    assert result.estimate("noise", DEPTH, LINEAR).mean > 0.9 * trivial
    assert result.estimate("told", SEMANTICS, LINEAR).mean > 0.75 > 0.4 > result.estimate("noise", SEMANTICS, LINEAR).mean
    assert result.verdict("told", TRIVIAL, DEPTH, LINEAR) == "better" == result.verdict("told", "noise", SEMANTICS, LINEAR)
    assert not result.has(TRIVIAL, DEPTH, NEAREST)
    assert "told, depth, linear: better than" in result.text() and "scored once, with that choice" in result.text()
    values = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert values["rows"]["told"]["tasks"]["depth"]["linear"]["minus"]["noise"]["high"] < 0
    assert set(values["rows"]["told"]["tasks"]["semantics"]["linear"]["class_iou"]) == set("abc")


def test_permuted_labels_give_chance():
    """The class of another cell: what is left is the frequency of the classes."""
    batch = world()
    order = torch.randperm(batch.semantic.numel(), generator=torch.Generator().manual_seed(5))
    shuffled = dataclasses.replace(batch, semantic=batch.semantic.flatten()[order].view_as(batch.semantic))
    told = function_entry("told", one_hot, CLASSES, "encoder")
    result = bench_entries([told], frames_of(shuffled), SMALL)
    tested = shuffled.semantic[list(PARTS[TEST])].flatten().bincount(minlength=CLASSES)
    assert result.estimate("told", SEMANTICS, LINEAR, "pixel_accuracy").mean <= float(tested.max() / tested.sum()) + 0.02
    assert result.estimate("told", SEMANTICS, LINEAR).mean < 0.25, "one of three classes, a third of its pixels"


def test_angles_between_normals_are_the_true_ones():
    depth = torch.full((1, *SIZE), 2.0)
    batch = dataclasses.replace(world(1), depth=depth)  # a wall seen head on: its normal is (0, 0, -1)
    truth = Truth(batch, SMALL)
    count = SIZE[0] // CELL * (SIZE[1] // CELL)
    target = truth.target(NORMALS)
    torch.testing.assert_close(target.value[7].view(4, 3), torch.tensor([0.0, 0, -1]).expand(4, 3), atol=1e-5, rtol=0)
    for degrees, share in ((0.0, 1.0), (20.0, 0.0), (35.0, 0.0)):
        turned = 3 * torch.tensor([math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees))])  # any length
        found = truth.score(NORMALS, turned.repeat(4).expand(count, -1))
        assert float(found["mean"]) == pytest.approx(degrees, abs=0.05) == float(found["median"])
        assert float(found["within_11"]) == share and float(found["within_22"]) == float(degrees < 22.5)
    assert float(found["within_30"]) == 0
    with pytest.raises(ConfigError, match="got 'correspondence'"):
        truth.target(MATCHING)


def test_one_confusion_matrix_over_all_frames():
    batch = world(2)
    truth = Truth(batch, SMALL, CLASSES)
    right = torch.nn.functional.one_hot((4 * cells(batch.color[:, 0])[..., 0]).round().long(), CLASSES).float().flatten(0, 1)
    found = truth.score(SEMANTICS, right)["confusion"]
    assert found.shape == (2, CLASSES, CLASSES) and int(found.sum()) == 2 * SIZE[0] * SIZE[1]
    assert scores_of(found.sum(0).numpy())["miou"] > 0.7, "bilinear borders cost a little"
    with pytest.raises(ConfigError, match="labels must be 0..1"):
        Truth(batch, SMALL, 2).score(SEMANTICS, right[:, :2])


def test_holes_and_unlabelled_pixels_are_neither_fitted_nor_scored():
    batch = world(3)
    first = Truth(batch, SMALL, CLASSES)
    spoiled = batch._each(lambda t: t.clone())
    spoiled.depth[:, :, :CELL], spoiled.is_valid[:, :, :CELL], spoiled.semantic[:, :, :CELL] = 9.0, False, 255
    second = Truth(spoiled, SMALL, CLASSES)
    left = torch.arange(24).reshape(4, 6)[:, 0]
    for task in (DEPTH, SEMANTICS):
        a, b = first.target(task), second.target(task)
        assert not b.weight.view(3, 24)[:, left].any()
        inside = b.weight > 0
        torch.testing.assert_close(a.value[inside], b.value[inside])
        score = second.score(task, torch.zeros_like(b.value))
        changed = b.value.clone()
        changed.view(3, 24, -1)[:, left] = 100.0
        again = second.score(task, changed * 0 if task == SEMANTICS else torch.where(inside[:, None], 0.0, changed))
        for metric, values in score.items():
            torch.testing.assert_close(values, again[metric], msg=metric)


def test_both_readouts_find_a_linear_relation_and_standardising_makes_scale_irrelevant():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    wanted = torch.stack([x[:, 0] - x[:, 1], x[:, 2]], -1)
    label = (x[:, :3].argmax(dim=1) % CLASSES)
    targets = {DEPTH: Target(wanted, torch.ones(300)),
               SEMANTICS: Target(torch.nn.functional.one_hot(label, CLASSES).float(), torch.ones(300))}
    answers = []
    for scale in (1.0, torch.tensor([1e3, 1e-3, 1, 5, 0.1])):
        raw = torch.cat([x * scale + 7, torch.full((300, 1), 4.0)], -1)  # a constant feature says nothing
        features = Standard(raw)(raw)
        assert not features[:, 5].any()
        linear, nearest = Linear(features, targets, SMALL), Nearest(features, targets, SMALL)
        assert linear.settings[DEPTH] == SMALL.strengths and nearest.settings[DEPTH] == (1, 3)
        torch.testing.assert_close(linear.answer(features, DEPTH, 0).float(), wanted, rtol=0.01, atol=0.02)
        found = linear.answer(features, SEMANTICS, 0).argmax(dim=1)
        assert (found == label).float().mean() > 0.95
        torch.testing.assert_close(nearest.answer(nearest.prepared(features), DEPTH, 0), wanted)  # itself
        answers.append((linear.answer(features, DEPTH, 1), found))
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=1e-3, atol=1e-3)
    assert (answers[0][1] == answers[1][1]).float().mean() > 0.99


def test_logistic_regression_is_the_minimum_and_says_the_frequencies_without_features():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    target = Target(torch.nn.functional.one_hot(labels, 3).float(), torch.ones(10))
    (answer,) = logistic_maps(torch.zeros(10, 0), target, (0.1,), 10)
    torch.testing.assert_close(answer(torch.zeros(1, 0)).softmax(-1)[0], torch.tensor([0.6, 0.3, 0.1]), rtol=1e-3, atol=1e-3)
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    target = Target(torch.nn.functional.one_hot((x[:, 0] > 0).long() + (x[:, 1] > 1).long(), 3).float(), torch.ones(200))
    maps = logistic_maps(x, target, (1e-2, 1.0), 200)
    for strength, answer in zip((1e-2, 1.0), maps):
        w, b = (t.clone().requires_grad_() for t in (answer(torch.eye(4)) - answer(torch.zeros(1, 4)), answer(torch.zeros(4))))
        loss = -((x @ w + b).log_softmax(-1) * target.value).sum(-1).mean() + 0.5 * strength * w.square().sum()
        slope = torch.autograd.grad(loss, (w, b))
        assert max(float(g.abs().max()) for g in slope) < 2e-3
    assert maps[1](x).std() < maps[0](x).std(), "more penalty, smaller weights"


# ---- correspondence ---------------------------------------------------------------------------------------------------

def two_views(shift=0.0):
    """A wall two metres away, seen from two places beside each other."""
    batch = dataclasses.replace(world(2), depth=torch.full((2, *SIZE), 2.0),
                                intrinsics=torch.tensor([40.0, 40.0, SIZE[1] / 2, SIZE[0] / 2]).expand(2, -1))
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = shift
    return batch, poses


def test_the_number_of_the_patch_matches_identical_views_perfectly_and_chance_is_exact():
    batch, poses = two_views()
    pairs = view_pairs(batch, poses, SMALL)
    assert [(p.first, p.second) for p in pairs] == [(0, 1), (1, 0)] and pairs[0].angle == pytest.approx(0, abs=0.1)
    count = SIZE[0] // CELL * (SIZE[1] // CELL)
    assert len(pairs[0].query) == count
    numbered = torch.eye(count).expand(2, -1, -1)
    found = match_scores(numbered, pairs[0])
    assert found == {"recall_1": 1, "recall_2": 1, "recall_25cm": 1, "median_cm": pytest.approx(0, abs=1e-3)}
    backwards = torch.stack([torch.eye(count), torch.eye(count).flip(0)])
    assert match_scores(backwards, pairs[0])["recall_1"] < 0.1
    near = torch.cdist(pairs[0].cell_place, pairs[0].cell_place) <= CELL
    assert chance_scores(pairs[0])["recall_1"] == pytest.approx(float(near.float().mean()))


def test_a_camera_that_moved_sees_the_same_point_elsewhere():
    batch, poses = two_views(shift=2 * CELL * 2.0 / 40)  # two patches to the right: things move two patches to the left
    pairs = view_pairs(batch, poses, SMALL)
    rows, columns = SMALL.grid
    assert len(pairs[0].query) == rows * (columns - 2)
    moved = pairs[0].cell_place[pairs[0].query] - torch.tensor([0.0, 2 * CELL])
    torch.testing.assert_close(pairs[0].place, moved, atol=1e-3, rtol=0)
    number = torch.arange(rows * columns).reshape(rows, columns)
    features = torch.zeros(2, rows * columns, rows * columns + 2 * rows)
    for view, offset in ((0, 0), (1, 2)):  # what is at a place of the wall, whoever looks
        wall = torch.cat([number, rows * columns + torch.arange(2 * rows).reshape(rows, 2)], 1)[:, offset:offset + columns]
        features[view, number.flatten(), wall.flatten()] = 1
    assert match_scores(features, pairs[0])["recall_1"] == 1 and match_scores(features, pairs[0])["recall_25cm"] == 1
    place = torch.eye(rows * columns).expand(2, -1, -1)  # the same place of the picture, which is two patches off
    assert match_scores(place, pairs[0])["recall_1"] == 0 and match_scores(place, pairs[0])["recall_2"] == 1


def test_what_is_hidden_behind_something_is_no_match():
    batch, poses = two_views(shift=0.2)
    batch.depth[1, :, :SIZE[1] // 2] = 1.0  # something stands before the left half of the second view
    row = view_pairs(batch, poses, SMALL)[0]
    assert (row.place[:, 1] >= SIZE[1] // 2 - 0.5).all() and len(row.query) > 4
    poses[1] = math.nan
    assert not view_pairs(batch, poses, SMALL), "no pose, no pair"


# ---- what is measured on what ------------------------------------------------------------------------------------------

def test_what_is_tested_on_changes_neither_the_fit_nor_the_choice():
    batch = world()
    other = dataclasses.replace(batch, depth=batch.depth * 3, semantic=(batch.semantic + 1) % CLASSES)
    told = function_entry("told", lambda color: torch.cat([cells(color[:, 2]), one_hot(color)], -1), 1 + CLASSES, "encoder")
    first, second = (bench_entries([told], frames_of(batch, changes=c), SMALL) for c in (None, {TEST: other}))
    assert first.rows["told"].choices == second.rows["told"].choices
    assert second.estimate("told", DEPTH, LINEAR).mean == pytest.approx(2 / 3, abs=0.01), "three times as far: nobody told it"
    assert second.estimate("told", SEMANTICS, LINEAR).mean < 0.1


def test_no_sequence_is_in_two_parts_and_no_part_is_empty():
    good = frames_of(world())
    with pytest.raises(ConfigError, match="1 sequence\\(s\\) lie in train and in test, 'room 0'"):
        dataclasses.replace(good, sequences={**good.sequences, TEST: ("room 0", *good.sequences[TEST][1:])})
    with pytest.raises(ConfigError, match="no frame in the val part"):
        dataclasses.replace(good, is_probed={**good.is_probed, VAL: np.zeros(6, bool)})


def test_rooms_are_held_out_by_seed_and_by_pool(rooms, bench_cache):
    stores = rooms_stores(bench_cache, ROOMS, progress=False)
    source = {part: store.first_source for part, store in stores.items()}
    assert [source[p]["pool"] for p in (TRAIN, VAL, TEST)] == ["train", "train", "test"]
    assert len({source[p]["seed"] for p in source}) == 3 and not set(rooms.sequences[TRAIN]) & set(rooms.sequences[TEST])
    assert rooms.tasks == (DEPTH, NORMALS, SEMANTICS, MATCHING) and rooms.is_probed[TEST].sum() == 4 and rooms.count(TEST) == 8
    here = {"data": {"rooms": [{"seed": ROOMS.seeds[2], "pool": "test"}]}}
    assert rooms.seen(here) == 8 and rooms.seen({"data": {"rooms": [{"seed": 0, "pool": "test"}]}}) == 0
    keys = stores[TEST].sequence_keys(np.arange(4))
    assert rooms.seen({"data": {"sequences": keys}}) == 4 and rooms.seen({}) == 0
    assert "changed by hand" in rooms.words
    with pytest.raises(ConfigError, match="seeds must differ"):
        RoomsBench(seeds=(1, 1, 2))


def test_other_rooms_under_the_versions_name_are_noticed(bench_cache, monkeypatch):
    from mask3d_core.evaluation.bench import rooms as module

    stores = rooms_stores(bench_cache, ROOMS, progress=False)
    found = module.signature_of(stores)
    standard = RoomsBench()
    monkeypatch.setitem(module.SIGNATURES, standard.version, found)
    assert check_signature(stores, standard) is True
    rounded = Signature(("0", "0", "0"), tuple(d * 1.0005 for d in found.depth), found.color)
    monkeypatch.setitem(module.SIGNATURES, standard.version, rounded)
    assert check_signature(stores, standard) is False, "another processor's rounding"
    monkeypatch.setitem(module.SIGNATURES, standard.version, dataclasses.replace(rounded, depth=(9.0, 9.0, 9.0)))
    with pytest.raises(StoreError, match="the renderer has changed"):
        check_signature(stores, standard)
    with pytest.raises(StoreError, match="another cache folder"):
        rooms_stores(bench_cache, dataclasses.replace(ROOMS, seeds=(1, 2, 3)), progress=False)


# ---- encoders -----------------------------------------------------------------------------------------------------------

def test_an_encoder_of_any_patch_size_gives_one_feature_per_cell_and_the_same_numbers_twice(rooms):
    patch14 = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=28, patch_size=14, num_classes=0, depth=2)
    start = RGBEncoder.of(Mask3D(MODEL), "ours")
    encoders, records = {"ours": start, "patch 14": RGBEncoder.of_timm(patch14, "p14")}, {
        "ours": {"data": {"rooms": [{"seed": ROOMS.seeds[2], "pool": "test"}]}}}
    first = bench_encoders(encoders, rooms, SMALL, records=records)
    again = bench_entries([encoder_entry("ours", start, "encoder", SMALL)], rooms, SMALL, records)
    assert first.rows["ours"].choices == again.rows["ours"].choices and first.pair_angles == again.pair_angles
    for key, metrics in first.rows["ours"].scores.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(values, again.rows["ours"].scores[key][metric], f"{key} {metric}: every digit")
    assert first.rows["ours"].seen == 8 and "WARNING: ours was trained on 8" in again.text()
    assert first.has("patch 14", MATCHING, UNTRAINED) and first.rows["patch 14"].width == 192
    assert 0 < first.estimate(TRIVIAL, MATCHING, UNTRAINED).mean < 0.7 and len(first.pair_angles) > 0
    with pytest.raises(ConfigError, match="'raw pixels' would stand there twice"):
        bench_encoders({PIXELS_ALONE: start}, rooms, SMALL)
    with pytest.raises(ConfigError, match="wants \\(8, 24\\)"):
        bench_entries([function_entry("short", lambda color: torch.zeros(len(color), 3, 2), 2)], frames_of(world()), SMALL)


def test_kept_features_stay_below_the_limit_and_layers_are_spaced():
    assert spaced_layers(12, 4) == (2, 5, 8, 11) and spaced_layers(2, 4) == (0, 1) and spaced_layers(3, 2) == (1, 2)
    encoder = RGBEncoder.of(Mask3D(MODEL), "ours")
    assert encoder_entry("ours", encoder, "encoder", SMALL).layers == (0, 1)
    wide = function_entry("wide", lambda color: torch.randn(len(color), 24, 50), 50)
    config = dataclasses.replace(SMALL, max_megabytes=14 * 5 * 50 * 4 / 1e6)
    row = bench_entries([wide], frames_of(world()), config).rows["wide"]
    assert row.patches_per_frame == 5 and row.megabytes <= config.max_megabytes
    with pytest.raises(ConfigError, match="multiples of the cell.*neighbours must be positive and rising"):
        BenchConfig(size=(30, 48), cell=16, neighbours=(3, 1))


def test_the_untrained_twin_has_the_shape_and_none_of_the_weights(tmp_path):
    save_model(tmp_path / "model", Mask3D(MODEL), {"step": 1})
    start = open_start(str(tmp_path / "model"))
    twin = untrained_twin(start, SIZE)
    assert {k: v.shape for k, v in twin.vit.named_parameters() if k != "pos_embed"} == {
        k: v.shape for k, v in start.vit.named_parameters() if k != "pos_embed"}
    weight = lambda vit: vit.blocks[0].attn.qkv.weight  # noqa: E731
    assert not torch.equal(weight(twin.vit), weight(start.vit))
    assert torch.equal(weight(twin.vit), weight(untrained_twin(start, SIZE).vit)), "from its seed"


# ---- the command --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("start", "words"), [
    ("timm:resnet18", "only plain vision transformers"), ("random:swin_tiny_patch4_window7_224", "plain VisionTransformer"),
    ("random:no_such_patch16", "timm does not know a model"), ("nowhere/at-all", "Check the path|belong together"),
    ("depth-only", "no RGB encoder"), ("random:", "a start is")])
def test_a_wrong_start_is_one_line(start, words, tmp_path, capsys):
    if start == "depth-only":
        config = dataclasses.replace(MODEL, inputs=("depth",))
        start = str(save_model(tmp_path / "blind", Mask3D(config), {"step": 1}))
    assert cli.main(["probe", start, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and re.search(words, said[-1]), said
    assert not (tmp_path / "cache").exists(), "nothing was rendered for it"


def test_the_command_measures_rooms_and_my_store_and_draws_both(tmp_path, bench_cache, capsys, monkeypatch):
    from mask3d_core.evaluation import bench

    store = tmp_path / "mine"
    assert cli.main(["prepare", "rooms", "--out", str(store), "--height", "32", "--width", "48", "--val-share", "0.25",
                     "--test-share", "0.25", "--option", "count=12", "seed=3", "views_per_room=2", "height=32", "width=48"]) == 0
    frames, mine = rooms_frames(bench_cache, SMALL, ROOMS, progress=False), store_frames(store, SMALL)
    assert mine.tasks == (DEPTH, NORMALS, SEMANTICS) and len(mine.class_names) == 13
    monkeypatch.setattr(bench, "rooms_frames", lambda cache: frames)
    monkeypatch.setattr(bench, "store_frames", lambda path: mine)
    from mask3d_core.evaluation.bench import report

    monkeypatch.setattr(report, "run_bench", lambda *a, real=report.run_bench, **k: real(*a, config=SMALL, **k))
    save_model(tmp_path / "model", Mask3D(MODEL), {"step": 1})
    assert cli.main(["probe", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--data", str(store), "--no-references",
                     "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for name in ("bench", "store-mine"):
        values = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert values["machine"]["versions"]["torch"] and values["selection"] and values["frames"]["fingerprint"]
        assert {"model", "untrained, same shape", PIXELS, POSITION, TRIVIAL} <= set(values["rows"])
        assert (PIXELS_ALONE in values["rows"]) == (name == "bench"), "it only matches views"
        assert (tmp_path / "out" / f"{name}_dark.png").stat().st_size > 10_000
    assert "correspondence, no training" in said and "chosen on validation" in said


def test_a_store_that_cannot_be_probed_is_one_line(tmp_path, bench_cache):
    with pytest.raises(ConfigError, match="needs all three"):
        store_frames(bench_cache / ROOMS.version / "test", SMALL)
    with pytest.raises(StoreError):
        store_frames(tmp_path / "nothing", SMALL)


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "test")])
def test_labelled_frames_are_probed_first_and_a_part_without_any_has_no_semantics(tmp_path, parts):
    """As in a recording of which every sixth frame is labelled."""
    class Sparse(ListSource):
        def official_split(self, index):
            return ("train", "train", "val", "test")[index * 4 // len(self)]

        def read(self, index):
            frame = super().read(index)
            labels = np.full(frame.depth.shape, index // 6 % 2 if index % 6 == 4 and self.official_split(index) in parts else IGNORE_LABEL)
            return dataclasses.replace(frame, semantic=labels.astype(np.uint8), instance=None)

    source = Sparse(48, 16, labels=True, height=32, width=48)
    source.labels = frozenset({"semantic"})
    prepare(source, tmp_path / "store", PrepareConfig(32, 48, split="official"), progress=False)
    most = {"train": 6, "val": 5, "test": 5}
    frames = store_frames(tmp_path / "store", SMALL, most)
    store, labelled = Store(tmp_path / "store"), {}
    for part in most:
        batch, _ = frames.read(part, np.arange(frames.count(part)))
        labelled[part] = int((batch.semantic != IGNORE_LABEL).flatten(1).any(dim=1).sum())
        assert frames.count(part) == most[part]
    assert labelled == {"train": 4, "val": 2 if "val" in parts else 0, "test": 2} and len(store) == 48
    assert (SEMANTICS in frames.tasks) == (len(parts) == 3)
    assert f"({', '.join(map(str, labelled.values()))} of them labelled)" in frames.words


def test_the_references_are_what_ships_and_the_start_is_not_listed_twice():
    bench = open_bench("data/checkpoints/tiny")
    if bench.missing:
        pytest.skip("the shipped checkpoints are not here")
    assert list(bench.references) == [f"{name}, as shipped" for name in ("micro", "micro-mae", "tiny-mae")] and bench.name == "tiny"
    assert list(open_bench("random", references=False).references) == []


def test_the_figure_has_a_row_for_everybody_in_both_themes():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from mask3d_viz.bench_view import bench_figure, row_order
    from mask3d_viz.curves import figure_image
    from mask3d_viz.pixels import PictureError

    told = function_entry("told", one_hot, CLASSES, "encoder")
    result = bench_entries([told, *opponent_entries(SMALL)], frames_of(world()), SMALL)
    values = result.as_dict()
    assert row_order(values["rows"])[0] == "told"
    pictures = [figure_image(bench_figure(values, theme)) for theme in ("light", "dark")]
    assert pictures[0].shape == pictures[1].shape and pictures[0].mean() > 150 > 100 > pictures[1].mean()
    assert [axis.get_title(loc="left") for axis in bench_figure(values).axes] == ["Depth \N{DAGGER}", "Surface normals \N{DAGGER}", "Semantics"]
    said = " ".join(text.get_text() for text in bench_figure(values).texts)
    assert "\N{DAGGER} favours encoders that were trained to predict depth" in " ".join(said.split())
    assert "favour, by construction" in result.text() and "--task detect --freeze -1" in result.text()
    with pytest.raises(PictureError, match="mask3d probe"):
        bench_figure({"rows": {}})
    assert set(METRICS) == {DEPTH, NORMALS, SEMANTICS, MATCHING}
