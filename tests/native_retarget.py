"""The C++ retargeting, compiled from its sources and called through ctypes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np

from rtinteract.motion import axes as axes_named

ROOT = Path(__file__).resolve().parents[1]
COMPILER = shutil.which("g++") or shutil.which("clang++")
SOURCES = [ROOT / "csrc" / "src" / f"{name}.cpp" for name in ("jointmap", "restpose", "retarget", "skeleton", "skeleton_tables")]
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-fPIC", "-shared"]
MODEL_AXES = axes_named("rtinteract")


def compiled(folder, *flags) -> ctypes.CDLL:
    """The library; a warning is an error."""
    out = folder / "retarget.so"
    shim = ROOT / "tests" / "native" / "retarget_shim.cpp"
    result = subprocess.run([COMPILER, *FLAGS, *flags, *map(str, SOURCES), str(shim), "-o", str(out)], capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    lib = ctypes.CDLL(str(out))
    lib.shim_allocations.restype = ctypes.c_long
    lib.shim_scale.restype = ctypes.c_float
    for name in ("shim_preset", "shim_create"):
        getattr(lib, name).restype = ctypes.c_void_p
    return lib


def floats(array):
    array = np.ascontiguousarray(array, dtype=np.float32)
    return array, array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def words(names):
    return (ctypes.c_char_p * len(names))(*[n.encode() for n in names])


class Native:
    """One Retarget of the library: of a preset, or of a skeleton's rest pose in the engine's axes and unit."""

    def __init__(self, lib, handle, error):
        if not handle:
            raise ValueError(error.value.decode())
        self.lib, self.handle = lib, ctypes.c_void_p(handle)
        self.joints = lib.shim_joints(self.handle)

    @classmethod
    def preset(cls, lib, name, axes):
        error = ctypes.create_string_buffer(4096)
        return cls(lib, lib.shim_preset(name.encode(), axes.encode(), error, 4096), error)

    @classmethod
    def of(cls, lib, names, parents, translations, rotations, axes=MODEL_AXES):
        error = ctypes.create_string_buffer(4096)
        keep = [floats(a) for a in (translations, axes.to_model)]
        turns = None if rotations is None else floats(rotations)
        tree = (ctypes.c_int32 * len(parents))(*parents)
        handle = lib.shim_create(len(names), words(names), tree, keep[0][1], turns and turns[1], keep[1][1],
                                 ctypes.c_float(axes.metres_per_unit), error, 4096)
        return cls(lib, handle, error)

    @property
    def scale(self):
        return self.lib.shim_scale(self.handle)

    def _run(self, function, root, local, joints):
        keep = [floats(root), floats(local)]
        out = [floats(np.zeros((len(root), 3))), floats(np.zeros((len(root), joints, 4)))]
        function(self.handle, len(root), keep[0][1], keep[1][1], out[0][1], out[1][1])
        return out[0][0], out[1][0]

    def to_model(self, root, local):
        return self._run(self.lib.shim_to_model, root, local, 22)

    def from_model(self, root, local):
        return self._run(self.lib.shim_from_model, root, local, self.joints)

    def reach(self, own, other, partner_map, partner, pose):
        keep = [floats(a) for pair in (own, other, partner, (pose[0],)) for a in pair]
        out = floats(np.array(pose[1]))
        self.lib.shim_reach(self.handle, partner_map.handle, len(pose[0]), *(p for _, p in keep), out[1])
        return out[0]


def roles_of(lib, names):
    error, out = ctypes.create_string_buffer(4096), (ctypes.c_int32 * 22)()
    if not lib.shim_roles(len(names), words(names), out, error, 4096):
        raise ValueError(error.value.decode())
    return list(out)
