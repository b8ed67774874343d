"""Feet that should stand do, and nothing else moves."""

import numpy as np
import pytest

from rtinteract import rotation as R
from rtinteract.feet import bend_legs, plant_feet, plants, walk_farther
from rtinteract.skeleton import SMPL22, forward_kinematics

FRAMES = 90


def walk():
    """A body that stands, takes one step with the left leg, and stands; knees a little bent."""
    rotations = R.identity((FRAMES, 22))
    lift = np.zeros(FRAMES)
    lift[30:50] = np.sin(np.linspace(0, np.pi, 20)) ** 2
    for hip, knee, extra in ((1, 4, lift), (2, 5, 0 * lift)):
        rotations[:, hip] = R.about("X", -(0.15 + 0.9 * extra))
        rotations[:, knee] = R.about("X", 0.3 + 1.2 * extra)
    root = np.zeros((FRAMES, 3))
    root[:, 1] = 0.9
    places = forward_kinematics(SMPL22, root, rotations)
    root[:, 1] += 0.03 - places[0, 10, 1]
    return root, rotations


def noisy(root, rotations, seed=0):
    rng = np.random.default_rng(seed)
    kernel = np.hanning(9) / np.hanning(9).sum()
    wander = np.stack([np.convolve(rng.normal(0, 0.02, FRAMES + 8), kernel, "valid") for _ in range(6)], -1)
    out = rotations.copy()
    for i, joint in enumerate((1, 2)):
        out[:, joint] = R.multiply(R.from_axis_angle(wander[:, 3 * i:3 * i + 3]), out[:, joint])
    return root + 0.3 * wander[:, :3] * [1, 0, 1], out


def slide(places, joint, frames):
    return np.linalg.norm(np.diff(places[frames, joint][:, [0, 2]], axis=0), axis=-1).max()


def test_wandering_feet_are_held_and_the_step_is_kept():
    root, rotations = noisy(*walk())
    before = forward_kinematics(SMPL22, root, rotations)
    fixed = plant_feet(root, rotations, SMPL22.offsets)
    after = forward_kinematics(SMPL22, root, fixed)
    assert slide(before, 11, slice(10, 80)) > 2e-3
    assert slide(after, 11, slice(10, 80)) < 2e-4
    assert slide(after, 10, slice(0, 24)) < 2e-4
    assert np.abs(after[38:42, 10, 1] - before[38:42, 10, 1]).max() < 0.02
    assert after[40, 10, 1] > 0.15
    assert np.allclose(np.linalg.norm(fixed, axis=-1), 1)
    upper = [0, 3, 6, 9, 12, 15, 16, 17, 18, 19, 20, 21]
    assert np.allclose(after[:, upper], before[:, upper], atol=1e-9)


def test_corrections_do_not_pop():
    root, rotations = noisy(*walk(), seed=3)
    fixed = plant_feet(root, rotations, SMPL22.offsets)
    extra = R.to_axis_angle(R.multiply(R.inverse(rotations), fixed))
    assert np.linalg.norm(np.diff(extra, axis=0), axis=-1).max() < 0.06


def test_frames_already_shown_stay_and_their_plant_goes_on_from_there():
    root, rotations = noisy(*walk(), seed=5)
    fixed = plant_feet(root, rotations, SMPL22.offsets, fixed=10)
    assert np.allclose(fixed[:10], rotations[:10])
    after = forward_kinematics(SMPL22, root, fixed)
    assert np.linalg.norm(after[10:25, 11, [0, 2]] - after[9, 11, [0, 2]], axis=-1).max() < 1e-3


def test_a_foot_that_never_stands_is_left_alone():
    root, rotations = walk()
    flying = plant_feet(root + [0, 1.0, 0], rotations, SMPL22.offsets)
    assert np.allclose(flying, rotations)
    assert plants(np.cumsum(np.full((30, 3), [0.05, 0, 0]), 0)) == []


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_clips(frames):
    root, rotations = walk()
    assert plant_feet(root[:frames], rotations[:frames], SMPL22.offsets).shape == (frames, 22, 4)


def gait():
    """Someone who walks along +Z with bent knees and comes to stand; each foot stands while the other swings."""
    rotations = R.identity((FRAMES, 22))
    t = np.arange(FRAMES)
    ways = np.stack([sum(0.3 * ease((t - first) / 12) for first in firsts) for firsts in ((10, 34, 58), (22, 46))], -1)
    ways[:, 1] += 0.3 * ease((t - 58) / 12)
    root = np.stack([0 * t, np.full(FRAMES, 0.86), ways.mean(-1)], -1)
    for leg in (1, 2):
        rotations[:, leg], rotations[:, leg + 3] = R.about("X", np.full(FRAMES, -0.4)), R.about("X", np.full(FRAMES, 0.8))
    ankles = forward_kinematics(SMPL22, root, rotations)[:, [7, 8]]
    ankles[..., 2] += ways - ways.mean(-1, keepdims=True)
    return bend_legs(root, rotations, SMPL22.offsets, ankles)


def ease(u):
    return np.clip(u, 0, 1) ** 2 * (3 - 2 * np.clip(u, 0, 1))


def test_who_walks_takes_longer_steps_and_no_foot_slides():
    root, rotations = gait()
    before = forward_kinematics(SMPL22, root, rotations)
    far, turned, share = walk_farther(root, rotations, SMPL22.offsets, np.array([0.05, 0.3, 0.25]), 5, 75)
    after = forward_kinematics(SMPL22, far, turned)
    assert share == 1
    assert np.allclose((after - before)[80:, [0, 10, 11]], [0.05, 0.0, 0.25], atol=5e-3)
    assert np.array_equal(far[:6], root[:6])
    for toe in (10, 11):
        stood = np.linalg.norm(np.diff(before[:, toe], axis=0), axis=-1) < 2e-3
        assert stood.sum() > 30
        assert np.linalg.norm(np.diff(after[:, toe], axis=0), axis=-1)[stood].max() < 4e-3
    # Half as far again is as long as steps get.
    assert walk_farther(root, rotations, SMPL22.offsets, np.array([0.0, 0.0, 2.0]), 5, 75)[2] < 0.3


@pytest.mark.parametrize("far_m", [0.25, 0.6])
def test_who_stands_takes_a_step_or_has_no_time_for_it(far_m):
    root, rotations = gait()
    root, rotations = np.repeat(root[:1], FRAMES, 0), np.repeat(rotations[:1], FRAMES, 0)
    before = forward_kinematics(SMPL22, root, rotations)
    way = np.array([0.0, 0.0, far_m])
    far, turned, share = walk_farther(root, rotations, SMPL22.offsets, way, 5, 60)
    moved = forward_kinematics(SMPL22, far, turned) - before
    # A foot that steps goes at a walker's pace.
    assert np.linalg.norm(np.diff(moved[:, [10, 11]], axis=0), axis=-1).max() * 30 < 2.6
    assert share == 1 and np.allclose(moved[60:, [0, 10, 11]], way, atol=0.02 * far_m) and np.allclose(moved[:30], 0, atol=1e-6)
    assert (moved[:, [10, 11], 1].max(0) > 0.03).all()
    assert walk_farther(root, rotations, SMPL22.offsets, way, 50, 60)[0] is root
    assert walk_farther(root, rotations, SMPL22.offsets, 4 * way, 5, 60)[0] is root
