"""A question before a reveal: the reader guesses first, then guess, model and truth stand on one line."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np

from mask3d_core.errors import ConfigError
from mask3d_viz.drawing import blank, number, text_block, ticks_between
from mask3d_viz.pixels import to_png

Answer = float | Callable[[], float]
ROW, LEFT, RIGHT = 26, 190, 640  # of the line: pixels of a row, and where low and high stand
COLORS = ("#0072b2", "#d55e00", "#009e73", "#8a8f96")  # you, the model, the truth, others
NOT_YET = "Guess first, then press reveal."


class Ask(widgets.VBox):
    """One question with a number for an answer.

    Args:
        question: in words.
        truth: the answer, or what computes it when it is asked for.
        low, high: ends of the slider.
        unit: of all numbers.
        model: what the model says, if it has a say.
        others: further answers by name (opponents).
        digits: after the decimal point.
    """

    def __init__(self, question: str, truth: Answer, low: float, high: float, unit: str = "", model: Answer | None = None,
                 others: Mapping[str, Answer] | None = None, digits: int = 1):
        super().__init__()
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"a question needs low below high; got {low:g} and {high:g}")
        self.question, self.unit, self.digits, self.ends = question, unit, digits, (low, high)
        self._answers = {"Mask3D": model, "the truth": truth, **(others or {})}
        self.slider = widgets.FloatSlider(
            min=low, max=high, value=(low + high) / 2, step=10.0 ** -digits, readout_format=f".{digits}f",
            description="your guess", style={"description_width": "initial"}, layout=widgets.Layout(width="420px"))
        self.button = widgets.Button(description="reveal", tooltip="show the answer beside your guess")
        self.result = widgets.HTML(f'<span style="opacity:.75">{NOT_YET}</span>')
        self.revealed: dict[str, float] = {}
        self.button.on_click(lambda _: self.reveal())
        unit_label = widgets.Label(unit)
        self.children = [widgets.HTML(f'<b style="font-size:14px">{escape(question)}</b>'),
                         widgets.HBox([self.slider, unit_label, self.button]), self.result]

    def guess(self, value: float) -> Ask:
        """Guess from Python."""
        self.slider.value = value
        return self

    def reveal(self) -> dict[str, float]:
        """Show guess, model and truth; returns them by name."""
        found = {"you": float(self.slider.value)}
        for name, answer in self._answers.items():
            if answer is not None:
                found[name] = float(answer() if callable(answer) else answer)
        self.revealed, self.slider.disabled, self.button.disabled = found, True, True
        truth = found["the truth"]
        off = abs(found["you"] - truth)
        said = f"You were off by {number(off, self.digits)} {self.unit}".rstrip()
        if "Mask3D" in found:
            said += f"; Mask3D by {number(abs(found['Mask3D'] - truth), self.digits)} {self.unit}".rstrip()
        self.result.value = f'<div aria-live="polite">{escape(said)}.</div>{line_svg(found, self.ends, self.unit, self.digits)}'
        return found

    def __repr__(self) -> str:
        return f"Question: {self.question}"

    def _repr_mimebundle_(self, **kwargs: Any):
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        words = text_block(f"{self.question}\n{NOT_YET}", 900, 20)
        sheet = np.concatenate([blank((10, 900)), words, blank((10, 900))])
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(to_png(sheet)).decode()}
        return (data, found[1]) if isinstance(found, tuple) else data


class Choice(widgets.VBox):
    """One question with a choice for an answer.

    Args:
        question: in words.
        choices: what can be said.
        truth: the right one, or what finds it when it is asked for.
        because: said with the answer.
    """

    def __init__(self, question: str, choices: Sequence[str], truth: str | Callable[[], str], because: str = ""):
        super().__init__()
        self.question, self.choices, self._truth, self.because = question, tuple(choices), truth, because
        self.revealed: dict[str, str] = {}
        self.buttons = [widgets.Button(description=name, layout=widgets.Layout(width="auto")) for name in self.choices]
        for button in self.buttons:
            button.on_click(lambda b: self.choose(b.description))
        self.result = widgets.HTML()
        self.children = [widgets.HTML(f'<b style="font-size:14px">{escape(question)}</b>'),
                         widgets.Box(self.buttons, layout=widgets.Layout(display="flex", flex_flow="row wrap")), self.result]

    def choose(self, name: str) -> dict[str, str]:
        """Choose and see; returns {"you", "the truth"}.

        Raises:
            ConfigError: no such choice, or the truth is none of them.
        """
        truth = self._truth() if callable(self._truth) else self._truth
        if name not in self.choices or truth not in self.choices:
            raise ConfigError(f"a choice among {', '.join(self.choices)}; got {name!r} (the answer: {truth!r})")
        self.revealed = {"you": name, "the truth": truth}
        for button in self.buttons:
            button.disabled = True
            button.button_style = "success" if button.description == truth else "warning" if button.description == name else ""
        self.result.value = (f'<div aria-live="polite"><b>{"Yes" if name == truth else "No"}: {escape(truth)}.</b> '
                             f'{escape(self.because)}</div>')
        return self.revealed

    def __repr__(self) -> str:
        return f"Question: {self.question} ({' / '.join(self.choices)})"

    def _repr_mimebundle_(self, **kwargs: Any):
        found = super()._repr_mimebundle_(**kwargs)
        data = found[0] if isinstance(found, tuple) else (found or {})
        words = text_block(f"{self.question}\n{'  /  '.join(self.choices)}", 900, 20)
        sheet = np.concatenate([blank((10, 900)), words, blank((10, 900))])
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(to_png(sheet)).decode()}
        return (data, found[1]) if isinstance(found, tuple) else data


def line_svg(values: Mapping[str, float], ends: tuple[float, float], unit: str, digits: int) -> str:
    """Named numbers over one axis, a row each, as SVG in the reader's theme."""
    low = min(ends[0], *values.values())
    high = max(ends[1], *values.values())
    place = lambda value: LEFT + (value - low) / (high - low) * (RIGHT - LEFT)  # noqa: E731
    ink, height = "var(--jp-ui-font-color1,#1c1e22)", ROW * len(values) + 30
    parts = []
    for tick in ticks_between(low, high, 5):
        parts.append(f'<path d="M{place(tick):.1f} 4V{height - 24}" stroke="{ink}" stroke-opacity=".18"/>'
                     f'<text x="{place(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    truth = values.get("the truth")
    for row, (name, value) in enumerate(values.items()):
        y = ROW * row + ROW / 2 + 2
        color = COLORS[{"you": 0, "Mask3D": 1, "the truth": 2}.get(name, 3)]
        if truth is not None and name != "the truth":
            parts.append(f'<path d="M{place(value):.1f} {y}H{place(truth):.1f}" stroke="{color}" stroke-width="3" '
                         'stroke-opacity=".45"/>')
        parts.append(f'<circle cx="{place(value):.1f}" cy="{y}" r="7" fill="{color}"/>'
                     f'<text x="4" y="{y + 4.5}" font-weight="{600 if name == "you" else 400}">{escape(name)}: '
                     f'{number(value, digits)} {escape(unit)}</text>')
    return (f'<svg role="img" aria-label="guess, model and truth on one line" viewBox="0 0 680 {height}" '
            f'style="max-width:680px;width:100%;height:auto" font-size="13.5" fill="{ink}" '
            f'font-family="system-ui, Noto Sans, DejaVu Sans, sans-serif">{"".join(parts)}</svg>')


def ask(question: str, truth: Any, low: float = 0.0, high: float = 0.0, unit: str = "", *, choices: Sequence[str] = (),
        because: str = "", **more: Any) -> Ask | Choice:
    """Take the reader's guess before a reveal; without a reader nothing happens and the notebook runs on.

    With ``choices`` see :class:`Choice`, else :class:`Ask`.
    """
    return Choice(question, choices, truth, because) if choices else Ask(question, truth, low, high, unit, **more)


__all__ = ["Ask", "Choice", "ask", "line_svg"]
