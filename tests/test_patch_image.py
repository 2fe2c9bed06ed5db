"""A picture with its patches: what Python checks and draws, and what a hand does to it in a real browser."""

import base64
import io
import json
import re

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="the lab's widgets are not installed (pip install 'mask3d-lab[lab]')")

from browser import WIDGETS, open_widget  # noqa: E402

from mask3d_core.errors import Mask3DError  # noqa: E402
from mask3d_viz import style  # noqa: E402
from mask3d_viz.images import MARKS, depth_image  # noqa: E402
from mask3d_viz.widgets import patch_image  # noqa: E402
from mask3d_viz.widgets.patch_image import PatchImage  # noqa: E402

ROWS, COLUMNS, PATCH = 4, 6, 16
COUNT, HOLE = ROWS * COLUMNS, 20  # patch 20 holds no measured pixel
COLORS = np.stack([np.arange(COUNT) * 10, 250 - np.arange(COUNT) * 10, np.full(COUNT, 20)], 1).astype(np.uint8)
RANKS = np.insert(np.random.default_rng(3).permutation(COUNT - 1), HOLE, 1 << 30)  # as the core marks it


def picture() -> np.ndarray:
    """Every patch in a colour of its own."""
    return np.kron(COLORS.reshape(ROWS, COLUMNS, 3), np.ones((PATCH, PATCH, 1), np.uint8))


def make(**traits) -> PatchImage:
    widget = PatchImage.of(picture(), PATCH, label="depth seen", **traits)
    widget.set_ranks(RANKS)
    truth = np.where(np.arange(COUNT) == HOLE, np.nan, 2 + np.arange(COUNT) / 100)
    widget.set_values({"truth": truth, "prediction": np.full(COUNT, 2.4), "error": np.where(np.isnan(truth), truth, 9)},
                      {"truth": "m", "prediction": "m", "error": "cm"}, digits={"error": 0}, signed=("error",))
    return widget


# ---- Python --------------------------------------------------------------------------------------------------------


def test_hidden_follows_rank_and_brush():
    widget = make(hidden_count=10)
    assert widget.grid == (ROWS, COLUMNS) and widget.hidden.shape == (ROWS, COLUMNS)
    assert np.array_equal(widget.hidden.ravel(), RANKS < 10)
    assert (widget.hidden.sum(), widget.visible.sum(), widget.measured.sum()) == (10, 13, 23)
    seen, unseen = int(np.argmax(RANKS == 15)), int(np.argmax(RANKS == 2))
    painted = np.zeros(COUNT, np.uint8)
    painted[[seen, unseen, HOLE]] = 1, 2, 2
    widget.painted = painted.tobytes()
    assert widget.hidden.flat[seen] and widget.visible.flat[unseen]
    assert not widget.visible.flat[HOLE] and not widget.hidden.flat[HOLE]  # painting measures nothing
    widget.hidden_count = COUNT + 5
    assert not widget.hidden.flat[HOLE] and widget.visible.sum() == 1


def test_raising_the_count_only_adds_hidden_patches():
    widget, before = make(), np.zeros((ROWS, COLUMNS), bool)
    for count in range(COUNT):
        widget.hidden_count = count
        assert (widget.hidden >= before).all() and widget.hidden.sum() == count
        before = widget.hidden


