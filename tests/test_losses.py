"""Codec and interaction losses against the published values, and on padding."""

import dataclasses

import pytest
import torch
from rtinteract.training import losses as L
from safetensors.torch import load_file

from rtinteract.config import CodecConfig
from rtinteract.features.interhuman import row_to_image, statistics_image
from rtinteract.importer import load_codec


@pytest.fixture(scope="module")
def oracle(shared):
    return load_file(shared / "oracles" / "losses.safetensors")


@pytest.fixture(scope="module")
def statistics(shared):
    o = load_file(shared / "oracles" / "features.safetensors")
    return statistics_image(o["mean"], o["std"])


def metres(rows, statistics):
    return (row_to_image(rows) * statistics[1] + statistics[0])[..., :3]


@pytest.mark.parametrize("case", ["smooth", "random"])
def test_geometric_losses_are_the_published_ones(oracle, statistics, case):
    got = L.geometric_losses(row_to_image(oracle[f"geo_{case}_pred"]), row_to_image(oracle[f"geo_{case}_motion"]), *statistics)
    torch.testing.assert_close(torch.stack(got).double(), oracle[f"geo_{case}_losses_f64"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", ["smooth", "random"])
def test_interaction_losses_are_the_published_ones(oracle, statistics, case):
    pair = [torch.stack([metres(oracle[f"inter_{case}_{who}{i}"], statistics) for i in (1, 2)], 1) for who in "pm"]
    got = torch.stack([L.distance_map_loss(*pair), L.relative_orientation_loss(*pair)])
    torch.testing.assert_close(got.double(), oracle[f"inter_{case}_losses_f64"], rtol=1e-5, atol=1e-8)


def test_codec_total_and_its_gradient_are_the_published_ones(oracle, statistics, shared):
    codec = load_codec(shared / "oracles" / "reference-tiny-vq.tar").eval()
    assert codec.config == dataclasses.replace(CodecConfig.interhuman(), width=64, code_dim=64, codes=64)
    target = row_to_image(oracle["vq_total_motion"])
    out = codec(target)
    terms = L.geometric_losses(out.reconstruction, target, *statistics)
    total = terms.total(out.commitment)
    total.backward()
    got = torch.stack([*terms, out.commitment, total]).detach()
    torch.testing.assert_close(got, oracle["vq_total_losses"], rtol=1e-5, atol=1e-6)
    for ours, theirs in ((codec.encoder.stem, "encoder.model.0"), (codec.decoder.head, "decoder.model.6")):
        want = oracle[f"vq_total_grad:{theirs}.weight"]
        assert (ours.weight.grad - want).abs().max() < 1e-5 * want.abs().max()


def test_padding_gives_finite_losses_and_gradients():
    mean, std = torch.zeros(22, 12), torch.ones(22, 12)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 16, 22, 12, generator=generator)
    target[:, 8:] = 0
    for prediction in (torch.randn(2, 16, 22, 12, generator=generator), target.clone(), torch.zeros_like(target)):
        prediction.requires_grad_()
        total = L.geometric_losses(prediction, target, mean, std).total()
        pair, truth = prediction[None, ..., :3], target[None, ..., :3]
        total = total + L.distance_map_loss(pair, truth) + L.relative_orientation_loss(pair, truth)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(prediction.grad).all()


def test_a_perfect_prediction_costs_nothing():
    target = torch.randn(1, 8, 22, 12, generator=torch.Generator().manual_seed(1))
    terms = L.geometric_losses(target, target, torch.zeros(22, 12), torch.ones(22, 12))
    assert max(terms.reconstruction, terms.explicit, terms.velocity, terms.bone) == 0
    assert terms.geodesic < 1e-3


def test_foot_loss_counts_only_feet_that_stand():
    still = torch.zeros(1, 4, 22, 3)
    sliding = still.clone()
    sliding[..., 0] = 0.1 * torch.arange(4.0)[None, :, None]
    high = still.clone()
    high[..., 1] = 1.0
    assert L.foot_loss(sliding, still) == pytest.approx(0.5 * 0.1 ** 2 / 3)
    assert L.foot_loss(sliding, high) == 0
    assert L.foot_loss(still, sliding) == 0
