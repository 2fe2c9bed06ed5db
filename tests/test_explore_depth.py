"""explore_depth: the same flying pixels on both sides, truth at its own resolution, curtain, exports, Open3D."""

import csv
import io

import numpy as np
import pytest
from conftest import make_frame, random_model

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError
from mask3d_core.frames import Intrinsics
from mask3d_core.ply import read_ply
from mask3d_viz import open3d_job, style
from mask3d_viz.clouds import provenance
from mask3d_viz.depth_clouds import both_clouds, fine_frame
from mask3d_viz.explorers.depth import explore_depth, open_in_open3d, sentence
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.session import Session, SessionState
from mask3d_viz.widgets.point_cloud import pixel_in

SIZE = (64, 80)  # what MODEL sees


@pytest.fixture(scope="module")
def frames():
    """One frame three times as fine as the model's picture and wider, with a hole, and one of the model's own size."""
    fine, own = make_frame(192, 300, seed=1), make_frame(*SIZE, seed=2)
    fine.depth[60:120, 150:] += 1.5  # a step
    fine.is_valid[:40, 100:200] = False
    fine.depth[~fine.is_valid] = 0
    own.depth[~own.is_valid] = 0
    return [fine, own]


@pytest.fixture(scope="module")
def shared(frames):
    return Session(frames, {"shipped": random_model()})


@pytest.fixture
def session(shared):
    """The one session, so that predictions are cached, in its first state."""
    shared.change(**SessionState().__dict__)
    wait(shared)
    return shared


@pytest.fixture
def explorer(session):
    explorer = explore_depth(session)
    yield explorer
    explorer.close()


def wait(session):
    assert studio_of(session).wait(60)


def test_the_same_pixels_fly_on_both_sides_and_the_numbers_stay(session, explorer):
    cloud, numbers = explorer.cloud, explorer.numbers.value
    kept = []
    for limit in (89.0, 75.0, 60.0):
        session.change(edge_limit=limit)
        assert cloud.edge_limit == limit
        truth, prediction = (cloud.points(i).pixel[cloud.is_drawn(i)] for i in (0, 1))
        is_valid = session.batch().is_valid[0].numpy().ravel()
        np.testing.assert_array_equal(truth, prediction[is_valid[prediction]])
        removed, of = explorer.removed()
        assert of == 64 * 80 and removed == of - len(prediction)
        kept.append(len(prediction))
    assert kept[0] > kept[1] > kept[2] > 0
    assert explorer.numbers.value == numbers
    cloud.edge_limit = 80.0  # the reader's hand on the slider
    assert session.state.edge_limit == 80.0
    with pytest.raises(ConfigError, match="edge_limit must lie in 0..90"):
        session.change(edge_limit=91.0)
    session.change(edge_limit=90)
    assert explorer.removed() == (0, 64 * 80), "90 degrees keep everything"
    assert "the same in both clouds" in cloud.edge_note


def test_a_pixel_flies_where_either_surface_steps(session):
    r = studio_of(session).now().reconstruction
    flat = r.depth * 0 + 2.0
    stepped = flat.copy()
    stepped[:, 40:] += 2
    whole = np.ones_like(r.is_valid)
    made = [both_clouds(r.__class__(**{**r.__dict__, "depth": truth, "is_valid": whole}), prediction)
            for truth, prediction in ((stepped, flat), (flat, stepped), (flat, flat))]
    flying = [sorted(np.flatnonzero(pane["edge"] > 80) % 80) for pair in made for pane in pair]
    assert flying == [[40] * 64] * 4 + [[]] * 2


def test_curtain_and_blinking_are_part_of_the_session(session, explorer):
    cloud = explorer.cloud
    session.change(layout="wipe", curtain=0.25)
    assert cloud.layout_mode == "wipe" and cloud.wipe == 0.25
    still = explorer.still()
    assert still.shape[1] == 1200
    cloud.wipe = 0.5
    cloud.wipe = 0.75  # dragged on
    assert session.state.curtain == 0.75
    assert not np.array_equal(explorer.still(), still)
    session.undo()
    assert cloud.wipe == 0.25, "one drag, one undo"
    cloud.layout_mode = "blink"
    assert session.state.layout == "blink" and "layout='blink'" in explorer.code()
    with pytest.raises(ConfigError, match="layout must be one of side, wipe, blink"):
        session.change(layout="stacked")


