"""Runs in processes of their own, followed by a panel and by explorers: start, stop, resume, cut logs, failures, kills."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from browser import open_widget
from conftest import random_model
from test_training import CONFIG, MODEL, run_fit

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation import OPPONENTS, depth_metrics
from mask3d_core.masking import MaskConfig, to_pixels
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources import open_source
from mask3d_core.training.checkpoint import load_model, save_model
from mask3d_core.training.config import pretrain_config
from mask3d_core.training.log import read_log, reference_curve
from mask3d_core.training.process import SILENCE, Owner, claimed, identity_of, read_owner, this_process, write_owner
from mask3d_viz.curves import figure_svg, loss_curve, theme_variables
from mask3d_viz.explorers.masks import explore_masks
from mask3d_viz.explorers.studio import studio_of
from mask3d_viz.explorers.watch import figures, watch
from mask3d_viz.film import FilmMaker, thinned
from mask3d_viz.following import Beat, follow_run
from mask3d_viz.predictions import model_token
from mask3d_viz.run_charts import OTHER_FRAMES, ghosts
from mask3d_viz.run_opponents import FixedScorer
from mask3d_viz.runs import LogTail, Run, command_of, duration, lesson_config, plan_run, start_run
from mask3d_viz.widgets.film_strip import FilmStrip, film_picture

posix = pytest.mark.skipif(os.name == "nt", reason="training from a panel needs signals")
STEPS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("store") / "rooms"
    prepare(open_source("rooms", count=10, seed=3, views_per_room=1, height=72, width=96), place,
            PrepareConfig(val_share=0.3, test_share=0.0))
    return place


def small(store, **fit):
    """A run of a second or two after its start."""
    return dataclasses.replace(
        CONFIG, name="tiny/mask3d", data=str(store), eval_frames=2, preview=2, mask=MaskConfig(((0.8, 0.8),)),
        fit=dataclasses.replace(CONFIG.fit, **{"steps": STEPS, "eval_every": 30, "save_every": 0, **fit}))


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def finished_folder(tmp_path, steps=6):
    """A run folder as `fit` leaves it."""
    config = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, steps=steps))
    run_fit(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    return tmp_path


# ---- the log and the process record ------------------------------------------------------------------------------------


def test_a_growing_log_is_read_piece_by_piece_and_a_cut_line_is_waited_for(tmp_path):
    path = tmp_path / "log.jsonl"
    tail = LogTail(path)
    assert not tail.read() and tail.records == []
    path.write_text('{"step": 1, "loss": 2.0, "losses": [2.0]}\n{"step": 2, "lo')
    assert tail.read() and tail.records == [{"step": 1, "loss": 2.0}]
    assert not tail.read(), "half a line is none"
    with open(path, "a") as file:
        file.write('ss": 1.0}\nnot json\n{"step": 3, "loss": null}\n')
    assert tail.read() and [r["step"] for r in tail.records] == [1, 2, 3] and tail.broken == 1
    version = tail.version
    other = tmp_path / "other"
    other.write_text('{"step": 1, "loss": 9.0}\n')
    os.replace(other, path)  # as a resumed run does
    assert tail.read() and tail.records == [{"step": 1, "loss": 9.0}] and tail.version > version and tail.broken == 0
    path.unlink()
    assert tail.read() and tail.records == []


@posix
def test_a_process_is_told_from_a_later_one_with_the_same_number(tmp_path):
    me = this_process()
    assert me.is_alive and me.is_here and identity_of(os.getpid()) == me.identity
    assert not dataclasses.replace(me, identity="another start").is_alive
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = this_process(child.pid)
    assert record.is_alive and record.identity != me.identity
    child.stdin.close()
    until(lambda: not record.is_alive, 20)  # a zombie, not waited for yet, is not alive
    child.wait()
    write_owner(tmp_path, record)
    assert read_owner(tmp_path) == record
    (tmp_path / "process.json").write_text("{")
    assert read_owner(tmp_path) is None and read_owner(tmp_path / "nowhere") is None


@posix
def test_a_run_folder_is_claimed_by_one_process_and_says_how_it_ended(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        write_owner(tmp_path, this_process(other.pid))
        with pytest.raises(ConfigError, match=f"process {other.pid} is training"):
            with claimed(tmp_path):
                raise AssertionError("never here")
        assert read_owner(tmp_path).pid == other.pid, "the refused one has not taken it over"
        with claimed(tmp_path, is_main=False):
            assert read_owner(tmp_path).pid == other.pid
    finally:
        other.kill()
        other.wait()
    with claimed(tmp_path) as claim:
        assert read_owner(tmp_path).pid == os.getpid() and read_owner(tmp_path).state == "running"
        claim.state = "stopped"
    assert read_owner(tmp_path).state == "stopped"
    with pytest.raises(Mask3DError), claimed(tmp_path):
        raise Mask3DError("a", "b", "Do c.")
    assert read_owner(tmp_path).state == "failed" and read_owner(tmp_path).reason == "expected a; got b. Do c."
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path):
        raise KeyboardInterrupt
    assert read_owner(tmp_path).state == "stopped"


HOLD = """
import sys
from pathlib import Path
from mask3d_core.errors import ConfigError
from mask3d_core.training.process import claimed
sys.stdin.readline()
try:
    with claimed(Path(sys.argv[1])):
        print("holds", flush=True)
        sys.stdin.readline()
