"""The living page: its numbers survive packing, and in a browser without a network its sliders, clouds and clicks live."""

import contextlib
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from browser import FLAGS

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.influence import Influence, measure_influence
from mask3d_core.sources import open_source
from mask3d_viz.images import depth_image, error_end, error_image, where_never_measured
from mask3d_viz import ladder, predictions
from mask3d_viz.ladder import COST, MOVE_STEP, STEP, TOP, Climber, Ladder, pack_influence, silent_copy
from mask3d_viz.living_page import as_expression, page_script, report
from mask3d_viz.packing import pack, to_steps, unpack, unpack_bytes
from mask3d_viz.predictions import Predictions
from mask3d_viz.session import HIDDEN, Session

RGB, DEPTH = (0.0, 0.5, 0.8, 1.0), (0.0, 0.5, 0.8, 0.9, 1.0)
ASKED = (0.5, 0.8)


def make_session(**state):
    source = open_source("rooms", count=3, seed=4, views_per_room=1, height=72, width=96, sensor=1.0)
    return Session([source.read(i) for i in range(3)], {"tiny": random_model()}, **state)


@pytest.fixture(scope="module")
def session():
    return make_session(rgb_ratio=0.5, depth_ratio=0.5, painted_rgb=((3, HIDDEN),), seed=7)


@pytest.fixture(scope="module")
def path(session, tmp_path_factory):
    """A page with two frames; its first rung is the session's."""
    return report(session, tmp_path_factory.mktemp("page") / "page.html", frames=[0, 2], rgb_ratios=RGB, depth_ratios=DEPTH,
                  influence=[ASKED], date="1 May 2030", title="Rooms & <masks>", show_progress=False)


@pytest.fixture(scope="module")
def data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1].replace("<\\/", "</"))


def shown_at(session, rgb, depth, frame=0):
    """What Python says of one rung."""
    other = silent_copy(session)
    other.change(frame=frame, rgb_ratio=rgb, depth_ratio=depth)
    return Predictions(other).now(), other


# ---- packing


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([3, 300, 65536]))
def test_packing_loses_nothing(count, height, width, seed, below):
    planes = np.random.default_rng(seed).integers(0, below, (count, height, width)).astype(np.uint16)
    assert np.array_equal(unpack(pack(planes), planes.shape), planes)


def test_depth_is_off_by_at_most_half_a_step_and_smooth_depth_becomes_small():
    y, x = np.mgrid[0:120, 0:160]
    depth = (1.5 + 0.01 * x + 0.3 * np.sin(y / 9)).astype(np.float32)
    steps, step = to_steps(depth, STEP)
    assert step == STEP and float(np.abs(steps * step - depth).max()) <= STEP / 2 + 1e-6
    text = pack(steps)
    assert np.array_equal(unpack(text, (1, 120, 160))[0], steps) and len(text) < 0.3 * steps.nbytes
    far, step = to_steps(np.array([[66.0, 0.0]]), STEP)
    assert step == 2 * STEP and np.abs(far * step - [[66.0, 0.0]]).max() <= step / 2
    for wrong in (np.array([[np.nan]]), np.array([[np.inf]]), np.array([[-0.1]])):
        with pytest.raises(Mask3DError):
            to_steps(wrong, STEP)


def test_influence_keeps_the_ten_strongest_with_sign_and_share():
    torch.manual_seed(1)
    moves = torch.randn(2, 20, 20) * 0.2
    moves[0, :, 5:] = float("nan")  # few RGB patches visible
    moves[1, :, :8] = float("nan")
    moves[:, 4] = torch.where(moves[:, 4].isnan(), moves[:, 4], 0.0)  # nothing moves patch 4
    influence = Influence(moves[1], moves[0], torch.ones(20))
    table = np.frombuffer(unpack_bytes(pack_influence(influence)), "<i2").reshape(20, 1 + 2 * TOP)
    for patch in (0, 7, 19):
        expected = influence.top(patch, TOP)
        found = [("rgb" if k < 20 else "depth", int(k) % 20) for k in table[patch, 1::2]]
        assert found == [(name, k) for name, k, _ in expected]
        assert np.allclose(table[patch, 2::2] * MOVE_STEP, [m for *_, m in expected], atol=MOVE_STEP)
        assert table[patch, 0] == pytest.approx(1000 * influence.shares(patch)["depth"], abs=0.51)
    assert table[4, 0] == -1


# ---- the ladder and the file


