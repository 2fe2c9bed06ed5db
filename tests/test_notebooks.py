"""Notebooks: the .py under review and the .ipynb that ships say the same, and hold pictures but no live state."""

import base64
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

jupytext = pytest.importorskip("jupytext", reason="the lab's packages are not installed (pip install -e '.[lab]')")
nbformat = pytest.importorskip("nbformat")

from mask3d_viz import style
from mask3d_viz.pixels import to_png

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def test_every_text_has_its_notebook_and_the_other_way_round():
    assert NAMES and NAMES == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_text_and_notebook_say_the_same(name):
    text, notebook = (jupytext.read(NOTEBOOKS / f"{name}{ending}") for ending in (".py", ".ipynb"))
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in notebook.cells], (
        "run `make notebooks`")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_shows_something_without_a_kernel(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size <= 500_000
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in kinds and "application/vnd.jupyter.widget-view+json" not in kinds
    assert not [o for o in outputs if o.output_type == "error"]


def test_a_stored_picture_keeps_the_colours_of_its_legend():
    pytest.importorskip("nbclient")
    specification = importlib.util.spec_from_file_location("make_notebooks", NOTEBOOKS.parent / "docs" / "make_notebooks.py")
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)
    y, x = np.mgrid[0:300, 0:400]
    picture = np.stack([x * 255 // 400, y * 255 // 300, (x * y) % 256], -1).astype(np.uint8)  # more colours than a palette has
    for place, color in enumerate(style.PROVENANCE_COLORS):
        picture[10:16, 20 * place:20 * place + 6] = color
    text = made.smaller(base64.b64encode(to_png(picture)).decode())
    assert len(text) < len(base64.b64encode(to_png(picture)))
    stored = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
    for place, color in enumerate(style.PROVENANCE_COLORS):
        assert (stored[10:16, 20 * place:20 * place + 6] == color).all(), style.PROVENANCE_NAMES[place]
    assert np.abs(stored.astype(int) - picture).mean() < 20


def test_every_notebook_says_what_is_the_papers_and_what_is_ours():
    for name in NAMES:
        last = [cell.source for cell in jupytext.read(NOTEBOOKS / f"{name}.py").cells if cell.cell_type == "markdown"][-1]
        assert re.search(r"\*The paper's\*:.*\*Ours\*:", last, re.S), name


def test_notebooks_are_brought_without_overwriting(tmp_path):
    pytest.importorskip("anywidget")
    from mask3d_viz.lab import copy_notebooks

    assert {p.stem for p in copy_notebooks(tmp_path)} == set(NAMES)
    mine = tmp_path / f"{NAMES[0]}.ipynb"
    mine.write_text("mine")
    assert copy_notebooks(tmp_path) == [] and mine.read_text() == "mine"
