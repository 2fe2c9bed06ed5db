"""What holds for every explorer: driven from Python, exports, code that brings it back, kept pictures, projector, errors."""

import ast
import csv
import io
import json

import numpy as np
import pytest
from conftest import random_model
from PIL import Image
from test_watch import finished_folder

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

import ipywidgets as widgets

from mask3d_core.errors import ConfigError
from mask3d_viz.explorers import EXPLORERS, explorer
from mask3d_viz.explorers.base import Explorer
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.explorers.tools import Tools
from mask3d_viz.explorers.watch import watch
from mask3d_viz.session import Session


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return finished_folder(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(params=[*sorted(EXPLORERS), "watch"])
def view(request, session):
    """Every explorer of a session; and the panel of a run, whose session's other explorers follow the run."""
    if request.param == "watch":
        made = watch(request.getfixturevalue("run_folder"), session)
    else:
        made = explorer(request.param)(session)
    yield made
    made.close()


@pytest.fixture
def panel(run_folder):
    """A run's panel without a session."""
    made = watch(run_folder)
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
    assert isinstance(view, Tools) and view.here
    assert isinstance(view, Explorer) and view.function in EXPLORERS or view.function == "watch"
    session.change(frame=1, rgb_ratio=0.5, seed=3, selection=(2,))
    wait(view)
    if view.function == "watch":  # it shows a run, whatever frame the session shows; its code brings the session back
        assert "frame=1" in view.toolbar.code
    else:
        assert "frame 1" in repr(view)
    listeners = len(session._listeners)
    view.close()
    assert len(session._listeners) < listeners, "closed, it listens no more"


def test_its_code_brings_back_what_is_shown(view, session):
    session.change(depth_ratio=0.5, seed=7, painted_rgb=((1, 2),))
    code = view.code()
    ast.parse(code)
    other = Session(session.frames, session.checkpoints)  # the followed run's, where one is
    found = eval(code.splitlines()[-1], {view.function: lambda *given: given[-1], "session": other})
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
    alerts = lambda: [w.value for w in inside(view) if isinstance(w, widgets.HTML) and "role=\"alert\"" in w.value]  # noqa: E731
    assert len(alerts()) == (1 if view.needs_prediction else 0), "said, and once"
    session.change(depth_ratio=0.5)
    wait(view)
    assert not alerts()


def test_a_run_without_a_session_keeps_places_of_its_film(panel, tmp_path):
    assert panel.toolbar.kinds == ["PNG", "CSV"], "there is no session to save"
    panel.toolbar.request = {"number": 1, "what": "keep"}
    panel.film.place, panel.frame.value = 0, 1
    panel.toolbar.request = {"number": 2, "what": "keep"}
    assert [scene["words"] for scene in panel.toolbar.scenes] == [panel.status.words()] * 2 and panel.toolbar.scene == 1
    assert all(scene["picture"].startswith("data:image/png") for scene in panel.toolbar.scenes)
    panel.toolbar.request = {"number": 3, "what": "previous"}
    assert (panel.film.place, panel.frame.value, panel.toolbar.scene) == (-1, 0, 0)
    panel.toolbar.request = {"number": 4, "what": "next"}
    assert panel.worker.wait(60) and (panel.film.place, panel.frame.value) == (0, 1)
    panel.toolbar.request = {"number": 5, "what": "forget", "scene": 0}
    assert len(panel.toolbar.scenes) == 1
    panel.toolbar.request = {"number": 6, "what": "show", "scene": 4}
    assert "scene must be" in panel.message.value
    with pytest.raises(ConfigError, match="watch writes PNG, CSV"):
        panel.export("JSON", tmp_path)


def test_where_several_checkpoints_are_each_view_can_choose(session, view):
    if view.function == "watch":  # it shows its own run's numbers, of whatever checkpoint the session shows
        pytest.skip("a run's panel shows no checkpoint of the session")
    assert view.function == "explore_features" or view.picker.layout.display == "none"
    session.checkpoints["second"] = random_model(seed=1)
    session.refresh("second")  # as a run that is followed brings a new name
    assert view.picker.layout.display == "flex" and list(view.picker.first.options) == ["shipped", "second"]
    view.picker.first.value = "second"
    assert session.state.checkpoint == "second"
    session.undo()
    assert session.state.checkpoint == "shipped" and view.picker.first.value == "shipped"
    assert (view.picker.second in view.picker.children) == view.compares
    wait(view)
