"""The model object: reactions, generation, inpainting, reconstruction; the small untrained model stands in."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import meeting, walker

import rtinteract
from rtinteract import rotation as R
from rtinteract.errors import Cancelled, CheckpointError, ConfigError, MotionError
from rtinteract.model import Model
from rtinteract.motion import Motion


@pytest.fixture(scope="module")
def model(small_model_path):
    return rtinteract.load(small_model_path, device="cpu")


def whole(motion, frames):
    assert len(motion) == frames and motion.fps == 30 and len(motion.skeleton) == 22
    assert np.isfinite(motion.positions).all()
    assert np.allclose(np.linalg.norm(motion.rotations, axis=-1), 1, atol=1e-6)


def bones(motion):
    return np.linalg.norm(motion.positions[:, 1:] - motion.positions[:, list(motion.skeleton.parents[1:])], axis=-1)


@pytest.mark.parametrize("frames", [1, 3, 61, 64, 150])
def test_a_reaction_is_as_long_as_its_actor_at_any_length(model, frames):
    reactor = model.react(walker(frames / 30), iterations=2)
    whole(reactor, frames)
    assert bones(reactor).std(0).max() < 1e-6


def test_same_seed_same_reaction_and_another_seed_another(model):
    actor = walker(2.0)
    a, b, c = (model.react(actor, iterations=3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.positions, b.positions) and not np.allclose(a.positions, c.positions)


def test_a_batch_of_mixed_lengths_equals_its_first_sample_alone(model):
    short, long = walker(1.5), walker(4.0, speed=0.3)
    both = model.react([short, long], iterations=3, seed=5)
    whole(both[0], 45)
    whole(both[1], 120)
    assert np.abs(model.react(short, iterations=3, seed=5).positions - both[0].positions).max() < 1e-5


def test_the_reaction_moves_with_the_actors_world(model):
    actor = walker(2.0)
    here = model.react(actor, iterations=3)
    there = model.react(actor.moved(1.1, (3.0, 0.0, -2.0)), iterations=3)
    assert np.abs(here.moved(1.1, (3.0, 0.0, -2.0)).positions - there.positions).max() < 2e-3


def test_a_start_is_kept_and_led_on_from_without_a_pop(model):
    actor, other = meeting(2.0)
    reactor = model.react(actor, start=other[:8], iterations=2)
    assert np.abs(reactor.positions[:8] - other.positions[:8]).max() < 1e-4
    steps = np.linalg.norm(np.diff(reactor.root, axis=0), axis=-1)
    assert steps[7] < 0.06


def test_long_clips_are_filled_window_by_window_without_seams(model):
    reactor = model.react(walker(5.0, speed=0.2), iterations=2, feet=False)
    steps = np.linalg.norm(np.diff(reactor.positions, axis=0), axis=-1).max(1)
    assert steps[60:68].max() < 3 * np.percentile(steps, 90)


@pytest.mark.parametrize("window", [8, 32])
def test_a_short_window_still_leads_through_a_long_clip(model, window):
    short = Model(replace(model.parts, config=replace(model.config, window=window)))
    whole(short.react(walker(3.0), iterations=1), 90)


def test_text_changes_the_outcome_and_no_text_is_the_empty_text(model):
    actor = walker(2.0)
    plain, empty = model.react(actor, iterations=3), model.react(actor, "", iterations=3)
    assert np.array_equal(plain.positions, empty.positions)
    whole(model.react(actor, "two people shake hands " * 500, iterations=1), 60)
    with pytest.raises(ConfigError, match="one text for each of 2"):
        model.react([actor, actor], ["only one"])


def test_generate_gives_pairs_of_the_lengths_asked_for(model):
    pairs = model.generate(["two people shake hands", "one person waves"], seconds=[1.0, 3.5], iterations=2, seed=3)
    assert [len(a) for a, _ in pairs] == [30, 105] and [len(b) for _, b in pairs] == [30, 105]
    for pair in pairs:
        for motion in pair:
            whole(motion, len(motion))
    with pytest.raises(ConfigError, match="one length a text"):
        model.generate(["a", "b"], seconds=[1.0])
    with pytest.raises(ConfigError, match="seconds"):
        model.generate("a", seconds=0.0)


def test_inpaint_keeps_frames_joints_and_people(model):
    pair = meeting(2.0)
    frames = np.zeros((2, 60), bool)
    frames[1, 20:40] = True
    a, b = model.inpaint(pair, frames, iterations=2)
    assert np.abs(a.positions - pair[0].positions).max() < 1e-4
    kept = np.r_[0:20, 40:60]
    assert np.abs(b.positions[kept] - pair[1].positions[kept]).max() < 1e-4
    assert np.abs(b.positions[20:40] - pair[1].positions[20:40]).max() > 1e-3
    arms = np.zeros((2, 60, 22), bool)
    arms[0, :, 16:22] = True
    a, _ = model.inpaint(pair, arms, iterations=2)
    legs = [1, 2, 4, 5, 7, 8]
    assert float(R.angle(a.rotations[:, legs], pair[0].rotations[:, legs]).max()) < 1e-3
    a, b = model.inpaint(pair, [False, True], iterations=2)
    assert np.abs(a.positions - pair[0].positions).max() < 1e-4
    with pytest.raises(MotionError, match="mask"):
        model.inpaint(pair, np.zeros((2, 59), bool))
    with pytest.raises(MotionError, match="one length"):
        model.inpaint((pair[0], pair[1][:30]), [True, True])


def test_reconstruction_stays_in_the_world_and_as_long(model):
    actor = walker(3.1).moved(0.7, (5.0, 0.0, 1.0))
    back = model.reconstruct(actor)
    whole(back, len(actor))
    assert np.linalg.norm(back.root.mean(0) - actor.root.mean(0)) < 3.0


def test_progress_counts_every_window_and_can_cancel(model):
    seen = []
    model.react(walker(5.0), iterations=3, progress=lambda done, total: seen.append((done, total)))
    assert [d for d, _ in seen] == sorted(d for d, _ in seen) and seen[-1][0] == seen[-1][1]
    with pytest.raises(Cancelled):
        model.react(walker(5.0), iterations=3, progress=lambda done, total: done < 2)


def test_codec_and_transformer_are_reachable_with_the_stated_shapes(model):
    import torch

    codes = model.codec.encode(torch.randn(3, 32, 22, 12))
    assert codes.shape == (3, 5, 8) and model.codec.decode(codes).shape == (3, 32, 22, 12)
    pair = torch.stack([codes, codes], 1)
    logits = model.transformer(pair, None, torch.tensor([8, 8, 8]))
    assert logits.shape == (3, 2, 5, 8, model.config.codec.codes)
    mask = torch.full_like(pair, model.config.transformer.mask_id)
    filled = rtinteract.sampler.sample_codes(model.transformer, mask, None, torch.tensor([8, 8, 8]), iterations=2)
    assert int(filled.max()) < model.config.codec.codes and int(filled.min()) >= 0


def test_bad_arguments_say_what_to_do(model, tmp_path):
    with pytest.raises(MotionError, match="empty list"):
        model.react([])
    with pytest.raises(ConfigError, match="precision"):
        rtinteract.load(precision="int3")
    with pytest.raises(ConfigError, match="device"):
        rtinteract.load(device="abacus")
    with pytest.raises(CheckpointError):
        rtinteract.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(MotionError, match="NaN"):
        bad = walker(1.0)
        positions = bad.positions.copy()
        positions[3] = np.nan
        Motion(positions, bad.rotations, bad.skeleton, bad.fps)
