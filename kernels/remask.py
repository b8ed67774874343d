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
from rtinteract.kernels.backend import jit, tl, triton, use_triton
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


def token_streams_reference(seeds: Tensor, iterations: int, parts: int, columns: int, first: Tensor | None = None) -> Tensor:
    """Streams int64 [I, B, 2, S, N] of every token: Philox with counter (column, part, person, iteration), key the seed.

    Columns count from ``first`` int64 [B] (0 where None), as a window's do that has moved on."""
    device = seeds.device
    iteration = torch.arange(iterations, device=device).view(-1, 1, 1, 1, 1)
    person = torch.arange(2, device=device).view(-1, 1, 1)
    part, column = torch.arange(parts, device=device).view(-1, 1), torch.arange(columns, device=device)
    if first is not None:
        column = column + first.view(1, -1, 1, 1, 1)
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


@jit
def _order(x):
    """The uint32 that sorts as the float32 does."""
    bits = x.to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 != 0, ~bits, bits | 0x80000000)


@jit
def _kth(keys, valid, count):
    """The `count`-th largest of the uint32 keys that are valid, one bit after the other from the top."""
    found = tl.full((), 0, tl.uint32)
    for i in tl.static_range(32):
        trial = found | (1 << (31 - i))
        enough = tl.sum((valid & (keys >= trial)).to(tl.int32)) >= count
        found = tl.where(enough, trial, found)
    return found


@jit
def _mix64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@jit
def _draw_kernel(p_cond, p_uncond, p_streams, p_noise, p_codes, p_scores, codes, count, scale, temperature,
                 stride_cond, stride_uncond, stride_noise, GUIDED: tl.constexpr, NOISE: tl.constexpr, GIVEN: tl.constexpr,
                 FILTER: tl.constexpr, BLOCK: tl.constexpr):
    i_token = tl.program_id(0).to(tl.int64)
    o_code = tl.arange(0, BLOCK)
    inside = o_code < codes
    b_logit = tl.load(p_cond + i_token * stride_cond + o_code, mask=inside, other=float("-inf")).to(tl.float32)
    if GUIDED:
        b_uncond = tl.load(p_uncond + i_token * stride_uncond + o_code, mask=inside, other=0.0).to(tl.float32)
        b_logit = tl.where(inside, b_uncond + scale * (b_logit - b_uncond), float("-inf"))
    top = tl.max(b_logit)
    whole = top + tl.log(tl.sum(tl.exp(b_logit - top)))
    b_value = b_logit
    if NOISE:
        if GIVEN:
            b_gumbel = tl.load(p_noise + i_token * stride_noise + o_code, mask=inside, other=0.0).to(tl.float32)
        else:
            stream = tl.load(p_streams + i_token).to(tl.uint64, bitcast=True)
            bits = _mix64(stream + (o_code + 1).to(tl.uint64) * 0x9E3779B97F4A7C15)
            # 23 bits and a half step: exact in float32 and never 0 or 1.
            b_uniform = ((bits >> 41).to(tl.uint32).to(tl.float32) + 0.5) * 1.1920928955078125e-07
            b_gumbel = -tl.log(-tl.log(b_uniform))
        b_value = b_logit / temperature + b_gumbel
        if FILTER:
            keys = _order(b_logit)
            b_value = tl.where(keys >= _kth(keys, inside, count), b_value, float("-inf"))
        b_value = tl.where(inside, b_value, float("-inf"))
    code = tl.argmax(b_value, 0)
    tl.store(p_codes + i_token, code.to(tl.int64))
    chosen = tl.sum(tl.where(o_code == code, b_logit, 0.0))
    tl.store(p_scores + i_token, tl.exp(chosen - whole))


@jit
def _remask_kernel(p_scores, p_count, p_mask, tokens, stride_scores, stride_mask, BLOCK: tl.constexpr):
    i_sample = tl.program_id(0).to(tl.int64)
    o_token = tl.arange(0, BLOCK)
    inside = o_token < tokens
    count = tl.load(p_count + i_sample).to(tl.int32)
    b_score = tl.load(p_scores + i_sample * stride_scores + o_token, mask=inside, other=0.0)
    # The lowest scores are the largest of the flipped keys.
    keys = ~_order(b_score)
    last = _kth(keys, inside, count)
    above = inside & (keys > last)
    level = inside & (keys == last)
    room = count - tl.sum(above.to(tl.int32))
    first = tl.cumsum(level.to(tl.int32), 0) <= room
    b_mask = (above | (level & first)) & (count > 0)
    tl.store(p_mask + i_sample * stride_mask + o_token, b_mask, mask=inside)


