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
from mask3d_core.evaluation.influence import Influence
from mask3d_core.models import EncoderConfig
from mask3d_core.sources import open_source
from mask3d_viz.explorers.attention import explore_attention, row_words
from mask3d_viz.explorers.questions import answer_html, arrows_of, move_words, movers
from mask3d_viz.explorers.readout import patch_words
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
    assert "entropy" in rgb and decoder == "it has only 2 layers: none stands 3 before the last"
    assert depth == "it has only 3 layers: none stands 3 before the last"
    assert not explorer.pictures["decoder"].heat and "only 2 layers" in explorer.mass.value
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
    lasts = lambda: dict(explorer.layer.options)  # noqa: E731
    assert lasts() == {"layer 1 of 4": -4, "layer 2 of 4": -3, "layer 3 of 4": -2, "last layer": -1}
    assert explorer.layer.label == "last layer" and explorer.head.options == ("mean", "max", "rollout", "0", "1", "2")
    session.change(layer=-4, head="2")
    assert explorer.layer.value == -4 and explorer.head.value == "2"
    session.change(checkpoint="small")
    assert list(lasts().values()) == [-2, -1] and explorer.layer.value == -1 and explorer.head.options[-1] == "1"
    assert (session.state.layer, session.state.head) == (-4, "2"), "nobody's hand has moved them"
    session.change(checkpoint="shipped")
    assert explorer.layer.value == -4 and explorer.head.value == "2"
    assert studio_of(session).wait(60)
    explorer.close()


class Held:
    """A worker that does nothing until it is told to."""

    def __init__(self, explorer):
        self.wishes = []
        explorer.questions.worker.ask = lambda work, done: self.wishes.append((work, done))

    def finish(self, number=-1):
        work, done = self.wishes[number]
        done(work(), None)


def is_dimmed(explorer):
    found = {"mask3d-stale" in text._dom_classes for text in explorer.evidence_texts()}
    assert len(found) == 1
    return found.pop()


def test_what_was_answered_stands_dimmed_until_the_new_mask_is_asked(session):
    explorer = asked(session, 7)
    assert set(explorer.evidence_texts()) >= {explorer.answer, explorer.mass} and not is_dimmed(explorer)
    answer, held = explorer.answer.value, Held(explorer)
    session.change(seed=5)
    assert is_dimmed(explorer), "the prediction is on its way"
    assert studio_of(session).wait(60)
    assert is_dimmed(explorer) and explorer.answer.value == answer, "it is there, and its influence is still being measured"
    assert explorer.pictures["depth"].stale and explorer.pictures["decoder"].stale
    assert all(picture.stale == bool(picture.heat) for picture in explorer.pictures.values())
    assert "Asking row 2, column 3" in explorer.waiting.value
    session.change(selection=(8,))
    assert len(held.wishes) == 1, "the same pass answers for another patch: it goes on"
    held.finish()
    assert not is_dimmed(explorer) and explorer.waiting.value == "" and "Row 2, column 4" in explorer.answer.value
    assert not any(picture.stale for picture in explorer.pictures.values())
    explorer.close()


def test_while_a_run_is_followed_a_question_ends_and_says_of_which_step_its_answer_is(session):
    session.refresh("shipped", (random_model(DEEP, seed=1), {"step": 300}))
    explorer = explore_attention(session)
    held = Held(explorer)
    session.change(selection=(7,))
    assert studio_of(session).wait(60) and len(held.wishes) == 1
    for step in (600, 900):
        session.refresh("shipped", (random_model(DEEP, seed=step), {"step": step}))
        assert studio_of(session).wait(60) and len(held.wishes) == 1, "newer weights do not end it"
    held.finish()
    assert "As of step 300:" in explorer.answer.value and is_dimmed(explorer)
    assert len(held.wishes) == 2, "now the newest are asked"
    shares = explorer.questions.earlier().answer[0].shares(7)
    assert f"{shares['depth']:.0%} from depth" in explorer.answer.value
    session.refresh("shipped", (random_model(DEEP, seed=2), {"step": 1200}))
    assert "As of step 300:" in explorer.answer.value and studio_of(session).wait(60)
    held.finish()
    assert "As of step 900:" in explorer.answer.value and is_dimmed(explorer) and len(held.wishes) == 3
    held.finish()
    assert "As of" not in explorer.answer.value and not is_dimmed(explorer) and len(held.wishes) == 3
    session.change(checkpoint="small")
    assert studio_of(session).wait(60) and explorer.questions.earlier() is None, "another model is no earlier state of this one"
    assert len(held.wishes) == 4
    explorer.close()


def test_a_cell_of_the_entropies_chooses_layer_and_head(session):
    explorer = asked(session, seen(session, "rgb"), head="2")
    found = explorer.questions.known()[1].entropies()
    for name, grid in explorer.entropies.items():
        assert grid.size == tuple(found[name].shape) and "mask3d-heads" in grid._dom_classes
        assert grid.texts == [f"{value:.2f}" for value in found[name].ravel().tolist()]
    assert explorer.entropies["rgb"].here == (2.0, 3.0) and explorer.entropies["decoder"].here == (-1.0, -1.0), "it has two heads"
    assert explorer.entropies["depth"].readouts[3] == (
        f"Depth encoder, layer 2 of 3, head 1: entropy {float(found['depth'][1, 1]):.2f}")
    explorer.entropies["depth"].chosen = {"number": 1, "cell": 3}
    assert (session.state.layer, session.state.head) == (-2, "1") and explorer.layer.label == "layer 3 of 4"
    assert explorer.entropies["depth"].here == (1.0, 1.0) and explorer.entropies["rgb"].here == (1.0, 2.0)
    session.change(depth_ratio=1.0)
    assert studio_of(session).wait(60) and explorer.worker.wait(120)
    assert explorer.entropies["depth"].layout.display == "none" and explorer.entropies["rgb"].layout.display != "none"
    session.change(selection=())
    assert explorer._sharpness.layout.display == "none"
    explorer.close()


