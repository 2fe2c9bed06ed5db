"""The session: one state, its history, who is told, what it names; the worker; predictions."""

import asyncio
import dataclasses
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import random_model
from test_training import MODEL

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.models import Mask3D
from mask3d_core.sources import open_source
from mask3d_core.training.checkpoint import save_model
from mask3d_viz.predictions import SHOWN_OPPONENTS, Predictions
from mask3d_viz.session import HIDDEN, SHOWN, Session
from mask3d_viz.worker import Worker


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture
def session(frames, model):
    return Session(frames, {"shipped": model})


def test_changes_are_told_once_and_only_to_who_asked(session):
    everything, masks = [], []
    session.on(everything.append)
    stop = session.on(masks.append, "rgb_ratio", "depth_ratio")
    session.change(selection=[3, 1])
    session.change(rgb_ratio=0.5, hover=2)
    session.change(rgb_ratio=0.5)
    assert everything == [{"selection"}, {"rgb_ratio", "hover"}] and masks == [{"rgb_ratio", "hover"}]
    assert session.state.selection == (3, 1)
    stop()
    session.change(depth_ratio=0.1)
    assert len(masks) == 1 and len(everything) == 3


def test_every_wrong_value_is_named_and_nothing_changes(session):
    before = session.state
    with pytest.raises(ConfigError) as caught:
        session.change(rgb_ratio=1.2, frame=3, colormap="jet", checkpoint="other", depth_range=(2.0, 1.0))
    assert all(word in str(caught.value) for word in ("rgb_ratio", "frame", "jet", "other", "depth_range"))
    with pytest.raises(ConfigError, match="has no ratio"):
        session.change(ratio=0.2)
    with pytest.raises(ConfigError, match="patches must be 0..19"):
        session.change(selection=(20,))
    assert session.state is before


def test_undo_takes_a_whole_gesture_back_and_redo_brings_it_again(session):
    session.change(seed=7)
    for ratio in (0.7, 0.6, 0.5):
        session.change("rgb slider", rgb_ratio=ratio)
    session.end_gesture()
    session.change("rgb slider", rgb_ratio=0.4)
    session.change(hover=5)
    assert session.undo() and session.state.rgb_ratio == 0.5 and session.state.hover == 5
    assert session.undo() and session.state.rgb_ratio == 0.8 and session.state.seed == 7
    assert session.undo() and session.state.seed == 0 and not session.undo()
    assert session.redo() and session.redo() and session.state.rgb_ratio == 0.5
    session.change(view="top")
    assert not session.redo(), "a new change ends what could be done again"
    assert session.undo() and session.state.view == "three-quarter" and session.state.rgb_ratio == 0.5


def test_masks_are_nested_and_paint_goes_before_them(session):
    before = None
    for ratio in (0.0, 0.3, 0.6, 0.9, 1.0):
        session.change(depth_ratio=ratio)
        now = session.is_masked("depth")
        assert before is None or (now | before == now).all(), "a higher ratio only hides more"
        before = now
    session.change(rgb_ratio=0.5, depth_ratio=0.5)
    measured = session.ranks("depth") < 20
    showable = np.flatnonzero(measured)[:2].tolist()
    session.paint("depth", showable[:1], HIDDEN)
    session.paint("depth", showable[1:], SHOWN)
    hidden = session.is_masked("depth")
    assert hidden[showable[0]] and not hidden[showable[1]]
    session.paint("depth", range(20), SHOWN)
    assert (session.is_masked("depth") == ~measured).all(), "what was never measured cannot be shown"
    session.paint("depth", range(20), 0)
    assert session.state.painted_depth == ()
    with pytest.raises(ConfigError, match="modality"):
        session.paint("infrared", [1], HIDDEN)


def test_words_count_what_can_be_seen(session):
    session.change(rgb_ratio=0.75, depth_ratio=1.0)
    measured = int((session.ranks("depth") < 20).sum())
    assert session.words() == f"5 of 20 RGB patches and 0 of {measured} depth patches visible"


