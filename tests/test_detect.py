"""Detection: what an object is, COCO's numbers on known answers, ignored pixels, a tiny training, files that others read."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch
from list_source import ListSource
from PIL import Image

from mask3d_core.batches import AugmentConfig
from mask3d_core.cli import main
from mask3d_core.errors import ConfigError
from mask3d_core.frames import CROWD, IGNORE_LABEL, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.detector import Detector, DetectorConfig, paste_mask
from mask3d_core.models.starts import open_start
from mask3d_core.objects import STUFF, FrameObjects, decode_mask, encode_mask, frame_objects, mask_boxes, thing_classes
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.training.config import FitConfig
from mask3d_core.training.finetune_config import DetectConfig, finetune_config
from mask3d_core.training.finetuned import load_finetuned
from mask3d_core.training.finetuning import build_detector, finetune
from mask3d_core.training.held_out import HeldOut
from mask3d_core.training.log import read_log

pytest.importorskip("pycocotools", reason="pycocotools, the standard evaluator, is not installed")

from mask3d_core.evaluation.detection import METRICS, DetectionScores, coco_results  # noqa: E402
from mask3d_core.evaluation.downstream import ScoreConfig, evaluate_finetuned, score_run  # noqa: E402
from mask3d_core.evaluation.fixed_objects import fixed_objects  # noqa: E402
from mask3d_core.tasks.detect import detect_batch, score_objects  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools before numpy 2

CLASSES = ("wall", "box", "ball")
SIZE = (96, 128)
ENCODER = EncoderConfig(width=48, depth=2, heads=3)


def labels_of(*objects, size=(40, 60), ignored=()):
    """Semantic and instance labels: a wall with rectangles (class, instance, top, left, bottom, right) on it."""
    semantic, instance = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
    for label, number, top, left, bottom, right in objects:
        semantic[top:bottom, left:right], instance[top:bottom, left:right] = label, number
    for top, left, bottom, right in ignored:
        semantic[top:bottom, left:right] = IGNORE_LABEL
    return semantic, instance


def found(label, top, left, bottom, right, score=0.9, size=(40, 60)):
    """A detection as COCO has it: a filled rectangle."""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return {"category_id": label, "bbox": [float(left), float(top), float(right - left), float(bottom - top)], "score": score,
            "segmentation": encode_mask(mask)}


def scored(*frames, things=(1, 2), smallest=1):
    """Scores of (labels, detections) per frame, each frame a sequence of its own."""
    scores = DetectionScores(CLASSES, things)
    for number, (labels, detections) in enumerate(frames):
        scores.add(frame_objects(*labels, things, smallest), detections, f"room{number}")
    return scores


def test_what_an_object_is():
    labels = labels_of((1, 3, 5, 10, 15, 30), (0, 4, 20, 0, 30, 10), (2, 7, 30, 40, 33, 43), (1, 9, 20, 20, 30, 30),
                       ignored=[(5, 10, 15, 12)])
    labels[0][20:24, 20:30] = 2  # four of the ten rows of object 9 are called "ball": still a box
    made = frame_objects(*labels, things=(1, 2), smallest=10)
    assert made.labels.tolist() == [1, 1]  # the wall is no object whatever its instance says, the ball has 9 pixels
    assert made.boxes.tolist() == [[12, 5, 30, 15], [20, 20, 30, 30]]  # outer edges, without the unlabelled part
    assert made.masks.sum((1, 2)).tolist() == [180, 100]
    assert made.is_ignored.sum() == 20 + 9 and made.is_ignored[31, 41] and made.is_ignored[5, 10]
    assert frame_objects(*labels, things=(1, 2), smallest=9).labels.tolist() == [1, 2, 1]
    without = labels[1].clone()
    group = torch.zeros(40, 60, dtype=torch.bool)
    group[12:18, 45:55] = True
    labels[0][group], labels[1][group] = 1, CROWD
    made = frame_objects(*labels, things=(1, 2), smallest=10)
    assert made.is_ignored[group].all() and not made.masks[:, group].any() and made.labels.tolist() == [1, 1]
    assert not frame_objects(labels[0], without, (1, 2), 10).is_ignored[group].any(), "countable and of no object: background, as a table top is"
    empty = frame_objects(*labels_of(), things=(1, 2))
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.as_target()["masks"].shape == (0, 40, 60)


def test_boxes_enclose_their_masks():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 4, 2] = masks[1, 1, 6] = True
    assert mask_boxes(masks).tolist() == [[0, 0, 1, 1], [2, 1, 7, 5]]


def test_stuff_is_no_thing_unless_it_is_asked_for():
    assert thing_classes((), ("bed", "wall", "floor", "chair", "ceiling")) == (0, 3)
    assert thing_classes(("wall",), ("bed", "wall")) == (1,)
    assert {"wall", "floor", "ceiling"} <= set(STUFF)
    with pytest.raises(ConfigError, match="sofa.*bed, wall"):
        thing_classes(("sofa",), ("bed", "wall"))
    with pytest.raises(ConfigError, match="countable"):
        thing_classes((), ("wall", "floor"))


def test_perfect_detections_give_one():
    labels = labels_of((1, 1, 5, 5, 15, 20), (2, 2, 20, 30, 35, 50))
    scores = scored((labels, [found(1, 5, 5, 15, 20), found(2, 20, 30, 35, 50)]), (labels_of(), []))
    assert scored((labels, [])).scores() == dict.fromkeys(METRICS, 0.0)
    assert scores.scores() == pytest.approx(dict.fromkeys(METRICS, 1.0))
    assert scores.per_class() == pytest.approx({"box": 1.0, "ball": 1.0}) and scores.objects == 2


def test_a_shift_of_known_overlap_counts_at_the_thresholds_below_it():
    # 30 x 30 pixels moved by 6: 24 / 36 = 0.667, so right at 0.50, 0.55, 0.60, 0.65 and wrong at the six above
    found_ = scored((labels_of((1, 1, 5, 5, 35, 35)), [found(1, 5, 11, 35, 41)]), things=(1,)).scores()
    assert found_ == pytest.approx({"mask_ap": 0.4, "mask_ap50": 1, "mask_ap75": 0, "box_ap": 0.4, "box_ap50": 1, "box_ap75": 0})


def test_a_wrong_class_a_second_detection_and_a_missing_object_cost():
    labels = labels_of((1, 1, 5, 5, 15, 20), (1, 2, 20, 30, 35, 50))
    right = [found(1, 5, 5, 15, 20), found(1, 20, 30, 35, 50, score=0.8)]
    ap = lambda *made: scored((labels, list(made)), things=(1, 2)).scores()["mask_ap"]  # noqa: E731
    assert ap(*right) == pytest.approx(1.0)
    assert ap(right[0]) == pytest.approx(51 / 101)  # recall 0.5: 51 of COCO's 101 recall points
    assert ap(found(2, 5, 5, 15, 20), right[1]) == pytest.approx(51 / 101)
    assert ap(right[0], found(1, 5, 5, 15, 20, score=0.85), right[1]) < 0.9


def test_nothing_to_find_is_no_number_and_strange_detections_are_refused():
    scores = scored((labels_of(), [found(1, 5, 5, 15, 20)]))
    assert all(np.isnan(v) for v in scores.scores().values()) and scores.as_dict()["mask_ap"] is None
    assert scores.estimate("mask_ap").low is None
    with pytest.raises(ConfigError, match="classes"):
        scored((labels_of(), [found(0, 5, 5, 15, 20)]))
    with pytest.raises(ConfigError, match="40x60"):
        scored((labels_of(), [found(1, 5, 5, 15, 20, size=(20, 20))]))


def test_ignored_pixels_are_neither_right_nor_wrong():
    labels = labels_of((1, 1, 5, 5, 15, 25), ignored=[(0, 30, 40, 60), (5, 5, 15, 10)])
    right = found(1, 5, 5, 15, 25, score=0.5)
    there, here = found(1, 20, 40, 30, 50, score=0.9), found(1, 25, 5, 35, 20, score=0.9)
    # the detection also covers the unlabelled fifth of the object: the mask is compared without it, the box is not
    assert scored((labels, [right])).scores() == pytest.approx(
        {"mask_ap": 1, "mask_ap50": 1, "mask_ap75": 1, "box_ap": 0.6, "box_ap50": 1, "box_ap75": 1})  # 15 / 20 = 0.75
    assert scored((labels, [right, there])).scores() == pytest.approx(scored((labels, [right])).scores())
    punished = scored((labels, [right, here])).scores()
    assert punished["mask_ap"] == pytest.approx(0.5) and punished["box_ap50"] == pytest.approx(0.5)
    scattered = labels_of((1, 1, 5, 5, 15, 25), ignored=[(0, 0, 1, 60), (39, 0, 40, 60)])  # a box around these is the picture
    assert scored((scattered, [right, here])).scores()["box_ap50"] == pytest.approx(0.5)


def random_frames(count, seed=0):
    generator = np.random.default_rng(seed)

    def place():
        top, left = generator.integers(0, 25), generator.integers(0, 40)
        return int(top), int(left), int(top + generator.integers(6, 15)), int(left + generator.integers(6, 19))

    for _ in range(count):
        where = [place() for _ in range(3)]
        labels = labels_of(*((int(generator.integers(1, 3)), k + 1, *p) for k, p in enumerate(where)))
        moved = [tuple(int(v + generator.integers(-2, 3) * (v > 2)) for v in p) for p in where]
        yield labels, [found(int(generator.integers(1, 3)), *p, score=round(float(generator.random()), 3))
                       for p in [*moved, place()]]


def test_the_numbers_are_the_standard_evaluators_own():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    frames = list(random_frames(12))
    scores = scored(*frames)
    ours = scores.scores()
    truth, results = [], []
    for image, (labels, detections) in enumerate(frames):
        made = frame_objects(*labels, (1, 2))
        for mask, label, (left, top, right, bottom) in zip(made.masks, made.labels.tolist(), made.boxes.tolist()):
            truth.append({"id": len(truth) + 1, "image_id": image, "category_id": label, "segmentation": encode_mask(mask),
                          "area": int(mask.sum()), "iscrowd": 0, "bbox": [left, top, right - left, bottom - top]})
        results += [{"image_id": image, **one} for one in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": k, "height": 40, "width": 60} for k in range(len(frames))],
                        "categories": [{"id": 1}, {"id": 2}], "annotations": truth}
        coco.createIndex()
        for kind, word in (("mask", "segm"), ("box", "bbox")):
            made = COCOeval(coco, coco.loadRes(results), word)
            made.evaluate()
            made.accumulate()
            made.summarize()
            assert [ours[f"{kind}_{name}"] for name in ("ap", "ap50", "ap75")] == pytest.approx(list(made.stats[:3]))
    assert 0.05 < ours["mask_ap"] < 0.95  # a test of ones would not tell
    for metric in METRICS:
        assert scores.estimate(metric, resamples=50).mean == pytest.approx(ours[metric])


def test_intervals_come_from_drawing_rooms_again():
    frames = list(random_frames(8, seed=1))
    scores = scored(*frames)
    twice = scored(*(frames[k] for k in (0, 0, 3, 3, 3, 5)))
    times = np.bincount([0, 0, 3, 3, 3, 5], minlength=8)[None].astype(float)
    for metric in METRICS:  # a frame drawn k times counts like k copies of it
        assert scores._weighted(metric)(times)[0] == pytest.approx(twice.scores()[metric])
    estimate = scores.estimate("mask_ap", resamples=200)
    assert estimate.low < estimate.mean < estimate.high and estimate.sequences == 8
    worse = scored(*((labels, detections[:1]) for labels, detections in frames))
    assert scores.difference(scores, "box_ap", resamples=50).high == 0
    difference = scores.difference(worse, "mask_ap", resamples=200)
    assert difference.mean == pytest.approx(scores.scores()["mask_ap"] - worse.scores()["mask_ap"])
    with pytest.raises(ConfigError, match="same frames"):
        scores.difference(twice)


def test_a_pasted_mask_inverts_the_training_targets():
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    for radius in (8, 20):
        disc = ((rows - 31) ** 2 + (columns - 37) ** 2 <= radius ** 2)[None]
        box = mask_boxes(disc)
        target = project_masks_on_boxes(disc.float(), box, torch.zeros(1, dtype=torch.int64), 28)
        drawn = paste_mask(target[0], box[0], (60, 80))
        assert (drawn & disc[0]).sum() / (drawn | disc[0]).sum() > 0.96
        larger = paste_mask(target[0], box[0] * 10, (600, 800), scale=(10.0, 10.0)).nonzero().float().mean(0)
        assert ((larger + 0.5) / 10 - 0.5 - drawn.nonzero().float().mean(0)).abs().max() < 0.1, "drawn larger it stays where it is"
    assert paste_mask(torch.ones(28, 28), torch.tensor([-5.0, -5.0, 3.0, 2.0]), (10, 10)).sum() == 6
    assert not paste_mask(torch.ones(28, 28), torch.tensor([4.6, 4.6, 5.4, 5.4]), (10, 10)).any()  # no pixel's centre inside


def test_run_lengths_survive_the_round_trip():
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    encoded = encode_mask(mask)
    assert (decode_mask(json.loads(json.dumps(encoded))) == mask).all() and encoded["size"] == [13, 17]


def target_of(*boxes, size=SIZE):
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = True
    outlines = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return FrameObjects(outlines, torch.full((len(boxes),), 2), masks, masks.any(0)).as_target()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_losses_are_whole_numbers_of_precision_and_empty_frames_train(precision):
    model = Detector(DetectorConfig(ENCODER, SIZE, things=(1, 2), width=16, samples=16, proposals=50)).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        for targets in ([target_of((10, 10, 40, 50), (60, 20, 90, 60)), target_of()], [target_of(), target_of()]):
            losses = model(torch.rand(2, 3, *SIZE), targets)
            assert set(losses) == {"class_loss", "box_loss", "mask_loss", "objectness_loss", "proposal_loss"}
            assert all(v.dtype is torch.float32 and torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert losses["mask_loss"] == 0 and losses["class_loss"] > 0
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert all(p.grad is not None for p in model.parameters())


def test_any_size_in_whole_patches_and_nothing_else():
    model = Detector(DetectorConfig(ENCODER, SIZE, things=(1, 2), width=16, samples=16, proposals=50)).eval()
    for size in ((96, 128), (16, 16), (48, 80)):
        for one in model(torch.rand(2, 3, *size)):
            assert one["size"] == size and one["masks"].shape == (len(one["boxes"]), 28, 28)
            assert (one["boxes"] >= 0).all() and (one["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()
            assert set(one["labels"].tolist()) <= {1, 2} and (one["scores"].diff() <= 0).all()
    with pytest.raises(ConfigError, match="multiples of 16"):
        model.detect(torch.rand(1, 3, 40, 64))
    with pytest.raises(ConfigError, match="model.eval"):
        model.train().detect(torch.rand(1, 3, *SIZE))
    with pytest.raises(ConfigError, match="targets in training mode"):
        model(torch.rand(1, 3, *SIZE))
    with pytest.raises(ConfigError) as problem:
        Detector(DetectorConfig(ENCODER, (100, 128), patch=14, things=(), anchors=(8.0,), width=0))
    assert len(problem.value.problems) == 5


class Shapes:
    """Boxes and balls before a wall; one frame without any, one with an unlabelled corner."""

    name, class_names, labels = "shapes", CLASSES, frozenset({"semantic", "instance"})

    def __init__(self, count=8, labelled=("semantic", "instance")):
        self.count, self.labels = count, frozenset(labelled)

    def __len__(self):
        return self.count

    def sequence(self, index):
        return f"room{index // 2}"

    def frame_name(self, index):
        return f"frame{index}"

    def describe(self):
        return {"source": self.name, "count": self.count}

    def read(self, index):
        generator = np.random.default_rng(index)
        rows, columns = np.mgrid[0:SIZE[0], 0:SIZE[1]]
        color = np.full((*SIZE, 3), 90, np.float64) + generator.normal(0, 4, (*SIZE, 3))
        semantic, instance = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32)
        for number in range(0 if index == 5 else 2):
            y, x, half = generator.integers(28, 68), 32 + 64 * number + generator.integers(-8, 9), generator.integers(14, 22)
            ball = (index + number) % 2
            inside = (np.hypot(rows - y, columns - x) if ball else np.maximum(abs(rows - y), abs(columns - x))) <= half
            color[inside] = (200, 60, 50) if ball else (50, 80, 210)
            semantic[inside], instance[inside] = 1 + ball, number + 1
        if index == 3:
            semantic[:12, :20] = IGNORE_LABEL
        return RGBDFrame(np.clip(color, 0, 255).astype(np.uint8), np.full(SIZE, 2, np.float32), np.ones(SIZE, bool),
                         Intrinsics(100.0, 100.0, 63.5, 47.5), semantic=semantic if "semantic" in self.labels else None,
                         instance=instance if "instance" in self.labels else None,
                         origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))


class Still(Shapes):
    """The same picture again and again."""

    def read(self, index):
        return dataclasses.replace(super().read(0), origin=FrameOrigin(self.name, self.sequence(index), self.frame_name(index)))


def shapes_store(folder, **options):
    return prepare(Shapes(**options), folder, PrepareConfig(height=SIZE[0], width=SIZE[1], val_share=0.25, test_share=0.25),
                   progress=False)


def tiny(store, **changes):
    fit = FitConfig(steps=90, batch_size=4, learning_rate=0.19, beta2=0.99, precision="float32", log_every=1, eval_every=0,
                    save_every=0, warmup=0.1)
    base = finetune_config("detect", data=str(store), shape=ENCODER, image_size=SIZE, layer_decay=1.0, drop_path=0.0, preview=2,
                           detect=DetectConfig(width=32, samples=32, proposals=100, most=20), fit=fit)
    return dataclasses.replace(base, **changes).validate()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of shapes and a detector that has learned its training frames by heart."""
    folder = tmp_path_factory.mktemp("detect")
    store = shapes_store(folder / "store")
    config = tiny(folder / "store", augment=AugmentConfig.none())
    torch.manual_seed(0)
    finetune(config, folder / "run", "cpu", show=False)
    return folder, store, config


