"""The attention explorer: masks move with the hand, each picture says what it shows, layers and heads are the model's own."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import random_model
from timm.models.vision_transformer import VisionTransformer
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.attention import EncoderAttention, attention_sizes, entropy, record_attention
from mask3d_core.models import EncoderConfig
from mask3d_core.sources import open_source
from mask3d_viz.explorers.attention import explore_attention, row_words
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.session import Session

DEEP = dataclasses.replace(MODEL, rgb=EncoderConfig(width=36, depth=4, heads=3), depth=EncoderConfig(width=24, depth=3, heads=2))


@pytest.fixture
def session():
    source = open_source("rooms", count=1, seed=4, views_per_room=1, height=72, width=96)
    return Session([source.read(0)], {"shipped": random_model(DEEP), "small": random_model()}, rgb_ratio=0.5, depth_ratio=0.5)


def seen(session, name):
    return int(np.flatnonzero(~session.is_masked(name))[0])


def asked(session, patch, **state):
    explorer = explore_attention(session)
    session.change(selection=(patch,), **state)
    assert explorer.worker.wait(120)
    return explorer


def test_masks_move_before_their_prediction_comes(session):
    explorer, studio = explore_attention(session), studio_of(session)
    studio.worker.ask = lambda *_: None  # a prediction that never comes
    for change in ({"rgb_ratio": 0.25, "depth_ratio": 0.75}, {"seed": 3}, {"painted_depth": ((seen(session, "depth"), 1),)}):
        session.change(**change)
        for name, picture in explorer.pictures.items():
            modality = "rgb" if "rgb" in name else "depth"
            np.testing.assert_array_equal(picture.hidden.ravel(), session.is_masked(modality), err_msg=f"{name} {change}")
            count = int((session.ranks(modality) < 20).sum())
            assert picture.hidden_count == round(getattr(session.state, f"{modality}_ratio") * count) and picture.stale
    explorer.close()


def test_the_entropy_is_that_of_the_row_that_is_shown(session):
    patch = seen(session, "rgb")
    explorer = asked(session, patch, layer=-2, head="1")
    attention = explorer.questions.known()[1].rgb
    row = attention.layers[-2][1, attention.prefix + int((attention.ids == patch).nonzero()[0, 0])]
    value = f"entropy {float(entropy(row[None, None, None])[0, 0]):.2f}"
    assert value in explorer.pictures["attention rgb"].note
    assert explorer.pictures["attention rgb"].note.startswith(f"class token {100 * float(row[0]):.0f} %, entropy")
    sharp, grid = torch.zeros(4), torch.tensor([float("nan"), 1.0, 0.0, 0.0])
    assert row_words(grid, sharp[:1], EncoderAttention((), 1, torch.arange(1, 4), 4)).endswith("entropy 0.00")
    explorer.close()


def test_registers_are_no_class_token(session):
    model = session.model()[0]
    model.rgb_encoder = VisionTransformer(img_size=(64, 80), patch_size=16, num_classes=0, embed_dim=36, depth=2, num_heads=3,
                                          reg_tokens=3).eval()
    found = record_attention(model, session.batch(), session.masks())
    assert (found.rgb.prefix, found.rgb.registers, found.depth.registers) == (4, 3, 0)
    grid, prefix = torch.tensor([0.85, float("nan")]), torch.tensor([0.12, 0.01, 0.01, 0.01])
    assert row_words(grid, prefix, found.rgb).startswith("class token 12 %, registers 3 %, entropy")
    plain = EncoderAttention((), 1, torch.tensor([0]), 2)
    assert "registers" not in row_words(grid, prefix[:1], plain)
    without = dataclasses.replace(plain, registers=1)
    assert row_words(grid, prefix[1:2], without).startswith("registers 1 %")


def test_each_picture_says_why_it_is_empty(session):
    hidden = next(p for p in np.flatnonzero(session.is_masked("rgb")) if not session.is_masked("depth")[p])
    explorer = asked(session, int(hidden))
    notes = lambda: [explorer.pictures[n].note for n in ("attention rgb", "attention depth", "decoder")]  # noqa: E731
    assert notes()[0] == "hidden here: it asks nothing" and "entropy" in notes()[1] and notes()[2] == ""
    session.change(selection=(int(np.flatnonzero(~session.is_masked("rgb") & ~session.is_masked("depth"))[0]),), layer=-4)
    rgb, depth, decoder = notes()
    assert "entropy" in rgb and depth == "layer must be -3..2; got -4" and decoder == "layer must be -2..1; got -4"
    assert not explorer.pictures["decoder"].heat and "layer must be -2..1" in explorer.mass.value
    assert explorer.message.value == "", "one part has it"
    session.change(layer=-1, head="2")
    rgb, depth, decoder = notes()
    assert "entropy" in rgb and depth.startswith("head must be 0..1, mean") and decoder.startswith("head must be 0..1")
    session.change(head="9")
    assert all("head must be" in note for note in notes()) and "head must be" in explorer.message.value
    session.change(head="mean")
    assert notes()[2] == "" and len(explorer.pictures["decoder"].heat)
    explorer.close()


def test_layers_and_heads_are_those_of_the_sessions_model(session):
    assert attention_sizes(session.model()[0]) == {"rgb": (4, 3), "depth": (3, 2), "decoder": (2, 2)}
    explorer = explore_attention(session)
    assert explorer.layer.min == -4 and explorer.head.options == ("mean", "max", "rollout", "0", "1", "2")
    session.change(layer=-4, head="2")
    assert explorer.layer.value == -4 and explorer.head.value == "2"
    session.change(checkpoint="small")
    assert explorer.layer.min == -2 and explorer.head.options[-1] == "1"
    assert (session.state.layer, session.state.head) == (-4, "2"), "nobody's hand has moved them"
    session.change(checkpoint="shipped")
    assert explorer.layer.value == -4 and explorer.head.value == "2"
    assert studio_of(session).wait(60)
    explorer.close()