def test_left_of_the_curtain_is_truth_right_of_it_prediction(session, explorer):
    cloud = explorer.cloud
    session.change(color_mode="depth", layout="side")
    height, width = 300, 400
    panes = [cloud._pane_still(i, (height, width), "light") for i in (0, 1)]
    assert (panes[0] != panes[1]).any(2).mean() > 0.05
    session.change(layout="wipe", curtain=0.5)
    whole = cloud.still(width, height + 80)
    top = 26
    part = whole[top:top + 200]
    session.change(curtain=0.0)
    right = cloud.still(width, height + 80)[top:top + 200]
    session.change(curtain=1.0)
    left = cloud.still(width, height + 80)[top:top + 200]
    np.testing.assert_array_equal(part[:, :198], left[:, :198])
    np.testing.assert_array_equal(part[:, 202:398], right[:, 202:398])
    assert (left[:, 4:-4] != right[:, 4:-4]).any()


def test_views_and_cameras_are_those_of_the_session(session, explorer):
    cloud = explorer.cloud
    session.change(view="top")
    assert cloud.view == "top" and cloud.camera == cloud.views["top"]
    cloud.view = "front"
    assert session.state.view == "front" and session.state.camera is None
    own = {**cloud.camera, "yaw": 12.0}
    with cloud.hold_trait_notifications():  # as the browser sends a drag
        cloud.camera, cloud.view = own, ""
    assert session.state.camera == own and cloud.view == "" and cloud.camera == own
    other = explore_depth(session)
    assert other.cloud.camera == own
    other.cloud.view = "three-quarter"
    assert session.state.camera is None and cloud.camera == cloud.views["three-quarter"]
    session.undo()
    assert cloud.camera == own and cloud.view == ""
    session.undo()
    assert cloud.view == "front" and session.state.view == "front" and cloud.camera == cloud.views["front"]
    other.close()


