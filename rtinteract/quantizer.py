"""The codec's quantisers: rows to codes and back, by a learned codebook or by levels of a few channels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rtinteract.kernels.nearest_code import nearest_code

DRAW_TEMPERATURE = 0.5


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

    def _spacing(self):
        """About what lies between codes: the spread of a channel."""
        return self.codebook.std(0).mean().clamp(min=1e-6)

    def relaxed(self, ids):
        """Free vectors [..., D] that `snapped` rounds to ids [...]; a step of about 1 leads to other codes."""
        return self.vectors(ids) / self._spacing()

    def snapped(self, free):
        """Code vectors [..., D] with a straight-through gradient and ids [...] of free vectors [..., D]."""
        rows = free * self._spacing()
        ids = self.assign(rows.detach().flatten(0, -2)).view(rows.shape[:-1])
        return rows + (self.vectors(ids) - rows).detach(), ids

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

    def relaxed(self, ids):
        """Free levels [..., L] that `snapped` rounds to ids [...]; a step of 1 leads to the next level."""
        return _lookup(self.grid * self.middle.clamp(min=1), ids)

    def snapped(self, free):
        """Code vectors [..., D] with a straight-through gradient and ids [...] of free levels [..., L]."""
        lowest = -self.middle.to(free.dtype)
        rounded = free.round().clamp(min=lowest, max=lowest + (2 * self.reach).floor())
        levels = free + (rounded - free).detach()
        ids = ((levels.detach().round().long() + self.middle) * self.basis).sum(-1)
        return self.outward(levels / self.middle.clamp(min=1)), ids

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
