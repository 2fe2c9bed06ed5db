"""What holds for every explorer: driven from Python, exports, code that brings it back, kept pictures, projector, errors."""

import ast
import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

import ipywidgets as widgets

from mask3d_core.errors import ConfigError
from mask3d_core.models import Mask3D
from mask3d_core.sources import open_source
from mask3d_viz.explorers import EXPLORERS, explorer
from mask3d_viz.explorers.base import Explorer
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.session import Session


@pytest.fixture(scope="module")
def frames():
    source = open_source("rooms", count=3, seed=4, views_per_room=1, height=72, width=96, sensor=1.0)
    return [source.read(i) for i in range(3)]


@pytest.fixture
def session(frames):
    torch.manual_seed(0)
    model = Mask3D(MODEL).eval()
    model.set_depth_statistics(0.5, 0.3)
    return Session(frames, {"shipped": model})


@pytest.fixture(params=sorted(EXPLORERS))
def view(request, session):
    made = explorer(request.param)(session)
    yield made
    made.close()


def wait(view):
    assert studio_of(view.session).wait(60)


def inside(widget):
    """A widget and all that it holds."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


def test_it_follows_the_session_and_closes(view, session):
    assert isinstance(view, Explorer) and view.function in EXPLORERS and view.here
    session.change(frame=1, rgb_ratio=0.5, seed=3, selection=(2,))
    wait(view)
    assert "frame 1" in repr(view)
    listeners = len(session._listeners)
    view.close()
    assert len(session._listeners) < listeners, "closed, it listens no more"


def test_its_code_brings_back_what_is_shown(view, session):
    session.change(depth_ratio=0.5, seed=7, painted_rgb=((1, 2),))
    code = view.code()
    ast.parse(code)
    other = Session(session.frames, session.checkpoints)
    found = eval(code.splitlines()[-1], {view.function: lambda s: s, "session": other})
    exec(code.splitlines()[0], {"session": other})
    assert found is other and other.state == session.state
    assert view.toolbar.code == code


def test_every_file_that_it_offers_can_be_read(view, session, tmp_path):
    session.change(selection=(5,))
    wait(view)
    kinds = list(view.files())
    assert view.toolbar.kinds == kinds and {"PNG", "CSV", "JSON"} <= set(kinds)
    if hasattr(view, "worker"):
        assert view.worker.wait(120)
    for kind in kinds:
        path = view.export(kind, tmp_path / "out")
        content = path.read_bytes()
        assert content, path
        if kind == "PNG":
            assert Image.open(path).size[0] >= 600
        if kind == "CSV":
            rows = list(csv.DictReader(io.StringIO(content.decode())))
            assert len(rows) > 1 and len(rows[0]) > 2
        if kind == "JSON":
            assert Session(session.frames, session.checkpoints).load(path) == session.state
            assert json.loads(content)["kind"] == "mask3d-session"
    with pytest.raises(ConfigError, match="writes PNG"):
        view.export("XLS", tmp_path)
    view.toolbar.request = {"number": 1, "what": "file", "kind": "PNG"}
    assert view.toolbar.file_number == 1 and view.toolbar.file[:4] == b"\x89PNG" and view.toolbar.file_name.endswith(".png")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_has_a_picture_in_both_themes(view, theme):
    wait(view)
    picture = view.still(theme)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 5
    corner = picture[-3:, -3:].mean()
    assert corner > 200 if theme == "light" else corner < 60, "the theme's paper"


def test_kept_pictures_are_scenes_to_come_back_to(view, session):
    wait(view)
    view.toolbar.request = {"number": 1, "what": "keep"}
    session.change(seed=9, frame=2)
    view.toolbar.request = {"number": 2, "what": "keep"}
    assert [scene["name"] for scene in view.toolbar.scenes] == ["scene 1", "scene 2"] and view.toolbar.scene == 1
    assert all(scene["picture"].startswith("data:image/png") for scene in view.toolbar.scenes)
    view.toolbar.request = {"number": 3, "what": "previous"}
    assert (session.state.seed, session.state.frame, view.toolbar.scene) == (0, 0, 0)
    view.toolbar.request = {"number": 4, "what": "next"}
    assert session.state.seed == 9
    view.toolbar.request = {"number": 5, "what": "next"}
    assert session.state.seed == 9, "the last one stays"
    view.toolbar.request = {"number": 6, "what": "forget", "scene": 0}
    assert len(session.scenes) == 1 and len(view.toolbar.scenes) == 1
    wait(view)


def test_the_projector_gets_two_panels_at_most(view):
    assert view.present() is view and view.toolbar.present
    panels = view.panels()
    shown = [p for p in panels if "mask3d-not-presented" not in p._dom_classes]
    assert len(shown) <= 2 and (shown or not panels)
    view.present(False)
    assert not view.toolbar.present and not any("mask3d-not-presented" in p._dom_classes for p in panels)


def test_controls_have_names(view):
    """Tab reaches them in order; a screen reader has something to say."""
    for widget in inside(view):
        if isinstance(widget, (widgets.Button, widgets.Checkbox, widgets.ToggleButton)):
            assert widget.description or widget.tooltip, widget
        elif isinstance(widget, (widgets.FloatSlider, widgets.IntSlider, widgets.Dropdown, widgets.BoundedIntText)):
            assert widget.description or widget.tooltip, widget
        elif type(widget).__name__ in ("PatchImage", "PointCloud"):
            assert widget.label, widget


def test_what_cannot_be_is_said_in_the_panel(view, session):
    session.change(rgb_ratio=1.0, depth_ratio=1.0)  # nothing at all is visible
    wait(view)
    parts = [view, *(w for w in inside(view) if isinstance(w, Explorer))]
    assert view.needs_prediction == any("role=\"alert\"" in part.message.value for part in parts)
    session.change(depth_ratio=0.5)
    wait(view)
    assert not any("visible" in part.message.value for part in parts)
