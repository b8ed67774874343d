"""The paper's ablations of the codec: one token a column, and two people in one image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rtinteract.training.ablations import ablated_codec, two_people
from rtinteract.training.codec import CodecStage, load_codec, train_codec
from rtinteract.training.codec_pairs import LoneCodec, PairCodecStage, apart, stacked, stage_of
from rtinteract.training.data import Augmentation
from rtinteract.training.state import load_state, save_stage
from rtinteract.training.transformer import TransformerStage
from synthetic import meeting
from test_interclip import clips
from test_sequence import SMALL as SEQUENCE
from test_train_codec import LOOP, TINY, config, solo_clips
from test_train_transformer import CONFIG

from rtinteract import metrics
from rtinteract.codec import Codec
from rtinteract.config import CodecConfig, ModelConfig, TransformerConfig, from_dict, to_dict
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features import base
from rtinteract.features.normalize import Normalizer
from rtinteract.model import load

IMAGE = replace(TINY, quantizer="vq", levels=(), dropout=0.0)
FORMS = pytest.mark.parametrize("form", [IMAGE, SEQUENCE], ids=["image", "sequence"])


def made(shape):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Codec(shape).eval().requires_grad_(False)


@FORMS
def test_a_column_of_a_1d_map_is_one_token_of_the_whole_body(form):
    codec = made(replace(form, token_map="1d"))
    x = torch.randn(2, 80, 22, 12, generator=torch.Generator().manual_seed(0))
    codes = codec.encode(x)
    assert codes.shape == (2, 1, 20) and codec.config.parts == 1
    # Every joint has weights of its own: seen from another place, a body is another one.
    latent, moved = codec.latent(x), codec.latent(x.roll(1, 2))
    assert latent.shape == (2, form.code_dim, 1, 20) and (latent - moved).abs().max() > 1e-3
    whole = codec.decode(codes)
    assert whole.shape == x.shape and torch.allclose(codec.decode(codes, 6), whole[:, -6:], atol=1e-5)
    other = codes.clone()
    other[:, :, -1] = (codes[:, :, -1] + 1) % form.codes
    changed = (codec.decode(other) - whole).abs().amax((0, 3)) > 1e-7
    assert changed[-1].all() and not changed[0].any()


@pytest.mark.parametrize("shape, parts", [(CodecConfig.interhuman(), 11), (CodecConfig.interx(), 12), (SEQUENCE, 11)],
                         ids=["interhuman", "interx", "sequence"])
def test_two_people_are_one_image(shape, parts):
    codec = made(replace(two_people(shape), **({} if shape is SEQUENCE else {"width": 8, "code_dim": 8, "codes": 32})))
    c = codec.config
    assert (c.parts, c.rows, c.joints) == (parts, 2 * shape.joints, shape.joints)
    people = torch.randn(4, 16, c.joints, c.features, generator=torch.Generator().manual_seed(0))
    both = stacked(people, 2)
    assert torch.equal(both[1, :, c.joints:], people[3]) and torch.equal(apart(both, 2), people)
    codes = codec.encode(both)
    assert codes.shape == (2, parts, 4) and apart(codec.decode(codes), 2).shape == people.shape
    with pytest.raises(MotionError, match=str(c.rows)):
        codec.encode(people)
    assert from_dict(CodecConfig, to_dict(c)) == c


def test_an_older_configuration_is_of_a_2d_map_of_one_person():
    old = {k: v for k, v in to_dict(TINY).items() if k not in ("token_map", "people")}
    assert from_dict(CodecConfig, old) == TINY and (TINY.token_map, TINY.people) == ("2d", 1)
    for wrong in ({"token_map": "3d"}, {"people": 3}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            replace(TINY, **wrong)
    assert ablated_codec(config(), "codec-full") == config()
    with pytest.raises(ConfigError, match="codec-two-people"):
        ablated_codec(config(), "no-cross")


def test_a_lone_codec_reconstructs_as_its_model(small_model_path, tmp_path):
    model = load(small_model_path, device="cpu", precision="float32")
    parts = model.parts
    save_stage(tmp_path / "codec.safetensors", "codec", {"representation": "hybrid", "codec": to_dict(parts.config.codec)},
               {"codec": parts.codec.state_dict(), "normalizer": parts.normalizer.state_dict()},
               {"training": {"own_frames": True}})
    lone = LoneCodec.load(tmp_path / "codec.safetensors", window=model.config.window)
    motion = meeting(2.5)[1].to_model()
    mine, = lone.reconstruct([motion])
    assert len(mine) == len(motion) and np.abs(mine.positions - model.reconstruct(motion).positions).max() < 1e-5
    with pytest.raises(MotionError, match="expected 1 motions"):
        lone.reconstruct(meeting(1.0))


@pytest.mark.parametrize("name, own", [("hybrid", True), ("hybrid", False), ("interhuman", False)])
def test_two_people_through_a_perfect_codec_stay_where_they_are(name, own):
    class Perfect(torch.nn.Module):
        config = two_people(TINY)

        def encode(self, image):
            assert image.shape[2:] == (44, 12)
            self.image = image
            return torch.zeros(1, 11, image.shape[1] // 4, dtype=torch.long)

        def decode(self, codes):
            return self.image
    pair = [m.moved(0.7, (1.0, 0.0, -2.0))[:50] for m in meeting(2.0)]
    lone = LoneCodec(Perfect(), Normalizer.identity(22, 12), base.get(name), own, window=32)
    for back, truth in zip(lone.reconstruct(pair), pair, strict=True):
        assert len(back) == len(truth) and metrics.mpjpe(back, truth.to_model()) < 15


def settings(**kw):
    """Two people's, short and without statistics."""
    plain = config(codec=two_people(replace(TINY, dropout=0.0)), frames=16, shortest=16, longest=16, normalize=False,
                   augmentation=Augmentation.none(), loop=replace(LOOP, steps=2, schedule="constant"))
    return replace(plain, **kw)


