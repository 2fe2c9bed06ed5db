"""The ratio explorer: clicks and the session, cells that come one by one, what is kept, the spread panel, the grid in a browser."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import random_model
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from browser import open_widget

from mask3d_core import shipped
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.ratio_map import (MAP_METRICS, MODEL as MASK3D, MapFrame, RatioMap, checkpoint_digest, map_frames)
from mask3d_core.evaluation.uncertainty import NOT_A_POSTERIOR
from mask3d_core.models import Mask3D
from mask3d_core.training.checkpoint import save_model
from mask3d_core.training.process import this_process, write_owner
from mask3d_viz import ratio_book
from mask3d_viz.explorers import spread
from mask3d_viz.explorers.ratios import ONE, SEVERAL, explore_ratios
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.ratio_pictures import map_image
from mask3d_viz.ratio_view import BEHIND, DIFFERENCE, ERROR, KINDS, LOSES, map_view, place_of, readout, summary, two_digits
from mask3d_viz.session import HIDDEN, SHOWN, Session
from mask3d_viz.widgets.ratio_grid import RatioGrid

RATIOS = (0.0, 0.5, 1.0)


@pytest.fixture
def frames(frames):
    return frames[:2]


@pytest.fixture
def session(frames):
    return Session(frames, {"shipped": random_model()}, rgb_ratio=0.5, depth_ratio=0.5)


def known_map(ratios=(0.0, 0.4, 0.8, 1.0), frames=6, **more):
    """A whole map whose numbers are known: the model loses where little depth is hidden, and leans that way at 0.8 / 0.8."""
    made = RatioMap(ratios, ratios, tuple(MapFrame(f"s{k}/0", k, (1.0, 1.0, 0.5)) for k in range(frames)), (0, 1),
                    ("rgb", "depth"), more.pop("digest", "d"), **more)
    for place in made.places:
        rgb, depth = made.ratios(place)
        own = np.full((4, frames, 2), 0.1 + 0.2 * depth) + np.arange(frames)[:, None] * 0.01
        wave = np.where(np.arange(frames) % 2, 0.05, -0.0502)[:, None]
        gap = -0.03 if depth < 0.5 else (wave if (rgb, depth) == (0.8, 0.8) else 0.02 * (1 + depth))
        made = made.with_cell(place, {MASK3D: own, "color_guided": own + gap, "nearest": own + np.array([0.3, 0.3, 0.3, -0.3])[:, None, None]})
    return made


# ---- what is drawn --------------------------------------------------------------------------------------------------


def test_a_view_says_where_the_model_loses_not_by_colour_alone():
    made = known_map()
    view = map_view(made, "abs_rel", DIFFERENCE)
    at = lambda rgb, depth: (made.depth_ratios.index(depth), made.rgb_ratios.index(rgb))  # noqa: E731
    assert view.hatches[at(0.4, 0.4)] == LOSES and view.hatches[at(0.8, 0.8)] == BEHIND and view.hatches[at(0.0, 0.8)] == 0
    red, blue = view.colors[at(0.4, 0.4)].astype(int), view.colors[at(0.0, 0.8)].astype(int)
    assert red[0] > red[2] + 40 and blue[2] > blue[0] + 40
    assert "loses" in view.readouts[1 * 4 + 1] and "wins" in view.readouts[2 * 4] and "includes 0" in view.readouts[2 * 4 + 2]
    assert "colour-guided spline" in view.legend and view.marks[5] == "f"
    share = map_view(made, "delta1", DIFFERENCE)
    assert share.hatches[at(0.0, 0.8)] and not share.hatches[at(0.4, 0.4)], "a share that is higher is better"
    red = share.colors[at(0.0, 0.8)].astype(int)
    assert red[0] > red[2] and share.ends == ("Mask3D better", "opponent better") and share.ticks[0][1].startswith("+")
    plain = map_view(made, "abs_rel", ERROR)
    assert plain.marks == view.marks and plain.legend == view.legend, "each cell names its best opponent in every mode"
    assert all("best opponent: " in said for said, mark in zip(plain.readouts, plain.marks) if mark) and plain.marks[5] == "f"
    assert not plain.hatches.any() and plain.texts[5] == "0.205" and plain.texts[0] == "" and "nothing to score" in plain.readouts[0]
    assert "nothing is visible" in plain.readouts[-1] and KINDS[plain.kinds[3, 3]] == "nothing visible"
    assert "95 % over 6 frames with 2 masks each" in readout(made, (1, 1), "mae") and " cm " in readout(made, (1, 1), "mae")
    assert summary(made, "abs_rel").startswith("Of 11 cells, Mask3D is ahead of its best opponent in 6 (in 6 with an interval")
    with pytest.raises(ConfigError, match="mode one of"):
        map_view(made, "abs_rel", "upside down")


def test_what_is_not_measured_yet_takes_the_colour_of_its_neighbour():
    whole = known_map((0.0, 0.2, 0.5, 0.7, 0.9, 1.0))
    part = RatioMap(whole.rgb_ratios, whole.depth_ratios, whole.frames, whole.seeds, whole.inputs, "d")
    empty = map_view(part)
    assert not (empty.kinds == 1).any() and summary(part, "mae") == "Nothing to compare yet."
    part = part.with_cell((1, 1), whole.cells[1, 1]).with_cell((5, 1), whole.cells[5, 1])
    view = map_view(part)
    np.testing.assert_array_equal(view.colors[2, 3], view.colors[1, 1])
    np.testing.assert_array_equal(view.colors[4, 4], view.colors[5, 1])
    assert view.kinds[2, 3] == 0 and view.kinds[1, 1] == 1 and view.texts[2 * 6 + 3] == ""
    assert (view.colors[1, 1] != view.colors[5, 1]).any()


def test_words_and_places():
    assert place_of(0.8, (0.0, 0.5, 0.8, 1.0)) == 2 and place_of(0.9, (0.0, 0.5, 0.8, 1.0)) == pytest.approx(2.5)
    assert [two_digits(v, 4) for v in (0.0652, -0.0056, 0.00031, 12.3, 0.0)] == ["+0.065", "−0.0056", "+0.0003", "+12", "0.0000"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_has_a_ring_where_the_session_stands(theme):
    view = map_view(known_map(), "abs_rel", DIFFERENCE)
    plain, ringed = map_image(view, None, 700, theme), map_image(view, (1.0, 2.0), 700, theme)
    rows, columns = np.nonzero((plain != ringed).any(axis=2))
    assert plain.shape[1] == 700 and 20 < np.ptp(rows) < 200 and 60 < np.ptp(columns) < 200
    moved = map_image(view, (1.0, 1.0), 700, theme)
    below = np.nonzero((plain != moved).any(axis=2))[0]
    assert below.mean() > rows.mean() + 30, "less depth hidden is further down"


# ---- the explorer ---------------------------------------------------------------------------------------------------


def test_cells_come_one_by_one_and_can_be_stopped_and_resumed(session):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0,), live=False)
    assert view.scope.value == ONE and len(view.map.missing) == 5 and not view.is_measuring and view.cancel.disabled
    assert "not measured yet" in view.status.value
    counts, draw = [], view.grid.draw
    view.grid.draw = lambda given: (counts.append(len(view.map.cells)), draw(given), view.stop() if len(counts) == 2 else 0)
    view.measure.click()
    assert view.is_measuring and view.measure.disabled and not view.cancel.disabled
    assert view.worker.wait(60)
    assert counts == [1, 2] and not view.is_measuring and "2 of 5 cells, stopped" in view.status.value
    assert view.measure.layout.display is None and view.cancel.layout.display == "none" and not view.measure.disabled
    assert view.map.cells.keys() == set(view.map.places[:2]), "coarse to fine"
    del view.grid.draw
    second = explore_ratios(session, ratios=RATIOS, seeds=(0,), live=False)
    assert len(second.map.cells) == 2, "another view of the session begins with what is there"
    second.start()
    assert second.worker.wait(60) and not second.map.missing and second.progress.layout.display == "none"
    before = {place: second.map.cells[place][MASK3D] for place in view.map.cells}
    assert all(np.array_equal(before[p], view.map.cells[p][MASK3D]) for p in before), "measured once"
    first = view.map
    view.start()
    assert view.worker.wait(60) and not view.map.missing and len(first.cells) == 2
    view.close()
    second.close()


def test_the_map_is_of_the_very_masks_that_the_session_shows(session):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0, 1))
    assert not view.is_measuring and "not measured yet" in view.status.value, "nobody looks yet"
    view._repr_mimebundle_()
    assert view.worker.wait(60) and not view.map.missing, "displayed, it measures by itself"
    for seed in (0, 1):
        session.change(seed=seed)
        assert studio_of(session).wait(60)
        scores = studio_of(session).shown.reconstruction.scores
        for number, metric in enumerate(MAP_METRICS):
            assert view.map.cells[1, 1][MASK3D][number, 0, seed] == pytest.approx(scores[metric], rel=1e-4)
    assert f"AbsRel {scores['abs_rel']:.3f}" in view.words.value
    session.change(painted_rgb=((1, 2),))
    assert studio_of(session).wait(60) and "painted patches" in view.words.value
    view.close()


def test_a_click_goes_there_and_the_ring_follows(session):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0,), live=False)
    assert view.grid.here == (1.0, 1.0) and view.cell == (1, 1)
    view.grid.chosen = {"number": 1, "cell": 3 * 2 + 0}  # RGB 0, depth 1
    assert (session.state.rgb_ratio, session.state.depth_ratio) == (0.0, 1.0) and view.grid.here == (0.0, 2.0)
    session.change(rgb_ratio=0.75, depth_ratio=0.25)
    assert view.grid.here == (1.5, 0.5)
    view.grid.chosen = {"number": 2, "cell": 8}
    assert "nothing is visible" in view.message.value and session.state.rgb_ratio == 0.75
    session.undo()
    assert (session.state.rgb_ratio, session.state.depth_ratio) == (0.0, 1.0)
    assert studio_of(session).wait(60)
    view.close()


def test_another_frame_another_map_and_back_to_what_was_kept(session):
    view = explore_ratios(session, ratios=(0.5, 1.0), seeds=(0,))
    view.start()
    assert view.worker.wait(60) and not view.map.missing
    first = view.map
    session.change(frame=1)
    assert view.map.frames[0].number == 1 and view.worker.wait(60) and not view.map.missing
    assert view.map.table("mae")[0, 0] != first.table("mae")[0, 0]
    session.change(frame=0)
    assert view.map is first and not view.is_measuring, "kept"
    view.scope.value = SEVERAL
    assert view.worker.wait(60) and not view.map.missing and len(view.map.frames) == 2
    assert view.map.frames == map_frames_of(session), "the frames' own signatures"
    assert view.map.frame_values((0, 0), MASK3D, "mae")[0] == pytest.approx(first.table("mae")[0, 0], rel=1e-4)
    assert "2 frames" in view.grid.note
    here = view.map
    session.change(frame=1)
    assert view.map is here, "a map over several frames is not of the session's"
    assert studio_of(session).wait(60)
    view.close()


def map_frames_of(session):
    return tuple(map_frames(session.batch(n), [session.frames.name(n)])[0] for n in range(len(session.frames)))


def test_a_known_map_is_taken_only_where_checkpoint_and_frames_agree(session, tmp_path):
    frames = map_frames_of(session)
    digest = checkpoint_digest(session.model()[0])
    made = known_map(frames=2, digest=digest, provenance={"command": "by hand"})
    right = dataclasses.replace(made, frames=frames)
    path = right.save(tmp_path / "map.json")
    view = explore_ratios(session, maps=[path])
    assert view.scope.value == SEVERAL and not view.map.missing and not view.is_measuring, "nothing to be measured"
    assert "measured beforehand" in view.grid.note
    view.scope.value = ONE
    assert len(view.map.frames) == 1 and not view.map.missing
    view.mode.value, view.metric.value = DIFFERENCE, "mae"
    assert view.grid.title == "mean error, cm: Mask3D minus best opponent" and 2 in view.grid.hatches or 1 in view.grid.hatches
    view.close()
    for wrong in ({"digest": "0123456789abcdef"}, {"frames": tuple(
            MapFrame(f.name, f.number, (9.0, 1.0, 0.5)) for f in frames)}, {"frames": tuple(
                MapFrame("other/0", f.number, f.signature) for f in frames)}):
        other = Session(session.frames, session.checkpoints)
        dataclasses.replace(right, **wrong).save(path)
        view = explore_ratios(other, maps=[path], live=False)
        assert view.scope.value == ONE and not view.map.cells, wrong
        view.close()
    path.write_text("[]")
    view = explore_ratios(Session(session.frames, session.checkpoints), maps=[path], live=False)
    assert "ratio map in format" in view.message.value
    view.close()


def test_refreshed_weights_are_another_map(session):
    view = explore_ratios(session, ratios=(0.5, 1.0), seeds=(0,), live=False)
    before = view.map.digest
    torch.manual_seed(1)
    session.checkpoints["shipped"] = Mask3D(MODEL)
    session.refresh("shipped")
    assert studio_of(session).wait(60)
    assert view.map.digest != before and not view.map.cells
    view.close()


def test_spread_over_masks_is_measured_on_the_button_dimmed_when_stale_and_kept(session):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0,), live=False)
    panel = view.spread
    assert panel.evidence.layout.display == "none"
    plain = view.still()
    panel.button.click()
    assert panel.button.disabled and panel.worker.wait(60) and panel.evidence.layout.display == "flex"
    assert NOT_A_POSTERIOR in panel.words.value and "AUSE" in panel.words.value and "<svg" in panel.chart.value
    assert f"{panel.shown.correlation:+.2f}" in panel.words.value
    assert view.still().shape[0] > plain.shape[0] + 200
    picture = panel.pictures["spread"]
    picture.hover = 3
    assert session.state.hover == 3 and panel.pictures["error"].hover == 3
    values = np.frombuffer(picture.values, "<f4").reshape(2, -1)
    patch = np.nanmean(panel.shown.spread[:16, :16]) * 100
    assert values[0, 0] == pytest.approx(patch, rel=1e-3)
    before = panel.shown
    session.change(seed=5)
    assert picture.stale and "press again" in panel.status.value
    panel.button.click()
    assert panel.worker.wait(60) and not picture.stale and panel.shown is not before
    session.change(seed=0)
    assert panel.shown is before and not picture.stale, "kept"
    session.change(depth_ratio=0.0)
    panel.button.click()
    assert panel.worker.wait(60) and "no depth is hidden" in view.message.value
    assert studio_of(session).wait(60)
    view.close()


def test_the_spread_is_of_painted_patches_and_of_the_colour_that_the_model_sees(session, monkeypatch):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0,), live=False)
    panel, asked = view.spread, []

    def measure(model, batch, ratios, draws, seed, progress, painted):
        asked.append((batch.color, painted))
        return real(model, batch, ratios, draws, seed, progress=progress, painted=painted)

    real = spread.measure_mask_spread
    monkeypatch.setattr(spread, "measure_mask_spread", measure)
    panel.button.click()
    assert panel.worker.wait(60) and asked[0][1] == ({}, {})
    plain, picture = panel.shown, panel.pictures["spread"]
    showable = int(np.flatnonzero(session.ranks("depth") < 20)[0])
    session.change(painted_depth=((showable, SHOWN),), painted_rgb=((2, HIDDEN),), color_source="grey")
    assert picture.stale and "press again" in panel.status.value
    panel.button.click()
    assert panel.worker.wait(60) and not picture.stale
    color, painted = asked[1]
    assert painted == ({2: True}, {showable: False}) and (color == 0.5).all()
    row, column = divmod(showable, 5)
    assert np.isnan(panel.shown.spread[row * 16:row * 16 + 16, column * 16:column * 16 + 16]).all()
    assert "2 patches as painted in every mask, colour: grey" in picture.note
    session.undo()
    assert panel.shown is plain and not picture.stale, "each is remembered for itself"
    session.change(rgb_ratio=1.0, depth_ratio=1.0)
    panel.button.click()
    assert "visible token" in view.message.value and not panel.button.disabled and len(asked) == 2
    assert studio_of(session).wait(60)
    view.close()


def test_table_files_and_what_is_impossible(session, tmp_path):
    view = explore_ratios(session, ratios=RATIOS, seeds=(0,))
    view.start()
    assert view.worker.wait(60)
    rows = view.table()
    assert len(rows) == 9 and {r["state"] for r in rows} == {"scored", "nothing visible", "nothing to score"}
    row = next(r for r in rows if (r["rgb_hidden"], r["depth_hidden"]) == (0.5, 0.5))
    against = view.map.compare((1, 1), "abs_rel")
    assert row["best_opponent"] == against.best and row["difference"] == against.difference.mean and row["low"] == ""
    kept = view.export("MAP", tmp_path)
    again = explore_ratios(Session(session.frames, session.checkpoints), ratios=RATIOS, maps=[kept], live=False)
    assert not again.map.missing
    view.grid.draw(map_view(known_map()))
    for made in (view, again):
        made.close()
    with pytest.raises(ConfigError, match="metric must be"):
        explore_ratios(session, metric="speed")


def test_what_ships_is_shown_at_once_for_the_sample_rooms():
    found = ratio_book.read_maps()
    assert len(found) == 1 and not found[0].missing and found[0].provenance["command"] == "python docs/make_ratio_maps.py"


def test_maps_that_ship_are_found_beside_an_installed_package_too(tmp_path, monkeypatch):
    place = tmp_path / "share" / "mask3d-lab" / "data" / "ratio_maps"
    place.mkdir(parents=True)
    known_map(digest="installed").save(place / "map.json")
    monkeypatch.setattr(shipped, "HOME", tmp_path)
    assert [found.digest for found in ratio_book.read_maps()] == ["installed"]


def test_what_was_asked_for_is_measured_where_the_known_map_is_another(session, tmp_path):
    made = dataclasses.replace(known_map(frames=2, digest=checkpoint_digest(session.model()[0])), frames=map_frames_of(session))
    path = made.save(tmp_path / "map.json")
    for asked, is_known in (({}, True), ({"seeds": (0, 1)}, True), ({"ratios": made.rgb_ratios}, True),
                            ({"seeds": (5,)}, False), ({"ratios": RATIOS}, False)):
        view = explore_ratios(Session(session.frames, session.checkpoints), maps=[path], live=False, **asked)
        assert bool(view.map.cells) == is_known, asked
        for name, value in asked.items():
            assert (view.map.seeds if name == "seeds" else view.map.depth_ratios) == tuple(value)
        view.close()


def test_only_so_many_maps_are_remembered_and_the_last_used_stay(session):
    made = known_map(RATIOS)
    book = ratio_book.book_of(session)
    keys = [book.find((0,), (seed,), RATIOS)[0] for seed in range(ratio_book.CACHED + 3)]
    assert len(set(keys)) == len(keys) and not book._maps, "what holds no cell is not worth remembering"
    for seed, key in enumerate(keys):
        book.keep(key, dataclasses.replace(made, seeds=(seed,)))
        book.find((0,), (0,), RATIOS)
    assert len(book._maps) == ratio_book.CACHED and keys[0] in book._maps and keys[1] not in book._maps


def test_a_run_that_goes_on_is_neither_measured_by_itself_nor_read_for_a_digest(session, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    save_model(folder / "latest", session.model()[0], {"step": 1})
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    write_owner(folder, this_process())
    session.checkpoints["mine"] = folder
    session.change(checkpoint="mine")
    asked = []
    monkeypatch.setattr(ratio_book, "checkpoint_digest", lambda model: asked.append(model) or "digest")
    view = explore_ratios(session, ratios=(0.5, 1.0), seeds=(0,))
    view._repr_mimebundle_()
    before = view._key
    session.refresh("mine")
    assert view._key != before and not view.is_measuring and not asked
    assert "still trains" in view.status.value and not view.measure.disabled
    view.measure.click()  # the reader's own wish
    assert view.worker.wait(60) and not view.map.missing and view.map.digest == "digest"
    session.refresh("mine")
    assert not view.is_measuring and view.map.missing
    write_owner(folder, dataclasses.replace(this_process(), state="finished"))
    session.refresh("mine")
    assert view.worker.wait(60) and not view.map.missing, "it has ended"
    view.close()


# ---- the grid in a browser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser_arrow_keys_move_enter_goes_there_and_the_mouse_reads(dark, tmp_path):
    grid = RatioGrid(here=(1.0, 1.0))
    grid.draw(map_view(known_map(), "abs_rel", DIFFERENCE))
    with open_widget(grid, width=760, dark=dark) as view:
        page = view.page
        cells, readout = page.locator(".rg-cell"), page.locator(".rg-readout")
        assert cells.count() == 16 and "40 % of RGB and 40 % of depth hidden (you are here)" in readout.inner_text()
        box = page.locator(".rg-here").bounding_box()
        cell = page.locator("[aria-current=location]").bounding_box()
        assert abs(box["x"] + box["width"] / 2 - cell["x"] - cell["width"] / 2) < 2
        assert abs(box["y"] + box["height"] / 2 - cell["y"] - cell["height"] / 2) < 3
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        assert readout.inner_text().startswith("80 % of RGB and 80 % of depth hidden")
        assert "Mask3D behind, interval includes 0" in readout.inner_text()
        page.keyboard.press("Enter")
        assert view.get("chosen") == {"number": 1, "cell": 2 * 4 + 2}
        page.keyboard.press("PageDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Home")
        assert readout.inner_text().startswith("0 % of RGB and 0 % of depth hidden"), "it stops at the border"
        top = page.get_by_role("gridcell", name="0 % of RGB and 100 % of depth hidden").first
        top.click()
        assert view.saved()[-1] == {"chosen": {"number": 2, "cell": 12}}
        assert page.locator(".is-lost").count() == 4 and page.locator(".is-behind").count() == 1
        stripes = [page.locator(kind).first.evaluate("e => getComputedStyle(e).backgroundImage") for kind in (".is-lost", ".is-behind")]
        assert all("repeating-linear-gradient" in s for s in stripes) and stripes[0] != stripes[1]
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(5, 690)
        view.set("here", [2.4, 0.0])
        page.wait_for_function("document.querySelector('.rg-here').style.left === '72.5%'")
        assert "80 % of RGB and 0 % of depth hidden (nearest to here)" in readout.inner_text()
        page.set_viewport_size({"width": 330, "height": 700})
        page.wait_for_function("document.querySelector('.ratio-grid').classList.contains('is-narrow') || "
                               "document.documentElement.scrollWidth <= 330")
        assert page.evaluate("document.documentElement.scrollWidth") <= 330
        page.evaluate("""() => { window.model.comm_live = undefined;
                      document.body.classList.add('jupyter-widgets-disconnected'); }""")  # JupyterLab marks an element around
        page.wait_for_selector(".ratio-grid.is-gone")
        page.evaluate("document.body.classList.remove('jupyter-widgets-disconnected')")
        page.wait_for_selector(".ratio-grid:not(.is-gone)")
        view.lose_kernel()
        page.wait_for_selector(".ratio-grid.is-gone")
        page.evaluate("document.querySelector('.rg-cell').click()")
        assert len(view.saved()) == 2, "a gone kernel is asked nothing"
