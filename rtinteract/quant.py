"""int8: weights in steps of one scale an output, activations in steps of one scale a token (W8A8).

    w[n, k] = q[n, k] * scale[n],    scale[n] = max_k |w[n, k]| / 127,    q in -127 .. 127

What is written to a file and what runs are the same integers: `restored` weights quantise to the q and the scale they came from.
The codec's convolutions, embeddings and the text encoder are int8 in the file alone and run in a float type.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from rtinteract.blocks import Attention, Linear
from rtinteract.kernels.linear import quantize_rows


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of a weight [N, ...] and the scale float32 [N] of each of its outputs."""
    rows, scale = quantize_rows(weight.detach().flatten(1))
    return rows.view(weight.shape), scale[:, 0]


def restored(weight: Tensor, scale: Tensor) -> Tensor:
    """float32 of int8 [N, ...] and its scale [N]."""
    return weight.float() * scale.view(-1, *[1] * (weight.dim() - 1))


def int8_transformer(transformer: nn.Module) -> nn.Module:
    """A copy whose large products are W8A8, for inference; what depends on the prompt alone keeps its type."""
    net = copy.deepcopy(transformer).eval()
    for module in net.modules():
        if isinstance(module, Attention):
            weight, module.in_proj_scale = quantized(module.in_proj_weight)
            module.in_proj_weight = nn.Parameter(weight, requires_grad=False)
        elif isinstance(module, Linear):
            weight, module.weight_scale = quantized(module.weight)
            module.weight = nn.Parameter(weight, requires_grad=False)
    return net
