"""Fine-tuning end to end on small rendered rooms: tasks, starts, label shares, freezing, resuming, scoring, predicting."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from list_source import ListSource
from PIL import Image

from mask3d_core.batches import AugmentConfig, from_frames
from mask3d_core.cli import main
from mask3d_core.errors import CheckpointError, ConfigError, Mask3DError
from mask3d_core.evaluation.downstream import ScoreConfig, evaluate_finetuned, label_counts, result_text, score_run
from mask3d_core.evaluation.metrics import depth_metrics
from mask3d_core.files import write_json
from mask3d_core.frames import IGNORE_LABEL, FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.models.config import EncoderConfig
from mask3d_core.models.dense import DenseConfig, DenseModel
from mask3d_core.models.export import export_timm
from mask3d_core.models.heads import HeadConfig
from mask3d_core.models.mask3d import Mask3D
from mask3d_core.models.starts import open_start
from mask3d_core.predict import (
    find_pictures,
    output_names,
    predict_folder,
    predict_picture,
    surest_class,
    working_size,
    write_prediction,
)
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.rooms import CLASS_NAMES, Rooms
from mask3d_core.store import Store
from mask3d_core.tasks.depth import crop_of, depth_loss, eigen_box, score_depth, scored_metres, scored_pixels, shown_part
from mask3d_core.tasks.segment import score_segments, segment_loss
from mask3d_core.training.checkpoint import load_model, read_json, read_tensors
from mask3d_core.training.config import FitConfig, pretrain_config
from mask3d_core.training.finetune_config import DepthConfig, finetune_config
from mask3d_core.training.finetuned import load_finetuned
from mask3d_core.training.finetuning import build_dense, finetune, freeze, labelled_share, seen_frames
from mask3d_core.training.held_out import HeldOut, held_out, part_of
from mask3d_core.training.schedule import layer_decay, parameter_groups
from mask3d_viz.finetuning_film import FinetuningFilm

SHAPE = EncoderConfig(width=32, depth=4, heads=2)
SIZE = (48, 64)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms") / "store"
    source = Rooms(count=24, seed=7, height=56, width=72, views_per_room=2, sensor=0.5)
    return prepare(source, folder, PrepareConfig(56, 72, val_share=0.2, test_share=0.2), progress=False).path


def config_of(store, task="segment", **changes):
    fit = FitConfig(**{"steps": 4, "batch_size": 4, "learning_rate": 0.05, "log_every": 1, "eval_every": 2, "save_every": 2, "keep": 3,
                       "precision": "float32", **changes.pop("fit", {})})
    return finetune_config(task, data=str(store), shape=SHAPE, image_size=SIZE, preview=2, fit=fit, **changes)


@pytest.fixture(scope="module")
def segmented(rooms, tmp_path_factory):
    run = tmp_path_factory.mktemp("segment") / "run"
    finetune(config_of(rooms, select="best"), run, "cpu", show=False)
    return run


@pytest.fixture(scope="module")
def measured(rooms, tmp_path_factory):
    run = tmp_path_factory.mktemp("depth") / "run"
    finetune(config_of(rooms, "depth"), run, "cpu", show=False)
    return run


# ---- losses and heads ------------------------------------------------------------------------------------------------


def test_a_frame_counts_once_however_many_of_its_pixels_are_labelled():
    value = torch.randn(2, 3, 4, 4, requires_grad=True)
    truth = torch.zeros(2, 4, 4, dtype=torch.long)
    truth[1, 1:] = IGNORE_LABEL
    both = segment_loss(value, truth)
    alone = [segment_loss(value[k:k + 1], truth[k:k + 1]) for k in (0, 1)]
    assert both.count == 2 and both.total.item() == pytest.approx(sum(a.total.item() for a in alone))
    nothing = segment_loss(value, torch.full_like(truth, IGNORE_LABEL))
    assert nothing.total.item() == 0 and nothing.count == 0
    both.total.backward()
    assert value.grad[1, :, 1:].abs().max() == 0 and value.grad[1, :, 0].abs().max() > 0


def test_silog_forgives_scale_and_l1_does_not():
    depth = torch.rand(1, 6, 6) + 1
    counted = torch.ones(1, 6, 6, dtype=torch.bool)
    for balance, is_forgiven in ((1.0, True), (0.0, False)):
        loss = depth_loss(DepthConfig(balance=balance), 1.7 * depth, depth, counted).total.item()
        assert (loss < 1e-3) == is_forgiven
    assert depth_loss(DepthConfig(loss="l1"), 1.7 * depth, depth, counted).total.item() == pytest.approx(np.log(1.7), rel=1e-4)


@pytest.mark.parametrize("kind", ["linear", "dpt"])
def test_heads_give_every_pixel_a_value_at_any_size(kind):
    model = DenseModel(DenseConfig(SHAPE, SIZE, outputs=5, head=HeadConfig(kind, width=8, cells=2))).eval()
    for size in (SIZE, (80, 32)):
        color = torch.rand(2, 3, *size, requires_grad=True)
        value = model(color)
        assert value.shape == (2, 5, *size) and value.dtype == torch.float32
        value.square().sum().backward()
        assert color.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match="multiples of 16 pixels; got 50x64"):
        model(torch.rand(1, 3, 50, 64))


def test_a_dpt_head_reads_four_levels_evenly():
    assert HeadConfig("dpt").layers_of(12) == (2, 5, 8, 11) and HeadConfig("dpt").layers_of(6) == (1, 2, 3, 5)
    assert HeadConfig("linear").layers_of(12) == (11,) and HeadConfig("linear", layers=(4,)).layers_of(12) == (4,)
    assert HeadConfig("dpt", layers=(1, 2)).problems() == ["a dpt head reads four layers; head.layers has 2"]
    with pytest.raises(ConfigError, match="below the encoder's 4 layers"):
        DenseModel(DenseConfig(SHAPE, SIZE, head=HeadConfig(layers=(7,))))


def test_depth_is_metric_whatever_the_camera():
    model = DenseModel(DenseConfig(SHAPE, SIZE, outputs=1, reference_focal=100.0)).eval()
    value = model(torch.rand(1, 3, *SIZE))
    near, far = (model.metres(value, torch.tensor([[f, f, 31.5, 23.5]])) for f in (50.0, 100.0))
    torch.testing.assert_close(far, 2 * near)


# ---- what learns, and how fast ---------------------------------------------------------------------------------------


def test_lower_layers_learn_more_slowly():
    model = DenseModel(DenseConfig(SHAPE, SIZE))
    scale = layer_decay(0.5, 4)
    assert [scale(f"encoder.blocks.{k}.mlp.fc1.weight") for k in range(4)] == [0.0625, 0.125, 0.25, 0.5]
    assert scale("encoder.patch_embed.proj.weight") == 0.5 ** 5 and scale("head.project.weight") == 1.0
    groups = parameter_groups(model, 0.05, scale)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert {g["lr_scale"] for g in groups} == {0.5 ** k for k in (0, 1, 2, 3, 4, 5)}
    named = {name: g for g in groups for name in g["names"]}
    assert named["encoder.blocks.0.norm1.weight"]["weight_decay"] == 0 and named["encoder.blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.05


@pytest.mark.parametrize("blocks", [-1, 2])
def test_frozen_parts_stay_as_they_were(rooms, tmp_path, blocks):
    config = config_of(rooms, freeze=blocks, fit={"steps": 2, "eval_every": 0})
    finetune(config, tmp_path / "run", "cpu", show=False)
    model, _ = load_finetuned(tmp_path / "run")
    before = build_dense(config, open_start("random", SIZE, shape=SHAPE, seed=0), len(CLASS_NAMES)).state_dict()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("head.") for name in moved)
    frozen = {name for name in before if name.startswith("encoder.") and (blocks == -1 or "blocks.0." in name or "blocks.1." in name
                                                                         or "embed" in name or "token" in name)}
    assert not moved & frozen and (blocks == -1 or any("blocks.3." in name for name in moved))


@pytest.mark.parametrize("blocks", [-1, 2, 0])
def test_what_is_frozen_leaves_no_block_out_by_chance(blocks):
    """A head learns from the features that it will be asked with: two passes of a frozen encoder in training agree."""
    torch.manual_seed(0)
    vit = DenseModel(DenseConfig(SHAPE, SIZE, drop_path=0.5)).encoder.train()
    freeze(vit, blocks)
    color = torch.rand(4, 3, *SIZE)
    twice = [vit.patch_embed(color) for _ in range(2)]
    for block in vit.blocks[:len(vit.blocks) if blocks == -1 else max(blocks, 0)]:
        twice = [block(tokens) for tokens in twice]
    assert torch.equal(*twice)
    whole = [vit.forward_features(color) for _ in range(2)]
    assert torch.equal(*whole) == (blocks == -1), "what is not frozen still does"


def test_no_more_blocks_can_be_frozen_than_there_are():
    with pytest.raises(ConfigError, match="at most the encoder's 4 blocks"):
        freeze(DenseModel(DenseConfig(SHAPE, SIZE)).encoder, 5)


def test_it_learns(rooms, tmp_path):
    """Fourteen rooms are too few for others; the frames themselves must be learned far beyond the trivial answer."""
    config = config_of(rooms, augment=AugmentConfig.none(), drop_path=0.0, layer_decay=1.0, view="centre",  # the pixels it learned
                       fit={"steps": 100, "eval_every": 0, "save_every": 0, "log_every": 100})
    finetune(config, tmp_path / "run", "cpu", show=False)
    model, _ = load_finetuned(tmp_path / "run")
    with torch.inference_mode():
        found = score_segments(model, held_out(config, "train", ("semantic",)), CLASS_NAMES)
    counts = label_counts(config)
    assert found.scores()["pixel_accuracy"] > 1.3 * counts.max() / counts.sum() and found.scores()["miou"] > 0.12
    scores = read_json_of(score_run(tmp_path / "run", "test", "cpu"), tmp_path / "run")["scores"]
    assert any(name.startswith("most frequent class") for name in scores) and scores["model"]["sequences"] == 2


def read_json_of(text, run):
    assert f"written to {run}" in text
    return json.loads((run / "scores.json").read_text())


# ---- starts ----------------------------------------------------------------------------------------------------------


def test_a_start_brings_its_encoder_and_its_colours(tmp_path):
    start = open_start("data/checkpoints/tiny", SIZE)
    model = build_dense(config_of("-", start="data/checkpoints/tiny"), start, 3)
    original, _ = load_model("data/checkpoints/tiny")
    for name, value in original.rgb_encoder.state_dict().items():
        if name != "pos_embed":  # interpolated to the smaller grid
            assert torch.equal(model.encoder.state_dict()[name], value)
    assert model.encoder.pos_embed.shape[1] == 1 + 3 * 4
    assert model.config.color_mean == tuple(original.config.color_mean)


def test_a_fine_tuned_model_is_a_start_too(segmented):
    start = open_start(str(segmented), SIZE)
    model, record = load_finetuned(segmented)
    assert all(torch.equal(v, model.encoder.state_dict()[k]) for k, v in start.vit.state_dict().items())
    assert set(record["data"]["sequences"]) <= set(start.record["data"]["sequences"])


@pytest.mark.parametrize(("start", "words"), [
    ("random:resnet50", "only plain vision transformers"), ("timm:nonsense", "does not know a model 'nonsense'"), ("timm:", "a start is"),
    ("nowhere/run", "nothing there")])
def test_wrong_starts_in_one_line(start, words):
    with pytest.raises(Mask3DError, match=words) as caught:
        open_start(start)
    assert "\n" not in str(caught.value)


def test_the_step_zero_twin_is_another_start():
    start = open_start("step-zero:data/checkpoints/tiny")
    trained = open_start("data/checkpoints/tiny")
    assert start.record["frames_seen"] == 0 and start.patch == trained.patch
    assert not torch.equal(start.vit.blocks[0].attn.qkv.weight, trained.vit.blocks[0].attn.qkv.weight)


def test_frames_that_the_start_has_seen_are_refused(rooms, segmented, tmp_path):
    seen_everything = {"data": {"rooms": [{"seed": 7, "pool": "train"}]}}
    store = Store(rooms)
    assert seen_frames(store, store.indices("test"), seen_everything).all()
    assert not seen_frames(store, store.indices("test"), {"data": {"rooms": [{"seed": 8, "pool": "train"}]}}).any()
    model, record = load_finetuned(segmented)
    with pytest.raises(ConfigError, match="were trained on by this model or its start"):
        evaluate_finetuned(model, record, ScoreConfig("train"))
    shutil.copytree(segmented, tmp_path / "other")
    for name in ("latest.json", "best.json"):
        record = read_json(tmp_path / "other" / name)
        record["data"]["rooms"] = seen_everything["data"]["rooms"]
        write_json(tmp_path / "other" / name, record)
    with pytest.raises(ConfigError, match="frames in .* were in the start's own training data"):
        finetune(config_of(rooms, start=str(tmp_path / "other")), tmp_path / "run", "cpu", show=False)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_shares_of_labels_are_whole_rooms_and_lie_in_each_other(rooms):
    store = Store(rooms)
    train = store.indices("train")
    shares = [set(labelled_share(store, train, share, 3).tolist()) for share in (0.01, 0.3, 0.6, 1.0)]
    assert all(a < b for a, b in zip(shares, shares[1:])) and shares[-1] == set(train.tolist())
    for share in shares:
        rooms_used = {store.sequence(i) for i in share}
        assert share == {int(i) for i in train if store.sequence(int(i)) in rooms_used}
    assert shares[1] != set(labelled_share(store, train, 0.3, 4).tolist()), "another seed, other rooms"


def test_whole_types_of_scene_can_be_held_out(rooms):
    store = Store(rooms)
    names = sorted({store.sequence(i) for i in range(len(store))})
    config = config_of(rooms, hold_out=(names[0], "room-00000[12]*"))
    _, train = part_of(config, "train")
    _, test = part_of(config, "test")
    assert len(train) + len(test) == len(store) and not set(train) & set(test) and not len(part_of(config, "val")[1])
    assert {store.sequence(int(i)) for i in test} >= {names[0]}
    with pytest.raises(ConfigError, match="fits no sequence"):
        part_of(config_of(rooms, hold_out=("kitchen*",)), "test")
    with pytest.raises(ConfigError, match="hold_out leaves none"):
        config_of(rooms, hold_out=(names[0],), select="best")


def test_what_is_left_out_is_left_out_of_every_part(rooms):
    store, train = part_of(config_of(rooms), "train")
    name = store.sequence(int(train[0]))
    kept = {part: part_of(config_of(rooms, leave_out=(name,)), part)[1] for part in ("train", "val", "test")}
    assert set(kept["train"]) == {k for k in train if store.sequence(int(k)) != name} != set(train)
    tested = store.sequence(int(part_of(config_of(rooms), "test")[1][0]))
    with pytest.raises(ConfigError, match="fits no sequence"):
        part_of(config_of(rooms, leave_out=(name, "nonsense*")), "train")
    assert tested not in {store.sequence(int(k)) for k in part_of(config_of(rooms, leave_out=(tested,)), "test")[1]}


def test_where_nothing_validates_training_frames_are_shown_and_named(rooms, tmp_path):
    store = Store(rooms)
    held = store.sequence(0)
    config = config_of(rooms, hold_out=(held,), fit={"steps": 1, "eval_every": 0})
    finetune(config, tmp_path / "run", "cpu", show=False)
    path = tmp_path / "run" / "previews" / "step-000000001.npz"
    with np.load(path) as arrays:
        assert arrays["is_training"] and len(arrays["color"]) == len(arrays["semantic_prediction"]) == 2
    film = FinetuningFilm(lambda: store.header.class_names).make([(1, path)])
    assert "a training frame (none validates)" in film.captions[0]
    finetune(config_of(rooms, fit={"steps": 1, "eval_every": 0}), tmp_path / "split", "cpu", show=False)
    with np.load(tmp_path / "split" / "previews" / "step-000000001.npz") as arrays:
        assert "is_training" not in arrays


def test_other_stores_validate_and_test(rooms, tmp_path):
    other = prepare(Rooms(count=4, seed=9, height=56, width=72, pool="test"), tmp_path / "test", PrepareConfig(56, 72, split="test"),
                    progress=False)
    config = config_of(rooms, test_data=str(other.path), fit={"steps": 1, "eval_every": 0})
    store, test = part_of(config, "test")
    assert store.fingerprint == other.fingerprint and len(test) == 4
    finetune(config, tmp_path / "run", "cpu", show=False)
    assert "4 frames of split test" in score_run(tmp_path / "run", "test", "cpu")


def test_a_store_without_labels_or_with_other_classes_is_refused(rooms, tmp_path):
    bare = prepare(ListSource(12, sequences=4, height=64, width=80), tmp_path / "bare", PrepareConfig(64, 80), progress=False)
    with pytest.raises(ConfigError, match="holds no semantic labels"):
        finetune(config_of(bare.path), tmp_path / "run", "cpu", show=False)
    labelled = prepare(ListSource(12, sequences=4, labels=True, height=64, width=80), tmp_path / "two", PrepareConfig(64, 80), progress=False)
    with pytest.raises(ConfigError, match="has other classes than"):
        finetune(config_of(rooms, test_data=str(labelled.path)), tmp_path / "run2", "cpu", show=False)


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        finetune_config(task="guess", label_fraction=0.0, layer_decay=2.0, head=HeadConfig("deep"))
    assert len(caught.value.problems) == 4
    for changes, words in (({"shape": EncoderConfig(width=32, heads=3)}, r"shape.width must be a multiple of 4 and of its heads \(3\); got 32"),
                           ({"shape": EncoderConfig(heads=0)}, "shape.width, depth and heads must be at least 1"),
                           ({"augment": AugmentConfig(zoom=5.0)}, "augment.zoom must lie in 0..1")):
        with pytest.raises(ConfigError, match=words):
            finetune_config(**changes)


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_exactly(segmented, rooms, tmp_path):
    """Stochastic depth draws at random too, so the generator's state is part of a saved state."""
    run = tmp_path / "run"
    shutil.copytree(segmented, run)
    shutil.rmtree(run / "state" / "step-000000004")
    for name in ("latest.safetensors", "best.safetensors"):
        (run / name).unlink()
    torch.manual_seed(99)
    result = finetune(config_of(rooms, select="best"), run, "cpu", show=False)
    assert result.is_finished and result.step == 4
    first, again = (read_tensors(r / "latest.safetensors") for r in (segmented, run))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert read_json(run / "latest.json")["best"] == read_json(segmented / "latest.json")["best"]


