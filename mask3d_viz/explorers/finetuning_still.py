"""A fine-tuning panel as one picture, for where no kernel is."""

from __future__ import annotations

from typing import Any

import numpy as np

from mask3d_viz.curves import figure_image
from mask3d_viz.drawing import blank, contact_sheet, paste, text_block
from mask3d_viz.explorers.finetuning_html import MARKS, WORDS, legend_classes
from mask3d_viz.finetuning_checks import verdict
from mask3d_viz.finetuning_charts import finetuning_figures
from mask3d_viz.images import label_legend
from mask3d_viz.pixels import resize_smooth
from mask3d_viz.run_charts import beside_each_other, film_sheet
from mask3d_viz.style import label_colors

WIDTH = 900  # pixels, as a stored notebook keeps pictures: letters stay as they were set
ROLES = {"ok": "best", "warn": "warn", "error": "warn"}  # of the theme's colours; the word says the rest


def still_of(panel: Any, theme: str = "light") -> np.ndarray:
    """What a ``FinetuningPanel`` shows, uint8 (H, W, 3).

    Args:
        panel: the panel.
        theme: "light" or "dark".
    """
    width = WIDTH
    heads = [line(f"{name}  ·  {status.words()}", width, 18, theme, bold=True) for name, status in panel.statuses.items()]
    parts = [*heads, *_checks(panel, width, theme)]
    if panel.final is not None:
        parts.append(line(f"Final score on frames that nothing was chosen on: {panel.final.metric} [95 % over scenes]", width,
                          16, theme, bold=True))
        parts += [line(f"{row.name}: {row}", width, 16, theme, role="muted" if row.is_trivial else "ink")
                  for row in panel.final.rows]
        below = ((panel.final.difference, "ink"), (panel.final.protocol, "muted"))
        parts += [line(text, width, 14, theme, role=role) for text, role in below if text]
    records = {name: run.log.records for name, run in panel.runs.items()}
    charts = [figure_image(figure) for _, figure in finetuning_figures(records, panel.config.task, theme, panel.trivial)]
    if charts:
        half = width // 2
        charts = [resize_smooth(chart, (round(chart.shape[0] * half / chart.shape[1]), half)) for chart in charts]
        parts.append(beside_each_other(charts, width, theme))
    if panel.film.steps:
        newest = range(len(panel.film.steps))[panel.film.place]
        parts.append(_film(panel.film, newest, width, theme))
        parts.append(line(panel.film.captions[newest], width, 16, theme))
        parts += _legend(panel, width, theme)
    return np.concatenate([*parts, blank((12, width), theme)])


def _checks(panel: Any, width: int, theme: str) -> list[np.ndarray]:
    """The pre-flight: whole while nothing was trained, its verdict afterwards."""
    if panel.findings is None:
        return [line("Pre-flight: not made yet", width, 16, theme)]
    rows = [line(f"Pre-flight: {verdict(panel.findings)}", width, 16, theme, bold=True)]
    is_begun = any(status.step for status in panel.statuses.values())
    for f in panel.findings:
        if is_begun and f.severity == "ok":
            continue
        head = text_block(f"{MARKS[f.severity]} {WORDS[f.severity]}", 82, 14, bold=True, role=ROLES[f.severity], theme=theme)
        name, words = text_block(f.check, 136, 14, bold=True, theme=theme), text_block(f.text, width - 250, 14, theme=theme)
        sheet = blank((max(part.shape[0] for part in (head, name, words)) + 6, width), theme)
        for part, left in ((head, 14), (name, 98), (words, 236)):
            paste(sheet, part, 2, left)
        rows.append(sheet)
    return rows


def _film(film: Any, newest: int, width: int, theme: str) -> np.ndarray:
    """The film at its beginning, middle and newest step; of a single run with colour and truth beside it."""
    if sum(film.is_changing) > 1:
        return film_sheet(film, sorted({0, newest // 2, newest}), width, theme)
    places = sorted({0, newest})
    moving = film.titles[film.is_changing.index(True)]
    tiles = [film.tiles(place) for place in places]
    images = [tiles[-1]["RGB"], *(each[moving] for each in tiles), tiles[-1]["Truth"]]
    captions = ["RGB", *(f"{moving}, step {film.steps[place]}" for place in places), "Truth"]
    sheet = contact_sheet(images, captions, len(images), cell_width=(width - 12 * (len(images) + 1)) // len(images), theme=theme)
    return beside_each_other([sheet], width, theme)


def _legend(panel: Any, width: int, theme: str) -> list[np.ndarray]:
    names = panel.class_names()
    previews = {name: run.previews() for name, run in panel.runs.items()}
    present = legend_classes(names, panel.maker.present(previews, panel.frame.value))
    if not present:
        return []
    legend = label_legend([names[k] for k in present], width - 24, colors=label_colors(max(13, len(names)))[present], theme=theme)
    sheet = blank((legend.shape[0] + 8, width), theme)
    paste(sheet, legend, 4, 12)
    return [sheet]


def line(text: str, width: int, size: int, theme: str, **options: Any) -> np.ndarray:
    """Words with some paper around them."""
    words = text_block(text, width - 28, size, theme=theme, **options)
    sheet = blank((words.shape[0] + 10, width), theme)
    paste(sheet, words, 5, 14)
    return sheet


__all__ = ["still_of"]