def test_ranks_of_the_core_are_turned_round():
    import torch

    from mask3d_core.masking import mask_from_ranks, patch_ranks

    is_showable = torch.from_numpy(np.arange(COUNT) != HOLE)[None]
    ranks = patch_ranks(7, torch.tensor([5]), 0, "depth", (ROWS, COLUMNS), is_showable=is_showable)
    widget = make()
    widget.set_ranks(ranks[0], lowest="shown first")
    widget.hidden_count = 17
    is_masked = mask_from_ranks(ranks, 17 / 23)[0].numpy().reshape(ROWS, COLUMNS)
    assert np.array_equal(widget.hidden, is_masked & widget.measured)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("pixels", b"123", "4608|18432"), ("rank", bytes(5), "48 bytes"), ("painted", bytes(7), "24 bytes"),
    ("painted", bytes([3] * COUNT), "0 .not., 1"), ("values", bytes(12), "288 bytes"), ("heat", bytes(4), "96 bytes"),
    ("palette", bytes(3), "768"), ("bar_palette", bytes(3), "768"), ("selection", [0, COUNT], "0..23"),
    ("hover", COUNT, "0..23"), ("arrows", [{"from": 1}], "0..23"), ("patch", 7, "divide"),
    ("size", (60, 96), "divide"), ("size", (32, 96), "9216"), ("heat_range", (2.0, 1.0), "low < high"),
    ("bar_range", (0.0, np.nan), "low < high"),
])
def test_what_does_not_fit_is_refused_and_changes_nothing(name, value, words):
    widget = make(selection=[3])
    before = getattr(widget, name)
    with pytest.raises(Mask3DError, match=f"expected .*({words}).*got"):
        setattr(widget, name, value)
    assert getattr(widget, name) == before and widget.selection == [3]


def test_wrong_arguments_say_what_to_do():
    widget = make()
    for call in (lambda: PatchImage.of(picture()[:-1], PATCH), lambda: widget.set_ranks(np.zeros(5, int)),
                 lambda: widget.set_ranks(np.zeros(COUNT)), lambda: widget.set_ranks(-np.ones(COUNT, int)),
                 lambda: widget.set_ranks(RANKS, lowest="last"), lambda: widget.set_values({"truth": np.zeros((2, 2))}),
                 lambda: widget.set_heat(np.zeros(COUNT), np.zeros((5, 3), np.uint8)), lambda: PatchImage().still()):
        with pytest.raises(Mask3DError, match="expected .* got"):
            call()
    assert np.frombuffer(widget.rank, "<u2")[HOLE] == patch_image.NOTHING_MEASURED


def test_another_picture_keeps_what_still_fits():
    widget = make(selection=[2, 23], hover=23, hidden_count=4)
    widget.set_picture(255 - picture())
    assert widget.rank and widget.selection == [2, 23]
    widget.set_picture(picture()[:, :64])
    assert widget.grid == (4, 4) and (widget.rank, widget.values, widget.hover, widget.selection) == (b"", b"", -1, [2])
    assert not widget.hidden.any() and widget.measured.all()


def test_bytes_from_the_browser_arrive_as_bytes():
    widget = make()
    widget.set_state({"painted": memoryview(bytes([1] + [0] * (COUNT - 1)))})
    assert widget.painted[0] == 1 and isinstance(widget.painted, bytes)


def middle(image: np.ndarray, number: int) -> np.ndarray:
    """The colours of one patch of a still without its border."""
    row, column = divmod(number, COLUMNS)
    side = image.shape[1] // COLUMNS
    return image[row * side + 6:(row + 1) * side - 6, column * side + 6:(column + 1) * side - 6].reshape(-1, 3)


def test_the_still_shows_mask_hole_heat_and_selection():
    widget = make(hidden_count=9)
    widget.label = ""
    image = widget.still()
    assert image.dtype == np.uint8 and image.shape[1:] == (672, 3) and 448 < image.shape[0] < 500  # and the legend
    for number in range(COUNT):
        found = middle(image, number)
        if number == HOLE:
            assert found.min() >= 168
        elif widget.hidden.flat[number]:
            assert found.max() <= 127 and np.ptp(found) > 20
        else:
            assert (found == COLORS[number]).all()
    widget.mask_style = "none"
    assert all((middle(widget.still(), number) == COLORS[number]).all() for number in range(COUNT) if number != HOLE)
    heat = np.full(COUNT, np.nan)
    heat[5] = 1.0
    widget.set_heat(heat, "viridis", (0, 1))
    widget.heat_opacity = 1.0
    widget.selection, widget.arrows = [7], [{"from": 0, "to": 3, "weight": 1.0, "color": "#ff0000"}]
    image = widget.still()
    assert (middle(image, 5) == style.colormap("viridis")[255]).all()
    assert (image == patch_image.SELECTION_COLORS[1]).all(2).any() and (image == (255, 0, 0)).all(2).sum() > 100
    assert (middle(image, 12) == COLORS[12]).all()
    widget.set_bar("inferno_r", (0.5, 4.0))
    widget.label = "truth"
    assert widget.still().shape[0] > image.shape[0] + 40
    light, dark = (widget.still(theme=theme) for theme in ("light", "dark"))
    assert light.shape == dark.shape and light[-4:].mean() > 200 and dark[-4:].mean() < 60, "the bar stands on the theme's paper"
    assert widget.still(has_heading=False).shape[0] < light.shape[0]


