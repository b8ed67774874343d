"""The codec's convolutions: the plain path, and the kernel, interpreted where there is no GPU."""

import pytest
import torch
import torch.nn.functional as F
from rtinteract.kernels import convolution as ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (batch, channels, height, width, outputs, kernel, stride, padding, dilation)
SHAPES = [(1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1)), (2, 12, 5, 9, 20, (3, 3), (1, 1), (1, 1), (1, 1)),
          (1, 40, 7, 8, 33, (4, 4), (2, 2), (1, 1), (1, 1)), (2, 16, 5, 6, 16, (3, 3), (1, 1), (3, 3), (3, 3)),
          (1, 24, 22, 3, 8, (5, 3), (2, 1), (1, 1), (1, 1))]


def inputs(shape, dtype, residual):
    batch, channels, height, width, outputs, kernel, stride, padding, dilation = shape
    g = torch.Generator().manual_seed(channels)
    x = torch.randn(batch, channels, height, width, generator=g).to(dtype).to(DEVICE, memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, *kernel, generator=g) / (channels * kernel[0] * kernel[1]) ** 0.5
    weight = weight.to(dtype).to(DEVICE)
    bias = torch.randn(outputs, generator=g).to(dtype).to(DEVICE)
    places = {"stride": stride, "padding": padding, "dilation": dilation}
    size = F.conv2d(x.float(), weight.float(), **places).shape
    return x, weight, bias, torch.randn(size, generator=g).to(dtype).to(DEVICE) if residual else None, places


def launched(x, weight, bias, residual, places, weight_scale=None, relu_in=False, relu_out=False):
    pytest.importorskip("triton", reason="Triton is published for Linux only")
    size = F.conv2d(x.float(), weight.float(), **places).shape
    out = torch.full(size, float("nan"), dtype=x.dtype, device=DEVICE).contiguous(memory_format=torch.channels_last)
    ops._launch(x, weight, bias, residual, weight_scale, out, relu_in=relu_in, relu_out=relu_out, **places)
    assert torch.isfinite(out).all()
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("relu_in,relu_out,residual", [(False, False, False), (True, True, False), (True, False, True)])
def test_kernel(shape, dtype, relu_in, relu_out, residual):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies bfloat16 matrices as integers; float16 takes the same path")
    x, weight, bias, added, places = inputs(shape, dtype, residual)
    options = {"relu_in": relu_in, "relu_out": relu_out}
    for b in (bias, None):
        true = ops.convolution_reference(x, weight, b, residual=added, **options, **places)
        plain = ops.convolution(x, weight, b, residual=added, **options, **places)
        allowed = 2 * (plain.float() - true).abs().max() + 1e-5
        assert (launched(x, weight, b, added, places, **options).float() - true).abs().max() <= allowed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu_in", [False, True])
def test_int8_kernel_sums_exactly(shape, relu_in):
    x, weight, bias, _, places = inputs(shape, torch.float32, False)
    narrow, scale = ops.quantize_kernels(weight)
    true = ops.convolution_reference(x, narrow, bias, weight_scale=scale, relu_in=relu_in, **places)
    torch.testing.assert_close(launched(x, narrow, bias, None, places, scale, relu_in), true, rtol=1e-5, atol=1e-5)


def test_int8_is_near_the_whole_numbers():
    x, weight, bias, _, places = inputs(SHAPES[3], torch.float32, False)
    true = ops.convolution_reference(x, weight, bias, **places)
    narrow, scale = ops.quantize_kernels(weight)
    near = ops.convolution(x, narrow, bias, weight_scale=scale, **places)
    assert 1e-5 < (near - true).abs().mean() < 0.02 * true.abs().mean()


def test_other_layouts_are_taken_as_they_are():
    x, weight, bias, added, places = inputs(SHAPES[1], torch.float32, True)
    planes, turned = x.contiguous(), weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    true = ops.convolution_reference(x, weight, bias, residual=added, **places)
    torch.testing.assert_close(launched(planes, turned, bias, added, places), true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("call", [
    lambda x, w: ops.convolution(x[0], w),
    lambda x, w: ops.convolution(x, w[:, :2]),
    lambda x, w: ops.convolution(x[..., :1, :1], w),
    lambda x, w: ops.convolution(x.double(), w.double()),
    lambda x, w: ops.convolution(x, w.half()),
    lambda x, w: ops.convolution(x, w.to(torch.int8)),
    lambda x, w: ops.convolution(x, w, torch.zeros(3)),
    lambda x, w: ops.convolution(x, w, residual=torch.zeros(2, 5, 4, 6)),
])
def test_bad_arguments(call):
    with pytest.raises(ValueError, match="expected"):
        call(torch.zeros(2, 4, 6, 6), torch.zeros(5, 4, 3, 3))
