"""The commands, as a person types them: the way through, and one clear line for every wrong input."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_training import MODEL

from mask3d_core import cli
from mask3d_core.cli import keys
from mask3d_core.models import Mask3D
from mask3d_core.ply import read_ply
from mask3d_core.store import Store
from mask3d_core.training.checkpoint import load_model, save_model

SMALL = ("--set", "model.image_size=[64,80]", "model.rgb.width=32", "model.rgb.depth=2", "model.rgb.heads=2",
         "model.depth.width=24", "model.depth.depth=2", "model.depth.heads=2", "model.decoder_width=32",
         "model.decoder_depth=2", "model.decoder_heads=2", "fit.log_every=1", "fit.save_every=1")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("store") / "rooms"
    assert cli.main(["prepare", "rooms", "--out", str(place), "--height", "72", "--width", "96", "--option", "count=16",
                     "seed=3", "views_per_room=2", "height=72", "width=96", "--val-share", "0.25",
                     "--test-share", "0.25"]) == 0
    return place


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "tiny"
    assert cli.main(["pretrain", str(place), "--data", str(store), "--steps", "2", "--batch-size", "4", *SMALL]) == 0
    return place


def test_a_flag_that_is_given_again_adds_to_the_first(tmp_path, capsys):
    flags = {"--set", "--ratios"}
    said = "study long --set a=1 b=--x --report --set c=-1 --workers 2 --set=d=2 -h -- --set z".split()
    assert cli.gathered(said, flags) == "study long --set a=1 b=--x c=-1 d=2 --report --workers 2 -h -- --set z".split()
    assert cli.gathered(["--seed", "1", "--seed", "2"], flags) == ["--seed", "1", "--seed", "2"], "one value: the last, as everywhere"
    assert cli.main(["study", "primary", "--plan", "--set", "seedz=3", "--workers", "1", "--set", "stepz=4"]) == 2
    assert "seedz" in (words := capsys.readouterr().err) and "stepz" in words


def test_prepare_and_doctor(store, capsys):
    opened = Store(store)
    assert len(opened) == 16 and opened.header.source["source"] == "rooms"
    assert cli.main(["doctor", str(store), "--json", str(store.parent / "report.json")]) == 0
    said = capsys.readouterr().out
    assert "this machine" in said and "torch" in said and str(store) in said
    assert json.loads((store.parent / "report.json").read_text())["severity"] in ("ok", "warn")


def test_pretrain_leaves_a_checkpoint_and_drawn_previews(run):
    model, record = load_model(run)
    assert record["step"] == 2 and model.config.image_size == (64, 80)
    assert record["data"]["sequences"] and record["extras"]["mean_map"].shape == (64, 80)
    assert list((run / "previews").glob("step-*.png"))


def test_pretrain_again_changes_nothing_and_another_recipe_is_refused(run, store, capsys):
    arguments = ["pretrain", str(run), "--data", str(store), "--batch-size", "4", *SMALL]
    assert cli.main([*arguments[:4], "--steps", "2", *arguments[4:]]) == 0
    assert cli.main([*arguments[:4], "--steps", "3", *arguments[4:]]) == 2
    assert "fit.steps" in capsys.readouterr().err


def test_a_checkpoint_can_be_continued(run, store, tmp_path):
    assert cli.main(["pretrain", str(tmp_path / "more"), "--data", str(store), "--init", str(run), "--no-probe", "--steps", "1",
                     "--batch-size", "4"]) == 0
    assert load_model(tmp_path / "more")[0].config == load_model(run)[0].config


def test_evaluate_prints_opponents_and_writes_json(run, store, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(run), "--data", str(store), "--draws", "2", "--out", str(out), "--ratios", "0.8",
                     "0.8", "0.8", "1.0", "1.0", "0.8"]) == 0
    said = capsys.readouterr().out
    assert "nearest" in said and "mean map" in said and "no scale alignment" in said
    result = json.loads(out.read_text())
    block = result["results"][0]
    assert set(block["beats"]) >= {"mean", "nearest", "linear", "linear_inverse", "color_guided"}
    assert block["scores"]["Mask3D"]["abs_rel"]["sequences"] == 2
    assert "Mask3D, no colour" in block["scores"] and "Mask3D, colour grey" in block["scores"]
    assert "mean map" in result["results"][1]["scores"] and "nearest" not in result["results"][1]["scores"]
    assert "Mask3D, colour grey" not in result["results"][2]["scores"]


def test_evaluate_refuses_frames_of_the_training_data(run, store, capsys):
    arguments = ["evaluate", str(run), "--data", str(store), "--split", "train", "--draws", "1"]
    assert cli.main(arguments) == 2
    assert "training data" in capsys.readouterr().err
    assert cli.main([*arguments, "--allow-seen", "--no-opponents"]) == 0
    assert "WARNING" in capsys.readouterr().out


def test_evaluate_takes_any_number_of_frames_and_nothing_to_score(run, store, capsys):
    """Nine frames leave one for the last batch; with all depth visible nothing is hidden."""
    assert cli.main(["evaluate", str(run), "--data", str(store), "--split", "all", "--limit", "9", "--draws", "1",
                     "--allow-seen", "--ratios", "0.8", "0.8", "0.8", "0.0"]) == 0
    said = capsys.readouterr().out
    assert "colour another frame's" in said and "nothing to score" in said


def test_what_a_parent_saw_stays_seen(run, store, tmp_path, capsys):
    """A continued checkpoint remembers its parent's frames, also through a store prepared from a store."""
    assert cli.main(["prepare", "rooms", "--out", str(tmp_path / "other"), "--height", "72", "--width", "96", "--option",
                     "count=8", "seed=4", "views_per_room=2", "height=72", "width=96"]) == 0
    assert cli.main(["pretrain", str(tmp_path / "more"), "--data", str(tmp_path / "other"), "--init", str(run), "--no-probe", "--steps",
                     "1", "--batch-size", "4"]) == 0
    assert cli.main(["prepare", "auto", str(store), "--out", str(tmp_path / "copy"), "--height", "72", "--width", "96",
                     "--split", "test"]) == 0
    record = load_model(tmp_path / "more")[1]
    copy = Store(tmp_path / "copy")
    train = set(Store(store).indices("train").tolist())
    seen = copy.is_seen(copy.indices("test"), record["data"]["sequences"])
    assert {int(i) for i, was in zip(copy.source_index, seen, strict=True) if was} == train