def test_a_picture_that_knows_its_hatchings_explains_them():
    depth, is_valid = np.full((ROWS * PATCH, COLUMNS * PATCH), 2.0, np.float32), np.ones((ROWS * PATCH, COLUMNS * PATCH), bool)
    is_valid[3, 4] = False
    widget = PatchImage.of(depth_image(depth, is_valid), PATCH)
    assert widget.marks == ["hole"] == list(widget.explained)
    tall = widget.still().shape[0]
    widget.set_picture(depth_image(depth))
    assert widget.explained == () and widget.still().shape[0] < tall
    widget.set_ranks(RANKS)
    widget.hidden_count = 3
    assert widget.explained == ("hidden", "hole")  # of the mask: patch 20 holds nothing
    widget.mask_style = "none"
    assert widget.explained == ("hole",)
    with pytest.raises(Exception, match="mystery"):
        widget.marks = ["mystery"]


def test_a_neighbour_s_arrow_is_no_blob():
    from PIL import Image, ImageDraw

    def red(columns, cell=12):
        image = Image.new("RGB", (12 * cell, 2 * cell))
        patch_image._draw_arrow(ImageDraw.Draw(image), np.array([6.0, 12.0]), np.array([6.0 + columns * cell, 12.0]), cell, 6.0,
                                "#ff0000")
        return int((np.asarray(image) == (255, 0, 0)).all(2).sum())

    assert 8 < red(1) < 60, "of the 144 pixels of a patch"
    assert red(8) > 4 * red(1), "a long one is as strong as it was"


def test_a_notebook_keeps_a_picture_and_a_stable_text():
    from PIL import Image

    widget = make(hidden_count=9)
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
    assert np.array_equal(image, widget.still())
    assert data["text/plain"] == "PatchImage(depth seen: 64 x 96 pixels, 4 x 6 patches, 14 of 23 visible)"
    assert "image/png" not in PatchImage()._repr_mimebundle_()[0]


def test_the_browser_has_the_colours_of_the_house():
    script = (WIDGETS / "patch_image.js").read_text()
    for name, value in (("HOLE_COLORS", style.HOLE_COLORS), ("HIDDEN_COLORS", style.HIDDEN_COLORS),
                        ("GUESSED_COLORS", style.GUESSED_COLORS), ("DIM_OPACITY", patch_image.DIM_OPACITY),
                        ("NOTHING", patch_image.NOTHING_MEASURED)):
        assert re.search(rf"const {name} = {re.escape(json.dumps(value))}[;,]", script)
    assert f"GUESSED_SHARE = {style.GUESSED_SHARE};" in script
    assert all(f'{name}: "{words}"' in script for name, words in MARKS.items())
    for color in patch_image.SELECTION_COLORS:
        assert f'"rgb({",".join(map(str, color))})"' in script
    assert "import " not in script.replace("without imports", "")  # it must run in a saved page


# ---- a real browser: one for all tests, the page loaded anew for each ----------------------------------------------


@pytest.fixture(scope="module")
def opened():
    widget = make(hidden_count=10, ratio_control=True, can_paint=True)
    widget.set_bar("inferno_r", (0.5, 4.0))
    with open_widget(widget, width=700, height=720) as view:
        yield view


