"""Open3D's desktop window and its off-screen renderer, each in a process of its own.

Closing the window, or a crash of the graphics driver, leaves the kernel alive. Clouds are handed over through a
temporary file that is gone when they are read. Where Open3D cannot work, the house's own splat draws the picture, and
``reason`` says in one line why. Open3D never loads into the kernel.
"""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mask3d_viz import style
from mask3d_viz.cameras import Camera, orbit_camera
from mask3d_viz.clouds import splat
from mask3d_viz.drawing import contact_sheet
from mask3d_viz.open3d_job import (Clouds, checked_clouds, command, ended_by, environment, failure, job_of, why_not,
                                   write_job)
from mask3d_viz.open3d_process import BOTH
from mask3d_viz.pixels import PictureError, to_png

START = 40.0  # seconds that a process may take to its first picture, on a slow machine without a graphics card
STILL_HEIGHT = 360  # pixels of the splat that stands in for a window


class Rendered(NamedTuple):
    """A picture, who drew it ("open3d" or "splat"), and why it was not Open3D ("" where it was).

    picture: uint8 (H, W, 3).
    """

    picture: np.ndarray
    drawn_by: str
    reason: str


def open_window(clouds: Clouds, *, title: str = "", camera: Camera | None = None, size: tuple[int, int] = (720, 1280),
                point_size: int = 3, theme: str = "dark") -> Open3DWindow:
    """Open Open3D's desktop window; returns at once, long before the window is there.

    Two clouds open side by side. Keys: 1 and 2 show one of them in the same place, 3 both again, the space bar swaps;
    H prints Open3D's own keys, Q closes.

    Args:
        clouds: one or two.
        title: of the window; the keys are added.
        camera: for a picture of ``size``; None: three-quarter, fitted to the points.
        size: (height, width) of the window, pixels.
        point_size: pixels.
        theme: "light" or "dark": the background.

    Returns:
        The window; ``wait_ready()`` says whether it came. It never raises because of the machine: ``reason`` says why.

    Raises:
        PictureError: clouds that are none.
    """
    clouds = checked_clouds(clouds)
    camera = camera or _fitted(clouds, size)
    window = Open3DWindow(clouds, camera, size, point_size, theme)
    window._start(title, why_not(needs_display=True))
    return window


def render_offscreen(clouds: Clouds, camera: Camera | None = None, size: tuple[int, int] = (480, 640), *,
                     point_size: int = 3, theme: str = "light", timeout: float = START) -> Rendered:
    """Open3D's picture of clouds without a window or a display, drawn in a process of its own.

    Args:
        clouds: drawn together, as one.
        camera: for a picture of ``size``; the same picture as :func:`mask3d_viz.clouds.splat`'s from there.
        size: (height, width).
        point_size: pixels.
        theme: "light" or "dark".
        timeout: seconds; then the process is ended and the splat draws.

    Returns:
        The picture, by Open3D or by the splat, and why.

    Raises:
        PictureError: clouds that are none.
    """
    clouds = checked_clouds(clouds)
    camera = camera or _fitted(clouds, size)
    reason = why_not(needs_display=False)
    if not reason:
        with tempfile.TemporaryDirectory(prefix="mask3d-open3d-") as folder:
            out = Path(folder) / "picture.npy"
            path = write_job(Path(folder), clouds, job_of(camera, size, point_size, theme) | {"out": str(out)})
            try:
                done = subprocess.run(command("offscreen", path), env=environment(needs_display=False), timeout=timeout,
                                      capture_output=True, stdin=subprocess.DEVNULL)
                if out.is_file():
                    return Rendered(np.load(out, allow_pickle=False), "open3d", "")
                reason = failure(done.stdout, done.returncode)
            except subprocess.TimeoutExpired:
                reason = f"Open3D drew nothing within {timeout:g} s"
    points, colors = (np.concatenate(part) for part in zip(*clouds.values()))
    ground = style.rgb(style.theme(theme)["ground"])
    return Rendered(splat(points, colors, camera, size, point_size=point_size, background=ground), "splat", reason)


