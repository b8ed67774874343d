"""Training masks and the transformer loss: published numbers, and what each kind of mask may and may not hide."""

import pytest
import torch
from oracle_weights import TINY, TINY_SEED, oracle_index, transformer_of
from rtinteract.training import masks
from safetensors.torch import load_file

from rtinteract.importer import transformer_keys

MASK = TINY.mask_id


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(config, lengths, columns=16, seed=0):
    return masks.draw_masks(torch.as_tensor(lengths), 5, columns, config, generator(seed))


@pytest.mark.parametrize("kind", ["random", "interaction"])
def test_published_step(shared, kind):
    """Losses, accuracies, the second pass's ids and labels, and gradients."""
    t = {k.removeprefix(f"{kind}_"): v for k, v in load_file(shared / "oracles/training.safetensors").items()
         if k.startswith(f"{kind}_")}
    model = transformer_of(TINY, TINY_SEED)
    shape, tokens = (2, 2, 5, 16), torch.tensor([160, 160])

    def labels(name):
        return t[name].masked_fill(t[name] == MASK, masks.IGNORED).view(shape)

    inputs, lengths = t["x_ids"].view(shape), t["token_lens"]
    logits = t["logits"].transpose(1, 2).reshape(*shape, 64)
    again, again_labels = masks.unroll_inputs(logits, inputs, labels("labels"), tokens, MASK)
    assert torch.equal(again.flatten(1), t["unroll_x_ids"]) and torch.equal(again_labels, labels("unroll_labels"))
    out = masks.transformer_loss(model, inputs, labels("labels"), t["cond"], lengths, schedule_tokens=tokens)
    out.loss.backward()
    for got, name in zip(out[:5], ("loss", "ce", "acc1", "unroll_ce", "acc2"), strict=True):
        torch.testing.assert_close(got.detach(), t[name], rtol=1e-5, atol=0)
    names, parameters = transformer_keys(model), dict(model.named_parameters())
    for key in [k for k in t if k.startswith("grad:")]:
        got = parameters[names[key.removeprefix("grad:")]].grad
        assert (got - t[key]).abs().max() <= 1e-5 * t[key].abs().max(), key
    norms = oracle_index(shared)["scalars"][f"training.safetensors:{kind}_grad_norms"]["value"]
    for key, norm in norms.items():
        assert abs(float(parameters[names[key]].grad.norm()) / norm - 1) < 1e-5, key


def test_random_masks_follow_the_cosine():
    drawn = draw(masks.MaskConfig(interaction=0.0), [16] * 3000)
    share = drawn.mask.float().mean((1, 2, 3))
    assert abs(float(share.mean()) - 2 / torch.pi) < 0.02, "the mean of cos(pi tau / 2) is 2 / pi"
    assert share.min() > 0 and share.max() == 1


def test_interaction_masks_are_drawn_for_each_sample():
    lengths = torch.tensor([16, 9, 4] * 333)
    drawn = draw(masks.MaskConfig(interaction=1.0), lengths)
    inside = masks.inside(lengths, 5, 16)
    person = drawn.mask.flatten(2).any(2)
    assert (person.sum(1) == 1).all(), "one person hidden, also in an odd batch"
    assert torch.equal(drawn.mask, inside & person[:, :, None, None])
    assert 0.4 < float(person[:, 0].float().mean()) < 0.6
    mixed = draw(masks.MaskConfig(interaction=0.2), [16] * 3000).mask.flatten(2).float().mean(2)
    whole = ((mixed == 1).sum(1) == 1) & ((mixed == 0).sum(1) == 1)
    assert 0.16 < float(whole.float().mean()) < 0.24


def test_streaming_hides_every_column_from_now_on():
    config = masks.MaskConfig(interaction=0.0, streaming=1.0, cold=0.0, first_pass=1.0)
    mask = draw(config, [16] * 400).mask
    column = mask.any(2).any(1)
    first = column.float().argmax(1)
    assert (first >= 1).all() and set(first.tolist()) == set(range(1, 16))
    assert torch.equal(mask, (torch.arange(16) >= first[:, None])[:, None, None].expand_as(mask)), "both people, to the end"


def test_streaming_cold_start_and_horizon():
    config = masks.MaskConfig(interaction=0.0, streaming=1.0, cold=1.0, first_pass=1.0, future=4)
    lengths = torch.tensor([16, 7, 1, 2] * 100)
    drawn = draw(config, lengths)
    assert (drawn.lengths <= lengths).all() and (drawn.lengths >= 1).all()
    whole = drawn.mask.flatten(2).sum(2) == drawn.lengths[:, None] * 5
    assert (whole.sum(1) == 1).all(), "the reactor has no past and the actor keeps his"
    future = drawn.mask.flatten(2).sum(2).min(1).values // 5
    assert (future <= 4).all() and (future[lengths == 16] >= 1).all()
    assert not drawn.mask[~masks.inside(drawn.lengths, 5, 16)].any()


