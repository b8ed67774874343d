"""The full-size transformer (weights from the recipe) against the published numbers: logits, guidance, two whole runs."""

import pytest
import torch
from oracle_weights import FULL_SEED, transformer_of
from safetensors.torch import load_file

from rtinteract.config import TransformerConfig
from rtinteract.sampler import sample_codes


@pytest.fixture(scope="module")
def full(shared):
    return transformer_of(TransformerConfig(), FULL_SEED), load_file(shared / "oracles/full.safetensors")


@torch.no_grad()
def test_logits(full):
    model, t = full
    ids = t["ids"].view(1, 2, 5, 16)
    logits = model(torch.cat([ids, ids]), torch.cat([t["cond"], torch.zeros_like(t["cond"])]))
    guided = logits[1:] + 2 * (logits[:1] - logits[1:])
    for got, name in ((logits[:1], "logits"), (guided, "logits_cfg2")):
        expected = t[name].transpose(1, 2)
        assert (got.flatten(1, 3) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_generation(full):
    model, t = full
    noise = t["gen_noise"].float().view(3, 1, 2, 5, 16, 1024)
    got = sample_codes(model, torch.full((1, 2, 5, 16), 1024), t["cond"], [16], iterations=3, noise=noise)
    assert torch.equal(got.flatten(1), t["gen_out"])


def test_reaction(full):
    model, t = full
    codes = torch.full((1, 2, 5, 16), 1024)
    codes[:, 0] = t["react_motion1_ids"].view(1, 5, 16)
    got = sample_codes(model, codes, t["cond"], [16], iterations=12, temperature=0.0)
    assert torch.equal(got.flatten(1), t["react_out"])
