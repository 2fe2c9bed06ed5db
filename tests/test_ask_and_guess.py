"""Questions before a reveal, the reader as the model, and the map of the architecture."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError
from mask3d_core.models import Mask3D
from mask3d_core.sources import open_source
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
