"""The codec: parity with published numbers and with a small oracle of our own, quantisers, shapes, precision."""

import dataclasses
from pathlib import Path

import pytest
import torch
from rtinteract.kernels.nearest_code import nearest_code
from safetensors.torch import load_file

from rtinteract.codec import Codec, FiniteScalarQuantizer, VectorQuantizer, perplexity_of
from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features.interhuman import row_to_image
from rtinteract.importer import load_codec

TINY = CodecConfig(width=16, code_dim=8, codes=32)
FSQ = dataclasses.replace(TINY, quantizer="fsq", levels=(8, 4), codes=32)
OWN = Path(__file__).parent / "data" / "oracle-codec.safetensors"


def close(got, want):
    """Within 1e-5 of the largest value."""
    return (got.double() - want.double()).abs().max() <= 1e-5 * want.double().abs().max()


def image(motion):
    return motion if motion.ndim == 4 else row_to_image(motion)


def same_motion(got, want):
    """Images; an InterHuman row has no rotation for the root, where the codec is free."""
    return close(got, want) if want.ndim == 4 else close(torch.cat([got[..., :6].flatten(2), got[..., 1:, 6:].flatten(2)], -1),
                                                         torch.cat([x.flatten(2) for x in (image(want)[..., :6],
                                                                                           image(want)[..., 1:, 6:])], -1))


@pytest.fixture(params=["vq", "vq_interx"])
def published(request, shared):
    names = {"vq": "reference-tiny-vq.tar", "vq_interx": "reference-tiny-vq-interx.tar"}
    oracles = shared / "oracles"
    return load_codec(oracles / names[request.param]), load_file(oracles / f"{request.param}.safetensors")


@torch.no_grad()
def test_published_codec(published):
    codec, o = published
    x = image(o["motion"])
    assert torch.equal(x.permute(0, 3, 2, 1), o["enc_in"])
    assert close(codec.latent(x), o["enc_out_f64"])
    assert torch.equal(codec.encode(x).flatten(1), o["code_idx"])
    out = codec(x)
    assert same_motion(out.reconstruction, o["forward_out"])
    assert close(out.commitment, o["forward_commit"]) and close(out.perplexity, o["forward_perplexity"])
    assert close(codec.quantizer.vectors(out.codes).permute(0, 3, 1, 2).flatten(2), o["quantized"])
    assert same_motion(codec.decode(o["dec_ids"].unflatten(1, (5, -1))), o["dec_out_f64"])


@torch.no_grad()
def test_published_codec_at_other_lengths(published):
    codec, o = published
    odd = image(o["odd_motion"])
    assert torch.equal(codec.encode(odd).flatten(1), o["odd_code_idx"])
    assert same_motion(codec(odd).reconstruction, o["odd_forward_out"])
    short = image(o["motion"])[1:2, :o["lens"][1]]
    assert close(codec.latent(short), o["short_enc_out"])
    assert torch.equal(codec.encode(short).flatten(1), o["short_code_idx"])


def test_published_draw_and_moving_average(shared):
    o = load_file(shared / "oracles" / "vq.safetensors")
    q = VectorQuantizer(64, 64, 0.99)
    q.start(o["ema_init_x"])
    assert torch.equal(q.codebook, o["ema_init_codebook"]) and torch.equal(q.code_sum, q.codebook) and q.code_count.eq(1).all()
    for name in ("codebook", "code_sum", "code_count"):
        getattr(q, name).copy_(o[f"ema_{name}_before"])
    perplexity = q.update(o["ema_x"], o["ema_code_idx"])
    assert close(q.codebook, o["ema_codebook_after"]) and close(perplexity, o["ema_perplexity"])
    assert close(q.code_sum, o["ema_code_sum_after"]) and close(q.code_count, o["ema_code_count_after"])
    q.codebook.copy_(o["gumbel_codebook"])
    assert torch.equal(q.assign(o["gumbel_x"], o["gumbel_noise"]), o["gumbel_code_idx"])
    assert torch.equal(q.assign(o["gumbel_x"]), o["gumbel_argmin_idx"])


