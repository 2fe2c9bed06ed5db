"""The pre-flights of runs side by side as one list, and what only the pair can say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mask3d_core.doctor.report import Finding
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_viz.runs import Run


def merged(found: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """The findings of several runs as one list: what is the same is said once, what differs with the run's name.

    Args:
        found: name of a run to its findings.
    """
    lists = list(found.values())
    same = {(f.check, f.severity, f.text) for f in lists[0]}.intersection(
        *({(f.check, f.severity, f.text) for f in each} for each in lists[1:])) if lists else set()
    order = list(dict.fromkeys(f.check for each in lists for f in each))
    made = []
    for check in order:
        for name, each in found.items():
            for f in each:
                key = (f.check, f.severity, f.text)
                if f.check != check or (key in same and name != next(iter(found))):
                    continue
                made.append(f if key in same else Finding(f.check, f.severity, f"{name}: {f.text.removeprefix(f'{name}: ')}",
                                                          f.numbers))
    return made


def verdict(findings: Sequence[Finding]) -> str:
    """The list in one sentence."""
    errors, warnings = (sum(f.severity == s for f in findings) for s in ("error", "warn"))
    if errors:
        return f"{errors} of {len(findings)} say stop: mend them before this can start."
    return f"Ready to start; {warnings} to look at." if warnings else "All green: ready to start."


def other_run(run: Run, planned: FinetuneConfig) -> list[Finding]:
    """Whether a run folder holds a run with another configuration, which Start would not train."""
    if run.config == planned:
        return []
    return [Finding("run folder", "error", f"{run.folder} holds a run with other options; choose another run=, or fresh=True")]


def side_by_side(found: dict[str, Sequence[Finding]]) -> list[Finding]:
    """Whether the starts can be compared: the same network, so that only the weights differ."""
    shapes = {name: (f.numbers["blocks"], f.numbers["width"], f.numbers["patch"]) for name, each in found.items()
              for f in each if f.check == "start" and "patch" in f.numbers}
    if len(shapes) < 2:
        return []
    names = " and ".join(shapes)
    if len(set(shapes.values())) == 1:
        return [Finding("side by side", "ok", f"{names} are the same network, with the same labels in the same order: only "
                        "the weights differ that they start from. They train at once and share the machine, so each "
                        "takes longer than measured alone")]
    said = "; ".join(f"{name}: {b} blocks of width {w}, patches of {p}" for name, (b, w, p) in shapes.items())
    return [Finding("side by side", "warn", f"not the same network, so a difference is not of the weights alone ({said})")]


__all__ = ["merged", "other_run", "side_by_side", "verdict"]
