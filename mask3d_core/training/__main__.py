"""``python -m mask3d_core.training CONFIG.json RUN``: pre-train on a machine that has only torch, timm, numpy, safetensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mask3d_core.errors import Mask3DError
from mask3d_core.training.config import PretrainConfig, from_dict
from mask3d_core.training.pretraining import pretrain


def main(arguments: list[str]) -> int:
    """Run; 0 finished, 130 stopped and saved, 2 a wrong input."""
    if len(arguments) != 2:
        print("usage: python -m mask3d_core.training CONFIG.json RUN", file=sys.stderr)
        return 2
    try:
        values = json.loads(Path(arguments[0]).read_text())
        result = pretrain(from_dict(PretrainConfig, values, arguments[0]), arguments[1])
    except (Mask3DError, OSError, json.JSONDecodeError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps({"step": result.step, "metrics": result.metrics, "frames_per_second": result.frames_per_second}))
    return 0 if result.is_finished else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
