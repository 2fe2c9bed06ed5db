"""The numbers of a prediction in words: the model, a second one beside it, and the opponents over the same pixels."""

from __future__ import annotations

from html import escape

from mask3d_viz.explorers.comparison import Compared
from mask3d_viz.predictions import MAX_DEPTH, Shown
from mask3d_viz.ratio_view import OPPONENT_WORDS


def evidence_html(shown: Shown, compared: Compared | None = None, waiting: str = "") -> str:
    """A small table: the model beside its opponents over the hidden measured pixels, the best one marked.

    Args:
        shown: the prediction, A's.
        compared: B's beside it, over the same pixels.
        waiting: name of a B whose numbers are on their way.
    """
    model = "Mask3D" if compared is None else f"A: {compared.names[0]}"
    rows = [(model, shown.reconstruction.scores)]
    if compared is not None:
        rows.append((f"B: {compared.names[1]}", compared.scores))
    rows += [(OPPONENT_WORDS[name], s) for name, s in (shown.opponents or {}).items()]
    rows = [(name, scores) for name, scores in rows if scores]
    if not rows:
        return "<p style='font-size:13px'>No hidden pixel was measured, so there is nothing to score.</p>"
    best = min(rows, key=lambda row: row[1]["abs_rel"])[0]
    cells = "".join(
        f"<tr style='{'font-weight:600' if name == best else ''}'><td style='padding-right:14px'>{escape(name)}"
        f"{' ◂ best' if name == best and len(rows) > 1 else ''}</td>"
        f"<td style='text-align:right;padding-right:14px'>{s['abs_rel']:.3f}</td>"
        f"<td style='text-align:right;padding-right:14px'>{100 * s['mae']:.1f}</td>"
        f"<td style='text-align:right'>{s['delta1']:.3f}</td></tr>" for name, s in rows)
    head = "".join(f"<th style='text-align:{a};padding-right:14px;font-weight:500'>{t}</th>" for t, a in (
        ("over hidden measured pixels", "left"), ("AbsRel", "right"), ("mean error, cm", "right"), ("δ1", "right")))
    beside = compared.note if compared is not None else f"B: {waiting} is on its way ..." if waiting else ""
    note = f"<div style='max-width:420px'>{escape(beside)}</div>" if beside else ""
    note += ("<div>measuring the opponents ...</div>" if shown.opponents is None else "" if shown.opponents
            else "<div>No depth is visible, and no mean map came with this checkpoint: nothing to compare with.</div>")
    return (f"<table style='font-size:13px;border-collapse:collapse'><tr>{head}</tr>{cells}</table>{note}"
            f"<div style='font-size:12px;opacity:.75'>one frame, one mask; predicted in {1000 * shown.seconds:.0f} ms</div>")


def sentence(shown: Shown, compared: Compared | None = None) -> str:
    """The model, a second one beside it, and its best opponent in one line."""
    r = shown.reconstruction
    if not r.scores:
        return "No hidden pixel was measured, so there is nothing to score."
    words = lambda s: f"AbsRel {s['abs_rel']:.3f}, mean error {100 * s['mae']:.1f} cm"  # noqa: E731
    hidden = r.is_valid & ~r.is_visible & (r.depth <= MAX_DEPTH)
    best = shown.best_opponent
    none = "measuring the opponents" if shown.opponents is None else "no depth is visible to interpolate"
    beside = f"best opponent, {OPPONENT_WORDS[best]}: {words(shown.opponents[best])}" if best else none
    model = "Mask3D" if compared is None else f"A, {compared.names[0]}"
    second = "" if compared is None else f" · B, {compared.names[1]}: {words(compared.scores)}"
    last = f" {compared.note}" if compared is not None and compared.note else ""
    return f"{model}: {words(r.scores)}{second} · {beside} · over {int(hidden.sum()):,} hidden measured pixels{last}"


__all__ = ["evidence_html", "sentence"]
