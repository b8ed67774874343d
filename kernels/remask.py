"""One sampling step of a masked transformer: guide, filter, draw a code for each token, and choose what to mask again.

    guided[k]  = uncond[k] + scale * (cond[k] - uncond[k])
    code       = argmax over the C largest guided[k] of  guided[k] / temperature + gumbel[k]
    score      = softmax(guided)[code]          (over all K codes, before the filter and without the temperature)
    masked     = the `count` tokens of a sample with the lowest scores; ties go to the earlier position

Gumbel noise is counter-based, a pure function of (seed, iteration, person, part, column, code): Philox-4x32-10 makes a
64-bit stream of each token, SplitMix64 a word of each code, so that only the codes that pass the filter are evaluated
and a token's noise depends neither on its batch neighbours nor on the padding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF
_PHILOX_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit constant."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; torch's own is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix64(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 bits; products wrap modulo 2^64."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def sample_seeds(seed: int, batch: int, device=None) -> Tensor:
    """Seeds int64 [B] of the samples of one batch: sample b's is a hash of (seed, b), whatever the batch size."""
    index = torch.arange(batch, dtype=torch.int64, device=device)
    base = mix64(torch.tensor(_signed(seed & 0xFFFFFFFFFFFFFFFF), dtype=torch.int64, device=device))
    return mix64(base + (index + 1) * _GOLDEN)


def philox(counter: tuple, key: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10 (Salmon et al. 2011): four counter words and two key words, int64 holding 32 bits -> four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words wraps to the right 64 bits; the mask after the arithmetic shift mends the sign.
        p0, p1 = c0 * _PHILOX_MULTIPLIER[0], c2 * _PHILOX_MULTIPLIER[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW32) ^ c1 ^ k0, p1 & _LOW32, ((p0 >> 32) & _LOW32) ^ c3 ^ k1, p0 & _LOW32
        k0, k1 = (k0 + _PHILOX_WEYL[0]) & _LOW32, (k1 + _PHILOX_WEYL[1]) & _LOW32
    return c0, c1, c2, c3


def token_streams_reference(seeds: Tensor, iterations: int, parts: int, columns: int) -> Tensor:
    """Streams int64 [I, B, 2, S, N] of every token: Philox with counter (column, part, person, iteration), key the seed."""
    device = seeds.device
    iteration = torch.arange(iterations, device=device).view(-1, 1, 1, 1, 1)
    person = torch.arange(2, device=device).view(-1, 1, 1)
    part, column = torch.arange(parts, device=device).view(-1, 1), torch.arange(columns, device=device)
    key = seeds.view(1, -1, 1, 1, 1)
    low, high, _, _ = philox((column, part, person, iteration), (key & _LOW32, _shift_right(key, 32)))
    return (high << 32) | low


def gumbel_reference(streams: Tensor, codes: Tensor) -> Tensor:
    """Standard Gumbel noise float32 of `codes` int64 [..., C] in the streams int64 [...] of their tokens."""
    bits = mix64(streams[..., None] + (codes + 1) * _GOLDEN)
    # 23 bits and a half step: exact in float32 and never 0 or 1, so the noise is finite.
    uniform = (_shift_right(bits, 41).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def guide_reference(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: uncond + scale * (cond - uncond)."""
    return torch.add(uncond, cond - uncond, alpha=scale)


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Guided logits of two equal shapes [..., K]. ValueError where the shapes differ."""
    if cond.shape != uncond.shape:
        raise ValueError(f"guide: expected two equal shapes, got {tuple(cond.shape)} and {tuple(uncond.shape)}")
    return guide_reference(cond, uncond, scale)


def candidates(top_k: float, codes: int) -> int:
    """Codes that pass the filter: the share `top_k` of them, rounded up (103 of 1024 at 0.1)."""
    return min(codes, max(1, math.ceil(top_k * codes - 1e-9)))


def draw_reference(logits: Tensor, *, count: int, temperature: float, streams: Tensor | None = None,
                   noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A code and its score for each token: logits float32 [..., K] -> codes int64 [...], scores float32 [...].

    `count` codes pass the filter. Noise comes from `streams` int64 [...] or is given as `noise` [..., K]; with neither, or
    at temperature 0, the most likely code is taken.
    """
    if temperature == 0 or (streams is None and noise is None):
        best, codes = logits.max(-1)
        return codes, torch.exp(best - logits.logsumexp(-1))
    kept, ids = logits.topk(count, dim=-1) if count < logits.shape[-1] else (logits, _all_codes(logits))
    gumbel = gumbel_reference(streams, ids) if noise is None else noise.gather(-1, ids).to(kept.dtype)
    choice = (kept / temperature + gumbel).argmax(-1, keepdim=True)
    score = torch.exp(kept.gather(-1, choice)[..., 0] - logits.logsumexp(-1))
    return ids.gather(-1, choice)[..., 0], score


def _all_codes(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape)


def remask_reference(scores: Tensor, count: Tensor) -> Tensor:
    """Bool [B, L]: True at the `count` [B] lowest of scores [B, L]; ties go to the earlier position."""
    order = scores.argsort(dim=-1, stable=True)
    first = torch.arange(scores.shape[-1], device=scores.device) < count[:, None]
    return torch.zeros_like(first).scatter(-1, order, first)


def token_streams(seeds: Tensor, iterations: int, parts: int, columns: int) -> Tensor:
    """Noise streams int64 [I, B, 2, S, N] from seeds int64 [B]. ValueError where they are not int64 [B]."""
    if seeds.dim() != 1 or seeds.dtype != torch.int64:
        raise ValueError(f"token_streams: expected seeds int64 [B], got {seeds.dtype} {tuple(seeds.shape)}")
    return token_streams_reference(seeds, iterations, parts, columns)


def draw(logits: Tensor, *, count: int, temperature: float, streams: Tensor | None = None,
         noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes int64 [...] and scores [...] drawn from logits [..., K], as `draw_reference`. ValueError on unfit shapes."""
    if not 1 <= count <= logits.shape[-1] or not temperature >= 0:
        raise ValueError(f"draw: expected count in [1, {logits.shape[-1]}] and temperature >= 0, got {count}, {temperature}")
    if noise is not None and noise.shape != logits.shape:
        raise ValueError(f"draw: expected noise {tuple(logits.shape)}, got {tuple(noise.shape)}")
    if streams is not None and streams.shape != logits.shape[:-1]:
        raise ValueError(f"draw: expected streams {tuple(logits.shape[:-1])}, got {tuple(streams.shape)}")
    return draw_reference(logits, count=count, temperature=temperature, streams=streams, noise=noise)


def remask(scores: Tensor, count: Tensor) -> Tensor:
    """Bool [B, L]: the `count` [B] least confident tokens of scores [B, L]. ValueError on shapes that do not fit."""
    if scores.dim() != 2 or count.shape != scores.shape[:1]:
        raise ValueError(f"remask: expected scores [B, L] and count [B], got {tuple(scores.shape)} and {tuple(count.shape)}")
    return remask_reference(scores, count)
