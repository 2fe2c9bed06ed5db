"""``python -m benchmarks [NAME ...] [--quick] [--out FOLDER]``: run them one after the other, each in its own process."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("training", "inference", "memory", "data", "rooms", "pictures", "opponents")
HAS_QUICK = ("training", "inference", "memory")


def command(name: str, quick: bool, out: Path | None, device: str) -> list[str]:
    """How one benchmark is started."""
    parts = [sys.executable, "-m", f"benchmarks.{name}"]
    if quick and name in HAS_QUICK:
        parts.append("--quick")
    if name == "opponents":
        parts += ["--limit", "8"] if quick else []
    if out is not None:
        parts += ["--json" if name == "rooms" else "--out", str(out / f"{name}_{device}.json")]
    return parts


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks (all by default); 1 if one of them failed."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--out", type=Path, default=None, help="write one JSON record each into this folder")
    chosen = parser.parse_args(arguments)
    device = torch.cuda.get_device_name().split()[-1].lower() if torch.cuda.is_available() else "cpu"
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
    failed = []
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    for name in chosen.names or NAMES:
        print(f"\n== {name}", flush=True)
        began = time.perf_counter()
        done = subprocess.run(command(name, chosen.quick, chosen.out, device), env={**os.environ, "PYTHONPATH": path})
        print(f"   {time.perf_counter() - began:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
