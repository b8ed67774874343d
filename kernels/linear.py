"""Linear layers of the transformer with what stands before and after them.

    modulated_linear(x)  = W (LN(x) * scale + shift) + b              (shift and scale of each sequence)
    linear_gelu(x)       = GELU(W x + b)                              (or of the first line's)
    linear_residual(x)   = residual + gate * (W x + b)                (gate of each sequence)

Unfused, each of the three writes and reads the [tokens, D] tensor twice more than it must. Weights are float32, bfloat16 or
float16 as x is, or int8 with a scale for each output (W8A8): then each token's row is quantised on the fly by its own largest
magnitude, products are summed in int32, and  y = sum * row_scale * weight_scale + b.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rtinteract.kernels.backend import cpu_sums_int8, jit, tl, triton, use_triton
from rtinteract.kernels.blocks import blocks_of
from torch import Tensor

EPS = 1e-6
LARGEST = 127.0
# Rows whose float32 and int32 stand-ins, a thousand wide, a processor's second-level cache nearly holds.
_CACHED_ROWS = 400


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 rows of x [..., D] and their scales float32 [..., 1]: x is about rows * scales, symmetric, halves to even."""
    scale = x.float().abs().amax(-1, keepdim=True).clamp(min=1e-10) / LARGEST
    return (x.float() / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def product_reference(x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor | None) -> Tensor:
    """W x + b, float32: x [..., D], weight [N, D] (int8 with ``weight_scale`` [N], else a float type), bias [N]."""
    if weight_scale is None:
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    rows, scale = quantize_rows(x)
    # Sums of int8 products fit float64 exactly, and a CPU multiplies those fast.
    total = (rows.double() @ weight.double().t()).float() * scale * weight_scale
    return total if bias is None else total + bias.float()


def modulated_reference(x: Tensor, shift: Tensor, scale: Tensor, weight: Tensor, bias: Tensor | None,
                        weight_scale: Tensor | None = None) -> Tensor:
    """See the head: x [B, L, D], shift and scale [B, 1, D] (scale holds its 1); float32 [B, L, N]."""
    normal = F.layer_norm(x.float(), x.shape[-1:], eps=EPS) * scale.float() + shift.float()
    return product_reference(normal, weight, bias, weight_scale)


def gelu_reference(x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor | None = None,
                   shift: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """See the head; the exact GELU. float32 [B, L, N]."""
    if shift is None:
        return F.gelu(product_reference(x, weight, bias, weight_scale))
    return F.gelu(modulated_reference(x, shift, scale, weight, bias, weight_scale))


def residual_reference(x: Tensor, gate: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None,
                       weight_scale: Tensor | None = None) -> Tensor:
    """See the head: gate [B, 1, N], residual [B, L, N]; float32 [B, L, N]."""
    return residual.float() + gate.float() * product_reference(x, weight, bias, weight_scale)


@jit
def _row(p_x, at, inside, mean, over_std, p_shift, p_scale, side, MODULATE: tl.constexpr):
    """A block of rows as the product sees them."""
    b_x = tl.load(p_x + at, mask=inside, other=0.0).to(tl.float32)
    if MODULATE:
        b_scale = tl.load(p_scale + side, mask=inside, other=0.0).to(tl.float32)
        b_shift = tl.load(p_shift + side, mask=inside, other=0.0).to(tl.float32)
        b_x = tl.where(inside, (b_x - mean[:, None]) * over_std[:, None] * b_scale + b_shift, 0.0)
    return b_x


@jit
def _linear_kernel(p_x, p_weight, p_bias, p_weight_scale, p_shift, p_scale, p_gate, p_residual, p_out,
                   rows, dim, outputs, length, eps,
                   stride_x, stride_w, stride_side, stride_gate, stride_residual, stride_out,
                   MODULATE: tl.constexpr, BIAS: tl.constexpr, INT8: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr,
                   BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, wanted = o_m < rows, o_n < outputs
    i_batch = o_m // length
    mean = tl.zeros((BLOCK_M,), tl.float32)
    over_std = mean
    if MODULATE:
        for i_k in range(0, dim, BLOCK_K):
            o_k = i_k + tl.arange(0, BLOCK_K)
            inside = here[:, None] & (o_k < dim)
            mean += tl.sum(tl.load(p_x + o_m[:, None] * stride_x + o_k, mask=inside, other=0.0).to(tl.float32), 1)
        mean = mean / dim
        spread = tl.zeros((BLOCK_M,), tl.float32)
        for i_k in range(0, dim, BLOCK_K):
            o_k = i_k + tl.arange(0, BLOCK_K)
            inside = here[:, None] & (o_k < dim)
            away = tl.load(p_x + o_m[:, None] * stride_x + o_k, mask=inside, other=0.0).to(tl.float32) - mean[:, None]
            spread += tl.sum(tl.where(inside, away * away, 0.0), 1)
        over_std = 1 / tl.sqrt(spread / dim + eps)
    row_scale = tl.zeros((BLOCK_M,), tl.float32)
    if INT8:
        for i_k in range(0, dim, BLOCK_K):
            o_k = i_k + tl.arange(0, BLOCK_K)
            b_x = _row(p_x, o_m[:, None] * stride_x + o_k, here[:, None] & (o_k < dim), mean, over_std,
                       p_shift, p_scale, i_batch[:, None] * stride_side + o_k, MODULATE)
            row_scale = tl.maximum(row_scale, tl.max(tl.abs(b_x), 1))
        row_scale = tl.maximum(row_scale, 1e-10) / 127.0
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    else:
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for i_k in range(0, dim, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        b_x = _row(p_x, o_m[:, None] * stride_x + o_k, here[:, None] & (o_k < dim), mean, over_std,
                   p_shift, p_scale, i_batch[:, None] * stride_side + o_k, MODULATE)
        b_w = tl.load(p_weight + o_n * stride_w + o_k[:, None], mask=wanted & (o_k < dim)[:, None], other=0)
        if INT8:
            # Adding and taking away 1.5 * 2^23 rounds halves to even on every target.
            b_q = (b_x / row_scale[:, None] + 12582912.0) - 12582912.0
            total += tl.dot(b_q.to(tl.int8), b_w, out_dtype=tl.int32)
        else:
            total += tl.dot(b_x.to(b_w.dtype), b_w, input_precision="ieee")
    if INT8:
        b_y = total.to(tl.float32) * row_scale[:, None] * tl.load(p_weight_scale + o_n, mask=wanted, other=0.0)[None, :]
    else:
        b_y = total
    if BIAS:
        b_y += tl.load(p_bias + o_n, mask=wanted, other=0.0).to(tl.float32)[None, :]
    kept = here[:, None] & wanted
    if GELU:
        b_y = 0.5 * b_y * (1 + tl.erf(b_y * 0.7071067811865476))
    if RESIDUAL:
        b_gate = tl.load(p_gate + i_batch[:, None] * stride_gate + o_n, mask=kept, other=0.0).to(tl.float32)
        b_y = b_y * b_gate + tl.load(p_residual + o_m[:, None] * stride_residual + o_n, mask=kept, other=0.0).to(tl.float32)
    tl.store(p_out + o_m[:, None] * stride_out + o_n, b_y.to(p_out.dtype.element_ty), mask=kept)


def _rows(x: Tensor) -> Tensor:
    """[B, L, D] as rows [B * L, D] whose values lie together."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _sides(x: Tensor) -> Tensor:
    """[B, 1, D] as [B, D] whose values lie together."""
    x = x.reshape(x.shape[0], x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch(x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor | None, out: Tensor, *,
            shift: Tensor | None = None, scale: Tensor | None = None, gelu: bool = False, gate: Tensor | None = None,
            residual: Tensor | None = None) -> None:
    """Run the kernel on checked tensors; ``out`` [B, L, N] lies together."""
    length, outputs = x.shape[1], weight.shape[0]
    x, residual = _rows(x), None if residual is None else _rows(residual)
    shift, scale, gate = (None if s is None else _sides(s) for s in (shift, scale, gate))
    if scale is not None and scale.stride(0) != shift.stride(0):
        shift, scale = shift.contiguous(), scale.contiguous()
    weight = weight if weight.stride(-1) == 1 else weight.contiguous()
    rows, blocks = x.shape[0], blocks_of("linear", x.device)
    block_m = min(blocks["BLOCK_M"], max(16, triton.next_power_of_2(rows)))
    warps = blocks["num_warps"] if block_m == blocks["BLOCK_M"] else 4
    _linear_kernel[(triton.cdiv(rows, block_m), triton.cdiv(outputs, blocks["BLOCK_N"]))](
        x, weight, bias, weight_scale, shift, scale, gate, residual, out, rows, x.shape[1], outputs, length, EPS,
        x.stride(0), weight.stride(0), 0 if shift is None else shift.stride(0), 0 if gate is None else gate.stride(0),
        0 if residual is None else residual.stride(0), out.stride(-2),
        MODULATE=shift is not None, BIAS=bias is not None, INT8=weight_scale is not None, GELU=gelu,
        RESIDUAL=residual is not None, **blocks | {"BLOCK_M": block_m, "num_warps": warps})


_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def _check(what: str, x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor | None,
           sides: dict[str, tuple]) -> None:
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[1] != x.shape[2] or 0 in x.shape:
        raise ValueError(f"{what}: expected x [B, L, D] and weight [N, D], got {tuple(x.shape)} and {tuple(weight.shape)}")
    if x.dtype not in _TYPES:
        raise ValueError(f"{what}: expected x of float32, bfloat16 or float16, got {x.dtype}")
    # Autocast brings types together by itself.
    alike = weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)
    if (weight.dtype == torch.int8) != (weight_scale is not None) or (weight_scale is None and not alike):
        raise ValueError(f"{what}: expected weight of {x.dtype}, or int8 with weight_scale, got {weight.dtype} "
                         f"{'with' if weight_scale is not None else 'without'} it")
    for name, value, shape in (("bias", bias, weight.shape[:1]), ("weight_scale", weight_scale, weight.shape[:1]),
                               *((name, value, shape) for name, (value, shape) in sides.items())):
        if value is not None and tuple(value.shape) != tuple(shape):
            raise ValueError(f"{what}: expected {name} {tuple(shape)}, got {tuple(value.shape)}")


def _int8_rows(x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor, shift: Tensor | None, scale: Tensor | None,
               gelu: bool, gate: Tensor | None, residual: Tensor | None) -> Tensor:
    """The three operations with int8 weights in the fewest passes that torch offers; x [b, l, D], float32 [b, l, N]."""
    x = x.float()
    if shift is not None:
        x = F.layer_norm(x, x.shape[-1:], eps=EPS)
        x = torch.addcmul(shift, x, scale, out=x)
    rows = x.reshape(-1, x.shape[-1])
    largest = rows.abs().amax(-1, keepdim=True).clamp_(min=1e-10)
    # The largest magnitude becomes 127 and nothing else exceeds it: no clamp is needed.
    total = torch._int_mm((rows * (LARGEST / largest)).round_().to(torch.int8), weight.t()).float().mul_(weight_scale)
    row_scale = largest.div_(LARGEST)
    total = total.mul_(row_scale) if bias is None else torch.addcmul(bias, total, row_scale, out=total)
    total = total.view(*x.shape[:-1], -1)
    if gelu:
        return F.gelu(total)
    return total if gate is None else torch.addcmul(residual, gate, total, out=total)


def _int8_cpu(x: Tensor, weight: Tensor, bias: Tensor | None, weight_scale: Tensor, dtype: torch.dtype, *,
              shift: Tensor | None = None, scale: Tensor | None = None, gelu: bool = False, gate: Tensor | None = None,
              residual: Tensor | None = None) -> Tensor:
    """`_int8_rows` a block of rows at a time where there are many: what stands between the passes stays in the cache, and memory
    that is given back between two layers need not be asked for again."""
    batch, length, _ = x.shape
    if batch * length <= 2 * _CACHED_ROWS:
        return _int8_rows(x, weight, bias, weight_scale, shift, scale, gelu, gate, residual).to(dtype)
    out = torch.empty(batch, length, weight.shape[0], dtype=dtype)
    step = -(-length // -(-length // _CACHED_ROWS))
    for i in range(batch):
        one = slice(i, i + 1)
        sides = [None if side is None else side[one] for side in (shift, scale)]
        for at in range(0, length, step):
            here = slice(at, at + step)
            ends = (None, None) if gate is None else (gate[one], residual[one, here])
            out[one, here] = _int8_rows(x[one, here], weight, bias, weight_scale, *sides, gelu, *ends)
    return out


def _out(x: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(*x.shape[:2], weight.shape[0], dtype=dtype or x.dtype, device=x.device)


def modulated_linear(x: Tensor, shift: Tensor, scale: Tensor, weight: Tensor, bias: Tensor | None = None,
                     weight_scale: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """[B, L, N] in ``dtype`` (None: x's type): layer norm of x [B, L, D], times ``scale`` [B, 1, D], plus ``shift`` [B, 1, D],
    then weight [N, D] (x's type, or int8 with ``weight_scale`` float32 [N]) and bias [N]. ValueError where shapes or types do not
    fit."""
    side = (x.shape[0], 1, x.shape[-1])
    _check("modulated_linear", x, weight, bias, weight_scale, {"shift": (shift, side), "scale": (scale, side)})
    if use_triton(x):
        out = _out(x, weight, dtype)
        _launch(x, weight, bias, weight_scale, out, shift=shift, scale=scale)
        return out
    if weight_scale is not None:
        if cpu_sums_int8(x):
            return _int8_cpu(x, weight, bias, weight_scale, dtype or x.dtype, shift=shift, scale=scale)
        return modulated_reference(x, shift, scale, weight, bias, weight_scale).to(dtype or x.dtype)
    y = F.linear(modulated(x, shift, scale), weight, bias)
    return y if dtype is None else y.to(dtype)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, L, D], times ``scale`` [B, 1, D], plus ``shift`` [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), scale)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None, weight_scale: Tensor | None = None,
                shift: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """[B, L, N] in x's type: GELU of weight [N, D] x [B, L, D] + bias [N], x modulated by ``shift`` and ``scale`` [B, 1, D] where
    they are given; types and errors as `modulated_linear`."""
    side = (x.shape[0], 1, x.shape[-1])
    if (shift is None) != (scale is None):
        raise ValueError("linear_gelu: expected shift and scale together, got one of them")
    _check("linear_gelu", x, weight, bias, weight_scale, {"shift": (shift, side), "scale": (scale, side)})
    if use_triton(x):
        out = _out(x, weight)
        _launch(x, weight, bias, weight_scale, out, gelu=True, shift=shift, scale=scale)
        return out
    if weight_scale is not None:
        if cpu_sums_int8(x):
            return _int8_cpu(x, weight, bias, weight_scale, x.dtype, shift=shift, scale=scale, gelu=True)
        return gelu_reference(x, weight, bias, weight_scale, shift, scale).to(x.dtype)
    return F.gelu(F.linear(x if shift is None else modulated(x, shift, scale), weight, bias))


def linear_residual(x: Tensor, gate: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None,
                    weight_scale: Tensor | None = None) -> Tensor:
    """[B, L, N] in x's type: ``residual`` [B, L, N] plus ``gate`` [B, 1, N] times weight [N, D] x [B, L, D] + bias [N]; types and
    errors as `modulated_linear`."""
    outputs = weight.shape[0]
    _check("linear_residual", x, weight, bias, weight_scale,
           {"gate": (gate, (x.shape[0], 1, outputs)), "residual": (residual, (*x.shape[:2], outputs))})
    if use_triton(x):
        out = _out(x, weight)
        _launch(x, weight, bias, weight_scale, out, gate=gate, residual=residual)
        return out
    if weight_scale is not None:
        if cpu_sums_int8(x):
            return _int8_cpu(x, weight, bias, weight_scale, residual.dtype, gate=gate, residual=residual)
        return residual_reference(x, gate, residual, weight, bias, weight_scale).to(residual.dtype)
    return torch.addcmul(residual, gate, F.linear(x, weight, bias))
