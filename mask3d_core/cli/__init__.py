"""The command ``mask3d``: thin entry points over the library. The only place that may import mask3d_viz, and only to draw."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Annotated, Union

import tyro

from mask3d_core.cli.data import Doctor, Download, Prepare
from mask3d_core.cli.downstream import Finetune, Predict, Probe
from mask3d_core.cli.keys import Keys
from mask3d_core.cli.options import change_config, gathered
from mask3d_core.cli.show import Demo, Lab
from mask3d_core.cli.study import Study
from mask3d_core.cli.training import Evaluate, Export, Plan, Pretrain, Reconstruct
from mask3d_core.errors import Mask3DError

COMMANDS = {"demo": Demo, "lab": Lab, "download": Download, "doctor": Doctor, "prepare": Prepare, "plan": Plan,
            "pretrain": Pretrain, "evaluate": Evaluate, "reconstruct": Reconstruct, "export": Export, "finetune": Finetune,
            "predict": Predict, "probe": Probe, "study": Study, "keys": Keys}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. 0 done, 1 findings, 2 a wrong input (one line), 130 stopped and saved."""
    union = Union[tuple(Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)]  # noqa: UP007
                        for name, kind in COMMANDS.items())]
    many = {f"--{field.name}" for kind in COMMANDS.values() for field in fields(kind) if isinstance(field.default, tuple)}
    words = gathered(sys.argv[1:] if arguments is None else arguments, many)
    command = tyro.cli(union, prog="mask3d", args=words, description=(
        "Mask3D: masked RGB-D pre-training that teaches a plain 2D vision transformer the third dimension."))
    try:
        return command.run()
    except Mask3DError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except OSError as problem:
        if problem.errno is None:
            raise
        print(f"error: {problem.filename or 'a file'}: {problem.strerror}. Check the path, its permissions and the free "
              "space on that disk.", file=sys.stderr)
        return 2


__all__ = ["COMMANDS", "change_config", "main"]
