"""What is installed, what the README promises, and the model and clip that ship."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rtinteract

ROOT = Path(__file__).resolve().parents[1]
DEMO = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[demo]' && .venv/bin/rtinteract demo"
TEST = ("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[demo,train,test]' && "
        ".venv/bin/python -m pytest")


def setup_arguments(tmp_path):
    """What setup.py hands to setuptools."""
    command = tmp_path / "setuptools/command"
    command.mkdir(parents=True)
    (tmp_path / "setuptools/__init__.py").write_text(
        "import json\nclass Extension:\n    def __init__(self, *a, **k): pass\n"
        "def setup(**kw): print(json.dumps(kw, default=str))\n")
    (command / "build_ext.py").write_text("class build_ext: pass\n")
    done = subprocess.run([sys.executable, str(ROOT / "setup.py")], capture_output=True, text=True, cwd=ROOT, check=True,
                          env={"PYTHONPATH": str(tmp_path)})
    return json.loads(done.stdout)


def test_every_package_and_asset_is_installed(tmp_path):
    arguments = setup_arguments(tmp_path)
    folders = {p.parent.relative_to(ROOT).as_posix() for p in ROOT.glob("rtinteract/**/__init__.py")}
    assert {f.replace("/", ".") for f in folders} | {"rtinteract.kernels", "rtinteract.training"} == set(arguments["packages"])
    assert arguments["package_data"] == {"rtinteract": ["assets/*"]} and arguments["version"] == rtinteract.__version__


def test_everything_imported_is_asked_for(tmp_path):
    arguments = setup_arguments(tmp_path)
    names = {"PIL": "pillow"}

    def required(*extras):
        lines = arguments["install_requires"] + [line for e in extras for line in arguments["extras_require"][e]]
        return {re.match(r"[\w-]+", line).group().lower().replace("-", "_") for line in lines}

    def imported(*folders):
        for path in [p for f in folders for p in (ROOT / f).rglob("*.py")]:
            for node in ast.walk(ast.parse(path.read_text())):
                found = [a.name for a in node.names] if isinstance(node, ast.Import) else (
                    [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])
                yield from (name.split(".")[0] for name in found)

    own = {p.stem for folder in ("tests", "benches") for p in (ROOT / folder).rglob("*.py")}
    # transformers only makes tests/data/clip, by hand: it would weigh more than all else that the tests install.
    own |= {"rtinteract", "imageio_ffmpeg", "setuptools", "transformers"}
    for folders, extras in ((("rtinteract", "kernels"), ("demo",)), (("training", "rtinteract"), ("train", "demo")),
                            (("tests", "benches", "training"), ("test",))):
        missing = {names.get(n, n) for n in imported(*folders) if n not in sys.stdlib_module_names | own} - required(*extras)
        assert not missing, f"{folders} import {missing}, which {extras} do not bring"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].replace("-", "_") for line in lines if "==" in line}
    assert required("demo", "train", "test", "view") <= pinned


def test_the_readme_holds_the_two_commands_and_ci_runs_the_second():
    blocks = re.findall(r"```\w*\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert DEMO in blocks and TEST in blocks
    done = subprocess.run(["grep", "-E", re.search(r'grep -E "(.*?)" README', (ROOT / ".ci/run").read_text()).group(1),
                           "README.md"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [TEST]


def test_ci_fails_when_the_readme_holds_no_command(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    for readme, code in (("nothing here\n", 1), ("python3 -m venv --help && false -m pytest\n", 1)):
        (tmp_path / "README.md").write_text(readme)
        assert subprocess.run(["bash", ".ci/run"], cwd=tmp_path, capture_output=True).returncode == code


def test_the_shipped_model_is_small_and_has_a_card():
    path = ROOT / "rtinteract/assets/model.safetensors"
    if not path.is_file():
        pytest.skip("rtinteract/assets/model.safetensors is not there yet")
    assert path.stat().st_size <= 12 * 2**20
    model = rtinteract.load(device="cpu")
    assert model.config.text.kind == "bpe" and model.card
