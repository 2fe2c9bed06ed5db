"""Watch a run while it trains: buttons, progress, curves and a film, over nothing but its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import Mask3DError
from mask3d_core.shipped import shipped
from mask3d_core.training.config import PretrainConfig, from_dict
from mask3d_core.training.log import expected_band, reference_curve
from mask3d_core.training.process import FAILED, STOPPED
from mask3d_viz.curves import figure_image, figure_svg, loss_curve, theme_variables
from mask3d_viz.drawing import blank, contact_sheet, text_block
from mask3d_viz.explorers.base import as_csv
from mask3d_viz.film import FilmMaker, FilmPictures
from mask3d_viz.following import Beat, follow_run
from mask3d_viz.pixels import resize_smooth, to_png
from mask3d_viz.run_status import NOT_STARTED, RunStatus
from mask3d_viz.runs import Run, plan_run
from mask3d_viz.session import Session
from mask3d_viz.widgets.film_strip import NEWEST, FilmStrip
from mask3d_viz.widgets.toolbar import Toolbar, mask3d_map
from mask3d_viz.worker import Worker

EVERY = 1.5  # seconds between two looks
CHART = (6.4, 3.5)  # inches
POINTS = 1500  # in a curve at most
SHIPPED = "tiny/mask3d"  # whose curve ships
SCORED_ON = ("data", "rooms_sensor", "eval_frames", "mask")  # of a run: on which frames, hidden how, it is scored
NAMES = {"abs_rel": "AbsRel over hidden pixels", "rgb_error": "squared error of hidden colour patches"}

SHORT = {"abs_rel": "AbsRel", "abs_rel_of_the_mean": "mean of the visible", "rgb_error": "colour error"}


@dataclass(frozen=True)
class Drawn:
    """What a worker made of a run's folder: charts as SVG, and a film."""

    charts: tuple[str, ...]
    film: FilmPictures | None


