"""Fine-tuning, live: a pre-flight that must be green, Start, Stop, Resume, and a start beside a random one on the same labels."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.doctor.report import Finding
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.trivial import TrivialAnswer, validation_trivial
from mask3d_core.store import read_header
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.preflight import preflight
from mask3d_core.training.process import FINISHED
from mask3d_viz.curves import figure_svg
from mask3d_viz.explorers.finetuning_html import STYLE, checks_html, legend_html, scores_html
from mask3d_viz.explorers.finetuning_still import still_of
from mask3d_viz.explorers.moments import Moments
from mask3d_viz.explorers.tools import Tools, as_csv
from mask3d_viz.explorers.watch_html import progress_html
from mask3d_viz.film import FilmPictures
from mask3d_viz.finetuning_charts import finetuning_figures
from mask3d_viz.finetuning_checks import merged, other_run, side_by_side
from mask3d_viz.finetuning_film import ANSWER, MISTAKES, FinetuningFilm, class_names_of
from mask3d_viz.finetuning_scores import FinalScores, final_scores, read_scores
from mask3d_viz.following import Beat
from mask3d_viz.pixels import to_png
from mask3d_viz.run_status import RunStatus
from mask3d_viz.runs import Run
from mask3d_viz.widgets.film_strip import NEWEST, FilmStrip
from mask3d_viz.widgets.toolbar import mask3d_map
from mask3d_viz.worker import Worker

EVERY = 1.5  # seconds between two looks


@dataclass(frozen=True)
class Drawn:
    """What a worker made of the run folders."""

    charts: tuple[str, ...]
    film: FilmPictures | None
    legend: str


class FinetuningPanel(Tools, widgets.VBox):
    """Fine-tuning runs side by side: pre-flight, buttons, progress, loss and score, a film of fixed frames, the final table.

    One button trains all of them at the same time, on the same labels in the same order, each in a process of its own at low
    priority; on a CPU they share the cores. Everything is read from the run folders, so the panel finds its runs again after a
    reload. :meth:`poll` does one look at once; :meth:`check` makes the pre-flight.

    Args:
        runs: name to run, as ``plan_finetuning`` gives them.
        call: the call that makes the panel, for the toolbar.
        every: seconds between two looks.
    """

    function, here, needs_prediction, picker = "explore_finetuning", "rgb encoder", False, None

    def __init__(self, runs: dict[str, Run], call: str = "", every: float = EVERY):
        super().__init__()
        self.add_class("mask3d-run")
        self.add_class("mask3d-explorer")
        self.runs, self._call = runs, call
        self.config: FinetuneConfig = next(iter(runs.values()))._config  # what was planned; a folder may hold another run
        self._planned = {name: run._config for name, run in runs.items()}
        self.statuses: dict[str, RunStatus] = {}
        self.findings: list[Finding] | None = None
        self.trivial: TrivialAnswer | None = None
        self.final: FinalScores | None = None
        self.worker, self.checker = Worker(rest=0.0), Worker(rest=0.0)
        self.maker = FinetuningFilm(self.class_names)
        self._moments = Moments(self._here, self._go, lambda: self._follow_toolbar(frozenset({"scenes"})))
        self._drawn_of: tuple = ()
        self._scored_at: tuple[int, ...] = ()
        self._error = ""
        self._build()
        self._follow_toolbar(frozenset({"scenes", "place"}))
        self._look()
        self.check()
        self._beat = Beat(self._look, every)
        for run in runs.values():
            run.watchers.append(self._held)

    # ---- widgets -----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        def button(name: str, icon: str, tip: str, action: Callable[[], Any]) -> widgets.Button:
            made = widgets.Button(description=name, icon=icon, tooltip=tip, disabled=True, layout=widgets.Layout(width="auto"))
            made.on_click(lambda _: self._do(action))
            return made

        both = " and ".join(self.runs)
        self.start_button = button("Start", "play", f"train {both}, at low priority; waits for a green pre-flight", self.start)
        self.stop_button = button("Stop", "stop", "finish the step, save and end; Resume goes on from there", self.stop)
        self.resume_button = button("Resume", "forward", "the same commands again: they go on from the last save", self.start)
        self.check_button = button("Check again", "refresh", "make the pre-flight once more", self.check)
        self.frame = widgets.Dropdown(options=[("fixed frame 1", 0)], tooltip="which of the fixed validation frames",
                                      layout=widgets.Layout(width="150px", display="none"))
        wrong = {"segment": "what is wrong", "depth": "error in metres"}.get(self.config.task)
        self.look = widgets.Dropdown(options=[("the answers", ANSWER), *([(wrong, MISTAKES)] if wrong else [])],
                                     tooltip="what the film shows", layout=widgets.Layout(width="150px", display="none"))
        self.checks, self.command, self.legend = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.progress = widgets.HTML(layout=widgets.Layout(width="100%"))
        self.message, self.scores = widgets.HTML(layout=widgets.Layout(margin="0")), widgets.HTML()
        self.charts = widgets.HTML(layout=widgets.Layout(width="100%"))
        self.film = FilmStrip(label=f"Film of {both}")
        for changing, trait in ((self.film, "place"), (self.frame, "value"), (self.look, "value")):
            changing.observe(lambda _: self._follow_toolbar(frozenset({"place"})), trait)
        for choice in (self.frame, self.look):
            choice.observe(lambda _: self._draw(), "value")
        row = widgets.Layout(display="flex", flex_flow="row wrap", grid_gap="6px", align_items="center")
        self.film_panel = widgets.VBox([widgets.Box([self.frame, self.look], layout=row), self.film, self.legend])
        self.children = [mask3d_map(self.here), widgets.HTML(STYLE), self.checks, self.progress,
                         widgets.Box([self.start_button, self.stop_button, self.resume_button, self.check_button], layout=row),
                         self.message, self.scores, self.charts, self.film_panel, self.command, self._make_toolbar()]
        self.command.value = "".join(
            f"<details class='m3d-command'><summary>the command that trains {escape(name)}</summary>"
            f"<pre>{escape(run.command())}</pre></details>" for name, run in self.runs.items())

    def say(self, text: str, warns: bool = False) -> None:
        """One line in the panel; "" takes it away."""
        role, name = ("alert", "m3d-warns") if warns else ("status", "m3d-says")
        self.message.value = f'<div role="{role}" class="{name}">{escape(text)}</div>' if text else ""

    def _do(self, action: Callable[[], Any]) -> None:
        """A button was pressed; what cannot be is said in the panel."""
        self._error = ""
        try:
            action()
        except (Mask3DError, OSError) as problem:
            self._error = str(problem)
        self._look()

    def class_names(self) -> tuple[str, ...]:
        """The classes of the data."""
        with suppress(Mask3DError):
            return tuple(read_header(Path(self.config.data)).class_names)
        return next((names for run in self.runs.values() if (names := class_names_of(run.folder))), ())

    # ---- the pre-flight ----------------------------------------------------------------------------------------------

    def check(self) -> FinetuningPanel:
        """Make the pre-flight, beside the kernel's own work; :meth:`poll` waits for it.

        Steps are measured only where nothing has been trained yet.
        """
        self.findings = None
        self._show_status()
        is_new = all(status.can_start and not status.step for status in self.statuses.values())
        planned, folders = dict(self._planned), {name: run.folder for name, run in self.runs.items()}
        device = next(iter(self.runs.values())).device

        def ask() -> tuple[list[Finding], TrivialAnswer | None]:
            found = {name: list(preflight(config, device or None, is_new, folders[name])) for name, config in planned.items()}
            for name, run in self.runs.items():
                found[name] += other_run(run, planned[name])
            together = [*merged(found), *side_by_side(found)]
            data_is_bad = any(f.severity == "error" for f in together)
            return together, None if data_is_bad else validation_trivial(self.config)

        self.checker.ask(ask, self._show_checked)
        return self

    def _show_checked(self, found: tuple[list[Finding], TrivialAnswer | None] | None, problem: BaseException | None) -> None:
        if problem is not None:
            words = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
            self.findings, self.trivial = [Finding("pre-flight", "error", words)], None
        else:
            self.findings, self.trivial = found
        self._drawn_of = ()  # the charts get their line
        self._show_status()
        self._draw()

    @property
    def is_green(self) -> bool:
        """Whether the pre-flight was made and nothing says stop."""
        return self.findings is not None and not any(f.severity == "error" for f in self.findings)

    # ---- training ----------------------------------------------------------------------------------------------------

    def start(self) -> FinetuningPanel:
        """Train every run that is not finished, or go on with it; what goes on already is left alone.

        Raises:
            ConfigError: the pre-flight is not there yet, or says stop.
        """
        if not self.is_green:
            wrong = [f"{f.check}: {f.text}" for f in self.findings or () if f.severity == "error"]
            raise ConfigError(wrong or "the pre-flight has not been made yet; wait for it", "pre-flight")
        for run in self.runs.values():
            run.start()
        self._look()
        return self

    def stop(self) -> FinetuningPanel:
        """Ask every run that goes on to save and end."""
        for run in self.runs.values():
            if run.look().can_stop:
                run.stop()
        self._look()
        return self

    def wait(self, seconds: float = 60.0, until: Callable[[dict[str, RunStatus]], bool] | None = None) -> dict[str, RunStatus]:
        """Hold the cell while runs go on and until the finished ones are scored; the panel stays live meanwhile.

        Args:
            seconds: at most; Ctrl-C ends the waiting, not the runs.
            until: end when this says so of the statuses.
        """
        import time

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._held()
            if until is not None and until(self.statuses):
                break
            if not any(status.is_alive for status in self.statuses.values()) and not self.scoring():
                break
            time.sleep(min(0.5, max(0.0, end - time.monotonic())))
        self._held()
        return self.statuses

    def scoring(self) -> list[str]:
        """Runs that have finished training and whose process still scores them."""
        return [name for name, status in self.statuses.items() if status.state == FINISHED and status.owner is not None
                and status.owner.is_alive and read_scores(self.runs[name].folder) is None]

    # ---- looking -----------------------------------------------------------------------------------------------------

    def poll(self, timeout: float = 120.0) -> dict[str, RunStatus]:
        """One look, with the pre-flight, charts and pictures waited for."""
        self.checker.wait(timeout)
        self._look()
        self.worker.wait(timeout)
        self._draw()
        self.worker.wait(timeout)
        return self.statuses

    def _held(self) -> None:
        """A look while a cell holds the kernel."""
        self._look()
        self.worker.wait(0.0)
        self.checker.wait(0.0)

    def _look(self) -> None:
        self.statuses = {name: run.look() for name, run in self.runs.items()}
        written = tuple(_written(run.folder / "scores.json") if self.statuses[name].state == FINISHED else 0
                        for name, run in self.runs.items())
        if written != self._scored_at:  # resampling rooms is not for every look
            self._scored_at = written
            scored = {name: read_scores(run.folder) if at else None for (name, run), at in zip(self.runs.items(), written)}
            self.final = final_scores(scored, self.config.task)
        self._show_status()
        self._draw()

    def _draw(self) -> None:
        """Ask for charts and film where something is new and the last ones are done."""
        previews = {name: run.previews() for name, run in self.runs.items()}
        of = (tuple(run.log.version for run in self.runs.values()), tuple(len(p) for p in previews.values()), self.frame.value,
              self.look.value)
        if of == self._drawn_of or self.worker.is_busy:
            return
        self._drawn_of = of
        records = {name: list(run.log.records) for name, run in self.runs.items()}
        frame, look, trivial, names = self.frame.value, self.look.value, self.trivial, self.class_names()

        def draw() -> Drawn:
            figures = finetuning_figures(records, self.config.task, trivial=trivial)
            charts = tuple(figure_svg(figure, label) for label, figure in figures)
            present = self.maker.present(previews, frame)
            return Drawn(charts, self.maker.beside(previews, frame, look), legend_html(names, present) if look == ANSWER else "")

        self.worker.ask(draw, self._show_drawn)

    def _show_drawn(self, drawn: Drawn | None, problem: BaseException | None) -> None:
        if problem is not None:
            self._error = str(problem) if isinstance(problem, Mask3DError) else f"{type(problem).__name__}: {problem}"
            return self._show_status()
        self.charts.value = "".join(f"<div class='m3d-chart'>{chart}</div>" for chart in drawn.charts)
        self.legend.value, film = drawn.legend, drawn.film
        self.frame.layout.display = "none" if film is None or film.count < 2 else ""
        self.look.layout.display = "none" if film is None or len(self.look.options) < 2 else ""
        if film is None:
            return self.film.set_film([], [], [])
        self.film.take(film)
        if len(self.frame.options) != film.count:
            self.frame.options = [(f"fixed frame {i + 1}", i) for i in range(film.count)]

    def _show_status(self) -> None:
        statuses = list(self.statuses.values())
        can_go = self.is_green and any(s.can_start for s in statuses)
        is_begun = any(s.step for s in statuses)
        self.start_button.disabled = not can_go or is_begun
        self.resume_button.disabled = not can_go or not is_begun
        self.stop_button.disabled = not any(s.can_stop for s in statuses)
        self.check_button.disabled = self.findings is None or any(s.is_alive for s in statuses)
        html = checks_html(self.findings, is_begun)
        if self.checks.value != html:  # what the reader has folded stays folded
            self.checks.value = html
        self.progress.value = "".join(progress_html(name, status) for name, status in self.statuses.items())
        self.scores.value = scores_html(self.final, self.waiting_words())
        alive = [name for name, s in self.statuses.items() if s.is_alive]
        reasons = [f"{name}: {s.reason}" for name, s in self.statuses.items() if s.reason]
        said = f"Training now: {' and '.join(alive)}, with the same labels in the same order." if alive else ""
        self.say(self._error or "; ".join(reasons) or said, warns=bool(self._error) or any(s.state == "failed" for s in statuses))

    def waiting_words(self) -> str:
        """What the final table still waits for; "" where nothing was started, or all is there."""
        scoring = self.scoring()
        if scoring:
            return f"Scoring the test frames: {' and '.join(scoring)} ..."
        done = [name for name, s in self.statuses.items() if s.state == FINISHED]
        missing = [name for name in done if self.final is None or name not in {row.name for row in self.final.rows}]
        if missing:
            reason = next((said for name in missing if (owner := self.statuses[name].owner) is not None
                           and (said := self.runs[name]._last_error(owner))), "its process ended before it wrote scores.json")
            return f"No final score of {' and '.join(missing)}: {reason}"
        if any(s.step for s in self.statuses.values()) and len(done) < len(self.statuses):
            return "The final score on the test frames comes once a run is finished."
        return ""

    # ---- taking along ------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """The panel as a picture, the logs as a table."""
        name = next(iter(self.runs.values())).folder.parent.name
        return {"PNG": lambda: (f"{name}.png", to_png(self.still())), "CSV": lambda: (f"{name}.csv", as_csv(self.table()))}

    def table(self) -> list[dict[str, Any]]:
        """The logs' numbers, a row each step of a run that was logged."""
        rows = [{"run": name, **{k: v for k, v in record.items() if isinstance(v, (int, float, str))},
                 **{f"validation_{k}": v for k, v in (record.get("eval") or {}).items() if isinstance(v, (int, float))}}
                for name, run in self.runs.items() for record in run.log.records]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name, "") for name in names} for row in rows]

    @property
    def shelf(self) -> Moments:
        """Kept pictures are places in the film."""
        return self._moments

    def scene_words(self) -> str:
        """How the runs stand."""
        return "; ".join(f"{name} {status.words()}" for name, status in self.statuses.items())

    def _here(self) -> tuple[int, str, int]:
        """Fixed frame, way of looking, and step of the film; -1: the newest."""
        is_newest = self.film.place == NEWEST or self.film.place >= len(self.film.steps)
        return self.frame.value, self.look.value, -1 if is_newest else self.film.steps[self.film.place]

    def _go(self, here: tuple[int, str, int]) -> None:
        """To a place; the nearest step where that one is thinned out by now."""
        frame, look, step = here
        if frame in [value for _, value in self.frame.options]:
            self.frame.value = frame
        self.look.value = look
        steps = list(self.film.steps)
        self.film.place = NEWEST if step < 0 or not steps else min(range(len(steps)), key=lambda k: abs(steps[k] - step))
        self._follow_toolbar(frozenset({"place"}))

    def panels(self) -> Sequence[widgets.Widget]:
        """The list, the charts, the film, the final table and the commands."""
        return (self.checks, self.charts, self.film_panel, self.scores, self.command)

    def projected(self) -> Sequence[widgets.Widget]:
        """The charts and the film."""
        return (self.charts, self.film_panel)

    def still(self, theme: str = "light") -> np.ndarray:
        """Pre-flight, statuses, final table, charts and the film's newest pictures, uint8 (H, W, 3)."""
        return still_of(self, theme)

    def code(self) -> str:
        """The call that brings the panel back."""
        return self._call

    def close(self) -> None:
        """Look no more and take the panel away; the runs go on."""
        self._beat.stop()
        for run in self.runs.values():
            if self._held in run.watchers:
                run.watchers.remove(self._held)
        self.worker.close()
        self.checker.close()
        self.toolbar.close()
        super().close()

    def __repr__(self) -> str:
        return f"FinetuningPanel: {self.scene_words()}"

    def _repr_mimebundle_(self, **kwargs: Any):
        """The live panel, a picture for where no kernel is, and a line of text."""
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(to_png(self.still())).decode()}
        return (data, found[1]) if isinstance(found, tuple) else data


def _written(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


__all__ = ["EVERY", "Drawn", "FinetuningPanel"]