def test_an_object_can_be_hidden(session, frames):
    instances = session.batch().instance[0].view(4, 16, 5, 16).permute(0, 2, 1, 3).reshape(20, -1)
    patch = next(p for p in range(20) if (instances[p] > 0).all())
    touched = session.hide_object(patch)
    assert patch in touched and session.is_masked("depth")[touched].all() and not session.is_masked("rgb").any()
    assert session.state.selection == () and (session.hidden_object() | ~session.object_at(patch)).all()
    session.paint("depth", touched[:1], 0)
    assert session.hidden_object() is None or not (session.hidden_object() == session.object_at(patch)).all()
    assert session.undo() and session.undo() and session.state.painted_depth == () and session.hidden_object() is None


def test_one_object_is_hidden_at_a_time(frames, model):
    labels = np.zeros((64, 80), np.int32)
    labels[:32, :32], labels[40:60, 50:70] = 1, 2
    bare = dataclasses.replace(frames[0].fit(64, 80), instance=labels)
    session = Session([bare], {"shipped": model})
    session.paint("depth", [4], HIDDEN)
    assert session.hidden_object() is None and not session.object_problem()
    assert session.hide_object(0) == [0, 1, 5, 6]
    np.testing.assert_array_equal(session.hidden_object(), labels == 1)
    assert session.hide_object(13) == session_patches(labels == 2)
    np.testing.assert_array_equal(session.hidden_object(), labels == 2)
    assert dict(session.state.painted_depth) == dict.fromkeys([4, *session_patches(labels == 2)], HIDDEN)
    with pytest.raises(ConfigError, match="no labelled object in row 3, column 1"):
        session.hide_object(10)


def session_patches(pixels):
    """Numbers of the 16 x 16 patches that pixels touch, row by row."""
    return [r * 5 + c for r in range(4) for c in range(5) if pixels[16 * r:16 * r + 16, 16 * c:16 * c + 16].any()]


def test_a_session_survives_its_file(session, frames, model, tmp_path):
    session.change(frame=2, rgb_ratio=0.25, painted_rgb=((1, HIDDEN),), depth_range=(0.5, 4.0), hover=3,
                   camera={"yaw": 1.0, "target": [0, 0, 1]})
    path = session.save(tmp_path / "session.json")
    other = Session(frames, {"shipped": model})
    other.load(path)
    session.change(hover=-1)
    assert other.state == session.state
    assert other.undo() and other.state.frame == 0
    with pytest.raises(ConfigError, match="frame"):
        Session(frames[:1], {"shipped": model}).load(path)
    (tmp_path / "other.json").write_text("[1]")
    for name in ("other.json", "none.json"):
        with pytest.raises(Mask3DError, match=name):
            other.load(tmp_path / name)


def test_a_session_is_refused_on_other_frames_of_the_same_names(session, frames, model, tmp_path):
    session.change(frame=1)
    path = session.save(tmp_path / "session.json")
    noisy = [dataclasses.replace(f, color=np.clip(f.color.astype(int) + 1, 0, 255).astype(np.uint8), depth=f.depth * 1.001)
             for f in frames]
    Session(noisy, {"shipped": model}).load(path)
    other = Session([dataclasses.replace(f, color=f.color[::-1].copy()) for f in frames], {"shipped": model})
    deeper = Session([dataclasses.replace(f, depth=f.depth + 0.3) for f in frames], {"shipped": model})
    for wrong in (other, deeper):
        with pytest.raises(Mask3DError, match="another recording, whose frame of that name looks different") as caught:
            wrong.load(path)
        assert "\n" not in str(caught.value) and wrong.state.frame == 0
    saved = json.loads(path.read_text())
    saved["frame_look"] = "mine"
    path.write_text(json.dumps(saved))
    with pytest.raises(Mask3DError, match="looks different"):
        Session(frames, {"shipped": model}).load(path)
    del saved["frame_look"]  # as files were written before
    path.write_text(json.dumps(saved))
    assert other.load(path).frame == 1


def test_one_value_is_stepped_back_while_the_others_stay(session):
    session.paint("depth", [1], HIDDEN)
    session.paint("rgb", [2], HIDDEN)
    session.paint("depth", [3], SHOWN)
    session.change(view="top")
    assert session.undo_stroke("depth") and session.state.painted_depth == ((1, HIDDEN),)
    assert session.state.view == "top" and session.state.painted_rgb == ((2, HIDDEN),)
    assert session.undo() and session.state.painted_depth == ((1, HIDDEN), (3, SHOWN)), "itself undone"
    assert session.redo() and session.undo_stroke("depth") and session.state.painted_depth == (), "known again after a redo"
    assert not session.undo_stroke("depth") and session.state.view == "top"
    session.paint("depth", [5], HIDDEN)
    assert session.undo_stroke("depth") and session.state.painted_depth == () and not session.undo_stroke("depth")
    with pytest.raises(ConfigError, match="modality"):
        session.undo_stroke("infrared")