def test_a_ladder_says_all_its_problems_and_takes_the_sessions_own_ratios(session):
    own = Ladder.of(make_session(rgb_ratio=0.33, depth_ratio=0.7))
    assert own.rgb[own.start[0]] == 0.33 and own.depth[own.start[1]] == 0.7 and own.asked[0] == own.start
    with pytest.raises(ConfigError) as problem:
        Ladder.of(session, rgb=(0.5,), depth=(0.2, 1.2))
    assert "rgb_ratios" in str(problem.value) and "depth_ratios" in str(problem.value)
    with pytest.raises(ConfigError, match="pairs of ratios of the ladder"):
        Ladder.of(session, RGB, DEPTH, [(0.5, 0.55)])
    assert Ladder.of(session, RGB, DEPTH, ()).asked == ()


def test_every_rung_holds_what_python_says(session, data):
    assert data["ladder"] == {"rgb": list(RGB), "depth": list(DEPTH), "start": [1, 1]}
    assert [frame["name"] for frame in data["frames"]] == [session.frames.name(0), session.frames.name(2)]
    for i, j, number in ((1, 2, 0), (3, 0, 0), (0, 4, 1)):
        shown, _ = shown_at(session, RGB[i], DEPTH[j], (0, 2)[number])
        cell = data["frames"][number]["cells"][i][j]
        depth = unpack(cell["prediction"], (1, 64, 80))[0] * cell["step"]
        assert np.abs(depth - shown.reconstruction.prediction).max() <= cell["step"] / 2 + 1e-5
        assert cell["scores"] == pytest.approx(shown.reconstruction.scores, abs=1e-6)
        assert cell["opponents"].keys() == shown.opponents.keys()
        assert cell["is_scale_assumed"] == (DEPTH[j] == 1)
    assert data["frames"][0]["cells"][3][4] is None, "nothing visible: no prediction"
    assert sum(bool(c and "influence" in c) for row in data["frames"][0]["cells"] for c in row) == 1


def test_what_rungs_share_is_computed_once_and_progress_counts_to_its_end(monkeypatch):
    session, asked, told = make_session(rgb_ratio=0.5, depth_ratio=0.5), [], []
    frame = session.frames[0]
    without = dataclasses.replace(frame, depth=np.zeros_like(frame.depth), is_valid=np.zeros_like(frame.is_valid))
    blind = Session([without], dict(session.checkpoints), rgb_ratio=0.5, depth_ratio=0.5)
    real = ladder.measure_influence
    monkeypatch.setattr(ladder, "measure_influence", lambda *a: asked.append(a) or real(*a))
    rungs = Ladder.of(blind, (0.0, 0.5), (0.5, 0.8, 0.9, 1.0))
    cells = Climber(silent_copy(blind), rungs).climb(0, told.append).data["cells"]
    assert len(rungs.asked) == 3 and len(asked) == 1, "without depth every depth ratio shows the same"
    assert cells[1][0] == cells[1][1] == cells[1][2] and "influence" in cells[1][0] and "influence" not in cells[1][3]
    assert sum(told) == len(rungs.places) + COST * len(rungs.asked)

    called = []
    for name, guess in list(predictions.OPPONENTS.items()):
        monkeypatch.setitem(predictions.OPPONENTS, name, lambda *a, guess=guess, name=name: called.append(name) or guess(*a))
    shown = Climber(silent_copy(session), Ladder.of(session, (0.0, 0.5, 0.8), (0.5, 0.8), ())).climb(0).data["cells"]
    assert called.count("color_guided") == 6 and called.count("linear") == 2, "colour moves only who looks at it"
    assert list(shown[0][0]["opponents"]) == list(predictions.SHOWN_OPPONENTS)
    assert shown[0][1]["opponents"]["nearest"] == shown[2][1]["opponents"]["nearest"] != shown[0][0]["opponents"]["nearest"]


def test_the_session_is_not_moved_and_equal_input_gives_equal_bytes(tmp_path):
    session = make_session(rgb_ratio=0.5)
    session.checkpoints["other"] = random_model(seed=1)
    session.change(compare="other")
    told = []
    session.on(told.append)
    before = session.state
    pages = [report(session, tmp_path / name, frames=[1], rgb_ratios=(0, 0.5), depth_ratios=(0.8, 1), influence=(),
                    show_progress=False).read_bytes() for name in ("a.html", "b.html")]
    assert session.state == before and not told and pages[0] == pages[1]
    assert b"other, left out: the page shows one checkpoint" in pages[0]


