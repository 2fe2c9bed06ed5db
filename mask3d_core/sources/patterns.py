"""File patterns whose wildcards say which files belong together.

``color/*.jpg`` and ``depth/*.png`` pair where the wildcards stand for the same text (or the same number: 7 and 007).
``*`` stands for anything within one name, ``**`` for any number of folders, ``{a,b}`` for a or b and is not compared.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mask3d_core.errors import ConfigError

Key = tuple  # of int and str: what the wildcards stood for
IMAGE_SUFFIXES = "{png,jpg,jpeg,ppm,pgm,bmp,tif,tiff,PNG,JPG,JPEG}"
ARRAY_SUFFIXES = "{png,pgm,tif,tiff,npy,npz,exr,PNG}"


def _compile(part: str, pattern: str) -> re.Pattern:
    """The regular expression of one name in a pattern."""
    pieces, rest = [], part
    while rest:
        special = re.search(r"[*{]", rest)
        if special is None:
            pieces.append(re.escape(rest))
            break
        pieces.append(re.escape(rest[:special.start()]))
        if rest[special.start()] == "*":
            pieces.append("(.*)")
            rest = rest[special.end():]
        else:
            end = rest.find("}", special.start())
            if end < 0:
                raise ConfigError(f"the file pattern {pattern!r} opens a brace and does not close it")
            choices = rest[special.end():end].split(",")
            pieces.append("(?:" + "|".join(re.escape(choice) for choice in choices) + ")")
            rest = rest[end + 1:]
    return re.compile("".join(pieces) + r"\Z")


def _sorted_names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def as_key(texts) -> Key:
    """What wildcards stood for, as comparable values: digits become numbers."""
    return tuple(int(text) if text.isdigit() and text.isascii() else text for text in texts)


def natural_key(name: str) -> Key:
    """A name as comparable values, its digits as numbers: frame7 comes before frame10."""
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name)))


def find_files(root: str | os.PathLike, pattern: str) -> list[tuple[Key, str]]:
    """Files below a folder that fit a pattern.

    Args:
        root: the folder.
        pattern: relative to it, with ``/``, ``*``, ``**`` and ``{a,b}``.

    Returns:
        (key, path relative to root with "/"), sorted by key.

    Raises:
        ConfigError: a pattern that cannot be read, or two files with one key.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts or os.path.isabs(pattern):
        raise ConfigError(f"the file pattern {pattern!r} must stay inside the folder")
    found: list[tuple[tuple, str]] = [((), "")]
    for depth, part in enumerate(parts):
        is_last, deeper = depth == len(parts) - 1, []
        expression = None if part == "**" else _compile(part, pattern)
        for texts, relative in found:
            folder = Path(root) / relative
            if part == "**":
                for below, _, _ in os.walk(folder):
                    inner = os.path.relpath(below, folder).replace(os.sep, "/")
                    inner = "" if inner == "." else inner
                    deeper.append((texts + (inner,), "/".join(p for p in (relative, inner) if p)))
                continue
            names = _sorted_names(folder) if expression.groups or "{" in part else [part]
            for name in names:
                match = expression.match(name)
                path = folder / name
                if match and (path.is_file() if is_last and len(names) == 1 else is_last or path.is_dir()):
                    deeper.append((texts + match.groups(), "/".join(p for p in (relative, name) if p)))
        found = deeper
    keyed = [(as_key(texts), path) for texts, path in found]
    keyed.sort(key=lambda item: ([(isinstance(v, str), v) for v in item[0]], item[1]))
    for (first, one), (second, other) in zip(keyed, keyed[1:]):
        if first == second:
            raise ConfigError(f"the file pattern {pattern!r} fits both {one} and {other} in the same way; "
                              "make it narrower")
    return keyed


def name_some(names: list[str], limit: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
