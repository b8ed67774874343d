"""The codec that convolves over time alone: its map of tokens, its newest frames, its quantiser, and what it refuses."""

import dataclasses

import pytest
import torch

from rtinteract.codec import Codec, FiniteScalarQuantizer
from rtinteract.config import CodecConfig, from_dict, to_dict
from rtinteract.errors import ConfigError

SMALL = CodecConfig(form="sequence", widths=(8, 12, 16), code_dim=3, codes=60, quantizer="fsq", levels=(5, 4, 3), dropout=0.0)


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return Codec(SMALL).eval()


@torch.no_grad()
def test_whole_columns_become_tokens_and_come_back(codec):
    x = torch.randn(2, 27, 22, 12)
    codes = codec.encode(x)
    assert codes.shape == (2, 5, 6) and codes.min() >= 0 and codes.max() < 60
    assert codec.decode(codes).shape == (2, 24, 22, 12)
    assert torch.equal(codec.encode(x[:, :24]), codes)


@torch.no_grad()
@pytest.mark.parametrize("last", [1, 3, 4, 6, 17, 31, 32])
def test_the_last_frames_are_those_of_the_whole(codec, last):
    codes = torch.randint(60, (2, 5, 8))
    assert torch.allclose(codec.decode(codes, last), codec.decode(codes)[:, -last:], atol=1e-5)


@torch.no_grad()
def test_a_token_reaches_only_frames_near_it(codec):
    codes = torch.randint(60, (1, 5, 40))
    other = codes.clone()
    other[0, 2, 4] = (codes[0, 2, 4] + 1) % 60
    changed = (codec.decode(codes) - codec.decode(other)).abs().amax((0, 2, 3)) > 0
    assert changed[16:20].all() and not changed[4 * 18:].any()


@torch.no_grad()
def test_every_joint_has_weights_of_its_own(codec):
    x = torch.zeros(1, 16, 22, 12)
    a, b = x.clone(), x.clone()
    a[:, :, 8], b[:, :, 9] = 1, 1
    assert (codec.latent(a) - codec.latent(b)).abs().max() > 1e-3


@torch.no_grad()
def test_an_unknown_token_decodes_as_the_middle_of_all_levels(codec):
    q = codec.quantizer
    codes = torch.full((1, 5, 4), 60)
    assert torch.equal(q.vectors(codes), torch.zeros(1, 5, 4, 3))
    assert torch.isfinite(codec.decode(codes)).all()


def test_a_longer_reach_tells_large_values_apart():
    rows = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))

    def coarseness(reach):
        q = FiniteScalarQuantizer((5,), 1, reach, plain=True)
        ids = q.assign(rows)
        outer = rows[(ids == 0) | (ids == 4)]
        return (outer.abs() - outer.abs().mean()).abs().mean(), len(outer)
    narrow, wide = coarseness(1.0), coarseness(1.5)
    assert wide[1] < narrow[1] and wide[0] < narrow[0]


def test_it_trains_through_the_rounding(codec):
    codec.train()
    x = torch.randn(4, 16, 22, 12)
    out = codec(x)
    (out.reconstruction - x).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in codec.parameters())
    assert codec.encoder.linear.weight.grad.abs().sum() > 0 and codec.encoder.stem.weight.grad.abs().sum() > 0
    assert int(codec.quantizer.batches) == 1


def test_its_configuration_survives_json_and_older_ones_are_images():
    assert from_dict(CodecConfig, to_dict(SMALL)) == SMALL
    old = {k: v for k, v in to_dict(CodecConfig()).items() if k not in ("form", "fsq_reach")}
    assert from_dict(CodecConfig, old) == CodecConfig() and CodecConfig().form == "image"


@pytest.mark.parametrize("change,what", [({"form": "film"}, "codec.form"), ({"code_dim": 4}, "codec.code_dim"),
                                         ({"fsq_reach": 0.0}, "codec.fsq_reach"),
                                         ({"upsample": ((2.2, 1.6), (2.0, 2.5))}, "codec.upsample")])
def test_a_bad_configuration_says_what_is_wrong(change, what):
    with pytest.raises(ConfigError, match=what):
        Codec(dataclasses.replace(SMALL, **change))