def losses(run):
    return {record["step"]: record["loss"] for record in read_log(run / "log.jsonl") if "loss" in record}


def test_it_learns_two_rooms_by_heart(trained):
    from mask3d_viz.downstream_view import draw_finetuning

    folder, store, _ = trained
    curve = losses(folder / "run")
    assert np.mean([curve[k] for k in range(85, 91)]) < 0.35 * np.mean([curve[k] for k in range(1, 6)])
    model, record = load_finetuned(folder / "run")
    train = HeldOut(store, store.indices("train"), SIZE, ("semantic", "instance"), 4)
    found_ = score_objects(lambda batch: detect_batch(model, batch), train, CLASSES, (1, 2), 32).scores()
    assert found_["box_ap50"] > 0.9 and found_["mask_ap50"] > 0.9, found_
    assert record["task"] == "detect" and record["things"] == ["box", "ball"] and set(record["metrics"]) == {
        "mask_ap", "mask_ap50", "box_ap"}
    draw_finetuning(folder / "run", 90)
    assert Image.open(folder / "run" / "previews" / "step-000000090.png").size[0] > 3 * 480
    preview = np.load(folder / "run" / "previews" / "step-000000090.npz")
    assert preview["object_ids"].shape == preview["truth_ids"].shape == (2, *SIZE) and preview["truth_boxes"].shape[2] == 4


