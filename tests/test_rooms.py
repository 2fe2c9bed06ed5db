"""Rooms: exact to the seed, geometrically consistent, labelled, and honest about what is held out."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mask3d_core.errors import ConfigError
from mask3d_core.sources import Source, open_source
from mask3d_core.sources.rooms import CLASS_NAMES, FURNITURE_LEVELS, Rooms, RoomsConfig, render_rooms
from mask3d_core.sources.rooms.config import WINDOW
from mask3d_core.sources.rooms.draws import Draws, first_true, turn_to_sincos
from mask3d_core.sources.rooms.layout import build_rooms
from mask3d_core.sources.rooms.materials import draw_materials
from mask3d_core.sources.rooms.sensor import measure
from mask3d_core.sources.rooms.solids import span_box, span_cylinder, span_ellipsoid
from mask3d_core.sources.rooms.textures import atlas, pattern_count, sample
from mask3d_core.sources.rooms.trace import Candidates

FIELDS = ("color", "depth", "is_valid", "intrinsics", "pose", "semantic", "instance")
SMALL = {"height": 96, "width": 128}


def render(rooms, views, **options):
    return render_rooms(torch.tensor(rooms), torch.tensor(views), RoomsConfig(**{**SMALL, **options}))


@pytest.fixture(autouse=True)
def one_thread():
    """Small pictures: threads only wait for each other, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def batch():
    return render([0, 0, 1, 2, 3, 3, 4, 5], [0, 1, 0, 3, 0, 1, 2, 0], seed=3)


def test_it_is_a_source():
    source = open_source("rooms", count=64, seed=1, **SMALL)
    assert isinstance(source, Source) and len(source) == 64 and source.name == "rooms"
    frame = source.read(5)
    assert (source.sequence(5), source.frame_name(5)) == ("room-000001", "view-001")
    assert (frame.origin.sequence, frame.origin.name) == ("room-000001", "view-001")
    assert frame.color.shape == (96, 128, 3) and frame.is_valid.all() and not frame.intrinsics.problems(96, 128)
    assert json.loads(json.dumps(source.describe()))["seed"] == 1
    assert source.class_names == CLASS_NAMES and len(CLASS_NAMES) == 13


@pytest.mark.parametrize("options, word", [
    ({"furniture": 7}, "furniture"), ({"pool": "validation"}, "pool"), ({"height": 4}, "height"),
    ({"views_per_room": 0}, "views_per_room"), ({"count": 0}, "count"), ({"plain": 1.5}, "plain"), ({"desk": -1}, "desk"), ({"path": "/nowhere"}, "path"), ({"lamps": 3}, "lamps")])
def test_wrong_options_are_named(options, word):
    with pytest.raises(ConfigError, match=word):
        Rooms(**options)


def test_an_index_past_the_end_is_refused():
    with pytest.raises(IndexError, match="below 4"):
        Rooms(count=4, **SMALL).read(4)


@pytest.mark.parametrize("sensor", [False, True])
def test_a_frame_does_not_depend_on_its_batch(sensor):
    rooms, views = [7, 2, 7, 31, 2], [0, 1, 3, 0, 0]
    together = render(rooms, views, sensor=sensor)
    for i in (0, 2, 4):
        alone = render(rooms[i:i + 1], views[i:i + 1], sensor=sensor)
        for name in FIELDS:
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_another_process_renders_the_same_bits():
    code = ("import torch, hashlib; from mask3d_core.sources.rooms import *;"
            "b = render_rooms(torch.tensor([7]), torch.tensor([3]), RoomsConfig(height=96, width=128));"
            "print(hashlib.sha256(b.color.numpy().tobytes() + b.depth.numpy().tobytes()).hexdigest())")
    root = Path(__file__).resolve().parents[1]
    there = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    here = render([7], [3])
    assert hashlib.sha256(here.color.numpy().tobytes() + here.depth.numpy().tobytes()).hexdigest() == there


@pytest.mark.parametrize("change", [{"seed": 4}, {"pool": "test"}])
def test_another_seed_or_pool_is_another_room(batch, change):
    other = render([0], [0], **{"seed": 3, **change})
    assert (other.depth[0] - batch.depth[0]).abs().mean() > 0.05


