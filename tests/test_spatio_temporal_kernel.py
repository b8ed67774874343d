"""Both attention branches of a block in three launches, against the reference: interpreted where there is no GPU."""

import pytest
import torch
from rtinteract.kernels import spatio_temporal as ops

from rtinteract.blocks import InterMBlock

pytest.importorskip("triton", reason="Triton is published for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (batch, heads, head, parts, columns)
SHAPES = [(1, 1, 16, 5, 1), (2, 2, 32, 5, 7), (1, 2, 48, 5, 20), (1, 1, 64, 3, 33)]


def inputs(shape, dtype=torch.float32, padded=True):
    batch, heads, head, parts, columns = shape
    width, g = heads * head, torch.Generator().manual_seed(columns)

    def draw(*size):
        return torch.randn(*size, generator=g).to(dtype).to(DEVICE)

    def branch():
        return ops.Branch(draw(batch, 1, width), 1 + 0.3 * draw(batch, 1, width), draw(batch, 1, width),
                          draw(3 * width, width) / width ** 0.5, draw(3 * width), draw(width, width) / width ** 0.5, draw(width))

    lengths = torch.randint(1, columns + 1, (batch,), generator=g).to(DEVICE) if padded else None
    # A view of a longer sequence, as a block cuts the separator off.
    x = draw(batch, 2 * parts * columns + 1, width)[:, :-1]
    return x, branch(), branch(), heads, parts, columns, lengths


def seen(x, columns, lengths):
    """Where an answer has a meaning: bool [B, L]."""
    column = torch.arange(x.shape[1], device=x.device) % columns
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if lengths is None else column < lengths[:, None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels(shape, padded, dtype):
    given = inputs(shape, dtype, padded)
    x, columns, lengths = given[0], given[5], given[6]
    got, true = ops.spatio_temporal(*given), ops.spatio_temporal_reference(*given)
    where = seen(x, columns, lengths)
    assert got.dtype == dtype and torch.isfinite(got[where]).all()
    error = (got.float() - true)[where].abs().max()
    assert error < (1e-4 if dtype == torch.float32 else 0.01 * true.abs().max())


def test_the_reference_is_what_a_block_does():
    torch.manual_seed(0)
    block = InterMBlock(32, 2, 48, 0.0).eval()
    torch.nn.init.normal_(block.adaln_split.linear.weight, std=0.3)
    m = block.modulate(torch.randn(2, 32))
    branches = block.spatial.branch(m.spatial), block.temporal.branch(m.temporal)
    x, lengths = torch.randn(2, 2 * 5 * 6, 32), torch.tensor([4, 6])
    with torch.no_grad():
        expected = block.spatio_temporal(x, m, 5, 6, lengths)
        got = ops.spatio_temporal_reference(x, *branches, 2, 5, 6, lengths)
        launched = ops.spatio_temporal(x, *branches, 2, 5, 6, lengths)
    where = seen(x, 6, lengths)
    torch.testing.assert_close(launched[where], expected[where], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got[where], expected[where], rtol=1e-4, atol=1e-4)


def test_bad_arguments():
    x, spatial, temporal, *rest = inputs(SHAPES[1])
    for call in (lambda: ops.spatio_temporal(x[:, :-1], spatial, temporal, *rest),
                 lambda: ops.spatio_temporal(x, spatial, temporal, *rest[:-1], torch.ones(5)),
                 lambda: ops.spatio_temporal(x, spatial._replace(gate=spatial.gate[:1]), temporal, *rest),
                 lambda: ops.spatio_temporal(x, spatial, temporal._replace(in_bias=temporal.in_bias.half()), *rest)):
        with pytest.raises(ValueError, match="expected"):
            call()
