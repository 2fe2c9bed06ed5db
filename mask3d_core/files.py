"""Files that are either the old one or the whole new one, also after a kill or a power cut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor


def write_atomically(path: Path, content: bytes) -> None:
    """Write under another name in the same folder, flush to the disk, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically. Tensors and arrays become lists; NaN is refused.

    Raises:
        ValueError: a NaN or an infinity.
    """
    write_atomically(path, (json.dumps(values, indent=1, allow_nan=False, default=_plain) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    return str(value)
