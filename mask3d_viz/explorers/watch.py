"""Watch a run while it trains: buttons, progress, curves and a film, over nothing but its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.process import FAILED, STOPPED
from mask3d_viz.curves import figure_image, figure_svg
from mask3d_viz.drawing import blank, paste, text_block
from mask3d_viz.explorers.base import running_cell
from mask3d_viz.explorers.moments import Moments
from mask3d_viz.explorers.tools import Tools, as_csv, change_call
from mask3d_viz.explorers.watch_html import STYLE, progress_html
from mask3d_viz.film import FilmMaker, FilmPictures
from mask3d_viz.finetuning_film import FinetuningFilm, class_names_of
from mask3d_viz.following import Beat, follow_run
from mask3d_viz.pixels import resize_smooth, to_png
from mask3d_viz.run_charts import beside_each_other, figures, film_sheet
from mask3d_viz.run_opponents import FixedScorer, FixedScores
from mask3d_viz.run_status import NOT_STARTED, RunStatus
from mask3d_viz.runs import Run, plan_run
from mask3d_viz.session import Session, SessionState
from mask3d_viz.widgets.film_strip import NEWEST, FilmStrip
from mask3d_viz.widgets.toolbar import mask3d_map
from mask3d_viz.worker import Worker

EVERY = 1.5  # seconds between two looks


@dataclass(frozen=True)
class Drawn:
    """What a worker made of a run's folder: charts as SVG, a film, and the scores on its frames."""

    charts: tuple[str, ...]
    film: FilmPictures | None
    fixed: FixedScores | None


