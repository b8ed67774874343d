"""doctor: what was found on this machine, and what is chosen from it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch
import typer

import rtinteract

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
_PACKAGES = ("torch", "triton", "numpy", "safetensors", "tokenizers", "matplotlib", "pillow", "pygltflib", "tqdm", "tensorboard")


def _cpu_flags() -> list[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return []
    words = set(info.read_text(errors="replace").split())
    return [f for f in _FLAGS if f in words]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def findings() -> list[tuple[str, str]]:
    """Pairs of a name and what was found; the last ones say what is chosen and why."""
    rows = [("rtinteract", rtinteract.__version__), ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += [(package, _version(package)) for package in _PACKAGES]
    flags = _cpu_flags()
    rows += [("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads; {' '.join(flags) or 'no flags known'}"),
             ("cpu bf16", "yes" if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else "no"),
             ("cpu int8 dot", "yes" if {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"} & set(flags) else "no")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            rows.append((f"gpu {i}", f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB"))
        rows.append(("device", "cuda: torch sees a GPU"))
    else:
        rows += [("gpu", "none that torch can use"), ("device", "cpu: torch sees no GPU")]
    rows.append(("backend", "reference (plain torch): fused kernels are not part of this version"))
    rows.append(("precision", "float32: the only one of this version"))
    shipped = Path(rtinteract.__file__).parent / "assets" / "model.safetensors"
    rows.append(("shipped model", f"{shipped.stat().st_size / 2**20:.1f} MiB" if shipped.is_file() else "missing: reinstall"))
    return rows


def doctor() -> None:
    """Say what was found here: libraries, processor, GPU, the shipped model, and what is chosen and why."""
    for name, value in findings():
        typer.echo(f"{name:16} {value}")
