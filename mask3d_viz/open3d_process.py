"""What runs in Open3D's own process: a desktop window that takes orders, or one off-screen picture.

    python -m mask3d_viz.open3d_process window|offscreen JOB.npz

Orders come as JSON lines on the standard input, answers go as JSON lines to the standard output; when the input ends
(the kernel is gone) the window closes. Only numpy and Open3D are imported: a crash of the graphics driver ends this
process alone. See :mod:`mask3d_viz.open3d_view` for the other end.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import sys
import tempfile
import threading
import time

import numpy as np

BOTH = "side by side"
SPACE, Q = 32, 81  # keys as GLFW counts them
FRAME = 1 / 60  # seconds between two looks at the mouse


def main(arguments: list[str]) -> int:
    """Draw the job; returns the exit status."""
    kind, path = arguments
    answers = _own_output()
    with np.load(path, allow_pickle=False) as found:
        job = json.loads(str(found["job"]))
        clouds = {name: (found[f"points_{i}"], found[f"colors_{i}"]) for i, name in enumerate(job["names"])}
    try:
        import open3d
    except (ImportError, OSError) as problem:
        return _say(answers, failed=f"Open3D does not load ({_one_line(problem)})") or 3
    try:
        (show_window if kind == "window" else draw_offscreen)(open3d, job, clouds, answers)
    except Exception as problem:
        return _say(answers, failed=f"Open3D cannot draw here ({_one_line(problem)})") or 3
    return 0


def _own_output():
    """A stream of ours for answers; what the graphics libraries print goes to the standard error."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


def _say(answers, **words) -> None:
    answers.write(json.dumps(words) + "\n")
    answers.flush()


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:200] or type(problem).__name__


def _create(window, open3d, title: str, size: tuple[int, int], is_visible: bool) -> None:
    """Make a window, hidden or not.

    Where no screen answers Open3D 0.20 and later draw into memory instead (EGL) and say so in passing: fine for a hidden
    window, no window at all for a reader.
    """
    level = open3d.utility.VerbosityLevel
    open3d.utility.set_verbosity_level(level.Info)
    is_made, said = _overheard(lambda: window.create_window(title, size[1], size[0], 60, 60, visible=is_visible))
    open3d.utility.set_verbosity_level(level.Error)
    if is_visible and "offscreen" in said:
        raise RuntimeError(f"no screen answers, DISPLAY is {os.environ.get('DISPLAY', '')!r}")
    if not is_made:
        raise RuntimeError("no OpenGL window could be made")


def _overheard(work) -> tuple:
    """What ``work()`` returns, and what it and the libraries under it printed."""
    with tempfile.TemporaryFile() as heard:
        kept = [os.dup(number) for number in (1, 2)]
        sys.stdout.flush()
        for number in (1, 2):
            os.dup2(heard.fileno(), number)
        try:
            result = work()
        finally:
            sys.stdout.flush()
            if os.name == "posix":
                ctypes.CDLL(None).fflush(None)  # C has a buffer of its own
            for number, old in zip((1, 2), kept):
                os.dup2(old, number)
                os.close(old)
        heard.seek(0)
        return result, heard.read().decode(errors="replace")


def _pinhole(open3d, pose: np.ndarray, focal: float, size: tuple[int, int]):
    """A camera that looks through the middle of the picture: Open3D's windows have no other."""
    camera = open3d.camera.PinholeCameraParameters()
    height, width = size
    camera.intrinsic = open3d.camera.PinholeCameraIntrinsic(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)
    camera.extrinsic = np.linalg.inv(pose)
    return camera


def _as_bytes(picture) -> np.ndarray:
    return np.rint(np.asarray(picture) * 255).astype(np.uint8)


def _geometry(open3d, points: np.ndarray, colors: np.ndarray):
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = open3d.utility.Vector3dVector(colors / 255.0)
    return cloud