@torch.no_grad()
def test_our_own_oracle():
    o = load_file(OWN)
    codec = Codec(CodecConfig(joints=10, features=3, width=8, code_dim=6, codes=12, kernels=((4, 4), (4, 4)),
                              upsample=((2.5, 2), (2, 2)))).eval()
    codec.load_state_dict({k[len("weight."):]: v for k, v in o.items() if k.startswith("weight.")})
    assert close(codec.latent(o["features"]), o["latent"])
    assert torch.equal(codec.encode(o["features"]), o["codes"])
    assert close(codec.decode(o["ids"]), o["decoded"])


def test_forward_draws_with_the_noise_it_is_given():
    torch.manual_seed(0)
    codec, x = Codec(TINY), torch.randn(2, 16, 22, 12)
    codec.quantizer.initialised.fill_(True)
    noise = torch.zeros(2 * 5 * 4, 32)
    noise[:, 7] = 1e6
    assert codec.train()(x, gumbel_noise=noise).codes.eq(7).all()


def test_training_is_reproducible_from_a_generator():
    torch.manual_seed(0)
    first = Codec(dataclasses.replace(TINY, dropout=0.0))
    second = Codec(first.config)
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 16, 22, 12)
    for codec in (first, second):
        torch.manual_seed(torch.seed())
        codec.train()(x, generator=torch.Generator().manual_seed(3))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_fewer_rows_than_codes_start_and_restart_with_distinct_codes():
    q, rows = VectorQuantizer(32, 4, 0.99), torch.randn(5, 4)
    q.start(rows, torch.Generator().manual_seed(0))
    assert len(q.codebook.unique(dim=0)) == 32
    assert (q.codebook[5:10] - rows).abs().max() < 0.05
    q.code_count.zero_()
    q.update(rows, torch.zeros(5, dtype=torch.int64))
    assert torch.isfinite(q.codebook).all() and len(q.codebook.unique(dim=0)) == 32


def test_statistics_survive_a_state_dict():
    torch.manual_seed(0)
    codec = Codec(TINY).train()
    codec(torch.randn(4, 16, 22, 12))
    state = codec.state_dict()
    again = Codec(TINY)
    again.load_state_dict(state)
    assert again.quantizer.initialised and torch.equal(again.quantizer.code_count, codec.quantizer.code_count)
    assert {"quantizer.codebook", "quantizer.code_sum", "quantizer.code_count"} <= state.keys()


def test_evaluation_changes_nothing():
    torch.manual_seed(0)
    codec = Codec(TINY).eval()
    before = {k: v.clone() for k, v in codec.state_dict().items()}
    x = torch.randn(2, 16, 22, 12)
    out = codec(x)
    assert torch.equal(out.codes, codec.encode(x))
    assert all(torch.equal(v, before[k]) for k, v in codec.state_dict().items())


@pytest.mark.parametrize("config", [TINY, FSQ], ids=["vq", "fsq"])
def test_straight_through_gradient_reaches_the_encoder(config):
    torch.manual_seed(0)
    codec = Codec(config).train()
    out = codec(torch.randn(2, 16, 22, 12))
    out.reconstruction.square().mean().backward()
    assert codec.encoder.stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,), (2, 2), (4, 7)])
def test_every_fsq_code_is_reached_and_comes_back(levels):
    torch.manual_seed(0)
    q = FiniteScalarQuantizer(levels, 6).eval()
    ids = torch.arange(len(q.grid))
    rows = torch.randn(20000, 6)
    got = q.assign(rows)
    assert got.min() >= 0 and got.max() < len(q.grid)
    out = q(rows)
    assert torch.equal(out.ids, got) and out.commitment == 0
    torch.testing.assert_close(q.vectors(got), out.rows)
    assert len(q.vectors(ids).unique(dim=0)) == len(ids)
    level_of = ids[:, None] // q.basis % torch.tensor(levels)
    assert torch.equal((level_of - q.middle) / q.middle, q.grid)


