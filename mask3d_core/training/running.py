"""What every training does around the engine: join the processes, claim the run folder, refuse another run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mask3d_core.errors import ConfigError
from mask3d_core.training.config import to_dict
from mask3d_core.training.loop import FitResult, start_processes
from mask3d_core.training.process import FINISHED, STOPPED, claimed


def run_claimed(config: Any, run: str | Path, device: str | None,
                train: Callable[[torch.device, int, int], FitResult]) -> FitResult:
    """Train into a run folder that nobody else trains into and that holds no other run.

    Args:
        config: the whole configuration, a frozen dataclass.
        run: the run folder.
        device: "cpu" or "cuda"; None: the GPU if there is one.
        train: called with (device, rank, world size).

    Raises:
        ConfigError: the folder holds another run, or another process trains into it.
    """
    was_joined = torch.distributed.is_initialized()
    place = start_processes(device)
    joined = torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if joined else (0, 1)
    run = Path(run)
    with claimed(run, rank == 0, device) as claim:
        check_same_run(run, config)
        result = train(place, rank, world)
        claim.state = FINISHED if result.is_finished else STOPPED
    if joined and not was_joined:
        torch.distributed.destroy_process_group()
    return result


def check_same_run(run: Path, config: Any) -> None:
    """Refuse to continue a run folder with another configuration.

    Raises:
        ConfigError: names the keys that differ.
    """
    from mask3d_core.training.checkpoint import latest_state, read_json

    if latest_state(run / "state") is None:
        return
    if not (run / "config.json").is_file():
        raise ConfigError(f"{run} holds a training state without its config.json, so it cannot be told which run that "
                          "was; choose another run folder, or put the config.json back")
    old, new = read_json(run / "config.json"), to_dict(config)

    def flat(values: dict, prefix: str = "") -> dict[str, str]:
        found = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: _key(value)}
        return found

    def _key(value: Any) -> str:
        return repr(list(map(list, value)) if value and isinstance(value, (list, tuple))
                    and isinstance(value[0], (list, tuple)) else list(value) if isinstance(value, tuple) else value)

    before, after = flat(old), flat(new)
    differ = [k for k in sorted(set(before) | set(after)) if before.get(k) != after.get(k)
              and not k.startswith(("fit.log_every", "fit.eval_every", "fit.save_every", "fit.keep"))]
    if differ:
        raise ConfigError([f"{run} holds a run with another {k}: {before.get(k)} there, {after.get(k)} here"
                           for k in differ] + ["choose another run folder, or the old values to resume"])
