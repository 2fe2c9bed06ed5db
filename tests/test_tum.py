"""TUM sequences: pairing, poses, cameras; and the real one."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask3d_core.errors import FrameError
from mask3d_core.frames import Intrinsics
from mask3d_core.geometry import project, relative_pose, transform_points, unproject
from mask3d_core.sources import Source
from mask3d_core.sources.poses import associate, nearest, pose_from_quaternion, read_pose, read_trajectory
from mask3d_core.sources.tum import TumSequence


def write_sequence(folder, count=5, lists=True, truth=True, offset=0.004):
    """Frames whose grey value and depth are their number."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lines = {"rgb": [], "depth": [], "groundtruth": ["# timestamp tx ty tz qx qy qz qw"]}
    for i in range(count):
        t = 100 + i / 30
        rgb, depth = f"rgb/{t:.6f}.png", f"depth/{t + offset:.6f}.png"
        Image.fromarray(np.full((24, 32, 3), i, np.uint8)).save(folder / rgb)
        Image.fromarray(np.full((24, 32), 5000 * (i + 1), np.uint16)).save(folder / depth)
        lines["rgb"].append(f"{t:.6f} {rgb}")
        lines["depth"].append(f"{t + offset:.6f} {depth}")
        lines["groundtruth"].append(f"{t + 0.003:.6f} {i} 0 0 0 0 0 1")
    for name in (["rgb", "depth"] if lists else []) + (["groundtruth"] if truth else []):
        (folder / f"{name}.txt").write_text("\n".join(lines[name]) + "\n")
    return folder


@pytest.mark.parametrize("lists", [True, False])
def test_pairs_and_poses_by_time(tmp_path, lists):
    source = TumSequence(write_sequence(tmp_path / "rgbd_dataset_freiburg2_x", lists=lists))
    assert isinstance(source, Source) and len(source) == 5
    for i in range(5):
        frame = source.read(i)
        assert (frame.color == i).all() and np.allclose(frame.depth, i + 1) and frame.is_valid.all()
        assert frame.pose[0, 3] == i and frame.origin.timestamp == pytest.approx(100 + i / 30)
        assert str(frame.origin) == f"tum/rgbd_dataset_freiburg2_x/{source.frame_name(i)}"
    assert source.intrinsics.fx == 520.9 and "freiburg2" in source.describe()["intrinsics_from"]


def test_too_far_apart_is_not_a_pair(tmp_path):
    folder = write_sequence(tmp_path / "a", offset=0.0165)
    assert len(TumSequence(folder)) == 5
    assert "assumed" in TumSequence(folder).describe()["intrinsics_from"]
    with pytest.raises(FrameError, match="no pair.*max_difference"):
        TumSequence(folder, max_difference=0.01)
    given = TumSequence(folder, Intrinsics(30.0, 30.0, 15.5, 11.5), depth_scale=1000.0)
    assert given.read(0).depth[0, 0] == 5.0 and given.describe()["intrinsics_from"] == "given"


def test_associations_in_either_order_with_and_without_poses(tmp_path):
    folder = write_sequence(tmp_path / "fr3_desk", lists=False)
    rgb, depth = sorted((folder / "rgb").iterdir()), sorted((folder / "depth").iterdir())
    pairs = [(f"{r.stem} rgb/{r.name}", f"{d.stem} depth/{d.name}") for r, d in zip(rgb, depth)][:3]
    for lines, pose in ((["# comment"] + [f"{r} {d} 1 2 3 0 0 0 2" for r, d in pairs], (1, 2, 3)),
                        ([f"{d} {r}" for r, d in pairs], (2, 0, 0))):
        (folder / "associations.txt").write_text("\n".join(lines))
        source = TumSequence(folder)
        frame = source.read(2)
        assert len(source) == 3 and (frame.color == 2).all() and np.allclose(frame.depth, 3)
        assert tuple(frame.pose[:3, 3]) == pose and np.allclose(frame.pose[:3, :3], np.eye(3))
        assert source.intrinsics.fx == 535.4


def test_without_ground_truth_there_is_no_pose(tmp_path):
    source = TumSequence(write_sequence(tmp_path / "a", truth=False))
    assert source.read(0).pose is None and source.describe()["poses"] == 0


