"""What the RGB encoder keeps, as an explorer: driven through its widgets and through the session, without a browser."""

import dataclasses

import numpy as np
import pytest
import torch
from test_training import MODEL

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.probes import OPPONENTS
from mask3d_core.models import Mask3D
from mask3d_core.sources import open_source
from mask3d_viz import feature_analysis
from mask3d_viz.explorers.features import DIMMED, explore_features
from mask3d_viz.explorers.masks import explore_masks
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.session import Session


@pytest.fixture(scope="module")
def frames():
    source = open_source("rooms", count=4, seed=4, views_per_room=1, height=72, width=96)
    found = [source.read(i) for i in range(4)]
    found = [frame.fit(64, 80) for frame in found]
    color = found[3].color.copy()
    color[32:48, 16:32] = found[0].color[16:32, 48:64]  # patch 8 of frame 0 is patch 11 of frame 3
    return [*found[:3], dataclasses.replace(found[3], color=color)]


def a_model(seed=0, **changes):
    torch.manual_seed(seed)
    model = Mask3D(dataclasses.replace(MODEL, **changes)).eval()
    model.set_depth_statistics(0.5, 0.3)
    return model


@pytest.fixture
def session(frames):
    return Session(frames, {"first": a_model(3), "second": a_model(1)})


@pytest.fixture
def few_rooms(monkeypatch):
    monkeypatch.setattr(feature_analysis, "ROOMS", {"train": 3, "val": 2, "test": 3})
    monkeypatch.setattr(feature_analysis, "_ROOMS", {})


def wait(explorer):
    assert explorer.worker.wait(60) and explorer.prober.wait(60)


def test_a_layer_has_a_name_and_the_readout_says_what_the_other_views_say(session):
    explorer = explore_features(session)
    session.change(selection=(8,))
    wait(explorer)
    assert studio_of(session).now() and explorer.layer.label == "last layer"
    assert explorer.layer.options == (("layer 1 of 2", -2), ("last layer", -1))
    assert explorer.sentence().startswith("Last layer. ")
    names = [column["name"] for column in explorer.pictures["a"].columns]
    assert names == ["truth", "prediction", "error", "cosine with the asked"]
    assert [column["name"] for column in explorer.pictures["color"].columns] == names[:3]
    cosine = np.frombuffer(explorer.pictures["a"].values, "<f4").reshape(4, -1)[3]
    assert cosine[8] == pytest.approx(1, abs=1e-5) and cosine.argmax() == 8 and (np.abs(cosine) <= 1.00001).all()
    session.change(frame=1)
    assert [column["name"] for column in explorer.pictures["color"].columns] == [], "the prediction was another frame's"
    wait(explorer)
    assert studio_of(session).wait(60)
    assert [column["name"] for column in explorer.pictures["a"].columns] == names
    assert "Nearest to row 2, column 4 by cosine" in explorer.nearest.value
    explorer.close()


def test_pictures_follow_frame_layer_and_who_is_compared(session):
    explorer = explore_features(session)
    wait(explorer)
    pixels = {name: p.pixels for name, p in explorer.pictures.items()}
    assert all(not p.stale for p in explorer.pictures.values()) and len(set(pixels.values())) == 4
    assert explorer.pictures["a"].label == "A: first" and "untrained network shaped as first" in explorer.pictures["b"].label
    assert "fresh weights from seed 0" in explorer.said.value, "no start is recorded, and it says so"
    session.change(compare="second")
    assert explorer.pictures["b"].stale and explorer.caption.value.startswith(DIMMED), "what is not the newest is dimmed"
    wait(explorer)
    assert not explorer.pictures["b"].stale and DIMMED not in explorer.caption.value
    assert explorer.pictures["b"].label == "B: second" and explorer.said.value == "" and explorer.compare.value == "second"
    assert explorer.pictures["a"].pixels == pixels["a"] and explorer.pictures["b"].pixels != pixels["b"]
    session.change(compare="first")
    wait(explorer)
    assert explorer.pictures["b"].pixels == pixels["a"], "the same encoder, the same colours"
    assert explorer.look.components["b"].likeness == pytest.approx(1, abs=1e-4)
    explorer.layer.value = -2
    assert session.state.layer == -2
    wait(explorer)
    assert explorer.look.layer == -2 and explorer.pictures["a"].pixels != pixels["a"]
    explorer.frame.value = 2
    wait(explorer)
    assert session.state.frame == 2 and explorer.look.frame == 2
    assert explorer.pictures["color"].pixels == explorer.look.colors[2].tobytes()
    session.change(layer=-1, frame=0, compare="")
    assert explorer.pictures["a"].pixels == pixels["a"] and not explorer.pictures["a"].stale, "looked at before: no wait"
    explorer.close()


