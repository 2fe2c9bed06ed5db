"""Open3D in a process of its own: what happens where it is missing, crashes, hangs or is killed; and, where it works, that
its window and its off-screen pictures show the points where the splat shows them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mask3d_core.frames import Intrinsics
from mask3d_viz import open3d_job, open3d_view, style
from mask3d_viz.cameras import look_at, orbit_camera
from mask3d_viz.clouds import Camera, splat
from mask3d_viz.open3d_job import why_not
from mask3d_viz.open3d_process import BOTH, side_by_side
from mask3d_viz.open3d_view import open_window, render_offscreen
from mask3d_viz.pixels import PictureError

SIZE = (240, 320)


def slanted_board(count=6000, seed=0):
    """A slanted board with a hole in one quarter, each point with a colour of its own."""
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(-1, 1, count), generator.uniform(-0.7, 0.7, count)
    keep = (x < 0.2) | (y < 0.1)
    points = np.stack([x, y, 3 + 0.5 * x], 1)[keep].astype(np.float32)
    return points, np.stack([60 + 100 * (x + 1), 60 + 90 * (y + 1), np.full(count, 128)], 1)[keep].astype(np.uint8)


TRUTH = slanted_board()
PAIR = {"truth": TRUTH, "prediction": (TRUTH[0] * np.float32(1.1), 255 - TRUTH[1])}
CAMERA = orbit_camera(TRUTH[0], 28, 22, SIZE, zoom=0.7)


def overlap(picture, other, theme):
    """Share of the pixels with a point in either picture that have one in both, and how far colours differ there."""
    ground = np.array(style.rgb(style.theme(theme)["ground"]))
    is_there = [np.abs(image.astype(int) - ground).sum(2) > 30 for image in (picture, other)]
    both = is_there[0] & is_there[1]
    return both.sum() / (is_there[0] | is_there[1]).sum(), np.abs(picture[both].astype(int) - other[both]).mean()


def house_picture(cloud, camera=CAMERA, theme="dark", point_size=3):
    return splat(*cloud, camera, SIZE, point_size=point_size, background=style.rgb(style.theme(theme)["ground"]))


# ---- anywhere

def test_what_is_no_cloud_is_said():
    for clouds, message in (({}, "one or two clouds"), ({"a": (TRUTH[0][:, :2], TRUTH[1])}, r"points \(n, 3\)"),
                            ({"a": (TRUTH[0], TRUTH[1] / 255)}, "uint8"), ({BOTH: TRUTH}, "none called"),
                            ({"a": (TRUTH[0] * np.float32(np.nan), TRUTH[1])}, "finite")):
        with pytest.raises(PictureError, match=message):
            open_window(clouds)
        with pytest.raises(PictureError, match=message):
            render_offscreen(clouds)


def test_without_open3d_the_splat_draws_and_says_why(monkeypatch):
    monkeypatch.setattr(open3d_job, "find_spec", lambda name: None)
    made = render_offscreen({"truth": TRUTH}, CAMERA, SIZE)
    assert made.drawn_by == "splat" and made.reason == "Open3D is not installed (pip install 'mask3d-lab[lab]')"
    np.testing.assert_array_equal(made.picture, house_picture(TRUTH, theme="light"))
    window = open_window(PAIR, camera=CAMERA, size=SIZE)
    assert not window.is_open and window.wait_ready() == made.reason and window.wait_closed(0)
    data = window._repr_mimebundle_()
    assert data["text/plain"] == f"No Open3D window: {made.reason}. The splat's picture stands in."
    assert data["image/png"] and window.still().shape[0] > 360
    with pytest.raises(PictureError, match="not installed"):
        window.show("truth")


def test_without_a_screen_no_window_is_tried(monkeypatch):
    monkeypatch.setattr(open3d_job, "find_spec", lambda name: True)
    monkeypatch.setattr(open3d_job.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "no screen" in why_not(needs_display=True) and why_not(needs_display=False) == ""
    window = open_window(PAIR)
    assert window.process is None and "no screen" in window.reason
    monkeypatch.setenv("DISPLAY", ":7")
    assert why_not(needs_display=True) == ""


def acting(monkeypatch, script):
    """Another process in Open3D's place."""
    monkeypatch.setattr(open3d_view, "why_not", lambda needs_display: "")
    monkeypatch.setattr(open3d_view, "command", lambda kind, job: [sys.executable, "-c", script, str(job)])


