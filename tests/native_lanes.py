"""Builds of the session core for the tests: compiled once for a state of the sources, kept under build/."""

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC, NATIVE = ROOT / "csrc", ROOT / "tests/native"
WARNINGS = ["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-pthread"]
LANES = {
    "plain": ["-O2", "-fPIC"],
    "address": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-g", "-fsanitize=thread"],
}
CORE = sorted((CSRC / "src").glob("*.cpp"))


def compiler() -> str:
    """The C++ compiler; the test skips without one."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not found:
        pytest.skip("needs a C++ compiler")
    return found


@cache
def _state() -> str:
    """A digest of everything that a build reads, the compiler's version included."""
    digest = hashlib.sha256(subprocess.run([compiler(), "--version"], capture_output=True).stdout)
    for path in sorted([*CSRC.rglob("*.h"), *CSRC.rglob("*.cpp"), *NATIVE.glob("*")]):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr(sorted(LANES.items())).encode())
    return digest.hexdigest()[:16]


def folder(lane: str) -> Path:
    """Where a lane's build lies; those of other states of the sources are removed."""
    base = ROOT / "build/native-tests"
    for old in base.glob("*"):
        if old.name != _state():
            shutil.rmtree(old, ignore_errors=True)
    made = base / _state() / lane
    made.mkdir(parents=True, exist_ok=True)
    return made


def run(*command) -> str:
    """A command's output; the test fails with all of it where the command does."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def compiled(lane: str, sources: list[Path]) -> list[Path]:
    """Object files of sources in a lane, those that are there already left alone."""
    flags, where = WARNINGS + LANES[lane], folder(lane)

    def one(source: Path) -> Path:
        out = where / f"{source.parent.name}-{source.stem}.o"
        if not out.is_file():
            run(compiler(), *flags, "-c", source, "-o", out.with_suffix(".part"))
            out.with_suffix(".part").rename(out)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, sources))


def linked(lane: str, name: str, sources: list[Path], *options: str) -> Path:
    """A program (or with -shared a library) of sources in a lane."""
    out = folder(lane) / name
    if not out.is_file():
        run(compiler(), *LANES[lane], "-pthread", *compiled(lane, sources), "-o", out, *options, "-ldl")
    return out


def core_tests(lane: str) -> Path:
    """The program that runs the C++ tests of the core."""
    return linked(lane, "core-tests", CORE + [NATIVE / "main.cpp"] + sorted(NATIVE.glob("test_*.cpp")))


def installed(name: str = "librtinteract.so") -> Path:
    """A library that `pip install` built into the package; the test skips where it built none."""
    path = ROOT / "rtinteract" / name
    if not path.is_file():
        pytest.skip(f"rtinteract/{name} was not built: install the package where there is a C++ compiler and pybind11")
    return path
