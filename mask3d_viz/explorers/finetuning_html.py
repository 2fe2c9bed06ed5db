"""The pre-flight list, the final scores and the legend of a fine-tuning panel, as HTML in the reader's theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mask3d_core.doctor.report import Finding
from mask3d_viz import style
from mask3d_viz.explorers.watch_html import STYLE as RUN_STYLE
from mask3d_viz.finetuning_checks import verdict
from mask3d_viz.finetuning_scores import FinalScores

MARKS = {"ok": "✓", "warn": "!", "error": "✕"}
WORDS = {"ok": "green", "warn": "look", "error": "stop"}  # beside the colour, for whoever does not see it


def checks_html(findings: Sequence[Finding] | None, is_folded: bool = False) -> str:
    """The pre-flight list; None: it is still being made. Folded, it opens at a click unless something says look or stop."""
    if findings is None:
        return ("<div class='m3d-checks-head' role='status'>Pre-flight: looking at labels, scenes, start, memory and time ..."
                "</div>")
    rows = "".join(
        f"<li class='m3d-check m3d-{f.severity}'><span class='m3d-mark' aria-hidden='true'>{MARKS[f.severity]}</span>"
        f"<span class='m3d-word'>{WORDS[f.severity]}</span><b>{escape(f.check)}</b><span>{escape(f.text)}</span></li>"
        for f in findings)
    is_open = " open" if any(f.severity != "ok" for f in findings) or not is_folded else ""
    return (f"<details class='m3d-checks'{is_open}><summary class='m3d-checks-head' role='status'>Pre-flight: "
            f"{escape(verdict(findings))}"
            f"</summary><ul role='list'>{rows}</ul></details>")


def scores_html(scores: FinalScores | None, waiting: str = "") -> str:
    """The final table, or what it waits for."""
    if scores is None:
        return f"<div class='m3d-says'>{escape(waiting)}</div>" if waiting else ""
    rows = "".join(f"<tr class='{'m3d-says' if r.is_trivial else ''}'><td>{escape(r.name)}</td><td>{escape(str(r))}</td></tr>"
                   for r in scores.rows)
    more = "".join(f"<div>{escape(text)}</div>" for text in (scores.difference, waiting) if text)
    return ("<div class='m3d-final'><b>Final score on frames that nothing was chosen on</b>"
            f"<table><tr><th></th><th>{escape(scores.metric)} [95 % over scenes]</th></tr>{rows}</table>"
            f"{more}<div class='m3d-says'>{escape(scores.protocol)}</div></div>")


MANY = 20  # classes from which only those in the truth are named


def legend_classes(names: Sequence[str], present: Sequence[int]) -> list[int]:
    """The classes that a legend names: all, or where they are many those in the truth."""
    if not present:
        return []
    return list(range(len(names))) if len(names) <= MANY else [k for k in present if k < len(names)]


def legend_html(names: Sequence[str], present: Sequence[int]) -> str:
    """Which colour is which class."""
    named = legend_classes(names, present)
    if not named:
        return ""
    colors = style.label_colors(max(13, len(names)))
    return "<div class='m3d-legend'>" + "".join(
        f"<span><i style='background:rgb{tuple(colors[k].tolist())}'></i>{escape(names[k])}</span>" for k in named) + (
        "<span><i class='m3d-hatched'></i>not scored</span></div>")


STYLE = RUN_STYLE.removesuffix("</style>") + """
.mask3d-run .m3d-checks-head { font-size: 14px; font-weight: 600; cursor: default; }
.mask3d-run summary.m3d-checks-head { cursor: pointer; }
.mask3d-run .m3d-checks ul { margin: 4px 0; padding: 0; list-style: none; }
.mask3d-run .m3d-check { display: grid; grid-template-columns: 18px 44px 130px 1fr; gap: 0 6px; padding: 2px 0;
  align-items: baseline; border-top: 1px solid var(--m3d-line); }
.mask3d-run .m3d-mark, .mask3d-run .m3d-word { font-weight: 700; }
.mask3d-run .m3d-check.m3d-ok :is(.m3d-mark, .m3d-word) { color: var(--m3d-best); }
.mask3d-run .m3d-check.m3d-warn :is(.m3d-mark, .m3d-word) { color: var(--m3d-warn); }
.mask3d-run .m3d-check.m3d-error, .mask3d-run .m3d-check.m3d-error :is(.m3d-mark, .m3d-word) {
  color: var(--jp-error-color1, #b00020); }
.mask3d-run .m3d-final { margin: 6px 0; }
.mask3d-run .m3d-final table { border-collapse: collapse; margin: 2px 0; }
.mask3d-run .m3d-final :is(td, th) { padding: 1px 18px 1px 0; text-align: left; font-weight: 500; background: none; }
.mask3d-run .m3d-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; }
.mask3d-run .m3d-legend i { display: inline-block; width: 13px; height: 13px; margin-right: 5px; vertical-align: -2px;
  border: 1px solid var(--m3d-line); }
.mask3d-run .m3d-hatched { background: repeating-linear-gradient(45deg, #e2e3e5 0 3px, #a8abb0 3px 6px); }
</style>"""


__all__ = ["MARKS", "STYLE", "WORDS", "checks_html", "legend_classes", "legend_html", "scores_html"]