def token_streams(seeds: Tensor, iterations: int, parts: int, columns: int, first: Tensor | None = None) -> Tensor:
    """Noise streams int64 [I, B, 2, S, N] from seeds int64 [B], of columns that count from ``first`` int64 [B] (0 where None).
    ValueError where they are not int64 [B]."""
    for name, given in (("seeds", seeds), ("first", seeds if first is None else first)):
        if given.shape != (seeds.numel(),) or given.dtype != torch.int64:
            raise ValueError(f"token_streams: expected {name} int64 [B], got {given.dtype} {tuple(given.shape)}")
    return token_streams_reference(seeds, iterations, parts, columns, first)


def _rows(x: Tensor | None) -> Tensor | None:
    """[..., K] as rows [R, K] whose values lie together."""
    if x is None:
        return None
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch_draw(cond: Tensor, uncond: Tensor | None, scale: float, count: int, temperature: float, streams: Tensor | None,
                 noise: Tensor | None, codes: Tensor, scores: Tensor) -> None:
    """Run the kernel on tensors that `draw` has checked; rows are made contiguous in K where they are not."""
    k = cond.shape[-1]
    cond, uncond, noise = (_rows(x) for x in (cond, uncond, noise))
    noisy = temperature > 0 and (streams is not None or noise is not None)
    streams = None if streams is None else streams.contiguous()
    block = triton.next_power_of_2(k)
    _draw_kernel[(cond.shape[0],)](
        cond, uncond, streams, noise, codes, scores, k, count, scale, temperature,
        cond.stride(0), 0 if uncond is None else uncond.stride(0), 0 if noise is None else noise.stride(0),
        GUIDED=uncond is not None, NOISE=noisy, GIVEN=noise is not None, FILTER=count < k, BLOCK=block,
        num_warps=4 if block <= 1024 else 8)


def draw(cond: Tensor, uncond: Tensor | None = None, scale: float = 1.0, *, count: int, temperature: float,
         streams: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes int64 [...] and scores float32 [...] drawn from logits ``cond`` [..., K], guided away from ``uncond`` [..., K] by
    ``scale`` where that is given; as `draw_reference`. ValueError on unfit shapes.

    Where several logits are level with the last that passes the filter, a kernel keeps them all and the reference as many as fit.
    """
    k = cond.shape[-1]
    if not 1 <= count <= k or not temperature >= 0:
        raise ValueError(f"draw: expected count in [1, {k}] and temperature >= 0, got {count}, {temperature}")
    if uncond is not None and uncond.shape != cond.shape:
        raise ValueError(f"draw: expected cond and uncond of one shape, got {tuple(cond.shape)} and {tuple(uncond.shape)}")
    if noise is not None and noise.shape != cond.shape:
        raise ValueError(f"draw: expected noise {tuple(cond.shape)}, got {tuple(noise.shape)}")
    if streams is not None and streams.shape != cond.shape[:-1]:
        raise ValueError(f"draw: expected streams {tuple(cond.shape[:-1])}, got {tuple(streams.shape)}")
    if use_triton(cond):
        codes = torch.empty(cond.shape[:-1], dtype=torch.int64, device=cond.device)
        scores = torch.empty(cond.shape[:-1], dtype=torch.float32, device=cond.device)
        _launch_draw(cond, uncond, scale, count, temperature, streams, noise, codes, scores)
        return codes, scores
    logits = cond.float() if uncond is None else guide_reference(cond.float(), uncond.float(), scale)
    return draw_reference(logits, count=count, temperature=temperature, streams=streams, noise=noise)


def _launch_remask(scores: Tensor, count: Tensor, mask: Tensor) -> None:
    """Run the kernel on tensors that `remask` has checked."""
    scores = scores if scores.stride(-1) == 1 else scores.contiguous()
    tokens = scores.shape[1]
    _remask_kernel[(scores.shape[0],)](scores, count.contiguous(), mask, tokens, scores.stride(0), mask.stride(0),
                                       BLOCK=triton.next_power_of_2(tokens), num_warps=4)


def remask(scores: Tensor, count: Tensor) -> Tensor:
    """Bool [B, L]: the `count` [B] least confident tokens of scores float32 [B, L]. ValueError on shapes that do not fit."""
    if scores.dim() != 2 or count.shape != scores.shape[:1]:
        raise ValueError(f"remask: expected scores [B, L] and count [B], got {tuple(scores.shape)} and {tuple(count.shape)}")
    if use_triton(scores):
        mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
        _launch_remask(scores.float(), count, mask)
        return mask
    return remask_reference(scores, count)
