"""Runs notebooks/*.py and writes each .ipynb with its texts and pictures: python docs/make_notebooks.py [NAME ...]

The .py is what is written and reviewed; the .ipynb is made. Live widgets are stored as the picture that they give of
themselves, so that a notebook shows something wherever it is opened. A notebook whose text and outputs are what they
were is not touched.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

from mask3d_viz import style

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LARGEST = 500_000  # bytes of a notebook
WIDEST = 900  # pixels of a stored picture
KEPT = ("text/plain", "text/markdown", "text/html", "image/png")  # of each output, in a stored notebook


# What a legend has to keep to the last bit, however few of its pixels there are, and the pale scale of errors in fine steps.
RESERVED = (*map(tuple, style.PROVENANCE_COLORS.tolist()), *style.HOLE_COLORS, *style.HIDDEN_COLORS,
            *(style.rgb(color) for color in style.MODALITY_COLORS.values()),
            *map(tuple, style.colormap(style.ERROR_COLORMAP)[4::8].tolist()))


def smaller(png: str) -> str:
    """A stored picture in 256 colours and at most 900 pixels across, where that is smaller; live ones are whole.

    The colours of legends are among the 256 as they are; a few pixels of pink would else be given to the nearest grey.
    """
    whole = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if whole.width > WIDEST:
        whole = whole.resize((WIDEST, round(whole.height * WIDEST / whole.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    few = whole.quantize(256 - len(RESERVED), method=Image.Quantize.MEDIANCUT).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*few[:3 * (256 - len(RESERVED))], *(value for color in RESERVED for value in color)])
    whole.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return text if len(text) < len(png) else png


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without anything that differs from run to run: ids of widgets, times, execution counts of a machine."""
    notebook.metadata = nbformat.from_dict({"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{number}{cell.source}".encode()).hexdigest()[:8]
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.name == "stdout"]
        for output in cell.outputs:
            if "data" in output:
                if "image/png" in output.data:
                    output.data["image/png"] = smaller(output.data["image/png"])
                output.data = nbformat.from_dict({k: v for k, v in output.data.items() if k in KEPT})
                output.metadata = nbformat.from_dict({})
    return notebook


def make(path: Path) -> bool:
    """Run one notebook; True when its .ipynb has changed."""
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
                   store_widget_state=False).execute()
    text = nbformat.writes(tidy(notebook), version=nbformat.NO_CONVERT) + "\n"
    if len(text) > LARGEST:
        raise SystemExit(f"{path.name}: expected at most {LARGEST} bytes with its outputs; got {len(text)}. Make its "
                         "pictures smaller or fewer.")
    target = path.with_suffix(".ipynb")
    if target.is_file() and target.read_text() == text:
        return False
    target.write_text(text)
    return True


def main() -> None:
    """All, or those whose names begin as given."""
    wanted = tuple(sys.argv[1:])
    for path in sorted(NOTEBOOKS.glob("[0-9]*.py")):
        if not wanted or path.name.startswith(wanted):
            print(f"{path.stem}: {'written' if make(path) else 'unchanged'}", flush=True)


if __name__ == "__main__":
    main()
