"""The sampling step's kernels against their references: interpreted where there is no GPU."""

import pytest
import torch
from rtinteract.kernels import remask as ops

pytest.importorskip("triton", reason="Triton is published for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logits(tokens, codes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(tokens, codes, generator=g)).to(DEVICE)


def launched(cond, uncond=None, scale=1.0, *, count, temperature, streams=None, noise=None):
    """The kernel's answer, written over values that it must not leave."""
    codes = torch.full(cond.shape[:-1], -7, dtype=torch.int64, device=DEVICE)
    scores = torch.full(cond.shape[:-1], float("nan"), device=DEVICE)
    ops._launch_draw(cond, uncond, scale, count, temperature, streams, noise, codes, scores)
    return codes, scores


def reference(cond, uncond=None, scale=1.0, **options):
    guided = cond.float() if uncond is None else ops.guide_reference(cond.float(), uncond.float(), scale)
    return ops.draw_reference(guided, **options)


@pytest.mark.parametrize("tokens, codes, count", [(1, 1, 1), (7, 37, 4), (5, 1000, 100), (3, 1024, 103), (2, 1024, 1024),
                                                  (2, 1500, 150)])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("kind", ["seeded", "given", "greedy", "cold"])
def test_draw(tokens, codes, count, guided, kind):
    cond, uncond = logits(tokens, codes), logits(tokens, codes, 1) if guided else None
    options = dict(count=count, temperature=0.0 if kind == "cold" else 0.8)
    if kind in ("seeded", "cold"):
        options["streams"] = ops.mix64(torch.arange(tokens)).to(DEVICE)
    elif kind == "given":
        uniform = torch.rand(tokens, codes, generator=torch.Generator().manual_seed(2))
        options["noise"] = -torch.log(-torch.log(uniform)).to(DEVICE)
    got, expected = launched(cond, uncond, 2.0, **options), reference(cond, uncond, 2.0, **options)
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1], rtol=1e-5, atol=1e-7)


def test_draw_takes_rows_that_do_not_lie_together_and_narrow_types():
    wide = logits(6, 80)
    options = dict(count=5, temperature=1.0, streams=ops.mix64(torch.arange(6)).to(DEVICE))
    for cond in (wide[:, :40], wide.t().contiguous().t()[:, :64], wide.bfloat16()):
        got, expected = launched(cond, **options), reference(cond, **options)
        assert torch.equal(got[0], expected[0])
        torch.testing.assert_close(got[1], expected[1], rtol=1e-5, atol=1e-7)


def test_level_logits_pass_the_filter_together():
    cond = torch.zeros(4, 16, device=DEVICE)
    cond[:, 3] = 1.0
    codes, scores = launched(cond, count=4, temperature=1.0, streams=ops.mix64(torch.arange(4)).to(DEVICE))
    assert ((codes >= 0) & (codes < 16)).all()
    torch.testing.assert_close(scores, cond.softmax(-1).gather(1, codes[:, None])[:, 0])


@pytest.mark.parametrize("tokens", [1, 5, 40, 161, 750])
def test_remask(tokens):
    g = torch.Generator().manual_seed(tokens)
    scores = (torch.rand(6, tokens, generator=g) * 8).round() / 8
    scores[torch.rand(6, tokens, generator=g) < 0.3] = 1e5
    scores[0] = 0.25
    count = torch.tensor([0, 1, tokens // 3, tokens // 2, tokens, tokens], dtype=torch.int64)
    mask = torch.ones(6, tokens, dtype=torch.bool, device=DEVICE)
    ops._launch_remask(scores.to(DEVICE), count.to(DEVICE), mask)
    assert torch.equal(mask.cpu(), ops.remask_reference(scores, count))


def test_remask_takes_negative_scores_and_a_view():
    scores = torch.linspace(-1, 1, 24).view(4, 6).t()[:3]
    count = torch.tensor([2, 0, 4])
    mask = torch.zeros(3, 4, dtype=torch.bool, device=DEVICE)
    ops._launch_remask(scores.to(DEVICE), count.to(DEVICE), mask)
    assert torch.equal(mask.cpu(), ops.remask_reference(scores, count))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm GPU")
def test_a_gpu_draws_what_a_cpu_draws(monkeypatch):
    monkeypatch.setenv("RTI_BACKEND", "triton")
    cond, streams = logits(64, 1000), ops.mix64(torch.arange(64))
    here = ops.draw(cond.cpu(), count=100, temperature=1.0, streams=streams)
    there = ops.draw(cond, count=100, temperature=1.0, streams=streams.to(DEVICE))
    assert torch.equal(here[0], there[0].cpu())
