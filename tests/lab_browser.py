"""JupyterLab as `mask3d lab` starts it, with a reader's browser before it.

    with running_lab(folder) as address, open_browser() as browser:
        notebook = Notebook(browser, address, "00_start_here.ipynb")
        notebook.run_all()
        notebook.page.mouse.move(...)      # playwright's page
        notebook.check()                   # no fault in the page, no request to another machine

Run as a program it makes one journey where the loopback is the only network, see :func:`without_network`.
"""

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from browser import FLAGS
from PIL import Image

from mask3d_core.sources import open_source
from mask3d_core.sources.folder_config import FolderConfig

PATIENCE = 90_000  # milliseconds; a machine that tests on all its cores is slow
READY = """() => { const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
return context?.session?.kernel?.status === 'idle' && context.session.kernel.connectionStatus === 'connected'; }"""
RUN_ALL = """() => { window.hasRun = undefined;
window.jupyterapp.commands.execute('notebook:run-all-cells').then((isDone) => { window.hasRun = isDone; }); }"""
RUN_CELL = """([code, isAlone]) => {
const { content } = window.jupyterapp.shell.currentWidget, cells = content.model.sharedModel;
const last = isAlone ? 0 : cells.cells.length;
cells.insertCell(last, { cell_type: 'code', source: code, metadata: { trusted: true } });
if (isAlone) while (cells.cells.length > 1) cells.deleteCell(1);
content.activeCellIndex = last;
window.hasRun = undefined;
window.jupyterapp.commands.execute('notebook:run-cell').then(() => { window.hasRun = true; }); }"""
OUTPUT = ".jp-OutputArea-output"
PICTURES = f"{OUTPUT} .patch-image"
PIXELS = f"n => document.querySelectorAll('{PICTURES}')[n].querySelector('canvas').toDataURL()"
EMPTY = {"cells": [], "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
         "nbformat": 4, "nbformat_minor": 5}
SERVE = ("import sys; from mask3d_viz.lab import start_lab; "
         "sys.exit(start_lab({folder!r}, {frames!r}, browser=False, arguments={more!r}))")


def missing_browser() -> str:
    """Why no browser can be had, or ""."""
    if shutil.which("chromium") is None:
        return "Chromium is not installed (apt-get install chromium)"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed (pip install playwright)"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_lab(folder, frames=""):
    """What `mask3d lab --folder FOLDER --frames FRAMES --no-browser` starts; yields its address."""
    port, folder = free_port(), Path(folder)
    more = (f"--ServerApp.port={port}", "--IdentityProvider.token=test", "--LabApp.expose_app_in_browser=True")
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(folder / ".data"), "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
                   "OMP_NUM_THREADS": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / ".server.log"
    with open(said, "w") as output:
        server = subprocess.Popen([sys.executable, "-c", SERVE.format(folder=str(folder), frames=str(frames), more=more)],
                                  env=environment, stdout=output, stderr=output, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api?token=test", timeout=5).close()
                break
            assert time.monotonic() < deadline and server.poll() is None, said.read_text()[-3000:]
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextlib.contextmanager
def open_browser():
    """Headless Chromium with a WebGL made in software."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Notebook:
    """A notebook as a reader has it open, its kernel ready.

    Args:
        browser: playwright's.
        address: of JupyterLab.
        name: of a notebook in its folder.
        width, height: of the window.

    Attributes:
        page: playwright's page.
        faults: errors of the page and what its console calls an error.
        elsewhere: addresses on other machines that were asked.
    """

    def __init__(self, browser, address, name, width=1500, height=1300):
        self.faults, self.elsewhere = [], []
        self.page = page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        here = (address, address.replace("http", "ws"), "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(here) else self.elsewhere.append(r.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self.faults.append(f"{said.text} ({said.location})") if said.type == "error" else None)
        page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token=test")
        page.wait_for_selector(".jp-Notebook")
        page.wait_for_function(READY)

    def run_all(self):
        """Run all cells and wait for them."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("window.hasRun !== undefined")
        assert self.page.evaluate("window.hasRun"), self.page.locator(OUTPUT).all_inner_texts()
        self.page.wait_for_function(READY)

    def run(self, code, is_alone=True):
        """Run a new cell and wait for it; the only one that is left, or below the others."""
        self.page.evaluate(RUN_CELL, [code, is_alone])
        self.page.wait_for_function("window.hasRun")
        found = self.page.locator(".jp-Notebook .jp-CodeCell").last
        assert found.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0, found.inner_text()
        return found

    def says(self, words):
        """Wait until an output says this."""
        self.page.wait_for_function("([where, words]) => [...document.querySelectorAll(where)].some(e => "
                                    "e.innerText.includes(words))", arg=[OUTPUT, words])

    def text(self):
        """All that the outputs say."""
        return "\n".join(self.page.locator(OUTPUT).all_inner_texts())

    def picture(self, number):
        """The ``number``-th picture as the browser has drawn it, as a data URL."""
        return self.page.evaluate(PIXELS, number)

    def until_picture(self, number, is_as=None, is_not=None):
        """Wait until the ``number``-th picture is drawn so, or otherwise than so."""
        self.page.wait_for_function(f"([n, as, not]) => {{ const now = ({PIXELS})(n); return as ? now === as : now !== not; }}",
                                    arg=[number, is_as, is_not])

    def until_settled(self):
        """Wait until no result is stale, the kernel has nothing more to do and no picture changes any more. What a hand has
        just moved is called stale only when it stays so for a moment, so the quiet must last longer than that moment."""
        self.page.evaluate("window.quietSince = undefined")
        self.page.wait_for_function(f"""() => {{
            const pictures = [...document.querySelectorAll('{PICTURES}')];
            const drawn = pictures.map(e => e.querySelector('canvas')?.toDataURL()).join(' ');
            const stale = pictures.some(e => e.classList.contains('is-stale'));
            if (stale || drawn !== window.lastDrawn || !({READY})()) window.quietSince = undefined;
            else window.quietSince ??= performance.now();
            window.lastDrawn = drawn;
            return window.quietSince !== undefined && performance.now() - window.quietSince > 800; }}""", polling=100)

    def rest_hand(self, selected=""):
        """Take the mouse off everything, so that nothing is pointed at; what is read out then is the selected patch."""
        self.page.mouse.move(2, 2)
        self.page.wait_for_function(f"words => [...document.querySelectorAll('{PICTURES} .pi-readout')].every(e => words ? "
                                    "e.textContent.startsWith(words) : !e.textContent)", arg=selected)
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # drawn

    def drag(self, start, end, steps=6):
        """Press, move and let go; points are (x, y) in CSS pixels of the window."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=steps)
        self.page.mouse.up()

    def drag_slider(self, slider, share, before_letting_go=None):
        """Drag the handle of a slider from where it stands to a share of its way."""
        slider.scroll_into_view_if_needed()
        box, now, most = slider.bounding_box(), float(slider.input_value()), float(slider.get_attribute("max"))
        at = lambda part: (box["x"] + 8 + (box["width"] - 16) * part, box["y"] + box["height"] / 2)  # noqa: E731
        self.page.mouse.move(*at(now / most))
        self.page.mouse.down()
        self.page.mouse.move(*at(share), steps=8)
        if before_letting_go is not None:
            before_letting_go()
        self.page.mouse.up()

    def shot(self, locator):
        """An element's pixels as the screen shows them, uint8 (H, W, 3)."""
        return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))

    def check(self):
        """Fail on any fault of the page and on any request to another machine."""
        assert not self.faults, self.faults
        assert not self.elsewhere, self.elsewhere

    def close(self):
        """Close the page and end its kernel."""
        self.page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
        self.page.close()


