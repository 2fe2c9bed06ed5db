"""The way into the lab without a browser: what is said where something is missing, and how JupyterLab is told to be quiet."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import Mask3DError
from mask3d_viz import lab


@pytest.fixture
def started(monkeypatch):
    """Commands and environments with which programs would have been started."""
    found = []

    class Done:
        returncode = 0

    monkeypatch.setattr("subprocess.run", lambda command, env, cwd: found.append((command, env, cwd)) or Done)
    return found


def test_wrong_paths_and_a_missing_package_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(Mask3DError, match="path for --frames"):
        lab.start_lab(tmp_path / "lab", frames=str(tmp_path / "nowhere"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Mask3DError, match=r"mask3d-lab\[lab\]"):
        lab.start_lab(tmp_path / "lab")


def test_the_first_notebook_is_opened_and_the_readers_own_settings_are_left_alone(tmp_path, monkeypatch, started):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (pip install -e '.[lab]')")
    monkeypatch.delenv("MASK3D_FRAMES", raising=False)
    assert lab.start_lab(tmp_path / "lab", browser=False, arguments=("--ServerApp.port=9000",)) == 0
    (command, environment, place), = started
    assert f"--LabApp.default_url=/lab/tree/{lab.START}" in command and {"--no-browser", "--ServerApp.port=9000"} <= set(command)
    assert not any("ServerApp.ip" in word for word in command), "this machine alone is listened to"
    assert place == tmp_path / "lab" and (place / lab.START).is_file() and "MASK3D_FRAMES" not in environment
    config = Path(environment["JUPYTER_CONFIG_DIR"])
    assert config.is_relative_to(place) and Path(environment["JUPYTERLAB_SETTINGS_DIR"]).is_relative_to(place)
    assert json.loads((config / "labconfig" / "page_config.json").read_text())["buildCheck"] is False
    told = json.loads((config / "jupyter_lab_config.json").read_text())["LabApp"]
    assert told["news_url"] is None and told["extension_manager"] == "readonly"


def test_frames_checkpoint_and_session_reach_the_notebooks_as_whole_paths(tmp_path, monkeypatch, started):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (pip install -e '.[lab]')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "saved.json").touch()
    lab.start_lab("lab", frames="mine", checkpoint="model", session="saved.json")
    environment = started[0][1]
    assert environment["MASK3D_FRAMES"] == str(tmp_path / "mine")
    assert environment["MASK3D_CHECKPOINT"] == str(tmp_path / "model")
    assert environment["MASK3D_SESSION"] == str(tmp_path / "saved.json")


def test_of_several_checkpoints_the_first_is_shown_and_the_others_can_be_set_beside_it(tmp_path, monkeypatch, started):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (pip install -e '.[lab]')")
    if not lab.SHIPPED.with_suffix(".safetensors").is_file():
        pytest.skip("the shipped checkpoint is not here")
    other = tmp_path / "run: two"
    other.mkdir()
    for ending in (".safetensors", ".json"):
        shutil.copy(lab.SHIPPED.with_suffix(ending), other / f"tiny{ending}")
    lab.start_lab(tmp_path / "lab", checkpoint=(str(lab.SHIPPED), str(other / "tiny")))
    monkeypatch.setenv("MASK3D_CHECKPOINT", started[0][1]["MASK3D_CHECKPOINT"])
    session = lab.open_session()
    assert list(session.checkpoints) == ["checkpoints/tiny", "run: two/tiny"] and session.state.checkpoint == "checkpoints/tiny"
    assert lab.short_names(["runs/a", "runs/b"]) == {"a": "runs/a", "b": "runs/b"}
    with pytest.raises(Mask3DError, match="path for --checkpoint"):
        lab.start_lab(tmp_path / "lab", checkpoint=(str(lab.SHIPPED), str(tmp_path / "nowhere")))
