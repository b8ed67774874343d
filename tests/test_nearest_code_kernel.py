"""The nearest code's kernel against its reference: interpreted where there is no GPU."""

import pytest
import torch
from rtinteract.kernels import nearest_code as ops

pytest.importorskip("triton", reason="Triton is published for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def launched(x, codebook, noise=None, temperature=0.5):
    ids = torch.full((x.shape[0],), -7, dtype=torch.int64, device=DEVICE)
    ops._launch(*(None if t is None else t.to(DEVICE) for t in (x, codebook, noise)), temperature, ids)
    return ids.cpu()


@pytest.mark.parametrize("rows, codes, dim", [(1, 1, 1), (33, 70, 5), (64, 128, 64), (40, 200, 100)])
@pytest.mark.parametrize("noisy", [False, True])
def test_ids_are_the_references(rows, codes, dim, noisy):
    g = torch.Generator().manual_seed(rows)
    x, codebook = torch.randn(rows, dim, generator=g), torch.randn(codes, dim, generator=g)
    noise = -torch.log(-torch.log(torch.rand(rows, codes, generator=g))) if noisy else None
    assert torch.equal(launched(x, codebook, noise), ops.nearest_code_reference(x, codebook, noise, 0.5))


def test_level_distances_go_to_the_smaller_id():
    codebook = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    assert launched(torch.zeros(3, 2), codebook).tolist() == [0, 0, 0]
    assert launched(torch.tensor([[-1.0, 0.0]]), codebook).tolist() == [1]


def test_views_and_narrow_types():
    g = torch.Generator().manual_seed(0)
    wide, codebook = torch.randn(20, 24, generator=g), torch.randn(12, 30, generator=g)
    for x, c in ((wide[:, :12], codebook.t()[:, :12]), (wide[::2, :12].bfloat16(), codebook.t()[:, :12].bfloat16())):
        assert torch.equal(launched(x, c), ops.nearest_code_reference(x, c))
