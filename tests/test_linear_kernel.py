"""Linear layers with their norms, gates and residuals: the plain path, and the kernel, interpreted where there is no GPU."""

import pytest
import torch
import torch.nn.functional as F
from rtinteract.kernels import linear as ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (batch, length, inputs, outputs)
SHAPES = [(1, 1, 16, 16), (2, 5, 40, 70), (3, 31, 96, 64), (1, 70, 128, 33)]
KINDS = ["modulated", "gelu", "residual"]


def inputs(kind, shape, dtype):
    """(x, the sides of the kind by name, weight, bias)."""
    batch, length, dim, outputs = shape
    g = torch.Generator().manual_seed(length)

    def draw(*size):
        return torch.randn(*size, generator=g).to(dtype).to(DEVICE)

    x, weight, bias = draw(batch, length, dim) * 2 + 0.5, draw(outputs, dim) / dim ** 0.5, draw(outputs)
    sides = {"modulated": lambda: {"shift": draw(batch, 1, dim), "scale": 1 + 0.3 * draw(batch, 1, dim)}, "gelu": dict,
             "residual": lambda: {"gate": draw(batch, 1, outputs), "residual": draw(batch, length, outputs)}}[kind]()
    return x, sides, weight, bias


def public(kind, x, sides, *rest):
    f = {"modulated": ops.modulated_linear, "gelu": ops.linear_gelu, "residual": ops.linear_residual}[kind]
    return f(x, *sides.values(), *rest)


def reference(kind, x, sides, *rest):
    f = {"modulated": ops.modulated_reference, "gelu": ops.gelu_reference, "residual": ops.residual_reference}[kind]
    return f(x, *sides.values(), *rest)


def torchs(kind, x, sides, weight, bias):
    if kind == "modulated":
        x = F.layer_norm(x, x.shape[-1:], eps=ops.EPS) * sides["scale"] + sides["shift"]
    y = F.linear(x, weight, bias)
    return F.gelu(y) if kind == "gelu" else sides["residual"] + sides["gate"] * y if kind == "residual" else y


def launched(kind, x, sides, weight, bias, weight_scale=None):
    pytest.importorskip("triton", reason="Triton is published for Linux only")
    out = torch.full((*x.shape[:2], weight.shape[0]), float("nan"), dtype=x.dtype, device=DEVICE)
    ops._launch(x, weight, bias, weight_scale, out, gelu=kind == "gelu", **sides)
    assert torch.isfinite(out).all()
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kernel(kind, shape, dtype):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies bfloat16 matrices as integers; float16 takes the same path")
    x, sides, weight, bias = inputs(kind, shape, dtype)
    for b in (bias, None):
        true = reference(kind, x, sides, weight, b)
        allowed = 2 * (torchs(kind, x, sides, weight, b).float() - true).abs().max() + 1e-5
        assert (launched(kind, x, sides, weight, b).float() - true).abs().max() <= allowed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_int8_kernel(kind, shape):
    x, sides, weight, bias = inputs(kind, shape, torch.float32)
    narrow, weight_scale = ops.quantize_rows(weight)
    rest = narrow, bias, weight_scale[:, 0]
    got, true = launched(kind, x, sides, *rest), reference(kind, x, sides, *rest)
    # Integer sums are exact: what may differ is a row whose largest value rounds another way by a bit.
    step = (true.abs().max() / ops.LARGEST).clamp(min=1e-3)
    assert ((got - true).abs() > 1e-4 * true.abs().max()).float().mean() < 0.02 and (got - true).abs().max() < step


@pytest.mark.parametrize("kind", KINDS)
def test_plain_path_is_the_reference_and_int8_is_near_it(kind):
    x, sides, weight, bias = inputs(kind, SHAPES[2], torch.float32)
    true = reference(kind, x, sides, weight, bias)
    torch.testing.assert_close(public(kind, x, sides, weight, bias), true, rtol=1e-4, atol=1e-4)
    narrow, weight_scale = ops.quantize_rows(weight)
    near = public(kind, x, sides, narrow, bias, weight_scale[:, 0])
    assert 1e-5 < (near - true).abs().mean() < 0.02 * true.abs().mean() + 0.01


def test_views_are_taken_as_they_are():
    x, sides, weight, bias = inputs("modulated", (2, 6, 32, 16), torch.float32)
    wide = torch.stack([x, x + 1], 2).flatten(2)[..., :32]
    both = torch.stack([*sides.values()], 1)
    views = {"shift": both[:, 0], "scale": both[:, 1]}
    turned = weight.t().contiguous().t()
    given = "modulated", wide, views, turned, bias
    torch.testing.assert_close(launched(*given), reference(*given), rtol=1e-4, atol=1e-4)


def test_quantised_rows_are_symmetric_and_whole_and_survive_zeros():
    x = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    rows, scale = ops.quantize_rows(x)
    assert rows.tolist() == [[64, -127, 32], [0, 0, 0]] and torch.isfinite(scale).all()
    assert (rows * scale - x).abs().max() < 2 / 127


@pytest.mark.parametrize("call", [
    lambda x, w: ops.linear_gelu(x[0], w),
    lambda x, w: ops.linear_gelu(x, w[:, :3]),
    lambda x, w: ops.linear_gelu(x.double(), w.double()),
    lambda x, w: ops.linear_gelu(x, w.half()),
    lambda x, w: ops.linear_gelu(x, w.to(torch.int8)),
    lambda x, w: ops.linear_gelu(x, w, torch.zeros(3)),
    lambda x, w: ops.linear_gelu(x, w.to(torch.int8), None, torch.zeros(3)),
    lambda x, w: ops.modulated_linear(x, torch.zeros(2, 1, 7), torch.zeros(2, 1, 8), w),
    lambda x, w: ops.linear_residual(x, torch.zeros(2, 1, 8), torch.zeros(2, 3, 5), w),
])
def test_bad_arguments(call):
    with pytest.raises(ValueError, match="expected"):
        call(torch.zeros(2, 3, 8), torch.zeros(5, 8))
