"""timm's weights without a network: one line at once; a cached or reachable hub is asked as ever."""

import socket
import time

import pytest
import timm
from huggingface_hub import constants

from mask3d_core.errors import ConfigError
from mask3d_core.models import encoders
from mask3d_core.models.hub import is_reachable
from mask3d_core.models.starts import open_start


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """The machine's own proxies are left out."""
    monkeypatch.setattr("urllib.request.getproxies", dict)


def test_a_hub_that_cannot_be_reached_is_given_up_at_once(monkeypatch, tmp_path, capfd):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before, began = constants.HF_HUB_OFFLINE, time.monotonic()
    with pytest.raises(ConfigError, match="weights could not be fetched"):
        open_start("timm:vit_tiny_patch16_224.augreg_in21k", (96, 128))
    assert time.monotonic() - began < 30, "the hub's own client tries for a minute"
    assert "Retrying" not in capfd.readouterr().err and constants.HF_HUB_OFFLINE == before


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_that_answers_is_asked(monkeypatch, answers):
    seen = []
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: seen.append(constants.HF_HUB_OFFLINE) or 1 / 0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        if answers:
            server.listen()
        with pytest.raises(ConfigError):
            encoders.build_vit(encoders.EncoderConfig(timm="vit_tiny_patch16_224"), (96, 128), 16, 3, pretrained=True)
    assert seen == [not answers]


def test_through_a_proxy_nothing_is_presumed(monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:8080"})
    assert is_reachable("http://127.0.0.1:9")
