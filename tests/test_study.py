"""A study in miniature: planned, run, stopped, resumed, read, drawn; and its statistics against answers known beforehand."""

import json
import math
import shutil
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from safetensors.torch import load_file, save_file

from mask3d_core.cli import main
from mask3d_core.cli.study import Study as StudyCommand
from mask3d_core.errors import ConfigError, DivergedError, Mask3DError
from mask3d_core.evaluation.segmentation import scores_of
from mask3d_core.store import Store
from mask3d_core.study import analysis, jobs, runner, starts
from mask3d_core.study.analysis import as_values, findings, holm, text_of, trials_text, trials_values, two_sided
from mask3d_core.study.budget import fit_budget, measure
from mask3d_core.study.config import STUDIES, WITHOUT_DEPTH, RoomsData, StudyConfig, TuneConfig, is_pretrained_here, label_of, ratios_of
from mask3d_core.study.jobs import as_recorded, key_of, pack, per_room, unpack
from mask3d_core.study.record import command_of, described
from mask3d_core.study.left import everything, left_of, planned_runs
from mask3d_core.study.runner import Study
from mask3d_core.study.starts import start_key, with_reachable
from mask3d_core.models.starts import open_start
from mask3d_core.study.results import Results
from mask3d_core.training.config import from_dict, to_dict
from mask3d_core.training.finetune_config import FinetuneConfig
from mask3d_core.training.finetuning import build_dense
from mask3d_viz.study_view import study_figure, study_image, trials_image

