"""Packed convolutions answer what plain ones do."""

import copy

import pytest
import torch
from torch import nn

from rtinteract.codec import Codec
from rtinteract.config import CodecConfig
from rtinteract.packed import PackedConv2d, packed


@pytest.fixture(scope="module")
def codecs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        plain = Codec(CodecConfig(width=32, code_dim=32, codes=64)).eval().requires_grad_(False)
    plain.encoder.to(torch.bfloat16), plain.decoder.to(torch.bfloat16)
    quick = packed(copy.deepcopy(plain))
    if not any(isinstance(m, PackedConv2d) for m in quick.modules()):
        pytest.skip("this torch or processor packs no bfloat16 convolutions")
    return plain, quick


@pytest.mark.parametrize("batch,columns,last", [(2, 16, 24), (1, 9, None), (4, 16, 8), (2, 40, None)])
@torch.inference_mode()
def test_codecs_are_one_to_the_bit_at_any_size(codecs, batch, columns, last):
    plain, quick = codecs
    g = torch.Generator().manual_seed(columns)
    features = torch.randn(batch, 4 * columns, 22, 12, generator=g)
    codes = torch.randint(64, (batch, 5, columns), generator=g)
    assert torch.equal(quick.latent(features), plain.latent(features))
    assert torch.equal(quick.decode(codes, last), plain.decode(codes, last))


def test_only_bfloat16_convolutions_are_packed():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4))
    assert type(packed(net)[0]) is nn.Conv2d
