"""Encoder and decoder of a motion codec that sees whole bodies: convolutions over time alone.

InterMask's codec convolves over joints as over pixels, so one kernel serves a wrist and a hip and much motion is needed to
learn what either does. Here every joint has weights of its own. What a linear map of a few frames can say (most of a pose)
passes beside the convolutions, which therefore learn only the rest; a linear map fitted to little motion also holds for other
motion, which a deep one does not. Tokens keep their places in the map of body parts x columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from rtinteract.config import CodecConfig

# Columns on each side that the linear ways see beside their own.
_ASIDE = 1, 2


class Residual(nn.Module):
    """x [B, C, T] + conv 1(ReLU(dilated conv 3(ReLU(x))))."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.dilated = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x):
        return x + self.mix(F.relu(self.dilated(F.relu(x))))


def _stack(config: CodecConfig, width: int, times: int = 1) -> list[Residual]:
    """Residual blocks, the widest dilation first, ``times`` over."""
    return [Residual(width, config.dilation_growth ** i) for _ in range(times) for i in reversed(range(config.depth))]


class SequenceEncoder(nn.Module):
    """Image [B, F, J, T] to latent [B, C, S, N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.parts, flat, widths = config.parts, config.rows * config.features, config.channels
        into, layers = flat, []
        for i, (width, kernel, stride) in enumerate(zip(widths[1:], config.kernels, config.strides, strict=True)):
            last = i == len(config.strides) - 1
            layers += [nn.Conv1d(into, width, kernel[1], stride[1], padding=1),
                       *(_stack(config, width) if last else [Residual(width)])]
            into = width
        self.stem, self.blocks = layers[0], nn.Sequential(*layers[1:])
        self.head = nn.Conv1d(into, self.parts * config.code_dim, 3, padding=1)
        frames, aside = config.frames_per_column, _ASIDE[0]
        self.linear = nn.Conv1d(flat, self.parts * config.code_dim, frames * (1 + 2 * aside), frames, padding=frames * aside)

    def forward(self, x):
        x = x[..., :x.shape[-1] // self.linear.stride[0] * self.linear.stride[0]].flatten(1, 2)
        found = self.head(F.relu(self.blocks(self.stem(x)))) + self.linear(x)
        return found.unflatten(1, (self.parts, -1)).transpose(1, 2)


def _spread(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Channels [B, factor * C, T] as frames [B, C, T * factor]."""
    batch, channels, frames = x.shape
    return x.view(batch, factor, channels // factor, frames).permute(0, 2, 3, 1).reshape(batch, channels // factor, -1)


class SequenceDecoder(nn.Module):
    """Latent [B, C, S, N] to image [B, F, J, 4N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.shape, widths = (config.features, config.rows), config.channels[::-1]
        flat, into = config.rows * config.features, config.parts * config.code_dim
        self.factors = [round(time) for _, time in config.upsample]
        self.stem = nn.Conv1d(into, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(*_stack(config, widths[0], 2))]
                                    + [Residual(width) for width in widths[1:]])
        self.up = nn.ModuleList(nn.Conv1d(coarse, fine * factor, 1) for coarse, fine, factor
                                in zip(widths, widths[1:], self.factors, strict=False))
        self.head = nn.Conv1d(widths[-1], flat, 3, padding=1)
        self.linear = nn.Conv1d(into, flat * math.prod(self.factors), 1 + 2 * _ASIDE[1], padding=_ASIDE[1])

    def forward(self, x, last: int | None = None):
        """With ``last`` the image's so many last frames, as the whole has them; what follows the coarsest level goes on with what
        these look at."""
        codes = x.transpose(1, 2).flatten(1, 2)
        frames = codes.shape[-1] * math.prod(self.factors)
        last = frames if last is None else min(last, frames)
        x = self.blocks[0](self.stem(codes))
        for factor, up, block, kept in zip(self.factors, self.up, list(self.blocks)[1:], self._kept(last), strict=True):
            x = block(_spread(up(x[..., max(0, x.shape[-1] - kept):]), factor))
        x = self.head(F.relu(x))
        columns = -(-last // math.prod(self.factors))
        straight = self.linear(codes[..., max(0, codes.shape[-1] - columns - _ASIDE[1]):])
        straight = _spread(straight[..., straight.shape[-1] - columns:], math.prod(self.factors))
        found = x[..., x.shape[-1] - last:] + straight[..., straight.shape[-1] - last:]
        return found.unflatten(1, self.shape)

    def _kept(self, last: int) -> list[int]:
        """How many columns before each upsampling the ``last`` frames look at."""
        found, wanted = [], last + 1
        for factor in reversed(self.factors):
            # The residual block after the upsampling looks one further.
            wanted = -(-(wanted + 1) // factor)
            found.append(wanted)
        return found[::-1]
