"""The 2D motion codec (InterMask section 3.1): an image of joints x time to a map of body parts x columns of codes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError, MotionError
from rtinteract.kernels.backend import use_triton
from rtinteract.kernels.convolution import convolution
from rtinteract.quantizer import FiniteScalarQuantizer, VectorQuantizer, perplexity_of
from rtinteract.sequence import SequenceDecoder, SequenceEncoder

__all__ = ["Codec", "CodecOutput", "Decoder", "Encoder", "FiniteScalarQuantizer", "VectorQuantizer", "perplexity_of"]


class CodecOutput(NamedTuple):
    """What the training path answers: reconstruction [B, 4N, J, F], codes [B, S, N], commitment and perplexity (scalars)."""

    reconstruction: torch.Tensor
    codes: torch.Tensor
    commitment: torch.Tensor
    perplexity: torch.Tensor


def _conv(config: CodecConfig, into: int, out: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution 3x3 that keeps an image's size, 1x3 where poses are vectors."""
    rows = 0 if config.token_map == "1d" else dilation
    return nn.Conv2d(into, out, (3 if rows else 1, 3), padding=(rows, dilation), dilation=dilation)


class ResidualBlock(nn.Module):
    """x + dropout(conv 1x1(ReLU(dilated conv 3x3(ReLU(x)))))."""

    def __init__(self, config: CodecConfig, width: int, dilation: int):
        super().__init__()
        self.dilated = _conv(config, width, width, dilation)
        self.mix = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        if not self.training and use_triton(x) and x.dtype == self.mix.weight.dtype:
            wide, mix = self.dilated, self.mix
            hidden = convolution(x, wide.weight, wide.bias, padding=wide.padding, dilation=wide.dilation, relu_in=True,
                                 relu_out=True)
            return convolution(hidden, mix.weight, mix.bias, residual=x)
        return x + self.dropout(self.mix(F.relu(self.dilated(F.relu(x)))))


def _stack(config: CodecConfig, width: int):
    """The residual stack of a level: the widest dilation first."""
    return nn.Sequential(*[ResidualBlock(config, width, config.dilation_growth ** i) for i in reversed(range(config.depth))])


def _channels(config: CodecConfig) -> int:
    """Channels of the image that convolutions see."""
    return config.features * (config.rows if config.token_map == "1d" else 1)


