"""Fine-tuning in the lab: one call over a labelled store, see :class:`mask3d_viz.explorers.finetuning_panel.FinetuningPanel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mask3d_viz.explorers.base import running_cell
from mask3d_viz.explorers.finetuning_panel import EVERY, FinetuningPanel
from mask3d_viz.finetuning_plans import RANDOM, plan_finetuning

_live: WeakValueDictionary[tuple[Path, str], FinetuningPanel] = WeakValueDictionary()  # by run folder and cell


def explore_finetuning(data: Any, start: str = RANDOM, beside: str = RANDOM, task: str = "segment",
                       run: str | Path = "runs/finetuning",
                       *, fresh: bool = False, device: str = "", every: float = EVERY, present: bool = False,
                       **changes: Any) -> FinetuningPanel:
    """Fine-tune a start and, beside it, a random one with the same labels; see :class:`FinetuningPanel`.

    A cell that is run again replaces its panel: the one before looks no more, the runs go on.

    Args:
        data: a prepared store with labels, or its folder.
        start, beside: "random", "shipped", "timm:<name>" or a checkpoint; beside "": the start alone.
        task: "segment", "depth" or "detect".
        run: folder that holds a run folder per start.
        fresh: take away what ended runs have left there, and begin again.
        device: "cpu" or "cuda"; "": the GPU if there is one.
        every: seconds between two looks.
        present: for the projector.
        changes: what else is trained how: steps, batch_size, image_size, head, label_fraction ...; see ``plan_finetuning``.

    Raises:
        ConfigError: impossible options, all at once. Mask3DError: the data is no prepared store.
    """
    runs = plan_finetuning(run, data, start, beside, task, device, **changes)
    key, cell = Path(run).resolve(), running_cell()
    if cell and (before := _live.get((key, cell))) is not None:
        before.close()
    for each in runs.values() if fresh else ():
        wanted = each._config
        if not each.look().is_alive:
            each.clear()
            each._config = wanted
    words = {"start": start, "beside": beside, "task": task, "run": str(run), **changes}
    usual = {"start": RANDOM, "beside": RANDOM, "task": "segment", "run": "runs/finetuning"}
    options = "".join(f", {k}={v!r}" for k, v in words.items() if usual.get(k) != v)
    panel = FinetuningPanel(runs, f"explore_finetuning({str(getattr(data, 'path', data))!r}{options})", every)
    if cell:
        _live[key, cell] = panel
    return panel.present() if present else panel


__all__ = ["FinetuningPanel", "explore_finetuning"]
