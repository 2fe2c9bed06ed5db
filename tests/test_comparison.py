"""Checkpoint B beside A: pictures, clouds and numbers over the same pixels, the list in which it is chosen, what B cannot do."""

import csv
import dataclasses
import io
import threading

import numpy as np
import pytest
import torch
from conftest import random_model
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.evaluation import depth_metrics
from mask3d_viz.depth_clouds import two_predictions
from mask3d_viz.explorers.comparison import comparison_of
from mask3d_viz.explorers.depth import explore_depth
from mask3d_viz.explorers.explore import explore
from mask3d_viz.explorers.masks import OF_B, explore_masks
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.images import depth_image
from mask3d_viz.session import Session

COLOR_ALONE = {"inputs": ("rgb",), "targets": ("depth",)}


@pytest.fixture
def session(frames):
    return Session(frames, {"first": random_model(), "second": random_model(seed=1)})


def with_second(frames, **changes):
    return Session(frames, {"first": random_model(), "other": random_model(dataclasses.replace(MODEL, **changes), 1)})


def wait(session):
    assert comparison_of(studio_of(session)).wait(60)


def of_b(session):
    """What B predicts of the state, apart from any view."""
    batch = session.batch()
    with torch.inference_mode():
        return session.model(session.state.compare)[0](batch.color, batch.depth, batch.is_valid, batch.intrinsics,
                                                       session.masks()).depth


def test_the_pictures_of_b_stand_beside_as_on_the_same_scales_and_its_numbers_on_the_same_pixels(session):
    view = explore_masks(session)
    tile = view._tiles["prediction"]
    assert view.picker.layout.display == "flex" and len(tile.children) == 1
    before = view.pictures["prediction"].pixels, view.still().shape
    view.picker.second.value = "second"
    assert session.state.compare == "second"
    wait(session)
    assert list(tile.children) == [view.pictures["prediction"], view.pictures[OF_B[0]]]
    assert view.pictures["prediction"].label == "Prediction of A: first" and view.pictures[OF_B[1]].label == "Error of B: second"
    depth = of_b(session)
    is_valid = session.batch().is_valid[0].numpy()
    drawn = np.frombuffer(view.pictures[OF_B[0]].pixels, np.uint8).reshape(64, 80, 3)
    np.testing.assert_array_equal(drawn[is_valid], depth_image(depth[0], None, session.limits())[is_valid])
    assert view.pictures["prediction"].pixels == before[0] and before[0] != view.pictures[OF_B[0]].pixels
    for name, second in (("prediction", OF_B[0]), ("error", OF_B[1])):
        assert view.pictures[name].bar_range == view.pictures[second].bar_range
    shown = studio_of(session).shown
    scores = depth_metrics(depth, session.batch().depth, shown.seen.counted)
    found = comparison_of(studio_of(session)).shown
    assert found.scores["abs_rel"] == pytest.approx(float(scores["abs_rel"]), rel=1e-5) and found.peeked == 0
    assert f"B: second</td><td style='text-align:right;padding-right:14px'>{found.scores['abs_rel']:.3f}" in view.evidence.value
    assert f"A: first</td><td style='text-align:right;padding-right:14px'>{shown.reconstruction.scores['abs_rel']:.3f}" in (
        view.evidence.value.replace(" ◂ best", ""))
    assert "spline" in view.evidence.value
    picture = view.still()
    assert picture.shape[1] == 1200 and picture.shape[0] > before[1][0] + 100
    rows = list(csv.DictReader(io.StringIO(view._file("CSV")[1].decode())))
    assert float(rows[7]["prediction_b_m"]) == pytest.approx(found.second.patch_values()["prediction"][1, 2], abs=1e-4)
    assert "compare='second'" in view.code() and f"B: {found.scores['abs_rel']:.3f}" in view.scene_words()
    view.is_pasted.value = True
    assert view.pictures[OF_B[0]].pixels != drawn.tobytes(), "pasted into both"
    session.undo()
    session.undo()
    assert session.state.compare == "" and list(tile.children) == [view.pictures["prediction"]]
    assert view.picker.second.value == "" and view.pictures["prediction"].label == "Prediction"
    assert "Mask3D" in view.evidence.value
    view.close()


def test_what_b_showed_before_is_dimmed_until_it_is_of_the_new_state(session):
    view, studio = explore_masks(session), studio_of(session)
    session.change(compare="second")
    wait(session)
    gate, real, old = threading.Event(), studio.predictions.now, view.pictures[OF_B[0]].pixels

    def slow(checkpoint=None, judge=True):
        assert checkpoint is None or gate.wait(60)
        return real(checkpoint=checkpoint, judge=judge)

    studio.predictions.now = slow
    session.change(seed=5)
    assert studio.wait(60)
    assert not view.pictures["prediction"].stale and view.pictures[OF_B[0]].stale, "A does not wait for B"
    assert view.pictures[OF_B[0]].pixels == old and "B: second is on its way" in view.evidence.value
    gate.set()
    wait(session)
    studio.predictions.now = real
    assert not view.pictures[OF_B[0]].stale and view.pictures[OF_B[0]].pixels != old and "on its way" not in view.evidence.value
    view.close()


def test_a_scene_brings_both_back(session):
    view = explore_masks(session)
    session.change(compare="second", seed=2)
    wait(session)
    view.keep()
    session.change(compare="", seed=0)
    session.show_scene(0)
    wait(session)
    assert view.is_two and view.picker.second.value == "second" and "B: " in session.scenes[0].words
    view.close()


