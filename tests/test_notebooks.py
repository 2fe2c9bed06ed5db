"""Notebooks: the .py under review and the .ipynb that ships say the same, and hold pictures but no live state."""

from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="the lab's packages are not installed (pip install -e '.[lab]')")
nbformat = pytest.importorskip("nbformat")

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


def test_notebooks_are_brought_without_overwriting(tmp_path):
    pytest.importorskip("anywidget")
    from mask3d_viz.lab import copy_notebooks

    assert {p.stem for p in copy_notebooks(tmp_path)} == set(NAMES)
    mine = tmp_path / f"{NAMES[0]}.ipynb"
    mine.write_text("mine")
    assert copy_notebooks(tmp_path) == [] and mine.read_text() == "mine"
