"""doctor: what was found on this machine, and what is chosen from it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import shutil
import sysconfig
from pathlib import Path

import torch
import typer

import rtinteract
from rtinteract.config import TransformerConfig
from rtinteract.kernels.backend import backend_of
from rtinteract.native import why_not
from rtinteract.precision import INT8_WIDTH, choose

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}
_PACKAGES = {"torch": "", "triton": "", "numpy": "", "safetensors": "", "tokenizers": "", "pygltflib": "demo", "pillow": "view",
             "tqdm": "train", "tensorboard": "train", "scipy": "train"}


def _cpu_flags() -> list[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return []
    words = set(info.read_text(errors="replace").split())
    return [f for f in _FLAGS if f in words]


def _version(package: str, extra: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed" + (f": pip install 'rtinteract[{extra}]'" if extra else "")


def _gpus() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("gpu", "none that torch can use"), ("device", "cpu: torch sees no GPU")]
    rows = []
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        kind = getattr(p, "gcnArchName", "") if torch.version.hip else f"sm_{p.major}{p.minor}"
        rows.append((f"gpu {i}", f"{p.name}, {kind}, {p.total_memory / 2**30:.0f} GiB, bf16 "
                     f"{'yes' if torch.cuda.is_bf16_supported() else 'no'}"))
    return rows + [("device", "cuda: torch sees a GPU")]


def _shipped() -> str:
    path = Path(rtinteract.__file__).parent / "assets" / "model.safetensors"
    if not path.is_file():
        return "missing: reinstall the package, or give --model"
    try:
        config = rtinteract.load(path, device="cpu").config
    except rtinteract.RtInteractError as error:
        return f"damaged: {error}"
    return f"{config.name}, {path.stat().st_size / 2**20:.1f} MiB, {config.representation}, window {config.window} frames"


def _native_rows() -> list[tuple[str, str]]:
    """What an engine links, what embeds Python in it, and what Python imports of both."""
    remedy = "not built: install the package again where there is a C++ compiler and pybind11"
    folder, rows = Path(rtinteract.__file__).parent, []
    library, host = folder / "librtinteract.so", folder / "librtinteract_python.so"
    if library.is_file():
        try:
            loaded = ctypes.CDLL(str(library))
            version = loaded.rti_abi_version()
            loaded.rti_build_info.restype = ctypes.c_char_p
            built = loaded.rti_build_info().decode()
            rows.append(("engine library", f"{library}, ABI {version >> 16}.{version & 0xFFFF}; {built}"))
        except (OSError, AttributeError) as error:
            rows.append(("engine library", f"{library} cannot be used: {error}; install again"))
    else:
        rows.append(("engine library", remedy))
    rows.append(("engine's Python", f"{host}" if host.is_file() else remedy))
    libpython = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "none")
    shared = libpython.is_file() and libpython.suffix != ".a"
    rows.append(("libpython", str(libpython) if shared else "not shared: give an engine rti_model_desc.python_library"))
    try:
        rows.append(("_native", importlib.import_module("rtinteract._native").__file__))
    except ImportError as error:
        rows.append(("_native", f"{remedy} ({error})"))
    return rows


def _pass(device: torch.device) -> str:
    dtype = choose("auto", device)[0]
    reason = why_not(device, TransformerConfig(), dtype)
    features = "AVX2" if dtype == torch.float32 else "AVX-512"
    return f"layer by layer: {reason}" if reason else f"one C++ call a pass for {features} (rtinteract._cpu)"


def findings() -> list[tuple[str, str]]:
    """Pairs of a name and what was found; the last ones say what is chosen and why."""
    rows = [("rtinteract", rtinteract.__version__),
            ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += [(package, _version(package, extra)) for package, extra in _PACKAGES.items()]
    rows.append(("ffmpeg", shutil.which("ffmpeg") or "not found: .mp4 cannot be written, .gif can"))
    flags = _cpu_flags()
    rows += [("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}; {' '.join(flags) or 'no flags known'}"),
             ("cpu bf16", "yes" if _BF16 & set(flags) else "no"), ("cpu int8 (VNNI)", "yes" if _INT8 & set(flags) else "no")]
    rows += _native_rows() + _gpus()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    narrow, wide = ("{}: {}".format(str(dtype).removeprefix("torch."), why) for dtype, why in
                    (choose("auto", device), choose("auto", device, INT8_WIDTH)))
    rows += [("backend", "{}: {}".format(*backend_of(device))),
             ("precision", narrow), ("of wide models", wide),
             ("transformer", _pass(device)), ("shipped model", _shipped())]
    return rows


def doctor() -> None:
    """Say what was found here: libraries, processor, GPU, the shipped model, and what is chosen and why.

    Example: rtinteract doctor
    """
    for name, value in findings():
        typer.echo(f"{name:16} {value}")