def test_the_clouds_are_as_and_bs_with_the_same_flying_pixels(session, tmp_path):
    view = explore_depth(session)
    assert view.beside.layout.display == "none" and view.cloud.panes == ["truth", "prediction"]
    session.change(compare="second")
    wait(session)
    assert view.beside.layout.display is None and view.cloud.panes == ["truth", "prediction"], "truth stays until it is asked"
    assert "B, second: AbsRel" in view.numbers.value
    view.beside.value = "checkpoint B"
    assert view.cloud.panes == ["A: first", "B: second"] and not view.cloud.stale and view.native.disabled
    first, second = studio_of(session).shown.reconstruction.prediction, of_b(session)[0].numpy()
    for index, depth in enumerate((first, second)):
        np.testing.assert_allclose(view.cloud.points(index).positions[:, 2], depth.ravel(), rtol=1e-5)
    errors = [view.cloud.points(index).values[1] for index in (0, 1)]
    np.testing.assert_array_equal(np.isnan(errors[0]), np.isnan(errors[1]))
    for limit in (85.0, 60.0):
        session.change(edge_limit=limit)
        np.testing.assert_array_equal(view.cloud.is_drawn(0), view.cloud.is_drawn(1))
    assert view.removed()[0] == (~view.cloud.is_drawn(0)).sum() > 0
    assert [path.name for path in view.save_ply(tmp_path)] == ["prediction-A.ply", "prediction-B.ply"]
    assert {"PLY prediction-A", "PLY prediction-B"} <= set(view.toolbar.kinds) == set(view.files())
    assert "beside='checkpoint B'" in view.code() and view.still().shape[1] == 1200
    session.change(seed=3)
    assert view.cloud.stale, "both wait for both"
    wait(session)
    assert not view.cloud.stale
    np.testing.assert_allclose(view.cloud.points(1).positions[:, 2], of_b(session)[0].numpy().ravel(), rtol=1e-5)
    session.change(compare="")
    assert view.cloud.panes == ["truth", "prediction"] and not view.cloud.stale and "PLY truth" in view.toolbar.kinds
    session.undo()
    wait(session)
    assert view.cloud.panes == ["A: first", "B: second"]
    view.close()


def test_a_pixel_flies_where_either_prediction_steps(session):
    r = studio_of(session).now().reconstruction
    flat = np.full_like(r.depth, 2.0)
    stepped = flat.copy()
    stepped[:, 40:] += 2
    for pair in ((flat, stepped), (stepped, flat)):
        edges = [points["edge"] for points in two_predictions(r, *pair)]
        np.testing.assert_array_equal(*edges)
        assert sorted(np.flatnonzero(edges[0] > 80) % 80) == [40] * 64


def test_a_b_that_predicts_no_depth_is_one_line_and_a_stays(frames):
    session = with_second(frames, inputs=("rgb",), targets=("rgb",))
    masks, depth = explore_masks(session), explore_depth(session)
    session.change(compare="other", beside="checkpoint B")
    wait(session)
    for view in (masks, depth):
        assert "B: other predicts rgb, no depth" in view.message.value and view.message.value.count("predicts rgb") == 1
    assert list(masks._tiles["prediction"].children) == [masks.pictures["prediction"]]
    assert not masks.pictures["prediction"].stale and "Mask3D" in masks.evidence.value
    assert depth.cloud.panes == ["truth", "prediction"] and not depth.cloud.stale
    assert masks.still().ndim == depth.still().ndim == 3
    session.change(seed=4)
    wait(session)
    assert "predicts rgb" in masks.message.value and not depth.cloud.stale
    session.change(compare="")
    assert masks.message.value == depth.message.value == ""
    masks.close()
    depth.close()


def test_a_b_of_another_size_is_one_line(frames):
    session = with_second(frames, image_size=(96, 128))
    view = explore_masks(session)
    session.change(compare="other")
    wait(session)
    assert "B: other sees 96x128 pixels" in view.message.value and not view.is_two
    view.close()


def test_where_only_b_was_shown_the_scored_pixels_the_numbers_are_called_incomparable(frames):
    session = Session(frames, {"color": random_model(dataclasses.replace(MODEL, **COLOR_ALONE)), "both": random_model()},
                      depth_ratio=0.5)
    view = explore_masks(session)
    session.change(compare="both")
    wait(session)
    found = comparison_of(studio_of(session)).shown
    seen = int((found.first.seen.counted[0].numpy() & found.second.reconstruction.is_visible).sum())
    assert found.peeked == seen > 0 and f"the depth of {seen:,} of the scored pixels" in view.evidence.value
    session.change(checkpoint="both", compare="color")
    wait(session)
    assert comparison_of(studio_of(session)).shown.peeked == 0 and "cannot be compared" not in view.evidence.value
    view.close()


def test_in_one_view_the_list_is_there_once_and_both_parts_follow(session):
    view = explore(session)
    assert view.masks.picker is None and view.depth.picker is None
    view.picker.second.value = "second"
    session.change(beside="checkpoint B")
    wait(session)
    assert view.masks.is_two and view.depth.cloud.panes == ["A: first", "B: second"]
    view.present()
    assert "mask3d-not-presented" not in view.masks._tiles["prediction"]._dom_classes
    assert "mask3d-not-presented" in view.masks._tiles["depth"]._dom_classes
    view.close()
    assert not comparison_of(studio_of(session))._listeners, "closed, nothing more is computed for B"
