"""Attention against its reference: the plain path, and the kernel, interpreted where there is no GPU."""

import pytest
import torch
from rtinteract.kernels import attention as ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (batch, heads, queries, keys, head, columns, always)
SHAPES = [(1, 1, 1, 1, 32, 1, 1), (2, 2, 5, 5, 64, 5, 5), (3, 2, 31, 31, 48, 3, 30), (2, 3, 75, 20, 32, 4, 20),
          (2, 1, 81, 81, 64, 8, 80)]


def inputs(shape, dtype=torch.float32, padded=True):
    batch, heads, queries, keys, head, columns, always = shape
    g = torch.Generator().manual_seed(queries)
    q = torch.randn(batch, queries, heads, head, generator=g).transpose(1, 2)
    fused = torch.randn(batch, keys, 2, heads, head, generator=g).permute(2, 0, 3, 1, 4)
    lengths = torch.randint(1, columns + 1, (batch,), generator=g) if padded else None
    return [x.to(dtype).to(DEVICE) for x in (q, *fused)], None if lengths is None else lengths.to(DEVICE)


def expected(tensors, lengths, shape):
    mask = None if lengths is None else ops.attention_mask(lengths, shape[3], shape[5], shape[6])
    return ops.attention_reference(*tensors, mask)


def close(got, true, tensors, lengths, shape, times=2):
    """The error is at most twice torch's own in the same type."""
    mask = None if lengths is None else ops.attention_mask(lengths, shape[3], shape[5], shape[6])
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=mask)
    allowed = times * (theirs.float() - true).abs().max() + 1e-5
    assert torch.isfinite(got).all() and (got.float() - true).abs().max() <= allowed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernel(shape, padded, dtype):
    pytest.importorskip("triton", reason="Triton is published for Linux only")
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies bfloat16 matrices as integers; float16 takes the same path")
    tensors, lengths = inputs(shape, dtype, padded)
    out = torch.full(tensors[0].shape, float("nan"), dtype=dtype, device=DEVICE)
    ops._launch(*tensors, out, lengths, shape[5], shape[6])
    close(out, expected(tensors, lengths, shape), tensors, lengths, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(shape, dtype):
    for padded in (False, True):
        tensors, lengths = inputs(shape, dtype, padded)
        true, out = expected(tensors, lengths, shape), torch.empty(tensors[0].shape, dtype=dtype, device=DEVICE)
        with torch.no_grad():
            got = ops.attention(*tensors, lengths, shape[5], shape[6], out=out)
        assert got is out
        # Plain products round the scores to the type as well.
        close(got, true, tensors, lengths, shape, times=3)


def test_gradients_are_those_of_the_formula():
    shape = SHAPES[2]
    tensors, lengths = inputs(shape)
    grads = []
    for f in (lambda *t: ops.attention(*t, lengths, shape[5], shape[6]), lambda *t: expected(t, lengths, shape)):
        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        f(*leaves).square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_hidden_key_is_not_read():
    shape = (1, 1, 4, 8, 16, 4, 8)
    (q, k, v), _ = inputs(shape)
    lengths = torch.tensor([3], device=DEVICE)
    before = ops.attention(q, k, v, lengths, 4)
    k, v = k.clone(), v.clone()
    k[:, :, [3, 7]], v[:, :, [3, 7]] = 100.0, 1000.0
    assert torch.equal(ops.attention(q, k, v, lengths, 4), before)
    assert not torch.allclose(ops.attention(q, k, v, None, 4), before)


@pytest.mark.parametrize("call", [
    lambda q, k: ops.attention(q[0], k, k),
    lambda q, k: ops.attention(q, k, k[:, :, :2]),
    lambda q, k: ops.attention(q, k[..., :8], k[..., :8]),
    lambda q, k: ops.attention(q, k.half(), k.half()),
    lambda q, k: ops.attention(q.long(), k.long(), k.long()),
    lambda q, k: ops.attention(q, k, k, torch.tensor([1, 2])),
    lambda q, k: ops.attention(q, k, k, out=torch.zeros(1)),
])
def test_bad_arguments(call):
    q = torch.zeros(1, 2, 3, 16)
    with pytest.raises(ValueError, match="expected"):
        call(q, torch.zeros(1, 2, 5, 16))
