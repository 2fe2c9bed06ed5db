"""What stands under every live view: files to take along, pictures to keep and come back to, code to copy, the projector."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.files import write_atomically
from mask3d_viz.explorers.studio import in_words
from mask3d_viz.pixels import resize_smooth, to_png
from mask3d_viz.session import Session, SessionState
from mask3d_viz.widgets.toolbar import Toolbar

THUMBNAIL = 400  # pixels across of a kept picture
PROJECTED = 2  # panels at most on a projector


class Tools:
    """The toolbar's side of a live view, beside ``ipywidgets.VBox`` among its base classes.

    A view says with :meth:`files`, :meth:`panels`, :meth:`projected`, :meth:`still`, :meth:`code`, :meth:`scene_words` and
    ``say`` what there is; :attr:`shelf` is where its pictures are kept.
    """

    function = ""  # the call that makes the view
    toolbar: Toolbar | None = None

    @property
    def shelf(self) -> Any:
        """Where pictures are kept: a session, or what has its ``scenes``, ``scene``, ``keep``, ``forget`` and ``show_scene``."""
        raise NotImplementedError

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """What can be taken along: kind to a function that makes (name, bytes)."""
        raise NotImplementedError

    def still(self, theme: str = "light") -> np.ndarray:
        """What is shown, as uint8 (H, W, 3), without a browser."""
        raise NotImplementedError

    def code(self) -> str:
        """The call that brings back what is on the screen."""
        raise NotImplementedError

    def scene_words(self) -> str:
        """What is seen now, in a line under its kept picture."""
        raise NotImplementedError

    def projected(self) -> Sequence[widgets.Widget]:
        """The panels that go to a projector, two at most; empty: all of them are few enough."""
        return ()

    def panels(self) -> Sequence[widgets.Widget]:
        """All panels; those that are not :meth:`projected` are left out on a projector."""
        return ()

    # ---- what a reader does ------------------------------------------------------------------------------------------

    def export(self, kind: str, folder: str | Path = ".") -> Path:
        """Write a file of what is shown.

        Args:
            kind: "PNG", "CSV", "JSON" (the session) or what else :meth:`files` names.
            folder: where to; made if need be.

        Raises:
            ConfigError: no such kind.
        """
        name, content = self._file(kind)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
        return folder / name

    def _file(self, kind: str) -> tuple[str, bytes]:
        files = self.files()
        if kind not in files:
            raise ConfigError(f"{self.function} writes {', '.join(files)}; got {kind!r}")
        return files[kind]()

    def keep(self, name: str = "") -> None:
        """Keep what is shown, with its picture, to come back to."""
        words, picture = self.scene_words(), self.still()
        small = resize_smooth(picture, (max(1, round(picture.shape[0] * THUMBNAIL / picture.shape[1])), THUMBNAIL))
        self.shelf.keep(name, words, to_png(small))

    def present(self, is_on: bool = True):
        """For the projector: larger type, two panels at most, no code; arrow keys step through the kept scenes."""
        if self.toolbar is None:
            raise ConfigError("a part of another explorer cannot be presented on its own; present the whole")
        self.toolbar.present = is_on
        chosen = list(self.projected())[:PROJECTED]
        for panel in self.panels() if chosen else ():
            (panel.add_class if is_on and panel not in chosen else panel.remove_class)("mask3d-not-presented")
        return self

    # ---- the toolbar -------------------------------------------------------------------------------------------------

    def _make_toolbar(self) -> Toolbar:
        self.toolbar = Toolbar(kinds=list(self.files()))
        self.toolbar.observe(lambda change: self._asked(change["new"]), "request")
        return self.toolbar

    def _asked(self, request: dict[str, Any]) -> None:
        """A button of the toolbar was pressed."""
        what, shelf = request.get("what"), self.shelf
        try:
            if what == "file":
                self.toolbar.offer(*self._file(request["kind"]))
            elif what == "keep":
                self.keep()
            elif what == "show":
                shelf.show_scene(int(request["scene"]))
            elif what == "forget":
                shelf.forget(int(request["scene"]))
            elif what in ("next", "previous") and shelf.scenes:
                step = 1 if what == "next" else -1
                at = shelf.scene if shelf.scene >= 0 or step > 0 else len(shelf.scenes)
                shelf.show_scene(min(max(at + step, 0), len(shelf.scenes) - 1))
        except Mask3DError as problem:
            self.say(in_words(problem), warns=True)

    def _follow_toolbar(self, changed: frozenset[str]) -> None:
        """Move the toolbar to a changed state: code, kinds of files, kept pictures, the one that is shown."""
        bar, shelf = self.toolbar, self.shelf
        if "scenes" in changed or len(bar.scenes) != len(shelf.scenes):
            bar.scenes = [{"name": scene.name, "words": scene.words, "picture":
                           f"data:image/png;base64,{base64.b64encode(scene.picture).decode()}" if scene.picture else ""}
                          for scene in shelf.scenes]
        if changed - {"hover"}:
            bar.code, bar.scene = self.code(), shelf.scene
        if changed & {"checkpoint", "compare", "beside"}:
            bar.kinds = list(self.files())
            if bar.present:  # other panels may go to the projector now
                self.present()


def change_call(session: Session) -> str:
    """The line that brings a session from its first state into the one that it has; "" where they are equal."""
    state, start = session.state, SessionState(checkpoint=next(iter(session.checkpoints)))
    changed = {name: getattr(state, name) for name in SessionState.__dataclass_fields__
               if name != "hover" and getattr(state, name) != getattr(start, name)}
    words = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return f"session.change({words})\n" if words else ""


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV with a header, UTF-8; nothing for no rows."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


__all__ = ["PROJECTED", "Tools", "as_csv", "change_call"]
