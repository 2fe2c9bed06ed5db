"""The hub that timm's weights come from, on a machine without a network: known at once."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_long_wait() -> Iterator[None]:
    """Where the hub of weights cannot be reached, only what is in its cache counts: its own client would try for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_reachable(address: str) -> bool:
    """Whether a server answers; through a proxy that is not known, and taken for granted."""
    if urllib.request.getproxies():
        return True
    parts = urllib.parse.urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)), timeout=5):
            return True
    except OSError:
        return False


__all__ = ["is_reachable", "no_long_wait"]