TINY = StudyConfig(
    name="tiny", starts=("random", "mask3d"), reference="mask3d", fractions=(0.5,), seeds=2, rooms=RoomsData(6, 2, 3, 2, 2, 900), pretrain_steps=2,
    pretrain_batch=2, finetune_steps=2, finetune_batch=2, tune=TuneConfig((4e-3,), (0.7, 1.0), (1.0, 2.0)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    made = Study(TINY, folder / "runs" / "tiny", folder / "tiny.runs.jsonl", "cpu", workers=0)
    assert made.run(show=False)
    return made


def lines_of(record):
    """The runs of a record."""
    return [line for line in map(json.loads, record.read_text().splitlines()) if line["kind"] != "stores"]


# ---- what is planned -------------------------------------------------------------------------------------------------


def test_every_study_is_possible_and_says_what_it_asks():
    for name, config in STUDIES.items():
        assert config.validate() is config and config.name == name and config.question.endswith((".", "?"))
        assert config.is_exploratory == (name != "primary")
        assert len(config.conditions) == len(config.folds or config.fractions)
    primary = STUDIES["primary"]
    assert len(primary.starts) == 4 and len(primary.fractions) == 2 and primary.seeds == 5 and primary.task == "segment"
    assert len(STUDIES["ratios"].starts) == 17, "noise and 4 x 4, the primary study's recipe one of them"
    assert set(get_args(get_args(get_type_hints(StudyCommand, include_extras=True)["name"])[0])) == set(STUDIES)


def test_all_starts_see_the_same_frames(tmp_path):
    for start in STUDIES["starts"].starts:
        if is_pretrained_here(start):
            config = STUDIES["starts"].pretraining(start, 3, tmp_path)
            assert (config.fit.steps, config.fit.batch_size, config.fit.learning_rate, config.fit.seed) == (1000, 32, 8e-3, 3)
    without = STUDIES["starts"].pretraining(WITHOUT_DEPTH, 0, tmp_path)
    assert without.model.inputs == ("rgb",) and without.model.targets == ("depth",) and without.mask.ratios == ((0.8, 1.0),)
    mae = STUDIES["starts"].pretraining("mae", 0, tmp_path)
    assert mae.mask.ratios == ((0.75, 1.0),) and mae.model.targets == ("rgb",)


def test_test_rooms_hold_out_furniture_and_are_other_rooms(study):
    sources = {part: Store(path).first_source for part, path in study.stores.items()}
    assert sources["test"]["pool"] == "test" and sources["train"]["pool"] == sources["val"]["pool"] == "train"
    assert len({source["seed"] for source in sources.values()}) == 3
    job = study.finetuning("mask3d", 0.5, 1, {"learning_rate": 0.004, "layer_decay": 1.0, "length": 1.0})
    assert job.config["label_seed"] == job.config["fit"]["seed"] == 1 and study.pretraining("mask3d", 1).key in job.config["start"]
    trial = study.finetuning("mask3d", 0.5, 0, {"learning_rate": 0.004, "layer_decay": 1.0, "length": 1.0}, True)
    assert trial.config["label_seed"] == TINY.tune.seed and study.pretraining("mask3d", 0).key in trial.config["start"]


def test_all_starts_are_one_architecture(study):
    """Patches of another size would be another model: more tokens, more compute, finer answers."""
    made = []
    for start in TINY.starts:
        job = study.finetuning(start, 0.5, 0, {"learning_rate": 0.004, "layer_decay": 1.0, "length": 1.0})
        config = from_dict(FinetuneConfig, job.config)
        opened = open_start(config.start, config.image_size, config.patch, config.fit.seed, config.shape)
        made.append(build_dense(config, opened, 13))
    assert made[0].config == made[1].config
    assert {k: v.shape for k, v in made[0].state_dict().items()} == {k: v.shape for k, v in made[1].state_dict().items()}


def test_an_impossible_study_is_refused_at_once():
    with pytest.raises(ConfigError) as caught:
        replace(TINY, starts=("random", "mask4d", "mask3d;nonsense=1"), reference="mask3d", seeds=0, fractions=(2.0,)).validate()
    text = " ".join(caught.value.problems)
    assert len(caught.value.problems) == 5 and "mask4d" in text and "unknown key 'nonsense'" in text and "reference" in text
    assert label_of("mask3d;loss=l2") == "Mask3D, loss=l2" and label_of("mae") == "MAE" and label_of("mask3d") == "Mask3D 80/80"
    assert label_of("mask3d;ratios=[[0.0,0.8],[0.5,1]];loss=l2") == "Mask3D 0/80 or 50/100, loss=l2" and label_of("random") == "random"


def test_folds_that_are_not_there_are_refused_before_anything_is_rendered(tmp_path, shared_data):
    real = replace(TINY, folder=str(shared_data / "mosd_learn"), folds=("boxes/*", "stacked/*", "saucers/*"))
    for config, words in ((real, r"none of saucers/\*"), (replace(real, folder=str(tmp_path / "nowhere")), "no such folder")):
        with pytest.raises(Mask3DError, match=words):
            Study(config, tmp_path / "runs" / "real", tmp_path / "real.runs.jsonl", "cpu", workers=0).prepare(show=False)
    assert not (tmp_path / "runs").exists()


def test_a_plan_says_runs_and_time_and_fits_a_budget():
    cost = measure(TINY, "cpu", workers=2, steps=1)
    assert planned_runs(TINY) == 2 * 1 + 2 * 3 + 2 * 2 and f"{planned_runs(TINY)} runs" in cost.text()
    assert set(cost.gflops) == {"mask3d"} and cost.gflops["mask3d"] > 0
    long = replace(cost, config=replace(TINY, seeds=5, finetune_steps=1000), finetune_seconds=100.0)
    fitted, said = fit_budget(long, 0.9 * long.seconds / 60)
    assert 3 <= fitted.config.seeds < 5 and fitted.seconds <= 0.9 * long.seconds and "seeds instead of more" in said[0]
    assert cost.render_seconds > 0, "rooms take time, and no share of the steps makes them cheaper"
    half = 0.05 * (long.seconds - long.render_seconds) + long.render_seconds
    fitted, said = fit_budget(long, half / 60)
    assert fitted.config.seeds == 3 and fitted.config.finetune_steps < 1000 and "too short a study" in said[-1]
    assert fitted.seconds == pytest.approx(half, rel=0.05)


def test_a_plan_counts_only_what_is_left(study, tmp_path):
    cost = measure(TINY, "cpu", workers=1, steps=1, study=study)
    assert (cost.left.pretrainings, cost.left.finetunings, cost.seconds) == ({"mask3d": 0}, 0, 0.0) and "0 to run" in cost.text()
    more = replace(cost, config=replace(TINY, seeds=3))
    assert more.left.pretrainings == {"mask3d": 1} and more.left.finetunings == 2 and more.seconds > 0
    other = replace(cost, config=replace(TINY, finetune_steps=3))
    assert other.left.finetunings == 2 * 3 + 2 * 2 and other.left.pretrainings == {"mask3d": 0}, "the pre-trained ones are there"
    lost = Study(TINY, tmp_path / "runs" / "tiny", tmp_path / "tiny.runs.jsonl", "cpu", workers=0)
    assert left_of(lost) == everything(TINY)
    longer = replace(TINY, tune=replace(TINY.tune, random_lengths=(4.0,)))
    assert left_of(study.with_config(longer)).finetunings == 1 + 2, "a trial more for noise, and what follows from it"
    assert planned_runs(longer) == planned_runs(TINY) + 1 and everything(longer).lengths == everything(TINY).lengths + 4 + 2 * (4 - 2)


# ---- running ---------------------------------------------------------------------------------------------------------


def test_a_study_is_run_once(study):
    assert study.status() == {"done": 12, "known": 12, "all": 12}
    lines = study.record.read_text().splitlines()
    again = Study(TINY, study.folder, study.record, "cpu", workers=0)
    assert again.run(show=False) and study.record.read_text().splitlines() == lines
    for line in lines_of(study.record):
        assert ("rooms" in line) == (line["split"] == "test") and "matrices" not in line.get("scores", {})
    assert not list(study.folder.glob("finetune/*/latest.safetensors")), "a study keeps scores, not hundreds of models"


def test_trials_look_at_no_test_room_and_are_told_apart_from_scores(tmp_path, study):
    trying = Study(TINY, study.folder, tmp_path / "tiny.runs.jsonl", "cpu", workers=0)
    assert "not run yet" in trials_text_of(trying)
    assert trying.run(show=False, only_trials=True)
    splits = [line["split"] for line in lines_of(trying.record)]
    assert splits.count("val") == 6 and "test" not in splits
    values = json.loads(json.dumps(trials_values(trying)))
    said = trials_text(values)
    assert trials_image(values).shape[2] == 3
    assert said.count("*") == 2 and "0.004/0.7/1" in said and "no test frame" in said and "/2 " in said
    with pytest.raises(Mask3DError, match="seed"):
        findings(trying)


def trials_text_of(study):
    """Before anything has run."""
    study.prepare(show=False)
    return trials_text(trials_values(study))


def test_what_another_study_has_run_is_not_run_again(tmp_path, study):
    (tmp_path / "study_other.runs.jsonl").write_text(study.record.read_text())
    again = Study(replace(TINY, name="again"), study.folder.parent / "again", tmp_path / "study_again.runs.jsonl", "cpu", workers=0)
    assert again.run(show=False) and not lines_of(again.record)
    assert findings(again).is_whole


def test_a_study_scored_here_takes_only_trials_from_other_machines(tmp_path, study):
    elsewhere = {"device": "another processor", "precision": "bf16", "torch": "2.0", "date": "2000-01-01"}
    moved = [{**line, "by": elsewhere} if line["split"] != "val" and "mask3d" not in line["name"] else line for line in lines_of(study.record)]
    assert sum(line.get("by") == elsewhere for line in moved) == 2, "random, two seeds"
    (tmp_path / "study_other.runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in moved))
    record = tmp_path / "study_here.runs.jsonl"
    here = Study(replace(TINY, name="here"), study.folder.parent / "here", record, "cpu", workers=0, here=True)
    assert here.run(show=False) and command_of(here) == "mask3d study here --here"
    own = lines_of(record)
    assert len(own) == 12 and all(line["by"]["device"] != "another processor" for line in own)
    again = [line["name"] for line in own if line["seconds"] not in {other["seconds"] for other in moved}]
    assert sorted(again) == ["random 50% seed 0", "random 50% seed 1"]
    reading = Study(replace(TINY, name="here"), study.folder.parent / "here", record, "cpu", workers=0)  # the own record counts
    assert {line["key"]: line for line in own} == {key: reading.results[key] for key in reading.results}


def test_of_other_records_the_newest_run_counts(tmp_path, study):
    line = lines_of(study.record)[0]
    for name, date in (("a", "2026-02-01"), ("b", "2026-03-01"), ("c", None)):
        noted = {"device": name, "precision": "float32", **({"date": date} if date else {})}
        (tmp_path / f"study_{name}.runs.jsonl").write_text(json.dumps({**line, "by": noted}) + "\n")
    assert Results(tmp_path / "study_own.runs.jsonl").by_key[line["key"]]["by"]["device"] == "b"


def test_a_stopped_study_goes_on_and_weights_that_are_gone_are_made_again(study, tmp_path):
    record = tmp_path / "tiny.runs.jsonl"
    lines = study.record.read_text().splitlines()
    kept = [line for line in lines if json.loads(line).get("split") != "test"]
    record.write_text("\n".join(kept[:-1]) + "\n")
    moved = Study(TINY, tmp_path / "runs" / "tiny", record, "cpu", workers=0)
    assert moved.run(show=False)
    assert sorted(r["key"] for r in moved.results.values()) == sorted(r["key"] for r in study.results.values()), "keys know no folder"
    for key, result in moved.results.items():
        if result["kind"] == "finetune":
            assert result["scores"]["scores"]["model"]["miou"] == pytest.approx(study.results[key]["scores"]["scores"]["model"]["miou"])


def test_a_run_that_fails_is_named(tmp_path):
    config = replace(TINY, starts=("random", "timm:nonsense"), reference="random")
    broken = Study(config, tmp_path / "runs" / "tiny", tmp_path / "x.runs.jsonl", "cpu", workers=0)
    with pytest.raises(Mask3DError, match="timm:nonsense 50% trial .* does not know a model"):
        broken.run(show=False)


def test_keys_know_what_was_run_and_not_where():
    config = {"data": "a", "start": "b", "fit": {"seed": 1}}
    assert key_of("finetune", config, "val", "x") == key_of("finetune", {**config, "data": "c"}, "val", "x")
    assert key_of("finetune", config, "val", "x") != key_of("finetune", config, "val", "y") != key_of("finetune", config, "test", "x")
    assert key_of("finetune", config, "val") != key_of("finetune", {**config, "fit": {"seed": 2}}, "val")
    whole = to_dict(FinetuneConfig())
    assert key_of("finetune", whole, "val") == key_of("finetune", {k: v for k, v in whole.items() if k != "leave_out"}, "val"), (
        "a key that is added later, at its default, changes nothing")


def test_a_key_goes_on_meaning_the_measurement_that_was_recorded(study):
    stores = {"train": Path("a"), "val": Path("b"), "test": Path("c")}
    for task, key in (("segment", "2fe3142904c0e186"), ("depth", "bfed2767cb668aa8")):  # as before view and clamp were there
        config = replace(StudyConfig(), task=task).finetuning("random", 0.1, 1, stores, {"learning_rate": 0.004, "layer_decay": 0.75,
                                                                                         "length": 1.0})
        assert key_of("finetune", to_dict(config), "test", "o", "p") == key
        kept = as_recorded(config)
        assert (kept.view, kept.depth.clamp, kept.depth.crop) == ("centre", False, "none")
    scored = [result["scores"]["protocol"] for result in study.results.values() if result["kind"] == "finetune"]
    assert scored and all(p["view"] == "centre" and p["view_share"] == pytest.approx(96 * 128 / 112 / 144) for p in scored)


def test_a_report_needs_neither_rooms_nor_weights(study, tmp_path):
    record = tmp_path / "tiny.runs.jsonl"
    record.write_text(study.record.read_text())
    reading = Study(TINY, tmp_path / "elsewhere" / "tiny", record, "cpu", workers=0)
    reading.locate()
    assert reading.status()["done"] == 12 and findings(reading).is_whole
    assert text_of(findings(reading)) == text_of(findings(study)) and not (tmp_path / "elsewhere").exists()
    other = Study(replace(TINY, rooms=replace(TINY.rooms, seed=901)), tmp_path / "x" / "y", record, "cpu", 0)
    other.locate()
    assert other.status()["done"] == 0, "other rooms"


def test_a_report_before_the_last_trial_is_not_final(study, tmp_path):
    """A wider grid over a record that is whole: its scores are there, its choices are not."""
    record = tmp_path / "study_tiny.runs.jsonl"
    record.write_text(study.record.read_text())
    wider = replace(TINY, name="wider", tune=replace(TINY.tune, random_lengths=(4.0,)))
    reading = Study(wider, tmp_path / "runs" / "wider", tmp_path / "study_wider.runs.jsonl", "cpu", workers=0)
    found = findings(reading)
    assert found.open_trials == {("random", 0.5): 1} and found.seeds == 2 and not found.is_whole
    assert "NOT FINAL: 1 of these trials have not run yet (random at 50%: 1)" in text_of(found)
    assert "NOT FINAL" not in text_of(findings(study)) and findings(study).open_trials == {}
    title = study_figure({**as_values(found), **described(reading)})._suptitle.get_text()
    assert "NOT FINAL: 1 trials have not run" in " ".join(title.split())
    tried = trials_values(reading)
    assert tried["open"] == ["random at 50%: 1"] and "still to run: random at 50%: 1" in trials_text(tried)
    assert trials_values(study)["open"] == [] and "still to run" not in trials_text(trials_values(study))


def test_trials_are_reported_without_running_any(study, tmp_path, monkeypatch, capsys):
    record = tmp_path / "study_primary.runs.jsonl"
    record.write_text(study.record.read_text())
    monkeypatch.setitem(STUDIES, "primary", replace(TINY, name="primary"))
    arguments = ["study", "primary", "--folder", str(tmp_path / "runs"), "--record", str(record), "--trials", "--report", "--device", "cpu"]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "study_primary_trials.json").read_text())["open"] == []
    assert main([*arguments, "--set", "tune.random_lengths=[4.0]"]) == 130 and not (tmp_path / "runs").exists()
    assert "still to run: random at 50%: 1" in capsys.readouterr().out


def test_a_processor_may_round_otherwise_and_a_renderer_may_not(study, tmp_path):
    stores = json.loads(study.record.read_text().splitlines()[0])
    assert stores["kind"] == "stores" and set(stores["fingerprints"]) == set(stores["looks"]) == {"train", "val", "test"}

    def moved(name, change):
        """The record of another machine whose rooms had other bits."""
        record = tmp_path / name / "tiny.runs.jsonl"
        record.parent.mkdir()
        other = {**stores, "fingerprints": {part: "0123456789abcdef" for part in stores["fingerprints"]},
                 "looks": {part: change(look) for part, look in stores["looks"].items()}}
        record.write_text(json.dumps(other) + "\n")
        made = Study(TINY, study.folder, record, "cpu", workers=0)
        made.prepare()
        return made

    rounded = moved("rounded", lambda look: [*look[:2], *(1.00001 * value for value in look[2:])])
    assert rounded.pretraining("mask3d", 0).key == study.pretraining("mask3d", 0).key, "keys know no bits"
    for name, change in (("rendered", lambda look: [*look[:2], *(1.01 * value for value in look[2:])]),
                         ("renamed", lambda look: [look[0], look[1] + 1, *look[2:]])):
        with pytest.raises(Mask3DError, match="the frames of the record; got others in train, val, test"):
            moved(name, change)


def test_a_record_that_was_cut_goes_on_and_one_that_is_broken_says_where(study, tmp_path):
    text = study.record.read_text()
    cut = tmp_path / "cut.runs.jsonl"
    cut.write_text(text[:-40])
    before = text.splitlines()
    made = Study(TINY, study.folder, cut, "cpu", workers=0)
    made.locate()
    assert made.status()["done"] == 11 and cut.read_text().splitlines() == before[:-1]
    broken = tmp_path / "broken.runs.jsonl"
    broken.write_text("\n".join([before[0], before[1][:-5], *before[2:]]) + "\n")
    with pytest.raises(Mask3DError, match="line 2"):
        Study(TINY, study.folder, broken, "cpu", workers=0)


def test_weights_are_made_again_only_for_what_is_open(study, tmp_path):
    record = tmp_path / "tiny.runs.jsonl"
    record.write_text(study.record.read_text())
    whole = Study(TINY, tmp_path / "runs" / "tiny", record, "cpu", workers=0)
    assert whole.run(show=False) and not (tmp_path / "runs" / "pretrain").exists(), "all is known, so nothing is trained"
    gone = [line for line in record.read_text().splitlines() if json.loads(line).get("name") != "mask3d 50% seed 1"]
    record.write_text("\n".join(gone) + "\n")
    again = Study(TINY, tmp_path / "runs" / "tiny", record, "cpu", workers=0)
    assert again.run(show=False) and findings(again).is_whole
    assert [p.name for p in (tmp_path / "runs" / "pretrain").iterdir()] == [again.pretraining("mask3d", 1).key], "seed 0's is not wanted"


def test_weights_of_a_run_that_was_broken_off_are_not_taken(study, tmp_path):
    shutil.copytree(study.folder.parent / "pretrain", tmp_path / "runs" / "pretrain")
    record = tmp_path / "tiny.runs.jsonl"
    record.write_text("".join(line + "\n" for line in study.record.read_text().splitlines() if json.loads(line).get("split") != "test"))
    again = Study(TINY, tmp_path / "runs" / "tiny", record, "cpu", workers=0)
    again.locate()
    job = again.pretraining("mask3d", 0)
    assert again.has_weights(job)
    published = again.run_of(job) / "latest.json"
    published.write_text(json.dumps({**json.loads(published.read_text()), "step": 0}))  # what a kill at the first steps leaves
    assert not again.has_weights(job) and left_of(again).pretrainings["mask3d"] == 1


def test_a_worker_that_is_killed_is_one_line(tmp_path, monkeypatch):
    class Broken(Executor):
        def __init__(self, *_):
            pass

        def submit(self, *_, **__):
            future = Future()
            future.set_exception(BrokenProcessPool("a child died"))
            return future

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Broken)
    made = Study(replace(TINY, starts=("random",), reference="random"), tmp_path / "runs" / "tiny", tmp_path / "x.runs.jsonl", "cpu", workers=2)
    with pytest.raises(Mask3DError, match="most often because memory was full.*fewer --workers than 2"):
        made.run(show=False)


