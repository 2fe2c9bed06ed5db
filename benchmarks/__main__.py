"""Run all benchmarks, or some, each in a process of its own; print one table and write one JSON per benchmark.

    python -m benchmarks [NAME ...] [--quick] [--out results/] [--list]
    python -m benchmarks training --gpu --preset base      (one name: its own arguments may follow)

One that fails, or misses something optional, costs one line; the others run all the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is run.

    Args:
        quick: arguments that make it short.
        out: its flag for the JSON file.
        needs: packages it cannot do without, beyond what training needs.
        without_data: arguments where the real frames (../shared/data beside the project) are absent.
        uses_gpu: whether its numbers are the GPU's where there is one.
        needs_data: whether it can do nothing without the real frames.
    """

    quick: tuple[str, ...] = ("--quick",)
    out: str = "--out"
    needs: tuple[str, ...] = ()
    without_data: tuple[str, ...] = ()
    uses_gpu: bool = False
    needs_data: bool = False


BENCHMARKS = {
    "training": Benchmark(uses_gpu=True),
    "finetuning": Benchmark(),
    "inference": Benchmark(uses_gpu=True),
    "rooms": Benchmark(("--frames", "4", "--repeats", "1"), "--json", uses_gpu=True),
    "data": Benchmark(("--frames", "8"), needs=("PIL",)),
    "memory": Benchmark(),
    "opponents": Benchmark(("--limit", "4"), without_data=("--sets", "rooms")),
    "pictures": Benchmark(("--repeats", "3"), needs=("matplotlib",)),
    "furniture": Benchmark(needs=("PIL",), needs_data=True),
    "colors": Benchmark(),
    "lab": Benchmark(needs=("jupyterlab", "anywidget", "plotly", "playwright")),
}
HELPERS = ("training_gpu",)


def summary_of(record: dict[str, Any]) -> dict[str, str]:
    """Label to words: the record's own summary, or every number in it that a person can read at a glance."""
    if isinstance(record.get("summary"), dict):
        return {str(k): str(v) for k, v in record["summary"].items()}
    found: dict[str, str] = {}

    def walk(values: Any, path: str) -> None:
        for key, value in values.items():
            name = f"{path}{key}".replace("_", " ")
            if isinstance(value, dict) and key != "versions":
                walk(value, f"{path}{key}: ")
            elif isinstance(value, float) and not str(key).startswith("fastest"):
                found[name] = f"{value:,.4g}"

    walk({k: v for k, v in record.items() if k not in ("load_average", "settings")}, "")
    return found


def device_tag() -> str:
    """"cpu", or the GPU's short name ("h100") for the names of the records."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    words = torch.cuda.get_device_name().lower().replace("nvidia", "").split()
    return words[0] if words else "gpu"


def run_one(name: str, quick: bool, out: Path, device: str, more: list[str]) -> tuple[dict[str, str], bool]:
    """Run one benchmark and complete its record.

    Returns:
        Its rows of the table, and whether nothing failed.
    """
    how = BENCHMARKS.get(name, Benchmark())
    missing = [package for package in how.needs if importlib.util.find_spec(package) is None]
    if missing:
        return {"left out": f"{', '.join(missing)} is not installed"}, True
    file = out / f"{name}_{device if how.uses_gpu else 'cpu'}.json"
    has_data = (ROOT.parent / "shared" / "data").is_dir()
    if how.needs_data and not has_data:
        return {"left out": "the real frames (../shared/data beside the project) are not on this machine"}, True
    command = [sys.executable, "-m", f"benchmarks.{name}", how.out, str(file), *(how.quick if quick else ()),
               *(() if has_data else how.without_data), *more]
    load, start = os.getloadavg()[0] if hasattr(os, "getloadavg") else None, time.time()
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode or not file.is_file() or file.stat().st_mtime < start - 2:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"failed": f"{last[:160]} (see: {' '.join(command[1:])})"}, False
    record = json.loads(file.read_text())
    rows = summary_of(record)
    from benchmarks import machine

    # what a benchmark says of itself goes before what the runner can tell
    record = {**machine(), "load_average_before": load, **record, "quick": quick, "seconds": round(time.time() - start, 1)}
    file.write_text(json.dumps(record, indent=1) + "\n")
    return rows, True


def table(found: dict[str, dict[str, str]]) -> str:
    """All rows, aligned, under their benchmark's name."""
    width = max((len(label) for rows in found.values() for label in rows), default=0)
    lines = []
    for name, rows in found.items():
        lines += [name, *(f"  {label:<{width}}  {words}" for label, words in rows.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and say where the records are; 1 when one failed."""
    there = sorted(path.stem for path in Path(__file__).parent.glob("*.py")
                   if not path.stem.startswith("_") and path.stem not in HELPERS)
    names = [name for name in BENCHMARKS if name in there] + [name for name in there if name not in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a minute or two in all; rougher numbers")
    parser.add_argument("--out", type=Path, help="folder of the JSON records; default: results/, or nowhere with --quick")
    parser.add_argument("--list", action="store_true", help="the names alone")
    options, more = parser.parse_known_args(arguments)
    if more and len(options.names) != 1:
        parser.error(f"{' '.join(more)}: arguments of a benchmark follow a single name")
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"expected names of {', '.join(names)}; got {', '.join(unknown)}")
    if options.list:
        print("\n".join(names))
        return 0
    found, is_good, device = {}, True, device_tag()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or (Path(scratch) if options.quick else ROOT / "results")
        out = out.resolve()
        out.mkdir(parents=True, exist_ok=True)
        for name in options.names or names:
            print(f"{name} ...", flush=True)
            found[name], ran = run_one(name, options.quick, out, device, more)
            is_good &= ran
        print("\n" + table(found))
        if options.out or not options.quick:
            print(f"records in {out}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