def unproject(batch, i):
    fx, fy, cx, cy = batch.intrinsics[i].double()
    height, width = batch.depth.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    z = batch.depth[i].double()
    points = torch.stack([(x - cx) / fx * z, (y - cy) / fy * z, z], -1).reshape(-1, 3)
    pose = batch.pose[i].double()
    return points @ pose[:3, :3].T + pose[:3, 3]


def seen_again(batch, a, b):
    """Points of view a that fall on the same object in view b: what b measured there minus where they are, metres."""
    pose, (fx, fy, cx, cy) = batch.pose[b].double(), batch.intrinsics[b].double()
    height, width = batch.depth.shape[1:]
    local = (unproject(batch, a) - pose[:3, 3]) @ pose[:3, :3]
    z = local[:, 2]
    x, y = local[:, 0] / z * fx + cx, local[:, 1] / z * fy + cy
    left, top = x.floor().long(), y.floor().long()
    inside = (z > 0.3) & (left >= 0) & (left < width - 1) & (top >= 0) & (top < height - 1)
    label = (batch.instance[a].long() * 16 + batch.semantic[a]).reshape(-1)[inside]
    left, top, x, y, z = (v[inside] for v in (left, top, x, y, z))
    corners = [(top + dy, left + dx) for dy in (0, 1) for dx in (0, 1)]
    depths = torch.stack([batch.depth[b][at].double() for at in corners])
    labels = torch.stack([batch.instance[b][at].long() * 16 + batch.semantic[b][at] for at in corners])
    is_smooth = (labels == label).all(0) & (depths.amax(0) - depths.amin(0) < 0.02 * z)
    share_x, share_y = x - left, y - top
    inverse = 1 / depths  # linear across the picture of a plane
    measured = 1 / ((inverse[0] * (1 - share_x) + inverse[1] * share_x) * (1 - share_y)
                    + (inverse[2] * (1 - share_x) + inverse[3] * share_x) * share_y)
    return (measured - z)[is_smooth]


def test_two_views_of_a_room_agree():
    """Points of one view, seen from another, lie where that one measured them, unless something hides them."""
    batch = render([11] * 5, list(range(5)), height=120, width=160)
    gaps = torch.cat([seen_again(batch, a, b) for a in range(5) for b in range(5) if a != b])
    visible = gaps[gaps.abs() < 0.05]
    assert len(visible) > 10000
    assert visible.abs().median() < 2e-4 and visible.abs().quantile(0.9) < 5e-3
    assert (gaps > 0.05).double().mean() < 0.01  # no view looks through what another one saw


def test_floor_and_ceiling_are_planes(batch):
    for i in range(len(batch.depth)):
        world = unproject(batch, i)
        floor = (batch.semantic[i] == CLASS_NAMES.index("floor")).reshape(-1)
        if floor.any():
            assert world[floor, 2].abs().max() < 0.012  # rugs are 7 mm thick
        ceiling = (batch.semantic[i] == CLASS_NAMES.index("ceiling")).reshape(-1)
        if ceiling.any():
            assert world[ceiling, 2].std() < 1e-3 or ceiling.sum() == 1


def test_labels_and_poses_are_in_range(batch):
    assert batch.semantic.max() < 13 and batch.instance.min() >= 0
    walls = torch.isin(batch.semantic, torch.tensor([CLASS_NAMES.index("floor"), CLASS_NAMES.index("ceiling")]))
    assert (batch.instance[walls] == 0).all()
    objects = torch.isin(batch.semantic, torch.tensor([CLASS_NAMES.index(n) for n in ("table", "chair", "objects", "books", "sofa", "bed")]))
    assert (batch.instance[objects] > 0).all()
    turn = batch.pose[:, :3, :3].double()
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3).double().expand_as(turn), atol=1e-5)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(len(turn)).double(), atol=1e-5)
    assert ((batch.pose[:, 2, 1] < 0)).all()  # the image's down points down
    assert (batch.depth >= 0.3).all() and (batch.depth < 15).all()
    share = batch.intrinsics[:, 0] / SMALL["width"]
    assert ((share > 0.74) & (share < 1.11)).all()


def test_one_object_has_one_class(batch):
    for room in (0, 3):
        rows = batch.room_ids == room
        pairs = torch.stack([batch.instance[rows].flatten().long(), batch.semantic[rows].flatten().long()], 1).unique(dim=0)
        ids = pairs[pairs[:, 0] > 0, 0]
        assert len(ids) == len(ids.unique())


