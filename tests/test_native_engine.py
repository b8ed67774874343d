"""The library as an engine gets it: the C example in a process of its own, the CMake package, a second compiler, C#."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import native_lanes as native
import pytest
from test_abi_header import STRUCTS

EXAMPLES = native.CSRC / "examples"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """engine_loop, compiled as strict C against the installed library; returns a function that runs it."""
    library, out = native.installed(), tmp_path_factory.mktemp("engine") / "engine_loop"
    native.run(native.compiler(), "-x", "c", "-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
               EXAMPLES / "engine_loop.c", "-x", "none", library, f"-Wl,-rpath,{library.parent}", "-lm", "-o", out)

    def run(*arguments, **environment):
        done = subprocess.run([out, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                              env={**os.environ, **environment})
        assert done.returncode == 0 and "could not be shown: 0 " in done.stdout, done.stdout + done.stderr
        return done

    return run


def test_a_process_without_a_model_carries_no_python(engine):
    done = engine("--seconds", 0.3, "--model", "/nowhere/model.safetensors", LD_DEBUG="files")
    assert "expected a model file" in done.stdout and "librtinteract" in done.stderr and "python" not in done.stderr


def test_missing_and_broken_pythons_stop_no_frame(engine):
    assert "expected a shared libpython" in engine("--seconds", 0.5, "--python-library", "/nowhere/libpython.so").stdout
    if "python_library" not in (done := engine("--seconds", 0.5, "--python", "/nowhere/bin/python")).stdout:
        assert "npc 1: 0 plans" in done.stdout and "warm-up: " in done.stdout


def test_an_embedded_python_plans(engine, small_model_path):
    native.installed("librtinteract_python.so")
    done = engine("--seconds", 4, "--npcs", 3, "--model", small_model_path)
    if "expected a shared libpython" in done.stdout:
        pytest.skip("this Python has no shared libpython to embed")
    print(done.stdout)
    plans = re.findall(r"npc \d: (\d+) plans, 0 failed", done.stdout)
    assert len(plans) == 3 and all(int(n) > 0 for n in plans)
    way = re.search(r"last pushed tick to first new pose +([\d.]+) +([\d.]+) +([\d.]+)  ms", done.stdout)
    # Ticks are 17 ms apart here, and a hop of the tiny model takes a few.
    assert way and 0 < float(way[1]) <= float(way[3]) < 1000


def test_cmake_installs_a_package_that_an_engine_finds(tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    sdk, user = tmp_path / "sdk", tmp_path / "user"
    quick = ["-DCMAKE_BUILD_TYPE=Debug", f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON"]
    native.run("cmake", "-S", native.CSRC, "-B", tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={sdk}", *quick)
    native.run("cmake", "--build", tmp_path / "build", "--parallel", str(os.cpu_count()))
    native.run("cmake", "--install", tmp_path / "build")
    user.mkdir()
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(user C)\nfind_package(rtinteract 0.1 REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user rtinteract::rtinteract)\n")
    (user / "main.c").write_text("#include <rtinteract.h>\nint main(void) { return rti_abi_version() != RTI_ABI_VERSION; }\n")
    native.run("cmake", "-S", user, "-B", user / "build", f"-DCMAKE_PREFIX_PATH={sdk}")
    native.run("cmake", "--build", user / "build")
    native.run(user / "build/user")


def test_clang_takes_the_core(tmp_path):
    """Strictly, so that other compilers may be expected to take it too."""
    if find_spec("ziglang") is None and not shutil.which("clang++"):
        pytest.skip("needs clang++, or ziglang from a package index")
    clang = ["clang++"] if shutil.which("clang++") else [sys.executable, "-m", "ziglang", "c++"]
    for source in native.CORE:
        native.run(*clang, "-std=c++17", "-pedantic", "-pedantic-errors", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-c", source,
                   "-o", tmp_path / "object.o")


def test_csharp_declares_the_whole_abi(tmp_path):
    text, header = (EXAMPLES / "RtInteract.cs").read_text(), (native.CSRC / "include/rtinteract.h").read_text()
    declared = set(re.findall(r"extern \w+ (rti_\w+)\(", text))
    assert declared == set(re.findall(r"RTI_API [^;(]*?(rti_\w+)\(", header)) and len(declared) == 21
    assert int(re.search(r"AbiVersion = (\w+)", text)[1], 16) == int(re.search(r"RTI_ABI_VERSION (\w+)u", header)[1], 16)
    mcs, mono = shutil.which("mcs"), shutil.which("mono")
    if not (mcs and mono):
        pytest.skip("needs mono and its mcs")
    names = {"ModelDesc": "rti_model_desc", "SkeletonDesc": "rti_skeleton_desc", "SessionDesc": "rti_session_desc",
             "Pose": "rti_pose", "PullInfo": "rti_pull_info", "Stats": "rti_stats"}
    lines = [f'System.Console.WriteLine("{c} " + System.Runtime.InteropServices.Marshal.SizeOf<RtInteract.{cs}>());'
             for cs, c in names.items()]
    (tmp_path / "Sizes.cs").write_text("class Sizes { static void Main() { " + " ".join(lines) + " } }")
    native.run(mcs, "-main:Sizes", f"-out:{tmp_path / 'sizes.exe'}", EXAMPLES / "RtInteract.cs", tmp_path / "Sizes.cs")
    told = {k: int(v) for k, v in (line.split() for line in native.run(mono, tmp_path / "sizes.exe").splitlines())}
    assert told == {name: size for name, (size, _) in STRUCTS.items()}


def test_csharp(tmp_path):
    if not (mcs := shutil.which("mcs")):
        pytest.skip("needs mono's mcs")
    native.run(mcs, "-warnaserror", f"-out:{tmp_path / 'example.exe'}", EXAMPLES / "RtInteract.cs")
    if shutil.which("mono"):
        done = subprocess.run(["mono", tmp_path / "example.exe", "no-model"], capture_output=True, text=True,
                              env={**os.environ, "LD_LIBRARY_PATH": str(Path(native.installed()).parent)})
        assert done.returncode == 0 and "the reactor stands" in done.stdout, done.stderr
        assert "120 pushed, 120 pulled" in done.stdout


def test_a_real_engine_draws_two_people(small_model_path, tmp_path):
    pytest.importorskip("panda3d", reason="needs panda3d from a package index")
    native.installed("librtinteract_python.so")
    picture = tmp_path / "picture.png"
    actor = native.ROOT / "rtinteract/assets/actor.npz"
    native.run(sys.executable, EXAMPLES / "panda_engine.py", actor, picture, "--seconds", "4", "--model", small_model_path)
    image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    colours = image.getcolors(2**20)
    orange = sum(n for n, (r, g, b) in colours if r > 1.5 * g and g > b)
    blue = sum(n for n, (r, g, b) in colours if b > 1.4 * g)
    assert orange > 3000 and blue > 3000
