"""Build of rtinteract: `kernels/` and `training/` are mapped into the package, both names being taken elsewhere.

The engine's library, its Python host and `rtinteract._native` are built where there is a C++ compiler (and pybind11, for the last
two); without, the package is pure Python.
"""

import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

INFERENCE = [
    "torch>=2.10", "numpy>=1.26", "safetensors>=0.5", "tokenizers>=0.20", "triton>=3.5; sys_platform == 'linux'", "typer>=0.15",
]
VIEW = ["pillow>=11"]
GLTF = ["pygltflib>=1.16"]
TRAIN = ["tqdm>=4.66", "tensorboard>=2.17", "scipy>=1.13", "h5py>=3.11"] + VIEW

FLAGS = ["-std=c++17", "-O3", "-fvisibility=hidden"]
# For the session core. Roots and choices cost no branch, so that loops over joints become vector instructions; and code stays
# small, because a tick finds it out of the caches.
QUICK = ["-O2", "-ftree-vectorize", "-fno-math-errno", "-fno-trapping-math"]


def native_extensions():
    """The core library, then what links or loads it."""
    libpython = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "none")
    python = {"RTI_PYTHON_EXECUTABLE": sys.executable, "RTI_PYTHON_LIBRARY": libpython if libpython.is_file() else ""}
    core = Extension("rtinteract.librtinteract", sorted(p.as_posix() for p in Path("csrc/src").glob("*.cpp")), language="c++",
                     optional=True, extra_compile_args=FLAGS + QUICK, libraries=["dl", "pthread"],
                     define_macros=[("RTI_BUILD", "1"), ("RTI_BUILD_FLAGS", f'"{" ".join(FLAGS + QUICK)}"')]
                     + [(k, f'"{v}"') for k, v in python.items()],
                     extra_link_args=["-Wl,--version-script=csrc/rtinteract.map", "-Wl,-soname,librtinteract.so"])
    try:
        import pybind11
    except ImportError:
        return [core]
    options = {"language": "c++", "optional": True, "include_dirs": [pybind11.get_include()], "extra_compile_args": FLAGS}
    made = [core, Extension("rtinteract.librtinteract_python", ["csrc/python/host.cpp"], **options),
            Extension("rtinteract._native", ["csrc/python/bindings.cpp"], libraries=["rtinteract"],
                      extra_link_args=["-Wl,-rpath,$ORIGIN"], **options)]
    if platform.machine().lower() in ("x86_64", "amd64"):
        made.append(Extension("rtinteract._cpu", sorted(p.as_posix() for p in Path("csrc/cpu").glob("*.cpp")),
                              libraries=["pthread"], **options))
    return made


class BuildNative(build_ext):
    """Plain names for the libraries that an engine links, and one of them on the path of the module that needs it."""

    def get_ext_filename(self, fullname):
        *folder, name = fullname.split(".")
        return "/".join([*folder, f"{name}.so"]) if name.startswith("lib") else super().get_ext_filename(fullname)

    def build_extension(self, ext):
        if ext.libraries == ["rtinteract"]:
            ext.library_dirs = [str(Path(self.get_ext_fullpath("rtinteract.librtinteract")).parent)]
        super().build_extension(ext)


setup(
    name="rtinteract",
    version="0.1.0",
    description="Embeddable real-time runtime for two-person motion",
    license="MIT",
    python_requires=">=3.11",
    packages=["rtinteract", "rtinteract.cli", "rtinteract.motion", "rtinteract.features", "rtinteract.kernels",
              "rtinteract.training"],
    package_dir={"rtinteract.kernels": "kernels", "rtinteract.training": "training"},
    package_data={"rtinteract": ["assets/*"]},
    ext_modules=native_extensions(),
    cmdclass={"build_ext": BuildNative},
    install_requires=INFERENCE,
    extras_require={
        "demo": VIEW + GLTF,
        "view": VIEW,
        "train": TRAIN,
        "test": ["pybind11>=2.13", "pytest>=8", "pytest-benchmark>=5", "pytest-xdist>=3.6", "ruff>=0.9"] + TRAIN + GLTF,
    },
    entry_points={"console_scripts": ["rtinteract=rtinteract.cli:main"]},
)
