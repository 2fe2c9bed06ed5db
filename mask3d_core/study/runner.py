"""Runs a study: phase after phase, several small runs at a time on one device, and goes on where it was stopped.

Results are kept by what was run, not by where: a line each in ``RECORD.runs.jsonl``, so that a study whose record travels
to another machine does not repeat what is done. Weights of pre-trained encoders stay beside the study's folder and are made
again where they are missing and wanted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mask3d_core.errors import Mask3DError
from mask3d_core.progress import Bar
from mask3d_core.store import Store
from mask3d_core.study.config import StudyConfig, is_pretrained_here, said_of
from mask3d_core.study.data import study_stores
from mask3d_core.study.jobs import Job, key_of, start_worker, work
from mask3d_core.training.config import to_dict

FIRST = {"length": 1.0}


@dataclass
class Study:
    """A study under way.

    Args:
        config: what is studied.
        folder: its run folders; beside it lie the rooms and the pre-trained encoders, which studies share.
        record: where results are kept, ``study_NAME.runs.jsonl``; what other studies' records beside it hold is not run again.
        device: "cpu", "cuda" or None.
        workers: runs at a time, each in a process of its own with its share of the threads; 0: one after the other in this
            process (a notebook, a test).
    """

    config: StudyConfig
    folder: Path
    record: Path
    device: str | None = None
    workers: int = max(1, os.cpu_count() or 1)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    stores: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config.validate()
        self.folder, self.record = Path(self.folder), Path(self.record)
        for path in [*sorted(self.record.parent.glob("study_*.runs.jsonl")), self.record]:
            if path.is_file():
                self.results |= {result["key"]: result for result in map(json.loads, path.read_text().splitlines())}

    # ---- what is to be run ------------------------------------------------------------------------------------------

    def prepare(self, show: bool = True) -> None:
        """Render the rooms."""
        self.stores = study_stores(self.config, self.folder.parent / "rooms", show)
        self._origins = [Store(path).fingerprint for path in self.stores.values()]

    def pretraining(self, start: str, seed: int) -> Job:
        """The pre-training of a start."""
        values = to_dict(self.config.pretraining(start, seed, self.stores["train"]))
        return Job("pretrain", f"pretrain {start} seed {seed}", values, "", key_of("pretrain", values, "", self._origins[0]))

    def finetuning(self, start: str, condition: float | str, seed: int, choice: dict[str, float], is_trial: bool = False) -> Job:
        """A fine-tuning run of a start; trials use the pre-training of seed 0 and labels of a seed of their own.

        Args:
            condition: a label fraction, or a fold.
            choice: learning rate, layer decay and length.
            is_trial: scored on validation.
        """
        config, origin, path = self.config, start, start
        if is_pretrained_here(start):
            job = self.pretraining(start, 0 if is_trial else seed)
            origin, path = job.key, str(self.run_of(job))
        made = config.finetuning(path, condition, config.tune.seed if is_trial else seed, self.stores, choice, is_trial)
        values, split = to_dict(made), "val" if is_trial and not config.folds else "test"
        words = ", ".join(f"{k} {v:g}" for k, v in choice.items())
        name = f"{start} {said_of(condition)} " + (f"trial {words}" if is_trial else f"seed {seed}")
        return Job("finetune", name, values, split, key_of("finetune", values, split, origin, *self._origins))

    def run_of(self, job: Job) -> Path:
        """A job's run folder."""
        return (self.folder.parent if job.kind == "pretrain" else self.folder) / job.kind / job.key

    def phases(self) -> Iterator[tuple[str, list[Job]]]:
        """Phase by phase what is to be run; later ones follow from earlier results."""
        yield from self.trial_phases()
        cells = self._cells
        for seed in range(self.config.seeds):
            if seed:
                yield f"pre-training, seed {seed}", [self.pretraining(start, seed) for start in self._pretrained]
            yield f"fine-tuning and scoring, seed {seed}", [
                self.finetuning(start, condition, seed, self.choice(start, condition)) for start, condition in cells]

    def trial_phases(self) -> Iterator[tuple[str, list[Job]]]:
        """The phases that look at validation frames alone."""
        tune = self.config.tune
        yield "pre-training for the trials", [self.pretraining(start, 0) for start in self._pretrained]
        yield "choosing rates on validation", [
            self.finetuning(start, condition, 0, {"learning_rate": rate, "layer_decay": decay, **FIRST}, True)
            for start, condition in self._cells for rate in tune.learning_rates for decay in tune.layer_decays]
        longer = [length for length in tune.lengths if length != 1.0]
        yield "choosing lengths on validation", [
            self.finetuning(start, condition, 0, {**self.choice(start, condition, False), "length": length}, True)
            for start, condition in self._cells for length in longer]

    @property
    def _pretrained(self) -> list[str]:
        return [start for start in self.config.starts if is_pretrained_here(start)]

    @property
    def _cells(self) -> list[tuple[str, float | str]]:
        return [(start, condition) for condition in self.config.conditions for start in self.config.starts]

    def trials(self, start: str, condition: float | str, with_lengths: bool = True) -> list[tuple[dict[str, float], float]]:
        """Every choice tried and its validation score, higher is better; those that were run."""
        tune, found = self.config.tune, []
        choices = [{"learning_rate": rate, "layer_decay": decay, **FIRST} for rate in tune.learning_rates for decay in tune.layer_decays]
        if with_lengths and self.trials(start, condition, False):
            best = self.choice(start, condition, False)
            choices += [{**best, "length": length} for length in tune.lengths if length != 1.0]
        for choice in choices:
            result = self.results.get(self.finetuning(start, condition, 0, choice, True).key)
            if result is not None:
                found.append((choice, score_of(result)))
        return found

    def choice(self, start: str, condition: float | str, with_lengths: bool = True) -> dict[str, float]:
        """The learning rate, layer decay and length that were best on validation.

        Raises:
            Mask3DError: no trial has run.
        """
        found = self.trials(start, condition, with_lengths)
        if not found:
            raise Mask3DError("trials on validation", f"none of {start} at {said_of(condition)}", "Run the study.", self.record)
        return max(found, key=lambda entry: entry[1])[0]

    # ---- running ----------------------------------------------------------------------------------------------------

    def is_open(self, job: Job) -> bool:
        """Whether a job has still to be run: no result yet; of a pre-training also where its weights are gone."""
        if job.kind == "pretrain":
            return job.key not in self.results or not (self.run_of(job) / "latest.safetensors").is_file()
        return job.key not in self.results

    def needed(self, jobs: list[Job]) -> list[Job]:
        """The open jobs; pre-trainings whose results are known are made again only if somebody still needs their weights."""
        return [job for job in jobs if self.is_open(job)]

    def run(self, show: bool = True, deadline: float | None = None, only_trials: bool = False) -> bool:
        """Run everything that is open. Ctrl-C stops; the same call goes on.

        Args:
            show: progress bars.
            deadline: seconds since 1970, after which no further phase begins.
            only_trials: stop before the first test frame is scored.

        Returns:
            True when all that was asked for is done.

        Raises:
            Mask3DError: a run failed; the others' results are kept.
        """
        self.prepare(show)
        threads = max(1, (os.cpu_count() or 1) // max(1, self.workers))
        own = _Here() if not self.workers else ProcessPoolExecutor(self.workers, get_context("spawn"), start_worker, (threads,))
        with own as pool:
            for words, jobs in self.trial_phases() if only_trials else self.phases():
                if deadline is not None and time.time() > deadline:
                    return False
                waiting = self.needed(jobs)
                if waiting:
                    self._run_phase(pool, words, waiting, len(jobs), show)
        return True

    def _run_phase(self, pool: Executor, words: str, jobs: list[Job], total: int, show: bool) -> None:
        with Bar(words, total, total - len(jobs), unit="run", show=show) as bar:
            waiting = {pool.submit(work, {"job": asdict(job), "run": str(self.run_of(job)), "device": self.device}): job
                       for job in jobs}
            try:
                for done in as_completed(waiting):
                    answer = done.result()
                    if "error" in answer:
                        raise Mask3DError(f"{waiting[done].name} to finish", answer["error"],
                                          "Run the study again to go on.", self.run_of(waiting[done]))
                    self._keep(answer["result"])
                    bar.advance()
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise

    def _keep(self, result: dict[str, Any]) -> None:
        """A result, in memory and on a line of its own."""
        self.results[result["key"]] = result
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with open(self.record, "a") as file:
            file.write(json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def own_results(self) -> list[dict[str, Any]]:
        """The results that are this study's: other records beside its own are read as well."""
        keys: set[str] = set()
        try:
            for _, jobs in self.phases():
                keys |= {job.key for job in jobs}
        except Mask3DError:  # later phases follow from results that are not there yet
            pass
        return [result for key, result in self.results.items() if key in keys]

    def status(self) -> dict[str, int]:
        """How many runs are done, of those that are known so far."""
        done = total = 0
        try:
            for _, jobs in self.phases():
                total += len(jobs)
                done += sum(job.key in self.results for job in jobs)
        except Mask3DError:  # later phases follow from results that are not there yet
            pass
        return {"done": done, "known": total, "all": planned_runs(self.config)}


class _Here(Executor):
    """Runs in this process, when they are submitted."""

    def submit(self, action, /, *arguments, **options) -> Future:
        future: Future = Future()
        future.set_result(action(*arguments, **options))
        return future


def planned_runs(config: StudyConfig) -> int:
    """How many runs a study has."""
    pretrained = sum(is_pretrained_here(start) for start in config.starts)
    cells = len(config.starts) * len(config.conditions)
    return pretrained * config.seeds + cells * config.tune.trials + cells * config.seeds


def score_of(result: dict[str, Any]) -> float:
    """The score that trials are compared by, higher is better: mIoU, or minus AbsRel."""
    scores = result["scores"]["scores"]["model"]
    return scores["miou"] if "miou" in scores else -scores["abs_rel"]["mean"]
