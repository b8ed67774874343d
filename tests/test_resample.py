"""Frame rates: slerp, duration, ends."""

import numpy as np
import pytest

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion import Motion, resample
from rtinteract.skeleton import SMPL22


def turning(frames, fps, speed=1.0):
    t = np.arange(frames) / fps
    rotations = R.identity((frames, 22))
    rotations[:, 0] = R.yaw(speed * t)
    return Motion.from_rotations(SMPL22, np.stack([t, 1 + 0 * t, 0 * t], -1), rotations, fps)


@pytest.mark.parametrize("fps,frames", [(120, 304), (60, 100), (25, 51), (100, 1007), (24, 3), (119.88, 839), (10_000, 2001)])
def test_steady_movement_stays_steady_at_any_rate(fps, frames):
    m = turning(frames, fps)
    for wanted in (30.0, 24.0, 60.0, 7.5):
        r = resample(m, wanted)
        t = np.arange(len(r)) / wanted
        left = (frames - 1) / fps - t[-1]
        assert r.fps == wanted and -0.011 / fps < left < 1 / wanted
        t = np.minimum(t, (frames - 1) / fps)
        np.testing.assert_allclose(r.root[:, 0], t, atol=1e-9)
        np.testing.assert_allclose(R.angle(r.rotations[:, 0], R.yaw(t)), 0, atol=1e-9)


def test_whole_steps_keep_the_end_frame():
    m = turning(121, 120)
    assert resample(m, 30).root[-1, 0] == pytest.approx(1.0) and len(resample(m, 30)) == 31
    # A frame time of .0083333 is 120.0005 Hz: the end still counts.
    assert len(resample(turning(121, 1 / 0.0083333), 30)) == 31


def test_up_and_down_again_gives_the_same():
    m = turning(40, 30)
    back = resample(resample(m, 120), 30)
    np.testing.assert_allclose(back.positions, m.positions, atol=1e-9)


def test_one_frame_and_the_same_rate():
    one = turning(1, 120)
    assert len(resample(one, 30)) == 1 and resample(one, 120) is one


def test_opposite_quaternions_are_the_same_turn():
    m = turning(20, 60)
    flipped = m.rotations.copy()
    flipped[1::2] *= -1
    r = resample(Motion.from_rotations(SMPL22, m.root, flipped, 60), 45)
    np.testing.assert_allclose(r.positions, resample(m, 45).positions, atol=1e-9)


@pytest.mark.parametrize("fps", [0, -30, float("nan"), float("inf")])
def test_a_rate_must_be_positive(fps):
    with pytest.raises(MotionError, match="frame rate"):
        resample(turning(5, 30), fps)
