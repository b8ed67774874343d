"""The published recipes hold the published numbers, and train."""

import json
from dataclasses import replace

import pytest
from rtinteract.training.loop import rate, resolved
from rtinteract.training.losses import CodecLossWeights
from rtinteract.training.masks import MASK_SHARE, UNROLL_STEP, WRONG_SHARE
from rtinteract.training.metric_losses import MetricWeights
from rtinteract.training.recipes import codec_recipe, text_recipe, transformer_recipe

from rtinteract.config import from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.quantizer import DRAW_TEMPERATURE


@pytest.mark.parametrize("name, joints, features, foot", [("interhuman", 22, 12, 500), ("interx", 56, 6, 100)])
def test_the_published_codec(name, joints, features, foot):
    c = codec_recipe(name)
    assert (c.representation, c.codec.joints, c.codec.features, c.codec.parts) == (name, joints, features, 5)
    assert (c.codec.width, c.codec.code_dim, c.codec.codes, c.codec.depth, c.codec.dilation_growth) == (512, 512, 1024, 2, 3)
    assert (c.codec.quantizer, c.codec.ema_decay, c.codec.dropout, c.codec.frames_per_column) == ("vq", 0.99, 0.2, 4)
    assert DRAW_TEMPERATURE == 0.5
    w = CodecLossWeights() if name == "interhuman" else CodecLossWeights.interx()
    assert (w.explicit, w.velocity, w.bone, w.geodesic, w.foot, MetricWeights().commitment) == (1, 100, 5, 0.01, foot, 0.02)
    loop = c.loop
    assert (loop.batch, loop.epochs, loop.learning_rate, loop.betas) == (512, 50, 2e-4, (0.9, 0.99))
    assert (loop.schedule, loop.milestones, loop.factor, loop.warmup_epochs) == ("step", (0.7, 0.85), 0.1, 0.25)
    assert (loop.gradient_norm, loop.weight_decay, loop.ema) == (1.0, 0.0, 0.0)
    assert (c.frames, c.usual, c.own_frames) == (64, 1.0, False)


@pytest.mark.parametrize("name, shortest, most", [("interhuman", 15, 300), ("interx", 24, 150)])
def test_the_published_transformer(name, shortest, most):
    c = transformer_recipe(name)
    assert (c.sizes.width, c.sizes.heads, c.sizes.layers, c.sizes.ff, c.sizes.dropout) == (384, 6, 6, 1024, 0.2)
    assert (c.text.kind, c.text.width, c.text.layers, c.text.heads, c.text.ff) == ("clip", 768, 2, 8, 2048)
    loop, s = c.loop, c.shares
    assert (loop.batch, loop.epochs, loop.learning_rate, loop.betas, loop.weight_decay) == (52, 500, 2e-4, (0.9, 0.99), 1e-5)
    assert (loop.schedule, loop.milestones, loop.warmup_epochs) == ("step", (0.5, 0.7, 0.85), 0.25)
    assert loop.factor == pytest.approx(1 / 3)
    assert (s.interaction, s.streaming, s.whole, s.reactor, s.begun) == (0.2, 0, 1, 0.5, 0), "p_r is 0.8"
    assert (s.text_dropped, s.reaction_text_dropped) == (0.1, 0.1)
    assert (c.unroll, c.unroll_share, c.unroll_over, c.whole, c.shortest, c.most) == (1, 1, "all", True, shortest, most)
    assert (WRONG_SHARE, MASK_SHARE) == (0.1, 0.88) and pytest.approx(1 / 21) == UNROLL_STEP


def test_recipes_survive_json_and_know_their_names():
    for recipe in (codec_recipe, transformer_recipe):
        for name in ("interhuman", "interx", "small"):
            c = recipe(name)
            assert from_dict(type(c), json.loads(json.dumps(to_dict(c), allow_nan=False))) == c
        with pytest.raises(ConfigError, match="interhuman, interx, small"):
            recipe("interhumans")
    sequence = codec_recipe("small-sequence")
    assert sequence.codec.form == "sequence" and from_dict(type(sequence), to_dict(sequence)) == sequence
    assert text_recipe("small").text.kind == "bpe"
    with pytest.raises(ConfigError, match="CLIP"):
        text_recipe("interhuman")


def test_epochs_become_steps_of_the_data():
    loop = resolved(codec_recipe("interhuman").loop, 512 * 400 - 3)
    assert loop.steps == 50 * 400 and loop.warmup == 100
    assert rate(loop, 49, 0.0) == pytest.approx(1e-4) and rate(loop, 99, 0.1) == pytest.approx(2e-4)
    assert rate(loop, 15000, 0.75) == pytest.approx(2e-5) and rate(loop, 19000, 0.95) == pytest.approx(2e-6)
    assert resolved(replace(loop, steps=7), 512 * 400).steps == 7
    with pytest.raises(ConfigError, match="epochs"):
        resolved(loop, None)
