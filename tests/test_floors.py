"""Imports point strictly down the floors, and inference never needs the extras."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"errors", "rotation", "_cpu"},
    {"config", "skeleton", "container"},
    {"kernels", "motion", "body"},
    {"features", "metrics", "blocks", "blend", "capture", "contact", "feet", "graph", "packed", "placement", "precision",
     "quantizer", "sequence"},
    {"closing", "codec", "transformer", "text", "quant", "native"},
    {"checkpoint", "sampler", "bank", "refine"},
    {"pipeline", "clip"},
    {"fill", "importer", "plan"},
    {"stream", "rollout"},
    {"model"},
    {"agreement"},
    {"cli", "worker"},
]
FLOOR_OF = {name: i for i, names in enumerate(FLOORS) for name in names}
# Packages whose modules may import each other.
PACKAGES = {"kernels", "motion", "features", "cli"}


def sources():
    for path in sorted(ROOT.glob("rtinteract/**/*.py")) + sorted(ROOT.glob("kernels/*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield path, (parts[0] if parts[0] == "kernels" else parts[1])


def imports(path):
    """(module, lazy): every rtinteract import of a file; lazy when it stands inside a function."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rtinteract":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for name in names:
                yield name, id(node) not in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("rtinteract."):
                    yield alias.name.split(".")[1], id(node) not in top


@pytest.mark.parametrize("path,name", list(sources()), ids=lambda x: x.name if isinstance(x, Path) else x)
def test_imports_point_down(path, name):
    if name == "__init__":
        return
    assert name in FLOOR_OF, f"{path.name}: give {name!r} a floor in tests/test_floors.py"
    for target, lazy in imports(path):
        if target == "training":
            assert name == "cli" and lazy, f"{path.name} imports training; only the CLI may, and lazily"
        elif target.startswith("__"):
            continue
        else:
            below = FLOOR_OF[target] < FLOOR_OF[name] or (target == name and name in PACKAGES)
            assert below, f"{path.name} (floor {FLOOR_OF[name]}) imports {target} (floor {FLOOR_OF[target]})"


def test_kernels_stand_alone():
    for path in ROOT.glob("kernels/*.py"):
        for target, _ in imports(path):
            assert target == "kernels", f"{path.name} imports rtinteract.{target}; kernels import torch and triton only"


def test_import_and_load_need_no_extra():
    """Inference stays light: importing the package touches none of the optional libraries."""
    # torch itself takes tqdm along where it is installed.
    code = ("import sys; import torch; before = set(sys.modules); import rtinteract; "
            "heavy = {'matplotlib', 'PIL', 'pygltflib', 'scipy', 'tensorboard', 'tqdm', 'imageio'} & set(sys.modules) - before; "
            "sys.exit(repr(sorted(heavy)) if heavy else 0)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_files_and_functions_stay_small():
    for path in [p for d in ("rtinteract", "kernels", "training", "benches", "tests") for p in (ROOT / d).rglob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path.relative_to(ROOT)} has {text.count(chr(10))} lines; split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines; split it"
