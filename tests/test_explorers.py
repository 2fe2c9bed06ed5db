"""Explorers without a browser: driven through their widgets' traits and through the session, stale results included."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation import OPPONENTS
from mask3d_core.models import Mask3D
from mask3d_core.evaluation.influence import measure_influence
from mask3d_core.evaluation.uncertainty import rank_correlation
from mask3d_viz.explorers.attention import explore_attention
from mask3d_viz.explorers.depth import explore_depth
from mask3d_viz.explorers.explore import explore
from mask3d_viz.explorers.masks import evidence_html, explore_masks
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.session import HIDDEN, Session


def wait(session):
    assert studio_of(session).wait(60)


def test_the_hand_on_a_picture_changes_the_session_and_the_pictures_follow(session):
    explorer = explore_masks(session)
    rgb, depth, prediction = (explorer.pictures[n] for n in ("rgb", "depth", "prediction"))
    assert int(rgb.hidden.sum()) == 16 and np.array_equal(rgb.hidden.ravel(), session.is_masked("rgb"))
    before = prediction.pixels
    for hidden in (12, 8, 4):  # as the browser's slider sends it
        rgb.hidden_count = hidden
    rgb.is_dragging = True
    rgb.is_dragging = False
    assert session.state.rgb_ratio == 0.2 and int((~session.is_masked("rgb")).sum()) == 16
    wait(session)
    assert prediction.pixels != before and not prediction.stale
    session.undo()
    assert session.state.rgb_ratio == 0.8 and rgb.hidden_count == 16, "one gesture, one undo"
    showable = int(np.flatnonzero(session.ranks("depth") < 20)[0])
    depth.stroke = {"number": 1, "patches": [showable], "value": HIDDEN}
    assert session.state.painted_depth == ((showable, HIDDEN),) and depth.hidden.ravel()[showable]
    depth.request = {"number": 1, "what": "clear"}
    assert session.state.painted_depth == ()
    depth.request = {"number": 2, "what": "undo"}
    assert session.state.painted_depth == ((showable, HIDDEN),)
    wait(session)
    explorer.close()


def test_one_selection_everywhere_and_two_explorers_are_linked(session):
    first, second = explore_masks(session), explore_masks(session)
    first.pictures["truth"].hover = 7
    first.pictures["error"].selection = [3, 4]
    for explorer in (first, second):
        assert all(p.hover == 7 and p.selection == [3, 4] for p in explorer.pictures.values())
    second.seed.value = 5
    assert session.state.seed == 5 and first.seed.value == 5
    assert np.array_equal(first.pictures["rgb"].hidden.ravel(), session.is_masked("rgb"))
    first.close()
    session.change(frame=1)
    assert second.frame.value == 1 and first.frame.value == 0, "a closed view listens no more"
    wait(session)
    second.close()


def test_what_is_not_the_newest_is_marked_stale_and_an_overtaken_result_is_never_shown(session):
    explorer, studio = explore_masks(session), studio_of(session)
    gate, real, shown = threading.Event(), studio.predictions.now, []

    def slow(judge=True):
        result = real(judge=judge)
        assert gate.wait(60)
        return result

    studio.predictions.now = slow
    studio.on(lambda: shown.append(studio.shown.key) if not studio.is_stale else None)
    session.change(seed=1)
    assert explorer.pictures["prediction"].stale and explorer.pictures["error"].stale
    session.change(seed=2)
    gate.set()
    wait(session)
    studio.predictions.now = real
    assert not explorer.pictures["prediction"].stale
    assert set(shown) == {real().key}, "only the newest state's prediction was shown"
    explorer.close()


def test_controls(session):
    explorer = explore_masks(session)
    next(b for b in explorer.presets if b.description == "RGB only").click()
    assert (session.state.rgb_ratio, session.state.depth_ratio) == (0.0, 1.0)
    wait(session)
    assert "scale assumed" in explorer.pictures["prediction"].note and "No depth is visible" in explorer.evidence.value
    explorer.undo.click()
    explorer.new_mask.click()
    assert session.state.seed == 1 and session.state.depth_ratio == 0.8
    explorer.color_source.value = "grey"
    wait(session)
    assert len(set(explorer.pictures["rgb"].pixels)) == 1
    plain = explorer.pictures["prediction"].pixels
    explorer.is_pasted.value = True
    assert explorer.pictures["prediction"].pixels != plain
    assert "pasted in" in explorer.pictures["prediction"].note
    explorer.hide_object.click()
    assert "Select a patch" in explorer.message.value
    explorer.close()


def test_what_cannot_be_is_said_in_the_panel(session):
    explorer = explore_masks(session)
    session.change(rgb_ratio=1.0, depth_ratio=1.0)
    wait(session)
    prediction = explorer.pictures["prediction"]
    assert "visible token" in explorer.message.value and not prediction.stale, "nothing newer is on its way"
    assert prediction.note == "cannot be shown" and "mask3d-unshown" in explorer._tiles["prediction"]._dom_classes
    assert prediction.values == b"" and explorer.evidence.value == "", "nothing old is left that could be taken for new"
    session.change(depth_ratio=0.5)
    wait(session)
    assert explorer.message.value == "" and not prediction.stale and "mask3d-unshown" not in explorer._tiles["prediction"]._dom_classes
    assert prediction.note != "cannot be shown" and "Mask3D" in explorer.evidence.value
    explorer.wish(frame=99)
    assert "frame must be" in explorer.message.value and explorer.frame.value == 0
    explorer.close()


def test_every_view_has_a_still_a_line_of_text_and_its_code(session, frames):
    explorer = explore_masks(session)
    session.change(seed=3, rgb_ratio=0.5)
    wait(session)
    data = explorer._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert data["text/plain"].startswith("MaskExplorer: frame 0, 10 of 20 RGB patches")
    assert len(data["image/png"]) > 1000 and explorer.still().ndim == 3
    other = Session(frames, dict(session.checkpoints))
    made = {}
    exec(explorer.code(), {"session": other, "explore_masks": lambda s: made.setdefault("view", explore_masks(s))})
    assert other.state == session.state and made["view"].pictures["rgb"].hidden.tolist() == explorer.pictures[
        "rgb"].hidden.tolist()
    assert "best" in evidence_html(studio_of(session).shown)
    for view in (explorer, made["view"]):
        view.close()


def test_the_clouds_follow_the_session_and_the_session_the_clouds(session, tmp_path):
    explorer = explore_depth(session)
    cloud = explorer.cloud
    measured = int(session.batch().is_valid.sum())
    assert len(cloud.points(0).pixel) == measured and len(cloud.points(1).pixel) == 64 * 80
    assert cloud.mode == "kind" and set(np.unique(cloud.points(1).kind)) == {0, 1, 2}
    before = cloud.positions_1
    session.change(seed=4, color_mode="error", hover=3, selection=(1, 2))
    wait(session)
    assert cloud.positions_1 != before and cloud.mode == "error" and cloud.hover == 3 and cloud.selection == [1, 2]
    error = cloud.points(1).values[1]
    r = studio_of(session).shown.reconstruction
    np.testing.assert_allclose(np.nanmean(np.abs(error)), 1000 * np.abs(r.prediction - r.depth)[r.is_valid].mean(), rtol=1e-3)
    assert np.isnan(error).sum() == (~r.is_valid).sum(), "no error where nothing was measured"
    cloud.mode = "color"
    cloud.selection = [5]
    cloud.camera = {**cloud.camera, "yaw": 55.0}
    assert session.state.color_mode == "rgb" and session.state.selection == (5,) and session.state.camera["yaw"] == 55.0
    session.undo()
    assert cloud.camera["yaw"] != 55.0 or session.state.camera is None
    assert [p.name for p in explorer.save_ply(tmp_path)] == ["truth.ply", "prediction.ply"]
    session.change(depth_ratio=1.0)
    wait(session)
    assert "scale assumed" in cloud.note
    explorer.close()


def test_explore_is_all_of_it_on_one_session(session):
    view = explore(session)
    view.masks.pictures["rgb"].hidden_count = 4
    wait(session)
    assert session.state.rgb_ratio == 0.2 and not view.depth.cloud.stale
    view.depth.cloud.hover = 9
    assert view.masks.pictures["error"].hover == 9
    still = view.still()
    assert still.ndim == 3 and still.shape[0] > 500
    data = view._repr_mimebundle_()
    assert "image/png" in (data[0] if isinstance(data, tuple) else data)
    assert view.code().endswith("explore(session)")
    view.close()
    session.change(seed=8)
    wait(session)
    assert view.masks.seed.value == 0, "closed with all its parts"


def test_a_patch_is_asked_and_answers_with_what_moves_it(session):
    explorer = explore_attention(session)
    assert "Click a patch" in explorer.answer.value
    explorer.pictures["rgb"].selection = [7]
    assert explorer.worker.wait(120) and "2 from" not in explorer.message.value
    influence = measure_influence(session.model()[0], session.batch(), session.masks())
    shares = influence.shares(7)
    assert f"{shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour" in explorer.answer.value
    heat = np.frombuffer(explorer.pictures["rgb"].heat, "<f4")
    np.testing.assert_allclose(heat, influence.rgb_moves[7].numpy() * 100, rtol=1e-4, atol=1e-4)
    assert np.isnan(heat).sum() == session.is_masked("rgb").sum()
    arrows = [a for n in ("rgb", "depth") for a in explorer.pictures[n].arrows]
    assert arrows and all(a["to"] == 7 and a["from"] != 7 for a in arrows)
    assert "Rank correlation" in explorer.mass.value and "often disagree" in explorer.mass.value
    asked = []
    explorer.worker.ask = lambda *_: asked.append(1)
    session.change(selection=(3,))
    assert not asked and explorer.sentence().startswith("Row 1, column 4:"), "one pass answers for every patch"
    del explorer.worker.ask
    session.change(seed=6)
    wait(session)
    assert explorer.worker.wait(120) and explorer.sentence().startswith("Row 1, column 4:")
    visible = int(np.flatnonzero(~session.is_masked("rgb"))[0])
    session.change(selection=(visible,), layer=-2, head="1")
    assert explorer.layer.value == -2 and explorer.head.value == "1"
    assert np.isfinite(np.frombuffer(explorer.pictures["attention rgb"].heat, "<f4")).any()
    session.change(head="15")
    assert "head must be" in explorer.message.value
    assert explorer.still().shape[1] == 1200 and "explore_attention" in explorer.code()
    explorer.close()


def test_the_arrows_of_an_asked_patch_stand_in_the_cloud_too(session):
    asked, depth = explore_attention(session), explore_depth(session)
    session.change(selection=(7,))
    assert asked.worker.wait(120) and depth.cloud.arrows
    drawn = [a for n in ("rgb", "depth") for a in asked.pictures[n].arrows]
    assert sorted(a["weight"] for a in drawn) == sorted(a["weight"] for a in depth.cloud.arrows)
    points = depth.cloud.points(1)
    for arrow in depth.cloud.arrows:  # an arrow's ends lie at their patch: no further off than the patch is wide and deep
        assert np.abs(points.positions - np.array(arrow["to"])).sum(1).min() < 0.6
    row, column = divmod(7, session.grid[1])
    camera = session.batch().intrinsics[0].numpy()
    x, y, z = depth.cloud.arrows[0]["to"]
    pixel = np.array([y / z * camera[1] + camera[3], x / z * camera[0] + camera[2]])
    np.testing.assert_allclose(pixel, [(row + 0.5) * session.patch, (column + 0.5) * session.patch], atol=0.51)
    session.change(selection=())
    assert depth.cloud.arrows == []
    asked.close()
    depth.close()


def test_rank_correlation():
    assert rank_correlation(np.array([1, 2, 3, 9]), np.array([2, 3, 5, 100])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 1, 2, 2]), np.array([0, 1, 0, 1])) == pytest.approx(0)
    assert np.isnan(rank_correlation(np.array([1, 1, 1]), np.array([3, 2, 1])))


def test_in_one_view_a_patch_is_asked_and_all_parts_point_at_what_moves_it(session):
    view = explore(session)
    view.ask.click()
    assert "Click a patch first" in view.answer.value
    session.change(selection=(7,))
    view.ask.click()
    assert view.questions.worker.wait(120) and "from depth" in view.answer.value
    influence = measure_influence(session.model()[0], session.batch(), session.masks())
    shares = influence.shares(7)
    assert f"{shares['depth']:.0%} from depth, {shares['rgb']:.0%} from colour" in view.answer.value
    drawn = [a for n in ("rgb", "depth") for a in view.masks.pictures[n].arrows]
    assert drawn and len(drawn) == len(view.depth.cloud.arrows)
    session.change(selection=(3,))
    assert all(a["to"] == 3 for n in ("rgb", "depth") for a in view.masks.pictures[n].arrows), "one pass answers for all"
    other = explore_attention(session)
    assert other.sentence().startswith("Row 1, column 4:"), "and for every other view of the session"
    other.close()
    session.change(seed=6)
    assert not view.masks.pictures["depth"].arrows and not view.depth.cloud.arrows and "ask" in view.answer.value
    wait(session)
    view.close()


# ---- what was wrong once ---------------------------------------------------------------------------------------------

def color_seen(view):
    return np.frombuffer(view.pictures["rgb"].pixels, np.uint8).reshape(64, 80, 3)


def test_the_colour_of_the_frame_is_drawn_where_nothing_can_be_predicted(session, frames):
    view = explore_masks(session)
    as_seen = lambda number: (session.batch(number).color[0].permute(1, 2, 0) * 255).round().byte().numpy()  # noqa: E731
    session.change(rgb_ratio=1.0, depth_ratio=1.0)
    session.change(frame=1)
    wait(session)
    np.testing.assert_array_equal(color_seen(view), as_seen(1))
    session.change(color_source="grey")
    assert len(set(view.pictures["rgb"].pixels)) == 1
    view.close()
    model = Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("rgb",))).eval()
    session = Session(frames, {"mae": model})
    view = explore_masks(session)
    np.testing.assert_array_equal(color_seen(view), as_seen(0))
    session.change(frame=2)
    np.testing.assert_array_equal(color_seen(view), as_seen(2))
    view.close()
    alone = Session(frames[:1], {"mae": model}, color_source="another frame")
    view = explore_masks(alone)
    np.testing.assert_array_equal(color_seen(view), as_seen(0))
    view.close()


def test_in_one_view_the_reason_is_said_once_and_the_cloud_does_not_seem_to_wait(session):
    view = explore(session)
    cloud = view.depth.cloud
    assert not cloud.problem and not cloud.note, "the counts stand beside the controls"
    session.change(rgb_ratio=1.0, depth_ratio=1.0)
    wait(session)
    said = [w.value for w in (view.message, view.masks.message, view.depth.message, view.answer, view.masks.words)]
    assert sum("visible token" in text for text in said) == 1
    assert not cloud.stale and "visible token" in cloud.problem and "patches" not in cloud.note
    assert view.depth.numbers.value == ""
    session.change(depth_ratio=0.5)
    assert cloud.stale, "now a newer one is on its way"
    wait(session)
    assert not cloud.stale and not cloud.problem and not cloud.note
    view.close()


def test_a_model_without_depth_has_no_panes_for_depth(frames):
    torch.manual_seed(0)
    both = Mask3D(MODEL).eval()
    both.set_depth_statistics(0.5, 0.3)
    mae = Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("rgb",))).eval()
    session = Session(frames, {"mae": mae, "both": both})
    masks, depth, whole = explore_masks(session), explore_depth(session), explore(session)
    of_depth = [depth.whole, whole.depth] + [part for view in (masks, whole.masks) for part in (
        view._tiles["prediction"], view._tiles["error"], view.evidence)]
    assert all(part.layout.display == "none" for part in of_depth)
    assert masks._tiles["rgb"].layout.display != "none" and masks._tiles["truth"].layout.display != "none"
    assert masks.pictures["depth"].hidden.all() == masks.pictures["depth"].measured.all(), "it never sees any of it"
    said = [w.value for w in (whole.message, whole.masks.message, whole.depth.message)]
    assert sum("mae predicts rgb, no depth" in text for text in said) == 1
    session.change(checkpoint="both")
    wait(session)
    assert all(part.layout.display != "none" for part in of_depth)
    for view in (masks, depth, whole):
        view.close()


def test_a_pictures_own_undo_takes_back_its_last_stroke_and_nothing_else(session):
    view = explore_masks(session)
    depth, rgb = view.pictures["depth"], view.pictures["rgb"]
    showable = [int(p) for p in np.flatnonzero(session.ranks("depth") < 20)[:2]]
    depth.stroke = {"number": 1, "patches": showable[:1], "value": HIDDEN}
    depth.stroke = {"number": 2, "patches": showable[1:], "value": HIDDEN}
    rgb.stroke = {"number": 1, "patches": [4], "value": HIDDEN}
    session.change(view="top", selection=(3,), depth_ratio=0.5)
    depth.request = {"number": 1, "what": "undo"}
    state = session.state
    assert state.painted_depth == ((showable[0], HIDDEN),) and state.painted_rgb == ((4, HIDDEN),)
    assert (state.view, state.selection, state.depth_ratio) == ("top", (3,), 0.5)
    depth.request = {"number": 2, "what": "undo"}
    assert session.state.painted_depth == () and session.state.view == "top"
    depth.request = {"number": 3, "what": "undo"}
    assert "No stroke on depth" in view.message.value and session.state.view == "top"
    rgb.request = {"number": 1, "what": "undo"}
    assert session.state.painted_rgb == ()
    view.undo.click()
    assert session.state.painted_rgb == ((4, HIDDEN),), "the general undo takes a step back like any other change"
    view.undo.click()
    assert session.state.painted_depth == ((showable[0], HIDDEN),)
    view.redo.click()
    assert session.state.painted_depth == () and not view.redo.disabled
    wait(session)
    view.close()


def an_object(session):
    """A patch on an object that was measured."""
    batch = session.batch()
    of_things = ((batch.instance > 0) & batch.is_valid)[0].view(4, 16, 5, 16).permute(0, 2, 1, 3).reshape(20, -1).float().mean(1)
    return int(of_things.argmax())


def test_a_hidden_object_is_measured_with_and_without_its_colour(session):
    view = explore_masks(session)
    patch, plain = an_object(session), view.pictures["truth"].pixels
    session.change(selection=(patch,), depth_ratio=0.3)
    pixels = session.object_at(patch)
    view.hide_object.click()
    assert session.state.selection == (), "no boxes over the object that one wants to see"
    wait(session)
    assert view.hidden_object.worker.wait(60)
    predictions = studio_of(session).predictions
    r = predictions.now().reconstruction
    counted = pixels & r.is_valid
    grey = predictions.now(color_source="grey").reconstruction.prediction
    own = np.abs(r.prediction - r.depth)[counted].mean()
    said = view.of_object.value
    assert f"predicted {100 * own:.1f} cm off with its own colour" in said and "spline in depth: " in said
    assert f"{100 * np.abs(grey - r.depth)[counted].mean():.1f} cm with grey colour" in said
    assert f"over its {counted.sum():,} measured pixels" in said
    assert view.pictures["truth"].pixels != plain, "it has an outline"
    asked = []
    view.hidden_object.worker.ask = lambda *_: asked.append(1)
    session.change(color_source="grey")
    wait(session)
    assert view.of_object.value == said and not asked, "measured once"
    del view.hidden_object.worker.ask
    session.undo()
    session.undo()
    wait(session)
    assert view.of_object.value == "" and view.pictures["truth"].pixels == plain
    view.close()


def test_an_object_cannot_be_hidden_where_none_is_labelled(frames):
    bare = [dataclasses.replace(frames[0], instance=None, semantic=None), frames[1]]
    torch.manual_seed(0)
    model = Mask3D(MODEL).eval()
    model.set_depth_statistics(0.5, 0.3)
    session = Session(bare, {"one": model})
    view = explore_masks(session)
    assert view.hide_object.disabled and "no instance labels" in view.hide_object.tooltip
    session.change(frame=1)
    assert not view.hide_object.disabled and "does colour alone" in view.hide_object.tooltip
    wait(session)
    view.close()


def test_what_is_seldom_wanted_is_folded_away_in_the_one_view_and_never_on_a_projector(session):
    view, masks = explore(session), explore_masks(session)
    seldom = (view.masks.seed, view.masks.color_source, view.masks.colormap, view.masks.hide_object, view.depth.native)
    assert all(control in view.masks.more_controls.children for control in seldom)
    assert view.masks.more_controls.layout.display == "none" and masks.more_controls.layout.display == "flex"
    view.masks.more.value = True
    assert view.masks.more_controls.layout.display == "flex"
    for part in (view.masks.more, view.masks.more_controls):
        assert "mask3d-not-presented" in part._dom_classes
    view.close()
    masks.close()


def test_a_preset_leaves_no_crowd_selected(session):
    view = explore_masks(session)
    session.change(selection=(1, 2, 3))
    view.presets[0].click()
    assert session.state.selection == ()
    session.change(selection=(2,))
    view.presets[1].click()
    assert session.state.selection == (2,)
    wait(session)
    view.close()


def test_the_frame_is_named_and_what_can_be_undone_is_said(session):
    view = explore_masks(session)
    assert f"of 3 · {session.frames.name(0)}" in view.frame_words.value and view.undo.disabled and view.redo.disabled
    session.change(frame=2)
    assert f"of 3 · {session.frames.name(2)}" in view.frame_words.value and not view.undo.disabled
    view.undo.click()
    assert view.undo.disabled and not view.redo.disabled
    view.redo.click()
    assert session.state.frame == 2 and view.redo.disabled
    wait(session)
    view.close()


def test_what_is_taken_along_is_of_the_state_as_it_is(session, tmp_path):
    view = explore_masks(session)
    session.change(depth_ratio=0.25, rgb_ratio=0.1)  # and at once, before the worker is done
    content = view.export("CSV", tmp_path).read_text()
    seen = sum(line.split(",")[3] == "seen" for line in content.splitlines())
    assert seen == int((~session.is_masked("depth")).sum())
    session.change(seed=11)
    view.keep()
    expected = studio_of(session).predictions.now().reconstruction.scores["abs_rel"]
    assert f"AbsRel {expected:.3f}" in session.scenes[-1].words
    session.change(rgb_ratio=1.0, depth_ratio=1.0)
    with pytest.raises(ConfigError):
        view.export("PNG", tmp_path)
    wait(session)
    assert "mask3d-stale" in view.evidence._dom_classes, "old numbers are not shown as fresh"
    view.close()


def test_a_patch_is_asked_about_the_colour_that_the_model_saw(session):
    explorer = explore_attention(session)
    session.change(selection=(7,), color_source="grey")
    wait(session)
    assert explorer.worker.wait(120)
    influence = explorer.questions.known()[0]
    shown = studio_of(session).shown
    row, column = divmod(7, session.grid[1])
    cell = np.s_[row * 16:row * 16 + 16, column * 16:column * 16 + 16]
    assert float(influence.base[7]) == pytest.approx(float(shown.reconstruction.prediction[cell].mean()), abs=0.02)
    assert torch.equal(shown.seen.batch.color, torch.full_like(shown.seen.batch.color, 0.5))
    explorer.close()


def test_the_best_opponent_is_the_best_of_all(session):
    shown = studio_of(session).now()
    assert set(shown.opponents) == set(OPPONENTS)
    assert shown.best_opponent == min(shown.opponents, key=lambda name: shown.opponents[name]["abs_rel"])


def test_the_scale_of_errors_stays_while_the_slider_moves(session):
    view = explore_masks(session)
    before = view.pictures["error"].bar_range
    session.change(depth_ratio=0.3)
    wait(session)
    assert view.pictures["error"].bar_range == before
    view.is_locked.value = True
    locked = session.state.depth_range
    session.change(frame=1)
    wait(session)
    assert session.state.depth_range == locked and view.pictures["truth"].bar_range == pytest.approx(locked)
    view.colormap.value = "viridis"
    assert session.state.colormap == "viridis"
    view.close()


def test_a_model_without_depth_is_told_in_one_line_and_its_features_can_be_seen(frames):
    model = Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("rgb",))).eval()
    session = Session(frames, {"mae": model})
    for make in (explore, explore_masks, explore_depth, explore_attention):
        view = make(session)
        said = view.masks.message.value if hasattr(view, "masks") else view.message.value
        assert "mae predicts rgb, no depth" in said and "explore_features" in said
        view.close()
    session.change(selection=(1,))


def test_a_model_that_never_sees_depth_is_scored_everywhere(frames):
    model = Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("depth",))).eval()
    model.set_depth_statistics(0.5, 0.3)
    session = Session(frames, {"rgb": model})
    view = explore_masks(session)
    assert "depth patches" not in session.words() and not view.pictures["depth"].ratio_control
    shown = studio_of(session).shown
    assert shown.seen.counted.sum() == shown.seen.frame.is_valid.sum() and not shown.opponents
    view.close()


def test_another_frames_colour_needs_another_frame(frames):
    torch.manual_seed(0)
    model = Mask3D(MODEL).eval()
    model.set_depth_statistics(0.5, 0.3)
    session = Session(frames[:1], {"one": model})
    view = explore_masks(session)
    session.change(color_source="another frame")
    wait(session)
    assert "second frame" in view.message.value and "valid configuration" not in view.message.value
    view.close()


def test_a_cell_that_is_run_again_leaves_no_view_behind(session, monkeypatch):
    monkeypatch.setattr("mask3d_viz.explorers.base.running_cell", lambda: "cell-1")
    first = explore(session)
    count = len(session._listeners)
    second = explore(session)
    assert len(session._listeners) == count, "the view of the run before listens no more"
    session.change(seed=2)
    wait(session)
    assert first.masks.seed.value == 0 and second.masks.seed.value == 2
    second.close()
