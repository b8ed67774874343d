"""In which number type the networks run: what was asked for, or what this processor does fastest."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from rtinteract.errors import ConfigError
from rtinteract.kernels.backend import BF16_FEATURES, INT8_FEATURES, cpu_has, reference_only

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
# Transformer width from which on int8 is faster than bfloat16 on a CPU that sums int8 products. In narrower layers it saves a
# tenth of a hop at most (README of benches), which is not worth one token in fifty that comes out otherwise.
INT8_WIDTH = 256
Net = TypeVar("Net", bound=nn.Module)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 there (tensor cores, AMX, AVX-512 BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and cpu_has(BF16_FEATURES)


def choose(precision: str, device: torch.device, width: int | None = None) -> tuple[torch.dtype, str]:
    """The type for ``precision`` ("auto", "float32", "bfloat16" or "int8") on a device, and why. ConfigError for another name.

    ``width`` is the transformer's, None for a narrow one. int8 stands for the transformer's products; see `beside_int8`.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: expected 'auto', {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
        return PRECISIONS[precision], "as asked for"
    if reference_only():
        return torch.float32, "RTI_BACKEND=reference asks for the plain path"
    if device.type != "cpu":
        return torch.float32, "the only one measured on a GPU so far"
    if width is not None and width >= INT8_WIDTH and cpu_has(INT8_FEATURES):
        return torch.int8, f"this processor sums int8 products (VNNI or AMX) and the transformer is {INT8_WIDTH} wide or more"
    if has_fast_bfloat16(device):
        return torch.bfloat16, "this processor multiplies bfloat16 matrices faster (AVX512-BF16 or AMX)"
    return torch.float32, "this processor has no fast bfloat16"


def beside_int8(device: torch.device) -> torch.dtype:
    """The type of what stays in a float type where the transformer is int8: the codec."""
    return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16(device) and not reference_only() else torch.float32


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