def test_the_best_on_validation_is_kept_and_said(segmented):
    record = read_json(segmented / "best.json")
    log = [json.loads(line) for line in (segmented / "log.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["eval"]["miou"] for line in log if "eval" in line}
    assert record["best"]["value"] == max(scores.values()) and scores[record["best"]["step"]] == record["best"]["value"]
    assert record["step"] == record["best"]["step"]
    text = score_run(segmented, "test", "cpu")
    assert f"best miou on validation ({record['best']['value']:.4f} at step {record['best']['step']})" in text
    assert "13 classes, labels at 48x64, nearest neighbour; one confusion matrix over all frames" in text


def test_a_run_folder_means_the_weights_that_its_scores_are_of(segmented, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(segmented, run)
    best = read_json(run / "best.json")
    write_json(run / "best.json", {**best, "step": 1, "best": {**best["best"], "step": 1}})  # whichever was best, another than the last
    assert load_finetuned(run)[1]["step"] == 1 and load_finetuned(run / "latest")[1]["step"] == 4
    assert open_start(str(run), SIZE).record["step"] == 1
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    assert main(["predict", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    assert "weights: best miou on validation" in capsys.readouterr().out


def test_a_record_says_what_a_number_must_be_printed_with(measured, segmented):
    for run, metric in ((segmented, "miou"), (measured, "abs_rel")):
        model, record = load_finetuned(run)
        result = evaluate_finetuned(model, record)
        assert result["scores"]["model"][metric] and result["difference"]
        assert set(result["protocol"]) >= {"start", "split", "split_rule", "selection", "training_frames", "label_fraction", "labels_at"}
        assert result["protocol"]["task"] in result_text(result)


def test_depth_is_scored_in_metres_beside_the_mean_map(measured, rooms):
    model, record = load_finetuned(measured)
    result = evaluate_finetuned(model, record)
    assert set(result["scores"]) == {"model", "training data's mean per pixel"}
    assert len(result["frames"]["abs_rel"]) == len(result["sequences"]) == result["protocol"]["frames"]
    assert np.nanmean(result["frames"]["abs_rel"]) == pytest.approx(result["scores"]["model"]["abs_rel"]["mean"])


def test_a_frame_out_of_range_is_no_number_and_costs_no_score(rooms, measured, tmp_path):
    source, test = Store(rooms), Store(rooms).indices("test")
    store = tmp_path / "far"
    shutil.copytree(rooms, store)
    depth = np.memmap(store / "depth.u16", np.uint16, "r+", shape=source.depth.shape)
    depth[test[0]] = 11 * source.header.depth_units_per_metre
    depth.flush()
    run = tmp_path / "run"
    shutil.copytree(measured, run)
    for name in ("config.json", "latest.json"):
        (run / name).write_text((run / name).read_text().replace(json.dumps(str(rooms)), json.dumps(str(store))))
    assert "AbsRel" in score_run(run, "test", "cpu")
    found = json.loads((run / "scores.json").read_text())
    assert found["frames"]["abs_rel"][0] is None and None not in found["frames"]["abs_rel"][1:]
    assert found["scores"]["model"]["abs_rel"]["mean"] == pytest.approx(np.mean(found["frames"]["abs_rel"][1:]))


def test_the_eigen_crop_and_the_cap():
    frame = Rooms(count=1, height=480, width=640).read(0)
    batch = from_frames([frame], (480, 640))
    box = eigen_box((0.0, 1.0, 0.0, 1.0), (480, 640))
    assert box == (45, 471, 41, 601)
    counted = scored_pixels(DepthConfig(max_depth=3.0), batch, box)[0]
    rows, columns = counted.any(dim=1).nonzero().flatten(), counted.any(dim=0).nonzero().flatten()
    assert rows.min() >= 45 and rows.max() <= 470 and columns.min() >= 41 and columns.max() <= 600
    assert batch.depth[0][counted].max() <= 3.0


class Coded(ListSource):
    """One 480x640 frame whose depth says the row or the column of the original, in centimetres; it calls itself NYUv2."""

    def __init__(self, of, border=0, name="nyuv2"):
        super().__init__(1)
        self.of, self.border, self.name = of, border, name
        self.labels, self.class_names = frozenset({"semantic"}), ("even", "odd")

    def read(self, index):
        rows, columns = np.mgrid[:480, :640]
        code = {"row": rows, "column": columns}[self.of]
        frame = RGBDFrame(np.repeat((code // 3)[..., None], 3, -1).astype(np.uint8), ((code + 1) / 100).astype(np.float32),
                          np.ones((480, 640), bool), Intrinsics(518.0, 519.0, 319.5, 239.5), None, (code % 2).astype(np.uint8), None,
                          FrameOrigin(self.name, self.sequence(0), self.frame_name(0)))
        edge = self.border
        return frame.crop(edge, edge, 480 - 2 * edge, 640 - 2 * edge) if edge else frame

    def describe(self):
        return {**super().describe(), "border": self.border}


def coded(folder, of, border=0, name="nyuv2"):
    return prepare(Coded(of, border, name), folder, PrepareConfig(256, 336, split="test", workers=1), progress=False)


def scored_codes(frames, config):
    """First and last row, or column, of the original frame that is scored."""
    box = eigen_box(shown_part(frames), frames.size) if crop_of(config, frames.store) == "eigen" else None
    batch, _ = next(iter(frames))
    codes = (batch.depth[scored_pixels(config, batch, box)] * 100 - 1).round()
    return int(codes.min()), int(codes.max())


@pytest.mark.parametrize("border", [0, 8])
@pytest.mark.parametrize(("of", "first", "last", "end"), [("row", 45, 470, 480), ("column", 41, 600, 640)])
def test_the_rows_and_columns_of_the_original_picture_that_are_scored(of, first, last, end, border, tmp_path):
    store = coded(tmp_path / "s", of, border)
    whole = HeldOut(store, store.indices("test"), (240, 320), ("semantic",))
    low, high = scored_codes(whole, DepthConfig())
    assert abs(low - first) <= 2 and abs(high - last) <= 2, "to the nearest pixel of 240x320"
    low, high = scored_codes(whole, DepthConfig(crop="none"))
    assert border <= low <= border + 9 and end - border - 10 <= high < end - border, "preparing cuts columns to the store's aspect"
    centre = replace(whole, view="centre")
    low, high = scored_codes(centre, DepthConfig(crop="none"))
    assert low > border + 12 and high < end - border - 12 and centre.share == pytest.approx(240 * 320 / 256 / 336)
    if border == 0:
        low, high = scored_codes(centre, DepthConfig())
        assert abs(low - first) <= 2 and abs(high - min(last, end - 16)) <= 2, "the box is that of the original; the view ends at 465"
    batch, _ = next(iter(whole))
    code = (batch.depth[0] * 100 - 1).round().long()
    assert torch.equal(batch.semantic[0], code % 2) and (batch.color[0, 0] * 255 - code / 3).abs().max() < 2.5, "all move together"
    k, size = batch.intrinsics[0], (480 - 2 * border, 640 - 2 * border)
    assert k[2].item() == pytest.approx(159.5, abs=0.5) and k[3].item() == pytest.approx(119.5, abs=0.5)
    assert k[1].item() == pytest.approx(519 * 240 / size[0], rel=1e-3)


def test_the_eigen_crop_is_the_default_of_nyuv2_only(tmp_path):
    for name, crop in (("nyuv2", "eigen"), ("folder", "none")):
        store = coded(tmp_path / name, "row", name=name)
        assert crop_of(DepthConfig(), store) == crop and crop_of(DepthConfig(crop="none"), store) == "none"
        frames = HeldOut(store, store.indices("test"), (240, 320))
        assert frames.words == "the whole stored frame (256x336)" and frames.share == 1
        values, _ = score_depth(lambda batch: batch.depth, frames, DepthConfig())
        assert values["abs_rel"].tolist() == [0] and values["delta1"].tolist() == [1]


def test_predictions_are_capped_as_the_truth_is():
    truth, prediction = torch.full((1, 4, 4), 9.0), torch.full((1, 4, 4), 14.0)
    counted = torch.ones(1, 4, 4, dtype=torch.bool)
    found = depth_metrics(scored_metres(DepthConfig(), prediction), truth, counted)
    assert found["abs_rel"].item() == pytest.approx(1 / 9) and found["rmse"].item() == pytest.approx(1.0)
    found = depth_metrics(scored_metres(DepthConfig(clamp=False), prediction), truth, counted)
    assert found["abs_rel"].item() == pytest.approx(5 / 9) and found["rmse"].item() == pytest.approx(5.0)
    for wrong in (torch.inf, torch.nan):
        found = depth_metrics(scored_metres(DepthConfig(), torch.full((1, 4, 4), wrong)), truth, counted)
        assert found["rmse"].item() == torch.inf, "not finite stays infinitely wrong"


def test_what_is_scored_is_said(measured, segmented):
    for run in (measured, segmented):
        model, record = load_finetuned(run)
        text = result_text(evaluate_finetuned(model, record))
        assert "scored: the whole stored frame (56x72)" in text
        assert ("predictions clamped to it, crop none" in text) == (run is measured)
        record["training"]["view"] = "centre"
        result = evaluate_finetuned(model, record)
        assert "scored: the centre crop, 76% of the stored frame (56x72)" in result_text(result)
        assert result["protocol"]["view"] == "centre" and result["protocol"]["view_share"] == pytest.approx(48 * 64 / 56 / 72)


def test_the_wrong_kind_of_checkpoint_is_named(segmented):
    with pytest.raises(CheckpointError, match="expected a mask3d checkpoint of pre-training; got a fine-tuned dense model"):
        load_model(segmented)
    with pytest.raises(CheckpointError, match="expected a fine-tuned model; got mask3d checkpoint of pre-training"):
        load_finetuned("data/checkpoints/tiny")


# ---- predicting ------------------------------------------------------------------------------------------------------


def test_pictures_of_any_size_are_predicted(segmented, measured):
    model, record = load_finetuned(segmented)
    for size in ((33, 90), (200, 100), (48, 64)):
        made = predict_picture(model, record, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        assert made.semantic.shape == size and made.semantic.max() < 13 and 0 < made.confidence.min() <= made.confidence.max() <= 1
    model, record = load_finetuned(measured)
    color = np.zeros((100, 140, 3), np.uint8)
    assumed = predict_picture(model, record, color)
    assert assumed.depth.shape == (100, 140) and assumed.depth.min() > 0 and "field of view of 60 degrees was assumed" in assumed.notes[0]
    camera = Intrinsics(140 / 2 / np.tan(np.radians(30)), 120.0, 69.5, 49.5)
    known, longer = (predict_picture(model, record, color, intrinsics=replace(camera, fx=camera.fx * k)) for k in (1, 2))
    np.testing.assert_allclose(known.depth, assumed.depth, rtol=1e-5)
    np.testing.assert_allclose(longer.depth, 2 * known.depth, rtol=1e-5)
    assert not known.notes and working_size(480, 640, (240, 320), 16) == (240, 320) and working_size(10, 1000, (48, 64), 16)[0] == 16


def test_the_command_writes_pictures_and_values(segmented, measured, rooms, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        Image.fromarray(np.array(Store(rooms).color[k])).save(folder / f"frame{k}.png")
    (folder / "notes.txt").write_text("not a picture")
    assert main(["predict", str(segmented), str(folder), "--out", str(tmp_path / "out")]) == 0
    ids = np.asarray(Image.open(tmp_path / "out" / "frame1_classes.png"))
    assert ids.shape == (56, 72) and ids.dtype == np.uint8 and (tmp_path / "out" / "frame1_picture.png").is_file()
    assert main(["predict", str(measured), str(folder / "frame0.png"), "--out", str(tmp_path / "out")]) == 0
    metres = np.load(tmp_path / "out" / "frame0_depth.npz")["depth"]
    stored = np.asarray(Image.open(tmp_path / "out" / "frame0_depth_mm.png"))
    assert np.abs(stored / 1000.0 - metres).max() <= 0.00051
    capsys.readouterr()
    assert main(["predict", str(segmented), str(tmp_path / "nothing")]) == 2
    assert "expected a picture or a folder of pictures; got nothing there" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mask3DError, match="none in this folder"):
        find_pictures(tmp_path / "empty")


def test_classes_of_a_large_picture_are_found_strip_by_strip():
    logits = torch.randn(5, 12, 16)
    for size in ((200, 150), (12, 16), (7, 9)):
        ids, confidence = surest_class(logits, size)
        surest, chosen = F.interpolate(logits[None], size, mode="bilinear", align_corners=False).softmax(1).max(1)
        assert (chosen[0].numpy() == ids).mean() > 0.999 and np.abs(surest[0].numpy() - confidence).max() < 1e-5


def test_depth_beyond_what_millimetres_hold_is_written_in_centimetres(measured, tmp_path):
    model, record = load_finetuned(measured)
    far = {**record, "training": {**record["training"], "depth": {**record["training"]["depth"], "max_depth": 120.0}}}
    made = predict_picture(model, far, np.zeros((48, 64, 3), np.uint8), "street")
    assert [path.name for path in write_prediction(replace(made, depth=made.depth * 0 + 100.0), tmp_path)] == ["street_depth_cm.png", "street_depth.npz"]
    assert (np.asarray(Image.open(tmp_path / "street_depth_cm.png")) == 10000).all()
    near = predict_picture(model, record, np.zeros((48, 64, 3), np.uint8), "room")
    write_prediction(replace(near, depth=near.depth * 0 + 100.0), tmp_path)
    assert np.asarray(Image.open(tmp_path / "room_depth_mm.png")).max() == 65534, "65535 is read as not measured"


def test_an_exported_encoder_of_any_plain_timm_architecture_is_a_start(tmp_path):
    preset = pretrain_config("micro").model
    model = Mask3D(replace(preset, rgb=replace(preset.rgb, timm="test_vit2"), patch=16, image_size=SIZE))
    start = open_start(str(export_timm(model, tmp_path / "exported")), SIZE)
    built = build_dense(config_of("unused"), start, 3)
    assert all(torch.equal(value, built.encoder.state_dict()[name]) for name, value in model.rgb_encoder.state_dict().items())


def test_pictures_of_one_name_do_not_overwrite_each_other(segmented, tmp_path):
    names = ("a.jpg", "a.png", "a_jpg.png", "b.v1.png", "b.v2.png", "C.jpg", "c.png")
    made = output_names([tmp_path / name for name in names])
    assert made == ["a_jpg", "a_png", "a_jpg_png", "b.v1", "b.v2", "C_jpg", "c_png"]
    for name, size in (("a.jpg", (60, 40)), ("a.png", (40, 60))):
        Image.new("RGB", size).save(tmp_path / name)
    assert main(["predict", str(segmented), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    sizes = [Image.open(tmp_path / "out" / f"a_{ending}_classes.png").size for ending in ("jpg", "png")]
    assert sizes == [(60, 40), (40, 60)]
    known = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert known == {"classes": {str(k): name for k, name in enumerate(CLASS_NAMES)}, "ignore_id": IGNORE_LABEL}


def test_photographs_are_turned_as_their_orientation_says(segmented, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert main(["predict", str(segmented), str(tmp_path / "turned.jpg"), "--out", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "turned_classes.png").size == (40, 60)
    (made,) = predict_folder(*load_finetuned(segmented), tmp_path)
    assert made.size == (60, 40) and made.file_name == "turned.jpg"


def test_an_unreadable_picture_of_a_folder_does_not_lose_the_others(segmented, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    words = ["--out", str(tmp_path / "out")]
    assert main(["predict", str(segmented), str(tmp_path), *words]) == 1
    said = capsys.readouterr()
    assert "b.jpg: expected a readable image file" in said.err and "1 of 3 picture(s) could not be read" in said.err
    assert "2 picture(s)" in said.out and (tmp_path / "out" / "c_classes.png").is_file()
    assert main(["predict", str(segmented), str(tmp_path / "b.jpg"), *words]) == 2, "alone it is a wrong input"
    assert "error: " in capsys.readouterr().err


def test_the_command_trains_and_scores(rooms, tmp_path, capsys):
    arguments = ["finetune", str(tmp_path / "run"), "--data", str(rooms), "--steps", "2", "--device", "cpu", "--set",
                 "image_size=[48,64]", 'shape={"timm":"","width":32,"depth":4,"heads":2}', "fit.batch_size=4", "fit.eval_every=0"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert said.count('"image_size": [48, 64]') == 1, "the whole configuration is printed once"
    assert "mIoU" in said and "most frequent class" in said and (tmp_path / "run" / "scores.json").is_file()
    previews = sorted((tmp_path / "run" / "previews").glob("*.png"))
    assert previews, "the fixed validation frames are drawn"
    assert main([*arguments[:-1], "fit.batch_size=3"]) == 2, "another run must not go on in this folder"
    said = capsys.readouterr()
    assert "fit.batch_size: 4 there, 3 here" in said.err and not said.out, "an error is one line, without the configuration"
    missing = ["finetune", str(tmp_path / "new"), "--data", str(tmp_path / "nothing"), "--device", "cpu"]
    assert main(missing) == 2 and not capsys.readouterr().out
    assert main([*missing, "--dry-run"]) == 0 and '"image_size"' in capsys.readouterr().out