def test_furniture_levels_add_families():
    seen = []
    for level in range(len(FURNITURE_LEVELS)):
        scene = build_rooms(torch.arange(40), RoomsConfig(furniture=level))
        classes = scene.parts["semantic"][scene.parts["is_active"]].unique().tolist()
        seen.append({CLASS_NAMES[c] for c in classes})
    assert "table" not in seen[0] and "table" in seen[1] and "chair" not in seen[1] and "chair" in seen[2]
    assert "furniture" not in seen[2] and "furniture" in seen[3] and not {"sofa", "bed"} & seen[3] and {"sofa", "bed"} <= seen[4]
    assert "tv" not in seen[4] and "tv" in seen[5] and "picture" not in seen[5] and "picture" in seen[6]
    for lower, higher in zip(seen, seen[1:]):
        assert lower <= higher


@pytest.mark.parametrize("pool", ["train", "test"])
def test_nothing_floats(pool):
    """Whatever does not hang on a wall or from the ceiling stands on the floor or above something that carries it."""
    scene = build_rooms(torch.arange(12), RoomsConfig(pool=pool))
    parts, hangs = scene.parts, [CLASS_NAMES.index(n) for n in ("picture", "window", "wall")]
    extent = (parts["rotation"].unflatten(-1, (3, 3)).abs() * parts["half"][..., None, :]).sum(-1)
    low, high = parts["center"] - extent, parts["center"] + extent
    floating, things = [], 0
    for room in range(12):
        active, instance = parts["is_active"][room], parts["instance"][room]
        for thing in instance[active].unique().tolist():
            mine = active & (instance == thing)
            bottom, top = low[room][mine].amin(0), high[room][mine].amax(0)
            if thing == 0 or int(parts["semantic"][room][mine][0]) in hangs or top[2] > scene.size[room, 2] - 0.05:
                continue
            things += 1
            other = active & (instance != thing)
            carries = other & (low[room][:, 2] < bottom[2]) & (high[room][:, 2] > bottom[2] - 0.02)
            carries &= (low[room][:, :2] < top[:2]).all(1) & (high[room][:, :2] > bottom[:2]).all(1)
            if bottom[2] > 0.02 and not carries.any():
                floating.append((room, thing))
    assert things > 300 and len(floating) <= 0.003 * things, floating


def test_a_plain_room_has_the_same_shape_and_a_bright_ceiling_over_a_darker_floor(batch):
    rooms, views = [0, 0, 1, 2, 3, 3, 4, 5], [0, 1, 0, 3, 0, 1, 2, 0]
    plain, half = render(rooms, views, seed=3, plain=1.0), render(list(range(40)), [0] * 40, seed=3, plain=0.5)
    assert torch.equal(plain.depth, batch.depth) and torch.equal(plain.semantic, batch.semantic), "only paint differs"
    assert not torch.equal(plain.color, batch.color)
    config = RoomsConfig(seed=3, plain=1.0)
    many = torch.arange(200)
    shell = draw_materials(["any"] * 8, many, config)
    brightness = shell[:, :3, :3].mean(-1)  # floor, ceiling, wall
    assert (brightness[:, 1] > 0.6).all() and brightness[:, 0].mean() < 0.35 < brightness[:, 2].mean() < brightness[:, 1].mean()
    start = atlas("cpu")[1]["train"][0]
    is_faint = (shell[:, [1, 2, 3, 4, 5, 6], 9] - start) < 2
    assert 0.8 < is_faint.float().mean() < 0.95, "hardly any pattern"
    as_drawn = render(list(range(40)), [0] * 40, seed=3)
    same = (half.color == as_drawn.color).flatten(1).all(1).float().mean()
    assert 0.3 < same < 0.7, "a share of the rooms"


def test_what_was_rendered_before_the_share_of_plain_rooms_is_still_recognised():
    assert set(Rooms(count=1).describe()) == {"source", "count", "seed", "height", "width", "views_per_room", "furniture", "sensor", "pool"}
    assert Rooms(count=1, plain=0.5, desk=0.0).describe().items() >= {"plain": 0.5, "desk": 0.0}.items()


