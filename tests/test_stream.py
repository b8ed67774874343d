"""Streaming: bounded, deterministic, smooth, whatever the actor does."""

import numpy as np
import pytest
import torch
from synthetic import meeting, walker

import rtinteract
from rtinteract.errors import ConfigError, MotionError
from rtinteract.motion import Motion
from rtinteract.stream import StreamConfig, hop_together, play, shown


@pytest.fixture(scope="module")
def model(small_model_path):
    return rtinteract.load(small_model_path, device="cpu")


def plans_of(stream, actor, chunks):
    at, plans = 0, []
    for n in chunks:
        if at >= len(actor):
            break
        plans += stream.push(actor[at:at + n])
        at += n
    return plans


@pytest.mark.parametrize("chunks", [[1] * 200, [7] * 40, [3, 50, 1, 1, 90, 60]])
def test_any_chunking_equals_the_whole(model, chunks):
    actor = walker(4.0)
    whole = model.stream(iterations=2).push(actor)
    parts = plans_of(model.stream(iterations=2), actor, chunks)
    assert len(parts) == len(whole) == len(actor) // 4
    for a, b in zip(whole, parts, strict=True):
        assert a.start == b.start
        assert np.array_equal(a.reactor.positions, b.reactor.positions)


def test_a_plan_covers_the_horizon_from_now_on_and_is_whole(model):
    stream = model.stream(iterations=2, horizon=12, hop=4)
    for i, plan in enumerate(stream.push(walker(2.0))):
        assert plan.start == 4 * (i + 1) and len(plan.reactor) == len(plan.actor) == 12
        assert np.isfinite(plan.reactor.positions).all()
        assert np.allclose(np.linalg.norm(plan.reactor.rotations, axis=-1), 1, atol=1e-6)


def test_what_is_shown_does_not_pop_between_plans(model):
    stream = model.stream(iterations=2)
    motion = play(stream, walker(6.0))
    steps = np.linalg.norm(np.diff(motion.positions, axis=0), axis=-1).max(1)
    seam = np.arange(3, len(steps), 4)
    inside = np.setdiff1d(np.arange(len(steps)), seam)
    assert steps[seam].max() < 2 * np.percentile(steps[inside], 95) + 0.01


def test_a_hop_seldom_changes_its_mind(model):
    """What both foresee of the same frames is nearer than what streams of two seeds foresee."""
    actor = walker(5.0)
    one, other = (model.stream(seed=seed, blend=0, feet=False).push(actor) for seed in (1, 2))

    def apart(early, late, frames):
        a, b = early.reactor[frames:], late.reactor[:16 - frames]
        return np.linalg.norm(a.positions - a.positions[:, :1] - b.positions + b.positions[:, :1], axis=-1).mean()

    between = np.mean([apart(a, b, 4) for a, b in zip(one[12:], one[13:], strict=False)])
    across = np.mean([apart(a, b, 4) for a, b in zip(one[12:], other[13:], strict=False)])
    assert between < 0.7 * across


def test_bones_and_memory_do_not_drift(model):
    stream = model.stream(iterations=1, window=16, horizon=8)
    actor = walker(20.0, speed=0.4)
    plans = stream.push(actor)
    sizes = {name: value.shape for name, value in vars(stream._actor).items() if isinstance(value, torch.Tensor)}
    stream.push(walker(10.0))
    assert sizes == {name: value.shape for name, value in vars(stream._actor).items() if isinstance(value, torch.Tensor)}
    motion = shown(plans, 4)
    lengths = np.linalg.norm(motion.positions[:, 1:] - motion.positions[:, list(motion.skeleton.parents[1:])], axis=-1)
    assert lengths.std(0).max() < 1e-5


def test_reset_begins_the_same_scene_again(model):
    stream = model.stream(iterations=2, seed=4)
    first = stream.push(walker(2.0))
    stream.reset()
    again = stream.push(walker(2.0))
    assert all(np.array_equal(a.reactor.positions, b.reactor.positions) for a, b in zip(first, again, strict=True))


def test_a_start_stands_the_reactor_in_the_world(model):
    actor, other = meeting(2.0)
    stream = model.stream(iterations=2, start=other[:4])
    plan = stream.hop(actor[:4])
    assert np.linalg.norm(plan.reactor.root[0] - other.root[3]) < 0.05
    assert np.allclose(plan.reactor.skeleton.offsets, other.skeleton.offsets, atol=1e-6)


def test_an_actor_that_vanishes_for_two_seconds_and_returns_elsewhere(model):
    stream = model.stream(iterations=2)
    actor = walker(2.0)
    plans = stream.push(actor)
    for _ in range(15):
        plans.append(stream.hop(None))
    back = walker(2.0, place=(0.4, 0.0, actor.root[-1, 2] + 0.8))
    plans += stream.push(back)
    motion = shown(plans, 4)
    assert np.isfinite(motion.positions).all()
    assert np.linalg.norm(np.diff(motion.root, axis=0), axis=-1).max() < 0.3
    seen = stream._actor.poses().positions[:, 0]
    assert np.linalg.norm(np.diff(seen.numpy(), axis=0), axis=-1).max() < 0.15


def test_a_far_walk_goes_on_as_near_the_start(model):
    """Frames lie at the newest poses, so a stream knows no far: the same walk elsewhere gives the same plans there."""
    actor, away = walker(3.0, speed=1.5), np.array([16.0, 0.0, -32.0])
    moved = Motion.from_rotations(actor.skeleton, actor.root + away, actor.rotations, actor.fps)
    near, far = (shown(model.stream(iterations=1).push(a), 4) for a in (actor, moved))
    assert np.abs(far.root - away - near.root).max() < 0.01
    together = len(actor) - 4
    assert np.linalg.norm((near.root[:together] - actor.root[4:])[:, [0, 2]], axis=-1).max() < 8