def test_checkpoints_come_from_files_and_are_read_again_after_a_refresh(frames, model, tmp_path):
    save_model(tmp_path / "run", model, {"step": 1})
    session = Session(frames, {"mine": tmp_path / "run", "memory": model})
    first = session.model()[0]
    assert session.state.checkpoint == "mine" and session.model()[0] is first and session.model()[1]["step"] == 1
    told = []
    session.on(told.append, "checkpoint")
    save_model(tmp_path / "run", model, {"step": 2})
    session.refresh("mine")
    assert told and session.model()[1]["step"] == 2
    with pytest.raises(ConfigError, match="checkpoint"):
        Session(frames, {})
    with pytest.raises(ConfigError, match="frame"):
        Session([], {"shipped": model})


def test_frames_may_be_a_source_of_which_some_are_used(model):
    source = open_source("rooms", count=9, seed=4, views_per_room=1, height=72, width=96)
    session = Session(source, {"shipped": model}, limit=3)
    assert len(session.frames) == 3 and session.frames.name(2).endswith(source.frame_name(8))


def test_predictions_follow_the_state_and_are_remembered(session):
    predictions = Predictions(session)
    first = predictions.now()
    assert predictions.now() is first and set(first.opponents) == set(SHOWN_OPPONENTS)
    assert first.best_opponent in SHOWN_OPPONENTS and first.reconstruction.scores["abs_rel"] > 0
    session.change(selection=(1,), view="top")
    assert predictions.now() is first, "what is not in the picture changes no prediction"
    for change in ({"depth_ratio": 0.5}, {"seed": 9}, {"frame": 1}, {"color_source": "grey"},
                   {"painted_rgb": tuple((p, SHOWN) for p in range(20))}):
        before = predictions.now()
        session.change(**change)
        now = predictions.now()
        assert not np.array_equal(before.reconstruction.prediction, now.reconstruction.prediction), change
    session.change(depth_ratio=1.0)
    assert predictions.now().opponents == {} and predictions.now().reconstruction.is_scale_assumed
    session.change(rgb_ratio=1.0, painted_rgb=())
    with pytest.raises(ConfigError, match="visible"):
        predictions.now()


def test_other_colours_are_what_they_say(session):
    predictions = Predictions(session, with_opponents=False)
    own = predictions.now().reconstruction.color
    pictures = {}
    for source in ("grey", "another frame", "shuffled"):
        session.change(color_source=source)
        pictures[source] = predictions.now().reconstruction.color
    assert (pictures["grey"] == pictures["grey"][0, 0, 0]).all()
    assert np.array_equal(np.sort(pictures["shuffled"].reshape(-1, 3), axis=0), np.sort(own.reshape(-1, 3), axis=0))
    assert not np.array_equal(pictures["another frame"], own)


def test_values_per_patch(session):
    shown = Predictions(session, with_opponents=False).now()
    values, r = shown.patch_values(), shown.reconstruction
    assert all(v.shape == (4, 5) and v.dtype == np.float32 for v in values.values())
    row, column = np.argwhere(np.isfinite(values["truth"]))[0]
    cell = (slice(row * 16, row * 16 + 16), slice(column * 16, column * 16 + 16))
    where = r.is_valid[cell]
    assert values["truth"][row, column] == pytest.approx(r.depth[cell][where].mean(), rel=1e-5)
    assert values["error"][row, column] == pytest.approx((r.prediction - r.depth)[cell][where].mean(), abs=1e-5)
    assert np.isfinite(values["prediction"]).all()


def test_the_newest_wish_wins():
    worker, results, gate = Worker(), [], threading.Event()

    def done(result, error):
        results.append(result)

    worker.ask(lambda: gate.wait(10) and "first", done)
    time.sleep(0.05)
    for name in ("second", "third", "fourth"):
        worker.ask(lambda name=name: name, done)
    gate.set()
    assert worker.wait(10) and results == ["fourth"], "the first was overtaken, the others never began"
    worker.close()