@pytest.fixture
def view(opened):
    opened.page.set_viewport_size({"width": 700, "height": 720})
    opened.page.mouse.move(1, 1)
    opened.page.reload()
    opened.page.wait_for_function("window.isReady === true", timeout=60_000)
    frame(opened)
    return opened


browser = pytest.mark.browser


def frame(view):
    """Wait until what was asked for is drawn."""
    view.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def at(view, x, y):
    """A point given in patches as (x, y) of the page."""
    box = view.page.locator(".pi-stage canvas").bounding_box()
    return box["x"] + x * box["width"] / COLUMNS, box["y"] + y * box["height"] / ROWS


def center(view, number):
    return at(view, number % COLUMNS + 0.5, number // COLUMNS + 0.5)


def click(view, number, *keys):
    for key in keys:
        view.page.keyboard.down(key)
    view.page.mouse.click(*center(view, number))
    for key in keys:
        view.page.keyboard.up(key)
    frame(view)


def drawn(view):
    """What the canvas shows in the middle of each patch: "hole", "hidden" or "seen"."""
    frame(view)
    colors = np.array(view.page.evaluate("""([rows, columns]) => {
      const canvas = document.querySelector(".pi-stage canvas"), ctx = canvas.getContext("2d"), found = [];
      for (let i = 0; i < rows * columns; i++) {
        const x = (i % columns + 0.3) * canvas.width / columns;
        const y = (Math.floor(i / columns) + 0.3) * canvas.height / rows;
        found.push([...ctx.getImageData(x, y, 24, 24).data]);
      }
      return found; }""", [ROWS, COLUMNS])).reshape(COUNT, -1, 4)[:, :, :3]
    return ["hole" if c.min() >= 165 else "hidden" if c.max() <= 127 and np.ptp(c, axis=1).max() < 12
            else "seen" if (np.abs(c - color) <= 1).all() else "?" for c, color in zip(colors, COLORS.astype(int))]


def expected(hidden_count, painted=()):
    states = ["hole" if i == HOLE else "hidden" if RANKS[i] < hidden_count else "seen" for i in range(COUNT)]
    for number, state in dict(painted).items():
        states[number] = state
    return states


def readout(view):
    frame(view)
    return view.page.locator(".pi-readout").text_content().replace("\N{NO-BREAK SPACE}", " ")


@browser
def test_pointing_says_what_is_there(view):
    number = int(np.argmax(RANKS == 3))
    view.page.mouse.move(*center(view, number))
    assert readout(view) == (f"row {number // COLUMNS + 1}, column {number % COLUMNS + 1} · hidden · "
                             f"truth {2 + number / 100:.2f} m · prediction 2.40 m · error +9 cm")
    assert view.get("hover") == number and {"hover": number} in view.saved()
    view.page.mouse.move(*center(view, HOLE))
    assert readout(view) == "row 4, column 3 · nothing measured · prediction 2.40 m"
    for x, y in ((0.02, 0.02), (COLUMNS - 0.02, ROWS - 0.02), (0.99, 1.01), (1.01, 0.99)):
        view.page.mouse.move(*at(view, x, y))
        assert view.get("hover") == int(y) * COLUMNS + int(x)
    view.page.mouse.move(2, 2)
    assert readout(view) == "" and view.get("hover") == -1
    view.set("hover", 0)  # another view points
    assert readout(view).startswith("row 1, column 1 · ")


@browser
def test_clicks_select(view):
    steps = [(8, (), [8]), (9, (), [9]), (9, (), []), (2, (), [2]), (3, ("Shift",), [2, 3]),
             (HOLE, ("Control",), [2, 3, HOLE]), (3, ("Shift",), [2, HOLE]), (2, (), [2])]
    for number, keys, selection in steps:
        click(view, number, *keys)
        assert view.get("selection") == selection and view.saved()[-1]["selection"] == selection
    view.page.mouse.move(2, 2)
    assert readout(view).startswith("row 1, column 3 · ")  # the selected one, when none is pointed at
    view.page.mouse.move(*center(view, 4))
    view.page.mouse.down()
    view.page.mouse.move(*center(view, 10))
    view.page.mouse.up()
    assert view.get("selection") == [2]  # a drag is no click
    view.page.keyboard.press("Escape")
    assert view.get("selection") == [] and view.saved()[-1]["selection"] == []
    view.page.evaluate("""([x, y]) => { for (const kind of ["pointerdown", "pointerup"])
        document.querySelector(".pi-stage canvas").dispatchEvent(new PointerEvent(kind,
          { clientX: x, clientY: y, pointerType: "touch", isPrimary: true, bubbles: true })); }""", center(view, 5))
    assert view.get("selection") == [5]


@browser
def test_the_browser_draws_the_mask(view):
    assert drawn(view) == expected(10)
    view.page.evaluate("""() => { window.drawnTimes = 0; window.decoded = 0;
      const ctx = CanvasRenderingContext2D.prototype;
      const { drawImage, putImageData } = ctx;
      ctx.drawImage = function (...all) { window.drawnTimes++; return drawImage.apply(this, all); };
      ctx.putImageData = function (...all) { window.decoded++; return putImageData.apply(this, all); }; }""")
    view.page.evaluate("() => { for (let count = 0; count <= 17; count++) window.put('hidden_count', count); }")
    assert drawn(view) == expected(17)
    assert view.page.evaluate("() => [window.drawnTimes, window.decoded]") == [1, 0]  # one frame, nothing decoded
    painted = np.zeros(COUNT, np.uint8)
    shown, hidden = int(np.argmax(RANKS == 2)), int(np.argmax(RANKS == 20))
    painted[[shown, hidden, HOLE]] = 2, 1, 2
    view.set("painted", painted.tobytes())
    assert drawn(view) == expected(17, {shown: "seen", hidden: "hidden"})
    view.set("mask_style", "none")
    assert set(drawn(view)) == {"seen", "hole"}
    view.set("mask_style", "dim")
    assert drawn(view).count("?") == 17
    view.set("mask_style", "hatched")
    view.set("heat", np.where(np.arange(COUNT) == 4, 1.0, np.nan).astype("<f4").tobytes())
    view.set("palette", bytes([9, 9, 9] * 256))
    view.set("heat_opacity", 1.0)
    assert drawn(view)[4] == "hidden"  # all as dark as that, but without stripes:
    assert view.page.evaluate("""() => { const canvas = document.querySelector(".pi-stage canvas");
      const { data } = canvas.getContext("2d").getImageData(canvas.width * 0.7, canvas.height * 0.05, 20, 20);
      return [...new Set(data)]; }""") == [9, 255]
    view.set("rank", b"")
    view.set("painted", b"")
    view.set("heat", b"")
    assert drawn(view) == ["seen"] * COUNT
    view.set("arrows", [{"from": 0, "to": 15, "weight": 0.8, "color": "#f00"}, {"from": 1, "to": 1}])
    view.set("show_grid", True)
    frame(view)
    count_red = """() => { const canvas = document.querySelector(".pi-stage canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let found = 0;
      for (let i = 0; i < data.length; i += 4) found += data[i] === 255 && data[i + 1] === 0 && data[i + 2] === 0;
      return found / (canvas.width / %d) ** 2; }""" % COLUMNS
    width = view.get("max_width")
    view.set("max_width", 100)
    view.set("arrows", [{"from": 0, "to": 1, "weight": 1, "color": "#f00"}])  # a neighbour's strong arrow is no blob
    frame(view)
    assert 0.02 < view.page.evaluate(count_red) < 0.35, "share of a patch that it covers"
    view.set("max_width", width)


@browser
def test_the_slider_moves_the_mask_without_a_kernel(view):
    words = view.page.locator(".pi-ratio output")
    assert words.text_content() == "13 of 23 patches visible"
    box = view.page.locator(".pi-ratio input").bounding_box()
    view.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] / 2)
    view.page.mouse.down()
    assert view.get("is_dragging") is True
    for share in np.linspace(0.45, 0.9, 8):
        view.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    frame(view)
    count = view.get("hidden_count")
    assert 19 <= count <= 22 and drawn(view) == expected(count)
    assert words.text_content() == f"{23 - count} of 23 patches visible"
    view.page.mouse.move(400, 700)  # the hand has left the slider when it lets go
    view.page.mouse.up()
    frame(view)
    assert view.get("is_dragging") is False and view.saved()[-1]["is_dragging"] is False
    assert [saved["hidden_count"] for saved in view.saved() if "hidden_count" in saved][-1] == view.get("hidden_count")
    view.page.locator(".pi-ratio input").focus()
    view.page.keyboard.press("Home")
    frame(view)
    assert view.get("hidden_count") == 0 and words.text_content() == "23 of 23 patches visible"
    view.page.keyboard.press("ArrowRight")
    frame(view)
    assert view.saved()[-1] == {"hidden_count": 1} and drawn(view) == expected(1)
    assert view.page.locator(".pi-ratio input").get_attribute("aria-valuetext") == "22 of 23 patches visible"