def test_each_stamp_is_used_once_and_the_closest_pair_wins():
    i, j = associate(np.array([1.0, 1.01, 2.0, 9.0]), np.array([2.015, 1.008, 0.985]), 0.02)
    assert list(zip(i, j)) == [(0, 2), (1, 1), (2, 0)]
    assert associate(np.array([1.0]), np.array([]), 0.02)[0].size == 0
    assert nearest(np.array([0.0, 1.0, 2.0]), np.array([-1, 0.4, 0.6, 2.3, 9]), 0.5).tolist() == [-1, 0, 1, 2, -1]
    assert nearest(np.array([]), np.array([1.0]), 1.0).tolist() == [-1]


def test_quaternions_turn_as_they_should():
    half = np.sqrt(0.5)
    pose = pose_from_quaternion(np.array([1.0, 2, 3]), np.array([0, 0, half, half]))  # 90 degrees about z
    assert np.allclose(pose @ [1, 0, 0, 1], [1, 3, 3, 1])
    random = pose_from_quaternion(np.zeros((6, 3)), np.random.default_rng(0).normal(size=(6, 4)))[:, :3, :3]
    assert np.allclose(random @ random.swapaxes(1, 2), np.eye(3)) and np.allclose(np.linalg.det(random), 1)


@pytest.mark.parametrize("text, message", [
    ("1 2 3", "lines of 8 numbers"), ("1 0 0 0 0 0 0 x", "could not convert"), ("1 0 0 0 0 0 0 0", "longer than 0"),
    ("nan 0 0 0 0 0 0 1", "finite"), ("", "lines of 8"),
    ("0 0 1\n2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "rotation")])
def test_bad_trajectories_are_named(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(FrameError, match=f"t.txt.*{message}"):
        read_trajectory(tmp_path / "t.txt")


def test_pose_files(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n")
    assert read_pose(path)[:3, 3].tolist() == [5, 6, 7]
    path.write_text("-inf " * 16)
    assert read_pose(path) is None
    path.write_text("1 0 0")
    with pytest.raises(FrameError, match="3 numbers"):
        read_pose(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FrameError, match="text"):
        read_pose(path)


@pytest.mark.parametrize("damage, message", [
    (lambda f: (f / "rgb.txt").write_text("1 a b\nx y"), "numbers"),
    (lambda f: (f / "rgb.txt").write_text("# nothing"), "time stamp, file name"),
    (lambda f: (f / "associations.txt").write_text("1 a 2"), "lines of"),
    (lambda f: [(f / n).unlink() for n in ("rgb.txt", "depth.txt")] + [(f / "rgb").rename(f / "image")], "only depth")])
def test_bad_folders_are_named(tmp_path, damage, message):
    folder = write_sequence(tmp_path / "a")
    damage(folder)
    with pytest.raises(FrameError, match=message):
        TumSequence(folder)


def test_missing_folder_and_bad_frames(tmp_path):
    with pytest.raises(FrameError, match="no such folder"):
        TumSequence(tmp_path / "nowhere")
    folder = write_sequence(tmp_path / "a")
    source = TumSequence(folder)
    Image.fromarray(np.full((12, 16), 5000, np.uint16)).save(folder / source._depth[0])
    (folder / source._color[1]).unlink()
    with pytest.raises(FrameError, match="depth/.*different sizes"):
        source.read(0)
    with pytest.raises(FrameError, match="rgb/.*missing"):
        source.read(1)


def test_the_real_sequence_and_that_its_poses_explain_its_pictures(shared_data):
    """Warping a frame into its neighbour by depth and pose must halve the difference: poses, K and scale agree."""
    source = TumSequence(shared_data / "tum_fr1_rpy")
    assert len(source) == 80 and source.intrinsics.fx == 517.3 and source.describe()["poses"] == 80
    a, b = source.read(40), source.read(41)
    camera = torch.from_numpy(a.intrinsics.as_array())[None]
    poses = [torch.from_numpy(f.pose)[None].float() for f in (a, b)]
    points = transform_points(unproject(torch.from_numpy(a.depth)[None], camera), relative_pose(*poses))
    columns, rows, z = (value[0] for value in project(points, camera))
    seen = torch.from_numpy(a.is_valid) & (z > 0.1) & (columns >= 0) & (columns < 639) & (rows >= 0) & (rows < 479)
    assert seen.float().mean() > 0.3
    grey_a, grey_b = (torch.from_numpy(f.color).float().mean(-1) for f in (a, b))
    warped = grey_b[rows[seen].round().long(), columns[seen].round().long()]
    assert (grey_a[seen] - warped).abs().mean() < 0.5 * (grey_a[seen] - grey_b[seen]).abs().mean()
