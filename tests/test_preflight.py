"""The pre-flight of a fine-tuning: every reason to stop or to look is found on small stores; what is well is said to be."""

import dataclasses
import json

import numpy as np
import pytest
from list_source import ListSource

from mask3d_core.cli import main
from mask3d_core.doctor.report import SEVERITIES
from mask3d_core.errors import ConfigError
from mask3d_core.evaluation.downstream import MAJORITY, score_run
from mask3d_core.evaluation.trivial import validation_trivial
from mask3d_core.frames import IGNORE_LABEL
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.heads import HeadConfig
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.store import Store
from mask3d_core.training.config import FitConfig
from mask3d_core.training.finetune_config import DepthConfig, finetune_config
from mask3d_core.training.finetuning import finetune, labelled_share
from mask3d_core.training.held_out import part_of
from mask3d_core.training.preflight import preflight, refuse_vain
from mask3d_core.training.preflight_data import Parts, check_scored_part

SHAPE = EncoderConfig(width=48, depth=2, heads=3)
SIZE = (64, 80)


class Labelled(ListSource):
    """Frames whose label ids are what a function of their number says."""

    def __init__(self, ids, names=("floor", "chair", "lamp"), count=24, sequences=8, **options):
        super().__init__(count, sequences, height=72, width=88, **options)
        self.ids, self.class_names, self.labels = ids, names, frozenset({"semantic", "instance"})

    def read(self, index):
        frame = super().read(index)
        ids = np.full((self.height, self.width), IGNORE_LABEL, np.uint8)
        ids[8:] = np.asarray(self.ids(index), np.uint8)
        return dataclasses.replace(frame, semantic=ids, instance=np.where(ids < 3, ids, 0).astype(np.int32))


def halves(index):
    """Left half floor, right half chair or lamp."""
    return np.repeat([0, 1 + index % 2], 44)[None].repeat(64, 0)


def make(tmp_path, source=None, name="store", **options):
    place = tmp_path / name
    options = {"val_share": 0.25, "test_share": 0.25, **options}
    prepare(source or Labelled(halves), place, PrepareConfig(72, 88, **options), progress=False)
    return place


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("preflight"))


def config(store, **changes):
    fit = FitConfig(steps=4, batch_size=4, learning_rate=8e-3, eval_every=2, save_every=0, log_every=1)
    return finetune_config(changes.pop("task", "segment"), **{"data": str(store), "shape": SHAPE, "image_size": SIZE, "fit": fit,
                                                             "drop_path": 0.0, "preview": 2, **changes})


def asked(store, measure=False, **changes):
    """Findings by check, the worst of each."""
    found = preflight(config(store, **changes), "cpu", measure)
    worst = {}
    for finding in found:
        if finding.check not in worst or SEVERITIES.index(finding.severity) > SEVERITIES.index(worst[finding.check].severity):
            worst[finding.check] = finding
    return worst


def test_all_is_well_and_everything_was_asked(store, tmp_path):
    found = preflight(config(store), "cpu", run=tmp_path / "run")
    assert [f.check for f in found] == ["configuration", "run folder", "data", "scenes", "labelled frames", "labels", "holes", "scored part",
                                        "start",
                                        "not seen before", "head", "time", "memory", "disk"]
    assert {f.severity for f in found} == {"ok"}, found
    by = {f.check: f for f in found}
    whole = Store(store)
    assert by["data"].numbers == {k: len(whole.indices(k)) for k in ("train", "val", "test")}
    assert by["labels"].numbers["share"]["floor"] == pytest.approx(0.5)
    assert "looked at 12 training, 6 validation and 6 test" in by["labels"].text
    holes = by["holes"].numbers
    assert holes["unlabelled"] == pytest.approx(8 / 72) and holes["unmeasured"] == pytest.approx(0.1, abs=0.01)
    assert by["head"].numbers["grid"] == [4, 5] and by["start"].numbers["kind"] == "none"
    assert by["time"].numbers["seconds"] > 4 * by["time"].numbers["step_seconds"] > 0 and by["time"].numbers["evaluations"] == 3
    assert 1e8 < by["memory"].numbers["bytes"] < by["memory"].numbers["limit"] and by["disk"].numbers["bytes"] > 1e5
    assert not (tmp_path / "run").exists(), "nothing is written"


