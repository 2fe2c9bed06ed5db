"""What each level of furniture in the rendered rooms is worth on real frames that nobody trained on.

    python -m benchmarks.furniture [--data ../shared/data] [--levels 0 1 ...] [--seeds 2] [--frames 384] [--steps 400]
                                   [--quick] [--out results/furniture_cpu.json]

Per level and seed: rooms are rendered with that much furniture, a small Mask3D (the demo's: no anchor, 80/80) is trained
on them from scratch, and its AbsRel over hidden pixels is measured on real recordings. A seed changes the rooms, the
weights, the order and the masks; the levels of one seed share all but the furniture, so neighbours are compared in pairs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from mask3d_core.evaluation import student_interval
from mask3d_core.evaluation.evaluate import MODEL, EvaluateConfig, evaluate
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import open_source
from mask3d_core.sources.opening import open_path
from mask3d_core.store import Store
from mask3d_core.training.checkpoint import load_model
from mask3d_core.training.pretraining import pretrain
from mask3d_viz.demo import DemoSettings, scratch_config

SETS = {"tum": "tum_fr1_rpy", "icl": "icl_livingroom1", "redwood": "open3d_rgbd_samples/RGBD"}


def real_stores(data: Path, place: Path) -> dict[str, Store]:
    """The recordings found under ``data``, prepared, all frames of each in one split."""
    found = {}
    for name, folder in SETS.items():
        if (data / folder).is_dir():
            found[name] = prepare(open_path(data / folder), place / name, PrepareConfig(split="test"), progress=False)
    return found


def one_run(level: int, seed: int, stores: dict[str, Store], frames: int, steps: int, limit: int, place: Path
            ) -> dict[str, float]:
    """Render, train, measure; AbsRel per recording."""
    source = open_source("rooms", count=frames, seed=5000 + seed, views_per_room=2, furniture=level, sensor=0.35,
                         height=256, width=336)
    store = prepare(source, place / f"rooms-{level}-{seed}", PrepareConfig(val_share=0.0, test_share=0.0), progress=False)
    config = scratch_config(str(store.path), DemoSettings(scratch_steps=steps))
    config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, seed=seed, eval_every=0),
                                 mask=dataclasses.replace(config.mask, seed=seed))
    run = place / f"run-{level}-{seed}"
    pretrain(config, run, show=False)
    model, record = load_model(run)
    scores = {}
    for name, real in stores.items():
        result = evaluate(model, record, real, EvaluateConfig(((0.8, 0.8),), draws=1, limit=limit, opponents=False))
        scores[name] = result["results"][0]["scores"][MODEL]["abs_rel"]["mean"]
    return scores


class Done:
    """The runs that an earlier, broken-off call has finished; one line each in ``OUT.runs.jsonl``, which the end removes."""

    def __init__(self, options: argparse.Namespace):
        self.path = options.out.with_suffix(".runs.jsonl") if options.out else None
        self.settings = {"frames": options.frames, "steps": options.steps, "limit": options.limit}
        lines = self.path.read_text().splitlines() if self.path and self.path.is_file() else []
        self.found = {(run["level"], run["seed"]): run["abs_rel"] for run in map(json.loads, lines)
                      if run["settings"] == self.settings}

    def get(self, level: int, seed: int) -> dict[str, float] | None:
        """AbsRel per recording, or None."""
        return self.found.get((level, seed))

    def beyond(self, runs: list[dict]) -> list[dict]:
        """What else was finished: of a seed that was broken off."""
        known = {(run["level"], run["seed"]) for run in runs}
        return [{"level": level, "seed": seed, "abs_rel": scores} for (level, seed), scores in self.found.items()
                if (level, seed) not in known]

    def add(self, level: int, seed: int, scores: dict[str, float]) -> None:
        """Remember one more."""
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps({"level": level, "seed": seed, "abs_rel": scores, "settings": self.settings}) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run, print as it goes, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5, 6])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--frames", type=int, default=384, help="rendered per level and seed")
    parser.add_argument("--steps", type=int, default=400, help="of 16 frames")
    parser.add_argument("--limit", type=int, default=60, help="frames scored per recording")
    parser.add_argument("--quick", action="store_true", help="two levels, a few steps")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.quick:
        options.levels, options.seeds, options.frames, options.steps, options.limit = [0, 6], 1, 16, 4, 4
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        stores = real_stores(options.data, Path(scratch))
        if not stores:
            parser.error(f"no recording of {', '.join(SETS.values())} under {options.data}")
        done, runs = Done(options), []
        for seed in range(options.seeds):
            for level in options.levels:
                scores = done.get(level, seed)
                if scores is None:
                    scores = one_run(level, seed, stores, options.frames, options.steps, options.limit, Path(scratch))
                    done.add(level, seed, scores)
                runs.append({"level": level, "seed": seed, "abs_rel": scores})
                print(f"level {level} seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items()), flush=True)
    mean = {(run["level"], run["seed"]): sum(run["abs_rel"].values()) / len(run["abs_rel"]) for run in runs}
    summary, steps = {}, {}
    for before, level in zip([None, *options.levels], options.levels):
        own = [mean[level, seed] for seed in range(options.seeds)]
        words = f"AbsRel {sum(own) / len(own):.4f}"
        if before is not None:
            estimate = student_interval([mean[level, s] - mean[before, s] for s in range(options.seeds)])
            steps[str(level)] = estimate.as_dict()
            words += f", {estimate.mean:+.4f} against level {before}"
            words += "" if estimate.low is None else f" [{estimate.low:+.4f}, {estimate.high:+.4f}]"
        summary[f"furniture level {level}"] = words
    print("\n".join(f"{name}: {words}" for name, words in summary.items()))
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("data", "out")}
        options.out.write_text(json.dumps({**machine(), "settings": settings, "recordings": {
            name: len(store) for name, store in stores.items()}, "runs": runs, "runs_of_unfinished_seeds": done.beyond(runs), "against_the_level_before": steps,
            "summary": summary, "seconds": round(time.perf_counter() - began, 1)}, indent=1) + "\n")
        if done.path.is_file():
            done.path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
