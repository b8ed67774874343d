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
# plain: as the library is shipped (hidden but for its exports, QUICK of setup.py). portable: as on a processor whose registers
# the core does not know.
LANES = {
    "plain": ["-O2", "-ftree-vectorize", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fvisibility=hidden"],
    "address": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-g", "-fsanitize=thread"],
    "portable": ["-O1", "-DRTI_NO_QUADS"],
}
CORE = sorted((CSRC / "src").glob("*.cpp"))


def compiler() -> str:
    """The C++ compiler; the test skips without one."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not found:
        pytest.skip("needs a C++ compiler")
    return found


@cache
def _common() -> bytes:
    """What every build reads: the headers, and which compiler it is."""
    version = subprocess.run([compiler(), "--version"], capture_output=True).stdout
    return version + b"".join(p.read_bytes() for p in sorted([*CSRC.rglob("*.h"), *NATIVE.glob("*.h")]))


def _named(lane: str, name: str, suffix: str, *contents: bytes) -> Path:
    """Where something made of these contents lies in a lane."""
    digest = hashlib.sha256(b"\0".join([repr(WARNINGS + LANES[lane]).encode(), *contents])).hexdigest()[:16]
    folder = ROOT / "build/native-tests" / lane
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{digest}{suffix}"


def _made(out: Path, *command) -> Path:
    """Run a command that ends in the file's name, unless the file is there; whole or not at all."""
    if not out.is_file():
        part = out.with_name(f"{os.getpid()}-{out.name}")
        run(*command, part)
        part.rename(out)
    return out


def run(*command) -> str:
    """A command's output; the test fails with all of it where the command does."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def linked(lane: str, name: str, sources: list[Path], *options: str) -> Path:
    """A program (or with -shared a library) of sources in a lane."""
    flags = LANES[lane]

    def one(source: Path) -> Path:
        out = _named(lane, source.stem, ".o", _common(), source.read_bytes())
        return _made(out, compiler(), *WARNINGS, *flags, "-c", source, "-o")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(one, sources))
    out = _named(lane, name, ".so" if "-shared" in options else "", repr(([o.name for o in objects], options)).encode())
    return _made(out, compiler(), *flags, "-pthread", *objects, *options, "-ldl", "-o")


def core_tests(lane: str) -> Path:
    """The program that runs the C++ tests of the core."""
    return linked(lane, "core-tests", CORE + [NATIVE / "main.cpp"] + sorted(NATIVE.glob("test_*.cpp")))


def installed(name: str = "librtinteract.so") -> Path:
    """A library that `pip install` built into the package; the test skips where it built none."""
    path = ROOT / "rtinteract" / name
    if not path.is_file():
        pytest.skip(f"rtinteract/{name} was not built: install the package where there is a C++ compiler and pybind11")
    return path
