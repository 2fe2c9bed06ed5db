"""The lab in a real browser: JupyterLab as `mask3d lab` starts it, the first notebook, a hand on the slider."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from browser import FLAGS

pytest.importorskip("anywidget", reason="the lab's packages are not installed (pip install -e '.[lab]')")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (pip install -e '.[lab]')")

from mask3d_core.errors import Mask3DError
from mask3d_viz import lab

READY = """() => { const app = window.jupyterapp, widget = app?.shell.currentWidget, context = widget?.sessionContext;
return context?.session?.kernel?.status === 'idle' && context.session.kernel.connectionStatus === 'connected'; }"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running_lab(folder, **environment):
    """JupyterLab on a copy of the notebooks; yields its address."""
    lab.copy_notebooks(folder)
    port = free_port()
    settings = lab.lab_settings(folder / ".lab")
    environment = {**os.environ, **settings, "JUPYTER_DATA_DIR": str(folder / ".data"), "OMP_NUM_THREADS": "1",
                   "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"), **environment}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
         f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=test", "--LabApp.expose_app_in_browser=True"],
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=test", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "JupyterLab did not start"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture
def page(tmp_path):
    """The first notebook in Chromium, its kernel ready; asks nothing of any other machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with running_lab(tmp_path / "lab") as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1300})
        page.set_default_timeout(90_000)
        page.elsewhere, page.faults = [], []
        page.on("request", lambda r: None if r.url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
                else page.elsewhere.append(r.url))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(f"{address}/lab/tree/{lab.START}?token=test")
        page.wait_for_selector(".jp-Notebook")
        page.wait_for_function(READY)
        yield page
        browser.close()


def test_a_newcomer_hides_patches_turns_a_cloud_and_points_at_a_patch(page):
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    canvas = ".jp-OutputArea-output .patch-image canvas"
    page.wait_for_selector(canvas)
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output .patch-image canvas').length >= 5")
    page.wait_for_function("document.querySelector('.jp-OutputArea-output')?.textContent.includes('AbsRel')")
    page.wait_for_function(READY)
    said = page.locator(".jp-OutputArea-output").first.inner_text()
    assert "60 of 300 patches visible" in said and "Mask3D" in said and "spline in 1/depth" in said
    pictures = page.locator(".jp-OutputArea-output .patch-image")
    look = "n => document.querySelectorAll('.jp-OutputArea-output .patch-image')[n].querySelector('canvas').toDataURL()"
    before = [page.evaluate(look, n) for n in range(5)]
    slider = pictures.nth(1).locator("input[type=range]").last
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # half of the depth patches
    page.wait_for_function(f"old => ({look})(2) !== old", arg=before[2])
    after = [page.evaluate(look, n) for n in range(5)]
    assert after[1] != before[1] and after[4] != before[4], "the mask and the error moved with it"
    assert after[0] == before[0] and after[3] == before[3], "colour and truth did not"
    words = page.locator(".jp-OutputArea-output").first.inner_text()
    assert "60 of 300 RGB patches and 60 of 300 depth" not in words and "60 of 300 RGB patches and 15" in words
    cloud = page.locator(".jp-OutputArea-output canvas.m3c-canvas").first
    picture = cloud.screenshot()
    box = cloud.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4 + 80, box["y"] + box["height"] / 2 - 20, steps=4)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert cloud.screenshot() != picture, "the cloud has turned"
    pictures.nth(3).locator("canvas").first.hover()
    page.wait_for_function("[...document.querySelectorAll('.pi-readout')].every(e => e.textContent.includes('truth'))")
    assert not page.faults, page.faults
    assert not page.elsewhere, page.elsewhere


def test_nothing_is_asked_that_a_newcomer_must_answer(page):
    page.wait_for_timeout(1500)
    assert page.locator(".jp-Dialog").count() == 0, "no dialog"
    assert page.locator(".Toastify__toast").count() == 0, "no news prompt"
    assert not page.elsewhere, page.elsewhere


def test_wrong_paths_and_a_missing_package_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(Mask3DError, match="path for --frames"):
        lab.start_lab(tmp_path / "lab", frames=str(tmp_path / "nowhere"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Mask3DError, match=r"mask3d-lab\[lab\]"):
        lab.start_lab(tmp_path / "lab")