def drag(view, *points):
    view.page.mouse.move(*at(view, *points[0]))
    view.page.mouse.down()
    for point in points[1:]:
        view.page.mouse.move(*at(view, *point))


def strokes(view):
    frame(view)
    return [saved for saved in view.saved() if "stroke" in saved or "painted" in saved]


@browser
def test_a_brush_stroke_is_saved_once(view):
    view.page.get_by_role("button", name="Hide").click()
    assert view.get("tool") == "hide" and view.saved()[-1] == {"tool": "hide"}
    drag(view, (1.5, 0.5), (4.5, 0.5))  # one quick move over four patches
    assert drawn(view) == expected(10, {n: "hidden" for n in (1, 2, 3, 4)}) and not strokes(view)
    view.page.mouse.up()
    [saved] = strokes(view)
    assert saved["stroke"] == {"number": 1, "patches": [1, 2, 3, 4], "value": 1}
    assert saved["painted"] == [1 if n in (1, 2, 3, 4) else 0 for n in range(COUNT)] == view.get("painted")
    view.page.get_by_role("button", name="Show").click()
    view.set("brush", 2)
    drag(view, (3, 3.1))  # a point between four patches, one of them without a measurement
    view.page.mouse.up()
    saved = strokes(view)[-1]
    assert saved["stroke"] == {"number": 2, "patches": [14, 15, 21], "value": 2} and len(strokes(view)) == 2
    assert [n for n, value in enumerate(saved["painted"]) if value == 2] == [14, 15, 21]
    assert drawn(view)[HOLE] == "hole" and {drawn(view)[n] for n in (14, 15, 21)} == {"seen"}
    drag(view, (0.5, 0.5), (1.5, 0.5))
    view.page.keyboard.press("Escape")  # gives the stroke up
    view.page.mouse.up()
    assert len(strokes(view)) == 2
    view.page.get_by_role("button", name="Undo").click()
    view.page.get_by_role("button", name="Clear").click()
    assert [saved["request"] for saved in view.saved() if "request" in saved] == [
        {"number": 1, "what": "undo"}, {"number": 2, "what": "clear"}]