def test_a_checkpoint_comes_back_and_is_a_start(trained):
    folder, _, config = trained
    model, _ = load_finetuned(folder / "run")
    start = open_start(str(folder / "run"))
    again = build_detector(config, start, CLASSES)
    assert start.record["kind"] == "detector" and start.record["data"]["sequences"]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items() if k.startswith("encoder."))
    picture = torch.rand(1, 3, *SIZE)
    first, second = (m.eval().detect(picture)[0] for m in (model, load_finetuned(folder / "run")[0]))
    assert torch.equal(first["boxes"], second["boxes"]) and torch.equal(first["masks"], second["masks"])
    with pytest.raises(ConfigError, match="own training"):
        _with_seen_test(folder, config)


def _with_seen_test(folder, config):
    """A run that starts from the detector and would be tested on a room that the detector was trained on."""
    room = json.loads((folder / "run" / "latest.json").read_text())["data"]["sequences"][0]
    name = room.rsplit("/", 1)[-1]
    finetune(dataclasses.replace(config, hold_out=(f"*{name}",), start=str(folder / "run")), folder / "other", "cpu", show=False)


def test_the_score_stands_beside_the_trivial_answer(trained):
    folder, _, _ = trained
    text = score_run(folder / "run", "test", "cpu")
    result = json.loads((folder / "run" / "scores.json").read_text())
    assert set(result["scores"]) == {"model", "the same objects everywhere"}
    assert result["scores"]["model"]["box_ap50"] > result["scores"]["the same objects everywhere"]["box_ap50"]
    assert result["difference"]["mask_ap"]["mean"] == pytest.approx(
        result["scores"]["model"]["mask_ap"] - result["scores"]["the same objects everywhere"]["mask_ap"])
    assert all(word in text for word in ("pycocotools", "box, ball", "mask AP50"))
    assert result["protocol"]["things"] == ["box", "ball"]


