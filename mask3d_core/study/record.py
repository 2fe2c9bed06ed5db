"""What a recorded study must say of itself: command, what it ran on and when, versions, configuration."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import timm
import torch

import mask3d_core
from mask3d_core.shipped import HOME
from mask3d_core.study.config import STUDIES, fingerprint
from mask3d_core.study.runner import Study
from mask3d_core.training.config import to_dict


def described(study: Study) -> dict[str, Any]:
    """Plain JSON values: "ran" is what each run noted of itself when it ran, "reported" what this report was made with."""
    results = study.own_results()
    return {"command": command_of(study), "config": to_dict(study.config), "fingerprint": fingerprint(study.config),
            "workers": study.workers, "run_minutes": round(sum(r["seconds"] for r in results) / 60, 1), "ran": ran(results),
            "reported": {"date": date.today().isoformat(), "code_version": mask3d_core.__version__, "commit": commit(),
                         "python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
                         "numpy": np.__version__}}


def command_of(study: Study) -> str:
    """The command that runs such a study, with the keys that were changed."""
    known, config = STUDIES.get(study.config.name), study.config
    if known and set(config.starts) - set(known.starts) <= set(known.where_reachable):  # taken up by themselves where they can be had
        known = replace(known, starts=tuple(s for s in config.starts if s in (*known.starts, *known.where_reachable)),
                        where_reachable=config.where_reachable) if set(known.starts) <= set(config.starts) else known
    changes = _changes(to_dict(known), to_dict(config)) if known else []
    return " ".join([f"mask3d study {study.config.name}", *(["--here"] if study.here else []), *(["--set", *changes] if changes else [])])


def _changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            found += _changes(old[key], value, f"{prefix}{key}.")
        elif json.dumps(value) != json.dumps(old.get(key)):
            found.append(shlex.quote(f"{prefix}{key}={json.dumps(value)}"))
    return found


def ran(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the runs were made on and when, each once, with how many they were."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        by = result.get("by", {"device": "not noted"})
        entry = found.setdefault(json.dumps(by, sort_keys=True), {**by, "runs": 0})
        entry["runs"] += 1
    return list(found.values())


def commit() -> str | None:
    """The commit of the code, with "-dirty" where the package's own files were changed; None outside of a git checkout."""
    if not (HOME / ".git").exists():
        return None
    try:
        number, changed = (subprocess.run(["git", *words], cwd=HOME, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
                           for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", "mask3d_core")))
    except (OSError, subprocess.SubprocessError):
        return None
    return number + ("-dirty" if changed else "")
