"""2D convolution with what stands around it in the codec's residual blocks.

    y[b, p, q, o] = bias[o] + sum_ijc  w[o, c, i, j] r(x[b, p s + i d - pad, q s + j d - pad, c]) , then ReLU, then + residual

(s, d, pad: stride, dilation and padding, each for both axes; r is ReLU where asked, else nothing). An implicit matrix product:
rows are output pixels, the inner dimension runs over window and channels, and no window is ever copied. Images lie
channels-last. Weights have the images' type, or are int8 with a scale for each output channel (W8A8): then pixels are quantised
on the fly by one scale of the whole image, products are summed in int32, and  y = sum * x_scale * weight_scale + bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rtinteract.kernels.backend import jit, tl, triton, use_triton
from rtinteract.kernels.blocks import blocks_of
from torch import Tensor

LARGEST = 127.0
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def image_scale(x: Tensor, relu: bool) -> Tensor:
    """The scale float32 [1] by which an image is quantised: its largest magnitude (after ReLU where asked) over 127."""
    top = x.amax().clamp(min=0) if relu else x.abs().amax()
    return (top.float().clamp(min=1e-10) / LARGEST).view(1)


def quantize_kernels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights [O, C, kh, kw] and their scales float32 [O], symmetric, halves to even."""
    scale = weight.float().abs().amax((1, 2, 3)).clamp(min=1e-10) / LARGEST
    return (weight.float() / scale[:, None, None, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def convolution_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride=(1, 1), padding=(0, 0),
                          dilation=(1, 1), relu_in: bool = False, relu_out: bool = False, residual: Tensor | None = None,
                          weight_scale: Tensor | None = None) -> Tensor:
    """See the head: x [B, C, H, W], weight [O, C, kh, kw], bias [O], residual [B, O, P, Q]; float32 [B, O, P, Q]."""
    places = {"stride": stride, "padding": padding, "dilation": dilation}
    seen = x.float().relu() if relu_in else x.float()
    if weight_scale is None:
        y = F.conv2d(seen, weight.float(), **places)
    else:
        scale = image_scale(x, relu_in)
        whole = (seen / scale).round().clamp(-LARGEST, LARGEST)
        # Sums of int8 products fit float64 exactly.
        y = F.conv2d(whole.double(), weight.double(), **places).float() * scale * weight_scale[:, None, None]
    if bias is not None:
        y = y + bias.float()[:, None, None]
    y = y.relu() if relu_out else y
    return y if residual is None else y + residual.float()


@jit
def _convolution_kernel(p_x, p_weight, p_bias, p_x_scale, p_weight_scale, p_residual, p_out,
                        pixels, channels, outputs, height, width, out_height, out_width,
                        x_b, x_c, x_h, x_w, w_o, w_c, w_i, w_j, r_b, r_c, r_h, r_w, o_b, o_c, o_h, o_w,
                        STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
                        DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
                        RELU_IN: tl.constexpr, RELU_OUT: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
                        INT8: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    o_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, wanted = o_m < pixels, o_n < outputs
    i_batch, place = (o_m // (out_height * out_width)).to(tl.int64), o_m % (out_height * out_width)
    i_row, i_column = place // out_width, place % out_width
    if INT8:
        x_scale = tl.load(p_x_scale)
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    else:
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop over window and channels: unrolled over the window, its addresses would not fit the registers.
    for tap in range(KERNEL_H * KERNEL_W):
        i, j = tap // KERNEL_W, tap % KERNEL_W
        row, column = i_row * STRIDE_H + i * DILATION_H - PAD_H, i_column * STRIDE_W + j * DILATION_W - PAD_W
        inside = here & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = i_batch * x_b + row * x_h + column * x_w
        for i_c in range(0, channels, BLOCK_K):
            o_k = i_c + tl.arange(0, BLOCK_K)
            known = o_k < channels
            b_x = tl.load(p_x + at[:, None] + o_k * x_c, mask=inside[:, None] & known, other=0.0)
            if RELU_IN:
                b_x = tl.maximum(b_x, 0.0).to(b_x.dtype)
            b_w = tl.load(p_weight + o_n * w_o + o_k[:, None] * w_c + i * w_i + j * w_j, mask=wanted & known[:, None], other=0)
            if INT8:
                b_q = b_x.to(tl.float32) / x_scale
                whole = tl.floor(b_q + 0.5)
                # Halves go to even, as torch rounds.
                odd = (whole - b_q == 0.5) & (whole - 2 * tl.floor(whole * 0.5) == 1)
                whole = tl.minimum(tl.maximum(tl.where(odd, whole - 1, whole), -127.0), 127.0)
                total += tl.dot(whole.to(tl.int8), b_w, out_dtype=tl.int32)
            else:
                total += tl.dot(b_x, b_w, input_precision="ieee")
    if INT8:
        b_y = total.to(tl.float32) * x_scale * tl.load(p_weight_scale + o_n, mask=wanted, other=0.0)
    else:
        b_y = total
    if BIAS:
        b_y += tl.load(p_bias + o_n, mask=wanted, other=0.0).to(tl.float32)
    if RELU_OUT:
        b_y = tl.maximum(b_y, 0.0)
    full = here[:, None] & wanted
    if RESIDUAL:
        from_ = i_batch * r_b + i_row * r_h + i_column * r_w
        b_y += tl.load(p_residual + from_[:, None] + o_n * r_c, mask=full, other=0.0).to(tl.float32)
    to = i_batch * o_b + i_row * o_h + i_column * o_w
    tl.store(p_out + to[:, None] + o_n * o_c, b_y.to(p_out.dtype.element_ty), mask=full)


def _out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _check(x: Tensor, weight: Tensor, bias, residual, weight_scale, shape: tuple) -> None:
    """ValueError where arguments do not fit; ``shape`` is the output's."""
    def refuse(what, expected, got):
        raise ValueError(f"convolution: expected {what} {expected}, got {got}")

    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1]:
        refuse("x [B, C, H, W] and weight", "[O, C, kh, kw]", f"{tuple(x.shape)} and {tuple(weight.shape)}")
    if min(shape) < 1:
        refuse("an image of at least the window's size, padded,", "", tuple(x.shape))
    if x.dtype not in _TYPES:
        refuse("x", "float32, float16 or bfloat16", x.dtype)
    if (weight.dtype == torch.int8) != (weight_scale is not None) or (weight_scale is None and weight.dtype != x.dtype):
        refuse("weight", f"{x.dtype}, or int8 with weight_scale [O]", f"{weight.dtype}, weight_scale {weight_scale is not None}")
    sides = (("bias", bias, shape[1:2]), ("weight_scale", weight_scale, shape[1:2]), ("residual", residual, shape))
    for name, side, wanted in sides:
        if side is not None and tuple(side.shape) != tuple(wanted):
            refuse(name, tuple(wanted), tuple(side.shape))


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1),
                relu_in: bool = False, relu_out: bool = False, residual: Tensor | None = None,
                weight_scale: Tensor | None = None) -> Tensor:
    """As `convolution_reference`, in the type of x [B, C, H, W], channels-last. ValueError where arguments do not fit."""
    size = [_out_size(*s) for s in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)] \
        if x.dim() == weight.dim() == 4 else [1, 1]
    shape = (x.shape[0], weight.shape[0], *size)
    _check(x, weight, bias, residual, weight_scale, shape)
    places = {"stride": stride, "padding": padding, "dilation": dilation}
    if use_triton(x):
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        _launch(x, weight, bias, residual, weight_scale, out, relu_in=relu_in, relu_out=relu_out, **places)
        return out
    if weight_scale is not None:
        return convolution_reference(x, weight, bias, relu_in=relu_in, relu_out=relu_out, residual=residual,
                                     weight_scale=weight_scale, **places).to(x.dtype)
    y = F.conv2d(F.relu(x) if relu_in else x, weight, bias, **places)
    y = F.relu(y) if relu_out else y
    return y if residual is None else residual + y


