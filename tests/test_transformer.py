"""The Inter-M transformer against the published numbers and our own float64 oracle, and how it treats padding."""

from pathlib import Path

import pytest
import torch
from oracle_weights import TINY, TINY_SEED, transformer_of
from safetensors.torch import load_file

from rtinteract.config import TransformerConfig
from rtinteract.errors import RtInteractError
from rtinteract.transformer import InterMTransformer, sine_positions

DATA = Path(__file__).with_name("data")


def assert_close(got, expected, keep, relative=1e-5):
    """Within `relative` of the largest value, at the tokens to keep."""
    got, expected = got.double()[keep], expected.double()[keep]
    assert (got - expected).abs().max() <= relative * expected.abs().max()


@pytest.fixture(scope="module")
def own():
    """(model, tensors) of the oracle in tests/data."""
    tensors = load_file(DATA / "oracle-transformer.safetensors")
    config = TransformerConfig(codes=20, code_dim=6, parts=3, width=8, heads=2, layers=2, ff=12, condition=5)
    model = InterMTransformer(config).eval()
    model.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    return model, tensors


@pytest.fixture(scope="module")
def tiny():
    return transformer_of(TINY, TINY_SEED)


def test_own_oracle_logits(own):
    model, t = own
    seen = torch.arange(4) < t["lengths"][:, None, None, None].expand(2, 2, 3, 1)
    with torch.no_grad():
        assert_close(model(t["codes"], t["condition"], t["lengths"]), t["logits"], seen)
        assert_close(model(t["codes"], None, t["lengths"]), t["logits_unconditioned"], seen)


def test_published_numbers(shared, tiny):
    t = load_file(shared / "oracles/transformer.safetensors")
    ids, lengths = t["ids"].view(2, 2, 5, 16), t["token_lens"]
    valid = ~t["padding_mask"]
    token = torch.cat([valid, valid.new_ones(2, 1)], 1)

    def ours(name):
        x = t[name].transpose(0, 1)
        return torch.cat([x[:, :80], x[:, 81:], x[:, 80:81]], 1)

    with torch.no_grad():
        assert_close(tiny.positions(16), t["pos2d"], slice(None))
        assert_close(tiny.condition(t["cond"]), t["cond_emb"], slice(None))
        x = tiny.embed(ids)
        assert_close(x, ours("embed"), token)
        modulations = tiny.modulate(t["cond"])
        for i, block in enumerate(tiny.blocks):
            x = block(x, modulations.blocks[i], 5, 16, lengths)
            assert_close(x, ours(f"block{i}_out"), token)
        logits, bare = tiny(ids, t["cond"], lengths), tiny(ids, None, lengths)
    for got, name in ((logits, "logits"), (logits, "logits_f64"), (bare, "logits_uncond"),
                      (bare + 2 * (logits - bare), "logits_cfg2"), (bare + 2 * (logits - bare), "logits_cfg2_f64")):
        assert_close(got.flatten(1, 3), t[name].transpose(1, 2), valid)


def test_published_block_steps(shared, tiny):
    """Each sublayer of the first block."""
    t = load_file(shared / "oracles/transformer.safetensors")
    valid = ~t["padding_mask"][:, :80]
    block, lengths = tiny.blocks[0], t["token_lens"]
    with torch.no_grad():
        m = tiny.modulate(t["cond"]).blocks[0]
        combined = t["block0_ffn_combined"].transpose(0, 1)
        people = torch.cat([combined[:, :80], combined[:, 81:]], 1)
        mixed = block.spatio_temporal(people, m, 5, 16, lengths)
        exchanged = block.exchange(mixed, people, m, 16, lengths)
    for i, part in enumerate((slice(80), slice(80, 160))):
        assert_close(mixed[:, part], t[f"block0_spatemp_p{i + 1}"].transpose(0, 1), valid)
        assert_close(exchanged[:, part], t[f"block0_cross_p{i + 1}"].transpose(0, 1), valid)


@torch.no_grad()
def test_padding_changes_nothing(tiny):
    """A sample alone, and beside a longer one with anything past its length, are one."""
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (2, 2, 5, 9), generator=g)
    cond = torch.randn(2, 768, generator=g)
    both = tiny(codes, cond, torch.tensor([6, 9]))
    alone = tiny(codes[:1, ..., :6].contiguous(), cond[:1], None)
    torch.testing.assert_close(both[:1, ..., :6, :], alone, rtol=1e-4, atol=1e-5)
    codes[0, ..., 6:] = -1
    assert torch.equal(tiny(codes, cond, torch.tensor([6, 9]))[0, ..., :6, :], both[0, ..., :6, :])
    full = tiny(codes[1:], cond[1:], torch.tensor([9]))
    torch.testing.assert_close(full, tiny(codes[1:], cond[1:]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_condition_rows_and_modulations(tiny):
    g = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 65, (2, 2, 5, 4), generator=g)
    cond = torch.randn(2, 768, generator=g)
    cond[1] = 0
    logits = tiny(codes, cond)
    assert torch.equal(logits, tiny(codes, None, modulations=tiny.modulate(cond)))
    torch.testing.assert_close(logits[1], tiny(codes, None)[1])
    assert not torch.allclose(logits[0], tiny(codes, None)[0])


@torch.no_grad()
def test_people_are_interchangeable(tiny):
    """Swapping the two people swaps their logits: nothing but the tokens tells them apart."""
    codes = torch.randint(0, 64, (1, 2, 5, 6), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(tiny(codes, None).flip(1), tiny(codes.flip(1), None), rtol=1e-4, atol=1e-5)


def test_autocast_is_finite_with_much_padding(tiny):
    codes = torch.randint(0, 64, (2, 2, 5, 12), generator=torch.Generator().manual_seed(3))
    model = InterMTransformer(TINY).train()
    model.load_state_dict(tiny.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(codes, torch.randn(2, 768), torch.tensor([1, 12]))
    logits.float().square().mean().backward()
    assert logits.isfinite().all() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_positions_grow_and_are_not_stored(tiny):
    assert not any("position" in key for key in tiny.state_dict())
    model = InterMTransformer(TINY)
    assert model.positions(300).shape == (5, 300, 48)
    assert torch.equal(model.positions(7), sine_positions(5, 7, 48))


def test_new_model_starts_unconditioned():
    torch.manual_seed(0)
    model = InterMTransformer(TransformerConfig(codes=8, code_dim=4, width=8, heads=2, layers=1, ff=8, condition=4)).eval()
    codes = torch.zeros(1, 2, 5, 3, dtype=torch.int64)
    assert torch.equal(model(codes, torch.ones(1, 4)), model(codes, None))


@pytest.mark.parametrize("codes, condition, lengths, message", [
    (torch.zeros(2, 2, 4, 3, dtype=torch.int64), None, None, r"codes: expected \[B, 2, 5, N\]"),
    (torch.zeros(2, 2, 5, 3), None, None, "codes: expected"),
    (torch.zeros(2, 2, 5, 0, dtype=torch.int64), None, None, "N >= 1"),
    (torch.zeros(2, 2, 5, 3, dtype=torch.int64), torch.zeros(2, 7), None, r"condition: expected \[B, 768\]"),
    (torch.zeros(2, 2, 5, 3, dtype=torch.int64), None, torch.tensor([3]), r"lengths: expected one a sample, \[2\]"),
])
def test_bad_arguments(tiny, codes, condition, lengths, message):
    with pytest.raises(RtInteractError, match=message):
        tiny(codes, condition, lengths)
