"""Sampling: published and own oracle ids, the noise, and the promises of the API."""

import math

import pytest
import torch
from oracle_weights import TINY, TINY_SEED, transformer_of
from rtinteract.kernels import remask as ops
from safetensors.torch import load_file
from test_transformer import own  # noqa: F401 (a fixture)

from rtinteract.errors import Cancelled, RtInteractError
from rtinteract.sampler import fill_masked, sample_codes
from rtinteract.transformer import InterMTransformer

MASK = TINY.mask_id


@pytest.fixture(scope="module")
def tiny():
    return transformer_of(TINY, TINY_SEED)


def start(batch, columns, known=False):
    """Everything masked; `known`: person 0 given."""
    codes = torch.full((batch, 2, 5, columns), MASK)
    if known:
        codes[:, 0] = torch.randint(0, 64, (batch, 5, columns), generator=torch.Generator().manual_seed(5))
    return codes


def condition(batch):
    return torch.randn(batch, 768, generator=torch.Generator().manual_seed(6))


def test_own_oracle_run(own):  # noqa: F811
    model, t = own
    got = sample_codes(model, t["start"], t["condition"], t["lengths"], iterations=5, guidance=2.0, top_k=0.25, temperature=0.7,
                       noise=t["noise"])
    assert torch.equal(got, t["filled"])


@pytest.mark.parametrize("name, iterations, options", [
    ("gen", 20, {}), ("gen_few", 5, {}), ("gen_cs1", 7, {"guidance": 1.0}), ("gen_t05", 8, {"temperature": 0.5}),
    ("react", 12, {"temperature": 0.0}), ("react_noise", 12, {}),
])
def test_published_runs(shared, tiny, name, iterations, options):
    """Every iteration's ids, exactly."""
    t = load_file(shared / "oracles/transformer.safetensors")
    codes, given = start(2, 16), t.get(f"{name}_noise")
    people = 1 if name.startswith("react") else 2
    if people == 1:
        codes[:, 0] = t[f"{name}_motion1_ids"].view(2, 5, 16)
    noise = None
    if given is not None:
        noise = torch.zeros(iterations, 2, 2, 5, 16, 64)
        noise[:, :, 2 - people:] = given.float().view(iterations, 2, people, 5, 16, 64)
    seen = (~t["padding_mask"]).view(2, 2, 5, 16)
    codes[~seen] = -1
    fed = []
    handle = tiny.register_forward_pre_hook(lambda _, args: fed.append(args[0][:2].clone()))
    try:
        got = sample_codes(tiny, codes, t["cond"], t["token_lens"], iterations=iterations, noise=noise, **options)
    finally:
        handle.remove()
    assert torch.equal(got.flatten(1), t[f"{name}_out"])
    fed = torch.stack(fed)[:, :, 2 - people:]
    expected = t[f"{name}_masked_ids"].view(fed.shape)
    assert torch.equal(fed[:, seen[:, 2 - people:]], expected[:, seen[:, 2 - people:]])


def test_neighbours_and_padding_change_nothing(tiny):
    codes, cond, lengths = start(3, 7), condition(3), torch.tensor([7, 4, 5])
    seeds = [11, 12, 13]
    together = sample_codes(tiny, codes, cond, lengths, iterations=6, seed=seeds)
    for b in range(3):
        n = int(lengths[b])
        alone = sample_codes(tiny, codes[b:b + 1, ..., :n].contiguous(), cond[b:b + 1], [n], iterations=6, seed=seeds[b:b + 1])
        assert torch.equal(together[b, ..., :n], alone[0])
        assert (together[b, ..., n:] == -1).all()
    swapped = sample_codes(tiny, codes, cond.flip(0), lengths.flip(0), iterations=6, seed=seeds[::-1])
    assert torch.equal(swapped.flip(0), together)


def test_known_tokens_are_kept(tiny):
    codes = start(2, 6, known=True)
    codes[1, 1, :, :2] = 3
    got = sample_codes(tiny, codes, condition(2), torch.tensor([6, 6]), iterations=4)
    known = codes != MASK
    assert torch.equal(got[known], codes[known])
    assert ((got >= 0) & (got < 64)).all()
    assert torch.equal(sample_codes(tiny, got, None, torch.tensor([6, 6])), got), "nothing masked: nothing changes"


def test_seeds(tiny):
    codes, cond, lengths = start(2, 5, known=True), condition(2), torch.tensor([5, 5])
    a = sample_codes(tiny, codes, cond, lengths, seed=1)
    assert torch.equal(a, sample_codes(tiny, codes, cond, lengths, seed=1))
    assert not torch.equal(a, sample_codes(tiny, codes, cond, lengths, seed=2))
    own_seeds = ops.sample_seeds(1, 2)
    assert torch.equal(a, sample_codes(tiny, codes, cond, lengths, seed=own_seeds))
    assert torch.equal(a[1:], sample_codes(tiny, codes[1:], cond[1:], lengths[1:], seed=own_seeds[1:].tolist()))
    same = sample_codes(tiny, codes[:1].repeat(2, 1, 1, 1), cond[:1].repeat(2, 1), lengths, seed=0)
    assert not torch.equal(same[0], same[1]), "two samples of one batch have their own noise"


def test_masked_people_are_told_apart(tiny):
    got = sample_codes(tiny, start(1, 6), condition(1), [6], iterations=5)
    assert not torch.equal(got[:, 0], got[:, 1])


def test_temperature_and_filter_have_an_effect(tiny):
    codes, lengths = start(4, 5, known=True), torch.full((4,), 5)

    def run(**options):
        return sample_codes(tiny, codes, condition(4), lengths, iterations=1, seed=[1, 2, 3, 4], **options)[:, 1]

    greedy = run(temperature=0.0)
    agree = [float((run(temperature=x, top_k=1.0) == greedy).float().mean()) for x in (0.05, 1.0, 20.0)]
    assert agree[0] > agree[1] > agree[2], agree
    assert torch.equal(run(top_k=0.001), greedy), "one candidate is the most likely code"
    assert torch.equal(run(temperature=0.0, top_k=1.0), greedy)