def test_settings_and_frames_are_checked(model):
    with pytest.raises(ConfigError, match="multiple of 4"):
        model.stream(window=30)
    with pytest.raises(ConfigError, match="at most the horizon"):
        model.stream(hop=32, horizon=16)
    with pytest.raises(ConfigError, match="unknown setting"):
        model.stream(speed=3)
    stream = model.stream(iterations=1)
    with pytest.raises(MotionError, match="expected 4 frames"):
        stream.hop(walker(1.0))
    with pytest.raises(MotionError, match="first hop"):
        stream.hop(None)
    with pytest.raises(MotionError, match="to_model"):
        stream.hop(walker(1.0, fps=60.0)[:4])
    with pytest.raises(MotionError, match="at least 4 frames"):
        play(stream, walker(0.1))


def test_a_bad_frame_leaves_the_stream_usable(model):
    stream = model.stream(iterations=1)
    actor = walker(2.0)
    stream.push(actor[:8])
    with pytest.raises(MotionError):
        stream.hop(actor[8:11])
    plan = stream.hop(actor[8:12])
    assert plan.start == 12
    assert isinstance(plan.reactor, Motion)


def test_a_warmed_up_stream_plans_as_a_fresh_one(model):
    warm, fresh = model.stream(iterations=2, seed=4), model.stream(iterations=2, seed=4)
    warm.warm_up()
    for a, b in zip(warm.push(walker(2.0)), fresh.push(walker(2.0)), strict=True):
        assert a.start == b.start and np.array_equal(a.reactor.positions, b.reactor.positions)
    assert len(warm.hop_seconds) == 15


def test_streams_that_hop_together_plan_what_each_would_alone(model):
    actors = [walker(3.0), walker(3.0, speed=0.5), meeting(3.0)[0], walker(3.0, speed=0.2)]
    prompts = ["two people shake hands", "someone waves", None, None]

    def streams():
        return [model.stream(text, iterations=2, window=16, horizon=8, seed=i) for i, text in enumerate(prompts)]

    alone = [stream.push(actor) for stream, actor in zip(streams(), actors, strict=True)]
    group = streams()
    for k in range(len(alone[0])):
        plans = hop_together(group, [actor[4 * k:4 * k + 4] for actor in actors])
        for plan, other in zip(plans, alone, strict=True):
            assert plan.start == other[k].start
            assert np.abs(plan.reactor.positions - other[k].reactor.positions).max() < 1e-3
            assert np.abs(plan.actor.positions - other[k].actor.positions).max() < 1e-3


@pytest.mark.parametrize("columns,last", [(13, 24), (13, 16), (9, 24), (8, 32), (3, 1)])
def test_the_last_frames_of_an_image_are_decoded_as_the_whole_has_them(model, columns, last):
    codec = model.codec
    codes = torch.randint(codec.config.codes, (2, codec.config.parts, columns), generator=torch.Generator().manual_seed(columns))
    assert torch.allclose(codec.decode(codes, last), codec.decode(codes)[:, -last:], atol=1e-5)


def test_an_actor_that_is_looked_at_later_is_as_foreseen_then(model):
    now, later = (model.stream(iterations=1) for _ in range(2))
    early = [plan.actor.positions for plan in (now.hop(walker(2.0)[at:at + 4]) for at in range(0, 40, 4))]
    plans = later.push(walker(2.0)[:40])
    assert all(np.array_equal(plan.actor.positions, seen) for plan, seen in zip(plans, early, strict=True))


def test_a_plan_as_rows_is_its_reactor(model):
    plan = model.stream(iterations=1).push(walker(1.0))[-1]
    rows = plan.rows()
    assert rows.shape == (16, 91) and rows.dtype == np.float32
    assert np.allclose(rows[:, :3], plan.reactor.root, atol=1e-6)
    assert np.allclose(rows[:, 3:].reshape(16, 22, 4), plan.reactor.rotations, atol=1e-6)


def test_streams_join_a_hop_whatever_they_heard_before(model):
    early, late = model.stream(iterations=1), model.stream(iterations=1)
    early.push(walker(1.0))
    first, second = hop_together([early, late], [None, walker(1.0)[:4]])
    assert first.start == 4 * 7 + 4 and second.start == 4


def test_a_wrong_partner_leaves_all_streams_of_a_hop_as_they_were(model):
    fine, wrong = model.stream(iterations=1), model.stream(iterations=1)
    fine.push(walker(1.0)[:8])
    with pytest.raises(MotionError, match="expected 4 frames, got 3"):
        hop_together([fine, wrong], [walker(1.0)[8:12], walker(1.0)[:3]])
    with pytest.raises(ConfigError, match="different streams"):
        hop_together([fine, fine], [walker(1.0)[8:12]] * 2)
    assert fine.hop(walker(1.0)[8:12]).start == 12


def test_guidance_is_by_the_text_alone_and_less_with_contacts():
    assert StreamConfig().guidance > StreamConfig(contact=True).guidance >= 1 and StreamConfig(guidance=1.5).guidance == 1.5
    model, actor = rtinteract.load(device="cpu"), walker(1.0)
    for text, alike in ((None, True), ("two people bow to each other", False)):
        plain, guided = (play(model.stream(text, guidance=g), actor).positions for g in (1.0, None))
        assert np.array_equal(plain, guided) == alike