def write_empty(folder, name):
    """An empty notebook in the lab's folder."""
    (Path(folder) / name).write_text(json.dumps(EMPTY))
    return name


def write_recording(folder, count=3):
    """A reader's own recording: rooms as colour and depth PNGs with a ``mask3d_folder.json``."""
    folder, source = Path(folder), open_source("rooms", count=count, seed=5, views_per_room=1, height=120, width=160)
    for kind in ("color", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        frame = source.read(number)
        millimetres = np.where(frame.is_valid, np.rint(1000 * frame.depth), 0).astype(np.uint16)
        Image.fromarray(frame.color).save(folder / f"color/view{number}.png")
        Image.fromarray(millimetres).save(folder / f"depth/view{number}.png")
    k = source.read(0).intrinsics
    config = FolderConfig(color="color/*.png", depth="depth/*.png", intrinsics=(k.fx, k.fy, k.cx, k.cy))
    config.save(folder / "mask3d_folder.json")
    return folder


# ---- a network that ends at this machine -------------------------------------------------------------------------------


def own_frames_journey(folder, frames):
    """Notebook 00 over a reader's own recording, to the first slider; returns what the outputs said, before and after."""
    with running_lab(folder, frames) as address, open_browser() as browser:
        notebook = Notebook(browser, address, "00_start_here.ipynb")
        notebook.run_all()
        notebook.says("AbsRel")
        notebook.until_settled()
        before, picture = notebook.text(), notebook.picture(2)
        notebook.drag_slider(notebook.page.locator(PICTURES).nth(1).locator("input[type=range]").last, 0.3)
        notebook.until_picture(2, is_not=picture)
        notebook.until_settled()
        after = notebook.text()
        notebook.run("print('frames:', len(session.frames), session.frames.name(0))", is_alone=False)
        notebook.says("frames:")
        frames = re.search("frames: .*", notebook.text()).group()
        notebook.check()
    return {"before": before, "after": after, "frames": frames}


def raise_loopback():
    """Switch the loopback of a new network namespace on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up_and_running = 0x1 | 0x40
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", up_and_running))  # SIOCSIFFLAGS


def is_cut_off() -> bool:
    """Whether there is no way to any other machine: the loopback is the only interface."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def without_network(folder, frames):
    """:func:`own_frames_journey` where only the loopback is, in a process of its own.

    Returns:
        (what it found, why the network could not be cut off): one of them is empty.
    """
    if shutil.which("unshare") is None:
        return {}, "there is no unshare (util-linux)"
    trial = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True)
    if trial.returncode:
        return {}, f"this machine permits no namespaces: {trial.stderr.strip()}"
    found = Path(folder).parent / "found.json"
    done = subprocess.run(["unshare", "-rn", sys.executable, __file__, str(folder), str(frames), str(found)],
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(found.read_text()), ""


if __name__ == "__main__":
    raise_loopback()
    assert is_cut_off(), socket.if_nameindex()
    with contextlib.suppress(OSError):  # what a request would meet
        socket.create_connection(("192.0.2.1", 80), timeout=2)
        raise SystemExit("there is a network after all")
    Path(sys.argv[3]).write_text(json.dumps(own_frames_journey(sys.argv[1], sys.argv[2])))
