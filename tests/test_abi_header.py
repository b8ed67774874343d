"""The header as C and as C++, the layout of its structs, and what old and new callers meet."""

import ctypes
import re
import shutil
import sys

import native_lanes as native
import pytest

HEADER = native.CSRC / "include/rtinteract.h"
STRUCTS = {
    "rti_model_desc": (104, {"abi_version": 4, "path": 8, "data_size": 24, "threads": 48, "vram_limit": 56, "log_user": 96}),
    "rti_skeleton_desc": (96, {"axes": 4, "preset": 8, "metres_per_unit": 20, "names": 24, "rest_rotations": 48, "basis": 56}),
    "rti_pose": (32, {"joint_count": 4, "root": 8, "rotations": 24}),
    "rti_session_desc": (104, {"actor": 8, "prompt": 24, "seed": 32, "window": 40, "flags": 56, "blend_s": 60, "idle": 72,
                               "foot_lock": 88, "hands": 96}),
    "rti_pull_info": (64, {"state": 4, "plan": 8, "plan_age_s": 16, "root_delta": 24, "root_turn": 36, "penetration": 56}),
    "rti_stats": (192, {"state": 4, "pushed": 8, "fallbacks": 88, "push_us": 96, "reaction_us": 168}),
}


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_is_clean_and_its_layout_is_pinned(language, tmp_path):
    lines = ['#include "rtinteract.h"', "#include <stdio.h>", "int main(void) {"]
    for name, (_, fields) in STRUCTS.items():
        macro = name.upper() + "_INIT"
        lines.append(f'{{ {name} x = {macro}; printf("{name} %u\\n", (unsigned)x.struct_size); }}')
        lines += [f'printf("{name}.{f} %u\\n", (unsigned)offsetof({name}, {f}));' for f in fields]
    source = tmp_path / ("pins.c" if language == "c" else "pins.cpp")
    source.write_text("\n".join([*lines, "return 0; }"]))
    standard = ["-x", "c", "-std=c99"] if language == "c" else ["-std=c++17"]
    native.run(native.compiler(), *standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{HEADER.parent}", source, "-o",
               tmp_path / "pins")
    told = {k: int(v) for k, v in (line.split() for line in native.run(tmp_path / "pins").splitlines())}
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("layouts are pinned for 64-bit machines")
    assert told == {name: size for name, (size, _) in STRUCTS.items()} | {
        f"{name}.{f}": at for name, (_, fields) in STRUCTS.items() for f, at in fields.items()}


@pytest.fixture(scope="module")
def library():
    script = f"-Wl,--version-script={native.CSRC / 'rtinteract.map'}"
    made = native.linked("plain", "librtinteract", native.CORE, "-shared", *([script] if sys.platform == "linux" else []))
    return ctypes.CDLL(str(made))


def test_only_the_abi_is_exported(library):
    if not shutil.which("nm"):
        pytest.skip("needs nm")
    names = [line.split()[-1] for line in native.run("nm", "-D", "--defined-only", library._name).splitlines()]
    declared = set(re.findall(r"RTI_API [^;(]*?(rti_\w+)\(", HEADER.read_text()))
    assert set(names) == declared and len(declared) == 21


class SessionDesc(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("abi_version", ctypes.c_uint32), ("actor", ctypes.c_void_p),
                ("reactor", ctypes.c_void_p), ("prompt", ctypes.c_char_p), ("seed", ctypes.c_uint64),
                ("frames", ctypes.c_int32 * 4), ("flags", ctypes.c_uint32), ("seconds", ctypes.c_float * 3),
                ("idle", ctypes.c_void_p), ("idle_count", ctypes.c_int32), ("reserved", ctypes.c_int32),
                ("strengths", ctypes.c_float * 4), ("of_a_newer_header", ctypes.c_uint64)]


def create(library, **fields):
    """The status of a session without a model, and the reason."""
    desc = SessionDesc(struct_size=104, abi_version=0x00010001, seconds=(0.25, 0.4, 2.0), strengths=(1, 1, 1, 0))
    for name, value in fields.items():
        setattr(desc, name, value)
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(400)
    status = library.rti_session_create(None, ctypes.byref(desc), ctypes.byref(handle))
    library.rti_last_error.restype = ctypes.c_size_t
    library.rti_last_error(text, ctypes.c_size_t(400))
    assert bool(handle) == (status == 0)
    library.rti_session_destroy(ctypes.byref(handle))
    assert not handle
    return status, text.value.decode()


def test_versions_and_sizes_are_negotiated(library):
    assert create(library)[0] == 0
    # A newer header of the same minor: fields that this library lacks are not read.
    assert create(library, struct_size=112, of_a_newer_header=2**63)[0] == 0
    # A caller of the first edition: what lies after its struct is none of it.
    assert create(library, struct_size=88, abi_version=0x00010000, strengths=(-1, 9, float("nan"), 0))[0] == 0
    for fields in ({"struct_size": 40}, {"struct_size": 0}, {"struct_size": 2**31}, {"abi_version": 0x00010002},
                   {"abi_version": 0x00020000}, {"abi_version": 0}, {"flags": 1 << 30}):
        status, text = create(library, **fields)
        assert status == -2 and "expected" in text and "; " in text, (fields, text)


def test_arguments_are_checked(library):
    for fields in ({"frames": (6, 0, 0, 0)}, {"frames": (0, 128, 0, 0)}, {"frames": (0, 0, -4, 0)}, {"seconds": (-1, 0, 0)},
                   {"seconds": (float("nan"), 0, 0)}, {"idle_count": 3}, {"strengths": (1, 1.5, 1, 0)}):
        status, text = create(library, **fields)
        assert status == -1 and "expected" in text, (fields, text)
    assert library.rti_session_create(None, None, None) == -1
    assert library.rti_session_push_pose(None, 0, ctypes.c_double(0), None) == -1
    assert library.rti_session_pull_pose(None, ctypes.c_double(0), None, None) == -1
    assert library.rti_session_ready(None) == library.rti_session_reset(None) == -1
    library.rti_model_destroy(None)
    library.rti_session_destroy(None)


def test_an_older_reader_of_statistics_gets_no_more_than_it_knows(library):
    desc, handle = SessionDesc(struct_size=88, abi_version=0x00010000), ctypes.c_void_p()
    assert library.rti_session_create(None, ctypes.byref(desc), ctypes.byref(handle)) == 0
    stats = (ctypes.c_uint8 * 192)(*[0xAA] * 192)
    ctypes.cast(stats, ctypes.POINTER(ctypes.c_uint32))[0] = 16
    assert library.rti_session_stats(handle, stats) == 0
    assert bytes(stats[8:16]) == b"\0" * 8 and set(stats[16:]) == {0xAA}
    library.rti_session_destroy(ctypes.byref(handle))


def test_models_are_refused_before_anything_starts(library, tmp_path):
    class ModelDesc(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_uint32), ("abi_version", ctypes.c_uint32), ("path", ctypes.c_char_p),
                    ("data", ctypes.c_char_p), ("data_size", ctypes.c_size_t), ("rest", ctypes.c_uint8 * 72)]

    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no model at all")
    for fields, expected in (({"path": b"/nowhere/model.safetensors"}, -6), ({"path": str(garbage).encode()}, -7),
                             ({"data": b"short", "data_size": 5}, -7), ({"path": b"a", "data": b"b"}, -1)):
        handle = ctypes.c_void_p()
        desc = ModelDesc(struct_size=104, abi_version=0x00010000, **fields)
        assert library.rti_model_load(ctypes.byref(desc), ctypes.byref(handle)) == expected and not handle
