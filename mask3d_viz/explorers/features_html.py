"""Words, tables and small pictures of the features' explorer as HTML in the reader's theme."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape

import numpy as np

from mask3d_core.evaluation.probes import MEAN, OPPONENTS, PIXELS, UNTRAINED, ProbeResult
from mask3d_viz.feature_analysis import SIDES, Look
from mask3d_viz.features import Neighbour, patch_crop
from mask3d_viz.pixels import patch_words, to_png

TYPE = "font-size:13px;line-height:1.45"
KINDS = {"depth": "depth ±10 %", "normal": "normal ±15°", "label": "same class", "place": "same place"}


def paragraph(text: str) -> str:
    """Words that a screen reader says when they change."""
    return f"<div style='{TYPE};max-width:900px' aria-live='polite'>{escape(text)}</div>"


def figure(picture: np.ndarray, words: str, width: str) -> str:
    """A picture with words under it, which are its alternative text too.

    Args:
        picture: uint8 (H, W, 3). words: line breaks are kept. width: CSS.
    """
    said = escape(words).replace("\n", "<br>")
    return (f"<figure style='margin:0;width:{width};font-size:12px;line-height:1.3'><img alt='{escape(words, quote=True)}' "
            f"style='width:100%;display:block' src='data:image/png;base64,{base64.b64encode(to_png(picture)).decode()}'>"
            f"<figcaption>{said}</figcaption></figure>")


def nearest_html(look: Look, patch: int, found: dict[str, list[Neighbour]]) -> str:
    """The patch that was asked, and by title the ones that were found."""
    asked = figure(patch_crop(look.colors[look.place], patch, look.grid), "asked", "88px")
    rows = ""
    for title, neighbours in found.items():
        cells = "".join(figure(n.picture, n.words, "88px") for n in neighbours)
        rows += (f"<div style='font-weight:600;margin-top:6px'>{escape(title)}</div>"
                 f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{cells}</div>")
    return (f"<div style='{TYPE}' aria-live='polite'>Nearest to {patch_words(patch, look.grid)} by cosine, in "
            f"{len(look.frames) - 1} other frames<div style='display:flex;gap:14px;margin-top:6px'>{asked}"
            f"<div>{rows}</div></div></div>")


def agreement_words(look: Look, side: str) -> str:
    """How many nearest patches agree with theirs, in a line; side "random" for patches drawn at random."""
    shares = look.agreement.get(side, {})
    said = ", ".join(f"{KINDS[name]}: {share:.0%}" for name, share in shares.items())
    return (f"Of patches drawn at random instead, these shares agree: {said}." if side == "random" else
            f"of all patches' nearest five, {said}")


def agreement_html(look: Look, title: Callable[[str], str]) -> str:
    """The same as a table of all sides; "" where there is only one frame."""
    if not look.agreement:
        return ""
    kinds = [k for k in KINDS if any(k in shares for shares in look.agreement.values())]
    head = "".join(f"<th style='font-weight:500;padding:0 10px;text-align:right'>{escape(KINDS[k])}</th>" for k in kinds)
    rows = ""
    for side in (*SIDES, "random"):
        shares = (f"{look.agreement[side][k]:.0%}" if k in look.agreement[side] else "–" for k in kinds)
        cells = "".join(f"<td style='text-align:right;padding:0 10px'>{share}</td>" for share in shares)
        name = "drawn at random" if side == "random" else title(side)
        rows += f"<tr><td>{escape(name)}</td>{cells}</tr>"
    return (f"<div style='{TYPE}'>Do the nearest five agree with the patch? Over patches of all frames"
            f"<table style='border-collapse:collapse'><tr><th></th>{head}</tr>{rows}</table></div>")


def probe_bars(result: ProbeResult) -> list[tuple[str, float, float | None, float | None, bool]]:
    """AbsRel as ``features.bar_chart`` wants it, encoders marked."""
    rows = []
    for name in result.scores:
        estimate = result.estimate(name)
        rows.append((name, estimate.mean, estimate.low, estimate.high, name not in OPPONENTS))
    return rows


def probe_rows(result: ProbeResult) -> list[dict]:
    """The scores as rows of a table, one per encoder and opponent."""
    rows = []
    for name, scores in result.scores.items():
        e = result.estimate(name)
        rows.append({"encoder": name, "abs_rel": e.mean, "low": e.low, "high": e.high, "features": scores.width,
                     "delta1": float(np.nanmean(scores.frames["delta1"])), "ridge": scores.strength})
    return rows


def verdict(result: ProbeResult, name: str) -> str:
    """One encoder beside the opponents that matter, in a sentence, by paired differences of AbsRel."""
    says = []
    for other, words in ((MEAN, "the mean depth"), (UNTRAINED, "the untrained network"),
                         (PIXELS, "the patch's own pixels with their position")):
        gap = result.difference(name, other)
        band = "" if gap.low is None else f" [{gap.low:+.3f}, {gap.high:+.3f}]"
        how = ("not measurably different from" if gap.low is None or gap.low <= 0 <= gap.high else
               "better than" if gap.mean < 0 else "worse than")
        says.append(f"{how} {words} (AbsRel {gap.mean:+.3f}{band})")
    return f"Depth read by one matrix from A's colour features: {says[0]}, {says[1]}, {says[2]}.".replace("-", "−")


def probe_words(result: ProbeResult) -> str:
    """On what the probe was run, and what its intervals are worth."""
    words = dict.fromkeys([result.words, *(result.estimate(name).words for name in result.scores)])
    said = "; ".join(word for word in words if word)
    return f"{said[:1].upper()}{said[1:]}."


def probe_html(result: ProbeResult, said: str) -> str:
    """The verdict, the table with the best one marked, and on what it was measured."""
    names = list(result.scores)
    estimates = {name: result.estimate(name) for name in names}
    best = min(names, key=lambda name: estimates[name].mean)
    rows = ""
    for name in names:
        e, scores = estimates[name], result.scores[name]
        band = "" if e.low is None else f"[{e.low:.3f}, {e.high:.3f}]"
        cells = "".join(f"<td style='text-align:right;padding-right:14px'>{text}</td>" for text in (
            f"{e.mean:.3f}", band, f"{np.nanmean(scores.frames['delta1']):.3f}", f"{scores.width}",
            f"{scores.strength:g}{' (edge of the grid)' if scores.is_at_edge else ''}" if scores.width else ""))
        mark = " ◂ best" if name == best else ""
        rows += (f"<tr style='{'font-weight:600' if name == best else ''}'><td style='padding-right:14px'>{escape(name)}{mark}"
                 f"</td>{cells}</tr>")
    head = "".join(f"<th style='font-weight:500;text-align:{a};padding-right:14px'>{t}</th>" for t, a in (
        ("depth by one matrix", "left"), ("AbsRel", "right"), ("95 %", "right"), ("δ1", "right"), ("features", "right"),
        ("ridge", "right")))
    return (f"<div style='{TYPE}' aria-live='polite'><b>{escape(said)}</b><table style='border-collapse:collapse'>"
            f"<tr>{head}</tr>{rows}</table><div style='font-size:12px;opacity:.75;max-width:900px'>"
            f"{escape(probe_words(result))}</div></div>")
