"""Whether Triton is here, and which tensors go through its kernels."""

from __future__ import annotations

import functools
import os

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    # Triton is published for Linux only; elsewhere every operation takes its reference.
    triton = tl = None

OLDEST = (8, 0)
INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8")
BF16_FEATURES = ("avx512_bf16", "amx_bf16")


def reference_only() -> bool:
    """Whether the environment asks for the plain path everywhere: RTI_BACKEND=reference."""
    return os.environ.get("RTI_BACKEND") == "reference"


def cpu_has(names: tuple[str, ...]) -> bool:
    """Whether this processor has one of the named features, as `torch.cpu.get_capabilities` calls them."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in names)


def cpu_has_all(names: tuple[str, ...]) -> bool:
    """Whether this processor has all of the named features, as `torch.cpu.get_capabilities` calls them."""
    return all(cpu_has((name,)) for name in names)


_sums_int8 = functools.cache(lambda: cpu_has(INT8_FEATURES))


def cpu_sums_int8(x: torch.Tensor) -> bool:
    """Whether int8 products with ``x`` go through torch's integer matrix product: on a CPU whose int8 dot products sum in int32
    (VNNI, AMX). Older ones sum pairs in int16 first, which overflows; they take the reference."""
    return x.device.type == "cpu" and not reference_only() and _sums_int8()


def jit(function):
    """`triton.jit` where Triton is; the function itself elsewhere, where nothing launches it."""
    return function if triton is None else triton.jit(function)


@functools.cache
def _modern(index: int) -> bool:
    return bool(torch.version.hip) or torch.cuda.get_device_capability(index) >= OLDEST


def use_triton(x: torch.Tensor) -> bool:
    """Whether an operation on ``x`` launches its kernel: where RTI_BACKEND=triton asks for it, on a GPU of compute capability 8.0
    or newer (or ROCm), and unless a gradient is asked for, which kernels do not have. All else takes the reference.

    The kernels are not the default because they have been interpreted and compiled, but not yet run on a GPU.
    """
    return (x.is_cuda and triton is not None and os.environ.get("RTI_BACKEND") == "triton"
            and not (torch.is_grad_enabled() and x.requires_grad) and _modern(x.device.index or 0))


def backend_of(device: torch.device) -> tuple[str, str]:
    """The backend that operations take on a device, and why: ("triton" | "reference", reason)."""
    if reference_only():
        return "reference", "RTI_BACKEND=reference asks for it"
    if device.type != "cuda":
        return "reference", "plain torch: kernels are for GPUs"
    if triton is None:
        return "reference", "plain torch: Triton is not installed"
    if not _modern(device.index or 0):
        return "reference", f"plain torch: kernels need compute capability {OLDEST[0]}.{OLDEST[1]} or newer"
    if os.environ.get("RTI_BACKEND") != "triton":
        return "reference", "plain torch: RTI_BACKEND=triton takes the fused kernels, which have not yet run on a GPU"
    return "triton", "RTI_BACKEND=triton asks for it"
