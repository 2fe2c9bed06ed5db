"""The files that install the project agree with each other and hold nothing of one particular machine."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
MEGABYTE = 1_000_000


def environments():
    """Every marker environment that the pins are meant for."""
    for python in PYTHONS:
        for platform, system in PLATFORMS.items():
            yield {"python_version": python, "python_full_version": f"{python}.0",
                   "sys_platform": platform, "platform_system": system}


def wanted_in(requirement: Requirement, environment: dict) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.fixture(scope="module")
def dependencies(pyproject) -> list[Requirement]:
    extras = pyproject["project"]["optional-dependencies"]
    return [Requirement(line) for line in sum(extras.values(), pyproject["project"]["dependencies"])]


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    """What git keeps of this tree; a source archive without .git has nothing to check."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout: " + listing.stderr.strip())
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


# ---- pyproject.toml, constraints.txt, environment.yml say the same -------------------------------------------------

def test_every_pin_is_one_exact_version(pins):
    for pin in pins:
        assert [s.operator for s in pin.specifier] == ["=="] and "*" not in str(pin.specifier), str(pin)


def test_no_package_is_pinned_twice_for_one_python(pins):
    for environment in environments():
        names = [canonicalize_name(pin.name) for pin in pins if wanted_in(pin, environment)]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"Python {environment['python_version']}: {sorted(twice)}"


def test_every_dependency_is_pinned_within_its_bounds(dependencies, pins):
    for environment in environments():
        versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version
                    for pin in pins if wanted_in(pin, environment)}
        for dependency in dependencies:
            if not wanted_in(dependency, environment):
                continue
            version = versions.get(canonicalize_name(dependency.name))
            assert version, f"{dependency.name} has no pin for Python {environment['python_version']}"
            assert dependency.specifier.contains(version), f"{dependency} against pin {version}"


def test_every_dependency_states_a_lower_bound_and_stands_once(dependencies):
    names = [canonicalize_name(dependency.name) for dependency in dependencies]
    assert sorted(names) == sorted(set(names))
    for dependency in dependencies:
        assert any(s.operator == ">=" for s in dependency.specifier), str(dependency)


def test_conda_environment_installs_the_same(pyproject):
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {item.partition(">")[0]: item for item in listed if isinstance(item, str)}
    assert set(conda) == {"python", "pip"}, "packages come through pip, so that constraints.txt holds for them"
    allowed = SpecifierSet(conda["python"].removeprefix("python"))
    required = SpecifierSet(pyproject["project"]["requires-python"])
    every = [f"3.{minor}" for minor in range(6, 20)]
    assert [v for v in every if v in allowed] == list(PYTHONS)
    assert [v for v in every if v in required][0] == PYTHONS[0]
    (through_pip,) = [item["pip"] for item in listed if isinstance(item, dict)]
    extras = ",".join(pyproject["project"]["optional-dependencies"])
    assert through_pip == ["-c constraints.txt", f"-e .[{extras}]"]


# ---- what gets installed -------------------------------------------------------------------------------------------

def test_every_folder_with_code_is_a_package():
    for package in ("mask3d_core", "mask3d_viz"):
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} would be left out of the install"


def test_data_files_of_the_packages_are_installed(pyproject, tracked_files):
    globs = pyproject["tool"]["setuptools"]["package-data"]["*"]
    for path in tracked_files:
        relative = path.relative_to(ROOT)
        if relative.parts[0] in ("mask3d_core", "mask3d_viz") and path.suffix != ".py":
            assert any(path.match(glob) for glob in globs), f"{relative} matches none of {globs}"


def test_the_command_exists_and_says_what_it_can():
    command = [sys.executable, "-c", "from mask3d_core.cli import main; main()", "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    readme = (ROOT / "README.md").read_text()
    for name in sorted(set(re.findall(r"(?:^|`|bin/)mask3d ([a-z]+)", readme, flags=re.MULTILINE))):
        assert re.search(rf"\b{name}\b", answer.stdout), f"the README names `mask3d {name}`, which --help does not"


def test_the_readme_names_no_file_that_is_absent():
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"`((?:mask3d_core|mask3d_viz|data|docs|tests|benchmarks|results)/[\w/.-]*)`", readme)
    (house,) = re.findall(r"## What is in the house\n\n```\n(.*?)```", readme, flags=re.DOTALL)
    folder = ""
    for indent, name in re.findall(r"^( *)(\S+)", house, flags=re.MULTILINE):
        folder = folder if indent else name
        named.append(folder + name if indent else name)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", ["README.md", "data/README.md", "results/README.md"])
def test_links_and_pictures_of_a_page_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    headings = {}
    for link in links:
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page} leads to {link}"
        if anchor:
            made = headings.setdefault(target, {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
                                                for line in target.read_text().splitlines() if line.startswith("#")})
            assert anchor in made, f"{page} leads to {link}"
    assert links or page == "data/README.md"


@pytest.mark.parametrize("name", [p.name for p in sorted((ROOT / "results").glob("*")) if not p.name.endswith("README.md")])
def test_every_result_is_on_the_page_about_results(name):
    page = (ROOT / "results" / "README.md").read_text()
    patterns = re.findall(r"`([\w.*]+)`", page)
    assert any(fnmatch(name, pattern) for pattern in patterns), f"results/README.md does not name {name}"


