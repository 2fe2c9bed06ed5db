"""The evaluation: known answers from models that know the answer, fair opponents, what was seen, what cannot be scored."""

import dataclasses

import numpy as np
import pytest
import torch
from test_training import MODEL
from torch import nn

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.evaluate import (
    MODEL as OURS, EvaluateConfig, color_variants, evaluate, partners, shuffled_patches, table_text)
from mask3d_core.evaluation.opponents import OPPONENTS
from mask3d_core.models import Mask3D
from mask3d_core.models.mask3d import Prediction
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import open_source

RATIOS = ((0.8, 0.8), (0.8, 1.0))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    source = open_source("rooms", count=8, seed=5, height=72, width=96, views_per_room=1)
    return prepare(source, tmp_path_factory.mktemp("evaluate") / "rooms",
                   PrepareConfig(72, 96, val_share=0.0, test_share=0.5), progress=False)


class Oracle(Mask3D):
    """Answers with the truth times a factor; looks where no model may."""

    def __init__(self, factor: float):
        super().__init__(MODEL)
        self.factor = factor
        self.set_depth_statistics(0.8, 0.4)

    def forward(self, color, depth, is_valid, intrinsics, masks):
        return Prediction(torch.where(is_valid, depth * self.factor, 1.0), depth, None, None)


def test_the_truth_scores_zero_and_beats_everyone(store):
    result = evaluate(Oracle(1.0), {}, store, EvaluateConfig(RATIOS, draws=2))
    first, second = result["results"]
    assert first["scores"][OURS]["abs_rel"]["mean"] == 0 and first["scores"][OURS]["delta1"]["mean"] == 1
    assert first["beats_every_opponent"] is True and set(first["beats"]) == set(OPPONENTS)
    assert first["abs_rel_minus"]["nearest"]["high"] < 0
    assert second["beats"] == {} and second["beats_every_opponent"] is None, "no mean map was given"
    assert result["data"]["frames"] == 4 and result["data"]["sequences"] == 4
    assert "2 mask draw(s)" in result["protocol"]


def test_a_factor_is_a_relative_error_and_nothing_is_aligned(store):
    result = evaluate(Oracle(1.5), {}, store, EvaluateConfig(((0.8, 0.8),), draws=1))
    scores = result["results"][0]["scores"][OURS]
    assert scores["abs_rel"]["mean"] == pytest.approx(0.5, rel=1e-5) and scores["delta1"]["mean"] == 0
    assert result["results"][0]["beats_every_opponent"] is False
    assert "nearest" in table_text(result) and "+0." in table_text(result)


def test_with_no_depth_the_mean_map_is_the_opponent(store):
    mean_map = torch.full((10, 12), 2.0)  # of another size than the frames
    result = evaluate(Oracle(1.0), {"extras": {"mean_map": mean_map}}, store, EvaluateConfig(RATIOS, draws=1))
    assert "mean map" not in result["results"][0]["scores"]
    assert set(result["results"][1]["beats"]) == {"mean map"} and result["results"][1]["beats_every_opponent"]


def test_draws_are_averaged_before_frames_are_counted(store):
    one, many = (evaluate(Oracle(1.0), {}, store, EvaluateConfig(((0.8, 0.8),), draws=d)) for d in (1, 3))
    for result in (one, many):
        assert result["results"][0]["scores"]["nearest"]["abs_rel"]["frames"] == 4
    assert one["results"][0]["scores"]["nearest"]["abs_rel"]["mean"] != many["results"][0]["scores"]["nearest"]["abs_rel"]["mean"]


def test_frames_that_were_trained_on_are_refused_or_marked(store):
    seen = {"data": {"sequences": store.sequence_keys(store.indices("test"))}}
    config = EvaluateConfig(((0.8, 0.8),), draws=1)
    with pytest.raises(ConfigError, match="allow-seen"):
        evaluate(Oracle(1.0), seen, store, config)
    result = evaluate(Oracle(1.0), seen, store, dataclasses.replace(config, allow_seen=True))
    assert result["data"]["frames_seen_in_training"] == 4 and "WARNING" in table_text(result)
    some = {"data": {"sequences": store.sequence_keys(store.indices("test")[:1])}}
    assert evaluate(Oracle(1.0), some, store, config)["data"]["frames"] == 3
    live = {"data": {"rooms": [{"seed": 5, "pool": store.header.source["pool"]}]}}
    with pytest.raises(ConfigError, match="allow-seen"):
        evaluate(Oracle(1.0), live, store, config)


def test_a_model_that_breaks_is_named(store):
    with pytest.raises(Mask3DError, match="infinite"):
        evaluate(Oracle(float("nan")), {}, store, EvaluateConfig(((0.8, 0.8),), draws=1))


def test_impossible_protocols_are_named_at_once(store):
    config = EvaluateConfig(((0.8, 1.2),), draws=0, limit=-1, max_depth=0.0)
    with pytest.raises(ConfigError) as caught:
        evaluate(Oracle(1.0), {}, store, config)
    assert all(word in str(caught.value) for word in ("1.2", "draws", "limit", "max_depth"))
    with pytest.raises(ConfigError, match="split"):
        evaluate(Oracle(1.0), {}, store, EvaluateConfig(split="val"))
    with pytest.raises(ConfigError, match="predicts no depth"):
        evaluate(Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("rgb",))), {}, store, EvaluateConfig())


def test_the_same_masks_every_time_and_other_colours_change_a_model_that_looks(store):
    torch.manual_seed(0)
    model = Mask3D(MODEL)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    config = EvaluateConfig(((0.5, 0.8),), draws=1)
    first, second = (evaluate(model, {}, store, config)["results"][0]["scores"] for _ in range(2))
    assert first == second
    errors = {name: values["abs_rel"]["mean"] for name, values in first.items() if name.startswith(OURS)}
    assert set(errors) == {OURS, *(f"{OURS}, {kind}" for kind in (
        "colour grey", "colour shuffled", "colour another frame's", "no colour"))}
    assert len(set(errors.values())) == 5


def test_shuffled_patches_keep_the_colours():
    color = torch.rand(2, 3, 32, 48)
    mixed = shuffled_patches(color, torch.tensor([3, 4]), 16)
    assert not torch.equal(mixed, color)
    assert torch.equal(mixed.flatten(2).sort(dim=2).values, color.flatten(2).sort(dim=2).values)


def test_partners_come_from_another_sequence():
    indices = np.arange(10, 18)
    found = partners(indices, ["a"] * 4 + ["b"] * 4)
    assert all((i < 14) != (j < 14) for i, j in zip(indices, found))
    alone = partners(indices, ["a"] * 8)
    assert all(abs(int(i) - int(j)) == 4 for i, j in zip(indices, alone)), "as far away as there is"
    assert partners(indices[:1], ["a"]) is None


def test_color_variants_without_another_frame():
    from mask3d_core.batches import Batch

    color = torch.rand(1, 3, 32, 32)
    batch = Batch(color, color[:, 0], color[:, 0] > 0, torch.ones(1, 4), torch.zeros(1, dtype=torch.int64),
                  torch.zeros(1, dtype=torch.int64))
    assert set(color_variants(batch, None, 16)) == {"grey", "shuffled"}
