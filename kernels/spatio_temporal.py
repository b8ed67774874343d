"""Factorised spatio-temporal attention of a pair (InterMask section 3.2.2), both branches together, in three launches.

    q, k, v of each branch  = W_in (LN(x) * scale + shift) + b_in
    spatial                 : the S parts of each column attend to each other
    temporal                : the N columns of each part attend to each other, padded columns hidden
    out                     = 2 x + gate_s (W_s spatial + b_s) + gate_t (W_t temporal + b_t)

A token of width D: branch by branch the layers move 29 D values (the norm and x are read twice, both outputs and the regrouped
tokens pass through memory, the residual is built apart). Here it is 19 D: x once in, 6 D projected out and in, 2 D mixed out
and in, x again, and the answer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rtinteract.kernels.attention import attention_mask, attention_reference, softmax_step
from rtinteract.kernels.backend import jit, tl, triton
from rtinteract.kernels.blocks import blocks_of
from rtinteract.kernels.linear import EPS
from torch import Tensor


class Branch(NamedTuple):
    """One branch: its modulation, shift and scale and gate [B, 1, D], and its layers, in [3D, D] and out [D, D] with biases."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


def spatio_temporal_reference(x: Tensor, spatial: Branch, temporal: Branch, heads: int, parts: int, columns: int,
                              lengths: Tensor | None = None) -> Tensor:
    """See the head: x [B, 2*S*N, D], part-major, padded columns past lengths [B]; float32 [B, 2*S*N, D]."""
    batch, _, width = x.shape
    x = x.float()
    normal = F.layer_norm(x, (width,), eps=EPS)

    def mixed(branch: Branch, over_columns: bool) -> Tensor:
        fused = F.linear(normal * branch.scale.float() + branch.shift.float(), branch.in_weight.float(), branch.in_bias.float())
        q, k, v = fused.view(batch * 2, parts, columns, 3, heads, width // heads).unbind(3)
        mask = None
        if over_columns:
            q, k, v = (t.transpose(2, 3).flatten(0, 1) for t in (q, k, v))
            if lengths is not None:
                mask = attention_mask(lengths.repeat_interleave(2 * parts), columns, columns, columns)
            out = attention_reference(q, k, v, mask).unflatten(0, (batch * 2, parts)).transpose(2, 3)
        else:
            q, k, v = (t.permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (q, k, v))
            out = attention_reference(q, k, v).unflatten(0, (batch * 2, columns)).permute(0, 3, 1, 2, 4)
        out = F.linear(out.reshape(batch, -1, width), branch.out_weight.float(), branch.out_bias.float())
        return branch.gate.float() * out

    return 2 * x + mixed(spatial, False) + mixed(temporal, True)


@jit
def _project_kernel(p_x, p_shift_s, p_scale_s, p_w_s, p_b_s, p_shift_t, p_scale_t, p_w_t, p_b_t, p_out,
                    rows, tokens, stride_b, stride_l, stride_side, eps,
                    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    here = o_m < rows
    i_batch = o_m // tokens
    at_x = (i_batch * stride_b + o_m % tokens * stride_l)[:, None]
    per_branch = tl.cdiv(3 * WIDTH, BLOCK_N)
    branch = tl.program_id(1) // per_branch
    o_n = tl.program_id(1) % per_branch * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = o_n < 3 * WIDTH
    p_shift, p_scale, p_w, p_b = p_shift_s, p_scale_s, p_w_s, p_b_s
    if branch == 1:
        p_shift, p_scale, p_w, p_b = p_shift_t, p_scale_t, p_w_t, p_b_t
    mean = tl.zeros((BLOCK_M,), tl.float32)
    for i_k in range(0, WIDTH, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        mean += tl.sum(tl.load(p_x + at_x + o_k, mask=here[:, None] & (o_k < WIDTH), other=0.0).to(tl.float32), 1)
    mean = mean / WIDTH
    spread = tl.zeros((BLOCK_M,), tl.float32)
    for i_k in range(0, WIDTH, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        inside = here[:, None] & (o_k < WIDTH)
        away = tl.load(p_x + at_x + o_k, mask=inside, other=0.0).to(tl.float32) - mean[:, None]
        spread += tl.sum(tl.where(inside, away * away, 0.0), 1)
    over_std = 1 / tl.sqrt(spread / WIDTH + eps)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for i_k in range(0, WIDTH, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        inside = here[:, None] & (o_k < WIDTH)
        side = i_batch[:, None] * stride_side + o_k
        b_x = tl.load(p_x + at_x + o_k, mask=inside, other=0.0).to(tl.float32)
        b_x = (b_x - mean[:, None]) * over_std[:, None] * tl.load(p_scale + side, mask=inside, other=0.0).to(tl.float32)
        b_x = tl.where(inside, b_x + tl.load(p_shift + side, mask=inside, other=0.0).to(tl.float32), 0.0)
        b_w = tl.load(p_w + o_n * WIDTH + o_k[:, None], mask=wanted & (o_k < WIDTH)[:, None], other=0.0)
        total += tl.dot(b_x.to(b_w.dtype), b_w, input_precision="ieee")
    total += tl.load(p_b + o_n, mask=wanted, other=0.0).to(tl.float32)[None, :]
    at = o_m[:, None] * (6 * WIDTH) + branch * (3 * WIDTH) + o_n
    tl.store(p_out + at, total.to(p_out.dtype.element_ty), mask=here[:, None] & wanted)


@jit
def _over_columns(p_qkv, p_out, p_lengths, i_sequence, i_block, i_head, columns, scale,
                  WIDTH: tl.constexpr, HEAD: tl.constexpr, PARTS: tl.constexpr, PADDED: tl.constexpr, BLOCK_D: tl.constexpr,
                  BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """A block of one part's columns against all of them."""
    o_d = tl.arange(0, BLOCK_D)
    o_q = i_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    wide = o_d < HEAD
    asked = (o_q < columns)[:, None] & wide
    row = i_sequence * columns
    p_here = p_qkv + 3 * WIDTH + i_head * HEAD
    b_q = tl.load(p_here + (row + o_q)[:, None] * (6 * WIDTH) + o_d, mask=asked, other=0.0)
    length = columns
    if PADDED:
        length = tl.load(p_lengths + i_sequence // (2 * PARTS)).to(tl.int32)
    top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    acc = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for i_key in range(0, columns, BLOCK_K):
        o_k = i_key + tl.arange(0, BLOCK_K)
        there = o_k < columns
        at_k = (row + o_k) * (6 * WIDTH)
        b_k = tl.load(p_here + WIDTH + at_k + o_d[:, None], mask=there & wide[:, None], other=0.0)
        b_v = tl.load(p_here + 2 * WIDTH + at_k[:, None] + o_d, mask=there[:, None] & wide, other=0.0)
        b_s = tl.where((o_k < length)[None, :], tl.dot(b_q, b_k, input_precision="ieee") * scale, float("-inf"))
        top, total, acc = softmax_step(b_s, b_v, top, total, acc)
    at = (row + o_q)[:, None] * (2 * WIDTH) + WIDTH + i_head * HEAD + o_d
    tl.store(p_out + at, (acc / total[:, None]).to(p_out.dtype.element_ty), mask=asked)


@jit
def _over_parts(p_qkv, p_out, i_person, i_block, i_head, columns, scale,
                WIDTH: tl.constexpr, HEAD: tl.constexpr, PARTS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr):
    """All parts of a block of columns against each other: products of single rows, too small for a matrix unit."""
    o_d = tl.arange(0, BLOCK_D)
    o_c = i_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = (o_c < columns)[:, None] & (o_d < HEAD)
    row = i_person * PARTS * columns
    p_here = p_qkv + i_head * HEAD
    for i_part in range(PARTS):
        at_q = (row + i_part * columns + o_c)[:, None]
        b_q = tl.load(p_here + at_q * (6 * WIDTH) + o_d, mask=inside, other=0.0).to(tl.float32) * scale
        top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_Q,), tl.float32)
        acc = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
        for i_other in range(PARTS):
            at_k = (row + i_other * columns + o_c)[:, None] * (6 * WIDTH) + o_d
            score = tl.sum(b_q * tl.load(p_here + WIDTH + at_k, mask=inside, other=0.0).to(tl.float32), 1)
            above = tl.maximum(top, score)
            kept, share = tl.exp(top - above), tl.exp(score - above)
            total = total * kept + share
            b_v = tl.load(p_here + 2 * WIDTH + at_k, mask=inside, other=0.0).to(tl.float32)
            acc = acc * kept[:, None] + share[:, None] * b_v
            top = above
        at = at_q * (2 * WIDTH) + i_head * HEAD + o_d
        tl.store(p_out + at, (acc / total[:, None]).to(p_out.dtype.element_ty), mask=inside)


@jit
def _mix_kernel(p_qkv, p_lengths, p_out, columns, temporal_programs, blocks, scale,
                WIDTH: tl.constexpr, HEAD: tl.constexpr, PARTS: tl.constexpr, PADDED: tl.constexpr, BLOCK_D: tl.constexpr,
                BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    i_program, i_head = tl.program_id(0), tl.program_id(1)
    if i_program < temporal_programs:
        _over_columns(p_qkv, p_out, p_lengths, (i_program // blocks).to(tl.int64), i_program % blocks, i_head, columns, scale,
                      WIDTH, HEAD, PARTS, PADDED, BLOCK_D, BLOCK_Q, BLOCK_K)
    else:
        i_person = ((i_program - temporal_programs) // blocks).to(tl.int64)
        _over_parts(p_qkv, p_out, i_person, (i_program - temporal_programs) % blocks, i_head, columns, scale,
                    WIDTH, HEAD, PARTS, BLOCK_D, BLOCK_Q)


@jit
def _close_kernel(p_mixed, p_x, p_gate_s, p_w_s, p_b_s, p_gate_t, p_w_t, p_b_t, p_out,
                  rows, tokens, stride_b, stride_l, stride_gate,
                  WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, wanted = o_m < rows, o_n < WIDTH
    i_batch = o_m // tokens
    kept = here[:, None] & wanted
    at_x = (i_batch * stride_b + o_m % tokens * stride_l)[:, None] + o_n
    answer = 2 * tl.load(p_x + at_x, mask=kept, other=0.0).to(tl.float32)
    for branch in tl.static_range(2):
        p_gate, p_w, p_b = (p_gate_s, p_w_s, p_b_s) if branch == 0 else (p_gate_t, p_w_t, p_b_t)
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for i_k in range(0, WIDTH, BLOCK_K):
            o_k = i_k + tl.arange(0, BLOCK_K)
            known = o_k < WIDTH
            b_a = tl.load(p_mixed + o_m[:, None] * (2 * WIDTH) + branch * WIDTH + o_k, mask=here[:, None] & known, other=0.0)
            b_w = tl.load(p_w + o_n * WIDTH + o_k[:, None], mask=wanted & known[:, None], other=0.0)
            total += tl.dot(b_a, b_w, input_precision="ieee")
        b_gate = tl.load(p_gate + i_batch[:, None] * stride_gate + o_n, mask=kept, other=0.0).to(tl.float32)
        answer += b_gate * (total + tl.load(p_b + o_n, mask=wanted, other=0.0).to(tl.float32)[None, :])
    tl.store(p_out + o_m[:, None] * WIDTH + o_n, answer.to(p_out.dtype.element_ty), mask=kept)


def _sides(*values: Tensor) -> list[Tensor]:
    """[B, 1, D] each, as [B, D] with one stride for all."""
    values = [v.reshape(v.shape[0], v.shape[-1]) for v in values]
    alike = all(v.stride(-1) == 1 and v.stride(0) == values[0].stride(0) for v in values)
    return values if alike else [v.contiguous() for v in values]


def spatio_temporal(x: Tensor, spatial: Branch, temporal: Branch, heads: int, parts: int, columns: int,
                    lengths: Tensor | None = None) -> Tensor:
    """[B, 2*S*N, D] of x [B, 2*S*N, D] on a GPU, as `spatio_temporal_reference`, in x's type; without gradients.

    ``lengths`` int64 [B] are at least 1; None says that nothing is padded. ValueError where shapes or types do not fit.
    """
    batch, tokens, width = x.shape
    if tokens != 2 * parts * columns or width % heads or (lengths is not None and lengths.shape != (batch,)):
        raise ValueError(f"spatio_temporal: expected x [B, {2 * parts * columns}, D] with D a multiple of {heads} heads and "
                         f"lengths [B], got {tuple(x.shape)} and {None if lengths is None else tuple(lengths.shape)}")
    for name, branch in (("spatial", spatial), ("temporal", temporal)):
        shapes = [(batch, 1, width)] * 3 + [(3 * width, width), (3 * width,), (width, width), (width,)]
        for field, value, shape in zip(Branch._fields, branch, shapes, strict=True):
            if tuple(value.shape) != shape or value.dtype != x.dtype:
                raise ValueError(f"spatio_temporal: expected {name}.{field} {x.dtype} {shape}, got {value.dtype} "
                                 f"{tuple(value.shape)}")
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty(batch, tokens, width, dtype=x.dtype, device=x.device)
    _launch(x, spatial, temporal, heads, parts, columns, lengths, out)
    return out


def _launch(x: Tensor, spatial: Branch, temporal: Branch, heads: int, parts: int, columns: int, lengths: Tensor | None,
            out: Tensor) -> None:
    """Run the three kernels on checked tensors; ``out`` lies together."""
    batch, tokens, width = x.shape
    rows = batch * tokens
    shift_s, scale_s, gate_s, shift_t, scale_t, gate_t = _sides(*spatial[:3], *temporal[:3])
    layers = [[w.contiguous() for w in branch[3:]] for branch in (spatial, temporal)]
    qkv = torch.empty(rows, 6 * width, dtype=x.dtype, device=x.device)
    mixed = torch.empty(rows, 2 * width, dtype=x.dtype, device=x.device)
    sizes = blocks_of("spatio_temporal", x.device)
    if rows <= sizes["BLOCK_M"] // 2:
        sizes = sizes | {"BLOCK_M": max(16, triton.next_power_of_2(rows)), "num_warps": 4}
    block_m, block_n = sizes["BLOCK_M"], sizes["BLOCK_N"]
    grid = (triton.cdiv(rows, block_m), 2 * triton.cdiv(3 * width, block_n))
    _project_kernel[grid](
        x, shift_s, scale_s, *layers[0][:2], shift_t, scale_t, *layers[1][:2], qkv, rows, tokens, x.stride(0), x.stride(1),
        shift_s.stride(0), EPS, WIDTH=width, **sizes)
    head = width // heads
    # Wider blocks do not fit the registers where parts are mixed.
    block_q = min(32, max(16, triton.next_power_of_2(columns)))
    blocks = triton.cdiv(columns, block_q)
    temporal_programs = batch * 2 * parts * blocks
    _mix_kernel[(temporal_programs + batch * 2 * blocks, heads)](
        qkv, lengths, mixed, columns, temporal_programs, blocks, 1 / math.sqrt(head), WIDTH=width, HEAD=head, PARTS=parts,
        PADDED=lengths is not None, BLOCK_D=max(16, triton.next_power_of_2(head)), BLOCK_Q=block_q, BLOCK_K=block_q, num_warps=4)
    _close_kernel[(triton.cdiv(rows, block_m), triton.cdiv(width, block_n))](
        mixed, x, gate_s, *layers[0][2:], gate_t, *layers[1][2:], out, rows, tokens, x.stride(0), x.stride(1), gate_s.stride(0),
        WIDTH=width, **sizes)
