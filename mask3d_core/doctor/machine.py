"""What this machine has, and what each missing piece costs: one line each."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

import torch

from mask3d_core.doctor.report import Finding
from mask3d_core.training.precision import choose_precision, default_device

# import name, distribution, what is lost without it, how to get it
PACKAGES = (
    ("PIL", "pillow", "reading image files", "pip install pillow"),
    ("tqdm", "tqdm", "progress bars (plain lines come instead)", "pip install tqdm"),
    ("tyro", "tyro", "the command line", "pip install tyro"),
    ("matplotlib", "matplotlib", "pictures and the report", "pip install matplotlib"),
    ("ipywidgets", "ipywidgets", "live views in notebooks", 'pip install "mask3d-lab[lab]"'),
    ("anywidget", "anywidget", "live views in notebooks", 'pip install "mask3d-lab[lab]"'),
    ("plotly", "plotly", "interactive charts", 'pip install "mask3d-lab[lab]"'),
    ("jupyterlab", "jupyterlab", "the notebooks", 'pip install "mask3d-lab[lab]"'),
    ("open3d", "open3d", "the desktop 3D window", 'pip install "mask3d-lab[lab]"'),
    ("torchmetrics", "torchmetrics", "yardsticks from outside", 'pip install "mask3d-lab[measure]"'),
    ("pycocotools", "pycocotools", "average precision of detections", 'pip install "mask3d-lab[measure]"'),
    ("h5py", "h5py", "NYUv2's .mat files", 'pip install "mask3d-lab[measure]"'),
    ("OpenEXR", "OpenEXR", "depth in .exr files", "pip install OpenEXR"))

# what it is for, the Debian packages, how to see that they are there (all must be found)
DEBIAN = (
    ("torch.compile", "g++ python3-dev", ("command:g++", "file:Python.h")),
    ("Open3D's window", "libx11-6 libgl1 libegl1 libusb-1.0-0",
     ("library:X11", "library:GL", "library:EGL", "library:usb-1.0")),
    ("Open3D without a screen or a GPU", "libvulkan1 mesa-vulkan-drivers", ("library:vulkan",)),
    ("tests in a real browser", "chromium", ("command:chromium|chromium-browser|google-chrome",)))


def _is_there(probe: str) -> bool:
    kind, _, name = probe.partition(":")
    if kind == "command":
        return any(shutil.which(choice) for choice in name.split("|"))
    if kind == "library":
        return ctypes.util.find_library(name) is not None
    import sysconfig

    return os.path.exists(os.path.join(sysconfig.get_paths()["include"], name))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment() -> list[Finding]:
    """What this machine has: Python, torch, device, precision, and each optional piece that is missing.

    Returns:
        Findings; a missing piece is a "warn" that says what it costs and how to get it.
    """
    device = default_device()
    precision = choose_precision("auto", device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}",
                {"version": platform.python_version(), "executable_is_venv": sys.prefix != sys.base_prefix}),
        Finding("torch", "ok", f"{torch.__version__}, timm {_version('timm')}, numpy {_version('numpy')}",
                {"torch": torch.__version__, "timm": _version("timm"), "numpy": _version("numpy")}),
        Finding("device", "ok", f"{device.type}: {name}, {cores} CPU cores, {torch.get_num_threads()} threads",
                {"device": device.type, "cores": cores}),
        Finding("precision", "ok", f"{precision} is what training will use here", {"precision": precision})]
    there = []
    for module, distribution, loss, cure in PACKAGES:
        if importlib.util.find_spec(module) is None:
            findings.append(Finding("package", "warn", f"{distribution} is missing, which costs {loss}: {cure}"))
        else:
            there.append(f"{distribution} {_version(distribution)}")
    findings.append(Finding("packages", "ok", ", ".join(there) or "none of the optional ones"))
    for purpose, packages, probes in DEBIAN if platform.system() == "Linux" else ():
        missing = [probe.partition(":")[2] for probe in probes if not _is_there(probe)]
        if missing:
            said = f"{purpose} needs {', '.join(missing)}: apt-get install {packages}"
            findings.append(Finding("system", "warn", said))
    return findings