class RunPanel(Tools, widgets.VBox):
    """A run folder, live: Start, Stop, Resume, progress, loss and error over the steps, a film of fixed frames.

    It only reads the folder, so it shows any run, whoever started it, and finds it again after a reload. It looks every
    1.5 seconds on the kernel's event loop; charts and pictures are made by a worker. :meth:`poll` does one look at once.
    Kept pictures are scenes of the session; without one, places in the film.

    Args:
        run: the run, or its folder.
        session: its explorers follow the run's newest weights while the box is ticked.
        every: seconds between two looks.
    """

    function, here, needs_prediction, picker = "watch", "training", False, None

    def __init__(self, run: Run | str | Path, session: Session | None = None, every: float = EVERY):
        super().__init__()
        self.add_class("mask3d-run")
        self.add_class("mask3d-explorer")
        self.run = run if isinstance(run, Run) else Run(run)
        self.session, self.following = session, None
        self.status = RunStatus(NOT_STARTED)
        self.worker, self.maker, self.scorer = Worker(rest=0.0), FilmMaker(), FixedScorer()
        self.finetuning_maker = FinetuningFilm(lambda: class_names_of(self.run.folder))
        self.fixed: FixedScores | None = None
        self._moments = Moments(self._here, self._go, lambda: self._follow_toolbar(frozenset({"scenes"})))
        self._drawn_of: tuple = ()
        self._error = ""
        self._build()
        self.poll()
        self._follow_toolbar(frozenset(SessionState.__dataclass_fields__))
        self._ends = [] if session is None else [session.on(self._follow_toolbar)]
        self._beat = Beat(self._look, every)
        self.run.watchers.append(self._held)

    # ---- widgets -----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        def button(name: str, icon: str, tip: str, action) -> widgets.Button:
            made = widgets.Button(description=name, icon=icon, tooltip=tip, disabled=True,
                                  layout=widgets.Layout(width="auto"))
            made.on_click(lambda _: self._do(action))
            return made

        self.start_button = button("Start", "play", "train in a process of its own, at low priority", self.run.start)
        self.stop_button = button("Stop", "stop", "finish the step, save and end; Resume goes on from there", self.run.stop)
        self.resume_button = button("Resume", "forward", "the same command again: it goes on from the last save",
                                    self.run.start)
        self.follows = widgets.Checkbox(description="explorers show this run's newest weights", indent=False,
                                        value=self.session is not None, layout=widgets.Layout(width="auto"))
        self.follows.observe(lambda _: self._follow(), "value")
        self.frame = widgets.Dropdown(options=[("fixed frame 1", 0)], tooltip="which of the frames that the run predicts at "
                                      "every evaluation", layout=widgets.Layout(width="160px", display="none"))
        self.frame.observe(lambda _: self._draw(), "value")
        self.progress, self.command = widgets.HTML(), widgets.HTML()
        self.message = widgets.HTML(layout=widgets.Layout(margin="0"))
        self.charts = widgets.HTML(layout=widgets.Layout(width="100%"))
        self.film = FilmStrip(label=f"Film of {self.run.folder.name}")
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="6px", align_items="center")
        controls = [self.start_button, self.stop_button, self.resume_button,
                    *([self.follows] if self.session is not None else [])]
        for changing in (self.film, self.frame):  # another place is another moment
            changing.observe(lambda _: self._follow_toolbar(frozenset({"place"})), "place" if changing is self.film else "value")
        self.film_panel = widgets.VBox([self.frame, self.film])
        self.children = [mask3d_map(self.here), widgets.HTML(STYLE), self.progress, widgets.Box(controls, layout=row),
                         self.message, self.charts, self.film_panel, self.command, self._make_toolbar()]

    def say(self, text: str, warns: bool = False) -> None:
        """One line in the panel; "" takes it away."""
        role, name = ("alert", "m3d-warns") if warns else ("status", "m3d-says")
        self.message.value = f'<div role="{role}" class="{name}">{escape(text)}</div>' if text else ""

    def _do(self, action) -> None:
        """A button was pressed; what cannot be is said in the panel."""
        self._error = ""
        try:
            action()
        except (Mask3DError, OSError) as problem:
            self._error = str(problem)
        self._look()

    def _follow(self) -> None:
        """Let the session's explorers follow the run, or no more."""
        if self.session is None or self.follows.value == (self.following is not None):
            return
        if self.following is not None:
            self.following.stop()
            self.following = None
            return
        try:
            self.following = follow_run(self.session, self.run)
            self.following.on(self._show_status)
        except Mask3DError as problem:
            self._error, self.follows.value = str(problem), False

    # ---- looking -----------------------------------------------------------------------------------------------------

    def poll(self, timeout: float = 60.0) -> RunStatus:
        """One look, with charts and pictures waited for."""
        self._look()
        self.worker.wait(timeout)
        self._draw()  # what came while the worker was still at the last ones
        self.worker.wait(timeout)
        return self.status

    def _held(self) -> None:
        """A look while a cell holds the kernel: the worker's results are taken here, none is waited for."""
        self._look()
        self.worker.wait(0.0)

    def _look(self) -> None:
        self.status = self.run.look()
        if self.follows.value and self.following is None:
            self._follow()
        self._show_status()
        self._draw()

    def _draw(self) -> None:
        """Ask for charts and film where something is new and the last ones are done."""
        of = (self.run.log.version, tuple(path.name for _, path in self.run.previews()), self.frame.value)
        if of == self._drawn_of or self.worker.is_busy:
            return
        self._drawn_of = of
        records, previews, frame = list(self.run.log.records), self.run.previews(), self.frame.value
        config = self.run.config

        def draw() -> Drawn:
            fixed = self.scorer.score(previews)
            charts = tuple(figure_svg(figure, label) for label, figure in figures(records, config, fixed=fixed))
            maker = self.finetuning_maker if isinstance(config, FinetuneConfig) else self.maker
            return Drawn(charts, maker.make(previews, frame), fixed)

        self.worker.ask(draw, self._show_drawn)

    def _show_drawn(self, drawn: Drawn | None, problem: BaseException | None) -> None:
        if problem is not None:
            self._error = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
            return self._show_status()
        self.charts.value = "".join(f"<div class='m3d-chart'>{chart}</div>" for chart in drawn.charts)
        film, self.fixed = drawn.film, drawn.fixed
        self.frame.layout.display = "none" if film is None or film.count < 2 else ""
        if film is None:
            return self.film.set_film([], [], [])
        self.film.take(film)
        if len(self.frame.options) != film.count:
            self.frame.options = [(f"fixed frame {i + 1}", i) for i in range(film.count)]

    def _show_status(self) -> None:
        status = self.status
        has_config = self.run.config is not None
        self.start_button.disabled = not (status.can_start and has_config and not status.step)
        self.resume_button.disabled = not (status.can_start and has_config and status.step)
        self.stop_button.disabled = not status.can_stop
        self.progress.value = progress_html(str(self.run.folder), status)
        command, is_open = self.run.command(), " open" if status.state == NOT_STARTED else ""
        text = (f"<details class='m3d-command'{is_open}><summary>the command that trains this</summary><pre>{escape(command)}</pre>"
                "</details>" if command else "")
        if self.command.value != text:  # an open one stays open
            self.command.value = text
        problem = self._error or (self.following.error if self.following is not None else "")
        saved = "Saved: Resume goes on from here." if status.state == STOPPED and status.step else ""
        self.say(problem or status.reason or saved, warns=bool(problem) or status.state == FAILED)

    # ---- taking along ------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """What can be taken along: the panel as a picture, the log as a table, the session where there is one."""
        name, session = self.run.folder.name, self.session
        found = {"PNG": lambda: (f"{name}.png", to_png(self.still())), "CSV": lambda: (f"{name}.csv", as_csv(self.table()))}
        if session is not None:
            found["JSON"] = lambda: ("session.json", json.dumps(session.as_json(), indent=1).encode())
        return found

    def table(self) -> list[dict[str, Any]]:
        """The log's numbers, a row each step that was logged; empty where it says nothing."""
        rows = [{**{k: v for k, v in record.items() if isinstance(v, (int, float, str))},
                 **{f"eval_{k}": v for k, v in (record.get("eval") or {}).items() if isinstance(v, (int, float))}}
                for record in self.run.log.records]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name, "") for name in names} for row in rows]

    # ---- keeping, projecting -----------------------------------------------------------------------------------------

    @property
    def shelf(self) -> Session | Moments:
        """Scenes of the session; without one, places in the film."""
        return self._moments if self.session is None else self.session

    def scene_words(self) -> str:
        """How the run stands."""
        return self.status.words()

    def _here(self) -> tuple[int, int]:
        """Which fixed frame is shown, and at which step of the film; -1: the newest."""
        is_newest = self.film.place == NEWEST or self.film.place >= len(self.film.steps)
        return self.frame.value, -1 if is_newest else self.film.steps[self.film.place]

    def _go(self, here: tuple[int, int]) -> None:
        """To a fixed frame and a step of the film; the nearest where that step is thinned out by now."""
        frame, step = here
        if frame in [value for _, value in self.frame.options]:
            self.frame.value = frame
        steps = list(self.film.steps)
        self.film.place = NEWEST if step < 0 or not steps else min(range(len(steps)), key=lambda k: abs(steps[k] - step))
        self._follow_toolbar(frozenset({"place"}))

    def panels(self) -> Sequence[widgets.Widget]:
        """The charts, the film, and the command."""
        return (self.charts, self.film_panel, self.command)

    def projected(self) -> Sequence[widgets.Widget]:
        """The charts and the film."""
        return (self.charts, self.film_panel)

    # ---- ways out ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Look no more and take the panel away; the run goes on."""
        self._beat.stop()
        for end in self._ends:
            end()
        if self._held in self.run.watchers:
            self.run.watchers.remove(self._held)
        if self.following is not None:
            self.following.stop()
        self.worker.close()
        self.toolbar.close()
        super().close()

    def still(self, theme: str = "light") -> np.ndarray:
        """Status, charts and the film's newest pictures, uint8 (H, W, 3)."""
        width = 1200
        parts = [_line(f"{self.run.folder.name}  ·  {self.status.words()}", width, 18, theme, bold=True)]
        charts = [figure_image(figure) for _, figure in figures(self.run.log.records, self.run.config, theme, self.fixed)]
        if charts:
            half = width // 2
            charts = [resize_smooth(c, (round(c.shape[0] * half / c.shape[1]), half)) for c in charts]
            parts.append(beside_each_other(charts, width, theme))
        if self.film.steps:
            newest = range(len(self.film.steps))[self.film.place]
            parts.append(film_sheet(self.film, sorted({0, newest // 2, newest}), width, theme))
            parts.append(_line(self.film.captions[newest], width, 16, theme))
        return np.concatenate(parts)

    def code(self) -> str:
        """The call that brings the panel back, and the session's state."""
        start = "" if self.session is None else change_call(self.session)
        return f"{start}watch({str(self.run.folder)!r}{', session' if self.session is not None else ''})"

    def __repr__(self) -> str:
        return f"RunPanel: {self.run.folder.name}, {self.status.words()}"

    def _repr_mimebundle_(self, **kwargs: Any):
        """The live panel, a picture for where no kernel is, and a line of text."""
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(to_png(self.still())).decode()}
        return (data, found[1]) if isinstance(found, tuple) else data


def _line(text: str, width: int, size: int, theme: str, **options: Any) -> np.ndarray:
    """Words with some paper around them."""
    words = text_block(text, width - 24, size, theme=theme, **options)
    sheet = blank((words.shape[0] + 14, width), theme)
    paste(sheet, words, 6, 12)
    return sheet


_live: WeakValueDictionary[tuple[Path, str], RunPanel] = WeakValueDictionary()  # by run folder and cell


def watch(run: Run | str | Path, session: Session | None = None, every: float = EVERY, present: bool = False,
          **options: Any) -> RunPanel:
    """A live panel over a run folder, whoever trains into it; see :class:`RunPanel`.

    A cell that is run again replaces its panel: the one before looks no more.

    Args:
        run: a run, or its folder; it need not be there yet.
        session: its explorers follow the run.
        every: seconds between two looks.
        present: for the projector.
        options: what Start would train (frames, preset, steps, changes ..., see :func:`mask3d_viz.runs.plan_run`); without
            them, what the folder's ``config.json`` says.
    """
    if options and not isinstance(run, Run):
        run = plan_run(run, **options)
    run, cell = run if isinstance(run, Run) else Run(run), running_cell()
    if not cell:
        panel = RunPanel(run, session, every)
        return panel.present() if present else panel
    before = _live.get((run.folder.resolve(), cell))
    if before is not None:
        before.close()
    _live[run.folder.resolve(), cell] = panel = RunPanel(run, session, every)
    return panel.present() if present else panel


__all__ = ["RunPanel", "figures", "watch"]
