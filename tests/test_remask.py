"""The sampling step: Philox and Gumbel noise, the draw, and the choice of tokens to mask again."""

import pytest
import torch
from rtinteract.kernels import remask as ops


@pytest.mark.parametrize("word, expected", [
    (0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (0xFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
])
def test_philox_known_answers(word, expected):
    """The known-answer vectors of Random123."""
    x = torch.tensor(word)
    assert tuple(int(w) for w in ops.philox((x, x, x, x), (x, x))) == expected


def splitmix64(state):
    """The published generator in Python integers: next value of a state."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@pytest.mark.parametrize("state", [0, 1, 2**31, 2**63 - 1, -1, -(2**63)])
def test_codes_are_splitmix64_of_the_stream(state):
    stream = torch.tensor(state)
    expected = splitmix64(state & (2**64 - 1))
    assert int(ops.mix64(stream + ops._GOLDEN)) & (2**64 - 1) == expected
    uniform = ((expected >> 41) + 0.5) * 2.0**-23
    got = ops.gumbel_reference(stream, torch.tensor([0]))
    torch.testing.assert_close(got, -torch.log(-torch.log(torch.tensor([uniform]))))


def test_noise_is_standard_gumbel_and_uncorrelated():
    streams = ops.token_streams(ops.sample_seeds(0, 4), 3, 5, 8)
    assert streams.unique().numel() == streams.numel()
    noise = ops.gumbel_reference(streams, torch.arange(200).expand(*streams.shape, 200))
    assert noise.isfinite().all()
    assert abs(float(noise.mean()) - 0.5772) < 0.01 and abs(float(noise.var()) - 1.6449) < 0.03
    x = noise.double() - noise.double().mean()
    for dim in range(x.dim()):
        a, b = x.narrow(dim, 0, x.shape[dim] - 1), x.narrow(dim, 1, x.shape[dim] - 1)
        assert abs(float((a * b).mean())) < 0.02, f"axis {dim}"


def test_noise_of_a_token_is_its_own():
    seeds = ops.sample_seeds(3, 4)
    wide, narrow = ops.token_streams(seeds, 4, 5, 9), ops.token_streams(seeds[2:3], 2, 5, 4)
    assert torch.equal(wide[:2, 2:3, :, :, :4], narrow)
    moved = ops.token_streams(seeds, 4, 5, 6, torch.tensor([3, 0, 1, 2]))
    for row, by in enumerate((3, 0, 1, 2)):
        assert torch.equal(moved[:, row], wide[:, row, ..., by:by + 6])


def test_draw_follows_the_filtered_softmax():
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, 0.0]).expand(20000, 5)
    streams = ops.mix64(torch.arange(20000))
    codes, score = ops.draw(logits, count=3, temperature=0.5, streams=streams)
    got = torch.bincount(codes, minlength=5) / len(codes)
    expected = torch.zeros(5)
    expected[:3] = (logits[0, :3] / 0.5).softmax(-1)
    assert (got - expected).abs().max() < 0.015
    torch.testing.assert_close(score, logits[0].softmax(-1)[codes])


def test_given_noise_and_streams_agree():
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    streams = ops.mix64(torch.arange(6))
    noise = ops.gumbel_reference(streams, torch.arange(40).expand(6, 40))
    for count in (1, 7, 40):
        a = ops.draw(logits, count=count, temperature=0.8, streams=streams)
        b = ops.draw(logits, count=count, temperature=0.8, noise=noise)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_remask_takes_the_lowest_and_earlier_ties():
    scores = torch.tensor([[0.5, 0.1, 0.5, 0.1, 1e5], [0.2, 0.2, 0.2, 0.2, 0.2]])
    got = ops.remask(scores, torch.tensor([3, 2]))
    assert got.tolist() == [[True, True, False, True, False], [True, True, False, False, False]]
    assert not ops.remask(scores, torch.tensor([0, 0])).any()


def test_candidates():
    assert [ops.candidates(0.1, k) for k in (1024, 64, 10, 30, 1)] == [103, 7, 1, 3, 1]
    assert ops.candidates(1.0, 64) == 64


@pytest.mark.parametrize("call", [
    lambda: ops.draw(torch.zeros(2, 4), count=5, temperature=1.0),
    lambda: ops.draw(torch.zeros(2, 4), count=2, temperature=-1.0),
    lambda: ops.draw(torch.zeros(2, 4), count=2, temperature=1.0, noise=torch.zeros(2, 3)),
    lambda: ops.draw(torch.zeros(2, 4), count=2, temperature=1.0, streams=torch.zeros(3, dtype=torch.int64)),
    lambda: ops.remask(torch.zeros(4), torch.tensor([1])),
    lambda: ops.draw(torch.zeros(2, 4), torch.zeros(2, 5), 2.0, count=2, temperature=1.0),
    lambda: ops.token_streams(torch.zeros(3), 1, 5, 4),
    lambda: ops.token_streams(torch.zeros(3, dtype=torch.int64), 1, 5, 4, torch.zeros(2, dtype=torch.int64)),
])
def test_bad_arguments(call):
    with pytest.raises(ValueError, match="expected"):
        call()