def test_the_decoder_with_tokens_of_its_own_splits_its_mass(session):
    apart = random_model(dataclasses.replace(DEEP, fusion="concat_tokens"))
    session.refresh("shipped", (apart, {}))
    explorer = asked(session, 7)
    tokens = explorer.questions.known()[1].token_mass(7)
    assert set(tokens) == {"rgb", "depth"}
    for words, value in (("RGB, seen", tokens["rgb"]["seen"]), ("depth, seen", tokens["depth"]["seen"]),
                         ("depth, hidden", tokens["depth"]["hidden"])):
        assert f"{words}</td><td style='text-align:right'>{value:.0%}" in explorer.mass.value
    assert "RGB, hidden" not in explorer.mass.value and "last layer, mean of the heads" in explorer.mass.value
    session.refresh("shipped", (random_model(DEEP), {}))
    assert studio_of(session).wait(60) and explorer.worker.wait(120) and "On which tokens" not in explorer.mass.value
    explorer.close()


def test_a_patch_is_named_by_row_and_column_everywhere(session):
    explorer = asked(session, 8)
    assert explorer.sentence().startswith("Row 2, column 4: ") and patch_words(8, session.grid) == "row 2, column 4"
    row = explorer.table()[6]
    assert (row["asked_row"], row["asked_column"], row["row"], row["column"]) == (2, 4, 2, 2) and "asked" not in row
    explorer.close()


def test_the_readout_says_truth_prediction_error_and_the_view_s_own_number(session):
    explorer = asked(session, seen(session, "rgb"))
    common = ["truth", "prediction", "error"]
    names = {name: [column["name"] for column in picture.columns] for name, picture in explorer.pictures.items()}
    assert names["rgb"] == names["depth"] == [*common, "taken away, it moves by"]
    assert names["attention rgb"] == names["decoder"] == [*common, "attention"]
    values = np.frombuffer(explorer.pictures["rgb"].values, "<f4").reshape(4, -1)
    np.testing.assert_allclose(values[2], studio_of(session).shown.patch_values()["error"].ravel() * 100, rtol=1e-5)
    hidden = int(np.flatnonzero(session.is_masked("depth") & (session.ranks("depth") < 99))[0])
    session.change(selection=(hidden,))
    assert [column["name"] for column in explorer.pictures["attention depth"].columns] == common, "it asks nothing there"
    explorer.close()


def moves_of(*centimetres):
    """An influence on patch 0 of six depth patches, centimetres each."""
    moves = torch.full((6, 6), float("nan"))
    moves[0] = torch.tensor(centimetres) / 100
    return Influence(moves, torch.full((6, 6), float("nan")), torch.ones(6))


def test_what_hardly_moves_a_patch_is_no_arrow():
    influence = moves_of(0.0, 4.0, -0.2, 0.05, -0.01, -0.0)
    assert [a.start for a in arrows_of(0, influence)] == [1, 2] and arrows_of(0, influence)[1].weight == pytest.approx(0.05)
    top, others = movers(0, influence)
    assert [k for _, k, _ in top] == [1, 2] and others == "The 4 others move it by less than 0.8 mm each."
    said = answer_html(0, (2, 3), influence)
    assert "+4.0 cm" in said and "\N{MINUS SIGN}2.0 mm" in said and "0.0" not in said and others in said
    assert answer_html(0, (2, 3), influence, rows=1).count("<tr>") == 1
    assert movers(0, moves_of(*[0.0] * 6)) == ([], "") and arrows_of(0, moves_of(*[0.0] * 6)) == []
    assert [move_words(v) for v in (0.04, -0.0123, 0.0099, -0.00996, 0.0003, 4e-5, -1e-9, 0.0)] == [
        "+4.0 cm", "\N{MINUS SIGN}1.2 cm", "+9.9 mm", "\N{MINUS SIGN}1.0 cm", "+0.3 mm", "less than 0.1 mm", "less than 0.1 mm",
        "0 mm"]


def test_it_is_said_how_long_asking_takes(session):
    explorer = explore_attention(session)
    held = Held(explorer)
    session.change(selection=(7,))
    assert "about" not in explorer.waiting.value, "not known before the first patches"
    assert explorer.answer.value == "" and not any(picture.stale for picture in explorer.pictures.values()), "nothing is old"
    seconds = []
    explorer.questions._progress = lambda done, total: (explorer._count(done, total), seconds.append(explorer.waiting.value))
    held.finish()
    assert seconds and all("about 1 s" in text for text in seconds[:-1]), seconds
    session.change(seed=4)
    assert studio_of(session).wait(60) and "about 1 s" in explorer.waiting.value, "known from the last time"
    explorer.close()