def test_streaming_partial_masks_stay_in_the_region():
    config = masks.MaskConfig(interaction=0.0, streaming=1.0, cold=0.0, first_pass=0.0)
    part, whole = draw(config, [16] * 300), draw(masks.MaskConfig(0.0, 1.0, 0.0, 1.0), [16] * 300)
    assert not (part.mask & ~whole.mask).any() and part.mask.sum() < whole.mask.sum()
    assert part.mask.flatten(1).any(1).all()


@pytest.mark.parametrize("config", [masks.MaskConfig(), masks.MaskConfig(0.2, 0.5), masks.MaskConfig(0.0, 1.0, future=4)])
def test_masks_are_seeded_and_never_cover_padding(config):
    lengths = torch.tensor([1, 2, 3, 16, 11])
    a, b = draw(config, lengths, seed=3), draw(config, lengths, seed=3)
    assert torch.equal(a.mask, b.mask) and not torch.equal(a.mask, draw(config, lengths, seed=4).mask)
    assert not a.mask[~masks.inside(a.lengths, 5, 16)].any()
    assert a.mask.flatten(1).any(1).all(), "every sample has something to learn"


def test_corruption_shares():
    codes = torch.randint(0, 64, (40, 2, 5, 40), generator=generator())
    mask = torch.rand(codes.shape, generator=generator(1)) < 0.5
    out = masks.draw_corruption(codes, mask, 64, generator(2))
    assert torch.equal(out[~mask], codes[~mask])
    inside, truth = out[mask], codes[mask]
    blank = float((inside == MASK).float().mean())
    wrong = float(((inside != MASK) & (inside != truth)).float().mean())
    assert abs(wrong - 0.1) < 0.01 and abs(blank - 0.9 * 0.88) < 0.01
    assert (out >= 0).all() and (out <= MASK).all()
    assert torch.equal(masks.labels_of(codes, mask)[mask], truth) and (masks.labels_of(codes, mask)[~mask] == masks.IGNORED).all()


def test_unroll_fills_a_step_of_the_schedule():
    g = generator(4)
    codes = torch.randint(0, 64, (2, 2, 5, 16), generator=g)
    mask = draw(masks.MaskConfig(0.0), [16, 16]).mask
    labels = masks.labels_of(codes, mask)
    inputs = codes.masked_fill(mask, MASK)
    logits = torch.randn(2, 2, 5, 16, 64, generator=g)
    again, again_labels = masks.unroll_inputs(logits, inputs, labels, torch.tensor([160, 160]), MASK)
    kept = again != inputs
    assert kept.any() and not kept[~mask].any() and (again_labels[kept] == masks.IGNORED).all()
    assert torch.equal(again[kept], logits.argmax(-1)[kept])
    confidence = logits.softmax(-1).amax(-1)
    for b in range(2):
        assert confidence[b][kept[b]].min() >= confidence[b][mask[b] & ~kept[b]].max()


def test_loss_ignores_padding():
    model = transformer_of(TINY, TINY_SEED)
    codes = torch.randint(0, 64, (1, 2, 5, 6), generator=generator(5))
    mask = draw(masks.MaskConfig(0.0), [6], columns=6).mask
    inputs, labels = masks.draw_corruption(codes, mask, 64, generator(6)), masks.labels_of(codes, mask)
    cond = torch.randn(1, 768, generator=generator(7))
    alone = masks.transformer_loss(model, inputs, labels, cond, None)
    pad = torch.nn.functional.pad
    padded = masks.transformer_loss(model, pad(inputs, (0, 5), value=MASK), pad(labels, (0, 5), value=masks.IGNORED), cond,
                                    torch.tensor([6]))
    for a, b in zip(alone, padded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    single = masks.transformer_loss(model, inputs, labels, cond, None, unroll=0)
    torch.testing.assert_close(single.loss, alone.cross_entropy)


def test_nothing_masked_is_a_loss_of_zero():
    model = transformer_of(TINY, TINY_SEED)
    codes = torch.zeros(1, 2, 5, 3, dtype=torch.int64)
    out = masks.transformer_loss(model, codes, torch.full_like(codes, masks.IGNORED), None, None)
    out.loss.backward()
    assert out.loss == 0 and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_bad_shares():
    with pytest.raises(ValueError, match="shares"):
        masks.MaskConfig(interaction=0.6, streaming=0.6)
