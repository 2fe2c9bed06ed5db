"""Commands that show: demo, lab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Demo:
    """The main job in about three minutes on a CPU, with one HTML page at the end."""

    frames: str = ""
    """A recording (TUM layout, or colour and depth folders); empty: rendered rooms."""
    out: Path = Path("out/demo")
    """Where everything goes."""
    quick: bool = False
    """A shorter run for tests: few frames, few steps."""

    def run(self) -> int:
        """Run; print where the page is."""
        from mask3d_viz.demo import run_demo

        page = run_demo(self.frames or None, self.out, self.quick)
        print(f"\nOpen {page}")
        return 0


@dataclass(frozen=True)
class Lab:
    """JupyterLab on the first notebook: hide patches, turn the clouds, ask a patch."""

    frames: str = ""
    """A recording or store that the notebooks open; empty: sample rooms."""
    checkpoint: tuple[str, ...] = ()
    """NAME or a run folder; of several the first is shown and the others can be set beside it; none: the one that ships."""
    session: str = ""
    """A saved session to begin with."""
    folder: Path = Path("lab")
    """Where the notebooks are copied to; those already there are not overwritten."""
    browser: bool = True
    """Open a browser; with --no-browser the address and its token are printed."""
    arguments: tuple[str, ...] = ()
    """One more argument for JupyterLab, e.g. --arguments=--ServerApp.port=9000 (with the equals sign)."""

    def run(self) -> int:
        """Start; ends when JupyterLab does."""
        from mask3d_viz.lab import start_lab

        return start_lab(self.folder, self.frames, self.checkpoint, self.session, self.browser, self.arguments)
