"""Nearest code of each latent row.

    id[r] = argmax_k  -|x[r] - c[k]|^2 / temperature + noise[r, k]        (without noise: argmin_k |x[r] - c[k]|^2)

Ties go to the smallest k. Gumbel noise makes it a draw from softmax(-distance / temperature), the training draw of the
published InterMask codec (temperature 0.5).
"""

from __future__ import annotations

import torch
from rtinteract.kernels.backend import jit, tl, triton, use_triton


def nearest_code_reference(x, codebook, noise=None, temperature: float = 0.5):
    """Ids int64 [R] of x [R, D] in codebook [K, D]; float32 or wider arithmetic. ``noise`` [R, K] is standard Gumbel noise."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, codebook = x.to(kind), codebook.to(kind)
    # |x|^2 is left out: it is equal for every code of a row.
    distance = torch.addmm((codebook * codebook).sum(-1), x, codebook.t(), alpha=-2)
    if noise is None:
        return distance.argmin(-1)
    return (noise.to(kind) - distance / temperature).argmax(-1)


@jit
def _nearest_code_kernel(p_x, p_codes, p_noise, p_ids, rows, codes, dim, stride_x, stride_codes, stride_noise, over_temperature,
                         NOISE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr):
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    here = o_row < rows
    best = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    ids = tl.zeros((BLOCK_R,), tl.int32)
    for i_code in range(0, codes, BLOCK_K):
        o_code = i_code + tl.arange(0, BLOCK_K)
        known = o_code < codes
        product = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
        length = tl.zeros((BLOCK_K,), tl.float32)
        for i_dim in range(0, dim, BLOCK_D):
            o_dim = i_dim + tl.arange(0, BLOCK_D)
            inside = o_dim < dim
            b_x = tl.load(p_x + o_row[:, None] * stride_x + o_dim, mask=here[:, None] & inside, other=0.0).to(tl.float32)
            b_code = tl.load(p_codes + o_code * stride_codes + o_dim[:, None], mask=known & inside[:, None], other=0.0)
            b_code = b_code.to(tl.float32)
            # Ids are decided by small differences: TF32 would change them.
            product += tl.dot(b_x, b_code, input_precision="ieee")
            length += tl.sum(b_code * b_code, 0)
        b_value = 2 * product - length[None, :]
        if NOISE:
            b_noise = tl.load(p_noise + o_row[:, None] * stride_noise + o_code, mask=here[:, None] & known, other=0.0)
            b_value = b_noise.to(tl.float32) + b_value * over_temperature
        b_value = tl.where(known[None, :], b_value, float("-inf"))
        top = tl.max(b_value, 1)
        at = tl.argmax(b_value, 1) + i_code
        # Strictly better only: level distances go to the smaller id.
        ids = tl.where(top > best, at, ids)
        best = tl.maximum(top, best)
    tl.store(p_ids + o_row, ids.to(tl.int64), mask=here)


def nearest_code(x, codebook, noise=None, temperature: float = 0.5, out=None):
    """Ids int64 [R] of x [R, D] in codebook [K, D] by squared distance, drawn with ``noise`` [R, K] where it is given.

    ``out`` int64 [R] receives the ids. ValueError where shapes, devices or the temperature do not fit.
    """
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1] or codebook.shape[0] == 0:
        raise ValueError(f"nearest_code: expected x [R, D] and codebook [K, D] with K >= 1, got {tuple(x.shape)} and "
                         f"{tuple(codebook.shape)}")
    if x.device != codebook.device:
        raise ValueError(f"nearest_code: expected x and codebook on one device, got {x.device} and {codebook.device}")
    if noise is not None and noise.shape != (x.shape[0], codebook.shape[0]):
        raise ValueError(f"nearest_code: expected noise [R, K] = {(x.shape[0], codebook.shape[0])}, got {tuple(noise.shape)}")
    if noise is not None and not temperature > 0:
        raise ValueError(f"nearest_code: expected a temperature above 0, got {temperature}")
    if out is not None and (out.shape != x.shape[:1] or out.dtype != torch.int64):
        raise ValueError(f"nearest_code: expected out int64 [{x.shape[0]}], got {out.dtype} {tuple(out.shape)}")
    if use_triton(x) and x.dtype != torch.float64:
        out = torch.empty(x.shape[0], dtype=torch.int64, device=x.device) if out is None else out
        _launch(x, codebook, noise, temperature, out)
        return out
    ids = nearest_code_reference(x, codebook, noise, temperature)
    return ids if out is None else out.copy_(ids)


def _launch(x, codebook, noise, temperature, out):
    """Run the kernel on tensors that `nearest_code` has checked."""
    x, codebook, noise = (t if t is None or t.stride(-1) == 1 else t.contiguous() for t in (x, codebook, noise))
    _nearest_code_kernel[(triton.cdiv(x.shape[0], 32),)](
        x, codebook, noise, out, x.shape[0], codebook.shape[0], x.shape[1], x.stride(0), codebook.stride(0),
        0 if noise is None else noise.stride(0), 1 / temperature, NOISE=noise is not None, BLOCK_R=32, BLOCK_K=32, BLOCK_D=16,
        num_warps=8)