def test_fsq_starts_spread_and_does_not_collapse():
    torch.manual_seed(0)
    codec = Codec(dataclasses.replace(TINY, quantizer="fsq", levels=(8, 5, 5, 5), codes=1000, dropout=0.0)).train()
    optimiser = torch.optim.AdamW(codec.parameters(), 8e-4)
    phase = torch.rand(16, 1, 22, 12) * 6.28
    x = torch.sin(torch.arange(64.0)[:, None, None] * 0.2 + phase)
    spread = []
    for _ in range(6):
        out = codec(x)
        optimiser.zero_grad()
        (out.reconstruction - x).abs().mean().backward()
        optimiser.step()
        spread.append(out.perplexity.item())
    assert min(spread) > 50, spread


def test_padding_ids_decode_as_a_zero_vector():
    torch.manual_seed(0)
    for config in (TINY, FSQ):
        codec = Codec(config).eval()
        ids = torch.tensor([[-1, 32, 33, 99]]).expand(5, 4)[None]
        assert torch.equal(codec.quantizer.vectors(ids), torch.zeros(1, 5, 4, 8))
        assert torch.isfinite(codec.decode(ids)).all()


@pytest.mark.parametrize("frames", [4, 7, 64, 299])
def test_lengths(frames):
    codec = Codec(TINY).eval()
    codes = codec.encode(torch.randn(1, frames, 22, 12))
    assert codes.shape == (1, 5, frames // 4) and codes.dtype == torch.int64
    assert codec.decode(codes).shape == (1, frames // 4 * 4, 22, 12)


@pytest.mark.parametrize("config", [TINY, FSQ], ids=["vq", "fsq"])
def test_bfloat16_autocast_trains_with_a_float32_quantiser(config):
    torch.manual_seed(0)
    codec = Codec(config).to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", torch.bfloat16):
        out = codec(torch.randn(2, 16, 22, 12))
    assert out.reconstruction.dtype == out.commitment.dtype == torch.float32
    assert torch.isfinite(out.reconstruction).all()
    (out.reconstruction.mean() + out.commitment).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in codec.parameters())


def test_the_memory_format_does_not_matter():
    torch.manual_seed(0)
    codec, x = Codec(TINY).eval(), torch.randn(1, 16, 22, 12)
    want = codec.latent(x)
    assert close(codec.to(memory_format=torch.contiguous_format).latent(x), want)


def test_perplexity_counts_codes_in_even_use():
    assert perplexity_of(torch.tensor([5.0, 5.0, 0.0, 0.0])) == pytest.approx(2, rel=1e-4)
    assert perplexity_of(torch.zeros(4)) == 1


def test_sizes_that_do_not_meet():
    with pytest.raises(ConfigError, match="22 joint rows, got 5 -> 10 -> 20"):
        Codec(dataclasses.replace(TINY, upsample=((2, 2), (2, 2))))
    with pytest.raises(ConfigError, match="frames a column"):
        Codec(dataclasses.replace(TINY, upsample=((2.2, 2), (2, 1))))
    with pytest.raises(ConfigError, match="body part"):
        Codec(dataclasses.replace(TINY, joints=2))


def test_input_that_does_not_fit():
    codec = Codec(TINY).eval()
    with pytest.raises(MotionError, match=r"\[B, T, 22, 12\]"):
        codec.encode(torch.zeros(1, 8, 56, 6))
    with pytest.raises(MotionError, match="at least 4 frames"):
        codec.encode(torch.zeros(1, 3, 22, 12))
    with pytest.raises(MotionError, match=r"\[B, 5, N\]"):
        codec.decode(torch.zeros(1, 4, 2, dtype=torch.int64))


def test_nearest_code_checks_and_fills():
    x, book = torch.randn(7, 3), torch.randn(5, 3)
    out = torch.full((7,), -9)
    want = torch.cdist(x, book).argmin(-1)
    assert nearest_code(x, book, out=out) is out and torch.equal(out, want)
    assert torch.equal(nearest_code(x, torch.cat([book, book])), want), "ties go to the smallest id"
    for bad in ({"x": x[:, :2]}, {"noise": torch.zeros(7, 4)}, {"noise": torch.zeros(7, 5), "temperature": 0.0},
                {"out": out.int()}, {"codebook": book[:0]}):
        with pytest.raises(ValueError, match="nearest_code: expected"):
            nearest_code(**({"x": x, "codebook": book} | bad))