def test_a_page_that_is_too_large_says_what_to_reduce(session, tmp_path, path):
    options = {"rgb_ratios": (0, 0.5), "depth_ratios": (0.5, 1), "influence": (), "show_progress": False}
    with pytest.raises(ConfigError, match=r"more than 0\.1 MB.*rgb_ratios.*depth_ratios"):
        report(session, tmp_path / "small.html", frames=[0, 1], max_bytes=100_000, **options)
    assert not (tmp_path / "small.html").exists()
    for wrong in ([3], [], [-1]):
        with pytest.raises(ConfigError, match="frames must be some of 0..2"):
            report(session, tmp_path / "small.html", frames=wrong, **options)
    one = len(report(session, tmp_path / "one.html", frames=[0], **options).read_bytes())
    fits = report(session, tmp_path / "fits.html", max_bytes=one + 1000, **options)
    assert len(json.loads(re.search(r'id="data">(.*?)</script>', fits.read_text(), re.S)[1])["frames"]) == 1


def test_the_file_may_ask_for_nothing(path):
    page = path.read_text()
    assert "default-src 'none'" in page and "Rooms &amp; &lt;masks&gt;" in page and "1 May 2030" in page
    assert not re.search(r"""(src|href|action|poster)\s*=\s*["'](?!data:|#)""", page.partition("<script")[0])
    assert not re.search(r"@(TITLE|STYLE|STILL|TRIES|FACTS|DATA|SCRIPT)@", page)
    assert page.count("</script>") == 2 and "import" not in re.findall(r"^\s*(import)\b", page_script(), re.M)


def test_a_module_becomes_an_expression_or_is_refused():
    assert "return { a: 1 };" in as_expression("const b = 2;\nexport default { a: 1 };\n")
    assert "return { B }" in as_expression("export class B {}\n")
    for wrong in ('import x from "y";\nexport default x;', "const a = 1;", "export const a = 1;\nexport default a;"):
        with pytest.raises(ConfigError):
            as_expression(wrong)


def test_nothing_visible_at_the_start_is_refused():
    blind = make_session(rgb_ratio=1.0, depth_ratio=1.0)
    with pytest.raises(ConfigError, match="nothing is visible"):
        Climber(silent_copy(blind), Ladder.of(blind, (0.5, 1), (0.5, 1), ())).climb(0)


# ---- in a browser, from disk, without a network


@contextlib.contextmanager
def opened(path, width=1400, height=900, theme="light", script=True, before="", ready="html[data-ready]"):
    """The page in Chromium; fails on any complaint and on any request but for the file."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    faults = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND"])
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme, offline=True,
                                      java_script_enabled=script)
        page = context.new_page()
        if before:
            page.add_init_script(before)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning")
                and "GPU stall" not in said.text else None)
        page.on("request", lambda request: None if request.url == path.as_uri() or request.url.startswith(("data:", "blob:"))
                else faults.append(f"request to {request.url}"))
        page.goto(path.as_uri())
        try:
            if script:
                page.wait_for_selector(ready, state="attached")
            yield page
        finally:
            browser.close()
    assert not faults, faults


def settle(page, frame, rgb, depth):
    page.wait_for_selector(f'html[data-shown="{frame} {rgb} {depth}"]', state="attached")


def picture(page, name, size=(64, 80)):
    pixels = page.evaluate("(name) => [...new Uint8Array(livingPage.pictures[name].get('pixels').buffer)]", name)
    return np.array(pixels, np.uint8).reshape(*size, 3)


def drawn(page, name):
    """What the canvas of a picture shows."""
    return page.locator(f"#picture-{name} canvas").first.screenshot()


def assert_shows(page, shown, limits):
    """Pictures and table are those of Python's prediction; a colour may differ by a step where rounding decides."""
    r = shown.reconstruction
    steps, step = to_steps(r.prediction, STEP)
    rounded = (steps * step).astype(np.float32)
    expected = np.asarray(where_never_measured(depth_image(rounded, None, limits), r.is_valid))
    off = np.abs(picture(page, "prediction").astype(int) - expected).max(axis=-1)
    assert np.mean(off > 0) < 0.01 and off.max() < 16
    end = page.evaluate("livingPage.now.frame.packed.error_end")
    off = np.abs(picture(page, "error").astype(int) - error_image(rounded, r.depth, r.is_valid, end)).max(axis=-1)
    assert off.max() < 24 and end == error_end(limits)  # truth is rounded too
    legends = {name: page.locator(f"#picture-{name} .pi-legend").inner_text() for name in ("prediction", "truth", "error")}
    assert not r.is_valid.all() and legends == {"prediction": "predicted where nothing was measured", "truth": "never measured",
                                                "error": "never measured"}
    for name in ("prediction", "error"):
        assert page.locator(f"#picture-{name} .pi-ticks span").count() >= 2, "one number is no scale"
    row = page.locator("#evidence-rows tr").first.inner_text().split()
    assert row == ["Mask3D", f"{100 * r.scores['mae']:.1f}", f"{r.scores['abs_rel']:.3f}", f"{r.scores['delta1']:.3f}"]
    assert page.locator("#evidence-rows tr").count() == 1 + len(shown.opponents)


