"""The 2D motion codec (InterMask section 3.2): an image of joints x time to a map of body parts x columns of codes."""

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
from rtinteract.kernels.nearest_code import nearest_code
from rtinteract.sequence import SequenceDecoder, SequenceEncoder

DRAW_TEMPERATURE = 0.5


class CodecOutput(NamedTuple):
    """What the training path answers: reconstruction [B, 4N, J, F], codes [B, S, N], commitment and perplexity (scalars)."""

    reconstruction: torch.Tensor
    codes: torch.Tensor
    commitment: torch.Tensor
    perplexity: torch.Tensor


class Quantized(NamedTuple):
    """Rows [R, D] with a straight-through gradient, ids [R], commitment and perplexity (scalars)."""

    rows: torch.Tensor
    ids: torch.Tensor
    commitment: torch.Tensor
    perplexity: torch.Tensor


def perplexity_of(counts):
    """exp of the entropy of a histogram [K]: how many codes are in even use."""
    share = counts / counts.sum().clamp(min=1)
    return torch.exp(-(share * torch.log(share + 1e-7)).sum())


def gumbel(shape, generator=None, device=None):
    """Standard Gumbel noise of ``shape`` on ``device``, drawn where the generator is."""
    source = device if generator is None else generator.device
    uniform = torch.rand(shape, generator=generator, device=source).clamp(1e-20, 1 - 1e-7)
    return -torch.log(-torch.log(uniform)).to(device)


def _lookup(table, ids):
    """Rows of ``table`` [K, D] for ids of any shape; a zero row for an id outside it (padding, masks)."""
    known = (ids >= 0) & (ids < table.shape[0])
    return table[ids.clamp(0, table.shape[0] - 1)] * known[..., None]