class Open3DWindow:
    """One of Open3D's desktop windows, seen from the kernel. Made by :func:`open_window`.

    Attributes:
        reason: why it did not open, or how it ended badly, in one line; "" while all is well and after a normal end.
    """

    def __init__(self, clouds: dict, camera: Camera, size: tuple[int, int], point_size: int, theme: str):
        self._clouds, self._camera, self.size = clouds, camera, size
        self._point_size, self._theme = point_size, theme
        self.process: subprocess.Popen | None = None
        self.reason = ""
        self._folder: tempfile.TemporaryDirectory | None = None
        self._ready, self._ended = threading.Event(), threading.Event()
        self._is_closed = False
        self._answers: queue.Queue[dict] = queue.Queue()

    @property
    def keys(self) -> str:
        """What the keys do."""
        names = list(self._clouds)
        shown = [f"{k + 1} {name}" for k, name in enumerate(names)] + ([f"3 {BOTH}", "space swaps"] if len(names) > 1 else [])
        return " · ".join([*shown, "H all keys", "Q closes"])

    @property
    def is_open(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def _start(self, title: str, reason: str) -> None:
        if reason:
            return self._end(reason)
        self._folder = tempfile.TemporaryDirectory(prefix="mask3d-open3d-")
        job = job_of(self._camera, self.size, self._point_size, self._theme)
        job |= {"title": f"{title} · {self.keys}" if title else self.keys,
                "shown": BOTH if len(self._clouds) > 1 else next(iter(self._clouds))}
        path = write_job(Path(self._folder.name), self._clouds, job)
        self.process = subprocess.Popen(command("window", path), env=environment(needs_display=True), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._listen, name="mask3d-open3d", daemon=True).start()

    def _listen(self) -> None:
        """Take in what the process says until it ends; then clean up."""
        problem = ""
        for line in self.process.stdout:
            said = json.loads(line)
            problem = said.get("failed", problem)
            self._is_closed |= "closed" in said
            if "ready" in said:
                self._folder.cleanup()  # the clouds are in the window by now
                self._ready.set()
            elif "done" in said:
                self._answers.put(said)
        status = self.process.wait()
        self.process.stdout.close()
        if problem or not self._is_closed:
            problem = problem or ended_by(status)
        self._end(problem)

    def _end(self, reason: str) -> None:
        self.reason = reason
        if self._folder is not None:
            self._folder.cleanup()
        self._ended.set()
        self._ready.set()  # whoever waits for it waits no longer

    def wait_ready(self, timeout: float = START) -> str:
        """Until the first picture is in the window.

        Returns:
            "" when it is there; else why not, in one line.
        """
        if not self._ready.wait(timeout):
            self.close(wait=False)
            self.reason = f"Open3D opened no window within {timeout:g} s"
        return self.reason

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Until the window is closed and its process over; False when the time ran out."""
        return self._ended.wait(timeout)

    def show(self, name: str) -> None:
        """Show one cloud by name, or both "side by side"."""
        if name not in (*self._clouds, BOTH):
            raise PictureError(f"a cloud among {', '.join(self._clouds)}, or {BOTH!r}", repr(name), "Choose one of them.")
        self._order(do="show", name=name)

    def look(self, camera: Camera) -> None:
        """Stand where ``camera`` stands; its intrinsics are for a picture of ``size``."""
        self._camera = camera
        self._order(do="look", **job_of(camera, self.size, 1, self._theme))

    def picture(self) -> np.ndarray:
        """What the window shows, uint8 (height, width, 3)."""
        with tempfile.TemporaryDirectory(prefix="mask3d-open3d-") as folder:
            self._order(do="picture", path=str(Path(folder) / "picture.npy"))
            return np.load(Path(folder) / "picture.npy", allow_pickle=False)

    def close(self, wait: bool = True) -> None:
        """Close the window, if it is open; a process that does not listen is ended."""
        if not self.is_open:
            return
        try:
            self.process.stdin.close()  # the end of the orders
        except OSError:
            pass
        if not wait or not self._ended.wait(5):
            self.process.kill()
            self._ended.wait(5)
        self.reason = ""

    def _order(self, **order: Any) -> None:
        problem = self.wait_ready()
        if problem or not self.is_open:
            raise PictureError("an open window of Open3D", problem or "it was closed", "Open it again.")
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            end = time.monotonic() + START
            while time.monotonic() < end and not self._ended.is_set():
                try:
                    self._answers.get(timeout=0.2)
                    return
                except queue.Empty:
                    continue
        except OSError:
            self._ended.wait(5)
        raise PictureError("an answer of Open3D's window", self.reason or "none", "Open it again.")

    def still(self) -> np.ndarray:
        """The same clouds from the same camera, drawn by the splat: what stands in where no window can be."""
        height = STILL_HEIGHT
        scale, camera = height / self.size[0], self._camera
        size = height, round(self.size[1] * scale)
        small = Camera(camera.pose, camera.intrinsics.resized(scale, size[1] / self.size[1]))
        ground = style.rgb(style.theme(self._theme)["ground"])
        pictures = [splat(points, colors, small, size, point_size=2, background=ground, shading=0.6)
                    for points, colors in self._clouds.values()]
        return contact_sheet(pictures, list(self._clouds), len(pictures), theme=self._theme)

    def words(self) -> str:
        """How it stands, in one line."""
        if self.reason:
            return f"No Open3D window: {self.reason}. The splat's picture stands in."
        if self._ended.is_set():
            return "The Open3D window was closed."
        state = "is open" if self._ready.is_set() else "opens"
        return f"The Open3D window {state} (process {self.process.pid}): {self.keys}"

    def __repr__(self) -> str:
        return self.words()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """One line, and where there is no window the splat's picture."""
        found = {"text/plain": self.words()}
        if self.reason:
            found["image/png"] = base64.b64encode(to_png(self.still())).decode()
        return found


def _fitted(clouds: dict, size: tuple[int, int]) -> Camera:
    return orbit_camera(np.concatenate([points for points, _ in clouds.values()]), 28.0, 22.0, size)


__all__ = ["Open3DWindow", "Rendered", "open_window", "render_offscreen", "why_not"]
