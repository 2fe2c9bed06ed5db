"""Pictures of a run: its loss, its error on held-out frames beside opponents and the shipped run, its film as a sheet."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from mask3d_core.shipped import shipped
from mask3d_core.training.config import PretrainConfig, from_dict, pretrain_config
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.log import expected_band, reference_curve
from mask3d_viz.curves import loss_curve, running_mean
from mask3d_viz.drawing import blank, contact_sheet
from mask3d_viz.finetuning_charts import CHART, POINTS, finetuning_figures
from mask3d_viz.run_opponents import RIVALS, FixedScores
from mask3d_viz.widgets.film_strip import FilmStrip

SHIPPED = "tiny/mask3d"  # whose curve ships
SHIPPED_RGB = "tiny/mae"  # and that of a run that predicts colour
OTHER_FRAMES = "shipped, other frames"
SMOOTH = 15  # records in the running mean of a ghost's loss
SCORED_ON = ("data", "rooms_sensor", "eval_frames", "mask")  # of a run: on which frames, hidden how, it is scored
NAMES = {"abs_rel": "AbsRel over hidden pixels", "rgb_error": "squared error of hidden colour patches"}


def film_sheet(film: FilmStrip, places: list[int], width: int, theme: str) -> np.ndarray:
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
    return beside_each_other([sheet], width, theme)


def beside_each_other(pictures: list[np.ndarray], width: int, theme: str) -> np.ndarray:
    """Pictures side by side on the theme's paper."""
    sheet, left = blank((max(p.shape[0] for p in pictures), width), theme), 0
    for picture in pictures:
        sheet[:picture.shape[0], left:left + picture.shape[1]] = picture[:, :width - left]
        left += picture.shape[1]
    return sheet


def figures(records: list[dict[str, Any]], config: Any, theme: str = "light", fixed: FixedScores | None = None
            ) -> list[tuple[str, Any]]:
    """(what it shows, matplotlib figure) of a run's log: the loss, and the error on held-out frames beside opponents; of a
    fine-tuning its score on validation frames.

    The shipped run's curves stand behind in pale dashes where they have the same unit; unless the run is scored on the very
    same frames their name says that theirs are others.

    Args:
        records: of the log.
        config: the run's, or None.
        fixed: scores on the fixed frames of the run's previews. Where these are fewer than the frames that the log scores,
            the opponents' lines and the run's own curve over them carry an asterisk: only they may be compared.
        theme: "light" or "dark".
    """
    if isinstance(config, FinetuneConfig):
        return finetuning_figures({"this run": records}, config.task, theme)
    found = []
    losses = [r for r in records if "loss" in r]
    losses = losses[::max(1, len(losses) // POINTS)]
    last = max((r["step"] for r in records), default=0)
    if losses:
        curve = reference_curve(config.name) if config is not None else []
        band = expected_band([r for r in curve if r["step"] <= max(last, losses[0]["step"])])
        found.append(("Training loss over the steps", loss_curve(losses, {"loss": "this run"}, band=band, theme=theme,
                                                                 ghosts=ghosts(config, "loss"), title="Training loss",
                                                                 size=CHART)))
    scores = [{"step": r["step"], **r["eval"]} for r in records if isinstance(r.get("eval"), dict)]
    key = next((name for name in NAMES if any(name in s for s in scores)), "")
    if key:
        lines, means = {}, [s["abs_rel_of_the_mean"] for s in scores if "abs_rel_of_the_mean" in s]
        if key == "abs_rel" and means:
            lines["mean of the visible"] = float(np.mean(means))
        shipped = _shipped_end(config) if key == "abs_rel" else None
        if shipped:
            lines[f"shipped, step {shipped[0]}"] = shipped[1]
        rows, names = [s for s in scores if key in s], {key: "this run"}
        star = ""
        if fixed is not None and key == "abs_rel":
            if config is None or fixed.frames != config.eval_frames:
                star, names["fixed"] = "*", "this run*"
                rows += [{"step": step, "fixed": score} for step, score in fixed.run]
            lines |= {f"{RIVALS[name]}{star}": score for name, score in fixed.rivals.items()}
        figure = loss_curve(rows, names, opponents=lines, y_label=NAMES[key], theme=theme, size=CHART,
                            ghosts=ghosts(config, key), log_scale=key == "abs_rel", title="Frames that it never trains on")
        if star:
            count = f"{fixed.frames} fixed frames" if fixed.frames > 1 else "one fixed frame"
            figure.axes[0].set_xlabel(f"step        * on the film's {count} alone")
        found.append((f"{NAMES[key]} on held-out frames, over the steps", figure))
    return found


def ghosts(config: PretrainConfig | None, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The shipped run's curve that may stand behind a run's, by its name in the chart: (steps, values).

    Args:
        config: of the run; None: nothing is known of it, and nothing stands behind it.
        key: "loss", smoothed, where both learn the same thing measured in the same way; or a score of the evaluations.
    """
    if config is None:
        return {}
    depth = "depth" in config.model.targets
    name = config.name if reference_curve(config.name) else SHIPPED if depth else SHIPPED_RGB
    other = _shipped_config() if name == SHIPPED else pretrain_config(*name.split("/"))
    if other is None or (key == "loss" and not _same_loss(config, other)):
        return {}
    rows = [(r["step"], (r if key == "loss" else r.get("eval", {})).get(key)) for r in reference_curve(name)]
    rows = [(step, value) for step, value in rows if isinstance(value, (int, float))]
    if len(rows) < 2:
        return {}
    steps, values = np.array(rows, float).T
    return {"shipped" if _same_frames(config, other) else OTHER_FRAMES:
            (steps, running_mean(values, SMOOTH) if key == "loss" else values)}


def _same_loss(one: PretrainConfig, other: PretrainConfig) -> bool:
    """Whether the numbers of two runs' losses mean the same."""
    what = lambda c: (c.loss, c.model.targets, c.model.target, c.model.anchor)  # noqa: E731
    return what(one) == what(other)


def _same_frames(one: PretrainConfig, other: PretrainConfig) -> bool:
    """Whether two runs are scored on the very same frames, at one size and hidden in the same way."""
    return one.model.image_size == other.model.image_size and all(
        getattr(one, name) == getattr(other, name) for name in SCORED_ON)


@lru_cache(maxsize=1)
def _shipped_config() -> PretrainConfig | None:
    """What the shipped checkpoint was trained with; None where it is not there."""
    path = shipped("data", "checkpoints", "tiny.json")
    return from_dict(PretrainConfig, json.loads(path.read_text())["training"], str(path)) if path.is_file() else None


def _shipped_end(config: PretrainConfig | None) -> tuple[int, float] | None:
    """(step, AbsRel) where the shipped run ended, for runs that are scored on its very frames, at its size and ratios."""
    other = _shipped_config()
    if config is None or other is None or not _same_frames(config, other):
        return None
    scores = [(r["step"], r["eval"]["abs_rel"]) for r in reference_curve(SHIPPED) if "abs_rel" in r.get("eval", {})]
    return scores[-1] if scores else None


__all__ = ["OTHER_FRAMES", "beside_each_other", "figures", "film_sheet", "ghosts"]
