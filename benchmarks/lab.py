"""From the hand on a slider to pixels on the screen, in a real JupyterLab; k3d and plotly beside our explorers.

    python -m benchmarks.lab [--quick] [--packages FOLDER] [--out results/lab_cpu.json]

JupyterLab, a kernel and headless Chromium run as they do for a person without a GPU: pages are composited in software and
WebGL alone is drawn by SwiftShader. (With ``--use-gl=angle --use-angle=swiftshader`` whole pages go through SwiftShader,
which nobody's browser does of itself: the same code was then two to three times as slow from the hand to the prediction, so times
with and without these flags must not be compared.) An input event
moves the slider that hides depth patches; from then on, at the beginning of every frame until they rest, each canvas is
read that was drawn on since, a cloud's once its drawing is finished (a WebGL fence, so that the page need not wait for it;
plotly's WebGL 1 has none). So a time ends when the frame *after* the drawing begins, which is when a screen would show
it; what reading costs is in the record ("detection_ms"). A cloud counts as there at its *last* change, in both panes.

Two sessions: the shipped model with 76,800 points a pane, and one of the same size with patches twice as large, untrained,
with 307,200. Whoever is measured takes turns, each with a session of its own whose masks nothing has seen before. k3d and
plotly get the same prediction by the same worker and the same arrays as our clouds; k3d is no dependency: install it
where the kernel finds it (``pip install --target FOLDER k3d`` and ``--packages FOLDER``, or into the environment).
While training runs: beside one ``mask3d pretrain`` as the lab starts it, niced.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {76_800: (240, 320), 307_200: (480, 640)}  # points a pane: (height, width)
OURS = ("explore", "explore_masks", "explore_depth", "explore_attention")
YARDSTICKS = ("k3d", "plotly")
STEP = 7  # patches that one move hides
AIMS = {"mask": 100.0, "prediction": 100.0, "cloud": 150.0}  # ms from the hand to the picture and to the cloud
FLAGS = ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader"]
WATCHED = {  # by whom: what is seen to the title of our picture, or to "" for everything drawn by WebGL
    "explore": {"mask": "Depth seen", "prediction": "Prediction", "cloud": ""},
    "explore_masks": {"mask": "Depth seen", "prediction": "Prediction"},
    "explore_depth": {"cloud": ""}, "explore_attention": {"mask": "Depth seen: influence"},
    "k3d": {"cloud": ""}, "plotly": {"cloud": ""}}

PAGE = """(() => {
  const get = HTMLCanvasElement.prototype.getContext; // what was drawn stays readable, for us as for the others
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    const isWebGL = String(kind).startsWith("webgl");
    const made = get.call(this, kind, isWebGL ? { ...options, preserveDrawingBuffer: true } : options);
    if (isWebGL && made && !this.drawnBy) {
      this.drawnBy = made;
      count(made, "drawArrays", "drawElements", "drawArraysInstanced", "drawElementsInstanced", "clear");
    }
    return made;
  };
  function count(context, ...names) { // how often a canvas was drawn on
    for (const name of names.filter((one) => context[one])) {
      const draw = context[name];
      context[name] = function (...given) {
        this.canvas.drawings = (this.canvas.drawings ?? 0) + 1;
        return draw.apply(this, given);
      };
    }
  }
  count(CanvasRenderingContext2D.prototype, "drawImage", "fillRect", "putImageData");
  for (const name of ["setPointerCapture", "releasePointerCapture"]) { // no real pointer stands behind our events
    const known = Element.prototype[name];
    Element.prototype[name] = function (id) { try { known.call(this, id); } catch { /* as above */ } };
  }
  const OUTPUT = ".jp-OutputArea-output";
  const mixed = (bytes, start) => {
    const words = new Uint32Array(bytes.buffer);
    let number = start;
    for (let i = 0; i < words.length; i++) number = Math.imul(number ^ words[i], 16777619);
    return number;
  };
  function look(canvas, start = 1) { // one number for what is drawn: a picture whole, of a cloud five bands of two rows
    const { width, height, drawnBy: gl } = canvas;
    if (!width || !height) return start;
    if (!gl) return mixed(canvas.getContext("2d").getImageData(0, 0, width, height).data, start);
    const bound = gl.getParameter(gl.FRAMEBUFFER_BINDING), band = new Uint8Array(8 * width);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    for (const share of [0.3, 0.4, 0.5, 0.6, 0.7]) {
      gl.readPixels(0, Math.floor(share * height), width, 2, gl.RGBA, gl.UNSIGNED_BYTE, band);
      start = mixed(band, start);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, bound);
    return start;
  }
  const all = (canvases) => canvases.reduce((number, canvas) => look(canvas, number), 1);
  function isNew(canvas) { // drawn on since the last look, and finished
    const gl = canvas.drawnBy;
    if (canvas.fence) {
      if (gl.getSyncParameter(canvas.fence, gl.SYNC_STATUS) !== gl.SIGNALED) return false;
      gl.deleteSync(canvas.fence);
      canvas.fence = null;
      return true;
    }
    if (canvas.looked === canvas.drawings) return false;
    canvas.looked = canvas.drawings;
    if (!gl?.fenceSync) return true;
    canvas.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return false;
  }
  function find(title) {
    const titled = (root) => root.querySelector(".pi-title")?.textContent === title;
    if (title) return [...document.querySelectorAll(`${OUTPUT} .patch-image`)].filter(titled).map(
      (root) => root.querySelector(".pi-stage canvas"));
    return [...document.querySelectorAll(`${OUTPUT} canvas`)].filter((canvas) => canvas.drawnBy && canvas.clientWidth);
  }
  const frames = (see) => new Promise((resolve) => { // see() at the beginning of each frame until it returns something
    const next = () => requestAnimationFrame(() => {
      const found = see();
      if (found === undefined) next(); else resolve(found);
    });
    next();
  });
  const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

  // Until everything is there and has not changed for `quiet` ms; how many frames a second pass then, and what looking costs.
  async function rest(places, quiet, patience) {
    const began = performance.now();
    let since = began, before = null;
    const isThere = await frames(() => {
      const now = performance.now(), found = Object.values(places).map(find);
      const number = found.every((some) => some.length) ? found.map(all).join() : null;
      if (number !== before || number === null) [before, since] = [number, now];
      if (number !== null && now - since > quiet) return true;
      return now - began > patience ? false : undefined;
    });
    const costs = [], start = performance.now();
    await frames(() => {
      const now = performance.now();
      Object.values(places).map(find).forEach(all);
      costs.push(performance.now() - now);
      return costs.length < 20 ? undefined : true;
    });
    return { isThere, cost: median(costs), pace: 20000 / (performance.now() - start), appeared: since - began };
  }

  // One move of the slider; when each place changed first and last, in ms from the event.
  async function slide({ places, value, quiet, patience }) {
    const canvases = Object.fromEntries(Object.entries(places).map(([name, title]) => [name, find(title)]));
    const seen = new Map(Object.values(canvases).flat().map((canvas) => [canvas, look(canvas)]));
    for (const canvas of seen.keys()) Object.assign(canvas, { looked: canvas.drawings, fence: null });
    const first = {}, last = {}, clouds = [...seen.keys()].filter((canvas) => canvas.drawnBy);
    const drawings = () => clouds.reduce((sum, canvas) => sum + canvas.drawings, 0), drawn = drawings();
    await new Promise((resolve) => setTimeout(resolve, 17 * Math.random())); // a hand does not wait for a frame
    const own = [...document.querySelectorAll(`${OUTPUT} .patch-image`)].find(
      (root) => root.querySelector(".pi-title")?.textContent === "Depth seen")?.querySelector(".pi-ratio input");
    const handle = document.querySelector(`${OUTPUT} .lab-slider .noUi-handle`);
    const start = performance.now();
    if (handle) handle.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true }));
    else {
      own.value = String(value);
      own.dispatchEvent(new Event("input", { bubbles: true }));
    }
    await frames(() => {
      for (const [name, some] of Object.entries(canvases)) {
        for (const canvas of some.filter(isNew)) {
          const number = look(canvas), now = performance.now() - start;
          if (number === seen.get(canvas)) continue;
          seen.set(canvas, number);
          first[name] ??= now;
          last[name] = now;
        }
      }
      const now = performance.now() - start, times = Object.values(last), newest = Math.max(0, ...times);
      const isDone = times.length === Object.keys(canvases).length && now - newest > quiet + newest / 2;
      return isDone || now > patience ? true : undefined;
    });
    return { start: performance.timeOrigin + start, first, last, calls: drawings() - drawn };
  }

  // Turn a cloud by hand: a small step at the beginning of each frame; how many different pictures came in a second.
  async function turn({ lasting, patience }) {
    const canvas = find("")[0], box = canvas.getBoundingClientRect(), some = find("");
    let [x, y] = [box.left + box.width / 4, box.top + box.height / 2];
    const target = document.elementFromPoint(x, y) ?? canvas;
    const send = (what, buttons) => {
      const where = { clientX: x, clientY: y, screenX: x, screenY: y, bubbles: true, cancelable: true, composed: true,
                      view: window };
      const said = { ...where, button: what === "move" ? -1 : 0, buttons, pointerId: 1, isPrimary: true, pointerType: "mouse" };
      target.dispatchEvent(new PointerEvent(`pointer${what}`, said));
      target.dispatchEvent(new MouseEvent(`mouse${what}`, { ...where, button: 0, buttons }));
    };
    send("down", 1);
    let before = all(some), pictures = 0, steps = 0;
    const start = performance.now();
    await frames(() => {
      const number = all(some);
      if (number !== before) [before, pictures] = [number, pictures + 1];
      const now = performance.now() - start;
      if ((now > lasting && pictures > 3) || now > patience) return true;
      x += steps % 60 < 30 ? 5 : -5;
      steps += 1;
      send("move", 1);
      return undefined;
    });
    const seconds = (performance.now() - start) / 1000;
    send("up", 0);
    return { rate: pictures / seconds, pictures, steps, seconds };
  }
  window.labBench = { rest, slide, turn };
})();"""

READY = """() => { const widget = window.jupyterapp?.shell.currentWidget, session = widget?.sessionContext?.session;
return session?.kernel?.status === 'idle' && session.kernel.connectionStatus === 'connected'; }"""
RUN = """async (code) => { const notebook = window.jupyterapp.shell.currentWidget.content;
notebook.activeCellIndex = 0;
notebook.activeCell.model.sharedModel.setSource(code);
await window.jupyterapp.commands.execute('notebook:run-cell');
const wrong = document.querySelector('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
  ?? document.querySelector('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]');
return wrong ? wrong.textContent.trim().split('\\n').pop() : ''; }"""


# ---- in the kernel --------------------------------------------------------------------------------------------------


class Stage:
    """Who is measured, one after the other, in the notebook's kernel; and where the kernel's time goes.

    Args:
        folder: the record of each turn is written there.
    """

    def __init__(self, folder: str):
        import ipywidgets
        import torch

        from mask3d_core.models.mask3d import Mask3D
        from mask3d_core.sources import open_source
        from mask3d_core.training.checkpoint import load_model
        from mask3d_viz import lab
        from mask3d_viz.explorers import depth, studio
        from mask3d_viz.predictions import Predictions
        from mask3d_viz.session import Session
        from mask3d_viz.widgets.point_cloud import PointCloud

        self.folder, self.events, self.view = Path(folder), [], None
        (self.folder / "kernel.json").write_text(json.dumps({"threads": torch.get_num_threads()}))
        shipped = load_model(lab.SHIPPED)[0]
        torch.manual_seed(0)
        large = dataclasses.replace(shipped.config, image_size=SIZES[307_200], patch=2 * shipped.config.patch)
        models = {76_800: shipped, 307_200: Mask3D(large).eval()}
        self.models = {points: (model, open_source("rooms", **lab.SAMPLE_ROOMS, height=SIZES[points][0], width=SIZES[points][1]))
                       for points, model in models.items()}
        for owner, name, what in ((Session, "_tell", "change"), (Predictions, "now", "predict"), (Mask3D, "__call__", "model"),
                                  (Predictions, "_of_opponents", "opponents"), (studio.Studio, "_done", "show"),
                                  (depth, "both_clouds", "both_clouds"), (PointCloud, "set_pane", "set_pane"),
                                  (ipywidgets.Widget, "_send", "send")):
            setattr(owner, name, self._timed(what, getattr(owner, name)))

    def _timed(self, what: str, call: Callable) -> Callable:
        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            began, start, start_cpu = time.time(), time.perf_counter(), time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                size = sum(len(memoryview(b).cast("B")) for b in options.get("buffers") or ()) if what == "send" else 0
                self.events.append((what, 1000 * began, 1000 * (time.perf_counter() - start), size,
                                    1000 * (time.thread_time() - start_cpu)))

        return timed

    def show(self, name: str, points: int, seed: int) -> Any:
        """The view of that name over a session of its own; what was shown before is closed."""
        import ipywidgets

        from mask3d_viz.explorers import explorer
        from mask3d_viz.session import Session

        self.end()
        model, frames = self.models[points]
        session = Session(frames, {"shipped": model}, seed=seed, frame=seed % len(frames), depth_ratio=60 / 300)
        self.view = explorer(name)(session) if name in OURS else {"k3d": K3D, "plotly": Plotly}[name](session)
        if name in ("explore", "explore_masks"):  # these have sliders of their own
            return self.view
        slider = ipywidgets.IntSlider(60, 0, 300, STEP, description="hidden", layout=ipywidgets.Layout(width="600px"))
        slider.add_class("lab-slider")
        slider.observe(lambda change: session.change("slider", depth_ratio=change["new"] / 300), "value")
        return ipywidgets.VBox([slider, self.view])

    def end(self, name: str = "") -> None:
        """Close what is shown; write when what happened, under ``name``."""
        from mask3d_viz.explorers.studio import studio_of

        if self.view is not None:
            studio_of(self.view.session).worker.close()
            self.view.close()
            self.view = None
        if name:
            (self.folder / f"{name}.json").write_text(json.dumps(self.events))
        self.events = []


def yardstick(session: Any) -> tuple[Any, Callable[[], tuple[dict, dict]], Callable]:
    """What k3d and plotly start from: our studio, the clouds as our explorer makes them, and how to be told of new ones."""
    from mask3d_viz.explorers import depth
    from mask3d_viz.explorers.studio import studio_of

    studio = studio_of(session)
    studio.now()

    def clouds() -> tuple[dict, dict]:
        made = studio.shown.reconstruction
        return depth.both_clouds(made, made.prediction)

    def follow(draw: Callable[[tuple[dict, dict]], None]) -> None:
        studio.on(lambda: None if studio.is_stale else draw(clouds()))

    return studio, clouds, follow


def K3D(session: Any) -> Any:  # noqa: N802 - made like a class
    """Two linked k3d plots, points and colours as ours by provenance."""
    import ipywidgets
    import k3d
    import numpy as np

    from mask3d_viz import style

    packed = (style.PROVENANCE_COLORS.astype(np.uint32) * np.array([65536, 256, 1], np.uint32)).sum(-1).astype(np.uint32)
    _, clouds, follow = yardstick(session)
    plots, points = [], []
    for cloud in clouds():
        plot = k3d.plot(height=460, grid_visible=False, menu_visibility=False)
        points.append(k3d.points(cloud["positions"].astype(np.float32), packed[cloud["kind"]], point_size=0.008, shader="flat"))
        plot += points[-1]
        plots.append(plot)
    ipywidgets.jslink((plots[0], "camera"), (plots[1], "camera"))

    def draw(found: tuple[dict, dict]) -> None:
        for one, cloud in zip(points, found):
            with one.hold_sync():
                one.positions, one.colors = cloud["positions"].astype(np.float32), packed[cloud["kind"]]

    follow(draw)
    return _Row(session, plots)


def Plotly(session: Any) -> Any:  # noqa: N802 - made like a class
    """One plotly FigureWidget with two scenes; a number and a colour map for each point, which is its quickest way."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from mask3d_viz import style

    _, clouds, follow = yardstick(session)
    colors = ["rgb({},{},{})".format(*color) for color in style.PROVENANCE_COLORS]
    steps = [(k / (len(colors) - 1), color) for k, color in enumerate(colors)]
    figure = go.FigureWidget(make_subplots(1, 2, specs=[[{"type": "scene"}, {"type": "scene"}]]))
    for column, cloud in enumerate(clouds()):
        x, y, z = cloud["positions"].T
        figure.add_scatter3d(x=x, y=z, z=-y, mode="markers", row=1, col=column + 1, hoverinfo="skip", showlegend=False, marker={
            "size": 1.5, "color": cloud["kind"], "colorscale": steps, "cmin": 0, "cmax": len(colors) - 1})
    figure.update_layout(height=460, margin={"l": 0, "r": 0, "t": 0, "b": 0})

    def draw(found: tuple[dict, dict]) -> None:
        with figure.batch_update():
            for trace, cloud in zip(figure.data, found):
                x, y, z = cloud["positions"].T
                trace.x, trace.y, trace.z, trace.marker.color = x, z, -y, cloud["kind"]

    follow(draw)
    return _Row(session, [figure])


def _Row(session: Any, views: list[Any]) -> Any:  # noqa: N802 - made like a class
    import ipywidgets

    row = ipywidgets.VBox([ipywidgets.GridBox(views, layout=ipywidgets.Layout(
        grid_template_columns=" ".join(f"{100 // len(views)}%" for _ in views)))])
    row.session = session
    return row


# ---- outside of it --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_lab(folder: Path, packages: Path | None) -> Iterator[str]:
    """JupyterLab with an empty notebook, as ``mask3d lab`` sets it up; yields its address."""
    from mask3d_viz.lab import lab_settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cell = {"cell_type": "code", "id": "only", "metadata": {}, "source": "", "outputs": [], "execution_count": None}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "bench.ipynb").write_text(json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    paths = [str(ROOT), *([str(packages)] if packages else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **lab_settings(folder / ".lab"), "JUPYTER_DATA_DIR": str(folder / ".data"),
                   "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"), "PYTHONPATH": os.pathsep.join(paths)}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
         f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=bench", "--LabApp.expose_app_in_browser=True"],
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=bench", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise SystemExit("JupyterLab did not start") from None
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextlib.contextmanager
def training(folder: Path) -> Iterator[None]:
    """The lesson's model learns beside, in a niced process, as a reader starts it from the lab."""
    from mask3d_viz.runs import lesson_config, start_run

    run = start_run(folder, config=lesson_config(1_000_000))
    try:
        status = run.wait(120, lambda status: status.step > 2)
        if not status.is_alive:
            raise SystemExit(f"the training beside did not start: {status.words()} {status.reason}")
        yield
        if not run.look().is_alive:
            raise SystemExit(f"the training beside ended early: {run.look().reason}")
    finally:
        status = run.look()
        if status.can_stop:
            run.stop()
            status = run.wait(20)
        if status.is_alive:
            os.kill(status.owner.pid, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of somebody: its moves, and what else was seen.

    Args:
        name, points, is_training: who, with how many points a pane, beside a training run or not.
        moves: of the slider: when each place changed first and last, and the kernel's stages, milliseconds.
        rest: of the page before: what looking costs, frames a second. orbit: while turning, or None.
        load: average of the last minute, at the end.
    """

    name: str
    points: int
    is_training: bool
    moves: list[dict[str, Any]]
    rest: dict[str, Any]
    orbit: dict[str, float] | None
    load: float


class Bench:
    """The notebook in Chromium.

    Args:
        page: playwright's, the notebook ready.
        folder: where the kernel writes.
        patience: seconds that one turn may take; a move that has begun is waited for.
    """

    def __init__(self, page: Any, folder: Path, patience: float):
        self.page, self.folder, self.patience, self.turns = page, folder, patience, 0
        self.run(f"from benchmarks.lab import Stage\nstage = Stage({str(folder)!r})")

    def run(self, code: str) -> None:
        """Run a cell.

        Raises:
            RuntimeError: what it said last, where it failed.
        """
        if said := self.page.evaluate(RUN, code):
            raise RuntimeError(said)

    def turn(self, name: str, points: int, moves: int, is_training: bool) -> Turn:
        """Show, move the slider, turn the cloud, close."""
        self.turns += 1
        places = WATCHED[name]
        self.run(f"stage.show({name!r}, {points}, {self.turns})")
        rest = self.page.evaluate("([a, b, c]) => labBench.rest(a, b, c)", [places, 800, 90_000])
        if not rest["isThere"]:
            raise RuntimeError("nothing was drawn within 90 s")
        found, until = [], time.monotonic() + self.patience
        for number in range(moves + 1):  # the first one warms up
            found.append(self.page.evaluate("(asked) => labBench.slide(asked)", {
                "places": places, "value": 60 + STEP * (number + 1), "quiet": 400, "patience": 60_000}))
            if number and time.monotonic() > until:
                break
        orbit = None
        if "cloud" in places and not is_training:
            orbit = self.page.evaluate("(asked) => labBench.turn(asked)", {"lasting": 2000, "patience": 20_000})
        key = f"turn-{self.turns}"
        self.run(f"stage.end({key!r})")
        events = json.loads((self.folder / f"{key}.json").read_text())
        missed = [place for move in found[1:] for place in places if place not in move["last"]]
        if missed:
            raise RuntimeError(f"{', '.join(sorted(set(missed)))} did not change within a minute")
        return Turn(name, points, is_training, [{**move, "stages": stages(move, events)} for move in found[1:]], rest, orbit,
                    os.getloadavg()[0])


def stages(move: dict[str, Any], events: list[list]) -> dict[str, float]:
    """Where the time of one move went: milliseconds, and bytes sent to the page.

    ``to kernel``: from the event to the session's change. ``follow``: what the kernel does with it at once. ``wait``: from
    there to the beginning of the prediction. ``predict``, of which ``model`` and ``opponents``. ``hand over``: from its end
    to the views. ``show``: the views take it up, of which ``both_clouds``, ``set_pane`` and ``send``. ``to page``: from
    there to the last pixel. A step that did not happen is left out. ``cpu``: what follow, predict and show cost the kernel's
    threads themselves, which other work on the machine hardly touches.
    """
    start, end = move["start"], move["start"] + max(move["last"].values())
    inside = [event for event in events if start <= event[1] <= end]
    of = lambda what, since=start, until=end: [e for e in inside if e[0] == what and since <= e[1] <= until]  # noqa: E731
    changes, predicts = of("change"), of("predict")
    found: dict[str, float] = {}
    if changes:
        found |= {"to kernel": changes[0][1] - start, "follow": sum(e[2] for e in changes)}
    if not predicts:
        return found
    begun, done = predicts[-1][1], predicts[-1][1] + predicts[-1][2]
    found |= {"wait": begun - changes[0][1] - changes[0][2] if changes else 0.0, "predict": predicts[-1][2],
              **{what: sum(e[2] for e in of(what, begun, done)) for what in ("model", "opponents")}}
    shows = of("show", done - 1)
    if shows:
        over = shows[-1][1] + shows[-1][2]
        found |= {"hand over": shows[-1][1] - done, "show": shows[-1][2],
                  **{what: sum(e[2] for e in of(what, shows[-1][1], over)) for what in ("both_clouds", "set_pane", "send")},
                  "to page": end - over}
    cpu = sum(event[4] for event in (*changes, *predicts, *shows))
    return {**found, "cpu": cpu, "predictions": len(predicts), "bytes": sum(event[3] for event in inside)}


def spread(values: list[float]) -> dict[str, float]:
    """Median and 90th percentile (the nearest value above it)."""
    ordered = sorted(values)
    ninth = ordered[-(-9 * len(ordered) // 10) - 1]
    return {"median": round(statistics.median(ordered), 1), "p90": round(ninth, 1)}


def row_of(turns: list[Turn]) -> dict[str, Any]:
    """All turns of one as a row of the record."""
    moves = [move for turn in turns for move in turn.moves]
    orbits = [turn.orbit for turn in turns if turn.orbit]
    kinds = sorted({name for move in moves for name in move["stages"]}, key=[
        "to kernel", "follow", "wait", "predict", "model", "opponents", "hand over", "show", "both_clouds", "set_pane", "send",
        "to page", "cpu", "predictions", "bytes"].index)
    middle = lambda values: round(statistics.median(values), 1)  # noqa: E731
    return {"moves": len(moves), "ms": {place: spread([m["last"][place] for m in moves]) for place in WATCHED[turns[0].name]},
            "first_change_ms": {place: spread([m["first"][place] for m in moves]) for place in WATCHED[turns[0].name]},
            "orbit_pictures_per_second": middle([o["rate"] for o in orbits]) if orbits else None,
            "kernel_ms": {kind: middle([m["stages"][kind] for m in moves if kind in m["stages"]]) for kind in kinds},
            "webgl_calls": middle([m["calls"] for m in moves]), "detection_ms": middle([turn.rest["cost"] for turn in turns]),
            "page_frames_per_second": middle([turn.rest["pace"] for turn in turns]),
            "load_average": [round(turn.load, 2) for turn in turns],
            "all_ms": {place: [round(m["last"][place], 1) for m in moves] for place in WATCHED[turns[0].name]}}


def summary_of(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A line for each row: medians (90th percentiles), the orbit's rate, and the yardstick's factor."""
    said = {}
    for label, row in rows.items():
        if "left_out" in row:
            said[label] = f"left out: {row['left_out']}"
            continue
        parts = [f"{place} {value['median']:.0f} ({value['p90']:.0f}) ms" for place, value in row["ms"].items()]
        if row["orbit_pictures_per_second"] is not None:
            parts.append(f"orbit {row['orbit_pictures_per_second']:.1f}/s")
        name, rest = label.split(",", 1)
        ours = rows.get(f"explore_depth,{rest}", {}).get("ms")
        if name in YARDSTICKS and ours:
            parts.append(f"cloud {row['ms']['cloud']['median'] / ours['cloud']['median']:.1f} x ours")
        said[label] = ", ".join(parts)
    return said


def has_package(name: str, packages: Path | None) -> bool:
    """Whether the kernel will find it."""
    return importlib.util.find_spec(name) is not None or bool(packages and (packages / name).is_dir())


def version_of(name: str, packages: Path | None) -> str:
    """The version that the kernel uses; "" where there is none."""
    paths = [*([str(packages)] if packages else []), *sys.path]
    return next((found.version for found in metadata.distributions(name=name, path=paths)), "")


def measure(bench: Bench, options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    """Everybody in turns; label to row."""
    names = [name for name in options.only or (*OURS, *YARDSTICKS)]
    turns: dict[str, list[Turn]] = {}
    rows: dict[str, dict[str, Any]] = {}
    until = time.monotonic() + 60 * options.minutes

    def rounds(names: list[str], is_training: bool) -> None:
        for _ in range(options.rounds):
            for points in options.points:
                for name in names:
                    label = f"{name}, {points:,} points" + (", training" if is_training else "")
                    if label in rows:
                        continue
                    if time.monotonic() > until:
                        if label not in turns:
                            rows[label] = {"left_out": "no time was left for it (see --minutes)"}
                        continue
                    if not has_package(name, options.packages) and name in YARDSTICKS:
                        rows[label] = {"left_out": f"{name} is not installed where the kernel looks (see --packages)"}
                        continue
                    try:
                        turns.setdefault(label, []).append(bench.turn(name, points, options.moves, is_training))
                    except RuntimeError as problem:
                        rows[label] = {"left_out": str(problem)[:200]}
                    print(f"  {label}: " + (f"{summary_of({label: row_of(turns[label][-1:])})[label]}"
                                            if label not in rows else rows[label]["left_out"]), flush=True)

    rounds(names, False)
    if not options.no_training:
        until = max(until, time.monotonic() + 20 * options.minutes)  # a third of them is left for these
        with training(scratch / "run"):
            rounds([name for name in names if name in OURS], True)
    rows |= {label: row_of(found) for label, found in turns.items() if label not in rows}
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of three moves, 76,800 points, no training beside")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--packages", type=Path, help="folder with k3d, where it is not in the environment")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--moves", type=int, default=6, help="of the slider, in each round")
    parser.add_argument("--minutes", type=float, default=45.0, help="after these no further turn begins")
    parser.add_argument("--points", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=[*OURS, *YARDSTICKS], help="measure these alone")
    parser.add_argument("--no-training", action="store_true", help="not while training runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.moves, options.points, options.no_training = 1, 3, [76_800], True
        options.only = options.only or ["explore", "explore_depth", *YARDSTICKS]
    options.packages = options.packages.resolve() if options.packages else None
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("Chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    from benchmarks import write

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no server, browser or training run behind
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as place, running_lab(Path(place), options.packages) as address, \
            sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1300})
        page.set_default_timeout(120_000)
        page.add_init_script(PAGE)
        page.goto(f"{address}/lab/tree/bench.ipynb?token=bench")
        page.wait_for_selector(".jp-Notebook")
        page.wait_for_function(READY)
        rows = measure(Bench(page, Path(place), 20.0 if not options.quick else 6.0), options, Path(place))
        browser_version, threads = browser.version, json.loads((Path(place) / "kernel.json").read_text())["threads"]
        browser.close()
    packages = ("k3d", "plotly", "jupyterlab", "ipywidgets", "anywidget", "playwright")
    versions = {name: found for name in packages if (found := version_of(name, options.packages))}
    write(options.out, "lab", "cpu", summary_of(rows), aims_ms=AIMS, rows=rows, load_average_start=[round(v, 2) for v in load],
          niceness=os.nice(0), kernel_threads=threads,
          settings={"moves": options.moves, "rounds": options.rounds, "patches a move": STEP, "browser": "Chromium, headless, "
                    "composited in software, WebGL by SwiftShader"}, page_versions={**versions, "chromium": browser_version, "python": platform.python_version()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