@pytest.mark.parametrize("semantic, words", [(255, r"no pixel of these 4 frames .* has a class.*--split val"),
                                             (CLASSES.index("wall"), r"these 4 frames .* no object .*--split val")])
def test_frames_without_an_object_are_not_scored(trained, tmp_path, semantic, words):
    """As of a test part whose labels its authors keep, and one that shows walls alone."""
    folder, store, _ = trained
    model, record = load_finetuned(folder / "run")

    class Bare(ListSource):
        """Frames of a store with the same classes."""

        def read(self, index):
            frame = super().read(index)
            return dataclasses.replace(frame, semantic=np.full(frame.depth.shape, semantic, np.uint8),
                                       instance=np.zeros(frame.depth.shape, np.int32))

    source = Bare(4, 1, height=SIZE[0], width=SIZE[1])
    source.labels, source.class_names = frozenset({"semantic", "instance"}), CLASSES
    place = tmp_path / "bare"
    prepare(source, place, PrepareConfig(*SIZE, split="test"), progress=False)
    with pytest.raises(ConfigError, match=words):
        evaluate_finetuned(model, record, ScoreConfig("test"), str(place))


def test_predictions_are_coco_files_that_others_load(trained, tmp_path, capsys):
    from pycocotools.coco import COCO

    folder, store, _ = trained
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, size in enumerate(((128, 96), (200, 150))):
        Image.fromarray(store.color[number]).resize(size).save(pictures / f"{number}.png")
    assert main(["predict", str(folder / "run"), str(pictures), "--out", str(tmp_path / "out")]) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out" / "pictures.json"))
        results = coco.loadRes(str(tmp_path / "out" / "objects.json"))
    assert [coco.imgs[k]["height"] for k in (0, 1)] == [96, 150]
    assert [coco.imgs[k]["file_name"] for k in (0, 1)] == ["0.png", "1.png"]
    for image, size in ((0, (96, 128)), (1, (150, 200))):
        best = max(results.loadAnns(results.getAnnIds(imgIds=[image])), key=lambda one: one["score"])
        mask = results.annToMask(best)
        assert mask.shape == size and best["category_id"] in (1, 2) and best["score"] > 0.5
        left, top, wide, high = best["bbox"]
        inside = mask[int(top):int(np.ceil(top + high)), int(left):int(np.ceil(left + wide))]
        assert mask.sum() > 0.5 * wide * high and inside.sum() == mask.sum()
        assert Image.open(tmp_path / "out" / f"{image}_picture.png").size[0] > 900
        ids = np.asarray(Image.open(tmp_path / "out" / f"{image}_objects.png"))
        own, seen = results.loadAnns(results.getAnnIds(imgIds=[image])), np.zeros(size, bool)
        assert ids.shape == size and ids.max() <= len(own)
        for k, one in enumerate(own, 1):  # best first: what an earlier one covers stays its own
            now = results.annToMask(one).astype(bool)
            np.testing.assert_array_equal(ids == k, now & ~seen)
            seen |= now