@pytest.mark.parametrize("own, quantizer", [(True, "fsq"), (False, "vq")])
def test_a_codec_of_two_people_learns_from_pairs(tmp_path, own, quantizer):
    pairs = clips(("meet", "leave"), 2)
    codec = replace(settings().codec, quantizer=quantizer, levels=(4, 4, 4) if quantizer == "fsq" else ())
    c = settings(own_frames=own, codec=codec, representation="hybrid" if own else "interhuman")
    stage = PairCodecStage(c, [], pairs, held_out=pairs)
    batch = stage.batch(0)
    assert len(batch.image) == 2 * (c.loop.batch // 2) == len(batch.seeds) and all(
        torch.equal(a, b) for a, b in zip(batch, stage.batch(0), strict=True) if a is not None)
    for out, accumulate in (("whole", 1), ("parts", 2)):
        loop = replace(c.loop, accumulate=accumulate)
        result = train_codec(replace(c, loop=loop), [], pairs, held_out=pairs, out=tmp_path / out, progress=False,
                             kind=stage_of(c))
    one, two = (load_state(tmp_path / out / "state.pt", torch.device("cpu"))["model"] for out in ("whole", "parts"))
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=2e-4) for k in one)
    assert set(result.metrics) == {"mpjpe", "aligned"} and result.metrics["mpjpe"] > result.metrics["aligned"] > 0
    lone = LoneCodec.load(result.file)
    assert lone.own_frames == own
    errors = [metrics.mpjpe(back, m) for p in pairs for back, m in zip(lone.reconstruct(p.motions()), p.motions(), strict=True)]
    assert np.mean(errors) == pytest.approx(result.metrics["mpjpe"], rel=1e-4)


def test_two_people_where_one_is_expected_are_refused(tmp_path):
    c, pairs = settings(), clips(("meet",), 1)
    with pytest.raises(ConfigError, match="expected pairs"):
        PairCodecStage(c, solo_clips(), None)
    with pytest.raises(ConfigError, match="codec.people"):
        CodecStage(c, [], pairs)
    with pytest.raises(ConfigError, match="codec.people"):
        ModelConfig(codec=c.codec, transformer=TransformerConfig(codes=64, parts=11))
    train_codec(c, [], pairs, out=tmp_path, steps=1, progress=False, kind=stage_of(c))
    assert load_codec(tmp_path / "codec.safetensors")[0].config.people == 2
    with pytest.raises(ConfigError, match="of nobody alone"):
        TransformerStage(CONFIG, tmp_path / "codec.safetensors", pairs, None, None)


def test_decoded_pairs_are_drawn(tmp_path):
    from PIL import Image

    pairs = clips(("meet",), 1)
    stage = PairCodecStage(settings(), [], pairs, held_out=pairs)
    file, = stage.pictures(stage.model.state_dict(), tmp_path / "samples", 3)
    assert min(Image.open(file).size) > 100