@browser
def test_a_lasso_takes_the_patches_whose_centre_it_holds(view):
    view.page.get_by_role("button", name="Hide").click()
    view.page.get_by_role("button", name="Lasso").click()
    frame(view)
    assert view.page.locator(".pi-size input").is_disabled()
    drag(view, (1.2, 0.2), (4.8, 0.2), (4.8, 1.8), (3.4, 1.8), (3.4, 1.2), (1.2, 1.2))
    caught = expected(10, {n: "hidden" for n in (1, 2, 3, 4, 9, 10)})
    assert [drawn(view)[n] for n in (1, 2, 3, 4, 10)] == ["hidden"] * 5 and not strokes(view)  # seen while it is drawn
    view.page.mouse.up()
    [saved] = strokes(view)
    assert saved["stroke"] == {"number": 1, "patches": [1, 2, 3, 4, 9, 10], "value": 1} and drawn(view) == caught
    drag(view, (0.1, 3.1), (0.3, 3.1), (0.3, 3.3))  # smaller than a patch: the one it began in
    view.page.mouse.up()
    assert strokes(view)[-1]["stroke"]["patches"] == [18]
    drag(view, (2.2, 3.3), (2.6, 3.3))  # nothing was measured there, so there is nothing to hide
    view.page.mouse.up()
    assert len(strokes(view)) == 2


