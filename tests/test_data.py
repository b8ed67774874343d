"""Batches from clips in memory: determinism, exact augmentation, canonical frames, statistics."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rtinteract.training.data import Augmentation, Pool, crops, lateness, mirrored, statistics, whole
from rtinteract.training.text import swap_sides

from rtinteract import rotation as R
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features import base
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, SMPL22_MIRROR, SMPL22_PARENTS, forward_kinematics, smpl22_with


def walk(frames, seed, scale=1.0, place=(0.0, 0.0)):
    """A made-up gait, alike for all seeds but for its phase, vigour and heading: root [T, 3], rotations, offsets [22, 3]."""
    rng, gait = np.random.default_rng(seed), np.random.default_rng(0)
    t = np.arange(frames)[:, None, None] / 30
    phase, vigour, heading = rng.uniform(0, 6), rng.uniform(0.5, 1.5), rng.uniform(-3, 3)
    swing = vigour * gait.normal(0, 0.25, (22, 3)) * np.sin(2 * math.pi * 0.8 * t + phase + gait.uniform(0, 6, (22, 3)))
    rotations = R.from_axis_angle(swing)
    rotations[:, 0] = R.yaw(heading + 0.3 * np.sin(t[:, 0, 0]))
    way = np.stack([0.4 * np.sin(t[:, 0, 0]), np.full(frames, 0.95 * scale), 0.8 * t[:, 0, 0]], -1)
    root = R.rotate(R.yaw(np.full(frames, heading)), way) + np.array([place[0], 0.0, place[1]])
    return root, rotations, SMPL22.offsets * scale


def solo_pool(lengths=(120, 90, 200)):
    return Pool([(r[:, None], q[:, None], o[None]) for r, q, o in (walk(n, i, 1 + 0.05 * i) for i, n in enumerate(lengths))])


def pair_pool(count=3, frames=130):
    clips = []
    for i in range(count):
        a, b = walk(frames, 10 + i), walk(frames, 20 + i, 1.05, (1.0, 1.2))
        clips.append(tuple(np.stack([x, y], 1 if x.shape[0] == frames else 0) for x, y in zip(a, b, strict=True)))
    return Pool(clips)


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_batch():
    pool, a = solo_pool(), Augmentation()
    one, again, other = (crops(pool, 16, 64, a, g(s)) for s in (3, 3, 4))
    assert torch.equal(one.positions, again.positions) and torch.equal(one.rotations, again.rotations)
    assert not torch.equal(one.positions, other.positions)


def test_plain_crops_are_the_clip_in_the_frame_of_its_first_pose():
    pool = solo_pool((40,))
    c = crops(pool, 4, 39, Augmentation.none(), g(), anchor=torch.zeros(4, dtype=torch.int64))
    first = c.positions[:, 0, 0]
    assert first[:, 0, [0, 2]].abs().max() < 1e-5
    across = first[:, 1] - first[:, 2]
    assert (across[:, 0] > 0).all() and across[:, 2].abs().max() < 1e-5
    # Distances between joints and over time do not depend on the frame.
    root, rotations, offsets = walk(40, 0)
    truth = torch.tensor(forward_kinematics(SMPL22, root, rotations, offsets=offsets), dtype=torch.float32)
    moved = [(truth[38 + s] - truth[s]).norm(dim=-1) for s in (0, 1)]
    mine = (c.positions[:, 0, 38] - c.positions[:, 0, 0]).norm(dim=-1)
    assert all(min((row - m).abs().max() for m in moved) < 1e-4 for row in mine)


@pytest.mark.parametrize("people", [1, 2])
def test_augmented_crops_are_whole_bodies(people):
    pool = solo_pool() if people == 1 else pair_pool()
    c = crops(pool, 12, 48, Augmentation(), g(1))
    assert c.positions.shape == (12, people, 48, 22, 3)
    again = forward_kinematics(SMPL22, c.positions[..., 0, :], c.rotations, offsets=c.offsets[:, :, None])
    assert (again - c.positions).abs().max() < 1e-4
    assert (c.rotations.norm(dim=-1) - 1).abs().max() < 1e-5
    scale = c.offsets[:, :, 4].norm(dim=-1) / torch.tensor(SMPL22.offsets[4]).norm()
    assert scale.min() >= 0.89 and scale.max() < 1.22 and scale.std() > 0.01


def test_mirroring_swaps_sides_and_undoes_itself():
    root, q, offsets = (torch.tensor(x, dtype=torch.float32) for x in walk(20, 5))
    root, q, offsets = root[None, None], q[None, None], offsets[None, None]
    yes = torch.tensor([True])
    m = mirrored(root, q, offsets, yes)
    here = forward_kinematics(SMPL22, root, q, offsets=offsets[:, :, None])
    there = forward_kinematics(SMPL22, m[0], m[1], offsets=m[2][:, :, None])
    assert (there - here[..., list(SMPL22_MIRROR), :] * torch.tensor([-1.0, 1, 1])).abs().max() < 1e-5
    assert all(torch.equal(x, y) for x, y in zip(mirrored(*m, yes), (root, q, offsets), strict=True))
    assert all(torch.equal(x, y) for x, y in zip(mirrored(root, q, offsets, ~yes), (root, q, offsets), strict=True))


def test_time_warp_plays_the_same_motion_at_another_speed():
    pool = solo_pool((100,))
    root, q = pool.poses(torch.tensor([0]), torch.tensor([[10.0, 10.5, 11.0]]))
    at = R.slerp(q[0, 0, 0], q[0, 0, 2], torch.full((22,), 0.5))
    assert R.angle(at, q[0, 0, 1]).max() < 1e-3
    assert torch.allclose(root[0, 0, 1], (root[0, 0, 0] + root[0, 0, 2]) / 2, atol=1e-6)
    last = pool.poses(torch.tensor([0]), torch.tensor([[98.7, 250.0]]))[0][0, 0]
    assert torch.equal(last[1], pool.root[99, 0])
    a = Augmentation.none()
    fast = crops(pool, 8, 64, Augmentation(**(vars(a) | {"warp": (1.1, 1.1)})), g())
    slow = crops(pool, 8, 64, Augmentation(**(vars(a) | {"warp": (0.9, 0.9)})), g())
    speed = [(x.positions[:, 0, 1:, 0] - x.positions[:, 0, :-1, 0]).norm(dim=-1).mean() for x in (fast, slow)]
    assert float(speed[0] / speed[1]) == pytest.approx(1.1 / 0.9, rel=0.03)


def test_a_pair_is_seen_from_its_actor_and_keeps_its_relation():
    pool, actor = pair_pool(), torch.tensor([0, 1, 0, 1])
    c = crops(pool, 4, 32, Augmentation.none(), g(2), actor=actor)
    own = c.positions[torch.arange(4), actor, 0, 0]
    assert own[:, [0, 2]].abs().max() < 1e-5
    between = (c.positions[:, 0, 0, 0] - c.positions[:, 1, 0, 0]).norm(dim=-1)
    roots = pool.root[:, 0] - pool.root[:, 1]
    assert all((roots.norm(dim=-1) - d).abs().min() < 1e-4 for d in between)


def test_frames_lie_at_the_anchors_pose_and_solo_people_stand_elsewhere():
    pool = solo_pool((400, 400))
    own = crops(pool, 64, 32, Augmentation(), g(3), own=True)
    at = own.positions[torch.arange(64), 0, own.anchor]
    assert at[:, 0, [0, 2]].abs().max() < 1e-4
    across = at[:, 1] - at[:, 2]
    assert (across[:, 0] > 0).all() and across[:, 2].abs().max() < 1e-4
    assert (own.anchor == 0).float().mean() > 0.2 and own.anchor.max() > 16
    given = crops(pool, 8, 32, Augmentation(), g(3), anchor=torch.full((8,), 15), own=True)
    assert given.positions[:, 0, 15, 0, [0, 2]].abs().max() < 1e-4
    distance = crops(pool, 400, 32, Augmentation(), g(3)).positions[:, 0, 0, 0, [0, 2]].norm(dim=-1)
    assert (distance > 1.0).float().mean() > 0.2
    near = crops(pool, 400, 32, Augmentation(elsewhere=0.0), g(3)).positions[:, 0, 0, 0, [0, 2]].norm(dim=-1)
    assert near.median() < 0.6


@pytest.mark.parametrize("kind", ["mix", "pose", "curve"])
def test_varied_people_are_whole_and_the_others_are_left_alone(kind):
    pool = solo_pool((200, 160, 180))
    plain = Augmentation(mirror=0.0, warp=(1.0, 1.0), scale=(1.0, 1.0), anchor_first=1.0)
    same, varied = (crops(pool, 200, 32, a, g(5), own=True) for a in (plain, replace(plain, **{kind: 0.5})))
    assert torch.equal(same.clip, varied.clip)
    changed = (same.positions - varied.positions).abs().flatten(1).max(1).values > 1e-3
    assert 0.3 < changed.float().mean() < 0.7
    bones = (varied.positions[..., 1:, :] - varied.positions[..., list(SMPL22_PARENTS[1:]), :]).norm(dim=-1)
    assert torch.allclose(bones, varied.offsets[:, :, None, 1:].norm(dim=-1).expand_as(bones), atol=1e-4)
    if kind == "curve":
        assert torch.equal(same.rotations[..., 1:, :], varied.rotations[..., 1:, :])
        paths = [c.positions[..., 0, [0, 2]].diff(dim=2).norm(dim=-1).sum(2) for c in (same, varied)]
        assert torch.allclose(*paths, atol=1e-3)
    else:
        legs = [1, 2, 4, 5, 7, 8, 10, 11]
        assert torch.allclose(same.positions[..., legs, :], varied.positions[..., legs, :], atol=1e-4)


def test_crops_longer_than_every_clip_are_refused_and_can_be_fitted():
    pool = solo_pool((50, 40))
    with pytest.raises(ConfigError, match="at least 97 frames"):
        crops(pool, 2, 97, Augmentation.none(), g())
    assert pool.longest_crop(96, 1.1) == 40 and pool.longest_crop(32, 1.1) == 32
    crops(pool, 2, 40, Augmentation(), g())
    with pytest.raises(MotionError, match="at least one clip"):
        Pool([])


@pytest.mark.parametrize("name", ["hybrid", "interhuman"])
def test_statistics_normalise_and_do_not_explode(name):
    representation, pool = base.get(name), solo_pool()
    normalizer = statistics(representation, [pool, pair_pool()], Augmentation(), 64, seed_generator=g(), batches=8, batch=16)
    c = crops(pool, 32, 48 + representation.frames_lost, Augmentation(), g(9))
    image = normalizer(representation.encode(c.positions, c.rotations))
    assert torch.isfinite(image).all() and image.abs().max() < 25
    assert 0.3 < float(image.std()) < 1.5
    rows = normalizer.std[1:]
    assert torch.equal(rows[:, 0], rows[:, 1]) and torch.equal(rows[:, 3], rows[:, 5])


@pytest.mark.parametrize("name", ["hybrid", "interhuman", "interx"])
def test_velocities_weigh_as_much_as_places_whatever_their_unit(name):
    representation, pool = base.get(name), solo_pool()
    normalizer = statistics(representation, [pool], Augmentation.none(), 32, seed_generator=g(), batches=8, batch=16)
    c = crops(pool, 64, 32 + representation.frames_lost, Augmentation.none(), g(9))
    moving = normalizer(representation.encode(c.positions, c.rotations))[..., -1, 3:6]
    assert 0.5 < float(moving.std(0).mean()) < 1.5


def test_whole_clips_are_cut_to_columns():
    root, q, offsets = walk(67, 1)
    motion = Motion.from_rotations(smpl22_with(offsets), root, q, 30.0)
    positions, rotations = (torch.tensor(x, dtype=torch.float32) for x in (motion.positions, motion.rotations))
    for name in ("hybrid", "interhuman"):
        cut, turns, image = whole(base.get(name), positions, rotations)
        assert len(image) == 64 and len(cut) == len(turns) == 64 + base.get(name).frames_lost
        assert cut[0, 0, [0, 2]].abs().max() < 1e-6


@pytest.mark.parametrize("text, swapped", [
    ("he waves with the left hand", "he waves with the right hand"),
    ("Left foot, then right foot.", "Right foot, then left foot."),
    ("turns counterclockwise, then clockwise", "turns clockwise, then counterclockwise"),
    ("a person holds out the left hand and is left hanging", "a person holds out the right hand and is left hanging"),
    ("a wave is left unanswered", "a wave is left unanswered"),
    ("a bright leftover", "a bright leftover"),
])
def test_texts_are_mirrored_once(text, swapped):
    assert swap_sides(text) == swapped
    assert swap_sides(swapped) == text


def test_who_is_late_is_where_they_were_and_makes_it_good():
    pool, plain = pair_pool(), replace(Augmentation.none(), late=1.0, late_s=(0.5, 0.5), catch_up=(0.5, 0.5))
    late = lateness(torch.tensor([True, False]), 60, 20, plain, g())
    assert late[1].abs().max() == 0 and late[:, 0].abs().max() == 0
    assert torch.equal(late[0, 1, :21], torch.full((21,), 15.0)) and late[0, 1, 50:].abs().max() == 0
    own = torch.zeros(2, dtype=torch.int64)
    on_time, behind = (crops(pool, 2, 60, plain, g(5), actor=own, anchor=own, late=x) for x in (None, late))
    assert torch.allclose(on_time.positions[1], behind.positions[1])
    assert torch.allclose(on_time.positions[0, 0], behind.positions[0, 0])
    assert torch.allclose(on_time.positions[0, 1, 1:6], behind.positions[0, 1, 16:21], atol=1e-5)
    assert torch.allclose(on_time.positions[0, 1, 50:], behind.positions[0, 1, 50:], atol=1e-5)


def test_who_is_ahead_waits():
    a = replace(Augmentation.none(), late=1.0, late_s=(-0.5, -0.5), catch_up=(0.5, 0.5))
    late = lateness(torch.tensor([True]), 60, 20, a, g())[0, 1]
    assert late[0] == -15 and late.max() == 0 and (late.diff() >= 0).all()
