"""mask3d_core trains on a headless machine that has only torch, timm, numpy and safetensors.

Each check runs in a fresh interpreter, because this one has long imported everything.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from mask3d_core.randomness import random_bits

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "mask3d_core"
COMMAND_LINE = "mask3d_core.cli"  # the only module that may draw, and only when a command does

# Prints as JSON what `body` leaves in `answer`. The modules are found in the folder, not imported to be found.
PRELUDE = """
import importlib, json, sys
sys.path.insert(0, {root!r})
modules = {modules!r}
answer = None
"""


def core_modules() -> list[str]:
    """Every module of mask3d_core but the command line, by dotted name."""
    names = []
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != COMMAND_LINE and not name.startswith(COMMAND_LINE + ".") and parts[-1] != "__main__":
            names.append(name)
    return names


def in_fresh_interpreter(body: str):
    script = PRELUDE.format(root=str(ROOT), modules=core_modules()) + body + "\nprint(json.dumps(answer))\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_alone_is_light():
    loaded = in_fresh_interpreter("import mask3d_core\nanswer = sorted({name.partition('.')[0] for name in sys.modules})")
    heavy = {"matplotlib", "plotly", "ipywidgets", "anywidget", "open3d", "PIL", "tyro", "tqdm", "mask3d_viz"}
    assert "mask3d_core" in loaded and not heavy & set(loaded)


def test_the_training_path_loads_nothing_beyond_its_four_libraries():
    added = in_fresh_interpreter("""
import numpy, safetensors.torch, timm, torch
before = set(sys.modules)
for name in modules:
    importlib.import_module(name)
added = {name for name in set(sys.modules) - before if getattr(sys.modules[name], "__file__", None)}
known = set(sys.stdlib_module_names) | {name.partition(".")[0] for name in before}
answer = sorted({name.partition(".")[0] for name in added} - known)
""")
    # jaxtyping is optional (shapes.py); wadler_lindig is its own dependency
    assert set(added) <= {"mask3d_core", "jaxtyping", "wadler_lindig"}, added
    assert "mask3d_core" in added


def test_the_training_path_imports_without_the_optional_packages():
    """jaxtyping, tyro and matplotlib are absent altogether. tqdm and Pillow come with timm's own dependencies, so they
    are refused only where mask3d_core itself asks for them."""
    answer = in_fresh_interpreter("""
import builtins
ABSENT = {"jaxtyping", "tyro", "matplotlib", "plotly", "ipywidgets", "anywidget", "open3d", "beartype"}
REFUSED = ABSENT | {"tqdm", "PIL", "torchvision", "yaml", "mask3d_viz"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not on this machine")

ordinary = builtins.__import__
def refusing(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get("__name__", "")
    if level == 0 and asking.startswith("mask3d_core") and name.partition(".")[0] in REFUSED:
        raise ImportError(f"{asking} asks for {name}, which a headless machine does not have")
    return ordinary(name, globals, locals, fromlist, level)

sys.meta_path.insert(0, Absent())
builtins.__import__ = refusing
problems = []
for name in modules:
    try:
        importlib.import_module(name)
    except ImportError as error:
        problems.append(f"{name}: {error}")
try:
    import jaxtyping
    problems.append("the block does not work")
except ImportError:
    pass
answer = {"problems": problems, "imported": len(modules)}
""")
    assert answer["imported"] > 5
    assert not answer["problems"], "\n".join(answer["problems"])


def test_signatures_are_checked_while_the_tests_run():
    """pytest's jaxtyping hook is on; without it this call would quietly round 1.5."""
    with pytest.raises(TypeCheckError):
        random_bits(1.5)


def imported_names(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_never_draws(path):
    drawing = {"mask3d_viz", "matplotlib", "plotly", "ipywidgets", "anywidget", "open3d", "IPython"}
    is_command_line = path.relative_to(CORE).parts[0] in ("cli.py", "cli")
    asked = imported_names(path) & drawing
    assert asked <= ({"mask3d_viz"} if is_command_line else set()), f"{path.name} imports {sorted(asked)}"


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    names = ast.literal_eval(next(ast.unparse(node.value) for node in ast.parse((ROOT / "mask3d_viz/__init__.py").read_text()).body
                                  if isinstance(node, ast.Assign) and node.targets[0].id == "_HOMES"))
    public = {name for found in names.values() for name in found}
    assert not public & {path.stem for path in (ROOT / "mask3d_viz").iterdir()}, "the import system would set it to the module"


def test_the_public_names_are_there_and_cost_nothing_before_they_are_asked_for():
    pytest.importorskip("anywidget", reason="the lab's packages are not installed")
    code = ("import sys, mask3d_viz\n"
            "assert not {'ipywidgets', 'anywidget', 'open3d', 'matplotlib'} & set(sys.modules)\n"
            "for name in mask3d_viz.__all__: assert callable(getattr(mask3d_viz, name)), name\n"
            "assert 'open3d' not in sys.modules\n"
            "try: mask3d_viz.nothing\nexcept AttributeError as problem: assert 'nothing' in str(problem)\n"
            "else: raise SystemExit('a name from nowhere')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
