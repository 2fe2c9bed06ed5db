"""Where what ships beside the packages lies: in a checkout, or where an installed wheel has put it."""

from __future__ import annotations

import sysconfig
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
INSTALLED = Path("share") / "mask3d-lab"


def shipped(*parts: str) -> Path:
    """A folder or file that ships, e.g. ``shipped("data", "checkpoints")``.

    Returns:
        The first that exists of the checkout's, the one beside the packages and the environment's; where there is none,
        the checkout's, so that a message names a place.
    """
    places = [HOME, HOME / INSTALLED, Path(sysconfig.get_path("data")) / INSTALLED]
    found = [place.joinpath(*parts) for place in places]
    return next((path for path in found if path.exists()), found[0])


__all__ = ["shipped"]
