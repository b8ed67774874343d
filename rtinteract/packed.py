"""Convolutions whose weights lie as the processor's library wants them, so that it does not reorder them at every call."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


# Sizes of images for which a convolution keeps its weights; the library may want them otherwise for each.
_MOST = 3


class PackedConv2d(nn.Conv2d):
    """A convolution without groups for inference in bfloat16 on a CPU; its answers are those of the plain one to the bit."""

    @classmethod
    def of(cls, plain: nn.Conv2d) -> PackedConv2d:
        """One with the weights of a plain convolution."""
        made = cls.__new__(cls)
        made.__dict__.update(plain.__dict__)
        made.kept = {}
        return made

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, R, N] -> [B, C', R', N']."""
        sizes = list(self.padding), list(self.stride), list(self.dilation), self.groups
        weight = self.kept.get(x.shape)
        if weight is None:
            weight = torch._C._nn.mkldnn_reorder_conv2d_weight(self.weight.detach().to_mkldnn(), *sizes, list(x.shape))
            # One assignment, so that threads that share the net see the old sizes or the new ones.
            self.kept = dict([*self.kept.items()][1 - _MOST:]) | {x.shape: weight}
        return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *sizes, "none", [], "")


def packed(net: Net) -> Net:
    """The net with its bfloat16 convolutions packed, in place; unchanged where the library does not do that. For inference: later
    changes of the weights are not seen."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return net
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.weight.dtype == torch.bfloat16 and child.weight.device.type == "cpu":
                setattr(parent, name, PackedConv2d.of(child))
    return net
