"""The codec trainer on small made-up clips: it learns, resumes to the bit, and writes what it says."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rtinteract.training.codec import CodecStage, CodecTraining, load_codec, reconstruction_error, train_codec
from rtinteract.training.data import Augmentation
from rtinteract.training.metric_losses import MetricWeights, feature_loss, feature_weights, planted, terms
from rtinteract.training.state import load_state
from rtinteract.training.trainer import LoopConfig
from test_data import walk

from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError
from rtinteract.features import base
from rtinteract.features.normalize import Normalizer
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, forward_kinematics, smpl22_with

TINY = CodecConfig(width=16, code_dim=8, codes=64, quantizer="fsq", levels=(4, 4, 4), dropout=0.1)
LOOP = LoopConfig(steps=60, batch=8, learning_rate=3e-3, warmup=5, precision="float32", threads=1, save_s=1e9,
                  validate_s=1e9, ema=0.9)


@dataclass(frozen=True)
class Solo:
    motion: Motion
    split: str


@dataclass(frozen=True)
class Pair:
    root: np.ndarray
    rotations: np.ndarray
    offsets: np.ndarray


def solo_clips():
    clips = []
    for i in range(6):
        root, rotations, offsets = walk(90, i)
        clips.append(Solo(Motion.from_rotations(smpl22_with(offsets), root, rotations, 30.0), "test" if i == 5 else "train"))
    return clips


def pair_clips():
    a, b = walk(90, 7), walk(90, 8, 1.0, (1.0, 1.0))
    return [Pair(*(np.stack(x) for x in zip(a, b, strict=True)))]


def config(**kw):
    return CodecTraining(**({"codec": TINY, "loop": LOOP, "frames": 32, "shortest": 16, "longest": 48, "vary": False,
                             "augmentation": Augmentation(warp=(0.85, 1.2), mix=0.35, pose=0.4, curve=0.35)} | kw))


def test_the_codec_learns_and_its_file_reconstructs_as_the_metrics_say(tmp_path):
    clips = solo_clips()
    # Short plain crops of one gait: small enough for a tiny codec to learn in seconds.
    easy = config(codec=replace(TINY, dropout=0.0), loop=replace(LOOP, steps=200), augmentation=Augmentation.none(), usual=1.0,
                  frames=16, shortest=16, longest=16)
    stage = CodecStage(easy, clips, None)
    before = {k: v.detach() for k, v in stage.loss(stage.batch(0), 0)[1].items()}
    result = train_codec(easy, clips, out=tmp_path, progress=False)
    codec, normalizer, name, card = load_codec(result.file)
    stage.model.load_state_dict(codec.state_dict())
    after = {k: v.detach() for k, v in stage.loss(stage.batch(0), 0)[1].items()}
    assert after["feature"] < 0.8 * before["feature"] and after["kinematics"] < 0.9 * before["kinematics"]
    assert set(result.metrics) == {"mpjpe", "aligned", "windows", "slide_cm_s", "codes_used", "perplexity"}
    assert name == "hybrid" and not codec.training and card["steps"] == 200 and card["metrics"] == result.metrics
    assert reconstruction_error(codec, normalizer, base.get(name), clips[5:]) == pytest.approx(result.metrics)


def test_the_error_is_what_it_says_on_a_perfect_codec():
    class Perfect(torch.nn.Module):
        config = TINY

        def encode(self, image):
            self.image = image
            return torch.zeros(1, 5, image.shape[1] // 4, dtype=torch.long)

        def decode(self, codes):
            return self.image
    found = reconstruction_error(Perfect(), Normalizer.identity(22, 12), base.get("hybrid"), solo_clips()[5:], window=32)
    assert found["aligned"] < 6 and found["mpjpe"] < 30 and found["perplexity"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_a_stopped_run_continues_to_the_bit(tmp_path, quantizer):
    codec = TINY if quantizer == "fsq" else CodecConfig(width=16, code_dim=8, codes=64, dropout=0.1)
    c = config(codec=codec)
    for out, parts in (("whole", (8,)), ("parts", (3, 8))):
        for steps in parts:
            # A constant rate: the cosine's shape depends on the limit, which differs between the parts.
            train_codec(replace(c, loop=replace(LOOP, schedule="constant")), solo_clips(), steps=steps, out=tmp_path / out,
                        progress=False)
    a, b = (load_state(tmp_path / out / "state.pt", torch.device("cpu")) for out in ("whole", "parts"))
    assert a["step"] == b["step"] == 8
    assert all(torch.equal(v, b[kind][k]) for kind in ("model", "ema") for k, v in a[kind].items())


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_a_decoder_that_learns_alone_keeps_what_codes_mean(tmp_path, quantizer):
    codec = TINY if quantizer == "fsq" else CodecConfig(width=16, code_dim=8, codes=64)
    codec = replace(codec, dropout=0.0)
    clips, image = solo_clips(), torch.randn(2, 32, 22, 12, generator=torch.Generator().manual_seed(0))
    first = train_codec(config(codec=codec), clips, out=tmp_path / "a", steps=8, progress=False).file
    alone = config(codec=codec, decoder_alone=True, loop=replace(LOOP, accumulate=2), metric=MetricWeights(acceleration=0.02))
    second = train_codec(alone, clips, out=tmp_path / "b", start=first, steps=6, progress=False).file
    a, b = load_codec(first), load_codec(second)
    assert torch.equal(a[0].encode(image), b[0].encode(image)) and torch.equal(a[1].mean, b[1].mean)
    codes = a[0].encode(image)
    assert torch.equal(a[0].quantizer.vectors(codes), b[0].quantizer.vectors(codes))
    assert not torch.allclose(a[0].decode(codes), b[0].decode(codes), atol=1e-4)
    with pytest.raises(ConfigError, match="codec to begin with"):
        train_codec(alone, clips, out=tmp_path / "c", steps=2, progress=False)
    with pytest.raises(ConfigError, match="'width': 24"):
        train_codec(replace(alone, codec=replace(codec, width=24)), clips, out=tmp_path / "c", start=first, progress=False)


def test_interhuman_trains_with_the_published_losses():
    stage = CodecStage(config(representation="interhuman", codec=replace(TINY, quantizer="vq", levels=())), solo_clips(), None)
    stage.model.train()
    loss, parts = stage.loss(stage.batch(0), 0)
    loss.backward()
    assert {"feature", "explicit", "velocity", "bone", "geodesic", "foot", "commitment"} <= set(parts)
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in stage.model.parameters() if p.grad is not None)


def test_batches_are_a_function_of_the_step():
    stage = CodecStage(config(), solo_clips(), pair_clips())
    frames = set()
    for step in range(8):
        one, again = stage.batch(step), stage.batch(step)
        assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
        frames.add(one.image.shape[1])
    assert frames > {32} and all(f % 4 == 0 for f in frames)


def test_varied_batches_are_a_function_of_the_step_and_leave_no_clip_out():
    # Clips of 28 frames for windows of 32, beside pairs.
    stage = CodecStage(config(vary=True, usual=1.0), [Solo(c.motion[:28], c.split) for c in solo_clips()], pair_clips())
    batches = [stage.batch(step) for step in range(6)]
    assert {b.image.shape[1:] for b in batches} == {(32, 22, 12)}
    assert all(torch.equal(x, y) for x, y in zip(stage.batch(3), batches[3], strict=True))


def test_features_weigh_as_they_are_told():
    w = MetricWeights(root_row=2.0, row_velocity=0.0, row_rotation=0.5)
    weights = feature_weights(22, 12, w)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert torch.allclose(weights[0], 2 * weights[1, 0]) and torch.allclose(weights[1:, 6:], weights[1, 0] / 2)
    target = torch.randn(2, 4, 22, 12)
    off = target.clone()
    off[:, :, 1:, 3:6] += 1
    assert float(feature_loss(off, target, w)) == 0 < float(feature_loss(off, target, MetricWeights()))


def test_rotations_of_every_fourth_frame_are_those_of_all():
    root, rotations, offsets = (torch.tensor(x, dtype=torch.float32) for x in walk(24, 3))
    representation = base.get("hybrid")
    image = representation.encode(forward_kinematics(SMPL22, root, rotations, offsets=offsets), rotations)[None]
    positions, turns = representation.read_matrices(image)
    again, some = representation.read_matrices(image, None, 4)
    assert torch.equal(again, positions) and torch.allclose(some, turns[:, ::4])


def test_metric_terms_vanish_on_the_truth_and_tell_a_sliding_foot():
    root, rotations, offsets = (torch.tensor(x, dtype=torch.float32) for x in walk(24, 3))
    rotations[:] = torch.tensor([1.0, 0, 0, 0])
    root = root[:1].expand(24, 3).clone()
    root[:, 1] -= float(forward_kinematics(SMPL22, root, rotations, offsets=offsets)[0, :, 1].min())
    truth = forward_kinematics(SMPL22, root, rotations, offsets=offsets)[None]
    assert planted(truth).all()
    representation = base.get("hybrid")
    positions, turns = representation.read_matrices(representation.encode(truth, rotations[None]))
    found = terms((positions, turns), truth, offsets[None], MetricWeights(acceleration=0.02))
    assert max(float(v) for v in found.values()) < 1e-2
    sliding = positions.clone()
    sliding[..., 0] += torch.arange(24)[:, None] * 0.01
    assert float(terms((sliding, turns), truth, offsets[None], MetricWeights(slide=1.0))["slide"]) == pytest.approx(0.3, rel=0.05)
    shaking = positions.clone()
    shaking[..., 0] += 0.01 * (torch.arange(24) % 2)[:, None]
    # The velocity turns from 1 to -1 cm a frame: 18 m/s^2 along one of three axes, less half the loss's turn.
    shaken = terms((shaking, turns), truth, offsets[None], MetricWeights(acceleration=1.0))["acceleration"]
    assert float(shaken) == pytest.approx((0.02 * 900 - 0.5) / 3, rel=0.05)


def test_wrong_configurations_are_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        config(frames=30)
    with pytest.raises(ConfigError, match="expected 56 and 6"):
        CodecStage(config(representation="interx"), solo_clips(), None)