def test_frames_over_a_table_can_be_left_out():
    over = [render(list(range(24)), [0] * 24, seed=5, desk=share, height=48, width=64).pose[:, 2, 3] for share in (0.0, 1.0)]
    assert (over[0] > 1.15).all(), "a person's height"
    assert (over[1] - over[0]).abs().max() > 0.1 and not torch.equal(over[0], over[1])


def test_the_camera_stands_free():
    """Never inside a thing; seldom close to a blank surface; both near and far views."""
    rooms = torch.arange(60)
    batch = render(rooms.tolist(), [0] * 60, height=48, width=64)
    scene = build_rooms(rooms, RoomsConfig(**SMALL))
    offset = batch.pose[:, None, :3, 3] - scene.parts["center"]
    local = torch.einsum("rpi,rpij->rpj", offset, scene.parts["rotation"].unflatten(-1, (3, 3)))
    inside = (local.abs() < scene.parts["half"] + 0.05).all(-1) & scene.parts["is_active"]
    assert inside.any(1).float().mean() <= 0.02
    position = batch.pose[:, :3, 3]
    assert ((position > 0.1) & (position < scene.size - 0.1)).all()
    median = batch.depth.flatten(1).median(1).values
    assert ((batch.depth < 0.5).float().mean((1, 2)) > 0.3).float().mean() < 0.05
    assert (median < 1.3).any() and (median > 2.2).any()


def test_pools_share_no_pattern_and_no_hue():
    _, spans = atlas("cpu")
    used, hues = {}, {}
    for pool in ("train", "test"):
        table = draw_materials(["any"] * 40 + ["print"] * 10 + ["spines"] * 5, torch.arange(30), RoomsConfig(pool=pool)).flatten(0, 1)
        used[pool] = set(table[:, 9].int().tolist())
        color = table[:, :3].sqrt()
        high, low = color.amax(1), color.amin(1)
        r, g, b = color.unbind(1)
        hue = torch.where(high == r, (g - b) / (high - low), torch.where(high == g, 2 + (b - r) / (high - low), 4 + (r - g) / (high - low)))
        hues[pool] = (hue % 1)[(high - low > 0.2)]  # place inside its band of a sixth of the circle
    assert not used["train"] & used["test"]
    for pool, ids in used.items():
        allowed = [range(*(lambda s: (s[0], s[0] + s[1]))(spans[name])) for name in (pool, f"spines_{pool}")]
        assert all(any(i in span for span in allowed) for i in ids)
    assert hues["train"].max() < 0.67 and hues["test"].min() > 0.53


def test_sensor_touches_depth_alone():
    rooms, views = [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 1]
    clean, sensed = render(rooms, views, **{"height": 240, "width": 320}), render(rooms, views, sensor=True, **{"height": 240, "width": 320})
    for name in ("color", "semantic", "instance", "pose", "intrinsics"):
        assert torch.equal(getattr(clean, name), getattr(sensed, name)), name
    assert clean.is_valid.all()
    share = sensed.is_valid.float().mean()
    assert 0.3 < share < 0.99
    assert (sensed.depth[~sensed.is_valid] == 0).all()
    true, measured = clean.depth[sensed.is_valid], sensed.depth[sensed.is_valid]
    assert measured.min() > 0.3 and measured.max() < 5.5
    # One step of disparity at depth z is z^2 / (8 b f) of a 640-pixel image; two steps bound rounding and wobble.
    step = true ** 2 / (8 * 0.075 * 0.75 * 640)
    assert ((measured - true).abs() < 2 * step + 1e-4).all()
    assert not sensed.is_valid[clean.semantic == WINDOW].all()
    assert len(measured.unique()) < 0.02 * measured.numel()  # quantised


def test_shadow_of_the_projector_lies_left_of_what_is_near():
    depth = torch.full((1, 64, 128), 2.0)
    depth[:, :, 60:90] = 1.0
    ones = torch.ones_like(depth)
    _, is_valid = measure(depth, ones * 0.9, ones, ones * 0, torch.tensor([[110.0, 110.0, 64, 32]]), torch.tensor([5]),
                          RoomsConfig(height=64, width=128))
    assert is_valid[0, :, 56:60].float().mean() < 0.3 < 0.9 < is_valid[0, :, 92:110].float().mean()