def test_licence(pyproject):
    assert pyproject["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


# ---- Makefile and .ci/run ------------------------------------------------------------------------------------------

def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    outside = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CI")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=outside, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bare_checkout(tmp_path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_alone_lists_every_target():
    shown = re.findall(r"^  make (\w+)", make().stdout, flags=re.MULTILINE)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert shown == targets
    named = set(re.findall(r"(?:^|`)make ([a-z]+)\b", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= set(targets)


def test_demo_passes_the_recording_on(bare_checkout):
    assert '.venv/bin/mask3d demo --frames "a b"' in make("-n", "demo", "FRAMES=a b", cwd=bare_checkout).stdout
    assert "--frames" not in make("-n", "demo", cwd=bare_checkout).stdout


def test_what_make_bench_runs_exists():
    assert "-m benchmarks" in make("-n", "bench").stdout and (ROOT / "benchmarks" / "__main__.py").is_file()


def fake_python(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
def test_setup_says_in_one_line_what_is_missing(bare_checkout):
    old = fake_python(bare_checkout, "old", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    no_venv = fake_python(bare_checkout, "novenv", 'case "$2" in *ensurepip*) exit 1;; esac')
    for python, expected in ((old, "Python 3.9.2"), (no_venv, "python3-venv"), ("no-such-python", "3.10 or newer")):
        answer = make("setup", f"PYTHON={python}", cwd=bare_checkout)
        ours = [line for line in answer.stderr.splitlines() if not line.startswith("make")]
        assert answer.returncode != 0 and len(ours) == 1 and expected in ours[0], answer.stderr
        assert not (bare_checkout / ".venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
def test_second_setup_costs_nothing_until_the_pins_change(bare_checkout):
    log = bare_checkout / "calls"
    python = fake_python(bare_checkout, "python", f'echo "$@" >> {log}')
    (bare_checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(python, bare_checkout / ".venv" / "bin" / "python")
    assert make("setup", f"PYTHON={python}", cwd=bare_checkout).returncode == 0
    assert "-c constraints.txt -e .[lab,measure,test]" in log.read_text()
    log.unlink()
    assert make("setup", f"PYTHON={python}", cwd=bare_checkout).returncode == 0 and not log.exists()
    ready = (bare_checkout / ".venv" / ".ready").stat().st_mtime
    os.utime(bare_checkout / "constraints.txt", (ready + 5, ready + 5))
    assert make("setup", f"PYTHON={python}", cwd=bare_checkout).returncode == 0 and log.exists()


def test_ci_calls_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^[^#\n]*\bmake test\b", script.read_text(), flags=re.MULTILINE)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


# ---- nothing of one machine, nothing that does not belong in the tree ----------------------------------------------

FORBIDDEN = {
    "the address of a package registry": r"pypi\.(?:org|python)|files\.python" r"hosted|down" r"load\.pytorch\.org"
                                         r"|anaconda\.(?:org|com)|registry\.np" r"mjs|deb\.deb" r"ian\.org",
    "an index option with an address": r"--(?:extra-)?index" r"-url|--find" r"-links|--trusted" r"-host",
    "a path of one machine": r"(?<![\w.])/(?:work|root|farm|Us" r"ers|ho" r"me/\w+)/|\b[A-Z]:\\+Us" r"ers\\",
}


def test_no_registry_address_and_no_path_of_one_machine(tracked_files):
    found = []
    for path in tracked_files:
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            continue
        text = data.decode(errors="replace")
        for what, pattern in FORBIDDEN.items():
            hit = re.search(pattern, text)
            if hit:
                found.append(f"{path.relative_to(ROOT)}: {what}: {hit.group()!r}")
    assert not found, "\n".join(found)


def test_patterns_find_what_they_are_for():
    host = "https://pypi" + ".org/simple"
    path = "/" + "work/main"
    assert re.search(FORBIDDEN["the address of a package registry"], host)
    assert re.search(FORBIDDEN["an index option with an address"], "--index" + f"-url {host}")
    assert re.search(FORBIDDEN["a path of one machine"], f"open('{path}')")
    assert not re.search(FORBIDDEN["a path of one machine"], "our/work/in/progress")


def test_no_big_files(tracked_files):
    for path in tracked_files:
        limit = 16 if (ROOT / "data" / "checkpoints") in path.parents else 2
        size = path.stat().st_size / MEGABYTE
        assert size <= limit, f"{path.relative_to(ROOT)}: {size:.1f} MB, at most {limit} MB"


def test_an_installed_wheel_brings_notebooks_and_checkpoint(tmp_path):
    """Built and unpacked as pip does it, without a network; then used from a place where no checkout is."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git here: which files belong to the project is not known")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True, timeout=300)
    wheel = next(tmp_path.glob("mask3d_lab-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel)], check=True, timeout=300)
    shutil.rmtree(source)
    code = ("import mask3d_viz, sys; assert sys.argv[1] in mask3d_viz.__file__, mask3d_viz.__file__\n"
            "from pathlib import Path\nfrom mask3d_viz.lab import SHIPPED, copy_notebooks\n"
            "from mask3d_core.training.checkpoint import load_model\n"
            "print(len(copy_notebooks(Path('mine'))), load_model(SHIPPED)[1]['kind'])")
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, timeout=300)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == [str(len(list((ROOT / "notebooks").glob("*.ipynb")))), "mask3d"]
