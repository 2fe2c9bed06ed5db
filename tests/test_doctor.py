"""The doctor: every illness is given to frames on purpose, and must be named; the healthy must be left alone."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from list_source import ListSource
from mask3d_core.doctor import environment, examine
from mask3d_core.doctor.alignment import best_shift, shift_scores
from mask3d_core.doctor.machine import PACKAGES
from mask3d_core.doctor.frame_statistics import empty_patch_share
from mask3d_core.frames import FrameOrigin, Intrinsics, RGBDFrame
from mask3d_core.prepare import PrepareConfig, prepare
from mask3d_core.sources.tum import TumSequence


class Scenes(ListSource):
    """Boxes before a wall: colour and depth share their edges. ``change`` makes a frame ill."""

    def __init__(self, count=12, sequences=4, change=lambda frame, index: frame, class_names=(), **options):
        super().__init__(count, sequences, height=120, width=160, **options)
        self.change, self.class_names = change, class_names
        self.labels = frozenset({"semantic"} if class_names else ())

    def read(self, index):
        super().read(index)
        generator = np.random.default_rng(index)
        depth = np.tile(np.linspace(2.8, 3.2, 160, dtype=np.float32), (120, 1)) + 0.001 * np.arange(120)[:, None]
        color = np.full((120, 160, 3), 60, np.uint8) + generator.integers(0, 3, (120, 160, 3), dtype=np.uint8)
        for _ in range(8):
            top, left = generator.integers(0, 100), generator.integers(0, 140)
            box = (slice(top, top + 18), slice(left, left + 18))
            depth[box] -= np.float32(generator.uniform(0.4, 1.5))
            color[box] = generator.integers(80, 255, 3)
        depth = np.maximum(depth, 0.5).astype(np.float32)
        frame = RGBDFrame(color, depth, np.ones(depth.shape, bool), Intrinsics(130.0, 130.0, 79.5, 59.5),
                          origin=FrameOrigin("scenes", self.sequence(index), self.frame_name(index)))
        return self.change(frame, index)


def finding(report, check):
    found = report.of(check)
    assert len(found) == 1, report.text()
    return found[0]


def changed(**parts):
    return lambda frame, index: dataclasses.replace(frame, **{k: v(frame) for k, v in parts.items()})


def test_healthy_frames_are_left_alone():
    report = examine(Scenes())
    assert report.severity == "ok", report.text()
    assert "Nothing to mend" in report.text() and json.loads(report.to_json())["severity"] == "ok"
    assert finding(report, "camera").numbers["field_of_view"] == pytest.approx(63.2, abs=0.1)
    assert finding(report, "alignment").numbers["shift_rows"] == 0


@pytest.mark.parametrize("factor, severity, words", [
    (1000, "error", "1000 units per metre"), (5, "warn", "5000 units per metre"), (1 / 5, "ok", ""),
    (1 / 8, "warn", "1000 units"), (1 / 1000, "error", "metres are read as millimetres")])
def test_wrong_units_are_named(factor, severity, words):
    report = examine(Scenes(change=changed(depth=lambda f: f.depth * np.float32(factor))))
    found = finding(report, "depth")
    assert found.severity == severity and words in found.text, found


def test_no_depth_at_all_and_in_some_frames():
    none = changed(is_valid=lambda f: np.zeros_like(f.is_valid))
    found = finding(examine(Scenes(change=none)), "depth")
    assert found.severity == "warn" and "RGB fine-tuning only" in found.text
    found = finding(examine(Scenes(change=lambda f, i: none(f, i) if i == 3 else f)), "depth")
    assert found.severity == "warn" and "frame0003" in found.text


def test_a_forgotten_marker_and_eight_bits_are_seen():
    def marker(frame):
        return np.where(np.indices(frame.depth.shape)[1] < 20, np.float32(6.5535), frame.depth)

    found = finding(examine(Scenes(change=changed(depth=marker))), "depth values")
    assert found.severity == "warn" and "missing values" in found.text
    coarse = changed(depth=lambda f: (np.rint(f.depth * 25) / 25).astype(np.float32))  # 10 m in 250 steps
    found = finding(examine(Scenes(change=coarse)), "depth values")
    assert found.severity == "warn" and "8 bits" in found.text


def test_holes_and_empty_patches():
    def half(frame):
        return (np.indices(frame.depth.shape)[1] >= 80) & (np.indices(frame.depth.shape)[0] % 2 == 0)

    found = finding(examine(Scenes(change=changed(is_valid=half))), "holes")
    assert found.severity == "warn" and found.numbers["missing_share"] == 0.75
    assert found.numbers["empty_patch_share"] == 0.5
    assert empty_patch_share(Scenes().read(0)) == 0


@pytest.mark.parametrize("shift", [(0, 9), (-7, 4)])
def test_misaligned_depth_is_measured(shift):
    def move(frame):
        return np.ascontiguousarray(np.roll(frame.depth, shift, (0, 1)))

    found = finding(examine(Scenes(change=changed(depth=move))), "alignment")
    assert found.severity == "warn" and (found.numbers["shift_rows"], found.numbers["shift_columns"]) == (
        -shift[0], -shift[1])
    scores = [shift_scores(Scenes(change=changed(depth=move)).read(i)) for i in range(4)]
    assert best_shift(scores)[:2] == (-shift[0], -shift[1])


def test_colour_without_any_relation_to_depth_is_not_called_misaligned():
    noise = changed(color=lambda f: np.random.default_rng(0).integers(0, 255, f.color.shape, dtype=np.uint8))
    assert finding(examine(Scenes(change=noise)), "alignment").severity == "ok"
    assert shift_scores(RGBDFrame(np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32),
                                  np.ones((120, 160), bool), Intrinsics(130.0, 130.0, 79.5, 59.5))) is None


@pytest.mark.parametrize("camera, severity, words", [
    (Intrinsics(525.0, 525.0, 319.5, 239.5), "error", "another resolution"),
    (Intrinsics(130.0, 130.0, 100.0, 59.5), "warn", "principal point"),
    (Intrinsics(500.0, 500.0, 79.5, 59.5), "warn", "field of view of 18")])
def test_intrinsics_that_do_not_fit(camera, severity, words):
    found = finding(examine(Scenes(change=changed(intrinsics=lambda f: camera))), "camera")
    assert found.severity == severity and words in found.text


def test_constant_and_black_frames():
    flat = lambda f, i: dataclasses.replace(f, color=np.full_like(f.color, 90)) if i == 2 else f  # noqa: E731
    dark = lambda f, i: dataclasses.replace(f, color=f.color // 40) if i == 5 else f  # noqa: E731
    for change, name in ((flat, "frame0002"), (dark, "frame0005")):
        found = finding(examine(Scenes(change=change)), "colour")
        assert found.severity == "warn" and name in found.text


def test_unreadable_frames_are_counted_and_named():
    found = finding(examine(Scenes(bad=(4,))), "reading")
    assert found.severity == "warn" and "frame0004.png" in found.text
    assert finding(examine(Scenes(bad=range(1, 9))), "reading").severity == "error"
    report = examine(Scenes(bad=range(12)))
    assert report.severity == "error" and not report.of("depth")


def test_labels_out_of_range_absent_and_ignored():
    def label(value):
        return changed(semantic=lambda f: np.where(f.depth < 2.5, value, 0).astype(np.uint8))

    names = ("wall", "box")
    assert finding(examine(Scenes(change=label(1), class_names=names)), "labels").severity == "ok"
    found = finding(examine(Scenes(change=label(7), class_names=names)), "labels")
    assert found.severity == "error" and "label ids 7" in found.text
    assert "never seen: box" in finding(examine(Scenes(change=label(0), class_names=names)), "labels").text
    ignored = changed(semantic=lambda f: np.full(f.depth.shape, 255, np.uint8))
    assert "ignored" in finding(examine(Scenes(change=ignored, class_names=names)), "labels").text
    assert "no labelled frame" in finding(examine(Scenes(class_names=names)), "labels").text
    assert not examine(Scenes()).of("labels")


def test_near_copies_across_splits(tmp_path):
    still = Scenes(40, 1)
    still.read, moving = (lambda read: lambda index: read(index // 20 * 20))(still.read), Scenes(40, 1)
    found = finding(examine(still), "copies")
    assert found.severity == "warn" and "near copies" in found.text and "widen the gap" in found.text
    report = examine(moving)
    assert finding(report, "copies").severity == "ok" and "record a second one" in finding(report, "splits").text
    store = prepare(still, tmp_path / "s", PrepareConfig(height=120, width=160), progress=False)
    assert finding(examine(store), "copies").numbers["near_copies"] > 0


def test_stores_tell_of_damage_and_of_what_was_left_out(tmp_path):
    prepare(Scenes(bad=(3,)), tmp_path / "s", PrepareConfig(height=96, width=128, max_bad_frames=1.0, max_depth=2.9),
            progress=False)
    report = examine(tmp_path / "s")
    assert finding(report, "checksums").severity == "ok" and "room1/frame0003" in finding(report, "left out").text
    assert "beyond the store's range" in finding(report, "range").text
    content = bytearray((tmp_path / "s/depth.u16").read_bytes())
    content[1000] ^= 1
    (tmp_path / "s/depth.u16").write_bytes(content)
    assert finding(examine(tmp_path / "s"), "checksums").severity == "error"
    assert "not compared" in finding(examine(tmp_path / "s", verify=False), "checksums").text
    (tmp_path / "s/header.json").unlink()
    report = examine(tmp_path / "s")
    assert report.severity == "error" and "still being prepared" in report.text()


def test_what_cannot_be_opened_is_one_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        report = examine(path)
        assert report.severity == "error" and len(report.findings) == 1
    assert examine(ListSource(0)).severity == "error"


def test_the_environment_has_one_line_per_missing_package(monkeypatch):
    real = importlib.util.find_spec
    names = {module for module, *_ in PACKAGES}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else real(name, *a))
    findings = environment()
    missing = [f for f in findings if f.check == "package"]
    assert len(missing) == len(PACKAGES) and all(f.severity == "warn" and "\n" not in f.text for f in missing)
    assert {"python", "torch", "device", "precision"} <= {f.check for f in findings}
    monkeypatch.setattr("mask3d_core.doctor.machine._is_there", lambda probe: False)
    assert any("apt-get install libx11-6" in f.text for f in environment()) or not any(
        f.check == "system" for f in environment())


@pytest.mark.parametrize("name, empty, holes, shift", [
    ("tum_fr1_rpy", 0.13, 0.23, (-3, 0)), ("mosd_learn", 0.31, 0.37, (3, -3)), ("icl_livingroom1", 0.01, 0.02, (0, 0))])
def test_real_recordings_are_healthy(shared_data, name, empty, holes, shift):
    """Shares as measured when the sets were staged; the alignment peaks lie within 4 px of the recorded ones."""
    report = examine(shared_data / name, sample=24)
    assert report.severity != "error" and not [f for f in report.findings if f.severity == "warn" and f.check not in
                                               ("splits", "source")], report.text()
    numbers = finding(report, "holes").numbers
    assert numbers["empty_patch_share"] == pytest.approx(empty, abs=0.03)
    assert numbers["missing_share"] == pytest.approx(holes, abs=0.03)
    numbers = finding(report, "alignment").numbers
    assert abs(numbers["shift_rows"] - shift[0]) <= 4 and abs(numbers["shift_columns"] - shift[1]) <= 4


def test_a_real_recording_with_the_wrong_scale(shared_data):
    report = examine(TumSequence(shared_data / "tum_fr1_rpy", depth_scale=1000.0), sample=6)
    found = finding(report, "depth")
    assert found.severity == "warn" and "should be 5000 units per metre" in found.text
    report = examine(TumSequence(shared_data / "tum_fr1_rpy", depth_scale=1.0), sample=6)
    assert finding(report, "depth").severity == "error"
