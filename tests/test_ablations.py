"""The paper's ablations: each is a configuration that trains, samples and loads, and lacks what its name says."""

from dataclasses import replace

import pytest
import torch
from rtinteract.training.ablations import ABLATIONS, ablated, train_ablations
from rtinteract.training.transformer import TransformerTraining
from test_train_transformer import CONFIG, codec_file, pairs  # noqa: F401

import rtinteract
from rtinteract import native
from rtinteract.config import ATTENTION, TransformerConfig, from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.sampler import sample_codes
from rtinteract.transformer import InterMTransformer

SIZES = dict(codes=20, code_dim=12, width=32, heads=2, layers=2, ff=24, condition=8)


def made(**fields):
    torch.manual_seed(0)
    net = InterMTransformer(TransformerConfig(**(SIZES | fields))).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if "adaln" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return net


def reach(net):
    """Which tokens [2, S, N] see a change of the first one, person 0, part 0, column 0."""
    codes = torch.randint(20, (1, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    other = codes.clone()
    other[0, 0, 0, 0] = (other[0, 0, 0, 0] + 1) % 20
    return (net(codes, None) - net(other, None)).abs().amax(-1)[0] > 1e-6


def test_each_kind_of_attention_is_a_way_and_without_it_the_way_is_shut():
    assert reach(made()).all()
    alone = reach(made(attention=("spatio-temporal",)))
    assert alone[0].all() and not alone[1].any()
    assert reach(made(attention=("spatio-temporal", "cross"))).all()
    together = reach(made(attention=("self",)))
    assert together.all()
    crossed = reach(made(attention=("cross",), layers=1))
    assert crossed[1].all() and crossed[0].sum() == 1


def test_alternating_people_read_the_others_input_alone():
    net = made(modelling="alternating")
    assert reach(net).all()
    codes = torch.randint(20, (2, 2, 5, 6), generator=torch.Generator().manual_seed(2))
    both = net(codes, None)
    for person in (0, 1):
        assert torch.allclose(net(codes, None, person=person), both[:, person:person + 1], atol=1e-5)
    padded = net(codes, None, torch.tensor([6, 4]))
    short = net(codes[1:, ..., :4], None)
    assert torch.allclose(padded[1:, ..., :4, :], short, atol=1e-5)
    masked = torch.full((2, 2, 5, 6), 20)
    filled = sample_codes(net, masked, torch.randn(2, 8), torch.tensor([6, 6]), iterations=3)
    assert ((filled >= 0) & (filled < 20)).all() and not torch.equal(filled[:, 0], filled[:, 1])


def test_an_ablation_is_kept_in_its_configuration_and_never_runs_as_the_published_block():
    assert TransformerConfig().published and not TransformerConfig(attention=("cross",)).published
    config = TransformerConfig(modelling="alternating", attention=("cross", "self"))
    assert from_dict(TransformerConfig, to_dict(config)) == config
    if native.why_not(torch.device("cpu"), TransformerConfig()) is None:
        assert "ablation" in native.why_not(torch.device("cpu"), config)
    for wrong in ({"attention": ()}, {"attention": ("self", "self")}, {"attention": ("other",)}, {"modelling": "apart"},
                  {"modelling": "alternating", "attention": ("self",)}):
        with pytest.raises(ConfigError):
            TransformerConfig(**wrong)


def test_names_change_what_they_say():
    plain = TransformerTraining()
    assert ablated(plain, "no-cross").sizes.attention == ATTENTION[:2]
    assert ablated(plain, "no-unroll-interaction").unroll == 0 == ablated(plain, "no-unroll-interaction").shares.interaction
    for share in (0.7, 0.8, 0.9):
        shares = ablated(plain, f"p_r-{share}").shares
        assert shares.interaction == pytest.approx((1 - share) * (1 - shares.streaming))
    with pytest.raises(ConfigError, match="no-self"):
        ablated(plain, "no-such")


def test_all_of_them_train_load_and_react(tmp_path, codec_file, pairs):  # noqa: F811
    config = replace(CONFIG, sizes=replace(CONFIG.sizes, width=16))
    limits = dict(steps=1, progress=False)
    models = train_ablations(config, codec_file, pairs, None, out=tmp_path, **limits)
    assert list(models) == list(ABLATIONS)
    stamps = {name: path.stat().st_mtime_ns for name, path in models.items()}
    for name, path in models.items():
        model = rtinteract.load(path, device="cpu")
        assert model.config.transformer.published == (name not in ("alternating", "no-self", "no-cross", "no-spatio-temporal"))
        a, b = model.generate(["two people shake hands"], seconds=0.5, iterations=2)[0]
        assert len(a) == len(b) == 15
    assert train_ablations(config, codec_file, pairs, None, out=tmp_path, **limits) == models
    assert {name: path.stat().st_mtime_ns for name, path in models.items()} == stamps
