"""One self-contained HTML page: text, tables, pictures and facts, to be read offline, in light or dark, or on paper.

Nothing is fetched and no script is needed: pictures are base64 PNG, and the choice between pictures is plain CSS.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mask3d_viz import style
from mask3d_viz.drawing import number
from mask3d_viz.pixels import PictureError, to_png, write_whole
from mask3d_viz.scores import Score, as_score


class Block(str):
    """A finished piece of HTML; every text in it has been escaped."""


def inline(text: str) -> str:
    """Escaped text in which `code` and **strong** are marked up."""
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def text(content: str) -> Block:
    """Paragraphs, separated by empty lines."""
    return Block("".join(f"<p>{inline(part.strip())}</p>" for part in content.split("\n\n") if part.strip()))


def heading(content: str) -> Block:
    """A heading within a section."""
    return Block(f"<h3>{inline(content)}</h3>")


def note(content: str, *, warns: bool = False) -> Block:
    """A remark set apart; ``warns`` for what a reader must not miss."""
    return Block(f'<p class="note{" warn" if warns else ""}">{inline(content)}</p>')


def _source(image: np.ndarray | bytes) -> str:
    content = image if isinstance(image, bytes) else to_png(image)
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise PictureError("a picture, or PNG bytes", repr(content[:8]), "Pass the array; it is encoded here.")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _width(image: np.ndarray | bytes) -> tuple[int, int]:
    """Width and height of a picture or of PNG bytes (from the IHDR chunk)."""
    if isinstance(image, bytes):
        return int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
    return image.shape[1], image.shape[0]


def figure(image: np.ndarray | bytes, alt: str, caption: str = "", *, dark: np.ndarray | bytes | None = None) -> Block:
    """A picture with its caption.

    A row of pictures (wider than 1300 pixels and 2.2 times its height) breaks out of the column, and scrolls on a
    phone; a chart or a single picture stays as narrow as the text.

    Args:
        image: uint8 (H, W, 3), or PNG bytes.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        dark: the same picture for the dark theme, if there is one.

    Raises:
        PictureError: no alternative text.
    """
    if not alt.strip():
        raise PictureError("alternative text for a picture", "none", "Say in a sentence what the picture shows.")
    source, (width, height) = _source(image), _width(image)
    picture = (f'<img src="{source}" alt="{html.escape(alt, quote=True)}" width="{width}" height="{height}">')
    if dark is not None:
        picture = (f'<picture><source media="(prefers-color-scheme:dark)" srcset="{_source(dark)}">{picture}</picture>')
    below = f"<figcaption>{inline(caption)}</figcaption>" if caption else ""
    kind = "wide" if width > max(2.2 * height, 1300) else "narrow" if width < 1300 else ""
    frame = f'<div class="scroll" tabindex="0" role="group">{picture}</div>' if kind == "wide" else picture
    return Block(f"<figure{_class(kind)}>{frame}{below}</figure>")


def choices(pictures: Mapping[str, Block], name: str) -> Block:
    """Several figures in one place, one shown at a time; buttons (or the arrow keys) choose. On paper all are shown.

    Args:
        pictures: label of the button to :func:`figure`.
        name: unique on the page; letters, digits and dashes.
    """
    if not pictures or not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise PictureError("at least one figure, and a name of letters, digits and dashes", repr(name), "Rename it.")
    buttons = "".join(f'<input type="radio" name="{name}" id="{name}-{i}"{" checked" if i == 0 else ""}>'
                      f'<label for="{name}-{i}">{inline(label)}</label>' for i, label in enumerate(pictures))
    rules = ",".join(f"#{name}-{i}:checked~figure:nth-of-type({i + 1})" for i in range(len(pictures)))
    return Block(f'<div class="choices" role="radiogroup" aria-label="{html.escape(", ".join(pictures), quote=True)}">'
                 f'<style>{rules}{{display:block}}</style>{buttons}{"".join(pictures.values())}</div>')


def facts(pairs: Mapping[str, Any]) -> Block:
    """What was run, on what, when: names and values."""
    rows = "".join(f"<dt>{inline(str(key))}</dt><dd>{inline(str(value))}</dd>" for key, value in pairs.items())
    return Block(f'<dl class="facts">{rows}</dl>')


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, best: Mapping[str, str] | None = None,
          ours: Sequence[str] = (), digits: int = 3, caption: str = "") -> Block:
    """A table: numbers to the right, the best of a column marked (all of them where they print alike).

    Args:
        columns: headings; the first column holds the rows' names.
        rows: one cell per column: text, a number, a ``Score`` (with its interval), or None for "not measured".
        best: column to "min" or "max".
        ours: names of rows set in bold.
        digits: of every number that is not an integer.
        caption: above the table.

    Raises:
        PictureError: a row of another length, or ``best`` for a column that is not there.
    """
    best = dict(best or {})
    unknown = [name for name, way in best.items() if name not in columns or way not in ("min", "max")]
    wrong = [row for row in rows if len(row) != len(columns)]
    if unknown or wrong:
        raise PictureError(f"rows of {len(columns)} cells, and best as {{column: 'min' or 'max'}}",
                           f"{len(wrong)} rows of another length; not understood: {', '.join(unknown) or 'nothing'}",
                           "Use None for a cell that was not measured.")
    is_number = [any(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    winners = {name: _winner([row[list(columns).index(name)] for row in rows], way, digits)
               for name, way in best.items()}
    head = "".join(f'<th scope="col"{_class("number" if right else "")}>{inline(name)}</th>'
                   for name, right in zip(columns, is_number))
    body = ""
    for row in rows:
        cells = [f'<th scope="row">{inline(str(row[0]))}</th>']
        for name, cell, right in zip(columns[1:], row[1:], is_number[1:]):
            is_best = _is_number(cell) and winners.get(name) == _printed(cell, digits)
            kind = _class("number" if right else "", "best" if is_best else "")
            cells.append(f"<td{kind}>{_cell(cell, digits)}</td>")
        body += f'<tr{_class("ours" if str(row[0]) in ours else "")}>{"".join(cells)}</tr>'
    title = f"<caption>{inline(caption)}</caption>" if caption else ""
    return Block(f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption or "table", True)}">'
                 f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def _class(*names: str) -> str:
    used = " ".join(name for name in names if name)
    return f' class="{used}"' if used else ""


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (Score, int, float, np.number)) and not isinstance(cell, bool)


def _printed(cell: Any, digits: int) -> str:
    """A number as it stands in the table, without its interval."""
    if isinstance(cell, (int, np.integer)):
        return f"{int(cell):,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")
    value = as_score(cell).value
    return number(value, digits) if math.isfinite(value) else "not finite"


def _winner(cells: Sequence[Any], way: str, digits: int) -> str | None:
    known = [cell for cell in cells if _is_number(cell) and math.isfinite(as_score(cell).value)]
    chosen = (min if way == "min" else max)(known, key=lambda cell: as_score(cell).value, default=None)
    return None if chosen is None else _printed(chosen, digits)


def _cell(cell: Any, digits: int) -> str:
    if cell is None:
        return '<span class="interval">not measured</span>'
    if not _is_number(cell):
        return inline(str(cell))
    low, high = (as_score(cell).low, as_score(cell).high) if isinstance(cell, Score) else (None, None)
    spread = "" if low is None else f' <span class="interval">[{number(low, digits)}, {number(high, digits)}]</span>'
    return _printed(cell, digits) + spread


def raw_json(summary: str, data: Any) -> Block:
    """The numbers themselves, folded away. NaN and infinity become null, so that it stays JSON."""
    content = json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False)
    return Block(f"<details><summary>{inline(summary)}</summary><pre>{html.escape(content)}</pre></details>")


def _plain(value: Any) -> Any:
    """Anything as JSON values: arrays as lists, what is not finite as null, paths and other objects as text."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