@pytest.mark.parametrize("script, reason", [
    ("import os; os.abort()", "signal 6"), ("raise SystemExit(5)", "exit status 5"),
    ("print('{\"failed\": \"Open3D cannot draw here (no driver)\"}'); raise SystemExit(3)", "no driver"),
    ("import time; time.sleep(60)", "within 1 s")])
def test_a_process_that_crashes_or_hangs_harms_nobody(monkeypatch, script, reason):
    acting(monkeypatch, script)
    made = render_offscreen({"truth": TRUTH}, CAMERA, SIZE, timeout=1 if "sleep" in script else 60)
    assert made.drawn_by == "splat" and reason in made.reason and "\n" not in made.reason
    window = open_window(PAIR, size=SIZE)
    assert reason in window.wait_ready(1 if "sleep" in script else 60)
    assert not window.is_open and reason in window.reason and reason in repr(window)


LIVING = """
import json, os, sys
job = sys.argv[1]
assert os.path.exists(job)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps({"done": order["do"], "is_there": os.path.exists(job)}), flush=True)
print(json.dumps({"closed": True}), flush=True)
"""


def test_a_window_that_is_killed_is_noticed_and_one_that_is_closed_is_no_fault(monkeypatch):
    acting(monkeypatch, LIVING)
    window = open_window(PAIR, title="frame 3", size=SIZE)
    assert window.wait_ready() == "" and window.is_open and "1 truth · 2 prediction · 3 side by side" in repr(window)
    folder = Path(window._folder.name)
    window.show("prediction")
    assert not folder.exists(), "what was handed over is gone once it is read"
    with pytest.raises(PictureError, match="a cloud among truth, prediction"):
        window.show("error")
    window.process.send_signal(signal.SIGKILL)
    assert window.wait_closed(20) and "signal 9" in window.reason and "splat" in repr(window)
    with pytest.raises(PictureError, match="signal 9"):
        window.show("truth")
    window = open_window(PAIR, size=SIZE)
    window.wait_ready()
    window.close()
    assert not window.is_open and window.reason == "" and repr(window) == "The Open3D window was closed."
    assert "image/png" not in window._repr_mimebundle_()
    window.close()


def test_nothing_is_left_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    acting(monkeypatch, "import os; os.abort()")
    render_offscreen({"truth": TRUTH}, CAMERA, SIZE)
    assert open_window(PAIR).wait_closed(20)
    assert list(tmp_path.iterdir()) == []


def test_side_by_side_keeps_both_clouds_apart_and_level():
    camera = Camera(look_at((0.3, -0.2, 0.0), (0, 0, 3)), CAMERA.intrinsics)
    points, colors, back = side_by_side(PAIR, camera.pose)
    count = len(TRUTH[0])
    moved = points[:count] - TRUTH[0]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-5)
    across = points @ camera.pose[:3, 0]
    assert np.percentile(across[:count], 98) < np.percentile(across[count:], 2) and back > 0
    np.testing.assert_allclose((points[:count] - TRUTH[0]) @ camera.pose[:3, 2], 0, atol=1e-5)
    np.testing.assert_array_equal(colors, np.concatenate([TRUTH[1], 255 - TRUTH[1]]))


def test_open3d_never_loads_into_this_process():
    render_offscreen({"truth": TRUTH}, CAMERA, SIZE, timeout=0.01)
    assert "open3d" not in sys.modules


# ---- where Open3D and a screen are

