"""Fine-tuning in the lab: pre-flight before Start, two runs side by side, the film, the final table, followed by ``watch``."""

import ast
import csv
import dataclasses
import io
import os

import numpy as np
import pytest
from conftest import random_model
from PIL import Image
from test_preflight import Labelled, make

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")

import ipywidgets as widgets

from mask3d_core.doctor.report import Finding
from mask3d_core.errors import ConfigError, Mask3DError
from mask3d_core.evaluation.downstream import score_run
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.heads import HeadConfig
from mask3d_core.training.checkpoint import save_model
from mask3d_core.training.finetuning import finetune
from mask3d_core.training.process import read_owner
from mask3d_viz.explorers.finetuning import explore_finetuning
from mask3d_viz.explorers.finetuning_html import checks_html
from mask3d_viz.explorers.watch import watch
from mask3d_viz.finetuning_checks import merged, side_by_side, verdict
from mask3d_viz.finetuning_film import MISTAKES, FinetuningFilm, class_names_of
from mask3d_viz.finetuning_plans import plan_finetuning
from mask3d_viz.finetuning_scores import final_scores, read_scores
from mask3d_viz.following import follow_run
from mask3d_viz.run_plans import command_of
from mask3d_viz.runs import Run

posix = pytest.mark.skipif(os.name == "nt", reason="training from a panel needs signals")
OPTIONS = {"steps": 6, "batch_size": 4, "eval_every": 3, "preview": 2, "drop_path": 0.0, "learning_rate": 0.05,
           "precision": "float32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="module")
def store(place):
    return make(place)


@pytest.fixture(scope="module")
def checkpoint(place):
    """A small pre-trained model, as far as its files tell."""
    return save_model(place / "small", random_model(), {"step": 3, "frames_seen": 12, "data": {"sequences": ["list/elsewhere"]}})


@pytest.fixture(scope="module")
def folder(place, store, checkpoint):
    """Two finished and scored runs side by side."""
    for run in plan_finetuning(place / "pair", store, str(checkpoint), **OPTIONS).values():
        finetune(run.config, run.folder, "cpu", show=False)
        score_run(run.folder)
    return place / "pair"


@pytest.fixture
def panel(folder, store, checkpoint):
    made = explore_finetuning(store, str(checkpoint), run=folder, **OPTIONS)
    made.poll()
    yield made
    made.close()


def test_a_plan_differs_in_the_start_alone(place, store, checkpoint):
    runs = plan_finetuning(place / "plan", store, str(checkpoint), hold_out=["room1", "room2"], **OPTIONS)
    assert list(runs) == ["small", "random"] and not (place / "plan").exists()
    first, second = (run.config for run in runs.values())
    assert dataclasses.replace(first, start="random") == second and first.shape.width == 32
    assert first.image_size == (64, 80), "what the checkpoint was trained at"
    assert first.hold_out == ("room1", "room2"), "as config.json will say it"
    assert list(plan_finetuning(place / "plan", store)) == ["random"]
    assert list(plan_finetuning(place / "plan", store, str(checkpoint), "")) == ["small"]
    assert plan_finetuning(place / "plan", store)["random"].config.image_size == (64, 80), "as far as the frames reach"
    with pytest.raises(ConfigError, match="unknown option 'colour'.*batch_size"):
        plan_finetuning(place / "plan", store, colour=3)
    with pytest.raises(Mask3DError, match="nothing there"):
        plan_finetuning(place / "plan", place / "nowhere")


def test_noise_beside_a_checkpoint_of_other_patches_is_its_own_architecture(place, store):
    config = dataclasses.replace(random_model().config, patch=8)
    other = save_model(place / "fine", random_model(config), {"step": 0, "data": {}})
    runs = plan_finetuning(place / "plan", store, str(other), **OPTIONS)
    assert runs["random"].config.start == "random" and runs["random"].config.patch == 8
    panel = explore_finetuning(store, str(other), run=place / "plan", **OPTIONS)
    panel.poll()
    assert panel.is_green and "are the same network" in panel.checks.value and "a grid of 8x10 patches" in panel.checks.value
    panel.close()


def test_the_command_line_means_the_same_configuration(place, store):
    import tyro

    from mask3d_core.cli import Finetune

    runs = plan_finetuning(place / "plan", store, task="depth", freeze=-1, head=HeadConfig("linear"), hold_out=["room1"],
                           **OPTIONS)
    others = plan_finetuning(place / "plan", store, label_fraction=0.5, select="best")
    for config in (runs["random"].config, others["random"].config):
        words = command_of(place / "plan", config)
        assert words[0] == "finetune" and tyro.cli(Finetune, args=words[1:]).config() == config


def test_a_finished_pair_is_shown_whole(panel, folder):
    assert {s.state for s in panel.statuses.values()} == {"finished"} and panel.is_green
    assert panel.start_button.disabled and panel.stop_button.disabled and panel.resume_button.disabled
    assert panel.charts.value.count("<svg") == 2 and "mIoU" in panel.charts.value and "floor" in panel.charts.value
    assert panel.film.steps == [0, 3, 6] and panel.film.titles == ["RGB", "small", "random", "Truth"]
    assert "of pixels right" in panel.film.captions[-1] and "chair" in panel.legend.value and "not scored" in panel.legend.value
    names = [row.name for row in panel.final.rows]
    assert names == ["small", "random", "most frequent class (floor)"] and "over scenes" in panel.scores.value
    for name in ("small", "random"):
        found = read_scores(folder / name)
        row = next(row for row in panel.final.rows if row.name == name)
        assert row.mean == found["scores"]["model"]["miou"] and row.low <= row.mean <= row.high
    means = [row.mean for row in panel.final.rows[:2]]
    assert f"{means[0] - means[1]:+.3f}" in panel.final.difference and "another seed" in panel.final.difference
    assert "6 frames of split test" in panel.final.protocol and "scored: the whole stored frame" in panel.final.protocol


def test_without_a_green_list_nothing_starts(place, store, tmp_path):
    bad = make(tmp_path, Labelled(lambda i: np.full((64, 88), 9)))
    panel = explore_finetuning(bad, run=tmp_path / "run", shape=EncoderConfig(width=48, depth=2, heads=3), **OPTIONS)
    assert panel.start_button.disabled, "not made yet"
    panel.poll()
    assert not panel.is_green and panel.start_button.disabled and panel.resume_button.disabled
    assert "m3d-error" in panel.checks.value and "stop" in panel.checks.value and "class map does not fit" in panel.checks.value
    with pytest.raises(ConfigError, match="labels: ids 9 have no class name"):
        panel.start()
    assert not (tmp_path / "run").exists()
    panel.close()


def test_another_run_in_the_folder_is_said_and_fresh_clears_it(folder, store, checkpoint, tmp_path):
    other = explore_finetuning(store, str(checkpoint), run=folder, **{**OPTIONS, "steps": 9})
    other.poll()
    assert not other.is_green and "holds a run with" in other.checks.value
    other.close()
    for run in plan_finetuning(tmp_path, store, shape=EncoderConfig(width=48, depth=2, heads=3), **OPTIONS).values():
        finetune(run.config, run.folder, "cpu", show=False)
        score_run(run.folder)
    anew = explore_finetuning(store, run=tmp_path, fresh=True, shape=EncoderConfig(width=48, depth=2, heads=3),
                              **{**OPTIONS, "steps": 9})
    anew.poll()
    assert anew.is_green and anew.final is None and not (tmp_path / "random" / "scores.json").exists()
    assert not anew.start_button.disabled and anew.runs["random"].config.fit.steps == 9
    anew.close()


@posix
def test_both_are_started_followed_and_stopped_and_can_go_on(place, store, checkpoint):
    options = {**OPTIONS, "steps": 4000, "eval_every": 20}
    panel = explore_finetuning(store, str(checkpoint), run=place / "live", **options)
    panel.poll()
    panel.start_button.click()
    assert panel.start_button.disabled and not panel.stop_button.disabled
    panel.wait(120, until=lambda statuses: all(s.step >= 20 for s in statuses.values()))
    panel.poll()
    assert all(s.state == "running" for s in panel.statuses.values()) and "small and random" in panel.message.value
    assert "m3d-running" in panel.progress.value and panel.charts.value.count("<svg") == 2 and panel.film.steps[0] == 0
    assert panel.final is None and "comes once a run is finished" in panel.scores.value
    again = explore_finetuning(store, str(checkpoint), run=place / "live", **options)  # as after a reload
    again.poll()
    owners = {name: read_owner(run.folder).pid for name, run in again.runs.items()}
    assert len(set(owners.values())) == 2 and not again.stop_button.disabled and again.film.steps
    again.stop_button.click()
    again.wait(60, until=lambda statuses: all(s.state == "stopped" for s in statuses.values()))
    assert {s.state for s in again.statuses.values()} == {"stopped"}
    assert not again.resume_button.disabled and again.start_button.disabled
    for name, run in again.runs.items():
        assert (run.folder / "state" / f"step-{again.statuses[name].step:09d}" / "state.json").is_file(), "saved"
    for view in (panel, again):
        view.close()


def test_an_ordinary_panel_follows_a_fine_tuning_and_explorers_say_why_not(folder, session):
    panel = watch(folder / "small")
    panel.poll()
    assert panel.status.state == "finished" and "mIoU" in panel.progress.value and panel.film.steps == [0, 3, 6]
    assert panel.film.titles == ["RGB", "Prediction", "Truth"] and panel.charts.value.count("<svg") == 2
    assert "mask3d finetune" in panel.command.value and len(panel.table()) > 3 and panel.still().std() > 5
    panel.close()
    following = follow_run(session, Run(folder / "small"), name="small")
    for _ in range(8):
        following.poll()
    assert "fine-tuned dense model" in following.error and session.state.checkpoint == "shipped"
    following.stop()


def test_the_film_survives_missing_and_damaged_files(folder, tmp_path):
    previews = {name: Run(folder / name) for name in ("small", "random")}
    for run in previews.values():
        run.look()
    files = {name: run.previews() for name, run in previews.items()}
    damaged = tmp_path / "step-000000006.npz"
    damaged.write_bytes(b"PK not really")
    made = FinetuningFilm().beside({"small": files["small"][:1], "random": [*files["random"][:2], (6, damaged)]})
    assert made.steps == (0, 3, 6) and made.captions[2].count("of pixels right") == 2, "the file before"
    late = FinetuningFilm().beside({"small": files["small"], "random": files["random"][1:]})
    assert "random not there yet" in late.captions[0] and late.count == 2
    assert class_names_of(folder / "small") == ("floor", "chair", "lamp") and class_names_of(tmp_path) == ()
    wrong = FinetuningFilm().beside(files, 0, MISTAKES)
    assert wrong.pictures[0] != FinetuningFilm().beside(files).pictures[0]
    assert FinetuningFilm().beside({"small": [], "random": []}) is None and FinetuningFilm().make([(0, damaged)]) is None


def test_depth_runs_have_their_own_film_and_table(place, store):
    runs = plan_finetuning(place / "depth", store, task="depth", head=HeadConfig("linear"),
                           shape=EncoderConfig(width=48, depth=2, heads=3), **OPTIONS)
    run = runs["random"]
    finetune(run.config, run.folder, "cpu", show=False)
    score_run(run.folder)
    panel = explore_finetuning(store, task="depth", run=place / "depth", head=HeadConfig("linear"),
                               shape=EncoderConfig(width=48, depth=2, heads=3),
                               **OPTIONS)
    panel.poll()
    assert panel.final.metric == "AbsRel" and panel.final.rows[1].is_trivial and "AbsRel" in panel.film.captions[0]
    panel.look.value = MISTAKES
    panel.poll()
    assert "on a scale of 1 m" in panel.film.captions[0]
    assert watch(run.folder).poll().metrics["abs_rel"] > 0
    panel.close()


def test_the_film_of_a_detector_names_its_objects(tmp_path):
    ids = np.zeros((1, 40, 60), np.uint8)
    ids[0, 5:20, 5:30] = 1
    box, label = np.array([[[5, 5, 30, 20]]], np.float32), np.array([[2]], np.int16)
    arrays = {"color": np.zeros((1, 3, 40, 60), np.uint8), "is_ignored": np.zeros((1, 40, 60), bool)}
    for name, score in (("truth", 1.0), ("object", 0.9)):
        arrays |= {f"{name}_ids": ids, f"{name}_boxes": box, f"{name}_labels": label,
                   f"{name}_scores": np.full((1, 1), score, np.float32)}
    np.savez(tmp_path / "step-000000003.npz", **arrays)
    files = [(3, tmp_path / "step-000000003.npz")]
    named, nameless = FinetuningFilm(lambda: ("wall", "box", "ball")).make(files), FinetuningFilm().make(files)
    assert named.captions == ("Step 3: Prediction 1 object of score 0.5 or more",)
    assert named.pictures != nameless.pictures and named.fixed != nameless.fixed, "ball, not class 2"


def test_findings_of_two_runs_are_one_list():
    ok, red = Finding("labels", "ok", "fine"), Finding("start", "error", "seen before")
    both = merged({"a": [ok, red], "b": [ok, Finding("start", "ok", "b: new")]})
    assert [(f.check, f.text) for f in both] == [("labels", "fine"), ("start", "a: seen before"), ("start", "b: new")]
    assert verdict(both).startswith("1 of 3 say stop") and verdict([ok]) == "All green: ready to start."
    html = checks_html(both)
    assert html.count("<li") == 3 and "✕" in html and ">stop<" in html and ">green<" in html, "words, not colour alone"
    assert "looking at" in checks_html(None)
    shape = {"blocks": 2, "width": 48, "patch": 16}
    same = side_by_side({n: [Finding("start", "ok", "", shape)] for n in "ab"})
    assert same[0].severity == "ok" and side_by_side({"a": [ok]}) == []
    other = side_by_side({"a": [Finding("start", "ok", "", shape)], "b": [Finding("start", "ok", "", {**shape, "patch": 8})]})
    assert other[0].severity == "warn" and "not the same network" in other[0].text


def test_scores_of_other_frames_are_not_compared(folder):
    found = {name: read_scores(folder / name) for name in ("small", "random")}
    matrices = dict(found["random"]["matrices"])
    matrices["another room"] = matrices.pop(next(iter(matrices)))
    table = final_scores({"small": found["small"], "random": {**found["random"], "matrices": matrices}}, "segment")
    assert "not to be compared" in table.difference
    assert final_scores({"small": None, "random": None}, "segment") is None
    assert final_scores({"small": found["small"], "random": None}, "segment").difference == ""


# ---- what test_explorer_contract.py asks of every explorer. What is about a session's frame, masks, checkpoints or saved state
# does not apply: this panel has no session, and its scenes are places of its film, as in a ``watch`` without one.


def test_its_files_can_be_read_and_its_code_brings_it_back(panel, folder, tmp_path):
    assert panel.toolbar.kinds == ["PNG", "CSV"], "there is no session to save"
    assert Image.open(panel.export("PNG", tmp_path)).size[0] >= 600
    rows = list(csv.DictReader(io.StringIO(panel.export("CSV", tmp_path).read_bytes().decode())))
    assert {row["run"] for row in rows} == {"small", "random"} and any(row["validation_miou"] for row in rows)
    with pytest.raises(ConfigError, match="explore_finetuning writes PNG, CSV"):
        panel.export("JSON", tmp_path)
    ast.parse(panel.code())
    again = eval(panel.code(), {"explore_finetuning": explore_finetuning})
    again.poll()
    assert again.statuses == panel.statuses and again.code() == panel.code() == panel.toolbar.code
    again.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_has_a_picture_in_both_themes(panel, theme):
    picture = panel.still(theme)
    assert picture.dtype == np.uint8 and picture.shape[1] == 900 and picture.std() > 5
    assert picture[-3:, -3:].mean() > 200 if theme == "light" else picture[-3:, -3:].mean() < 60


def test_kept_pictures_are_places_of_the_film(panel):
    panel.toolbar.request = {"number": 1, "what": "keep"}
    panel.film.place, panel.frame.value, panel.look.value = 0, 1, MISTAKES
    panel.toolbar.request = {"number": 2, "what": "keep"}
    assert panel.toolbar.scene == 1 and all(scene["picture"].startswith("data:image/png") for scene in panel.toolbar.scenes)
    panel.toolbar.request = {"number": 3, "what": "previous"}
    assert (panel.film.place, panel.frame.value, panel.look.value, panel.toolbar.scene) == (-1, 0, "answer", 0)
    panel.toolbar.request = {"number": 4, "what": "forget", "scene": 0}
    assert len(panel.toolbar.scenes) == 1


def test_the_projector_gets_two_panels_and_controls_have_names(panel):
    panel.present()
    assert len([p for p in panel.panels() if "mask3d-not-presented" not in p._dom_classes]) == 2
    panel.present(False)
    assert not any("mask3d-not-presented" in p._dom_classes for p in panel.panels())
    stack = [panel]
    while stack:
        widget = stack.pop()
        stack += getattr(widget, "children", ())
        if isinstance(widget, (widgets.Button, widgets.Dropdown)):
            assert widget.tooltip or widget.description, widget
    found = panel._repr_mimebundle_()
    assert "image/png" in (found[0] if isinstance(found, tuple) else found), "something where no kernel is"
