"""The bar without tqdm, and files that are whole or not there."""

import json
import sys

import numpy as np
import pytest
import torch

from mask3d_core import progress
from mask3d_core.files import write_atomically, write_json
from mask3d_core.progress import Bar


@pytest.fixture
def without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)


def test_plain_lines_where_tqdm_is_missing(without_tqdm, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Bar("cooking", 4, 1, "egg") as bar:
        bar.note("soft")
        bar.advance()
        bar.say("the water boils")
        bar.set(4, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cooking: 2/4 eggs") and lines[0].endswith("s left soft")
    assert lines[1] == "the water boils" and "4/4" in lines[2]


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_a_silent_bar_says_nothing(has_tqdm, capsys, monkeypatch):
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with Bar("cooking", 2, show=False) as bar:
        bar.advance(2)
        bar.say("nothing")
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "values.json"
    write_json(path, {"a": torch.ones(2), "b": np.float32(2), "c": path})
    assert json.loads(path.read_text()) == {"a": [1.0, 1.0], "b": 2.0, "c": str(path)}

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        write_atomically(path, b"half")
    assert [p.name for p in tmp_path.iterdir()] == ["values.json"] and json.loads(path.read_text())["b"] == 2.0
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
