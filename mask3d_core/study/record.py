"""What a recorded study must say of itself: command, versions, hardware, configuration."""

from __future__ import annotations

import platform
from datetime import date
from typing import Any

import numpy as np
import timm
import torch

import mask3d_core
from mask3d_core.study.config import fingerprint
from mask3d_core.study.runner import Study
from mask3d_core.training.config import to_dict


def described(study: Study) -> dict[str, Any]:
    """Plain JSON values."""
    results = study.own_results()
    return {"command": f"mask3d study {study.config.name}", "config": to_dict(study.config), "fingerprint": fingerprint(study.config),
            "date": date.today().isoformat(), "code_version": mask3d_core.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() and study.device != "cpu" else "cpu",
            "machine": platform.machine(), "workers": study.workers, "run_minutes": round(sum(r["seconds"] for r in results) / 60, 1),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
                         "numpy": np.__version__}}