def test_spans_of_unit_solids():
    origin = [torch.tensor([-3.0, -3.0, 0.0]), torch.tensor([0.0, 1.5, 0.1]), torch.tensor([0.0, 0.0, 4.0])]
    direction = [torch.tensor([1.0, 1.0, 1e-9]), torch.tensor([1e-9, 1e-9, 1e-9]), torch.tensor([1e-9, 1e-9, -1.0])]
    for span in (span_box, span_cylinder, span_ellipsoid):
        enter, leave = span([o.clone() for o in origin], [d.clone() for d in direction])
        assert enter[0] == pytest.approx(2.0, abs=1e-5) and leave[0] == pytest.approx(4.0, abs=1e-5)
        assert not enter[1] < leave[1]
        assert enter[2] == pytest.approx(3.0, abs=0.02)


def test_candidates_visit_every_pair_once():
    keep = torch.rand(2, 30, 17) < 0.2
    found = torch.zeros(60, 2 * 20, dtype=torch.int64)
    candidates = Candidates.of(keep, 3, 20)
    for alive, solid in candidates.rounds():
        found[candidates.order[:alive], solid] += 1
    expected = torch.zeros(2, 30, 2, 20, dtype=torch.int64)
    for frame in range(2):
        expected[frame, :, frame, 3:] = keep[frame].long()
    assert torch.equal(found, expected.reshape(60, 40))


def test_small_arithmetic():
    turns = torch.linspace(-2, 2, 1001)
    sine, cosine = turn_to_sincos(turns)
    assert torch.allclose(sine, torch.sin(turns * 2 * torch.pi), atol=3e-6)
    assert torch.allclose(cosine, torch.cos(turns * 2 * torch.pi), atol=3e-6)
    assert first_true(torch.tensor([[False, True, True], [False, False, False]])).tolist() == [1, 0]
    share = (Draws(0, torch.arange(4000), "test", 1).weighted([1.0, 3.0]) == 1).float().mean()
    assert share == pytest.approx(0.75, abs=0.03)


def test_patterns_fade_with_distance():
    texels, _ = atlas("cpu")
    count = pattern_count()
    assert texels.min() >= 0 and texels.max() <= 1
    pattern = torch.arange(count).repeat_interleave(500)
    u, v = torch.rand(len(pattern)), torch.rand(len(pattern))
    near = sample(texels, count, pattern, u, v, torch.zeros(len(u)))[0].reshape(count, -1)
    far = sample(texels, count, pattern, u, v, torch.full((len(u),), 500.0))[0].reshape(count, -1)
    assert (far.std(1) < 1e-6).all() and (near.std(1) > 0.01).float().mean() > 0.9
    assert torch.allclose(near.mean(1), far.mean(1), atol=0.08)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_agrees_with_itself_and_nearly_with_the_cpu():
    config, rooms, views = RoomsConfig(**SMALL), torch.arange(8), torch.zeros(8, dtype=torch.long)
    gpu, again = render_rooms(rooms, views, config, "cuda"), render_rooms(rooms[2:3], views[2:3], config, "cuda")
    assert torch.equal(gpu.color[2], again.color[0]) and torch.equal(gpu.depth[2], again.depth[0])
    cpu = render_rooms(rooms, views, config)
    close = ((gpu.depth.cpu() - cpu.depth).abs() < 1e-3).float().mean()
    assert close > 0.99 and (gpu.semantic.cpu() == cpu.semantic).float().mean() > 0.99


def test_frames_show_a_room():
    """Several things in most frames, all classes somewhere, colour that is neither black nor burnt out."""
    batch = render(list(range(48)), [0] * 48, height=48, width=64)
    assert set(batch.semantic.unique().tolist()) >= set(range(13)) - {CLASS_NAMES.index("ceiling")}
    things = np.array([len(np.unique(i)) for i in batch.instance.numpy()])
    assert np.mean(things >= 3) > 0.9
    light = batch.color.float().mean((1, 2, 3))
    assert light.min() > 30 and light.max() < 225 and batch.color.float().std() > 30


def test_every_tensor_is_made_on_the_device_asked_for():
    """With another default device, a tensor made without naming its device would clash with the rest."""
    expected = render([3], [1], sensor=True)
    room, view = torch.tensor([3]), torch.tensor([1])
    torch.set_default_device("meta")
    try:
        got = render_rooms(room, view, RoomsConfig(**SMALL, sensor=True), "cpu")
    finally:
        torch.set_default_device(None)
    assert torch.equal(expected.color, got.color) and torch.equal(expected.depth, got.depth)