class Encoder(nn.Module):
    """Image [B, F, J, T] to latent [B, C, S, N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        widths = config.channels
        self.vectors = config.token_map == "1d"
        self.stem = _conv(config, _channels(config), widths[0])
        self.down = nn.ModuleList(self._down(*level) for level in zip(widths, widths[1:], config.kernels, config.strides,
                                                                      strict=False))
        self.blocks = nn.ModuleList(_stack(config, width) for width in widths[1:])
        self.head = _conv(config, widths[-1], config.code_dim)

    def _down(self, fine: int, coarse: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv2d:
        if self.vectors:
            kernel, stride = (1, kernel[1]), (1, stride[1])
        return nn.Conv2d(fine, coarse, kernel, stride, padding=(0 if self.vectors else 1, 1))

    def forward(self, x):
        x = F.relu(self.stem(x.flatten(1, 2)[:, :, None] if self.vectors else x))
        for down, blocks in zip(self.down, self.blocks, strict=True):
            x = blocks(down(x))
        return self.head(x)


class Decoder(nn.Module):
    """Latent [B, C, S, N] to image [B, F, J, 4N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.vectors = (config.features, config.rows) if config.token_map == "1d" else None
        self.factors = [(1.0, time) for _, time in config.upsample] if self.vectors else config.upsample
        # Columns to either side that a level's residual stack looks at.
        self.reach = sum(config.dilation_growth ** i for i in range(config.depth))
        widths = config.channels[::-1]
        self.stem = _conv(config, config.code_dim, widths[0])
        self.blocks = nn.ModuleList(_stack(config, width) for width in widths[:-1])
        self.up = nn.ModuleList(_conv(config, coarse, fine) for coarse, fine in zip(widths, widths[1:], strict=False))
        self.neck = _conv(config, widths[-1], widths[-1])
        self.head = _conv(config, widths[-1], _channels(config))

    def forward(self, x, last: int | None = None):
        """With ``last`` the image's so many last frames, as the whole has them; coarser levels go on with what these look at."""
        x = F.relu(self.stem(x))
        for factors, blocks, up, kept in zip(self.factors, self.blocks, self.up, self._kept(last), strict=True):
            x = blocks(x)
            if kept is not None:
                x = x[..., max(0, x.shape[-1] - kept):]
            x = up(F.interpolate(x, scale_factor=tuple(map(float, factors)), mode="nearest"))
        x = self.head(F.relu(self.neck(x)))
        x = x[:, :, 0].unflatten(1, self.vectors) if self.vectors else x
        return x if last is None else x[..., x.shape[-1] - last:]

    def _kept(self, last: int | None) -> list[int | None]:
        """How many columns at the end of each level's stack the ``last`` frames look at."""
        if last is None:
            return [None] * len(self.factors)
        # Neck and head, then the convolution after each upsampling, look one further.
        found, wanted = [], last + 2
        for _, time in reversed(self.factors):
            found.append(math.ceil((wanted + 1) / time))
            wanted = found[-1] + self.reach
        return found[::-1]


def _check_rows(config: CodecConfig):
    rows, path, frames = config.parts, [config.parts], 1.0
    for joints, time in config.upsample:
        rows, frames = math.floor(rows * joints), frames * time
        path.append(rows)
    if config.parts < 1:
        raise ConfigError(f"codec.kernels/strides: expected at least one body part to be left of {config.rows} joints, got "
                          f"{config.parts}; take smaller kernels or strides")
    if rows != config.rows and config.token_map == "2d":
        raise ConfigError(f"codec.upsample: expected to end at {config.rows} joint rows, got {' -> '.join(map(str, path))}; "
                          "choose other factors over joints")
    if frames != config.frames_per_column:
        raise ConfigError(f"codec.upsample: expected {config.frames_per_column} frames a column as codec.strides has it, got "
                          f"{frames:g}; choose other factors over time")


class Codec(nn.Module):
    """Encoder, quantiser and decoder of one `CodecConfig`; ConfigError where its sizes do not meet.

    J are the rows of all ``people``; of two, the first one's stand first.
    Convolutions follow autocast, or the type their weights have; the quantiser always works in float32 (or wider).
    """

    def __init__(self, config: CodecConfig):
        super().__init__()
        _check_rows(config)
        self.config = config
        sequence = config.form == "sequence"
        self.encoder = SequenceEncoder(config) if sequence else Encoder(config)
        self.quantizer = (VectorQuantizer(config.codes, config.code_dim, config.ema_decay) if config.quantizer == "vq"
                          else FiniteScalarQuantizer(config.levels, config.code_dim, config.fsq_reach, plain=sequence))
        self.decoder = SequenceDecoder(config) if sequence else Decoder(config)
        # The encoder of the shipped size takes half the time so (CPU), and images come with their features innermost.
        self.to(memory_format=torch.channels_last)

    def _rows(self, latent):
        """Latent [B, C, S, N] as rows [B*S*N, C] of at least float32: sample by sample, part by part."""
        rows = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
        return rows.to(torch.promote_types(rows.dtype, torch.float32))

    def rows(self, features):
        """What the quantiser sees of normalised features [B, T, J, F]: rows [B*S*N, C]."""
        latent = self.latent(features)
        with torch.autocast(latent.device.type, enabled=False):
            return self._rows(latent)

    def _features(self, latent, last: int | None = None):
        latent = latent.to(self.decoder.stem.weight.dtype)
        if self.config.form == "image":
            latent = latent.contiguous(memory_format=torch.channels_last)
        return self.decoder(latent, last).permute(0, 3, 2, 1)

    def latent(self, features):
        """Latent [B, C, S, N] of normalised features [B, T, J, F]; frames past the last whole column are not seen."""
        c = self.config
        if features.ndim != 4 or features.shape[2:] != (c.rows, c.features):
            raise MotionError(f"codec: expected features [B, T, {c.rows}, {c.features}], got {tuple(features.shape)}; encode "
                              "the motion with the representation this model was made for")
        if features.shape[1] < c.frames_per_column:
            raise MotionError(f"codec: expected at least {c.frames_per_column} frames (one column), got {features.shape[1]}; "
                              "give a longer clip")
        image = features.permute(0, 3, 2, 1).to(self.encoder.stem.weight.dtype)
        return self.encoder(image if c.form == "sequence" else image.contiguous(memory_format=torch.channels_last))

    def encode(self, features):
        """Codes int64 [B, S, N] of normalised features [B, T, J, F], N = T // 4."""
        latent = self.latent(features)
        with torch.autocast(latent.device.type, enabled=False):
            ids = self.quantizer.assign(self._rows(latent))
        return ids.view(latent.shape[0], *latent.shape[2:])

    def decode(self, codes, last: int | None = None):
        """Normalised features [B, 4N, J, F] of codes [B, S, N]; an id outside 0 .. K-1 decodes from a zero vector.

        With ``last`` in [1, 4N] only so many frames at the end, [B, last, J, F].
        """
        if codes.ndim != 3 or codes.shape[1] != self.config.parts or codes.shape[2] == 0:
            raise MotionError(f"codec: expected codes [B, {self.config.parts}, N] with N >= 1, got {tuple(codes.shape)}")
        with torch.autocast(codes.device.type, enabled=False):
            vectors = self.quantizer.vectors(codes)
        return self.decode_vectors(vectors, last)

    def decode_vectors(self, vectors, last: int | None = None):
        """As `decode`, of code vectors [B, S, N, C]; whoever relaxes codes differentiates through it."""
        return self._features(vectors.permute(0, 3, 1, 2), last).to(vectors.dtype)

    def forward(self, features, *, gumbel_noise=None, generator=None) -> CodecOutput:
        """The training path: reconstruct normalised features [B, T, J, F].

        In training mode "vq" draws its codes with Gumbel noise (``gumbel_noise`` [B*S*N, K], else from ``generator``),
        moves its codebook and restarts unused codes.
        """
        latent = self.latent(features)
        with torch.autocast(latent.device.type, enabled=False):
            q = self.quantizer(self._rows(latent), gumbel_noise, generator)
        b, c, s, n = latent.shape
        reconstruction = self._features(q.rows.view(b, s, n, c).permute(0, 3, 1, 2).to(latent.dtype))
        return CodecOutput(reconstruction.to(q.rows.dtype), q.ids.view(b, s, n), q.commitment, q.perplexity)
