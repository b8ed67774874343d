"""The core as a Windows library: cross-compiled by zig's clang, its exports, and its tests where Wine runs them."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import native_lanes as native
import pytest

TARGET = ["-target", "x86_64-windows-gnu"]
STRICT = ["-std=c++17", "-pedantic-errors", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
# A loader of engines that links nothing but the header's functions.
PROGRAM = r"""
#include <rtinteract.h>
#include <stdio.h>
int main(void) {
    rti_session_desc desc = RTI_SESSION_DESC_INIT;
    rti_pose pose = RTI_POSE_INIT;
    rti_pull_info info = RTI_PULL_INFO_INIT;
    rti_stats stats = RTI_STATS_INIT;
    rti_session *session = NULL;
    rti_model_desc nowhere = RTI_MODEL_DESC_INIT;
    rti_model *model = NULL;
    float rotations[88];
    int i, j;
    desc.flags = RTI_FLAG_FOOT_LOCK | RTI_FLAG_PUSH_OUT | RTI_FLAG_HANDS;
    if (rti_abi_version() != RTI_ABI_VERSION || rti_session_create(NULL, &desc, &session) != RTI_OK) return 1;
    pose.joint_count = 22;
    pose.rotations = rotations;
    for (i = 0; i < 600; ++i) {
        for (j = 0; j < 88; ++j) rotations[j] = j % 4 == 0;
        pose.root[0] = pose.root[2] = 0;
        pose.root[1] = 0.94f;
        if (rti_session_push_pose(session, RTI_ACTOR, i / 60.0, &pose) != RTI_OK) return 2;
        if (rti_session_pull_pose(session, i / 60.0, &pose, &info) != RTI_NOT_READY) return 3;
    }
    if (rti_session_stats(session, &stats) != RTI_OK || stats.pulled != 600 || stats.pull_us[0] <= 0) return 4;
    rti_session_destroy(&session);
    nowhere.path = "C:\\nowhere\\model.safetensors";
    if (rti_model_load(&nowhere, &model) != RTI_E_FILE) return 5;
    nowhere.path = NULL;
    nowhere.python_library = "C:\\nowhere\\python.dll";
    if (rti_model_load(&nowhere, &model) != RTI_OK || rti_model_wait(model, 30) != RTI_E_PYTHON) return 6;
    rti_model_destroy(&model);
    puts("sound");
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """(the library, its import library)"""
    if find_spec("ziglang") is None:
        pytest.skip("needs ziglang from a package index")
    out = tmp_path_factory.mktemp("windows")
    native.run(sys.executable, "-m", "ziglang", "c++", *TARGET, *STRICT, "-O1", "-DRTI_BUILD", "-shared", *native.CORE,
               f"-Wl,--out-implib={out / 'rtinteract.lib'}", "-o", out / "rtinteract.dll")
    return out / "rtinteract.dll", out / "rtinteract.lib"


def test_a_windows_library_exports_the_abi_alone(library):
    if not shutil.which("objdump"):
        pytest.skip("needs objdump")
    done = subprocess.run(["objdump", "-p", library[0]], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this objdump reads no Windows libraries")
    table = done.stdout.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    declared = re.findall(r"RTI_API [^;(]*?(rti_\w+)\(", (native.CSRC / "include/rtinteract.h").read_text())
    assert set(re.findall(r"\] (?:\+base\[ *\d+\] +\w+ )?(\w+)$", table, re.M)) == set(declared)


def test_a_windows_library_runs(library, tmp_path):
    wine = shutil.which("wine64") or shutil.which("wine") or shutil.which("/usr/lib/wine/wine64")
    if not wine:
        pytest.skip("needs Wine")
    (tmp_path / "program.c").write_text(PROGRAM)
    program = library[0].with_name("program.exe")
    native.run(sys.executable, "-m", "ziglang", "cc", *TARGET, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
               f"-I{native.CSRC / 'include'}", tmp_path / "program.c", library[1], "-o", program)
    done = subprocess.run([wine, program], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"})
    assert done.returncode == 0 and "sound" in done.stdout, done.stdout + done.stderr