def test_measuring_leaves_torchs_generator_and_the_start_alone(store):
    import torch

    before = torch.get_rng_state()
    preflight(config(store), "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_ids_beyond_the_classes_stop(tmp_path):
    found = asked(make(tmp_path, Labelled(lambda i: np.full((64, 88), 5))))
    assert found["labels"].severity == "error" and found["labels"].numbers["beyond"] == [5]
    assert "3 classes, 0..2" in found["labels"].text and "the class map does not fit" in found["labels"].text


def test_classes_that_are_never_learned_are_named(store, tmp_path):
    whole = Store(store)
    train = set(whole.source_index[whole.indices("train")].tolist())
    place = make(tmp_path, Labelled(lambda i: np.full((64, 88), 1 if i in train else 2)))
    found = asked(place)["labels"]
    assert found.severity == "warn" and found.numbers["never_learned"] == ["lamp"] and found.numbers["nowhere"] == ["floor"]
    assert "lamp" in found.text and "IoU will be 0" in found.text


def test_frames_without_any_label_stop(tmp_path):
    found = asked(make(tmp_path, Labelled(lambda i: np.full((64, 88), IGNORE_LABEL))))
    assert found["data"].severity == "error" and "no pixel of the 12 training frames" in found["data"].text
    assert "labels" not in found, "nothing is left to ask"


def test_a_torn_scene_stops_and_time_blocks_are_a_warning(tmp_path):
    torn = make(tmp_path, name="torn")
    splits = np.load(torn / "split.npy")
    splits[:] = 0
    splits[1::3], splits[2::3] = 1, 2  # three frames a sequence: one in each part
    np.save(torn / "split.npy", splits)
    found = asked(torn)["scenes"]
    assert found.severity == "error" and found.numbers["torn_val"] == found.numbers["torn_test"] == 8
    blocks = asked(make(tmp_path, Labelled(halves, sequences=1), "blocks"))["scenes"]
    assert blocks.severity == "warn" and "seen in training" in blocks.text
    again = asked(torn, validation_data=str(torn), hold_out=())["scenes"]
    assert again.severity == "error", "by another name too"


def test_another_stores_frames_that_train_here_stop(tmp_path):
    whole = make(tmp_path, split="train")
    found = asked(whole, validation_data=str(whole))
    assert found["scenes"].severity == "error" and found["scenes"].numbers["torn_val"] == 8
    assert found["data"].severity == "warn" and "no final score" in found["data"].text


def test_a_start_that_has_seen_the_frames_stops(store, tmp_path):
    finetune(config(store), tmp_path / "first", "cpu", show=False)
    other = asked(store, start=str(tmp_path / "first"))
    assert other["not seen before"].severity == "ok" and "fine-tuned before (segment)" in other["start"].text
    whole = Store(store)
    names = sorted({whole.sequence(int(i)) for i in whole.indices("train")})[:2]
    found = asked(store, start=str(tmp_path / "first"), hold_out=tuple(names))["not seen before"]
    assert found.severity == "error" and found.numbers["test"] == 6 and "6 of 6 test frames" in found.text


def test_what_cannot_be_opened_or_built_is_a_line_each(store, tmp_path):
    assert asked(tmp_path / "nowhere")["data"].severity == "error"
    small = asked(store, image_size=(96, 128))["data"]
    assert small.severity == "error" and "smaller than image_size 96x128" in small.text
    odd = asked(store, image_size=(64, 72))["head"]
    assert odd.severity == "error" and "multiples of the patch (16)" in odd.text
    deep = asked(store, head=HeadConfig("linear", layers=(7,)))["head"]
    assert deep.severity == "error" and "below the encoder's 2 layers" in deep.text
    assert asked(store, freeze=9)["head"].severity == "error"
    gone = asked(store, start=str(tmp_path / "no_checkpoint"))["start"]
    assert gone.severity == "error" and "expected" in gone.text
    bare = make(tmp_path, ListSource(12, 4, height=72, width=88), "bare")
    found = [f for f in preflight(config(bare), "cpu", False) if f.severity == "error"]
    assert any("no semantic labels" in f.text for f in found) and any("names no classes" in f.text for f in found)
    wrong = preflight(dataclasses.replace(config(store), label_fraction=3.0, freeze=-5), "cpu")
    assert len(wrong) == 1 and "label_fraction" in wrong[0].text and "freeze" in wrong[0].text


def test_few_labels_and_missing_parts_are_warnings(store, tmp_path):
    few = asked(store, label_fraction=0.1)["labelled frames"]
    assert few.severity == "warn" and few.numbers["frames"] == 3 and few.numbers["sequences"] == 1
    lonely = asked(make(tmp_path, val_share=0.0))
    assert lonely["data"].severity == "warn" and "No validation frames" in lonely["data"].text


def test_another_run_in_the_folder_stops(store, tmp_path):
    finetune(config(store), tmp_path / "run", "cpu", show=False)
    same = preflight(config(store), "cpu", False, tmp_path / "run")[1]
    assert same.severity == "ok" and "saved at step 4" in same.text
    other = preflight(config(store, label_seed=3), "cpu", False, tmp_path / "run")[1]
    assert other.severity == "error" and "label_seed" in other.text


def test_depth_and_detection_are_asked_their_own_questions(store):
    depth = asked(store, True, task="depth", head=HeadConfig("linear"))
    assert "labels" not in depth and depth["holes"].numbers["beyond_range"] == 0 and depth["time"].severity == "ok"
    near = dataclasses.replace(config(store, task="depth").depth, max_depth=1.05)
    far = asked(store, task="depth", depth=near)["holes"]
    assert far.numbers["beyond_range"] > 0.5 and far.severity == "warn"
    part = depth["scored part"]
    assert part.severity == "ok" and part.text == "validation and test frames are scored whole" and part.numbers["test_share"] == 1
    part = asked(store, view="centre")["scored part"]
    assert part.text.endswith("(81% of val and 81% of test)")
    pytest.importorskip("pycocotools", reason="the standard evaluator is not installed")
    found = asked(store, task="detect")
    assert found["objects"].severity == "ok" and found["objects"].numbers["things"] == ["chair", "lamp"]
    assert "Mask R-CNN over 2 classes;" in found["head"].text
    none = asked(store, task="detect", detect=dataclasses.replace(config(store).detect, things=("sofa",)))
    assert any(f.severity == "error" and "sofa" in f.text for f in none.values())


def test_nyuv2_without_its_crop_and_stretched_frames_are_warned_of(tmp_path):
    class Nyu(ListSource):
        def describe(self):
            return {**super().describe(), "source": "nyuv2"}

    store = prepare(Nyu(24, 8, height=96, width=128), tmp_path / "s", PrepareConfig(96, 128, val_share=0.2, test_share=0.2), progress=False)
    asked_of = lambda **changes: Parts(config(store.path, task="depth", **changes), frames={  # noqa: E731
        name: (store, store.indices(name)) for name in ("train", "val", "test")})
    usual = check_scored_part(asked_of(image_size=(96, 128)))
    assert usual.severity == "ok" and "the Eigen crop" in usual.text
    without = check_scored_part(asked_of(image_size=(96, 128), depth=DepthConfig(crop="none")))
    assert without.severity == "warn" and "the numbers do not compare" in without.text
    narrow = check_scored_part(asked_of(image_size=(96, 96)))
    assert narrow.severity == "warn" and "stretched by 33%" in narrow.text


def test_things_without_an_instance_are_named_and_not_counted(tmp_path):
    pytest.importorskip("pycocotools", reason="the standard evaluator is not installed")
    place = make(tmp_path, Labelled(halves, names=("table", "object", "lamp")))  # the table's id 0 is no instance
    found = asked(place, task="detect")["objects"]
    assert found.severity == "warn" and found.numbers["without_instance"] == ["table"] and found.numbers["objects"] == 12
    assert "12 objects of object, lamp in 12 training frames; no instance of: table." in found.text
    only = asked(place, task="detect", detect=dataclasses.replace(config(place).detect, things=("table",)))["objects"]
    assert only.severity == "error" and "no instance of: table" in only.text


def test_the_trivial_answer_is_worked_out_on_the_frames_that_are_scored(store):
    found = validation_trivial(config(store))
    assert found.name == f"{MAJORITY} (floor)" and found.score == pytest.approx(_floor_everywhere(store), abs=1e-6)
    assert validation_trivial(config(store, task="depth")).score > 0
    assert validation_trivial(config(store, task="detect")) is None


def _floor_everywhere(store):
    """mIoU of floor everywhere on the centre crops of the validation frames, by hand."""
    whole, counts = Store(store), np.zeros(3)
    for index in whole.indices("val"):
        crop = whole.semantic[index][4:68, 4:84]
        counts += [(crop == k).sum() for k in range(3)]
    return counts[0] / counts.sum() / (counts > 0).sum()


def test_the_command_prints_the_list_and_stops(store, tmp_path, capsys):
    words = ["finetune", str(tmp_path / "run"), "--data", str(store), "--steps", "2", "--check", "--device", "cpu", "--set",
             "image_size=[64,80]", 'shape={"timm":"","width":48,"depth":2,"heads":3}', "fit.batch_size=2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "ok     not seen before" in said and "0 errors" in said and not (tmp_path / "run").exists()
    assert main([*words[:-1], "fit.batch_size=2", "image_size=[480,640]"]) == 1
    assert "smaller than image_size 480x640" in capsys.readouterr().out


# ---- what may not select, test or begin ------------------------------------------------------------------------------


class Elsewhere(Labelled):
    """Other recordings, with a split of their authors' where one is given."""

    def __init__(self, ids=halves, official=None, **options):
        super().__init__(ids, **options)
        self.official = official

    def sequence(self, index):
        return "elsewhere-" + super().sequence(index)

    def official_split(self, index):
        return None if self.official is None else self.official(index)


def published(index):
    """Three quarters train, the last quarter tests; nothing validates, as in NYUv2."""
    return "test" if index >= 18 else "train"


def test_frames_that_test_do_not_validate_for_want_of_others(store, tmp_path):
    nyu = make(tmp_path, Elsewhere(official=published), "nyu", split="official")
    with pytest.raises(ConfigError, match=r"validation_data .*nyu has no val frames \(train 18, test 6\)"):
        part_of(config(store, validation_data=str(nyu)), "val")
    assert "no val frames" in asked(store, validation_data=str(nyu))["data"].text
    assert len(part_of(config(store, test_data=str(nyu)), "test")[1]) == 6
    whole = make(tmp_path, Elsewhere(), "whole", split="train")
    assert len(part_of(config(store, validation_data=str(whole)), "val")[1]) == 24, "a store that nobody split is taken whole"


def test_the_same_frames_do_not_select_and_test(store, tmp_path):
    whole = make(tmp_path, Elsewhere(), "whole", split="test")
    both = config(store, validation_data=str(whole), test_data=str(whole))
    found = asked(store, validation_data=str(whole), test_data=str(whole))["scenes"]
    assert found.severity == "error" and "8 sequences of the test part also validate" in found.text
    with pytest.raises(ConfigError, match="also validate"):
        finetune(both, tmp_path / "run", "cpu", show=False)
    halved = make(tmp_path, Elsewhere(), "halved")  # the same recordings with a split of their own
    assert asked(store, validation_data=str(halved), test_data=str(halved))["scenes"].severity == "ok"


def test_frames_that_train_are_refused_without_being_asked(store, tmp_path):
    whole = make(tmp_path, split="test")
    with pytest.raises(ConfigError, match="4 sequences of the test part also train"):
        finetune(config(store, test_data=str(whole)), tmp_path / "run", "cpu", show=False)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_split_that_its_authors_have_torn_is_a_warning(tmp_path):
    torn = make(tmp_path, Elsewhere(official=lambda i: "test" if i % 3 == 2 else "train"), "torn", split="official")
    found = asked(torn)["scenes"]
    assert found.severity == "warn" and "the data set's own split is so" in found.text
    assert finetune(config(torn, fit=FitConfig(steps=1, batch_size=2, eval_every=0)), tmp_path / "run", "cpu", show=False).is_finished


def test_labels_that_do_not_fit_are_known_before_the_first_step(tmp_path):
    for name, ids, words in (("beyond", 7, "ids 7 have no class name"), ("none", IGNORE_LABEL, "no pixel of the 12 training frames")):
        place = make(tmp_path, Labelled(lambda i, ids=ids: np.full((64, 88), ids)), name)
        with pytest.raises(ConfigError, match=words):
            finetune(config(place), tmp_path / f"run-{name}", "cpu", show=False)
        assert not (tmp_path / f"run-{name}" / "config.json").exists()


def test_a_test_part_without_labels_is_known_before_training(tmp_path, capsys):
    """As of Cityscapes, whose authors keep them."""
    hidden = make(tmp_path, Elsewhere(lambda i: np.full((64, 88), IGNORE_LABEL) if i >= 18 else halves(i), published), "hidden",
                  split="official", official_val_share=0.3)
    found = [f for f in preflight(config(hidden), "cpu", False) if f.numbers.get("unscorable") == "test"]
    assert [f.severity for f in found] == ["warn"] and "--split val" in found[0].text
    arguments = ["finetune", str(tmp_path / "run"), "--data", str(hidden), "--steps", "1", "--device", "cpu", "--set", "image_size=[64,80]",
                 'shape={"width": 48, "depth": 2, "heads": 3}', "fit.batch_size=2", "preview=0"]
    assert main(arguments) == 2 and not (tmp_path / "run" / "log.jsonl").exists()
    said = capsys.readouterr().err
    assert "the test part has a class" in said and "--split val" in said
    assert main([*arguments[:8], "--split", "val", *arguments[8:]]) == 0
    assert "of split val" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"no pixel of these 6 frames .* has a class.*--split val"):
        score_run(tmp_path / "run", "test", "cpu")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Every third frame is labelled, on the picture's lower rim alone; the sequences "s3" and "s4" not at all."""
    def ids(index):
        found = np.full((64, 88), IGNORE_LABEL)
        if index % 3 == 1 and index // 3 not in (3, 4):
            found[60:] = 1 + index % 2
        return found

    return make(tmp_path_factory.mktemp("sparse"), Labelled(ids), "sparse")


def test_frames_without_any_label_are_neither_learned_from_nor_scored(sparse, tmp_path):
    """As in most recordings: thousands of frames, some of them labelled."""
    whole, made = Store(sparse), config(sparse, select="best")
    has_label = (np.asarray(whole.semantic) != IGNORE_LABEL).any(axis=(1, 2))
    assert has_label.sum() == 6
    for part in ("train", "val", "test"):
        store, frames = part_of(made, part)
        assert frames.tolist() == [i for i in whole.indices(part) if has_label[i]] and len(frames)
        assert len(part_of(made, part, only_with_truth=False)[1]) == len(whole.indices(part)) > len(frames)
        assert len(part_of(config(sparse, task="depth"), part)[1]) == len(whole.indices(part)), "depth needs no labels"
    found = asked(sparse)
    assert found["data"].severity == "ok" and "left out, as they have no label:" in found["data"].text
    train = part_of(made, "train")[1]
    assert found["labelled frames"].numbers["frames"] == len(train) and found["labels"].numbers["looked_at"]["train"] == len(train)
    result = finetune(made, tmp_path / "run", "cpu", show=False)
    assert result.is_finished and json.loads((tmp_path / "run" / "latest.json").read_text())["data"]["frames"] == len(train)
    assert f"{len(part_of(made, 'test')[1])} frames of split test" in score_run(tmp_path / "run", "test", "cpu")


def test_a_share_of_the_labels_is_a_share_of_the_labelled_sequences(sparse):
    """However few are drawn: one without any label cannot be among them."""
    whole = Store(sparse)
    store, train = part_of(config(sparse), "train")
    labelled = {store.sequence(int(i)) for i in train}
    assert len(labelled) < len({whole.sequence(int(i)) for i in whole.indices("train")})
    drawn = [labelled_share(store, train, 0.01, seed) for seed in range(8)]
    assert {store.sequence(int(frames[0])) for frames in drawn} <= labelled and {len(frames) for frames in drawn} == {1}


def test_depth_that_was_not_measured_is_known_before_training(tmp_path):
    class Blind(Elsewhere):
        def read(self, index):
            frame = super().read(index)
            blind = self.official(index) == self.without
            return dataclasses.replace(frame, depth=np.zeros_like(frame.depth), is_valid=np.zeros_like(frame.is_valid)) if blind else frame

    for without in ("train", "test"):
        source = Blind(official=published)
        source.without = without
        place = make(tmp_path, source, without, split="official", official_val_share=0.3)
        words = "no pixel of the .* training frames .* was measured" if without == "train" else "no pixel of the test part was measured"
        with pytest.raises(ConfigError, match=words):
            finetune(config(place, task="depth", head=HeadConfig("linear")), tmp_path / f"run-{without}", "cpu", show=False, scored="test")
        assert not (tmp_path / f"run-{without}" / "log.jsonl").exists()
    assert finetune(config(place, task="depth", head=HeadConfig("linear")), tmp_path / "run", "cpu", show=False, scored="val").is_finished
    far = config(place, task="depth", head=HeadConfig("linear"), depth=DepthConfig(max_depth=0.01))
    with pytest.raises(ConfigError, match="Nothing is left to learn from"):
        finetune(far, tmp_path / "far", "cpu", show=False, scored="val")


def test_a_test_part_without_objects_is_known_before_training(tmp_path):
    empty = make(tmp_path, Elsewhere(lambda i: np.zeros((64, 88)) if i >= 18 else halves(i), published), "empty", split="official",
                 official_val_share=0.3)
    asked_for = dataclasses.replace(config(empty).detect, things=("chair", "lamp"))
    made = config(empty, task="detect", detect=asked_for)
    found = [f for f in preflight(made, "cpu", False) if f.numbers.get("unscorable") == "test"]
    assert [f.severity for f in found] == ["warn"] and "no object of the classes asked for in the test part" in found[0].text
    with pytest.raises(ConfigError, match="no object of the classes asked for in the test part"):
        refuse_vain(made, "test")
    refuse_vain(made, "val")


def test_a_labelled_recording_is_prepared_into_the_run_folder(tmp_path, shared_data, capsys):
    run = tmp_path / "run"
    arguments = ["finetune", str(run), "--data", str(shared_data / "mosd_learn"), "--steps", "2", "--device", "cpu", "--set",
                 "image_size=[48,64]", 'shape={"width":48,"depth":2,"heads":3}', "fit.batch_size=2", "preview=0"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "table" in said and Store(run / "store").header.count == 45 and json.loads(
        (run / "config.json").read_text())["data"] == str(run / "store")
    assert main(arguments) == 0, "the same command finds its store and its run again"
    other = tmp_path / "other"
    assert main(["finetune", str(other), *arguments[2:3], str(shared_data / "tum_fr1_rpy")]) == 2
    assert "holds no semantic labels" in capsys.readouterr().err and not other.exists()


def test_validation_labels_that_are_missing_are_one_line(store, tmp_path):
    class Bare(ListSource):
        def sequence(self, index):
            return "bare-" + super().sequence(index)

    bare = make(tmp_path, Bare(24, 8, height=72, width=88), "bare", split="val")
    with pytest.raises(ConfigError, match=r"bare \(val\) holds no semantic labels"):
        finetune(config(store, validation_data=str(bare)), tmp_path / "run", "cpu", show=False)


def test_a_score_on_the_frames_that_chose_the_weights_says_so(store, tmp_path):
    best = config(store, select="best", fit=FitConfig(steps=2, batch_size=2, eval_every=1))
    finetune(best, tmp_path / "run", "cpu", show=False)
    assert "chosen on these very frames" in score_run(tmp_path / "run", "val", "cpu")
    assert "chosen on these very frames" not in score_run(tmp_path / "run", "test", "cpu")