class Page:
    """A page that grows block by block.

    >>> page = Page("A run", lead="What it learned.")
    >>> page.section("Scores", table(["model", "AbsRel"], [["ours", 0.05], ["mean", 0.3]], best={"AbsRel": "min"}))
    >>> "<h2" in page.html()
    True
    """

    def __init__(self, title: str, lead: str = "", footer: str = ""):
        self.title, self.lead, self.footer = title, lead, footer
        self.sections: list[tuple[str, list[Block]]] = []

    def section(self, title: str, *blocks: Block) -> None:
        """Begin a section. An empty title adds blocks under the page's own title."""
        self.sections.append((title, []))
        self.add(*blocks)

    def add(self, *blocks: Block) -> None:
        """Append blocks to the last section.

        Raises:
            PictureError: a plain string, which nobody has escaped.
        """
        for block in blocks:
            if not isinstance(block, Block):
                raise PictureError("a block made by text(), figure(), table(), ...", repr(block)[:60],
                                   "Wrap plain words in text(...).")
        if not self.sections:
            self.sections.append(("", []))
        self.sections[-1][1].extend(blocks)

    def html(self) -> str:
        """The whole page. The same blocks give the same bytes."""
        css = files("mask3d_viz").joinpath("page.css").read_text(encoding="utf-8")
        named = [(place, title) for place, (title, _) in enumerate(self.sections) if title]
        contents = "".join(f'<li><a href="#s{place}">{inline(title)}</a></li>' for place, title in named)
        body = f"<header><h1>{inline(self.title)}</h1>"
        body += f'<p class="lead">{inline(self.lead)}</p></header>' if self.lead else "</header>"
        body += f'<nav aria-label="Contents"><ol>{contents}</ol></nav>' if len(named) > 2 else ""
        for place, (title, blocks) in enumerate(self.sections):
            head = f"<h2>{inline(title)}</h2>" if title else ""
            body += f'<section id="s{place}">{head}{"".join(blocks)}</section>'
        body += f"<footer>{inline(self.footer)}</footer>" if self.footer else ""
        return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width,initial-scale=1">'
                f'<link rel="icon" href="data:,"><title>{html.escape(self.title)}</title>'
                f"<style>{style.theme_css()}\n{css}</style></head><body>{body}</body></html>\n")

    def write(self, path: str | Path) -> Path:
        """Write the page in one step; a reader never sees half of it. Returns its path."""
        return write_whole(path, self.html().encode())


def write_report(path: str | Path, title: str, sections: Sequence[tuple[str, Sequence[Block]]], *, lead: str = "",
                 footer: str = "") -> Path:
    """Write a page at once.

    Args:
        path: the HTML file to write.
        title: of the page.
        sections: (title, blocks) in order; see :func:`text`, :func:`figure`, :func:`table`, :func:`facts`,
            :func:`choices`, :func:`note`, :func:`raw_json`.
        lead: a sentence or two under the title.
        footer: at the end.

    Returns:
        The path written.
    """
    page = Page(title, lead, footer)
    for name, blocks in sections:
        page.section(name, *blocks)
    return page.write(path)
