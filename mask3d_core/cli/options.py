"""What commands share: key=value pairs, configurations changed by them, sources and frames by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import tyro

from mask3d_core.errors import ConfigError

Positional = tyro.conf.Positional
MARGIN = 16  # pixels that a store's frames are larger than a run's, for crops


def gathered(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """``--set a --set b`` as ``--set a b``: the parser would take the last of them alone, and say nothing.

    Args:
        arguments: of a command line.
        flags: those that take any number of values, "--set" for example.
    """
    arguments, rest = list(arguments), []
    if "--" in arguments:
        rest = arguments[arguments.index("--"):]
        arguments = arguments[:len(arguments) - len(rest)]
    taking: list[str] = []  # a flag and what follows it
    parts, first = [taking], {}
    for word in arguments:
        name, equals, value = word.partition("=")
        if name in flags:
            if name not in first:
                first[name] = [name]
                parts.append(first[name])
            taking = first[name]
            taking += [value] if equals else []
        elif word.startswith("--") or (word.startswith("-") and word[1:2].isalpha()):
            taking = [word]
            parts.append(taking)
        else:
            taking.append(word)
    return [word for part in parts for word in part] + rest


def options_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """key=value pairs; values are JSON where they parse as JSON."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"an option must look like key=value; got {pair!r}")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def change_config(config: Any, changes: tuple[str, ...]) -> Any:
    """Replace keys of a nested configuration.

    Args:
        config: a frozen dataclass.
        changes: "path.to.key=json".

    Raises:
        ConfigError: unknown keys or values of the wrong type, all at once.
    """
    from mask3d_core.training.config import from_dict, to_dict

    values = to_dict(config)
    problems = []
    for path, value in options_of(changes).items():
        *parents, key = path.split(".")
        place: Any = values
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in place:
            problems.append(f"unknown key {path}")
        else:
            place[key] = value
    if problems:
        raise ConfigError(problems, "--set")
    return from_dict(type(config), values, "--set")


def open_named(kind: str, path: str, options: dict[str, Any]):
    """The source of a kind ("auto" looks at the folder) at a path, opened with options.

    Raises:
        ConfigError: a path where none belongs, or none where one does; says how to get the data set.
    """
    from mask3d_core.sources import how_to_get, open_source
    from mask3d_core.sources.opening import kind_of

    if kind == "rooms":
        if path:
            raise ConfigError(f"rooms are rendered and have no path; got {path!r}. Give options, e.g. --option count=2000")
        return open_source("rooms", **options)
    if not path:
        said = "" if kind == "auto" else how_to_get(kind)
        raise ConfigError(f"source {kind!r} needs the recording's folder: mask3d prepare {kind} PATH --out STORE"
                          f"{'. ' if said else ''}{said.removesuffix('.')}")
    return open_source(kind_of(path) if kind == "auto" else kind, path, **options)


def frame_named(text: str):
    """The frame that FOLDER#NUMBER names."""
    from mask3d_core.sources import open_source
    from mask3d_core.sources.opening import open_path

    place, _, number = text.partition("#")
    if number and not number.isdigit():
        raise ConfigError(f"a frame is FOLDER#NUMBER; got {text!r}")
    index = int(number or 0)
    held_out = {"seed": 99, "pool": "test", "views_per_room": 1}  # rooms that no recipe trains on
    source = open_source("rooms", count=index + 1, **held_out) if place == "rooms" else open_path(place)
    if index >= len(source):
        raise ConfigError(f"{place} has {len(source)} frames, so the number must be below that; got {index}")
    return source.read(index)


def store_of(data: str, size: tuple[int, int], run: Path, labels: tuple[str, ...] = ()) -> Path:
    """The store that a run's data are: itself, or a recording's frames, prepared into the run folder.

    Args:
        data: a store, or what ``mask3d prepare`` reads.
        size: (height, width) of training; frames are kept a little larger.
        run: the run folder.
        labels: what a recording must have; of a store that is asked later.

    Raises:
        Mask3DError: nothing there, or nothing recognised.
        ConfigError: a recording without such labels.
    """
    from mask3d_core.prepare import PrepareConfig, prepare
    from mask3d_core.sources import open_source
    from mask3d_core.sources.opening import kind_of

    kind = kind_of(data)
    if kind == "store":
        return Path(data)
    source = open_source(kind, data)
    missing = [name for name in labels if name not in source.labels]
    if missing:
        raise ConfigError(f"{data} holds no {' and no '.join(missing)} labels", f"--data ({kind})")
    return prepare(source, run / "store", PrepareConfig(size[0] + MARGIN, size[1] + MARGIN)).path
