"""Prints the README's score table from results/: python docs/tables.py [rooms tum_fr1_rpy ...]"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"
NAMES = {"Mask3D": "**Mask3D tiny, shipped**", "Mask3D, no colour": "Mask3D, all colour hidden",
         "Mask3D, colour another frame's": "Mask3D, another frame's colour", "mean": "mean of the visible",
         "nearest": "nearest visible pixel", "linear": "spline in depth", "linear_inverse": "spline in 1/depth",
         "color_guided": "colour-guided spline in 1/depth", "mean map": "training data's mean per pixel"}


def cell(values: dict | None) -> str:
    """AbsRel with its interval."""
    if values is None:
        return ""
    error = values["abs_rel"]
    band = "" if error["low"] is None else f" [{error['low']:.3f}, {error['high']:.3f}]"
    return f"{error['mean']:.4f}{band}"


def main() -> None:
    """One table; a column per data set and ratio."""
    files = [RESULTS / f"tiny_{name}.json" for name in sys.argv[1:] or ("rooms", "tum_fr1_rpy")]
    columns = [(path.stem[5:], block) for path in files for block in json.loads(path.read_text())["results"]]
    print("| hidden | " + " | ".join(f"{name} {b['ratios'][0]:.0%}/{b['ratios'][1]:.0%}" for name, b in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for key, label in NAMES.items():
        print(f"| {label} | " + " | ".join(cell(b["scores"].get(key)) for _, b in columns) + " |")
    for path in files:
        data = json.loads(path.read_text())["data"]
        print(f"\n{path.stem[5:]}: {data['frames']} frames of {data['sequences']} sequence(s)")


if __name__ == "__main__":
    main()
