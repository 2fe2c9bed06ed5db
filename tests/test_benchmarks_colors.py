"""The benchmark that asks whether depth is in the colours: its scores against answers known beforehand, and a quick run."""

import json

import torch
from torch import nn

from benchmarks import colors
from mask3d_core.store import Store


class Offset(nn.Module):
    """The truth, a constant too large; as if colour said everything but the scale."""

    def __init__(self, target):
        super().__init__()
        self.target, self.given = target, 0

    def forward(self, color):
        found = self.target[self.given:self.given + len(color)] + 0.25
        self.given += len(color)
        return found


def test_an_offset_costs_itself_and_no_shape(tmp_path):
    store = colors.render(tmp_path / "store", {"plain": 1.0}, 6, 3)
    assert isinstance(store, Store) and len(store) == 6
    batches = colors.StoreBatches(store, store.indices("train"), 6, colors.SIZE, colors.AugmentConfig.none(), 0)
    target = colors.log_depth(batches.frames(store.indices("train")))
    found = colors.score(Offset(target), target.mean(0), store)
    assert abs(found["network"] - 0.25) < 1e-5 and abs(found["network, shape alone"]) < 1e-5
    assert 0 < found["mean map, shape alone"] <= found["mean map"]


def test_a_quick_run_compares_both_kinds_of_rooms(tmp_path, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert colors.main(["--quick", "--out", str(tmp_path / "colors.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads((tmp_path / "colors.json").read_text())
    assert set(record["found"]) == set(colors.WORLDS) and record["settings"]["steps"] == 3
    assert all(0 < value < 5 for world in record["found"].values() for value in world.values())
    assert "as most homes" in capsys.readouterr().out
