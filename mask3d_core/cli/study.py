"""The command study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mask3d_core.cli.options import Positional, change_config


@dataclass(frozen=True)
class Study:
    """What did pre-training buy? Starts x label fractions x seeds, chosen fairly on validation, with intervals. Resumable."""

    name: Positional[Literal["primary", "recipe", "starts", "depth", "tables", "long", "factors", "ratios", "strange"]] = "primary"
    """Which study; "primary" is the one whose endpoint was named before it ran, the others are exploratory."""
    folder: Path = Path("runs/study")
    """Run folders and rooms."""
    record: Path | None = None
    """Where results are kept; none: results/study_NAME.runs.jsonl."""
    workers: int | None = None
    """Runs at a time; none: one per core."""
    device: str | None = None
    """"cpu" or "cuda"; none: the GPU if there is one."""
    here: bool = False
    """Score every run on this machine: of other studies' records only trials are taken, and what ran on the same device in the same
    precision. For comparing starts whose runs were recorded on different machines."""
    plan: bool = False
    """Measure a few steps, print runs and time, and stop."""
    budget: float | None = None
    """Minutes that it may take: fewer seeds, then fewer steps, are planned until it fits."""
    trials: bool = False
    """Stop before any test frame is scored: run what is chosen on validation frames, and print that."""
    report: bool = False
    """Run nothing: read what is there, print the table, write the figure. With --trials: of the trials alone."""
    set: tuple[str, ...] = ()
    """Any key of the study as path=json, e.g. seeds=3 rooms.train_rooms=500; `mask3d keys study` lists all."""

    def run(self) -> int:
        """0 whole, 130 something is left."""
        import os

        from mask3d_core.study.budget import fit_budget, measure
        from mask3d_core.study.config import STUDIES
        from mask3d_core.study.left import all_open_trials
        from mask3d_core.study.runner import Study as Running
        from mask3d_core.study.starts import with_reachable

        config = change_config(STUDIES[self.name], self.set)
        workers = self.workers or max(1, os.cpu_count() or 1)
        record = self.record or Path(f"results/study_{config.name}.runs.jsonl")
        study, left_out = with_reachable(Running(config, self.folder / config.name, record, self.device, workers, here=self.here), not self.report)
        print("\n".join(left_out), end="\n" if left_out else "")
        if self.plan or self.budget is not None:
            cost = measure(study.config, self.device, workers, study=study)
            cut: list[str] = []
            if self.budget is not None:
                cost, cut = fit_budget(cost, self.budget)
            print("\n".join([cost.text(), *cut]))
            study = study.with_config(cost.config)
            if self.plan:
                return 0
        if self.trials:
            is_whole = not all_open_trials(study) if self.report else study.run(only_trials=True)
            _report_trials(study)
            return 0 if is_whole else 130
        if self.report:
            study.locate()
            is_whole = study.status()["done"] >= study.status()["all"]
        else:
            is_whole = study.run()
        _report_study(study, left_out)
        return 0 if is_whole else 130


def _report_trials(study) -> None:
    """What was tried, in words and as JSON beside the record."""
    from mask3d_core.files import write_json
    from mask3d_core.study.analysis import trials_text, trials_values
    from mask3d_core.study.record import described

    values = trials_values(study)
    print(trials_text(values))
    path = study.record.with_name(study.record.name.removesuffix(".runs.jsonl") + "_trials.json")
    write_json(path, {**values, **described(study), "command": f"mask3d study {study.config.name} --trials"})
    print(f"written to {path}")


def _report_study(study, left_out: list[str]) -> None:
    """The table, the findings as JSON beside the record, and the figure."""
    from mask3d_core.files import write_json
    from mask3d_core.study.analysis import as_values, findings, text_of
    from mask3d_core.study.record import described
    from mask3d_viz.pixels import save_png
    from mask3d_viz.study_view import study_image

    found = findings(study)
    print(text_of(found))
    base = study.record.with_name(study.record.name.removesuffix(".runs.jsonl"))
    write_json(base.with_name(base.name + ".json"), {**as_values(found), **described(study), "left_out": left_out})
    for theme in ("light", "dark"):
        save_png(study_image(as_values(found), theme=theme), base.with_name(f"{base.name}{'' if theme == 'light' else '_dark'}.png"))
    print(f"written to {base}.json and {base}.png")
