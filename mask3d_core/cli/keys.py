"""The command keys: every key that --set can change, with its default and its meaning."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from mask3d_core.cli.options import Positional
from mask3d_core.errors import ConfigError


@dataclass(frozen=True)
class Keys:
    """Every key that `--set` of a command can change: its default, what it means, and whose choice it is."""

    command: Positional[Literal["pretrain", "finetune", "study"]] = "pretrain"
    """Of which command."""
    part: Positional[str] = ""
    """Only the keys that hold this, e.g. loss or fit.learning; empty: all."""
    preset: str = "tiny"
    """Of pretrain: whose values are shown."""
    task: Literal["segment", "depth", "detect"] = "segment"
    """Of finetune: whose values are shown."""

    def run(self) -> int:
        """Print them."""
        found = [key for key in keys_of(self._config()) if self.part in key.path]
        if not found:
            raise ConfigError(f"no key of {self.command} holds {self.part!r}; `mask3d keys {self.command}` lists all")
        for meaning, keys in groupby(found, key=lambda key: key.meaning):  # what is explained together stands together
            print("\n".join(f"{key.path} = {json.dumps(key.value, default=list)}" for key in keys))
            print(textwrap.fill(meaning, 110, initial_indent="    ", subsequent_indent="    "))
        return 0

    def _config(self) -> Any:
        from mask3d_core.study.config import STUDIES
        from mask3d_core.training.config import pretrain_config
        from mask3d_core.training.finetune_config import finetune_config

        if self.command == "pretrain":
            return pretrain_config(self.preset)
        return finetune_config(self.task) if self.command == "finetune" else STUDIES["primary"]


@dataclass(frozen=True)
class Key:
    """A key of a configuration.

    Args:
        path: as --set wants it. value: its value. meaning: in words, from the docstring of its class.
    """

    path: str
    value: Any
    meaning: str


def keys_of(config: Any, prefix: str = "") -> Iterator[Key]:
    """All keys of a nested configuration, in order.

    Args:
        config: a dataclass whose docstring says what each field means ("Args:").
    """
    meanings = meanings_of(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        else:
            yield Key(prefix + field.name, value, meanings.get(field.name, ""))


def meanings_of(kind: type) -> dict[str, str]:
    """Field to meaning, read from the class's docstring: entries "name, other: words", a line each or several in a line."""
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    names = {field.name for field in dataclasses.fields(kind)}
    heads = [head for head in re.finditer(r"(?:^|(?<=\. ))[ ]*((?:\w+, )*\w+):\s", text, re.MULTILINE) if set(head[1].split(", ")) <= names]
    found: dict[str, str] = {}
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        words = " ".join(text[head.end():after.start() if after else len(text)].split())
        found |= {name: words for name in head[1].split(", ")}
    return found