except ConfigError as problem:
    print(problem, flush=True)
"""


@posix
def test_of_many_that_claim_at_once_one_holds_the_folder_until_it_ends(tmp_path):
    many = [subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True) for _ in range(4)]
    for each in many:
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.stdout.readline().strip() for each in many]
    assert said.count("holds") == 1 and sum("is training into" in text for text in said) == 3, said
    holder = many[said.index("holds")]
    (tmp_path / "process.json").unlink()  # even where nothing is written down
    with pytest.raises(ConfigError, match="another process is training"), claimed(tmp_path):
        raise AssertionError("never here")
    holder.kill()
    for each in many:
        each.communicate()
    with claimed(tmp_path):
        assert read_owner(tmp_path).pid == os.getpid()
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is training"), claimed(tmp_path):
            raise AssertionError("not twice in one process either")


def test_a_run_of_another_machine_counts_as_alive_while_its_log_grows(tmp_path):
    write_owner(tmp_path, dataclasses.replace(this_process(), host="elsewhere", pid=7, began=1.0))
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match="process 7 on elsewhere is training"), claimed(tmp_path):
        raise AssertionError("never here")
    os.utime(tmp_path / "log.jsonl", (1, time.time() - SILENCE - 5))
    with claimed(tmp_path):
        assert read_owner(tmp_path).is_here


@posix
def test_starting_leaves_a_living_owner_in_the_record(tmp_path, store, monkeypatch):
    """A terminal may claim the folder between the look and the start."""
    run, real = Run(tmp_path / "mine", small(store)), subprocess.Popen
    other = real([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def slow(*arguments, **options):
        write_owner(run.folder, this_process(other.pid))
        return real([sys.executable, "-c", ""])

    monkeypatch.setattr(subprocess, "Popen", slow)
    run.start()
    assert read_owner(run.folder).pid == other.pid
    other.kill()
    other.wait()


# ---- how a run stands --------------------------------------------------------------------------------------------------


def test_every_state_is_told_from_the_folder_alone(tmp_path):
    run = Run(tmp_path / "run")
    assert run.look().state == "not started" and run.look().words() == "not started" and run.command() == ""
    run = Run(finished_folder(tmp_path / "run"))
    status = run.look()
    assert (status.state, status.step, status.total) == ("finished", 6, 6) and status.metrics["abs_rel"] > 0
    assert not status.can_start and not status.can_stop and [s for s, _ in run.previews()] == [0, 3, 6]
    lines = (run.folder / "log.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "log.jsonl").write_text("".join(lines[:4]))
    status = run.look()
    assert status.state == "running" and "not known here" in status.reason and not status.can_stop
    assert [s for s, _ in run.previews()] == [0, 3] and status.step == 3, "pictures of steps that were taken back are not shown"
    os.utime(run.folder / "log.jsonl", (1, 1))
    run.log._file = (0, 0)
    assert run.look().state == "stopped" and run.look().can_start
    gone = Owner(2 ** 22 + 1, "never", this_process().host, str(tmp_path))
    write_owner(run.folder, gone)
    status = run.look()
    assert status.state == "failed" and "without a word" in status.reason
    (run.folder / "output.log").write_text("$ mask3d pretrain\nTraceback (most recent call last):\n  line\nMemoryError: no room\n")
    assert run.look().reason == "MemoryError: no room"
    write_owner(run.folder, dataclasses.replace(gone, host="elsewhere"))
    assert run.look().state == "stopped" and "elsewhere" in run.look().reason
    write_owner(run.folder, dataclasses.replace(gone, state="failed", reason="the loss was not finite"))
    assert run.look().reason == "the loss was not finite"
    assert [duration(s) for s in (40, 600, 12000)] == ["40 s", "10 min", "3 h 20 min"]


def test_the_command_line_means_the_same_configuration(tmp_path, store):
    import tyro

    from mask3d_core.cli import Pretrain

    config = small(store, learning_rate=0.02)
    for given in (config, plan_run(tmp_path, preset="tiny", control="rgb-to-depth", steps=7).config,
                  dataclasses.replace(config, name="demo/scratch")):
        words = command_of(tmp_path, given)
        assert tyro.cli(Pretrain, args=words[1:]).config() == given
    plain = plan_run("runs/mine", preset="tiny", steps=20, batch_size=4, changes=("fit.log_every=2",))
    assert plain.command() == ("mask3d pretrain runs/mine --preset tiny --steps 20 --batch-size 4 --set fit.log_every=2")
    folder = tmp_path / "planned"
    assert "lesson/mask3d" in plan_run(folder, config=lesson_config(9)).command() and not folder.exists()


def test_what_cannot_be_started_is_one_line(tmp_path, store):
    with pytest.raises(ConfigError, match="fit.steps"):
        plan_run(tmp_path, steps=0)
    with pytest.raises(Mask3DError, match="nothing there"):
        plan_run(tmp_path, frames=tmp_path / "nowhere")
    with pytest.raises(Mask3DError, match="mask3d prepare auto"):
        plan_run(tmp_path, frames=tmp_path)
    with pytest.raises(Mask3DError, match="neither a config.json"):
        Run(tmp_path / "empty").start()
    with pytest.raises(Mask3DError, match="a run of this machine that goes on"):
        Run(tmp_path / "empty").stop()
    with pytest.raises(Mask3DError, match="first weights; got not started"):
        Run(tmp_path / "empty").wait_for_weights(0.1)
    finished_folder(tmp_path / "run")
    assert Run(tmp_path / "run").wait_for_weights(0.1) == tmp_path / "run"
    with pytest.raises(ConfigError, match="another .*fit.steps.*fresh=True"):
        start_run(tmp_path / "run", config=small(store))


# ---- real processes ----------------------------------------------------------------------------------------------------


@posix
def test_a_terminals_run_is_followed_stopped_and_resumed_to_its_end_by_panels(tmp_path, store):
    folder, config = tmp_path / "mine", small(store, steps=STEPS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    terminal = subprocess.Popen([sys.executable, "-m", "mask3d_core.cli", *command_of(folder, config)], env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    panel = watch(folder)
    assert panel.status.state == "not started" and panel.start_button.disabled and panel.stop_button.disabled
    until(lambda: panel.run.look().step >= 3)
    panel._look()
    assert panel.status.state == "running" and not panel.stop_button.disabled and panel.resume_button.disabled
    assert "running" in panel.progress.value
    other = Run(folder)  # after a reload of the page or the kernel: the folder says all
    assert other.look().owner == panel.status.owner and other.look().can_stop
    assert other.start() is other and read_owner(folder).pid == terminal.pid, "never two"
    panel.stop_button.click()
    assert panel.status.state in ("stopping", "stopped") and panel.stop_button.disabled
    assert terminal.wait(60) == 130
    again, status = watch(folder), panel.poll()
    assert again.status == status and panel.film.steps[0] == 0 and "<svg" in panel.charts.value
    assert status.state == "stopped" and 3 <= status.step < STEPS and not panel.resume_button.disabled
    assert (folder / "state" / f"step-{status.step:09d}" / "state.json").is_file(), "stopped means saved"
    panel.poll()
    assert "Saved: Resume goes on" in panel.message.value
    stopped_at, before = status.step, {r["step"]: r["loss"] for r in read_log(folder / "log.jsonl") if "loss" in r}
    panel.resume_button.click()
    first = read_owner(folder).pid
    again.resume_button.click()
    assert read_owner(folder).pid == first and panel.poll().state in ("starting", "running"), "never two"
    assert os.getpriority(os.PRIO_PROCESS, first) >= 10
    status = panel.run.wait(120)
    panel.poll()
    assert status.state == "finished" and status.step == STEPS, status
    after = {r["step"]: r["loss"] for r in read_log(folder / "log.jsonl") if "loss" in r}
    assert list(after) == list(range(1, STEPS + 1)) and all(after[s] == before[s] for s in range(1, stopped_at + 1))
    assert panel.film.steps == [0, 30, 60, 90, 120] and all(
        b.disabled for b in (panel.start_button, panel.stop_button, panel.resume_button))
    assert watch(folder).status.state == "finished" and start_run(folder, config=config).look().state == "finished"
    for view in (panel, again):
        view.close()


@posix
def test_why_a_run_failed_or_was_killed_is_said_in_the_panel(tmp_path, store):
    run = start_run(tmp_path / "broken", config=small(store, learning_rate=1e30, max_skipped=1, clip=0.0, steps=4000))
    killed = start_run(tmp_path / "killed", config=small(store, steps=4000))
    panel = watch(killed)
    assert panel.status.state == "starting"
    os.kill(panel.status.owner.pid, signal.SIGKILL)
    until(lambda: panel.poll().state == "failed", 20)
    assert "SIGKILL" in panel.message.value and "alert" in panel.message.value and not panel.start_button.disabled
    panel.close()
    panel = watch(run)
    run.wait(120)
    assert panel.poll().state == "failed" and "finite losses" in panel.message.value
    assert not panel.resume_button.disabled or not panel.start_button.disabled
    run.clear()
    assert run.look().state == "not started" and run.config is not None and not any(run.folder.iterdir())
    panel.close()


# ---- the panel ---------------------------------------------------------------------------------------------------------


def test_the_film_scrubs_back_to_step_zero_and_shows_another_frame(tmp_path):
    panel = watch(finished_folder(tmp_path / "run"))
    assert panel.film.steps == [0, 3, 6] and panel.film.place == -1 and len(panel.frame.options) == 2
    assert all(f"Step {s}: AbsRel" in c and "mean of the visible" in c for s, c in zip((0, 3, 6), panel.film.captions))
    newest = panel.film.tiles()
    assert list(newest) == ["RGB seen", "Depth seen", "Prediction", "Error: prediction − truth", "Truth"]
    panel.film.place = 0  # as the slider in the browser sends it
    first = panel.film.tiles(panel.film.place)
    assert np.array_equal(first["Truth"], newest["Truth"]) and not np.array_equal(first["Prediction"], newest["Prediction"])
    panel.poll()
    assert panel.film.place == 0, "a look does not take the slider out of the hand"
    panel.frame.value = 1
    panel.worker.wait(60)
    assert not np.array_equal(panel.film.tiles(0)["Truth"], first["Truth"])
    still = {theme: panel.still(theme) for theme in ("light", "dark")}
    assert still["light"].shape[1] == 1200 and still["light"].mean() > still["dark"].mean() + 30
    data = panel._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert data["text/plain"] == "RunPanel: run, finished: step 6 of 6" and len(data["image/png"]) > 1000
    assert panel.code() == f"watch({str(tmp_path / 'run')!r})"
    panel.close()
    assert thinned(list(range(100)), 10)[0] == 0 and thinned(list(range(100)), 10)[-1] == 99
    (tmp_path / "cut.npz").write_bytes(b"PK")
    assert FilmMaker().make([(0, tmp_path / "cut.npz")]) is None


@pytest.mark.browser
def test_in_the_browser_the_film_scrubs_by_keys_and_clicks_without_a_kernel():
    tiles = [np.full((60, 80, 3), 40 * i, np.uint8) for i in range(6)]
    film = FilmStrip(label="Film", titles=["Truth", "Prediction"], is_changing=[False, True], size=(60, 80),
                     fixed=film_picture(tiles[:1]))
    film.set_film([0, 10, 20], [film_picture([tile]) for tile in tiles[3:]], ["nothing yet", "half", "newest"])
    with open_widget(film) as view:
        page, said = view.page, view.page.locator(".fs-caption")
        page.wait_for_selector(".fs-strip canvas >> nth=2")
        colour = "() => document.querySelectorAll('.fs-tiles canvas')[1].getContext('2d').getImageData(40, 30, 1, 1).data[0]"
        assert said.inner_text() == "newest" and page.evaluate(colour) == 200
        view.lose_kernel()
        page.locator(".fs-control input").focus()
        page.keyboard.press("Home")
        assert said.inner_text() == "nothing yet" and page.evaluate(colour) == 120 and view.get("place") == 0
        assert "kernel gone" in page.locator(".fs-gone").inner_text()
        page.keyboard.press("ArrowRight")
        assert said.inner_text() == "half" and page.locator(".fs-control output").inner_text() == "step 10"
        page.locator(".fs-strip canvas").nth(2).click()
        assert said.inner_text() == "newest" and view.get("place") == -1


def test_a_new_picture_is_only_made_where_something_is_new(tmp_path):
    panel = watch(finished_folder(tmp_path / "run"))
    asked = []
    panel.worker.ask = lambda *_: asked.append(1)
    panel._look()
    assert not asked
    with open(panel.run.folder / "log.jsonl", "a") as file:
        file.write('{"step": 6, "loss": 0.1}\n')
    panel._look()
    assert asked
    panel.close()


def test_charts_carry_the_opponent_and_the_shipped_run(tmp_path):
    config = dataclasses.replace(plan_run(tmp_path, preset="tiny").config, data="stores/rooms-train")  # as the shipped one
    records = [{"step": s, "loss": 1.0 / (s + 1), "eval": {"abs_rel": 0.5 / (s + 1), "abs_rel_of_the_mean": 0.3}}
               for s in range(0, 100, 10)]
    found = dict(figures(records, config))
    assert len(found) == 2
    words = {t.get_text() for axis in list(found.values())[1].axes for t in axis.texts}
    assert {"mean of the visible", "this run"} <= words and any(w.startswith("shipped") for w in words)
    assert figures([], config) == []
    for change in ({"mask": MaskConfig(((0.8, 0.8),))}, {"data": "rooms"}, {"rooms_sensor": 0.0}, {"eval_frames": 8},
                   {"model": dataclasses.replace(config.model, image_size=(120, 160))}):
        other = dataclasses.replace(config, **change)
        said = {t.get_text() for t in figures(records, other)[1][1].axes[0].texts if t.get_text().startswith("shipped")}
        assert said == {OTHER_FRAMES}, (change, "a ghost, and its name says that its frames are others")


def test_the_shipped_run_stands_behind_any_run_whose_numbers_mean_the_same(tmp_path):
    lesson, tiny = lesson_config(), plan_run(tmp_path, preset="tiny").config
    records = [{"step": s, "loss": 1.0 / (s + 1), "eval": {"abs_rel": 0.5 / (s + 1), "abs_rel_of_the_mean": 0.3}}
               for s in range(0, 1200, 100)]

    def dashes(config):
        return [[line for line in figure.axes[0].lines if line.get_label() == "_ghost"] for _, figure in figures(records, config)]

    loss, error = dashes(lesson)
    assert loss == [] and len(error) == 1, "the lesson's loss has another unit, its AbsRel has not"
    curve = [(r["step"], r["eval"]["abs_rel"]) for r in reference_curve("tiny/mask3d") if "abs_rel" in r.get("eval", {})]
    x, y = error[0].get_data()
    assert (x[0], x[-1]) == (0, 1100) and np.allclose(y, np.interp(x, *zip(*curve))) and error[0].get_linestyle() == "--"
    assert OTHER_FRAMES in texts(figures(records, lesson)[1][1])
    assert [len(lines) for lines in dashes(tiny)] == [1, 1] and OTHER_FRAMES in texts(figures(records, tiny)[0][1])
    assert dashes(dataclasses.replace(tiny, loss=dataclasses.replace(tiny.loss, kind="l1")))[0] == []
    assert ghosts(pretrain_config("tiny", "mae"), "rgb_error") and not ghosts(pretrain_config("tiny", "mae"), "abs_rel")
    assert ghosts(None, "loss") == {} and len(figures(records[:1], lesson)) == 2, "one step has no curve behind it"


def texts(figure):
    return {t.get_text() for t in figure.axes[0].texts}


def test_the_opponents_stand_beside_the_mean_on_the_frames_that_they_were_measured_on(tmp_path):
    panel = watch(finished_folder(tmp_path / "run"))
    fixed, previews = panel.fixed, panel.run.previews()
    with np.load(previews[-1][1]) as arrays:
        arrays = {name: torch.from_numpy(arrays[name]) for name in arrays}
    depth, is_valid = arrays["depth"].float(), arrays["is_valid"]
    hidden = is_valid & to_pixels(arrays["is_masked_depth"], (4, 5), 16)
    mean_of = lambda guess: float(depth_metrics(guess, depth, hidden)["abs_rel"].nanmean())  # noqa: E731
    for name in ("nearest", "linear_inverse"):
        guess = OPPONENTS[name](depth, is_valid & ~hidden, arrays["color"].float() / 255,
                                ~to_pixels(arrays["is_masked_rgb"], (4, 5), 16))
        assert fixed.rivals[name] == pytest.approx(mean_of(guess), rel=1e-5)
    assert [step for step, _ in fixed.run] == [0, 3, 6] and fixed.frames == len(depth) == 2
    assert fixed.run[-1][1] == pytest.approx(mean_of(arrays["prediction"].float()), rel=1e-5)
    records, config = panel.run.log.records, panel.run.config
    alone = dict(figures(records, config))["AbsRel over hidden pixels on held-out frames, over the steps"]
    starred = figures(records, dataclasses.replace(config, eval_frames=9), fixed=fixed)[1][1]
    same = figures(records, dataclasses.replace(config, eval_frames=2), fixed=fixed)[1][1]
    assert {"nearest pixel*", "spline in 1/depth*", "this run*", "this run"} <= texts(starred)
    assert "film's 2 fixed frames alone" in starred.axes[0].get_xlabel(), "and it says on which frames"
    assert {"nearest pixel", "spline in 1/depth", "mean of the visible"} <= texts(same) and "this run*" not in texts(same)
    assert not texts(alone) & {"nearest pixel", "nearest pixel*"}
    opened = []
    scorer, real = FixedScorer(), np.load
    try:
        np.load = lambda path, **more: opened.append(path) or real(path, **more)
        assert scorer.score(previews) == fixed and scorer.score(previews) == fixed
    finally:
        np.load = real
    assert len(opened) == 3, "each file is read once"
    previews[1][1].write_bytes(b"PK")
    assert [step for step, _ in FixedScorer().score(previews).run] == [0, 6] and FixedScorer().score([]) is None
    panel.close()


def test_a_cell_that_is_run_again_closes_its_panel_before(tmp_path, session, monkeypatch):
    import IPython

    run, cell = finished_folder(tmp_path / "run"), {"metadata": {"cellId": "first"}}
    shell = type("Shell", (), {"get_parent": lambda self: cell})()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    (tmp_path / "elsewhere").mkdir()
    first, other = watch(run, session), watch(tmp_path / "elsewhere")
    following = first.following
    assert following is not None and following.run.watchers
    again = watch(tmp_path / "elsewhere" / ".." / "run", session)
    assert first.comm is None and not following.run.watchers and following.worker._is_closed, "the panel before is closed"
    assert other.comm is not None and again.comm is not None, "another folder's is not"
    cell["metadata"]["cellId"] = "second"
    third = watch(run, session)
    assert again.comm is not None, "two cells, two panels"
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    plain = [watch(run), watch(run)]
    assert third.comm is not None and all(panel.comm is not None for panel in plain), "outside of a notebook nothing is closed"
    for panel in (other, again, third, *plain):
        panel.close()


def test_a_chart_as_svg_takes_the_pages_colours():
    svg = figure_svg(loss_curve([{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]), "falls & falls")
    assert svg.startswith("<svg viewBox") and 'aria-label="falls &amp; falls"' in svg and "var(--m3d-ink,#1c1e22)" in svg
    sheet = theme_variables(".x")
    assert "--m3d-ink:#1c1e22" in sheet and "--m3d-ink:#e9eaec" in sheet and "data-jp-theme-light='false'" in sheet


# ---- explorers that follow ---------------------------------------------------------------------------------------------


def test_all_explorers_of_a_session_follow_a_run(session, tmp_path):
    views = [explore_masks(session), explore_masks(session)]
    studio, folder = studio_of(session), tmp_path / "mine"
    shown = lambda: [v.pictures["prediction"].pixels for v in views]  # noqa: E731
    begin = shown()
    following = follow_run(session, folder)
    assert not following.poll() and following.step == -1, "no folder yet: waited for"
    save_model(folder / "latest", random_model(seed=1), {"step": 5})
    assert following.poll() and following.step == 5 and session.state.checkpoint == "mine"
    studio.wait(60)
    first = shown()
    assert first[0] == first[1] != begin[0]
    assert not following.poll(), "the same weights are not read again"
    whole = (folder / "latest.safetensors").read_bytes()
    (folder / "latest.safetensors").write_bytes(whole[:1000])
    assert not following.poll() and following.error == "" and following.step == 5, "half a file is waited for"
    session.change(seed=3)
    save_model(folder / "latest", random_model(seed=2), {"step": 9})
    assert following.poll() and following.step == 9 and session.state.seed == 3
    studio.wait(60)
    assert shown()[0] == shown()[1] != first[0] and not views[0].pictures["prediction"].stale
    with torch.inference_mode():
        truth = random_model(seed=2)(session.batch().color, session.batch().depth, session.batch().is_valid,
                                session.batch().intrinsics, session.masks()).depth[0].numpy()
    np.testing.assert_allclose(studio.shown.reconstruction.prediction, truth, rtol=1e-4)
    session.change(checkpoint="shipped")
    save_model(folder / "latest", random_model(seed=3), {"step": 12})
    assert following.poll() and session.state.checkpoint == "shipped", "the reader's choice stays"
    following.stop()
    for view in views:
        view.close()


def test_a_model_of_another_size_and_a_taken_name_are_refused_in_one_line(session, tmp_path):
    other = dataclasses.replace(MODEL, image_size=(96, 96))
    save_model(tmp_path / "large" / "latest", random_model(other, 1), {"step": 5})
    panel = watch(tmp_path / "large", session)
    panel.following.poll()
    assert "trains on 96x96 pixels" in panel.message.value and "\n" not in panel.following.error
    assert session.state.checkpoint == "shipped" and "large" not in session.checkpoints
    panel.follows.value = False
    assert panel.following is None
    panel.close()
    session.checkpoints["taken"] = tmp_path / "elsewhere"
    with pytest.raises(ConfigError, match="pass name="):
        follow_run(session, tmp_path / "taken")


def test_a_freed_models_number_is_never_given_again():
    tokens = set()
    for _ in range(20):
        model = random_model(seed=0)
        assert model_token(model) == model_token(model)
        tokens.add(model_token(model))
        del model
    assert len(tokens) == 20


def test_looks_come_from_the_kernels_loop_and_end_with_the_panel():
    import asyncio

    class Counter:
        looks = 0

        def look(self):
            self.looks += 1

    async def beat():
        counter = Counter()
        made = Beat(counter.look, 0.005)
        assert made.is_beating
        for _ in range(400):
            await asyncio.sleep(0.005)
            if counter.looks >= 3:
                break
        made.stop()
        seen = counter.looks
        await asyncio.sleep(0.05)
        return seen, counter.looks

    seen, later = asyncio.run(beat())
    assert seen >= 3 and later == seen
    assert not Beat(Counter().look, 0.01).is_beating, "without a loop nothing beats"


def test_the_weights_a_run_leaves_are_what_the_session_shows(session, tmp_path):
    folder = finished_folder(tmp_path / "run")
    panel = watch(folder, session)
    panel.following.poll()
    assert session.state.checkpoint == "run" and panel.following.step == load_model(folder)[1]["step"] == 6
    panel.close()
