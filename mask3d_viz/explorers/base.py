"""What every explorer is: widgets over a session, a toolbar, a still for where no kernel is, the code that brings it back."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_viz.explorers.checkpoints import CheckpointPicker
from mask3d_viz.explorers.comparison import Compared, Comparison, comparison_of
from mask3d_viz.explorers.studio import in_words, studio_of
from mask3d_viz.explorers.tools import Tools, as_csv, change_call
from mask3d_viz.pixels import to_png
from mask3d_viz.session import Session, SessionState
from mask3d_viz.widgets.toolbar import mask3d_map

CALL = "session"  # how an explorer is called in copied code
STILL_WIDTH = 1200  # pixels of a picture for where no kernel is

_is_part: ContextVar[bool] = ContextVar("is_part", default=False)


class Explorer(Tools, widgets.VBox):
    """A live view of a session.

    Subclasses fill :attr:`children` and implement :meth:`follow` (the state changed), :meth:`show` (a prediction came,
    or went stale) and :meth:`still`; more than the defaults is offered by :meth:`table`, :meth:`files` and
    :meth:`projected`.

    Args:
        session: what it shows and changes.
    """

    function = "explore"  # the call that makes it
    needs_prediction = True  # False: it works with a model that predicts no depth
    compares = False  # whether it shows checkpoint B beside A
    nothing_beside, has_twin = "nothing", False  # what no B means, and whether that is a choice of its own
    here = ""  # the part of the architecture that it is about, see mask3d_viz.model_map.PARTS
    says_why = True  # False: another part of the same view says why nothing can be shown

    def __init__(self, session: Session):
        super().__init__()
        self.add_class("mask3d-explorer")
        self.session, self.studio = session, studio_of(session)
        self.message = widgets.HTML(layout=widgets.Layout(margin="0"))
        self.picker: CheckpointPicker | None = None
        self._said_of_second = ""
        self._moved_by = threading.local()
        self._ends: list[Callable[[], None]] = []
        self._is_part = _is_part.get()

    @staticmethod
    @contextmanager
    def parts():
        """Explorers made inside are parts of another one: they have no toolbar and no map of their own."""
        token = _is_part.set(True)
        try:
            yield
        finally:
            _is_part.reset(token)

    def begin(self) -> None:
        """Call at the end of ``__init__``: show what is there and listen from now on."""
        if self.needs_prediction:
            try:
                self.studio.now()
            except Mask3DError as problem:
                self.studio.error = in_words(problem)
        if not self._is_part:
            self._add_toolbar()
        self._follow(frozenset(SessionState.__dataclass_fields__))
        self._show()
        if not self._is_part:
            self._succeed()
        self._ends = [self.session.on(self._follow), self.studio.on(self._show), self.studio.on_judged(self._judge)]
        if self.compares and self.needs_prediction:
            self._ends.append(self.comparison.on(self._show_second))
            self._show_second()

    def close(self) -> None:
        """Listen no more and take the view away."""
        for end in self._ends:
            end()
        self._ends = []
        if self.toolbar is not None:
            self.toolbar.close()
            self.picker.close()
        super().close()

    def _succeed(self) -> None:
        """Close the view that an earlier run of the same cell has left: ipywidgets keeps every widget for ever."""
        cell = running_cell()
        if cell:
            views = self.session.views
            before = views.get((cell, self.function))
            views[cell, self.function] = self
            if before is not None:
                before.close()

    # ---- the reader's hand and the session --------------------------------------------------------------------------

    @property
    def is_following(self) -> bool:
        """True while the explorer itself moves its widgets, on this thread: what they say then is no reader's wish."""
        return getattr(self._moved_by, "explorer", False)

    @contextmanager
    def following(self):
        """Move own widgets without taking that for the reader's hand."""
        before, self._moved_by.explorer = self.is_following, True
        try:
            yield
        finally:
            self._moved_by.explorer = before

    def wish(self, gesture: str = "", **values: Any) -> None:
        """Change the session as the reader asked; what cannot be is said in the panel."""
        if self.is_following:
            return
        try:
            self.session.change(gesture, **values)
        except Mask3DError as problem:
            self.say(in_words(problem), warns=True)
            self._follow(frozenset(values))

    def say(self, text: str, warns: bool = False) -> None:
        """One line in the panel; "" takes it away."""
        role, color = ("alert", "var(--jp-error-color1, #b00020)") if warns else ("status", "inherit")
        self.message.value = f'<div role="{role}" style="font-size:13px;color:{color}">{escape(text)}</div>' if text else ""

    def _follow(self, changed: frozenset[str]) -> None:
        with self.following():
            self.follow(changed)
            if self.toolbar is not None:
                if changed & {"checkpoint", "compare"}:
                    self.picker.follow()
                self._follow_toolbar(changed)

    def _show(self) -> None:
        with self.following():
            if self.needs_prediction:
                self._said_of_second = "" if self.studio.error else self.second_problem()
                self.say((self.studio.error or self._said_of_second) if self.says_why else "", warns=True)
                self._dim(self.studio.is_stale or bool(self.studio.error))
            self.show()

    def _show_second(self) -> None:
        with self.following():
            problem = self.second_problem()
            if self.says_why and not self.studio.error and problem != self._said_of_second:  # else another line stands there
                self._said_of_second = problem
                self.say(problem, warns=True)
            self.show_second()

    @property
    def cannot_show(self) -> bool:
        """Nothing of the state as it is can be shown, and nothing newer is on its way: ``studio.error`` says why."""
        return bool(self.studio.error) and not self.studio.is_stale

    @property
    def predicts_depth(self) -> bool:
        """Whether the checkpoint that is shown has a depth to show."""
        return "depth" in self.session.model()[0].config.targets

    @property
    def comparison(self) -> Comparison:
        """Checkpoint B beside what is shown."""
        return comparison_of(self.studio)

    def compared(self) -> Compared | None:
        """B beside the prediction of the state as it is, waited for; None without a B, or with one that predicts no depth."""
        try:
            return self.comparison.newest() if self.compares and self.needs_prediction else None
        except Mask3DError:  # the panel says why
            return None

    def evidence_texts(self) -> Sequence[widgets.Widget]:
        """Words and tables about the shown prediction; dimmed with it while a newer one is on its way."""
        return ()

    def _dim(self, is_old: bool) -> None:
        for text in self.evidence_texts():
            (text.add_class if is_old else text.remove_class)("mask3d-stale")

    def _judge(self) -> None:
        with self.following():
            self.judged()

    # ---- what a subclass says ---------------------------------------------------------------------------------------

    def follow(self, changed: frozenset[str]) -> None:
        """The state's ``changed`` values are new."""

    def show(self) -> None:
        """``studio.shown`` is new, or ``studio.is_stale`` is."""

    def show_second(self) -> None:
        """``comparison.shown`` is new, or ``comparison.is_stale`` is."""

    def second_problem(self) -> str:
        """Why B is not shown, in a line; "" where it is, or is no matter of this view."""
        return ""

    def judged(self) -> None:
        """``studio.shown`` got its opponents, a moment after :meth:`show`."""

    def still(self, theme: str = "light") -> np.ndarray:
        """What is shown, as uint8 (H, W, 3), without a browser."""
        raise NotImplementedError

    def table(self) -> list[dict[str, Any]]:
        """What is shown as rows of a table: each patch of the newest prediction.

        row and column count from 1; truth, prediction and error are means over the patch's measured pixels, empty where
        there is none (the prediction's mean is then over all of its pixels). With a B beside it, its two columns too.
        """
        shown, compared = self.studio.newest(), self.compared()
        r, values = shown.reconstruction, shown.patch_values()
        other = None if compared is None else compared.second.patch_values()
        rows = []
        for (row, column), truth in np.ndenumerate(values["truth"]):
            error = values["error"][row, column]
            rows.append({"row": row + 1, "column": column + 1, "rgb": "hidden" if r.is_masked_rgb[row, column] else "seen",
                         "depth": ("never measured" if np.isnan(truth) else
                                   "hidden" if r.is_masked_depth[row, column] else "seen"),
                         "truth_m": _number(truth), "prediction_m": _number(values["prediction"][row, column]),
                         "error_cm": _number(100 * error, 2)})
            if other is not None:
                rows[-1] |= {"prediction_b_m": _number(other["prediction"][row, column]),
                             "error_b_cm": _number(100 * other["error"][row, column], 2)}
        return rows

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """What can be taken along: kind to a function that makes (name, bytes)."""
        return {"PNG": lambda: (f"{self.function}.png", to_png(self._still_of_now())),
                "CSV": lambda: (f"{self.function}.csv", as_csv(self.table())),
                "JSON": lambda: ("session.json", json.dumps(self.session.as_json(), indent=1).encode())}

    def _still_of_now(self) -> np.ndarray:
        if self.needs_prediction:
            self.studio.newest()
        return self.still()

    @property
    def shelf(self) -> Session:
        """Kept pictures are scenes of the session."""
        return self.session

    def scene_words(self) -> str:
        """What is visible, and the newest prediction's score; B's beside it."""
        scores = self.studio.newest().reconstruction.scores if self.needs_prediction else {}
        compared = self.compared()
        words = f"{self.session.words()}; AbsRel {scores['abs_rel']:.3f}" if scores else self.session.words()
        return f"{words}, B: {compared.scores['abs_rel']:.3f}" if compared is not None and compared.scores else words

    def _add_toolbar(self) -> None:
        head = [mask3d_map(self.here)] if self.here else []
        self.picker = CheckpointPicker(self, self.compares, self.nothing_beside, self.has_twin)
        self.children = [*head, self.picker, *self.children, self._make_toolbar()]

    def code(self) -> str:
        """The call that brings back what is on the screen."""
        return f"{change_call(self.session)}{self.function}({CALL})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}: frame {self.session.state.frame}, {self.session.words()}"

    def _repr_mimebundle_(self, **kwargs: Any):
        """The live view, a picture for where no kernel is, and a line of text."""
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        data = {**data, "text/plain": repr(self)}
        if self.studio.shown is not None or not self.needs_prediction:
            with suppress(Mask3DError):  # nothing can be shown; the live view says why
                data["image/png"] = base64.b64encode(to_png(self.still())).decode()
        return (data, found[1]) if isinstance(found, tuple) else data


def opened(explorer: Explorer, present: bool = False) -> Explorer:
    """What the ``explore_...`` functions return: the explorer, for the projector if so asked."""
    return explorer.present() if present else explorer


def running_cell() -> str:
    """The id of the notebook's cell that runs now; "" where that is not known."""
    try:
        from IPython import get_ipython

        return str(get_ipython().get_parent().get("metadata", {}).get("cellId") or "")
    except (ImportError, AttributeError):
        return ""


def _number(value: float, digits: int = 4) -> float | str:
    return "" if np.isnan(value) else round(float(value), digits)


__all__ = ["CALL", "STILL_WIDTH", "Explorer", "as_csv", "opened"]