def test_a_run_that_diverges_is_a_trial_that_lost_and_a_seed_that_is_named(study, tmp_path, monkeypatch):
    astray = {"mask3d 50% trial learning_rate 0.004, layer_decay 0.7, length 1", "mask3d 50% seed 0"}
    run_job = jobs.run_job

    def run(job, *rest):
        if job.name in astray:
            raise DivergedError("finite losses", "9 steps in a row with a non-finite gradient", "Lower it.", "there")
        return run_job(job, *rest)

    monkeypatch.setattr(jobs, "run_job", run)
    record = tmp_path / "tiny.runs.jsonl"
    record.write_text("".join(line + "\n" for line in study.record.read_text().splitlines() if json.loads(line).get("name") not in astray))
    made = Study(TINY, study.folder, record, "cpu", workers=0)
    assert made.run(show=False) and made.status()["done"] == 12, "it goes on, and does not try again for ever"
    assert made.choice("mask3d", 0.5, False)["layer_decay"] == 1.0
    assert [score for _, score in made.trials("mask3d", 0.5)][0] == -math.inf
    found = findings(made)
    assert found.seeds == 1 and "Mask3D 80/80 50% seed 0 diverged" in text_of(found) and not found.is_whole
    assert json.loads(json.dumps(trials_values(made), allow_nan=False)) and "diverged" in trials_text(trials_values(made))
    assert trials_image(trials_values(made)).shape[2] == 3