class VectorQuantizer(nn.Module):
    """One codebook [K, D], learned by an exponential moving average; codes in too little use restart at encoder rows.

    ``code_sum`` [K, D] and ``code_count`` [K] are the running statistics; they are saved, so that training can resume.
    Where a batch comes in parts, ``parts`` is a list that gathers each part's counts [K], sums [K, D] and first rows [<= K, D],
    and whoever divided the batch calls `absorb` with their sums; None: each training pass moves the codebook at once.
    """

    def __init__(self, codes: int, dim: int, decay: float):
        super().__init__()
        self.decay = decay
        self.parts: list | None = None
        self.register_buffer("codebook", torch.randn(codes, dim) / math.sqrt(dim))
        self.register_buffer("code_sum", self.codebook.clone())
        self.register_buffer("code_count", torch.ones(codes))
        self.register_buffer("initialised", torch.tensor(False))

    def assign(self, rows, noise=None):
        """Ids [R] of rows [R, D]: the nearest code, or a draw with Gumbel ``noise`` [R, K]."""
        return nearest_code(rows, self.codebook, noise, DRAW_TEMPERATURE)

    def vectors(self, ids):
        """Code vectors [..., D] of ids [...]; zero for an id outside the codebook."""
        return _lookup(self.codebook, ids)

    def _fill(self, rows, generator):
        """The first K rows; where there are fewer, they repeat with a little noise to tell the copies apart."""
        codes, dim = self.codebook.shape
        if rows.shape[0] < codes:
            rows = rows.repeat(-(-codes // rows.shape[0]), 1)
            source = rows.device if generator is None else generator.device
            noise = torch.randn(rows.shape, generator=generator, device=source).to(rows.device)
            rows = rows + noise * (0.01 / math.sqrt(dim))
        return rows[:codes]

    @torch.no_grad()
    def start(self, rows, generator=None):
        """Take the codebook from rows [R, D] of the first batch."""
        self.codebook.copy_(self._fill(rows, generator))
        self.code_sum.copy_(self.codebook)
        self.code_count.fill_(1)
        self.initialised.fill_(True)

    @torch.no_grad()
    def update(self, rows, ids, generator=None):
        """One step of the moving average with rows [R, D] and their ids [R], or their part in one; the perplexity of ids."""
        rows = rows.detach()
        counts = torch.zeros_like(self.code_count).index_add_(0, ids, torch.ones_like(rows[:, 0]))
        sums = torch.zeros_like(self.code_sum).index_add_(0, ids, rows)
        if self.parts is None:
            self.absorb(counts, sums, rows, generator)
        else:
            self.parts.append((counts, sums, rows[:len(counts)]))
        return perplexity_of(counts)

    @torch.no_grad()
    def absorb(self, counts, sums, rows, generator=None):
        """Move the average by a batch's counts [K] and sums [K, D]; a code with a count under 1 restarts from rows [R, D]."""
        self.code_sum.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        self.code_count.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        used = (self.code_count >= 1)[:, None]
        mean = self.code_sum / self.code_count.clamp(min=1)[:, None]
        self.codebook.copy_(torch.where(used, mean, self._fill(rows, generator)))

    def forward(self, rows, noise=None, generator=None) -> Quantized:
        """Quantise rows [R, D]; when training: draw with noise, move the codebook, answer straight-through rows."""
        if self.training:
            if not self.initialised:
                self.start(rows.detach(), generator)
            if noise is None:
                noise = gumbel((rows.shape[0], self.codebook.shape[0]), generator, rows.device)
            ids = self.assign(rows.detach(), noise)
        else:
            ids = self.assign(rows.detach())
        vectors = self.vectors(ids)
        if self.training:
            perplexity = self.update(rows, ids, generator)
        else:
            perplexity = perplexity_of(torch.bincount(ids, minlength=self.codebook.shape[0]).to(rows.dtype))
        return Quantized(rows + (vectors - rows).detach(), ids, F.mse_loss(rows, vectors), perplexity)


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023): a few bounded channels, each rounded to its levels.

    Nothing to reset and no commitment. The channels are standardised by running statistics, so that every level is in
    reach from the first batch and stays so: without them the first large steps of an optimiser drive all rows into one
    corner (measured: 16 of 1000 codes in use after one step, and no way back). Where a batch comes in parts, ``parts`` is a
    list, and whoever divided the batch calls `absorb` with its moments before the parts pass; None: a training pass moves them.

    A ``plain`` one takes rows that are the channels themselves, and its code vectors are the levels. ``reach`` is as
    `CodecConfig.fsq_reach`.
    """

    def __init__(self, levels: tuple[int, ...], dim: int, reach: float = 1.0, plain: bool = False):
        super().__init__()
        self.parts: list | None = None
        self.spread = reach
        self.inward = None if plain else nn.Linear(dim, len(levels))
        self.outward = nn.Identity() if plain else nn.Linear(len(levels), dim)
        self.register_buffer("mean", torch.zeros(len(levels)))
        self.register_buffer("variance", torch.ones(len(levels)))
        self.register_buffer("batches", torch.tensor(0))
        count = torch.tensor(levels)
        basis = torch.cumprod(torch.tensor((1, *levels[:-1])), 0)
        digits = torch.arange(math.prod(levels))[:, None] // basis % count
        middle = count // 2
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("middle", middle, persistent=False)
        self.register_buffer("grid", (digits - middle) / middle.clamp(min=1), persistent=False)
        # An even number of levels has no middle one; the offset centres the rounding all the same.
        self.register_buffer("reach", (count - 1) * 1.001 / 2, persistent=False)
        self.register_buffer("offset", torch.where(count % 2 == 0, 0.5, 0.0), persistent=False)

    def _project(self, rows):
        if self.inward is None:
            return rows
        rows = F.layer_norm(rows, rows.shape[-1:])
        return F.linear(rows, self.inward.weight.to(rows.dtype), self.inward.bias.to(rows.dtype))

    def _levels(self, rows):
        """Bounded channels [R, L] before rounding, in -middle .. middle."""
        z = (self._project(rows) - self.mean) * torch.rsqrt(self.variance + 1e-5)
        return torch.tanh(z / self.spread) * self.reach - self.offset

    def assign(self, rows):
        """Ids [R] of rows [R, D]."""
        return ((self._levels(rows).round().long() + self.middle) * self.basis).sum(-1)

    def vectors(self, ids):
        """Code vectors [..., D] of ids [...]; zero for an id outside the implicit codebook."""
        return _lookup(self.outward(self.grid), ids)

    @torch.no_grad()
    def track(self, rows):
        """Move the statistics toward those of rows [R, D]: the mean of the first hundred batches, then a hundredth of the way.

        Slowly, because the grid of levels moves with them: batches of different clips must not shake it.
        """
        z = self._project(rows)
        self.absorb(z.mean(0), z.var(0, correction=0))

    @torch.no_grad()
    def moments(self, rows):
        """Count, sums and sums of squares of the channels of rows [R, D], float64 [1 + 2 L]; they add up over parts."""
        z = self._project(rows).double()
        return torch.cat([z.new_tensor([len(z)]), z.sum(0), z.square().sum(0)])

    @torch.no_grad()
    def absorb(self, mean, variance):
        """Move the statistics toward a batch's mean and variance, [L] each."""
        self.batches.add_(1)
        step = (1 / self.batches).clamp(min=0.01)
        self.mean.lerp_(mean.to(self.mean.dtype), step)
        self.variance.lerp_(variance.to(self.variance.dtype), step)

    def forward(self, rows, noise=None, generator=None) -> Quantized:
        """Quantise rows [R, D]; ``noise`` and ``generator`` are of no use here."""
        if self.training and self.parts is None:
            self.track(rows)
        z = self._levels(rows)
        z = z + (z.round() - z).detach()
        ids = ((z.detach().round().long() + self.middle) * self.basis).sum(-1)
        perplexity = perplexity_of(torch.bincount(ids, minlength=self.grid.shape[0]).to(rows.dtype))
        return Quantized(self.outward(z / self.middle.clamp(min=1)), ids, rows.new_zeros(()), perplexity)


class ResidualBlock(nn.Module):
    """x + dropout(conv 1x1(ReLU(dilated conv 3x3(ReLU(x)))))."""

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.dilated = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        if not self.training and use_triton(x) and x.dtype == self.mix.weight.dtype:
            wide, mix = self.dilated, self.mix
            hidden = convolution(x, wide.weight, wide.bias, padding=wide.padding, dilation=wide.dilation, relu_in=True,
                                 relu_out=True)
            return convolution(hidden, mix.weight, mix.bias, residual=x)
        return x + self.dropout(self.mix(F.relu(self.dilated(F.relu(x)))))


def _stack(config: CodecConfig, width: int):
    """The residual stack of a level: the widest dilation first."""
    return nn.Sequential(*[ResidualBlock(width, config.dilation_growth ** i, config.dropout)
                           for i in reversed(range(config.depth))])


class Encoder(nn.Module):
    """Image [B, F, J, T] to latent [B, C, S, N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        widths = config.channels
        self.stem = nn.Conv2d(config.features, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, kernel, stride, padding=1) for fine, coarse, kernel, stride
                                  in zip(widths, widths[1:], config.kernels, config.strides, strict=False))
        self.blocks = nn.ModuleList(_stack(config, width) for width in widths[1:])
        self.head = nn.Conv2d(widths[-1], config.code_dim, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for down, blocks in zip(self.down, self.blocks, strict=True):
            x = blocks(down(x))
        return self.head(x)


class Decoder(nn.Module):
    """Latent [B, C, S, N] to image [B, F, J, 4N]."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.factors = config.upsample
        # Columns to either side that a level's residual stack looks at.
        self.reach = sum(config.dilation_growth ** i for i in range(config.depth))
        widths = config.channels[::-1]
        self.stem = nn.Conv2d(config.code_dim, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(_stack(config, width) for width in widths[:-1])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for coarse, fine in zip(widths, widths[1:], strict=False))
        self.neck = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.head = nn.Conv2d(widths[-1], config.features, 3, padding=1)

    def forward(self, x, last: int | None = None):
        """With ``last`` the image's so many last frames, as the whole has them; coarser levels go on with what these look at."""
        x = F.relu(self.stem(x))
        for factors, blocks, up, kept in zip(self.factors, self.blocks, self.up, self._kept(last), strict=True):
            x = blocks(x)
            if kept is not None:
                x = x[..., max(0, x.shape[-1] - kept):]
            x = up(F.interpolate(x, scale_factor=tuple(map(float, factors)), mode="nearest"))
        x = self.head(F.relu(self.neck(x)))
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
        raise ConfigError(f"codec.kernels/strides: expected at least one body part to be left of {config.joints} joints, got "
                          f"{config.parts}; take smaller kernels or strides")
    if rows != config.joints:
        raise ConfigError(f"codec.upsample: expected to end at {config.joints} joint rows, got {' -> '.join(map(str, path))}; "
                          "choose other factors over joints")
    if frames != config.frames_per_column:
        raise ConfigError(f"codec.upsample: expected {config.frames_per_column} frames a column as codec.strides has it, got "
                          f"{frames:g}; choose other factors over time")


class Codec(nn.Module):
    """Encoder, quantiser and decoder of one `CodecConfig`; ConfigError where its sizes do not meet.

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
        if features.ndim != 4 or features.shape[2:] != (c.joints, c.features):
            raise MotionError(f"codec: expected features [B, T, {c.joints}, {c.features}], got {tuple(features.shape)}; encode "
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
