"""Attention of short padded sequences: all tokens of a pair, one person's to the other's, one part's columns.

    out[i] = sum_j softmax_j(q[i] . k[j] / sqrt(d)) v[j]     over the keys j that are seen

Tokens are part-major, so a padded clip hides the same columns in every part: key j of sequence b is seen where
j mod columns < lengths[b], and every key from `always` on is seen (the separator). Neither a mask nor the scores are ever
in memory: a pass over L tokens of width D moves 4 L D values instead of 4 L D + 4 heads L^2.
"""

from __future__ import annotations

import math

import torch
from rtinteract.kernels.backend import jit, reference_only, tl, triton, use_triton
from rtinteract.kernels.blocks import blocks_of
from torch import Tensor

# Scores that a processor's second-level cache holds: more are made a head at a time.
_IN_CACHE = 1 << 20


def attention_mask(lengths: Tensor, keys: int, columns: int, always: int) -> Tensor:
    """Bool [B, 1, 1, keys]: which keys of sequences with lengths [B] columns are seen."""
    key = torch.arange(keys, device=lengths.device)
    return ((key % columns < lengths[:, None]) | (key >= always))[:, None, None]


def attention_reference(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B, heads, L, d] from query [B, heads, L, d], key and value [B, heads, M, d] and a bool mask (True: seen); float32."""
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ value.float()


@jit
def softmax_step(b_s, b_v, top, total, acc):
    """One block of keys of an online softmax: scores b_s [Q, K] (-inf: hidden) and values b_v [K, D] into the running largest
    score, sum of weights and weighted values."""
    # A block without a seen key would make -inf minus -inf.
    above = tl.maximum(tl.maximum(top, tl.max(b_s, 1)), -1e30)
    b_p = tl.exp(b_s - above[:, None])
    kept = tl.exp(top - above)
    acc = acc * kept[:, None] + tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
    return above, total * kept + tl.sum(b_p, 1), acc


@jit
def _attention_kernel(p_q, p_k, p_v, p_out, p_lengths, queries, keys, columns, always, scale,
                      q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, o_b, o_h, o_l, heads,
                      HEAD: tl.constexpr, PADDED: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
                      BLOCK_K: tl.constexpr):
    i_batch = (tl.program_id(1) // heads).to(tl.int64)
    i_head = (tl.program_id(1) % heads).to(tl.int64)
    o_q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    o_d = tl.arange(0, BLOCK_D)
    wide = o_d < HEAD
    asked = o_q < queries
    b_q = tl.load(p_q + i_batch * q_b + i_head * q_h + o_q[:, None] * q_l + o_d, mask=asked[:, None] & wide, other=0.0)
    length = columns
    if PADDED:
        length = tl.load(p_lengths + i_batch).to(tl.int32)
    top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    acc = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for i_key in range(0, keys, BLOCK_K):
        o_k = i_key + tl.arange(0, BLOCK_K)
        there = o_k < keys
        b_k = tl.load(p_k + i_batch * k_b + i_head * k_h + o_k * k_l + o_d[:, None], mask=there & wide[:, None], other=0.0)
        b_v = tl.load(p_v + i_batch * v_b + i_head * v_h + o_k[:, None] * v_l + o_d, mask=there[:, None] & wide, other=0.0)
        b_s = tl.dot(b_q, b_k, input_precision="ieee") * scale
        seen = there
        if PADDED:
            seen = there & ((o_k % columns < length) | (o_k >= always))
        top, total, acc = softmax_step(tl.where(seen[None, :], b_s, float("-inf")), b_v, top, total, acc)
    b_out = acc / total[:, None]
    tl.store(p_out + i_batch * o_b + i_head * o_h + o_q[:, None] * o_l + o_d, b_out.to(p_out.dtype.element_ty),
             mask=asked[:, None] & wide)


def _launch(query: Tensor, key: Tensor, value: Tensor, out: Tensor, lengths: Tensor | None, columns: int, always: int) -> None:
    """Run the kernel on tensors that `attention` has checked; the last axis of each lies together."""
    batch, heads, queries, head = query.shape
    blocks = blocks_of("attention", query.device)
    # A tensor core's tile is 16 wide at least.
    block_q = min(blocks["BLOCK_Q"], max(16, triton.next_power_of_2(queries)))
    block_k = min(blocks["BLOCK_K"], max(16, triton.next_power_of_2(key.shape[2])))
    _attention_kernel[(triton.cdiv(queries, block_q), batch * heads)](
        query, key, value, out, lengths, queries, key.shape[2], columns, always, 1 / math.sqrt(head),
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *out.stride()[:3], heads,
        HEAD=head, PADDED=lengths is not None, BLOCK_D=max(16, triton.next_power_of_2(head)), BLOCK_Q=block_q, BLOCK_K=block_k,
        num_warps=blocks["num_warps"])


def attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None = None, columns: int | None = None,
              always: int | None = None, out: Tensor | None = None) -> Tensor:
    """[B, heads, L, d] from query [B, heads, L, d], key and value [B, heads, M, d].

    ``lengths`` int64 [B] hide columns past them (None: nothing is padded): a key is seen where its place modulo ``columns``
    (M without it) is below its sequence's length, or from ``always`` (M without it) on. ``out`` [B, heads, L, d] receives the
    answer. ValueError where shapes, types or lengths do not fit; lengths are at least 1.
    """
    if query.dim() != 4 or key.shape != value.shape or key.dim() != 4 or (key.shape[:2], key.shape[3]) != (
            query.shape[:2], query.shape[3]) or key.shape[2] < 1:
        raise ValueError(f"attention: expected query [B, heads, L, d] and key, value [B, heads, M, d] with M >= 1, got "
                         f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}")
    if not query.dtype == key.dtype == value.dtype or query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError("attention: expected float32, bfloat16 or float16 in all three, got "
                         f"{query.dtype}, {key.dtype} and {value.dtype}")
    if lengths is not None and lengths.shape != query.shape[:1]:
        raise ValueError(f"attention: expected one length a sequence, [{query.shape[0]}], got {tuple(lengths.shape)}")
    if out is not None and (out.shape != query.shape or out.dtype != query.dtype):
        raise ValueError(f"attention: expected out {query.dtype} {tuple(query.shape)}, got {out.dtype} {tuple(out.shape)}")
    keys = key.shape[2]
    columns, always = columns or keys, keys if always is None else always
    if use_triton(query):
        out = torch.empty_like(query, memory_format=torch.contiguous_format) if out is None else out
        query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
        _launch(query, key, value, out, lengths, columns, always)
        return out
    mask = None if lengths is None else attention_mask(lengths, keys, columns, always)
    if query.device.type != "cpu" or reference_only():
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    else:
        found = _plain(query, key, value, mask)
    return found if out is None else out.copy_(found)


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Plain products: sequences here are short (5 parts, a few dozen columns), and on a CPU these take half the time of torch's
    fused operation, a third backward."""
    batch, heads, queries, _ = query.shape
    if not torch.is_grad_enabled() and batch * heads * queries * key.shape[2] > _IN_CACHE >= queries * key.shape[2]:
        # A head at a time: the scores of all of them would leave the cache between the three steps.
        out = torch.empty(batch, queries, heads, value.shape[-1], dtype=value.dtype).transpose(1, 2)
        for i in range(batch):
            seen = None if mask is None else mask[i, 0]
            for h in range(heads):
                # Side by side in memory: products of matrices whose rows lie far apart take a quarter longer.
                out[i, h] = _products(query[i, h].contiguous(), key[i, h].contiguous(), value[i, h].contiguous(), seen)
        return out
    return _products(query, key, value, mask)


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if torch.is_grad_enabled():
        scores = scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(value.dtype) @ value
