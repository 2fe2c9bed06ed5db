"""The features' explorer without a browser: its picture, its sentence, its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mask3d_viz.drawing import blank, contact_sheet, text_block
from mask3d_viz.explorers.attention_words import layer_words
from mask3d_viz.explorers.base import STILL_WIDTH
from mask3d_viz.explorers.features_html import agreement_words, probe_bars, probe_words
from mask3d_viz.feature_analysis import SIDES, Look
from mask3d_viz.features import bar_chart, neighbour_sheet, patch_crop
from mask3d_viz.widgets.patch_image import PatchImage

if TYPE_CHECKING:
    from mask3d_viz.explorers.features import FeatureExplorer

TITLES = {"color": "Colour", "a": "A", "b": "B", "pixels": "Raw pixels"}
COLORS_SAID = ("Red, green and blue are the three main components of A's features over all these frames, each scaled to "
               "unit spread; brighter patches are brighter. B's and the raw pixels' own three components are turned "
               "(orthogonal Procrustes over the same patches) to resemble A's, so that equal colours can be compared.")


def colors_sentence(look: Look) -> str:
    """What the colours of a look show, in numbers."""
    parts, words = look.components, layer_words(look.layer, look.encoders[0].encoder.depth)
    shares = ", ".join(f"{TITLES[s]} {sum(parts[s].explained):.0%}" for s in SIDES)
    varies = ", ".join(f"{TITLES[s]} {parts[s].varies:.0%}" for s in SIDES)
    return (f"{words[:1].upper()}{words[1:]}. Share of a feature's length that differs between patches: {varies}; the less, the "
            f"more the encoder says the same of everything. Of that variance, three components hold: {shares}. "
            f"Correlation with A's colours: B {parts['b'].likeness:.2f}, raw pixels {parts['pixels'].likeness:.2f} "
            "(1 = the same picture).")


def component_rows(look: Look) -> list[dict[str, Any]]:
    """Each patch of the frame: three components of A, of B and of raw pixels, in units of their spread."""
    rows = []
    for patch in range(look.grid[0] * look.grid[1]):
        cells = {f"{side} {color}": round(float(look.scores[side][look.place, patch, k]), 4)
                 for side in SIDES for k, color in enumerate(("red", "green", "blue"))}
        rows.append({"row": patch // look.grid[1] + 1, "column": patch % look.grid[1] + 1, **cells})
    return rows


def nearest_rows(look: Look, patch: int, count: int) -> list[dict[str, Any]]:
    """The nearest patches of one of the frame's, by encoder; empty where depth, normal or class is not known.

    Raises:
        ConfigError: there is no other frame.
    """
    rows = []
    for side in SIDES:
        for rank, (place, other, cosine) in enumerate(look.nearest(side, patch, count), 1):
            known = look.compared(patch, place, other)
            rows.append({"by": side, "rank": rank, "frame": look.frames[place], "row": other // look.grid[1] + 1,
                         "column": other % look.grid[1] + 1, "cosine": round(cosine, 4),
                         **{name: round(known[name], 4) if name in known else "" for name in ("ratio", "angle", "label")}})
    return rows


def features_still(explorer: FeatureExplorer, theme: str) -> np.ndarray:
    """Pictures of three frames, the nearest patches, and the probe's table where it ran, uint8 (H, W, 3)."""
    look, gap = explorer.look, blank((14, STILL_WIDTH), theme)
    titles = {"color": "Colour", "a": f"A: {look.encoders[0].words}", "b": f"B: {look.encoders[1].words}",
              "pixels": "Raw pixels"}
    images, captions = [], []
    for place in [look.place, *look.others()]:
        for name in explorer.pictures:
            first = place == look.place
            images.append(_selected(explorer, explorer._picture(name, place)) if first else explorer._picture(name, place))
            note = f" · {explorer._note(name)}" if name in look.components else f" · frame {look.frames[place]}"
            captions.append(f"{titles[name]}{note}" if first else
                            f"frame {look.frames[place]}" if name == "color" else "")
    sheet = contact_sheet(images, captions, 4, cell_width=(STILL_WIDTH - 60) // 4, theme=theme)
    parts = [np.concatenate([sheet, blank((sheet.shape[0], STILL_WIDTH - sheet.shape[1]), theme)], axis=1)]
    parts += [_text(explorer.sentence(), theme), _text(COLORS_SAID, theme, role="muted"), gap]
    if explorer.asked is not None and len(look.frames) > 1:
        crop = patch_crop(look.colors[look.place], explorer.asked, look.grid)
        rows = [(f"{TITLES[side]}: nearest patches", agreement_words(look, side), explorer.found(side)) for side in SIDES]
        parts += [neighbour_sheet(rows, crop, STILL_WIDTH, theme), _text(agreement_words(look, "random"), theme)]
    if explorer.result is not None:
        parts += [gap, _text("Depth read off frozen features by one matrix: AbsRel, lower is better", theme, bold=True),
                  bar_chart(probe_bars(explorer.result), STILL_WIDTH, theme=theme),
                  _text(f"{explorer.verdict()} {probe_words(explorer.result)}", theme)]
    return np.concatenate([*parts, gap])


def _selected(explorer: FeatureExplorer, picture: np.ndarray) -> np.ndarray:
    widget = PatchImage.of(picture, explorer.session.patch, selection=list(explorer.session.state.selection))
    return widget._marked(np.repeat(np.repeat(picture, 2, 0), 2, 1))


def _text(text: str, theme: str, **options) -> np.ndarray:
    words = text_block(text, STILL_WIDTH - 28, 16, theme=theme, **options)
    return np.concatenate([blank((words.shape[0], 14), theme), words, blank((words.shape[0], 14), theme)], axis=1)


__all__ = ["COLORS_SAID", "TITLES", "colors_sentence", "component_rows", "features_still", "nearest_rows"]