def test_a_patch_is_asked_in_any_picture_and_its_copy_is_found(session):
    explorer, masks = explore_features(session), explore_masks(session)
    wait(explorer)
    assert "Click a patch" in explorer.nearest.value and explorer.found("pixels") == []
    masks.pictures["truth"].selection = [8]
    assert explorer.pictures["b"].selection == [8] and explorer.asked == 8
    place, patch, cosine = explorer.look.nearest("pixels", 8, 3)[0]
    assert (explorer.look.frames[place], patch) == (3, 11) and cosine == pytest.approx(1, abs=1e-4)
    first = explorer.found("pixels")[0]
    assert first.words.startswith("frame 3\ncosine 1.00\ndepth ") and len(explorer.found("a")) == 6
    assert "row 2, column 4" in explorer.nearest.value and explorer.nearest.value.count("<img") == 19
    assert "drawn at random" in explorer.agrees.value
    assert set(explorer.look.agreement) == {"a", "b", "pixels", "random"}
    assert {"depth", "normal", "label", "place"} <= set(explorer.look.agreement["random"])
    table = explorer.nearest_table()
    assert [row["by"] for row in table] == ["a"] * 6 + ["b"] * 6 + ["pixels"] * 6
    assert (table[12]["frame"], table[12]["row"], table[12]["column"]) == (3, 3, 2)
    red = float(explorer.look.scores["a"][0, 0, 0])
    assert len(explorer.table()) == 20 and explorer.table()[0]["a red"] == pytest.approx(red, abs=1e-3)
    explorer.pictures["pixels"].hover = 4
    assert session.state.hover == 4 and masks.pictures["rgb"].hover == 4
    masks.close()
    explorer.close()


def test_the_probe_runs_on_a_button_says_on_what_and_names_every_opponent(session, few_rooms):
    explorer = explore_features(session)
    wait(explorer)
    explorer.probe_button.click()
    assert explorer.probe_button.disabled
    wait(explorer)
    assert not explorer.probe_button.disabled and list(explorer.result.scores) == [*OPPONENTS, "first"]
    said = explorer.probed.value
    assert all(name in said for name in (*OPPONENTS, "first", "best")) and "8 rendered rooms (the session has 4 frames" in said
    assert [row["encoder"] for row in explorer.probe_table()] == [*OPPONENTS, "first"]
    assert "3 frames to fit, 2 to choose" in said and explorer.verdict() in said.replace("&#x27;", "'")
    assert explorer.verdict().count("AbsRel") == 3, "beside the mean, the untrained network and the pixels"
    before = explorer.result
    session.change(layer=-2)
    with pytest.raises(ConfigError, match="has not run"):
        explorer.probe_table()
    assert explorer.result is None and "probe again" in explorer.probed.value
    session.change(layer=-1)
    assert explorer.result is before and "◂ best" in explorer.probed.value
    asked = []
    explorer.prober.ask = lambda *_: asked.append(1)
    explorer.run_probe()
    assert not asked, "what was probed is not probed again"
    del explorer.prober.ask
    wait(explorer)
    explorer.close()


def test_enough_session_frames_are_probed_themselves_split_by_time(frames, monkeypatch):
    monkeypatch.setattr(feature_analysis, "ENOUGH", 24)
    one = [dataclasses.replace(f, origin=dataclasses.replace(f.origin, sequence="walk", name=str(i)))
           for i, f in enumerate(frames * 6)]
    explorer = explore_features(Session(one, {"first": a_model()}))
    explorer.run_probe()
    wait(explorer)
    assert "the session&#x27;s 24 frames, same room: time blocks" in explorer.probed.value.replace("The", "the")
    assert "near copies" in explorer.probed.value and explorer.result.is_one_recording
    explorer.close()


def test_what_cannot_be_is_said_in_the_panel(frames):
    explorer = explore_features(Session(frames, {"blind": a_model(inputs=("depth",)), "first": a_model()}))
    assert "no RGB encoder" in explorer.said.value and explorer.pictures["a"].stale
    explorer.run_probe()
    assert explorer.result is None and not explorer.probe_button.disabled
    assert explorer.still().ndim == 3
    explorer.session.change(checkpoint="first")
    wait(explorer)
    assert "no RGB encoder" not in explorer.said.value and not explorer.pictures["a"].stale
    explorer.close()
    alone = explore_features(Session(frames[:1], {"first": a_model()}))
    wait(alone)
    alone.session.change(selection=(3,))
    assert "only one" in alone.nearest.value and alone.still().shape[1] == 1200
    alone.close()


def test_the_step_zero_twin_of_a_checkpoint_is_its_own_start(frames):
    from mask3d_core.training.config import PretrainConfig, to_dict
    from mask3d_core.training.pretraining import step_zero

    record = {"training": to_dict(PretrainConfig(data="rooms", model=MODEL)), "data": {"depth_mean": 0.5, "depth_std": 0.3}}
    session = Session(frames, {"run": a_model(7)})
    session._models["run"] = (a_model(7), record)
    state = torch.get_rng_state()
    explorer = explore_features(session)
    wait(explorer)
    assert torch.equal(torch.get_rng_state(), state), "the reader's random numbers are left alone"
    twin = explorer.look.encoders[1]
    assert twin.words == "run at step 0" and twin.note == "" and explorer.said.value == ""
    expected = step_zero(record).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in twin.model.state_dict().items())
    explorer.close()


def test_a_still_a_line_of_text_and_the_code_in_both_themes(session, few_rooms):
    explorer = explore_features(session)
    wait(explorer)
    short = explorer.still()
    session.change(selection=(6,))
    explorer.run_probe()
    wait(explorer)
    light, dark = explorer.still("light"), explorer.still("dark")
    assert light.shape[1] == 1200 and light.shape[0] > short.shape[0] + 300 and light.shape == dark.shape
    assert light[2, 2].mean() > 200 > 60 > dark[2, 2].mean()
    data = explorer._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert data["text/plain"].startswith("FeatureExplorer: frame 0") and len(data["image/png"]) > 1000
    assert explorer.code().endswith("explore_features(session)") and "selection=(6,)" in explorer.code()
    explorer.close()
    session.change(frame=1)
    assert explorer.look.frame == 0, "closed: it follows no more"