def _launch(x, weight, bias, residual, weight_scale, out, *, relu_in, relu_out, stride, padding, dilation) -> None:
    """Run the kernel on tensors that `convolution` has checked."""
    pixels, outputs = out.shape[0] * out.shape[2] * out.shape[3], out.shape[1]
    int8 = weight_scale is not None
    sizes = blocks_of("convolution", x.device)
    if x.dtype == torch.float32:
        # Values of twice the size: half as many at a time take as much shared memory.
        sizes = sizes | {"BLOCK_K": max(16, sizes["BLOCK_K"] // 2)}
    grid = (triton.cdiv(pixels, sizes["BLOCK_M"]), triton.cdiv(outputs, sizes["BLOCK_N"]))
    _convolution_kernel[grid](
        x, weight, bias, image_scale(x, relu_in) if int8 else None, weight_scale, residual, out,
        pixels, x.shape[1], outputs, x.shape[2], x.shape[3], out.shape[2], out.shape[3],
        *x.stride(), *weight.stride(), *((0,) * 4 if residual is None else residual.stride()), *out.stride(),
        STRIDE_H=stride[0], STRIDE_W=stride[1], PAD_H=padding[0], PAD_W=padding[1], DILATION_H=dilation[0],
        DILATION_W=dilation[1], KERNEL_H=weight.shape[2], KERNEL_W=weight.shape[3], RELU_IN=relu_in, RELU_OUT=relu_out,
        BIAS=bias is not None, RESIDUAL=residual is not None, INT8=int8, **sizes)