class RunPanel(widgets.VBox):
    """A run folder, live: Start, Stop, Resume, progress, loss and error over the steps, a film of fixed frames.

    It only reads the folder, so it shows any run, whoever started it, and finds it again after a reload. It looks every
    1.5 seconds on the kernel's event loop; charts and pictures are made by a worker. :meth:`poll` does one look at once.

    Args:
        run: the run, or its folder.
        session: its explorers follow the run's newest weights while the box is ticked.
        every: seconds between two looks.
    """

    function, here = "watch", "training"

    def __init__(self, run: Run | str | Path, session: Session | None = None, every: float = EVERY):
        super().__init__()
        self.add_class("mask3d-run")
        self.run = run if isinstance(run, Run) else Run(run)
        self.session, self.following = session, None
        self.status = RunStatus(NOT_STARTED)
        self.worker, self.maker = Worker(rest=0.0), FilmMaker()
        self._drawn_of: tuple = ()
        self._error = ""
        self._build()
        self.poll()
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
        self.toolbar = Toolbar(kinds=list(self.files()), can_keep=False, code=self.code())
        self.toolbar.observe(lambda change: self._asked(change["new"]), "request")
        self.children = [mask3d_map(self.here), widgets.HTML(STYLE), self.progress, widgets.Box(controls, layout=row),
                         self.message, self.charts, self.frame, self.film, self.command, self.toolbar]

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
        self.worker.ask(lambda: Drawn(tuple(figure_svg(figure, label) for label, figure in figures(records, config)),
                                      self.maker.make(previews, frame)), self._show_drawn)

    def _show_drawn(self, drawn: Drawn | None, problem: BaseException | None) -> None:
        if problem is not None:
            self._error = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
            return self._show_status()
        self.charts.value = "".join(f"<div class='m3d-chart'>{chart}</div>" for chart in drawn.charts)
        film = drawn.film
        self.frame.layout.display = "none" if film is None or film.count < 2 else ""
        if film is None:
            return self.film.set_film([], [], [])
        with self.film.hold_sync():
            self.film.size, self.film.fixed = film.size, film.fixed
            self.film.titles, self.film.is_changing = list(film.titles), list(film.is_changing)
            if self.film.place >= len(film.steps) - 1:
                self.film.place = NEWEST
            self.film.set_film(film.steps, film.pictures, film.captions)
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
        """What can be taken along: the panel as a picture, the log as a table."""
        name = self.run.folder.name
        return {"PNG": lambda: (f"{name}.png", to_png(self.still())), "CSV": lambda: (f"{name}.csv", as_csv(self.table()))}

    def table(self) -> list[dict[str, Any]]:
        """The log's numbers, a row each step that was logged; empty where it says nothing."""
        rows = [{**{k: v for k, v in record.items() if isinstance(v, (int, float, str))},
                 **{f"eval_{k}": v for k, v in (record.get("eval") or {}).items() if isinstance(v, (int, float))}}
                for record in self.run.log.records]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name, "") for name in names} for row in rows]

    def _asked(self, request: dict[str, Any]) -> None:
        if request.get("what") == "file":
            self.toolbar.offer(*self.files()[request["kind"]]())

    # ---- ways out ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Look no more and take the panel away; the run goes on."""
        self._beat.stop()
        if self._held in self.run.watchers:
            self.run.watchers.remove(self._held)
        if self.following is not None:
            self.following.stop()
        self.worker.close()
        super().close()

    def still(self, theme: str = "light") -> np.ndarray:
        """Status, charts and the film's newest pictures, uint8 (H, W, 3)."""
        width = 1200
        parts = [text_block(f"{self.run.folder.name}  ·  {self.status.words()}", width, 18, bold=True, theme=theme)]
        charts = [figure_image(figure) for _, figure in figures(self.run.log.records, self.run.config, theme)]
        if charts:
            half = width // 2
            charts = [resize_smooth(c, (round(c.shape[0] * half / c.shape[1]), half)) for c in charts]
            parts.append(_beside(charts, width, theme))
        if self.film.steps:
            newest = range(len(self.film.steps))[self.film.place]
            parts.append(_film_sheet(self.film, sorted({0, newest // 2, newest}), width, theme))
            parts.append(text_block(self.film.captions[newest], width, 16, theme=theme))
        return np.concatenate(parts)

    def code(self) -> str:
        """The call that brings the panel back."""
        return f"watch({str(self.run.folder)!r}{', session' if self.session is not None else ''})"

    def __repr__(self) -> str:
        return f"RunPanel: {self.run.folder.name}, {self.status.words()}"

    def _repr_mimebundle_(self, **kwargs: Any):
        """The live panel, a picture for where no kernel is, and a line of text."""
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(to_png(self.still())).decode()}
        return (data, found[1]) if isinstance(found, tuple) else data


def _film_sheet(film: FilmStrip, places: list[int], width: int, theme: str) -> np.ndarray:
    """What stays on the left, what changes at a few steps beside it."""
    tiles = [film.tiles(place) for place in places]
    moving = [title for title, is_moving in zip(film.titles, film.is_changing) if is_moving]
    still = [title for title in film.titles if title not in moving]
    columns, images, captions = 1 + len(places), [], []
    for row, title in enumerate(moving):
        beside = still[0] if row == 0 else still[-1]
        images += [tiles[-1][beside], *(t[title] for t in tiles)]
        captions += [beside, *(f"{title.partition(':')[0]}, step {film.steps[place]}" for place in places)]
    sheet = contact_sheet(images, captions, columns, cell_width=(width - 12 * (columns + 1)) // columns, theme=theme)
    return _beside([sheet], width, theme)


def _beside(pictures: list[np.ndarray], width: int, theme: str) -> np.ndarray:
    """Pictures side by side on the theme's paper."""
    sheet, left = blank((max(p.shape[0] for p in pictures), width), theme), 0
    for picture in pictures:
        sheet[:picture.shape[0], left:left + picture.shape[1]] = picture[:, :width - left]
        left += picture.shape[1]
    return sheet


def figures(records: list[dict[str, Any]], config: Any, theme: str = "light") -> list[tuple[str, Any]]:
    """(what it shows, matplotlib figure) of a run's log: the loss, and the error on held-out frames beside opponents.

    Args:
        records: of the log.
        config: the run's, or None.
        theme: "light" or "dark".
    """
    found = []
    losses = [r for r in records if "loss" in r]
    losses = losses[::max(1, len(losses) // POINTS)]
    last = max((r["step"] for r in records), default=0)
    if losses:
        curve = reference_curve(config.name) if config is not None else []
        band = expected_band([r for r in curve if r["step"] <= max(last, losses[0]["step"])])
        found.append(("Training loss over the steps", loss_curve(losses, {"loss": "this run"}, band=band, theme=theme,
                                                                 title="Training loss", size=CHART)))
    scores = [{"step": r["step"], **r["eval"]} for r in records if isinstance(r.get("eval"), dict)]
    key = next((name for name in NAMES if any(name in s for s in scores)), "")
    if key:
        lines, means = {}, [s["abs_rel_of_the_mean"] for s in scores if "abs_rel_of_the_mean" in s]
        if key == "abs_rel" and means:
            lines["mean of the visible"] = float(np.mean(means))
        shipped = _shipped_end(config) if key == "abs_rel" else None
        if shipped:
            lines[f"shipped, step {shipped[0]}"] = shipped[1]
        rows = [s for s in scores if key in s]
        found.append((f"{NAMES[key]} on held-out frames, over the steps",
                      loss_curve(rows, {key: "this run"}, opponents=lines, y_label=NAMES[key], theme=theme, size=CHART,
                                 log_scale=key == "abs_rel", title="Frames that it never trains on")))
    return found


@lru_cache(maxsize=1)
def _shipped_config() -> PretrainConfig | None:
    """What the shipped checkpoint was trained with; None where it is not there."""
    path = shipped("data", "checkpoints", "tiny.json")
    return from_dict(PretrainConfig, json.loads(path.read_text())["training"], str(path)) if path.is_file() else None


def _shipped_end(config: PretrainConfig | None) -> tuple[int, float] | None:
    """(step, AbsRel) where the shipped run ended, for runs that are scored on its very frames, at its size and ratios."""
    other = _shipped_config()
    if config is None or other is None or config.model.image_size != other.model.image_size or any(
            getattr(config, name) != getattr(other, name) for name in SCORED_ON):
        return None
    scores = [(r["step"], r["eval"]["abs_rel"]) for r in reference_curve(SHIPPED) if "abs_rel" in r.get("eval", {})]
    return scores[-1] if scores else None


def progress_html(name: str, status: RunStatus) -> str:
    """The run's name, its state and a bar, for sighted readers and screen readers alike."""
    share = min(1.0, status.step / status.total) if status.total else 0.0
    metrics = ", ".join(f"{SHORT[k]} {v:.3f}" for k, v in status.metrics.items() if k in SHORT)
    detail = status.words().partition(": ")[2] + (f" · {metrics}" if metrics else "")
    return (f"<div class='m3d-head'><b>{escape(name)}</b> <span class='m3d-state m3d-{escape(status.state.replace(' ', '-'))}'>"
            f"{escape(status.state)}</span> <span>{escape(detail)}</span></div>"
            f"<div class='m3d-bar' role='progressbar' aria-label='steps done' aria-valuemin='0' aria-valuemax='100' "
            f"aria-valuenow='{100 * share:.0f}' aria-valuetext='{escape(detail)}'><i style='width:{100 * share:.2f}%'></i></div>")


STYLE = "<style>" + theme_variables(".mask3d-run") + """
.mask3d-run { color: var(--jp-ui-font-color1, inherit); font-size: 13px; font-variant-numeric: tabular-nums; }
.mask3d-run .widget-html-content { line-height: 1.45; width: 100%; }
.mask3d-run .m3d-head { font-size: 14px; display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; }
.mask3d-run .m3d-state { padding: 0 9px; border-radius: 9px; font-size: 12px; line-height: 19px; font-weight: 600;
  border: 1px solid currentColor; color: var(--m3d-muted); }
.mask3d-run .m3d-running, .mask3d-run .m3d-starting { color: var(--m3d-accent); }
.mask3d-run .m3d-finished { color: var(--m3d-best); }
.mask3d-run .m3d-failed { color: var(--jp-error-color1, #b00020); }
.jupyter-widgets-disconnected .m3d-head::after { content: "kernel gone - run the cell again"; font-weight: 600; }
.mask3d-run .jupyter-button.jupyter-widgets-disconnected { opacity: 0.4; pointer-events: none; }
.mask3d-run .m3d-bar { height: 8px; border-radius: 4px; margin: 4px 0 2px; background: var(--m3d-line); overflow: hidden; }
.mask3d-run .m3d-bar i { display: block; height: 100%; background: var(--m3d-accent); }
.mask3d-run .m3d-warns { color: var(--jp-error-color1, #b00020); }
.mask3d-run .m3d-says { color: var(--m3d-muted); }
.mask3d-run .m3d-chart { display: inline-block; vertical-align: top; width: min(100%, 500px); margin-right: 14px; }
.mask3d-run .m3d-command pre { margin: 4px 0; padding: 8px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px;
  user-select: all; color: inherit; background: color-mix(in srgb, currentColor 7%, transparent); border-radius: 4px; }
</style>"""


_live: WeakValueDictionary[tuple[Path, str], RunPanel] = WeakValueDictionary()  # by run folder and cell


def _cell() -> str | None:
    """The notebook's cell that is running, or None outside of one."""
    from IPython import get_ipython

    parent = getattr(get_ipython(), "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId")


def watch(run: Run | str | Path, session: Session | None = None, every: float = EVERY, **options: Any) -> RunPanel:
    """A live panel over a run folder, whoever trains into it; see :class:`RunPanel`.

    A cell that is run again replaces its panel: the one before looks no more.

    Args:
        run: a run, or its folder; it need not be there yet.
        session: its explorers follow the run.
        every: seconds between two looks.
        options: what Start would train (frames, preset, steps, changes ..., see :func:`mask3d_viz.runs.plan_run`); without
            them, what the folder's ``config.json`` says.
    """
    if options and not isinstance(run, Run):
        run = plan_run(run, **options)
    run, cell = run if isinstance(run, Run) else Run(run), _cell()
    if cell is None:
        return RunPanel(run, session, every)
    before = _live.get((run.folder.resolve(), cell))
    if before is not None:
        before.close()
    _live[run.folder.resolve(), cell] = panel = RunPanel(run, session, every)
    return panel


__all__ = ["RunPanel", "figures", "watch"]