def side_by_side(clouds: dict, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Two clouds beside each other across the line of sight.

    Args:
        clouds: name to (points (n, 3), colours uint8 (n, 3)).
        pose: camera-to-world (4, 4).

    Returns:
        points, colours, and by how many metres the camera must step back to see both.
    """
    everything = np.concatenate([points for points, _ in clouds.values()])
    local = (everything - pose[:3, 3]) @ pose[:3, :3]
    low, high = np.percentile(local[:, 0], (1, 99)) if len(local) else (0.0, 1.0)
    middle = float(np.median(local[:, 2])) if len(local) else 1.0
    apart = 1.08 * (high - low) * pose[:3, 0]
    shifts = [(k - (len(clouds) - 1) / 2) * apart for k in range(len(clouds))]
    moved = [points + shift for (points, _), shift in zip(clouds.values(), shifts)]
    return np.concatenate(moved), np.concatenate([c for _, c in clouds.values()]), (1.0 * middle if len(clouds) > 1 else 0.0)


class Window:
    """Open3D's desktop window with the clouds of a job, one at a time or side by side."""

    def __init__(self, open3d, job: dict, clouds: dict):
        self.open3d, self.names = open3d, list(clouds)
        self.height, self.width = job["size"]
        pose = np.array(job["pose"])
        points, colors, self.back = side_by_side(clouds, pose)
        self.geometries = {name: _geometry(open3d, *cloud) for name, cloud in clouds.items()}
        self.geometries[BOTH] = _geometry(open3d, points, colors)
        self.window = open3d.visualization.VisualizerWithKeyCallback()
        _create(self.window, open3d, job["title"], (self.height, self.width), is_visible=True)
        options = self.window.get_render_option()
        options.background_color, options.point_size = np.array(job["background"]) / 255.0, job["point_size"]
        options.light_on = False
        self.shown = BOTH
        self.window.add_geometry(self.geometries[BOTH])  # its box sets how near and far is drawn
        self.look(pose, job["intrinsics"])
        self.show(BOTH if len(clouds) > 1 else self.names[0], job["shown"] == BOTH)
        if job["shown"] != BOTH:
            self.show(job["shown"])
        for number, name in enumerate([*self.names, BOTH] if len(clouds) > 1 else self.names):
            self.window.register_key_callback(ord("1") + number, lambda _, name=name: self.show(name))
        self.window.register_key_callback(SPACE, lambda _: self.swap())

    def look(self, pose: np.ndarray, intrinsics: list[float]) -> None:
        """Stand at ``pose`` (camera-to-world); fx fy cx cy are those of a picture of the window's size."""
        camera = _pinhole(self.open3d, pose, (intrinsics[0] * intrinsics[1]) ** 0.5, (self.height, self.width))
        self.window.get_view_control().convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)

    def _step_back(self, metres: float) -> None:
        control = self.window.get_view_control()
        camera = control.convert_to_pinhole_camera_parameters()
        pose = np.linalg.inv(camera.extrinsic)
        pose[:3, 3] -= metres * pose[:3, 2]
        camera.extrinsic = np.linalg.inv(pose)
        control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)

    def show(self, name: str, is_first: bool = False) -> bool:
        """Show one cloud, or both beside each other; the eye stays where it is, further away for both."""
        if name != self.shown or is_first:
            if BOTH in (name, self.shown):
                self._step_back(self.back if name == BOTH else (-self.back if not is_first else 0.0))
            self.window.clear_geometries()
            self.window.add_geometry(self.geometries[name], reset_bounding_box=False)
            self.shown = name
        return False

    def swap(self) -> bool:
        """The other cloud, in the same place."""
        later = self.names.index(self.shown) + 1 if self.shown in self.names else 0
        return self.show(self.names[later % len(self.names)])

    def picture(self) -> np.ndarray:
        """What the window shows, uint8 (H, W, 3)."""
        return _as_bytes(self.window.capture_screen_float_buffer(do_render=True))

    def obey(self, order: dict) -> dict:
        """Do what the kernel asks; returns the answer."""
        if order["do"] == "show":
            self.show(order["name"])
        elif order["do"] == "look":
            self.look(np.array(order["pose"]), order["intrinsics"])
        elif order["do"] == "swap":
            self.swap()
        elif order["do"] == "picture":
            np.save(order["path"], self.picture())
        return {"done": order["do"], "shown": self.shown}


