"""Questions before a reveal, the reader as the model, and the map of the architecture."""

import base64
import io
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from browser import FLAGS
from PIL import Image
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError
from mask3d_core.models import Mask3D
from mask3d_core.sources import open_source
from mask3d_viz import style
from mask3d_viz.model_map import GROUPS, PARTS, architecture, architecture_image, architecture_svg
from mask3d_viz.explorers.ask import ask, line_svg
from mask3d_viz.explorers.guess import LEAST_MEASURED, guess_depth
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.notebook import picture
from mask3d_viz.predictions import Predictions
from mask3d_viz.session import Session


@pytest.fixture(scope="module")
def frames():
    source = open_source("rooms", count=2, seed=4, views_per_room=1, height=72, width=96, sensor=0.0)
    return [source.read(i) for i in range(2)]


@pytest.fixture
def session(frames):
    torch.manual_seed(0)
    model = Mask3D(MODEL).eval()
    model.set_depth_statistics(0.5, 0.3)
    return Session(frames, {"shipped": model})


def test_the_answer_is_asked_for_at_the_reveal_and_not_before():
    asked = []
    question = ask("How far off?", lambda: asked.append(1) or 3.0, 0, 10, "cm", model=4.0, others={"spline": 6.5})
    question.guess(9.0)
    assert not asked and not question.revealed
    question.button.click()
    assert asked and question.revealed == {"you": 9.0, "Mask3D": 4.0, "the truth": 3.0, "spline": 6.5}
    assert "off by 6.0 cm; Mask3D by 1.0 cm" in question.result.value and question.slider.disabled
    data = question._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).width == 900
    with pytest.raises(ConfigError, match="low below high"):
        ask("?", 1.0, 5, 5)


def test_a_line_holds_what_lies_outside_of_it():
    svg = line_svg({"you": 30.0, "the truth": -2.0}, (0, 10), "cm", 1)
    root = ElementTree.fromstring(svg)
    places = [float(c.get("cx")) for c in root.iter("circle")]
    assert len(places) == 2 and all(180 <= x <= 660 for x in places) and places[0] > places[1]


def test_a_choice():
    question = ask("Which?", "depth", choices=("colour", "depth"), because="it was measured")
    question.buttons[0].click()
    assert question.revealed == {"you": "colour", "the truth": "depth"} and "No: depth." in question.result.value
    assert "it was measured" in question.result.value and all(b.disabled for b in question.buttons)
    with pytest.raises(ConfigError, match="choice among"):
        ask("Which?", "depth", choices=("colour", "depth")).choose("both")
    with pytest.raises(ConfigError, match="choice among"):
        ask("Which?", "neither", choices=("colour", "depth")).choose("depth")


def test_the_reader_is_scored_like_the_model(session):
    game = guess_depth(session, count=3)
    assert len(game.patches) == 3
    hidden, valid = session.is_masked("depth"), session.batch().is_valid[0].numpy()
    side, columns = session.patch, session.grid[1]
    truth = []
    for patch in game.patches:
        row, column = divmod(patch, columns)
        cell = np.s_[row * side:(row + 1) * side, column * side:(column + 1) * side]
        assert hidden[patch] and valid[cell].mean() >= LEAST_MEASURED
        truth.append(float(session.batch().depth[0].numpy()[cell][valid[cell]].mean()))
    game.guess(*truth)
    errors = game.reveal()
    assert errors["you"] < 3, "sliders go in steps of 5 cm"
    expected = 100 * np.abs(game.answers()["Mask3D"] - np.array(truth)).mean()
    assert errors["Mask3D"] == pytest.approx(expected, abs=1e-3) and "spline in 1/depth" in errors
    assert game.is_revealed and "you ◂ best" in game.result.value
    session.change(seed=5)
    assert not game.is_revealed and not game.result.value, "another mask, another game"
    with pytest.raises(ConfigError, match="3 guesses"):
        game.guess(1.0)
    game.close()