@pytest.mark.browser
def test_sliders_clicks_and_clouds_live_without_python(session, path, data):
    limits = tuple(data["frames"][0]["limits"])
    with opened(path) as page:
        assert_shows(page, shown_at(session, 0.5, 0.5)[0], limits)
        before = drawn(page, "prediction"), drawn(page, "depth")
        page.locator("#range-depth").focus()
        page.keyboard.press("ArrowRight")  # the keyboard
        settle(page, 0, 1, 2)
        shown, other = shown_at(session, 0.5, 0.8)
        assert_shows(page, shown, limits)
        assert other.words().split(" and ")[1].split(" depth")[0] in page.locator("#slide-depth output").inner_text()
        assert f"{int((~other.is_masked('rgb')).sum())} of 20" in page.locator("#slide-rgb output").inner_text()
        page.wait_for_timeout(100)
        assert (drawn(page, "prediction"), drawn(page, "depth")) != before and drawn(page, "depth") != before[1]

        box = page.locator("#range-rgb").bounding_box()  # the mouse
        at = lambda i: box["x"] + 8 + (box["width"] - 16) * i / (len(RGB) - 1)  # noqa: E731
        page.mouse.move(at(1), box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(at(2.4), box["y"] + box["height"] / 2, steps=5)
        settle(page, 0, 2, 2)
        page.mouse.up()
        assert_shows(page, shown_at(session, 0.8, 0.8)[0], limits)

        page.locator('#map button[value="3 4"]').click()  # nothing is visible there: said, not guessed
        settle(page, 0, 3, 4)
        assert "Nothing is visible" in page.locator("#evidence-note").inner_text()
        page.locator('#map button[value="1 2"]').click()  # where influence was measured
        settle(page, 0, 1, 2)

        canvas = page.locator("#picture-truth canvas").first
        box = canvas.bounding_box()
        values = shown.patch_values()
        patch = int(np.flatnonzero(np.isfinite(values["error"]) & shown.reconstruction.is_masked_depth)[0])
        row, column = divmod(patch, 5)
        canvas.click(position={"x": (column + 0.5) * box["width"] / 5, "y": (row + 0.5) * box["height"] / 4})
        assert page.evaluate("[...Object.values(livingPage.pictures), livingPage.cloud].map((m) => m.get('selection')[0])"
                             ) == [patch] * 6
        values = {name: float(v.ravel()[patch]) for name, v in values.items()}
        page.mouse.move(2, 2)
        assert page.locator("#patch-title").inner_text() == f"Patch in row {row + 1}, column {column + 1}"
        assert float(page.locator("#patch-truth").inner_text().split()[0]) == pytest.approx(values["truth"], abs=0.0061)
        predicted = float(page.locator("#patch-prediction").inner_text().split()[0])
        assert predicted == pytest.approx(values["prediction"], abs=0.0061)
        said = page.locator("#patch-error").inner_text().replace("\N{MINUS SIGN}", "-")
        assert said.endswith(" cm") and float(said.split()[0]) == pytest.approx(100 * values["error"], abs=0.11)
        assert page.locator("#patch-depth").inner_text() == "hidden"
        influence = measure_influence(other.model()[0], other.batch(), other.masks())
        said = int(page.locator("#influence .verdict").inner_text().split()[0])
        assert said == pytest.approx(100 * influence.shares(patch)["depth"], abs=0.6)
        first = influence.top(patch, 1)[0]
        words = page.locator("#influence li").first.inner_text()
        assert f"row {first[1] // 5 + 1}, column {first[1] % 5 + 1}" in words and f"{abs(100 * first[2]):.1f} cm" in words
        arrows = page.evaluate("['rgb', 'depth'].map((n) => livingPage.pictures[n].get('arrows').length)")
        assert sum(arrows) == page.evaluate("livingPage.cloud.get('arrows').length") > 0

        stage = page.locator("#cloud .m3c-stage")
        stage.scroll_into_view_if_needed()
        camera, box = page.evaluate("livingPage.cloud.get('camera')"), stage.bounding_box()
        still = stage.screenshot()
        page.mouse.move(box["x"] + 150, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 240, box["y"] + 190, steps=6)
        page.mouse.up()
        page.wait_for_timeout(600)
        turned = page.evaluate("livingPage.cloud.get('camera')")
        assert turned["yaw"] != camera["yaw"] and turned["pitch"] != camera["pitch"] and stage.screenshot() != still
        counts = page.evaluate("[0, 1].map((k) => livingPage.cloud.get(`pixel_${k}`).byteLength / 4)")
        assert counts == [int(shown.reconstruction.is_valid.sum()), 64 * 80]
        stage.focus()
        page.keyboard.press("Escape")  # lets go everywhere
        assert page.evaluate("livingPage.pictures.rgb.get('selection')") == [] and page.locator("#patch-none").is_visible()
        page.locator("#cloud button", has_text="Camera").click()  # every pixel of the prediction is seen from there
        page.wait_for_timeout(600)
        stage.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
        chosen = page.evaluate("livingPage.state.selection")
        assert len(chosen) == 1 and page.evaluate("livingPage.pictures.error.get('selection')") == chosen


@pytest.mark.browser
def test_clouds_stand_where_python_puts_them(session, path):
    from mask3d_core.frames import Intrinsics
    from mask3d_viz.depth_clouds import both_clouds
    from mask3d_viz.widgets.point_cloud import frame_points

    r = shown_at(session, 0.5, 0.5)[0].reconstruction
    expected = frame_points(r.prediction, Intrinsics.from_array(r.intrinsics))
    truth, prediction = both_clouds(r, r.prediction)
    with opened(path) as page:
        def read(name, kind):
            return np.array(page.evaluate("([n, k]) => { const v = livingPage.cloud.get(n);"
                                          " return [...new globalThis[k](v.buffer)]; }", [name, kind]))
        assert np.abs(read("positions_1", "Float32Array").reshape(-1, 3) - expected["positions"]).max() < 0.002
        assert np.array_equal(read("pixel_0", "Uint32Array"), truth["pixel"])
        edges = [read(f"edge_{k}", "Float32Array") for k in (0, 1)]
        for found, python in zip(edges, (truth, prediction)):
            assert np.median(np.abs(found - python["edge"])) < 2.0
        assert np.array_equal(edges[0], edges[1][r.is_valid.ravel()]), "the same pixels fly on both sides"
        assert "the same in both clouds" in page.locator("#cloud").inner_text()
        kinds = read("kind_1", "Uint8Array").reshape(64, 80)
        assert np.array_equal(kinds == 0, r.is_visible) and np.array_equal(kinds == 2, ~r.is_valid)
        assert np.allclose(np.nan_to_num(read("values_1", "Float32Array").reshape(2, 64, 80)[1][r.is_valid]),
                           1000 * (r.prediction - r.depth)[r.is_valid], atol=1.6)  # both are rounded


@pytest.mark.browser
def test_other_frames_themes_and_a_phone(session, path, data):
    with opened(path, width=420, height=800, theme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 420, "nothing sticks out"
        paper = "getComputedStyle(document.documentElement).backgroundColor"
        assert page.evaluate(paper) == "rgb(21, 23, 26)"
        page.locator("#theme label", has_text="light").click()
        assert page.evaluate(paper) == "rgb(253, 253, 251)"
        assert page.locator("#cloud .m3c").get_attribute("data-theme") == "light"
        page.locator("#frames button").nth(1).click()
        settle(page, 1, 1, 1)
        assert_shows(page, shown_at(session, 0.5, 0.5, frame=2)[0], tuple(data["frames"][1]["limits"]))
        assert page.locator("#frames button").nth(1).get_attribute("aria-pressed") == "true"
        page.locator('#map button[aria-pressed="true"]').focus()
        page.keyboard.press("ArrowRight")
        settle(page, 1, 1, 2)
        assert page.evaluate("document.activeElement.value") == "1 2"
        assert page.locator("#range-depth").input_value() == "2"


@pytest.mark.browser
def test_without_javascript_or_in_an_old_browser_the_pictures_are_there(path):
    with opened(path, script=False) as page:
        assert page.locator(".still img").first.is_visible()
        assert not page.locator("main").is_visible() and not page.locator("#theme").is_visible()
        assert "JavaScript is off" in page.locator("noscript").first.inner_text()
    with opened(path, before="delete window.DecompressionStream", ready="#failed:not([hidden])") as page:
        assert page.locator(".still img").first.is_visible() and not page.locator("main").is_visible()
        assert "DecompressionStream" in page.locator("#failed").inner_text()