def test_results_arrive_where_the_hand_does():
    """On a kernel's event loop, never on the worker's thread: there they would move a view under the reader's hand."""
    worker, seen = Worker(), []

    async def kernel():
        worker.ask(threading.get_ident, lambda result, error: seen.append((result, threading.get_ident())))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if seen:
                return

    asyncio.run(kernel())
    worked, told = seen[0]
    assert worked != told == threading.get_ident() and not worker.is_busy
    worker.ask(lambda: None, lambda *_: seen.append("without a loop"))
    while not worker._arrived:
        time.sleep(0.01)
    assert len(seen) == 1 and worker.wait(10) and seen[-1] == "without a loop"
    worker.close()


def test_a_result_that_was_overtaken_on_its_way_is_not_handed_over():
    worker, seen = Worker(), []
    worker.ask(lambda: "old", lambda result, error: seen.append(result))
    while not worker._arrived:
        time.sleep(0.01)
    worker.ask(lambda: "new", lambda result, error: seen.append(result))
    assert worker.wait(10) and seen == ["new"]
    worker.close()


def test_slow_work_waits_for_a_hand_at_rest_and_quick_work_does_not():
    worker, began = Worker(rest=0.3, slow=0.05), []
    worker.ask(lambda: time.sleep(0.1), lambda *_: None)
    assert worker.wait(10)
    asked = time.perf_counter()
    worker.ask(lambda: began.append(time.perf_counter()), lambda *_: None)
    assert worker.wait(10) and began[0] - asked >= 0.3
    quick = Worker(rest=60.0, slow=30.0)
    for _ in range(2):
        quick.ask(lambda: None, lambda *_: None)
        assert quick.wait(30), "it did not wait for the hand"
    quick.close()
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.ask(lambda: None, lambda *_: None)


def test_an_error_is_handed_over_and_the_worker_lives_on(capsys):
    worker, seen = Worker(), []
    worker.ask(lambda: 1 / 0, lambda result, error: seen.append(type(error)))
    assert worker.wait(10) and seen == [ZeroDivisionError]
    worker.ask(lambda: 1, lambda result, error: 1 / 0)
    assert worker.wait(10) and "ZeroDivisionError" in capsys.readouterr().err
    worker.ask(lambda: 2, lambda result, error: seen.append(result))
    assert worker.wait(10) and seen[-1] == 2
    worker.close()


ENDS = """
import sys, threading, time
import torch
from mask3d_viz.worker import Worker
worker, began, matrix = Worker(), threading.Event(), torch.rand(400, 400)
def work():
    began.set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        (matrix @ matrix).sum()
    sys.stdout.write("came to its end")
worker.ask(work, lambda *_: None)
began.wait(60)
"""


def test_a_program_that_ends_while_a_worker_works_ends_well():
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "came to its end", done.stderr[-500:]


@pytest.mark.parametrize("spoil, said", [
    (lambda saved: saved["scenes"][0].pop("name"), "scenes with a name"),
    (lambda saved: saved["state"].update(rgb_ratio="x"), "rgb_ratio must be a number"),
    (lambda saved: saved.update(format="1"), "session of format"),
    (lambda saved: saved["state"].update(depth_range=[1]), "depth_range must be"),
    (lambda saved: saved["state"].update(layer="a"), "layer must be a whole number"),
    (lambda saved: saved["state"].update(head="zz"), "head must be"),
    (lambda saved: saved.update(frame_name="elsewhere/0"), "one on elsewhere/0"),
])
def test_a_spoilt_session_file_is_one_line_and_changes_nothing(session, tmp_path, spoil, said):
    session.keep("first")
    session.change(seed=4)
    path = session.save(tmp_path / "s.json")
    saved = json.loads(path.read_text())
    spoil(saved)
    path.write_text(json.dumps(saved))
    session.change(seed=5)
    with pytest.raises(Mask3DError, match=said) as caught:
        session.load(path)
    assert "\n" not in str(caught.value) and session.state.seed == 5 and len(session.scenes) == 1


def test_checkpoints_of_two_sizes_are_refused_in_one_line(frames):
    small, large = (Mask3D(dataclasses.replace(MODEL, image_size=size)).eval() for size in ((64, 80), (96, 128)))
    session = Session(frames, {"small": small, "large": large})
    with pytest.raises(ConfigError, match="large sees 96x128 pixels"):
        session.change(checkpoint="large")
    assert session.state.checkpoint == "small"