def test_reconstruct_writes_what_other_programs_read(run, store, tmp_path, capsys):
    from PIL import Image

    assert cli.main(["reconstruct", str(run), f"{store}#3", "--out", str(tmp_path)]) == 0
    assert "abs_rel" in capsys.readouterr().out
    with np.load(tmp_path / "prediction.npz") as arrays:
        prediction = arrays["prediction"]
    stored = np.asarray(Image.open(tmp_path / "prediction_mm.png"))
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored / 1000, np.clip(prediction, 0, 65.5), atol=6e-4)
    assert len(read_ply(tmp_path / "prediction.ply")[0]) == 64 * 80
    assert {p.name for p in tmp_path.iterdir()} >= {"panel.png", "cloud.png", "provenance.png", "truth.ply"}


def test_export_loads_in_timm(run, tmp_path, capsys):
    assert cli.main(["export", str(run), "--timm", str(tmp_path / "encoder")]) == 0
    assert (tmp_path / "encoder.safetensors").is_file() and "create_model" in capsys.readouterr().out


def test_plan_says_what_a_run_costs(store, capsys, tmp_path):
    assert cli.main(["plan", "--data", str(store), "--steps", "50", "--batch-size", "4", "--measure", "3", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "frames/s" in said and "too little data" in said


WRONG = {
    "no such checkpoint": (["evaluate", "nowhere", "--data", "x"], "nowhere"),
    "no such store": (["evaluate", "{run}", "--data", "nowhere"], "nowhere"),
    "no such recording": (["prepare", "tum", "nowhere", "--out", "{tmp}/s"], "nowhere"),
    "a source without its path": (["prepare", "tum", "--out", "{tmp}/s"], "needs the recording's folder"),
    "an unknown option": (["prepare", "rooms", "--out", "{tmp}/s", "--option", "colour=red"], "colour"),
    "a ratio above 1": (["reconstruct", "{run}", "{store}", "--out", "{tmp}", "--ratios", "1.5", "0.8"], "0..1"),
    "nothing visible": (["reconstruct", "{run}", "{store}", "--out", "{tmp}", "--ratios", "1", "1"], "at least one"),
    "a frame beyond the end": (["reconstruct", "{run}", "{store}#99", "--out", "{tmp}"], "16 frames"),
    "an unknown key": (["pretrain", "{tmp}/r", "--data", "{store}", "--set", "fit.stepz=3"], "fit.stepz"),
    "several wrong values at once": (["pretrain", "{tmp}/r", "--data", "{store}", "--set", "loss.kind=square",
                                      "fit.clip=-1.0"], "2 problem"),
    "weights out of reach": (["pretrain", "{tmp}/r", "--data", "{store}", "--init", "timm:vit_none"], "vit_none"),
    "an unknown device": (["pretrain", "{tmp}/r", "--data", "{store}", "--device", "abacus"], "abacus"),
    "no GPU here": (["evaluate", "{run}", "--data", "{store}", "--device", "cuda:99"], "cuda:99"),
    "overfitting live rooms": (["pretrain", "{tmp}/r", "--overfit", "8"], "prepared store"),
    "an option of another source": (["prepare", "tum", "{tmp}", "--out", "{tmp}/s", "--option", "zoom=3"], "zoom"),
    "a folder that is a file": (["export", "{run}", "--timm", "{file}/encoder"], "file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_gives_one_line_and_exit_2(what, run, store, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    arguments, words = WRONG[what]
    names = {"{run}": str(run), "{store}": str(store), "{tmp}": str(tmp_path), "{file}": str(file)}
    for name, value in names.items():
        arguments = [a.replace(name, value) for a in arguments]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and words in error


def test_a_model_without_depth_cannot_be_evaluated(store, tmp_path, capsys):
    model = Mask3D(dataclasses.replace(MODEL, inputs=("rgb",), targets=("rgb",)))
    save_model(tmp_path / "mae", model, {})
    assert cli.main(["evaluate", str(tmp_path / "mae"), "--data", str(store)]) == 2
    assert "predicts no depth" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_makes_its_page(tmp_path, monkeypatch):
    from mask3d_viz import demo

    if not demo.SHIPPED.with_suffix(".safetensors").is_file():
        torch.manual_seed(0)
        from mask3d_core.models import preset

        monkeypatch.setattr(demo, "SHIPPED", save_model(tmp_path / "tiny", Mask3D(preset("tiny")), {}))
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--quick"]) == 0
    page = next((tmp_path / "demo").rglob("report.html")).read_text()
    assert "It learns" in page and page.count("data:image/png") >= 6
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize("command", ["pretrain", "finetune", "study"])
def test_every_key_is_listed_with_its_meaning(command, capsys):
    config = keys.Keys(command)._config()
    found = list(keys.keys_of(config))
    assert len(found) > 30 and not [key.path for key in found if len(key.meaning) < 5]
    changed = cli.change_config(config, tuple(f"{key.path}={json.dumps(key.value)}" for key in found))
    assert changed == config, "what is listed is what --set takes"
    assert cli.main(["keys", command]) == 0
    said = capsys.readouterr().out
    assert all(f"{key.path} = " in said for key in found)


def test_some_keys_are_asked_for_by_a_part_of_their_name(capsys):
    assert cli.main(["keys", "pretrain", "loss.", "--preset", "base"]) == 0
    said = capsys.readouterr().out
    assert said.startswith('loss.kind = "l2"\n    "l1", "l2" (default)') and "fit." not in said
    assert "loss.gradient = 0.0\nloss.normal = 0.0\nloss.multi_scale = 0.0\n    weights of the extra terms" in said
    assert cli.main(["keys", "pretrain", "nonsense"]) == 2
    assert "no key of pretrain holds 'nonsense'" in capsys.readouterr().err