def test_truth_at_its_own_resolution_with_the_models_kinds_and_errors(session, explorer, frames):
    cloud, plain = explorer.cloud, explorer.removed()
    explorer.native.value = True
    assert session.state.is_native and explorer.worker.wait(60)
    fine = fine_frame(frames[0], SIZE)
    assert fine.depth.shape == (192, 240) and cloud.pane_sizes == [(192, 240), SIZE]
    points = cloud.points(0)
    assert len(points.pixel) == fine.is_valid.sum()
    np.testing.assert_array_equal(points.positions[:, 2], fine.depth[fine.is_valid])
    over = pixel_in(SIZE, (192, 240), points.pixel.astype(int))
    r = studio_of(session).shown.reconstruction
    error = np.where(r.is_valid, 1000 * (r.prediction - r.depth), np.nan).ravel()
    np.testing.assert_allclose(points.values[1], error[over], rtol=1e-5)
    where = provenance(np.ones_like(r.is_valid), r.is_masked_depth).ravel()
    np.testing.assert_array_equal(points.kind, where[over])
    np.testing.assert_array_equal(cloud.patches(0), over // 80 // 16 * 5 + over % 80 // 16)
    gone = {i: set(np.unique(over[~cloud.is_drawn(0)]) if i == 0 else cloud.points(1).pixel[~cloud.is_drawn(1)])
            for i in (0, 1)}
    assert gone[0] <= gone[1] and gone[1] - gone[0] <= set(range(64 * 80)) - set(over.tolist())
    assert explorer.removed()[0] >= plain[0] and explorer.removed()[1] == plain[1]
    # the finer cloud lies where the coarse one does
    truth = {p: z for p, z in zip(over, points.positions[:, 2]) if r.is_valid.ravel()[p]}
    assert np.median([abs(truth[p] - r.depth.ravel()[p]) for p in truth]) < 0.02
    session.change(selection=(7,))
    assert explorer.still().shape[1] == 1200
    session.change(is_native=False)
    assert cloud.pane_sizes == [] and len(cloud.points(0).pixel) == r.is_valid.sum()


def test_a_frame_that_is_no_finer_says_so(session, explorer):
    session.change(frame=1, is_native=True)
    wait(session)
    assert explorer.worker.wait(60)
    assert "no finer than what the model sees (80 x 64)" in explorer.message.value
    assert explorer.cloud.pane_sizes == []


def test_a_large_frame_is_made_smaller_and_stays_in_place():
    frame = make_frame(300, 500)
    frame.depth[~frame.is_valid] = 0
    assert fine_frame(make_frame(64, 80), SIZE) is None
    small = fine_frame(frame, SIZE, most=20_000)
    assert small.height * small.width <= 20_000 and abs(small.height / small.width - 64 / 80) < 0.02
    fitted = frame.fit(*SIZE)
    k, own = small.intrinsics.resized(64 / small.height, 80 / small.width).as_array(), fitted.intrinsics.as_array()
    np.testing.assert_allclose(k, own, rtol=0.02, atol=0.6)
    assert isinstance(small.intrinsics, Intrinsics)


def test_provenance_names_what_was_never_measured(session, explorer):
    points, r = explorer.cloud.points(1), studio_of(session).shown.reconstruction
    never = points.kind == style.NEVER_MEASURED
    np.testing.assert_array_equal(never, ~r.is_valid.ravel())
    assert never.any() and np.isnan(points.values[1][never]).all() and not np.isnan(points.values[1][~never]).any()
    assert explorer.cloud.kinds[style.NEVER_MEASURED]["name"] == "never measured"


def test_the_numbers_name_the_best_opponent(session, explorer):
    shown = studio_of(session).shown
    best = shown.best_opponent
    said = sentence(shown)
    assert f"Mask3D: AbsRel {shown.reconstruction.scores['abs_rel']:.3f}" in said
    assert f"AbsRel {shown.opponents[best]['abs_rel']:.3f}, mean error {100 * shown.opponents[best]['mae']:.1f} cm" in said
    r = shown.reconstruction
    assert f"over {int((r.is_valid & ~r.is_visible).sum()):,} hidden" in said and said in explorer.numbers.value.replace(
        "&#x27;", "'")
    session.change(depth_ratio=1.0)
    wait(session)
    assert "no depth is visible to interpolate" in explorer.numbers.value
    session.change(depth_ratio=0.0)
    wait(session)
    assert "nothing to score" in explorer.numbers.value


def test_what_can_be_taken_along(session, explorer, tmp_path):
    session.change(edge_limit=70.0, color_mode="error")
    for kind, index in (("PLY truth", 0), ("PLY prediction", 1)):
        path = explorer.export(kind, tmp_path)
        points, colors, columns = read_ply(path)
        keep = explorer.cloud.is_drawn(index)
        np.testing.assert_array_equal(points, explorer.cloud.points(index).positions[keep])
        np.testing.assert_array_equal(colors, explorer.cloud.colors(index)[keep])
        assert set(columns) == {"depth", "error"} and path.name == f"{kind[4:]}.ply"
    rows = list(csv.DictReader(io.StringIO(explorer.export("CSV", tmp_path).read_text())))
    values = studio_of(session).shown.patch_values()
    assert len(rows) == 20 and (rows[7]["row"], rows[7]["column"]) == ("2", "3")
    assert float(rows[7]["prediction_m"]) == pytest.approx(values["prediction"][1, 2], abs=1e-4)
    assert {row["depth"] for row in rows} <= {"seen", "hidden", "never measured"}
    assert explorer.export("PNG", tmp_path).stat().st_size > 1000


def test_open3d_gets_what_is_drawn_and_says_why_where_it_cannot(session, explorer, monkeypatch):
    monkeypatch.setattr(open3d_job, "find_spec", lambda name: None)
    session.change(edge_limit=70.0, color_mode="rgb")
    explorer.open3d.click()
    assert "No Open3D window: Open3D is not installed" in explorer.message.value and "alert" in explorer.message.value
    drawn = explorer.drawn()
    for name, (points, colors) in drawn.items():
        np.testing.assert_array_equal(explorer.window._clouds[name][0], points)
    assert len(drawn["truth"][0]) < len(drawn["prediction"][0]) < 64 * 80
    window = open_in_open3d(session)
    assert "not installed" in window.reason and window.still().ndim == 3
    np.testing.assert_array_equal(window._clouds["truth"][1], drawn["truth"][1])
    made = explorer.still_by_open3d((90, 120))
    assert made.drawn_by == "splat" and "not installed" in made.reason and made.picture.shape[1] > 240
