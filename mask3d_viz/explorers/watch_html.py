"""A run's progress and the look of its panel, as HTML in the reader's theme."""

from __future__ import annotations

from html import escape

from mask3d_viz.curves import theme_variables
from mask3d_viz.run_status import RunStatus

SHORT = {"abs_rel": "AbsRel", "abs_rel_of_the_mean": "mean of the visible", "rgb_error": "colour error", "miou": "mIoU",
         "pixel_accuracy": "pixel accuracy", "mask_ap": "mask AP", "box_ap": "box AP"}


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


__all__ = ["STYLE", "progress_html"]