def show_window(open3d, job: dict, clouds: dict, answers) -> None:
    """Open the window and stay until it is closed, by its user, by an order, or by the end of the kernel."""
    orders: queue.Queue = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        orders.put({"do": "close"})

    threading.Thread(target=listen, daemon=True).start()
    window = Window(open3d, job, clouds)
    is_said = False
    while window.window.poll_events():
        window.window.update_renderer()
        if not is_said:
            _say(answers, ready=True)
            is_said = True
        try:
            while (order := orders.get_nowait())["do"] != "close":
                _say(answers, **window.obey(order))
            break
        except queue.Empty:
            time.sleep(FRAME)
    window.window.destroy_window()
    _say(answers, closed=True)


def draw_offscreen(open3d, job: dict, clouds: dict, answers) -> None:
    """One picture without a window: every cloud of the job as one, from its camera, unlit.

    A hidden window draws it, in memory where there is no screen; where none can be made the renderer of Open3D's newer
    half tries, which wants a Vulkan driver and ends the process without one.
    """
    try:
        picture = _by_hidden_window(open3d, job, clouds)
    except RuntimeError:
        picture = _by_renderer(open3d, job, clouds)
    np.save(job["out"], picture)
    _say(answers, ready=True)
    answers.close()
    os._exit(0)  # the renderer's own end crashes in some releases


def _by_hidden_window(open3d, job: dict, clouds: dict) -> np.ndarray:
    """uint8 (H, W, 3). The picture is made larger on one side, so that the principal point is its middle, and cut."""
    (height, width), (fx, fy, cx, cy) = job["size"], job["intrinsics"]
    left, top = (int(max(0, round(length - 1 - 2 * at))) for length, at in ((width, cx), (height, cy)))
    right, below = (int(max(0, round(2 * at + 1 - length))) for length, at in ((width, cx), (height, cy)))
    size = height + top + below, width + left + right
    window = open3d.visualization.Visualizer()
    _create(window, open3d, "", size, is_visible=False)
    options = window.get_render_option()
    options.background_color, options.point_size = np.array(job["background"]) / 255.0, job["point_size"]
    options.light_on = False
    points, colors = (np.concatenate(part) for part in zip(*clouds.values()))
    if len(points):
        window.add_geometry(_geometry(open3d, points, colors))
    camera = _pinhole(open3d, np.array(job["pose"]), (fx * fy) ** 0.5, size)
    window.get_view_control().convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)
    window.poll_events()
    window.update_renderer()
    picture = _as_bytes(window.capture_screen_float_buffer(do_render=True))
    if picture.shape != (*size, 3):
        raise RuntimeError(f"a picture of {picture.shape} instead of {size}")
    return picture[top:top + height, left:left + width]


def _by_renderer(open3d, job: dict, clouds: dict) -> np.ndarray:
    """uint8 (H, W, 3) by ``OffscreenRenderer``."""
    rendering = open3d.visualization.rendering
    height, width = job["size"]
    renderer = rendering.OffscreenRenderer(width, height)
    material = rendering.MaterialRecord()
    material.shader, material.point_size = "defaultUnlit", float(job["point_size"])
    ground = np.array(job["background"]) / 255.0
    ground = np.where(ground <= 0.0031308, 12.92 * ground, 1.055 * ground ** (1 / 2.4) - 0.055)  # it is taken for linear
    renderer.scene.set_background([*ground, 1.0])
    renderer.scene.view.set_post_processing(False)  # else tone mapping changes the colours
    for name, cloud in clouds.items():
        if len(cloud[0]):
            renderer.scene.add_geometry(name, _geometry(open3d, *cloud), material)
    fx, fy, cx, cy = job["intrinsics"]
    matrix = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])  # its pixels' corners lie on integers, our centres do
    renderer.setup_camera(matrix, np.linalg.inv(np.array(job["pose"])), width, height)
    return np.asarray(renderer.render_to_image())[..., :3]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
