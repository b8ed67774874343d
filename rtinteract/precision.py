"""In which number type the networks run: what was asked for, or what this processor does fastest."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from rtinteract.errors import ConfigError
from rtinteract.kernels.backend import reference_only

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Net = TypeVar("Net", bound=nn.Module)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 there (tensor cores, AMX, AVX-512 BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(k, False) for k in ("amx_bf16", "avx512_bf16"))


def choose(precision: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The type for ``precision`` ("auto", "float32" or "bfloat16") on a device, and why. ConfigError for another name."""
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: expected 'auto', {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
        return PRECISIONS[precision], "as asked for"
    if reference_only():
        return torch.float32, "RTI_BACKEND=reference asks for the plain path"
    if device.type != "cpu":
        return torch.float32, "the only one measured on a GPU so far"
    if has_fast_bfloat16(device):
        return torch.bfloat16, "this processor multiplies bfloat16 matrices faster (AVX512-BF16 or AMX)"
    return torch.float32, "this processor has no fast bfloat16"


def narrowed(net: Net, dtype: torch.dtype, keep: tuple[str, ...] = ()) -> Net:
    """The net itself for float32, else a copy with its weights in ``dtype``, the submodules named in ``keep`` apart."""
    if dtype == torch.float32:
        return net
    net = copy.deepcopy(net)
    kept = {name: getattr(net, name) for name in keep if hasattr(net, name)}
    for name in kept:
        delattr(net, name)
    net.to(dtype)
    for name, module in kept.items():
        setattr(net, name, module)
    return net