def test_guidance_one_runs_a_single_batch(tiny):
    sizes = []
    handle = tiny.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[0]))
    try:
        for cond, guidance in ((condition(2), 2.0), (condition(2), 1.0), (None, 2.0)):
            sample_codes(tiny, start(2, 3), cond, [3, 3], iterations=1, guidance=guidance)
    finally:
        handle.remove()
    assert sizes == [4, 2, 2]


def test_progress_and_cancel(tiny):
    told = []
    sample_codes(tiny, start(1, 3), None, [3], iterations=3, progress=lambda i, n: told.append((i, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Cancelled, match="iteration 2 of 5"):
        sample_codes(tiny, start(1, 3), None, [3], iterations=5, progress=lambda i, n: i < 2)


def test_inner_function_takes_prepared_modulations(tiny):
    codes, cond = start(2, 4, known=True), condition(2)
    options = {"iterations": 3, "guidance": 2.0, "top_k": 0.1, "temperature": 1.0, "seeds": ops.sample_seeds(0, 2)}
    both = tiny.modulate(torch.cat([cond, torch.zeros_like(cond)]))
    assert torch.equal(fill_masked(tiny, codes, cond, None, modulations=both, **options),
                       sample_codes(tiny, codes, cond, [4, 4], iterations=3))


@pytest.mark.parametrize("change, message", [
    ({"iterations": 0}, "iterations: expected"), ({"iterations": 2.5}, "iterations: expected"),
    ({"top_k": 0.0}, "top_k: expected"), ({"top_k": 1.5}, "top_k: expected"), ({"top_k": math.nan}, "top_k: expected"),
    ({"choice_temperature": -1.0}, "choice_temperature: expected"), ({"temperature": -1.0}, "temperature: expected"),
    ({"temperature": math.inf}, "temperature: expected"),
    ({"guidance": math.nan}, "guidance: expected"), ({"seed": 0.5}, "seed: expected"), ({"seed": [1]}, "seed: expected one int"),
    ({"seed": "ab"}, "seed: expected"), ({"lengths": [4, 5]}, r"lengths: expected columns in \[1, 4\]"),
    ({"lengths": [0, 4]}, "lengths: expected columns"), ({"lengths": [4]}, "lengths: expected 2 integers"),
    ({"lengths": [1.0, 2.0]}, "lengths: expected 2 integers"), ({"codes": torch.full((2, 2, 5, 4), 65)}, "codes: expected ids"),
    ({"codes": torch.full((2, 2, 5, 4), -1)}, "codes: expected ids"),
    ({"codes": torch.zeros(2, 2, 3, 4)}, "codes: expected int64"), ({"condition": torch.zeros(1, 768)}, "condition: expected"),
    ({"condition": torch.full((2, 768), math.nan)}, "NaN"),
    ({"noise": torch.zeros(3, 2, 2, 5, 4, 64)}, r"noise: expected \[I, B"),
])
def test_bad_arguments(tiny, change, message):
    arguments = {"codes": start(2, 4), "condition": None, "lengths": [4, 4], "iterations": 2} | change
    with pytest.raises(RtInteractError, match=message):
        sample_codes(tiny, **arguments)


def test_training_mode_is_refused():
    with pytest.raises(RtInteractError, match="training mode"):
        sample_codes(InterMTransformer(TINY).train(), start(1, 2), None, [2])


def test_asking_for_the_last_columns_alone_gives_the_same_codes(tiny):
    codes = torch.randint(0, 64, (2, 2, 5, 9), generator=torch.Generator().manual_seed(1))
    codes[..., 6:] = MASK
    given = codes.clone()
    options = dict(iterations=4, guidance=2.0, top_k=0.2, temperature=1.0, seeds=ops.sample_seeds(3, 2))
    whole, tail = (fill_masked(tiny, codes, condition(2), None, last=last, **options) for last in (None, 3))
    assert torch.equal(whole, tail) and torch.equal(codes, given)
    assert torch.equal(whole[..., :6], codes[..., :6]) and int(whole.max()) < MASK


def test_a_choice_temperature_retains_rare_tokens_too(tiny):
    """By the scores alone the common is retained first, and what is drawn again until then becomes common."""
    class Common:
        """Nine times of ten one code, whatever the others are."""

        config, training = tiny.config, False

        def modulate(self, condition, batch=1):
            return None

        def __call__(self, codes, *_, **__):
            logits = torch.full((*codes.shape, 64), -30.0)
            logits[..., 0], logits[..., 1] = math.log(0.9), math.log(0.1)
            return logits

    def rare(choice):
        made = sample_codes(Common(), start(8, 16), None, [16] * 8, iterations=10, top_k=1.0, choice_temperature=choice)
        return float((made == 1).float().mean())

    assert rare(0.0) < 0.02 and abs(rare(20.0) - 0.1) < 0.03


def test_a_choice_temperature_is_as_repeatable_as_the_draw(tiny):
    options = dict(iterations=4, guidance=1.0, seed=[5, 6])
    one, same, none = (sample_codes(tiny, start(2, 6), condition(2), [6, 6], choice_temperature=t, **options)
                       for t in (3.0, 3.0, 0.0))
    assert torch.equal(one, same) and not torch.equal(one, none)
    alone = sample_codes(tiny, start(1, 6), condition(2)[1:], [6], iterations=4, guidance=1.0, seed=[6], choice_temperature=3.0)
    assert torch.equal(one[1:], alone)