@browser
def test_the_keyboard_reaches_everything(view):
    view.set("tool", "hide")
    frame(view)
    view.page.evaluate("() => document.activeElement.blur()")
    reached = []
    for _ in range(10):
        view.page.keyboard.press("Tab")
        reached.append(view.page.evaluate("() => { const n = document.activeElement;"
                                          " return n.dataset.value ?? n.ariaLabel.split(',')[0]; }"))
    assert reached == ["select", "hide", "show", "brush", "lasso", "brush size in patches", "undo", "clear",
                       "depth seen", "patches hidden"]
    canvas = view.page.locator(".pi-stage canvas")
    canvas.focus()
    view.page.keyboard.press("ArrowDown")
    assert view.get("hover") == 0
    for key, number in (("ArrowRight", 1), ("ArrowDown", 7), ("End", 11), ("ArrowRight", 11), ("ArrowLeft", 10),
                        ("Home", 6), ("ArrowUp", 0), ("ArrowUp", 0)):
        view.page.keyboard.press(key)
        assert view.get("hover") == number, key
    assert readout(view).startswith("row 1, column 1 · ")
    view.page.keyboard.press("Enter")
    assert strokes(view)[-1]["stroke"] == {"number": 1, "patches": [0], "value": 1}
    view.page.keyboard.press("Control+z")
    assert view.get("request") == {"number": 1, "what": "undo"}
    view.set("tool", "select")
    view.page.keyboard.press("ArrowRight")
    view.page.keyboard.press(" ")
    view.page.keyboard.press("ArrowRight")
    view.page.keyboard.press("Shift+Enter")
    assert view.get("selection") == [1, 2]
    view.page.keyboard.press("Escape")
    assert view.get("selection") == []
    assert canvas.evaluate("(node) => getComputedStyle(node).outlineStyle") == "solid"
    assert canvas.evaluate("(node) => node.closest('[data-lm-suppress-shortcuts]') !== null")  # Lab's own keys wait
    view.page.keyboard.press("Tab")
    frame(view)
    assert view.get("hover") == -1


@browser
def test_the_legend_says_what_is_hatched_and_the_scale_has_two_numbers(view):
    legend = view.page.locator(".pi-legend")
    assert legend.inner_text().split("\n") == ["hidden from the model", "never measured"]
    view.set("hidden_count", 0)
    view.set("marks", ["guessed"])
    frame(view)
    assert legend.inner_text().split("\n") == ["never measured", "predicted where nothing was measured"]
    for low, high in ((0.9, 5.9), (-0.4, 0.4), (1.7, 2.4), (4.96, 9.4), (2.0, 2.05)):
        view.set("bar_range", [low, high])
        for width in (240, 640):
            view.set("max_width", width)
            frame(view)
            ticks = view.page.locator(".pi-ticks span")
            assert 2 <= ticks.count() <= 7 and len(set(ticks.all_inner_texts())) == ticks.count()


@browser
def test_why_a_picture_is_dead_can_be_read_in_a_dimmed_explorer(view):
    view.page.add_style_tag(content=(WIDGETS / "toolbar.css").read_text())
    view.page.evaluate("""() => {
      document.body.classList.add("dark");
      const root = document.getElementById("root"), explorer = document.createElement("div"), tile = document.createElement("div");
      root.before(explorer); explorer.append(tile); tile.append(root);
      tile.insertAdjacentHTML("beforeend", '<button class="jupyter-button">x</button>');
      explorer.className = "mask3d-explorer is-gone"; explorer.id = "explorer"; }""")
    view.lose_kernel()
    frame(view)
    found = view.page.evaluate("""() => { let opacity = 1, filters = [];
      for (let node = document.querySelector(".pi-gone"); node; node = node.parentElement) {
        opacity *= Number(getComputedStyle(node).opacity); filters.push(getComputedStyle(node).filter); }
      const other = getComputedStyle(document.querySelector(".jupyter-button")).opacity;
      return { opacity, filters, other }; }""")
    assert found["opacity"] == 1 and set(found["filters"]) == {"none"} and float(found["other"]) < 0.5


