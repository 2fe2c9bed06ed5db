"""The way into the lab: ``explore(open_session())`` with what ships, or with frames and checkpoints of one's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mask3d_core.errors import Mask3DError
from mask3d_core.shipped import shipped
from mask3d_core.sources import open_source
from mask3d_core.sources.opening import open_path
from mask3d_viz.session import Session

SHIPPED = shipped("data", "checkpoints") / "tiny"  # completes depth best
SHIPPED_ENCODER = shipped("data", "checkpoints") / "micro"  # whose RGB encoder holds most
SAMPLE_ROOMS = {"count": 8, "seed": 99, "pool": "test", "views_per_room": 1}  # rooms that no recipe trains on


def open_session(frames: str | Path | Any = "", checkpoint: str | Path | Sequence[str | Path] | dict[str, Any] = "", limit: int = 60,
                 file: str | Path = "", **state: Any) -> Session:
    """A session over sample rooms and the shipped checkpoint, or over frames and checkpoints of one's own.

    Args:
        frames: a recording's folder, a store, a ``Source`` or a list of RGBDFrames; "": what ``mask3d lab --frames`` said,
            else eight rendered rooms.
        checkpoint: NAME, a run folder, several of them, or several as {name: path or model}; "": what ``mask3d lab
            --checkpoint`` said, else the one that ships.
        limit: use at most this many frames, evenly spread.
        file: a saved session whose state is taken over; "": what ``mask3d lab --session`` said, if anything.
        state: values of ``SessionState``.

    Raises:
        Mask3DError: no such recording, or the shipped checkpoint is not there.
    """
    frames = os.environ.get("MASK3D_FRAMES", "") if isinstance(frames, str) and not frames else frames
    if isinstance(checkpoint, str) and not checkpoint:
        checkpoint = os.environ.get("MASK3D_CHECKPOINT", "").split("\n")
    file = file or os.environ.get("MASK3D_SESSION", "")
    if isinstance(frames, (str, Path)):
        frames = open_path(frames) if str(frames) else open_source("rooms", **SAMPLE_ROOMS)
    if not isinstance(checkpoint, dict):
        paths = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
        if not any(map(str, paths)) and not SHIPPED.with_suffix(".safetensors").is_file():
            raise Mask3DError("the shipped checkpoint", "no such file",
                              "It comes with the repository and with the wheel: install again, or pass checkpoint=PATH.", SHIPPED)
        checkpoint = short_names([path for path in paths if str(path)]) or {"shipped": SHIPPED}
    session = Session(frames, checkpoint, limit, **state)
    if str(file):
        session.load(file)
    return session


def short_names(paths: Sequence[str | Path]) -> dict[str, str | Path]:
    """A name for each path: its last part, and more of it where two would be called the same."""
    for parts in range(1, 1 + max((len(Path(path).parts) for path in paths), default=0)):
        named = {"/".join(Path(path).parts[-parts:]): path for path in paths}
        if len(named) == len(set(map(str, paths))):
            return named
    return {str(path): path for path in paths}


NOTEBOOKS = shipped("notebooks")
START = "00_start_here.ipynb"


def copy_notebooks(folder: Path) -> list[Path]:
    """Bring the notebooks into a folder; those that are there stay as they are.

    Returns:
        The notebooks that were written.

    Raises:
        Mask3DError: there are none to copy.
    """
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not found:
        raise Mask3DError("the notebooks", "none", "Make them: make notebooks", NOTEBOOKS)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / path.name for path in found if not (folder / path.name).exists()]
    for path in written:
        shutil.copy(NOTEBOOKS / path.name, path)
    return written


def lab_settings(place: Path) -> dict[str, str]:
    """Write JupyterLab's settings for this lab alone, and say by which environment variables it finds them.

    No build dialog, no news, no look for updates, no extension manager that installs: after the set-up nothing leaves the
    machine. The reader's own Jupyter settings are neither used nor touched.
    """
    config = place / "config"
    (config / "labconfig").mkdir(parents=True, exist_ok=True)
    (config / "labconfig" / "page_config.json").write_text(json.dumps({"buildCheck": False, "buildAvailable": False}))
    (config / "jupyter_lab_config.json").write_text(json.dumps({"LabApp": {
        "news_url": None, "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "extension_manager": "readonly"}}))
    settings = place / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    return {"JUPYTER_CONFIG_DIR": str(config), "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces")}


def start_lab(folder: str | Path = "lab", frames: str = "", checkpoint: str | Sequence[str] = "", session: str = "",
              browser: bool = True, arguments: tuple[str, ...] = ()) -> int:
    """Open JupyterLab on the first notebook; returns when it is closed.

    Args:
        folder: where the notebooks are copied to and worked on.
        frames, checkpoint, session: what ``open_session()`` opens in the notebooks.
        browser: open one; else the address with its token is printed.
        arguments: further arguments of JupyterLab. It listens on this machine alone unless told otherwise here.

    Raises:
        Mask3DError: JupyterLab is not installed, or a path does not exist.
    """
    from importlib.util import find_spec

    missing = [name for name in ("jupyterlab", "anywidget", "ipywidgets") if find_spec(name) is None]
    if missing:
        raise Mask3DError("JupyterLab and its widgets", f"no {', '.join(missing)}", "pip install 'mask3d-lab[lab]'")
    folder = Path(folder).resolve()
    copy_notebooks(folder)
    several = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    paths = {}
    for name, given in (("frames", [frames]), ("checkpoint", several), ("session", [session])):
        found = [str(Path(path).resolve()) for path in given if path]
        for path in found:
            if not any(Path(path + ending).exists() for ending in ("", ".safetensors")):
                raise Mask3DError(f"a path for --{name}", "nothing there", "Check it.", path)
        if found:
            paths[f"MASK3D_{name.upper()}"] = "\n".join(found)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *([] if browser else ["--no-browser"]),
               f"--LabApp.default_url=/lab/tree/{START}", *(["--allow-root"] if _is_root() else []), *arguments]
    environment = {**os.environ, **lab_settings(folder / ".lab"), **paths}
    try:
        return subprocess.run(command, env=environment, cwd=folder).returncode
    except KeyboardInterrupt:
        return 0


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


__all__ = ["copy_notebooks", "lab_settings", "open_session", "short_names", "start_lab"]