def box_of(game, number, wide=1, name="depth"):
    """The pixels of a numbered patch, or of the box that is so many patches wide, without its border: (rows, columns, 3)."""
    picture = game.pictures[name]
    image = np.frombuffer(picture.pixels, np.uint8).reshape(*picture.size, 3)
    row, column = divmod(game.patches[number], picture.grid[1])
    side, first = picture.patch, min(max(0, column - wide // 2), picture.grid[1] - wide)
    return image[row * side + 3:(row + 1) * side - 3, first * side + 3:(first + wide) * side - 3]


def test_the_guess_stays_in_the_picture_beside_model_and_truth(session):
    game = guess_depth(session, count=1)
    columns = game.pictures["depth"].columns
    assert [c["name"] for c in columns] == ["your guess"], "what is hidden is not said before it is revealed"
    low, high = game.limits()
    game.guess((low + high) / 2)
    color = lambda metres: style.apply_colormap(np.float32(metres), low, high, session.state.colormap)  # noqa: E731
    assert (box_of(game, 0)[0, :2] == color(game.sliders[0].value)).all()
    game.reveal()
    answers = game.answers()
    top = box_of(game, 0, wide=3)[0]
    for place, name in zip((1, len(top) // 2, -2), ("you", "Mask3D", "the truth")):
        assert (top[place] == color(answers[name][0])).all(), name
    assert "you | Mask3D | the truth" in game.pictures["depth"].note and "<svg" in game.result.value
    assert [c["name"] for c in game.pictures["rgb"].columns] == ["truth", "prediction", "error", "your guess"]
    values = np.frombuffer(game.pictures["rgb"].values, "<f4").reshape(4, -1)
    assert values[3, game.patches[0]] == pytest.approx(game.sliders[0].value) and np.isfinite(values[3]).sum() == 1
    revealed = game.still()
    assert revealed.shape[0] > game.still("dark").shape[0] - 1
    assert game.pictures["rgb"].marks == ["hidden"] and game.pictures["depth"].marks == []
    session.change(seed=5)
    assert game.pictures["depth"].note == "" and game.still().shape[0] < revealed.shape[0]
    game.close()


def test_the_games_pictures_stand_beside_each_other_and_are_linked(session):
    game = guess_depth(session, count=3)
    assert len(game.tiles) == 3 and all(tile.layout.flex == "1 1 270px" for tile in game.tiles)
    assert [tile.children[0] for tile in game.panels()] == list(game.pictures.values())
    assert game.sliders[0] in game.tiles[2].children and game.tiles[2] not in game.panels(), "they stay on the projector"
    game.pictures["rgb"].selection = [4]
    assert session.state.selection == (4,) and game.pictures["depth"].selection == [4]
    session.change(selection=(), hover=3)
    assert game.pictures["rgb"].selection == [] and game.pictures["depth"].hover == 3
    game.close()


def test_nothing_hidden_nothing_to_guess(session):
    session.change(depth_ratio=0.0)
    game = guess_depth(session)
    assert game.patches == () and all(slider.disabled for slider in game.sliders)
    game.button.click()
    assert "hide some depth first" in game.message.value
    game.close()


def test_every_part_and_group_of_the_map_can_be_lit():
    for here in ("", *PARTS, *GROUPS):
        root = ElementTree.fromstring(architecture_svg(here))
        assert len(list(root.iter("{*}rect")) or list(root.iter("rect"))) == len(PARTS)
        lit = architecture_svg(here).count('fill="#0b5394"')
        assert lit == len(GROUPS.get(here, (here,) if here else ()))
    assert not np.array_equal(architecture_image("masks"), architecture_image("decoder"))
    assert architecture_image("masks", "dark").mean() < 80 < architecture_image("masks").mean()
    assert {"text/html", "image/png", "text/plain"} == set(architecture("fusion")._repr_mimebundle_())
    with pytest.raises(ConfigError, match="here must be one of"):
        architecture("the attic")


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 560, 1200])
def test_the_maps_letters_can_be_read_at_any_width(width):
    page_of = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with page_of.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 300})
        page.set_content(f"<div style='display:flex'><div style='flex-grow:1'>{architecture_svg('masks')}</div></div>")
        found = page.evaluate("""() => { const svg = document.querySelector('svg'), scale = svg.getScreenCTM().a;
          return { letters: [...svg.querySelectorAll('text')].map((t) => scale * parseFloat(getComputedStyle(t).fontSize)),
                   across: document.documentElement.scrollWidth, hidden: svg.parentNode.scrollWidth - svg.parentNode.clientWidth }; }""")
        browser.close()
    assert min(found["letters"]) >= 11.99 and found["across"] <= width, "it scrolls in its own box"
    assert (found["hidden"] > 0) == (width < 700)


def test_a_picture_says_what_it_is():
    image = np.zeros((4, 6, 3), np.uint8)
    assert repr(picture([image, image], "two")) == "Picture of 12 x 4 pixels: two"
    assert picture(image)._repr_png_()[:4] == b"\x89PNG"


def test_the_answer_of_the_game_is_of_its_own_mask(session):
    game = guess_depth(session, count=3)
    session.change(seed=3)
    errors = game.reveal()  # at once, before the worker is done
    fresh = Predictions(session).now().reconstruction
    truth = [float(fresh.depth[cell][fresh.is_valid[cell]].mean()) for cell in game._cells()]
    said = [float(fresh.prediction[cell][fresh.is_valid[cell]].mean()) for cell in game._cells()]
    assert errors["Mask3D"] == pytest.approx(100 * np.abs(np.array(said) - truth).mean(), abs=1e-3)
    assert studio_of(session).wait(60)
    session.change(color_source="grey")
    assert not game.is_revealed
    assert studio_of(session).wait(60)
    game.close()