def test_results_scale_with_the_picture():
    one = {"boxes": torch.tensor([[8.0, 4.0, 24.0, 20.0]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.7]),
           "masks": torch.ones(1, 28, 28), "size": (32, 48)}
    (entry,), = coco_results([one], (64, 144))
    assert entry["bbox"] == [24, 8, 48, 32] and decode_mask(entry["segmentation"])[8:40, 24:72].all()
    assert decode_mask(entry["segmentation"]).sum() == 48 * 32


def test_a_resumed_run_repeats_the_losses_bit_for_bit(trained, tmp_path):
    folder, _, _ = trained
    config = tiny(folder / "store", drop_path=0.2, preview=0)
    config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, steps=4, batch_size=2, eval_every=2, save_every=2))

    def stop_at_two(step, record):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    finetune(config, tmp_path / "whole", "cpu", show=False)
    first = finetune(config, tmp_path / "cut", "cpu", show=False, on_step=stop_at_two)
    torch.manual_seed(99)  # whatever happened in between
    second = finetune(config, tmp_path / "cut", "cpu", show=False)
    assert not first.is_finished and first.step == 2 and second.is_finished
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 4
    whole, cut = (load_finetuned(tmp_path / name)[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_the_trivial_answer_is_what_the_training_data_has_most_often(trained, tmp_path):
    _, store, _ = trained
    train = HeldOut(store, store.indices("train"), SIZE, ("semantic", "instance"), 3)
    made = fixed_objects(train, (1, 2), 32)
    assert {one["category_id"] for one in made} == {1, 2} and all(0 < one["score"] <= 1 for one in made)
    assert [one["score"] for one in made] == sorted((one["score"] for one in made), reverse=True)

    frame = Shapes().read(0)
    still = prepare(Still(), tmp_path, PrepareConfig(height=SIZE[0], width=SIZE[1], split="train"), progress=False)
    only = fixed_objects(HeldOut(still, still.indices("train"), SIZE, ("semantic", "instance"), 3), (1, 2), 32)
    assert [one["score"] for one in only] == [1, 1]  # every frame shows the same two objects
    truth = frame_objects(torch.from_numpy(frame.semantic).long(), torch.from_numpy(frame.instance).long(), (1, 2))
    for one in only:
        left, top, right, bottom = truth.boxes[truth.labels == one["category_id"]][0].tolist()
        assert one["bbox"] == [left, top, right - left, bottom - top]
        mask = decode_mask(one["segmentation"])
        assert mask[int(top):int(bottom), int(left):int(right)].all() and mask.sum() == (bottom - top) * (right - left)


def one_line(arguments, capsys, *words):
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and all(word in said for word in words), said


def test_wrong_inputs_are_one_line(trained, tmp_path, capsys):
    folder, _, _ = trained
    base = ["finetune", str(tmp_path / "run"), "--task", "detect", "--device", "cpu", "--steps", "1"]
    small = ["--set", "image_size=[96,128]", 'shape={"timm":"","width":48,"depth":2,"heads":3}', "preview=0"]
    shapes_store(tmp_path / "plain", labelled=("semantic",))
    one_line([*base, "--data", str(tmp_path / "plain"), *small], capsys, "instance", "labelled source")
    one_line([*base, "--data", str(folder / "store"), *small, 'detect.things=["sofa"]'], capsys, "sofa", "wall, box, ball")
    one_line([*base, "--data", str(folder / "store"), "--set", "detect.width=0", "detect.min_score=2"], capsys, "2 problem(s)")


def test_a_missing_evaluator_is_known_before_the_training(trained, tmp_path, monkeypatch, capsys):
    folder, _, _ = trained
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    one_line(["finetune", str(tmp_path / "run"), "--task", "detect", "--data", str(folder / "store"), "--device", "cpu", "--set",
              "image_size=[96,128]"], capsys, "pip install pycocotools")


def test_real_table_tops_have_objects(shared_data):
    from mask3d_core.sources.opening import open_path

    source = open_path(shared_data / "mosd_learn")
    frame = source.read(0)
    made = frame_objects(torch.from_numpy(frame.semantic).long(), torch.from_numpy(frame.instance).long(),
                         thing_classes(("object",), source.class_names), 32)
    assert 2 <= len(made) <= 5 and made.masks.any(0).sum() + made.is_ignored.sum() < made.is_ignored.numel()
    assert not (made.masks & made.is_ignored).any()


def test_a_rooms_default_things_are_ten():
    from mask3d_core.sources.rooms import CLASS_NAMES

    assert [CLASS_NAMES[k] for k in thing_classes((), CLASS_NAMES)] == [
        "bed", "books", "chair", "furniture", "objects", "picture", "sofa", "table", "tv", "window"]


def test_objects_are_drawn_where_they_are():
    from mask3d_viz.objects_view import detect_sheet, object_colors, objects_image, results_image

    color = np.full((60, 80, 3), 128, np.uint8)
    result = found(1, 20, 30, 40, 60, score=0.87, size=(60, 80))
    image, words = results_image(color, [result, {**result, "score": 0.2}], CLASSES, width=80)
    assert image.shape == (60, 80, 3) and words == "1 object of score 0.5 or more; 1 of a lower score not drawn"
    blue = object_colors(1)[0].astype(int)
    assert (image[30, 45] == np.rint(0.55 * 128 + 0.45 * blue)).all()  # inside: tinted
    assert (image[55, 10] == 128).all() and (image[39, 35] == blue).all()  # outside: as it was; the box's lower edge
    bare, _ = results_image(color, [], CLASSES, width=80)
    assert (bare == 128).all()
    corner, _ = results_image(color, [found(1, 0, 70, 10, 80, size=(60, 80))], CLASSES, width=480)
    assert corner.shape == (360, 480, 3)  # the label is moved inside
    arrays = {"color": np.moveaxis(color[None], -1, 1), "is_ignored": np.zeros((1, 60, 80), bool)}
    for name, score in (("object", 0.9), ("truth", 1.0)):
        arrays |= {f"{name}_ids": np.zeros((1, 60, 80), np.uint8), f"{name}_labels": np.array([[1, -1]], np.int16),
                   f"{name}_boxes": np.zeros((1, 2, 4), np.float32), f"{name}_scores": np.array([[score, 0]], np.float32)}
    assert detect_sheet(arrays, CLASSES).shape[1] > 3 * 480
    with pytest.raises(ValueError, match="object ids"):
        objects_image(color, np.ones((60, 80), int), np.zeros((0, 4)), [])