def test_what_has_begun_is_kept_when_another_run_fails(tmp_path, monkeypatch):
    config = replace(TINY, starts=("random",), reference="random", seeds=1, tune=TuneConfig((4e-3, 8e-3), (0.7, 1.0), (1.0,)))
    run_job, bad = jobs.run_job, []

    def run(job, *rest):
        if "learning_rate 0.004, layer_decay 1" in job.name and not bad:
            bad.append(job.name)
            raise Mask3DError("room on the disk", "none", "Make some.")
        return run_job(job, *rest)

    monkeypatch.setattr(jobs, "run_job", run)
    made = Study(config, tmp_path / "runs" / "tiny", tmp_path / "x.runs.jsonl", "cpu", workers=0)
    with pytest.raises(Mask3DError, match="random 50% trial learning_rate 0.004, layer_decay 1.* to finish.*room on the disk"):
        made.run(show=False)
    assert len(lines_of(made.record)) == 3, "the runs before and beside it"
    assert Study(config, made.folder, made.record, "cpu", workers=0).run(show=False)


def test_a_checkpoint_is_known_by_its_weights_and_not_by_its_place(study, tmp_path):
    made = study.run_of(study.pretraining("mask3d", 0))
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        shutil.copytree(made, place)
    assert start_key(str(first)) == start_key(str(second)) != str(first)
    weights = load_file(second / "latest.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, second / "latest.safetensors")
    assert start_key(str(first)) != start_key(str(second))
    assert start_key("timm:vit_tiny_patch16_224") != start_key("timm:vit_tiny_patch16_224.augreg_in21k")
    assert start_key("random") == "random"


def test_a_start_whose_weights_are_out_of_reach_is_left_out_and_named(study, tmp_path, monkeypatch):
    config = replace(TINY, where_reachable=("timm:vit_tiny_patch16_224",))
    asking = study.with_config(config)

    def out_of_reach(*_):
        raise ConfigError("its weights could not be fetched")

    monkeypatch.setattr(starts, "open_start", out_of_reach)
    made, lines = with_reachable(asking)
    assert made.config.starts == TINY.starts and lines == ["timm vit_tiny_patch16_224 is left out: its weights could not be fetched"]
    assert with_reachable(asking, may_fetch=False)[1] == ["timm vit_tiny_patch16_224 is left out: no result of it is recorded"]
    monkeypatch.setattr(starts, "open_start", lambda *_: None)
    made, lines = with_reachable(asking)
    assert made.config.starts == (*TINY.starts, "timm:vit_tiny_patch16_224") and not lines
    with pytest.raises(ConfigError, match="where_reachable"):
        replace(TINY, where_reachable=("mae",)).validate()


def test_a_record_tells_the_command_that_repeats_it(study, tmp_path):
    def command(config):
        return command_of(study.with_config(config))

    starts = STUDIES["starts"]
    assert command(starts) == "mask3d study starts"
    assert command(replace(starts, starts=(*starts.starts, *starts.where_reachable), where_reachable=())) == "mask3d study starts"
    assert command(replace(starts, seeds=2, rooms=replace(starts.rooms, test_rooms=9))) == "mask3d study starts --set seeds=2 rooms.test_rooms=9"


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_findings_of_a_run_study(study, tmp_path):
    found = findings(study)
    assert found.seeds == 2 and found.is_whole and set(found.cells) == {("random", 0.5), ("mask3d", 0.5)}
    cell = found.cells["mask3d", 0.5]
    assert cell.rooms.shape == (2, 3, 13, 3) and cell.trials == 3
    for seed in range(2):  # the packed counts say the same as the scores
        assert analysis.score("segment", cell.rooms[seed].sum(0)) == pytest.approx(cell.values[seed], abs=1e-9)
    text = text_of(found)
    for words in ("primary endpoint", "2 of 2 seeds", "chosen per start on validation rooms, out of 3 trials", "most frequent class",
                  "Mask3D minus", "over rooms", "Holm"):
        assert words in text
    values = {**as_values(found), **described(study)}
    assert json.loads(json.dumps(values)) and values["config"]["seeds"] == 2
    assert study_image(values).shape[2] == 3 and (study_image(values) != study_image(values, theme="dark")).any()


@pytest.mark.parametrize("name", ["ratios", "factors"])
def test_many_starts_get_a_grid_or_a_row_each(name):
    config, generator = STUDIES[name], np.random.default_rng(0)
    means = {start: 0.07 + 0.04 * generator.random() for start in config.starts}

    def around(mean):
        return {"mean": mean, "low": mean - 0.006, "high": mean + 0.006}

    cells = [{"start": start, "label": label_of(start), "ratios": ratios_of(start), "said": "10%", "condition": 0.1, "trivial": 0.03,
              "values": [mean], "over_seeds": around(mean)} for start, mean in means.items()]
    contrasts = [{"reference": config.reference, "other": start, "said": "10%", "condition": 0.1, "verdict": "not told apart",
                  "over_seeds": around(means[config.reference] - mean), "over_rooms": around(means[config.reference] - mean)}
                 for start, mean in means.items() if start != config.reference]
    values = {"question": config.question, "is_exploratory": True, "is_whole": True, "seeds": 3, "metric": "mIoU", "cells": cells,
              "contrasts": contrasts}
    figure = study_figure(values)
    FigureCanvasAgg(figure).draw()
    whole = figure.bbox
    texts = [text for axis in figure.axes for text in (axis.title, axis.xaxis.label, *axis.get_yticklabels(), *axis.texts)]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, f"{text.get_text()} is cut"
    said = " ".join(text.get_text() for text in texts)
    if name == "ratios":
        assert said.count("below noise") == sum(mean < means["random"] for mean in means.values()) > 0
        assert len([start for start in means if ratios_of(start)]) == 16
    else:
        assert "loss=l2" in said and "Mask3D 0/80, loss" not in said


def test_a_study_without_a_complete_seed_says_so(tmp_path, study):
    record = tmp_path / "none.runs.jsonl"
    record.write_text("".join(line + "\n" for line in study.record.read_text().splitlines() if json.loads(line).get("split") != "test"))
    with pytest.raises(Mask3DError, match="at least one seed that all starts have run"):
        findings(Study(TINY, study.folder, record, "cpu", workers=0))


def cells(first, second, rooms=40, seed=0):
    """Two starts whose confusion matrices differ by known amounts."""
    generator = np.random.default_rng(seed)
    hard = generator.uniform(0.3, 0.9, rooms)  # rooms differ much, starts little
    made = []
    for gains in (first, second):
        counts = np.zeros((len(gains), rooms, 2, 3))
        for k, gain in enumerate(gains):
            right = np.clip(hard + gain, 0, 1) * 100
            counts[k, :, :, 0] = right[:, None]
            counts[k, :, :, 1:] = 100.0
        values = analysis.score("segment", counts.sum(1))
        made.append(analysis.Cell("a", 0.1, values, counts, 0.1, {}, 1))
    return made


@pytest.mark.parametrize(("gain", "verdict"), [(0.05, "better"), (-0.05, "worse"), (0.0, "not told apart")])
def test_a_known_difference_is_found(gain, verdict):
    noise = np.array([0.0, 0.01, -0.01, 0.005, -0.005])
    reference, other = cells(gain + noise, 0.6 * noise[::-1])
    made = analysis._contrast(TINY, reference, other)
    made = replace(made, p_holm=made.p)
    assert made.verdict == verdict and made.over_seeds.sequences == 5 and made.over_rooms.sequences == 40
    if gain:
        assert np.sign(made.over_seeds.mean) == np.sign(gain)
        alone = reference.over_seeds
        assert made.over_rooms.high - made.over_rooms.low < 0.5 * (0.9 - 0.3), "rooms are paired"
        assert alone.low < alone.mean < alone.high


def test_the_constant_answer_over_all_folds():
    assert analysis.constant_answer(np.array([80.0, 20.0, 0.0])) == pytest.approx(0.8 / 2), "a class that is nowhere does not count"


def test_depth_is_turned_round_so_that_higher_is_better():
    rooms = np.random.default_rng(0).uniform(0.1, 0.3, (3, 20, 1))
    config = replace(TINY, task="depth")
    reference, other = (analysis.Cell("a", 0.1, (rooms + d).mean((1, 2)), rooms + d, 0.5, {}, 1) for d in (0.0, 0.05))
    assert analysis._contrast(config, reference, other).over_seeds.mean == pytest.approx(0.05)
    assert analysis._contrast(config, reference, other).over_rooms.mean == pytest.approx(0.05)


def test_student_and_holm():
    assert two_sided(np.array([0.1, 0.2, 0.3])) == pytest.approx(0.0742, abs=1e-4)  # t = 3.4641 with 2 degrees of freedom
    assert math.isnan(two_sided(np.array([0.1]))) and two_sided(np.zeros(3)) == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    corrected = holm([0.5, math.nan, 0.01])
    assert corrected[0] == 0.5 and math.isnan(corrected[1]) and corrected[2] == 0.02


def test_packing():
    matrices = {f"room-{k}": np.random.default_rng(k).integers(0, 50, (4, 4)) for k in (2, 0, 1)}
    found = per_room({"matrices": {k: v.tolist() for k, v in matrices.items()}})
    counts = unpack(found["counts"], "<i4", -1, 4, 3)
    assert found["names"] == sorted(matrices) and counts.shape == (3, 4, 3)
    total = sum(matrices.values())
    assert analysis.score("segment", counts.sum(0).astype(float)) == pytest.approx(float(scores_of(total)["miou"]))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (unpack(pack(values), "<f4", -1, 3) == values).all()


def test_the_legend_covers_no_score():
    recorded = Path(__file__).resolve().parents[1] / "results"
    for name, starts in (("starts", 7), ("primary", 4), ("depth", 4)):
        figure = study_figure(json.loads((recorded / f"study_{name}.json").read_text()))
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        assert len(legend.get_texts()) == starts and all(axis.get_legend() is None for axis in figure.axes)
        box, paper = legend.get_window_extent(), figure.bbox
        assert all(not axis.get_window_extent().overlaps(box) for axis in figure.axes)
        label = figure.axes[1].xaxis.label.get_window_extent()
        assert label.x1 <= paper.x1 and label.x0 >= paper.x0, "nothing is cut off"