@browser
def test_a_lost_kernel_is_seen(view):
    view.set("stale", True)
    frame(view)
    assert view.page.locator(".pi-stale").is_visible()
    view.lose_kernel()
    frame(view)
    assert view.page.locator(".pi-gone").text_content() == "kernel gone - run the cell again"
    assert "grayscale" in view.page.locator(".pi-stage canvas").evaluate("(node) => getComputedStyle(node).filter")
    assert view.page.locator("button:enabled, input:enabled, canvas[tabindex='0']").count() == 0
    before = len(view.saved())
    click(view, 8)
    view.page.locator(".pi-stage canvas").focus()
    view.page.keyboard.press("ArrowRight")
    frame(view)
    assert (view.get("selection"), view.get("hover"), len(view.saved())) == ([], -1, before)
    view.page.evaluate("() => { window.model.comm_live = true; window.model.emit('comm_live_update'); }")
    frame(view)
    assert not view.page.locator(".pi-gone").is_visible()
    view.page.evaluate("""() => { window.model.comm_live = undefined; // a notebook's proxy of the model does not say it
      document.getElementById("root").classList.add("jupyter-widgets-disconnected");
      window.model.emit("comm_live_update"); }""")
    frame(view)
    assert view.page.locator(".pi-gone").is_visible()


LOOK = """() => {
  const root = document.querySelector(".patch-image"), ink = getComputedStyle(root).color.match(/[\\d.]+/g).map(Number);
  const canvas = root.querySelector(".pi-stage canvas"), box = canvas.getBoundingClientRect();
  const sizes = [...root.querySelectorAll("*")].map((node) => parseFloat(getComputedStyle(node).fontSize));
  return { ink: ink[0], smallest: Math.min(...sizes), width: box.width, height: box.height, backing: canvas.width,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    labelled: [...root.querySelectorAll("button, input, canvas[tabindex]")].every((node) => node.ariaLabel) };
}"""


@browser
def test_both_themes_and_a_small_width(view):
    light = view.page.evaluate(LOOK)
    assert light["ink"] < 60 and light["smallest"] >= 12 and light["labelled"]
    assert light["width"] == 634 and light["backing"] == 634  # the largest width, less the border
    view.page.evaluate("() => document.body.classList.add('dark')")
    assert view.page.evaluate(LOOK)["ink"] > 200
    view.page.set_viewport_size({"width": 240, "height": 700})
    view.page.wait_for_function("() => document.querySelector('.pi-stage canvas').width < 300")
    frame(view)
    small = view.page.evaluate(LOOK)
    assert small["overflow"] <= 0 and small["smallest"] >= 12 and 190 < small["width"] < 220
    assert small["height"] == pytest.approx(small["width"] * ROWS / COLUMNS, abs=1)
    assert small["backing"] == small["width"]
    view.page.mouse.move(*center(view, 13))
    assert view.get("hover") == 13
    assert view.page.locator(".pi-ticks span").first.text_content() == "2\N{NO-BREAK SPACE}m"


@browser
def test_closing_leaves_nothing_behind(view):
    view.page.evaluate("() => window.cleanup()")
    assert view.page.evaluate("() => document.getElementById('root').children.length") == 0
    left = view.page.evaluate("() => [...window.model.listeners].filter(([, all]) => all.size).map(([name]) => name)")
    assert sorted(left) == ["saved", "sent"]
    before = len(view.saved())
    view.set("hidden_count", 3)
    view.page.mouse.click(*(200, 200))
    frame(view)
    assert len(view.saved()) == before
