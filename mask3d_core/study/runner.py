"""Runs a study: phase after phase, several small runs at a time on one device, and goes on where it was stopped.

Results are kept by what was run, not by where, and rooms by how they are made, so that a study whose record travels to another
machine, with a processor that rounds otherwise, does not repeat what is done. Weights of pre-trained encoders stay beside the
study's folder and are made again where they are missing and a run that is still open needs them.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mask3d_core.errors import Mask3DError
from mask3d_core.progress import Bar
from mask3d_core.store import Store
from mask3d_core.study.config import StudyConfig, is_pretrained_here, said_of
from mask3d_core.study.data import described, store_paths, study_stores
from mask3d_core.study.jobs import Job, diverged, has_diverged, key_of, machine, score_of, start_worker, work
from mask3d_core.study.left import planned_runs
from mask3d_core.study.results import Results, look_of, looks_alike
from mask3d_core.study.starts import start_key
from mask3d_core.training.checkpoint import read_json
from mask3d_core.training.config import to_dict


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
        here: score every run on this machine: of other studies' records only trials are taken, and what was run on one of this device
            and precision; all that is used is written into the own record.

    Raises:
        ConfigError: an impossible study.
        Mask3DError: a damaged record.
    """

    config: StudyConfig
    folder: Path
    record: Path
    device: str | None = None
    workers: int = max(1, os.cpu_count() or 1)
    stores: dict[str, Path] = field(default_factory=dict)
    here: bool = False

    def __post_init__(self) -> None:
        self.config.validate()
        self.folder, self.record = Path(self.folder), Path(self.record)
        self._kept = Results(self.record, machine(self.device) if self.here else None)
        self._described = described(self.config)
        self._pretrainings: dict[str, Job] = {}
        self._jobs: dict[tuple, Job] = {}  # as first asked for: keys are asked for again and again, and take milliseconds

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """By key; of other studies' records too."""
        return self._kept.by_key

    # ---- what is to be run ------------------------------------------------------------------------------------------

    def locate(self) -> None:
        """Know where the frames would lie, and hence every key; nothing is rendered or read."""
        self.stores = self.stores or store_paths(self.config, self._rooms)

    def prepare(self, show: bool = True) -> None:
        """Render the rooms. They may differ from the recorded ones by rounding (another processor), not by more.

        Raises:
            Mask3DError: the real frames are not there, or the frames are not those of the record.
        """
        self.stores, self._jobs = study_stores(self.config, self._rooms, show), {}
        opened = {part: Store(path) for part, path in self.stores.items()}
        of, looks = self._described, {part: look_of(store) for part, store in opened.items()}
        for line in self._kept.stores_of(of):
            other = [part for part, look in line["looks"].items() if not looks_alike(look, looks[part])]
            if other:
                raise Mask3DError("the frames of the record", f"others in {', '.join(other)}: their count, names, depth, colour or classes "
                                  "differ (another renderer, or other frames in that folder)", "Choose another record.", self.record)
        if not self._kept.has_own_stores:
            self._kept.keep_stores(of, {part: store.fingerprint for part, store in opened.items()}, looks)

    @property
    def _rooms(self) -> Path:
        return self.folder.parent / "rooms"

    def pretraining(self, start: str, seed: int) -> Job:
        """The pre-training of a start."""
        if (start, seed) in self._jobs:
            return self._jobs[start, seed]
        values = to_dict(self.config.pretraining(start, seed, self.stores["train"]))
        job = Job("pretrain", f"pretrain {start} seed {seed}", values, "", key_of("pretrain", values, "", self._described["train"]))
        self._pretrainings[job.key] = self._jobs[start, seed] = job
        return job

    def finetuning(self, start: str, condition: float | str, seed: int, choice: dict[str, float], is_trial: bool = False) -> Job:
        """A fine-tuning run of a start; trials use the pre-training of seed 0 and labels of a seed of their own.

        Args:
            condition: a label fraction, or a fold.
            choice: learning rate, layer decay and length.
            is_trial: scored on validation.
        """
        asked = (start, condition, seed, tuple(sorted(choice.items())), is_trial)
        if asked not in self._jobs:
            self._jobs[asked] = self._finetuning(start, condition, seed, choice, is_trial)
        return self._jobs[asked]

    def _finetuning(self, start: str, condition: float | str, seed: int, choice: dict[str, float], is_trial: bool) -> Job:
        config, path, pretrained = self.config, start, ""
        origin = start_key(start)
        if is_pretrained_here(start):
            job = self.pretraining(start, 0 if is_trial else seed)
            origin, path, pretrained = job.key, str(self.run_of(job)), job.key
        made = config.finetuning(path, condition, config.tune.seed if is_trial else seed, self.stores, choice, is_trial)
        values, split = to_dict(made), "val" if is_trial and not config.folds else "test"
        words = ", ".join(f"{k} {v:g}" for k, v in choice.items())
        name = f"{start} {said_of(condition)} " + (f"trial {words}" if is_trial else f"seed {seed}")
        return Job("finetune", name, values, split, key_of("finetune", values, split, origin, *self._described.values()), pretrained)

    def run_of(self, job: Job) -> Path:
        """A job's run folder."""
        return (self.folder.parent if job.kind == "pretrain" else self.folder) / job.kind / job.key

    def phases(self) -> Iterator[tuple[str, list[Job]]]:
        """Phase by phase what is to be run; later ones follow from earlier results."""
        yield from self.trial_phases()
        for seed in range(self.config.seeds):
            if seed:
                yield f"pre-training, seed {seed}", [self.pretraining(start, seed) for start in self.pretrained]
            yield f"fine-tuning and scoring, seed {seed}", [
                self.finetuning(start, condition, seed, self.choice(start, condition)) for start, condition in self.cells]

    def trial_phases(self) -> Iterator[tuple[str, list[Job]]]:
        """The phases that look at validation frames alone."""
        tune = self.config.tune
        yield "pre-training for the trials", [self.pretraining(start, 0) for start in self.pretrained]
        yield "choosing rates on validation", [
            self.finetuning(start, condition, 0, choice, True) for start, condition in self.cells for choice in tune.grid]
        yield "choosing lengths on validation", [
            self.finetuning(start, condition, 0, {**self.choice(start, condition, False), "length": length}, True)
            for start, condition in self.cells for length in tune.longer_for(start)]

    @property
    def pretrained(self) -> list[str]:
        """The starts that the study trains itself."""
        return [start for start in self.config.starts if is_pretrained_here(start)]

    @property
    def cells(self) -> list[tuple[str, float | str]]:
        """Every start under every condition."""
        return [(start, condition) for condition in self.config.conditions for start in self.config.starts]

    def trials(self, start: str, condition: float | str, with_lengths: bool = True) -> list[tuple[dict[str, float], float]]:
        """Every choice tried and its validation score, higher is better, minus infinity where it diverged; those that were run."""
        tune, found = self.config.tune, []
        choices = tune.grid
        if with_lengths and self.trials(start, condition, False):
            best = self.choice(start, condition, False)
            choices += [{**best, "length": length} for length in tune.longer_for(start)]
        for choice in choices:
            result = self.results.get(self.finetuning(start, condition, 0, choice, True).key)
            if result is not None:
                found.append((choice, score_of(result)))
        return found

    def choice(self, start: str, condition: float | str, with_lengths: bool = True) -> dict[str, float]:
        """The learning rate, layer decay and length that were best on validation.

        Raises:
            Mask3DError: no trial has run, or all of them diverged.
        """
        found = self.trials(start, condition, with_lengths)
        if not found:
            raise Mask3DError("trials on validation", f"none of {start} at {said_of(condition)}", "Run the study.", self.record)
        best, score = max(found, key=lambda entry: entry[1])
        if not math.isfinite(score):
            raise Mask3DError("a trial with a finite score", f"none of the {len(found)} of {start} at {said_of(condition)}",
                              "Lower tune.learning_rates.", self.record)
        return best

    def with_config(self, config: StudyConfig) -> Study:
        """The same results, folder and record under another configuration."""
        made = copy.copy(self)
        made.config, made.stores, made._described, made._pretrainings, made._jobs = config, {}, described(config), {}, {}
        return made

    # ---- running ----------------------------------------------------------------------------------------------------

    def needed(self, jobs: list[Job]) -> list[Job]:
        """The jobs without a result."""
        return [job for job in jobs if job.key not in self.results]

    def missing_weights(self, jobs: list[Job]) -> list[Job]:
        """The pre-trainings whose weights these fine-tunings want and do not find, though their results are known."""
        keys = dict.fromkeys(job.origin for job in jobs if job.origin)
        wanted = [self._pretrainings[key] for key in keys if not has_diverged(self.results.get(key))]
        return [job for job in wanted if not self.has_weights(job)]

    def has_weights(self, job: Job) -> bool:
        """Whether the weights of a pre-training are there, those of its last step: one that was broken off publishes its own too."""
        run = self.run_of(job)
        return (run / "latest.safetensors").is_file() and (run / "latest.json").is_file() and (
            read_json(run / "latest.json").get("step") == job.steps)

    def run(self, show: bool = True, deadline: float | None = None, only_trials: bool = False) -> bool:
        """Run everything that is open. Ctrl-C stops; the same call goes on.

        A run that diverges is written down as such: a trial that lost, or a seed that is left out and named.

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
                waiting = self.needed(jobs)
                if self.here:
                    self._kept.adopt(job.key for job in jobs)
                if not waiting:
                    continue
                if deadline is not None and time.time() > deadline:
                    return False
                again = self.missing_weights(waiting)
                if again:
                    self._run_phase(pool, "pre-training once more: weights are gone", again, len(again), show)
                self._run_phase(pool, words, waiting, len(jobs), show)
        return True

    def _run_phase(self, pool: Executor, words: str, jobs: list[Job], total: int, show: bool) -> None:
        failed: list[tuple[Job, str]] = []
        with Bar(words, total, total - len(jobs), unit="run", show=show) as bar:
            waiting: dict[Future, Job] = {}
            for job in jobs:
                if has_diverged(self.results.get(job.origin)):
                    self._kept.keep(diverged(job, "its pre-training diverged"))
                    bar.advance()
                else:
                    waiting[pool.submit(work, {"job": asdict(job), "run": str(self.run_of(job)), "device": self.device})] = job
            try:
                for done in as_completed(waiting):
                    if done.cancelled():
                        continue
                    answer = done.result()
                    if "error" in answer:  # what has begun may end and is kept; nothing else begins
                        failed.append((waiting[done], answer["error"]))
                        for future in waiting:
                            future.cancel()
                        continue
                    self._kept.keep(answer["result"])
                    bar.advance()
            except BrokenProcessPool as problem:
                raise Mask3DError("worker processes that live", "one was killed, most often because memory was full; what had ended is kept",
                                  f"Run the study again with fewer --workers than {self.workers}; it goes on.", self.folder) from problem
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise
        if failed:
            job, error = failed[0]
            raise Mask3DError(f"{job.name} to finish", error + (f" (and {len(failed) - 1} more)" if failed[1:] else ""),
                              "Run the study again to go on.", self.run_of(job))

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