@pytest.fixture(scope="module")
def screen():
    """A display of our own."""
    if find_spec("open3d") is None:
        pytest.skip("Open3D is not installed (pip install open3d-cpu)")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
                              pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as number:
        name = f":{number.readline().strip()}"
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = name
    try:
        yield name
    finally:
        os.environ.pop("DISPLAY")
        if before is not None:
            os.environ["DISPLAY"] = before
        server.terminate()
        server.wait(10)


def titles_on(screen):
    return subprocess.run(["xwininfo", "-root", "-tree", "-display", screen], capture_output=True, text=True).stdout


def test_the_window_opens_shows_what_the_splat_shows_and_closes(screen):
    window = open_window(PAIR, title="frame 3", camera=CAMERA, size=SIZE)
    assert window.wait_ready() == "" and window.is_open
    if shutil.which("xwininfo"):
        assert "frame 3" in titles_on(screen)
    both = window.picture()
    assert both.shape == (*SIZE, 3)
    middle = SIZE[1] // 2
    ground = np.array(style.rgb(style.theme("dark")["ground"]))
    halves = [np.abs(half.astype(int) - ground).sum(2) > 30 for half in (both[:, :middle], both[:, middle:])]
    assert all(half.mean() > 0.05 for half in halves) and not halves[0][:, -2:].any(), "both, with a gap between"
    for name in ("truth", "prediction", "truth"):
        window.show(name)
        share, apart = overlap(window.picture(), house_picture(PAIR[name]), "dark")
        assert share > 0.95 and apart < 3, (name, share, apart)
    aside = orbit_camera(TRUTH[0], -40, 5, SIZE, zoom=0.6)
    assert overlap(window.picture(), house_picture(TRUTH, aside), "dark")[0] < 0.8
    window.look(aside)
    assert overlap(window.picture(), house_picture(TRUTH, aside), "dark")[0] > 0.95
    window.close()
    assert window.process.returncode == 0 and window.reason == ""
    if shutil.which("xwininfo"):
        assert "frame 3" not in titles_on(screen)


def test_a_killed_window_leaves_us_alive(screen):
    window = open_window({"truth": TRUTH}, size=SIZE)
    assert window.wait_ready() == ""
    window.process.kill()
    assert window.wait_closed(20) and "signal 9" in window.reason and not window.is_open


def test_a_screen_that_does_not_answer_is_no_window(screen, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    window = open_window({"truth": TRUTH}, size=SIZE)
    assert "no screen answers, DISPLAY is ':4711'" in window.wait_ready() and not window.is_open


def test_an_offscreen_picture_agrees_with_the_splat():
    if find_spec("open3d") is None:
        pytest.skip("Open3D is not installed (pip install open3d-cpu)")
    made = render_offscreen({"truth": TRUTH}, CAMERA, SIZE, point_size=4)
    if made.drawn_by == "splat":
        pytest.skip(f"Open3D draws nothing off-screen here: {made.reason}")
    assert made.picture.shape == (*SIZE, 3) and made.picture.dtype == np.uint8 and made.reason == ""
    np.testing.assert_allclose(made.picture[0, 0], style.rgb(style.theme("light")["ground"]), atol=2)
    expected = house_picture(TRUTH, theme="light", point_size=4)
    best, apart = overlap(made.picture, expected, "light")
    assert best > 0.75 and apart < 14  # a renderer may draw discs with soft borders
    for step in ((0, 2), (0, -2), (2, 0), (-2, 0)):
        assert overlap(np.roll(made.picture, step, (0, 1)), expected, "light")[0] < best
    k = CAMERA.intrinsics
    aside = Camera(CAMERA.pose, Intrinsics(k.fx, k.fy, k.cx - 40, k.cy + 30))  # looks past the picture's middle
    made = render_offscreen(PAIR, aside, SIZE, point_size=4)
    together = tuple(np.concatenate(part) for part in zip(*PAIR.values()))
    assert overlap(made.picture, house_picture(together, aside, "light", 4), "light")[0] > 0.75
