"""Physical figures on motions whose figures are known by construction."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import meeting, walker

from rtinteract import metrics
from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.capsules import bones, t_pose
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, Skeleton, smpl22_with


def standing(frames=30, fps=30.0, place=(0, 0, 0), yaw=0.0, drift=0.0, skeleton=SMPL22):
    """A T-pose on the floor that drifts along +Z by metres a frame."""
    root = t_pose(skeleton)[0][0] + np.arange(frames)[:, None] * [0, 0, drift]
    return Motion.from_rotations(skeleton, root, R.identity((frames, 22)), fps).moved(yaw, place)


def test_a_still_body_has_no_faults():
    report = metrics.physical_report(standing())
    assert report.foot_slide_mm == pytest.approx(0, abs=1e-9) and report.planted_share == 1
    assert report.float_cm == pytest.approx(0, abs=1e-9) and report.sink_cm == pytest.approx(0, abs=1e-9)
    assert report.jitter == pytest.approx(0, abs=1e-6) and report.fk_error_mm < 1e-9 and report.tilt_deg < 5
    assert report.penetration_max_cm is None and report.contact_error_cm is None
    assert json.loads(json.dumps(report.to_dict()))["planted_share"] == 1


@pytest.mark.parametrize("fps", [30.0, 60.0, 120.0])
def test_slide_is_millimetres_in_a_30_hz_frame_at_any_rate(fps):
    assert metrics.foot_slide(standing(fps=fps, drift=0.15 / fps)) == pytest.approx(5.0, rel=1e-6)


def test_a_step_or_a_lifted_foot_is_no_slide():
    assert not metrics.planted(standing(drift=0.05)).any()
    assert metrics.foot_slide(standing(drift=0.05)) == 0
    assert not metrics.planted(standing(place=(0, 0.1, 0), drift=0.005)).any()


def test_a_foot_that_rolls_about_its_ball_does_not_slide():
    frames = 20
    lift = R.about("X", np.linspace(0, 0.5, frames))
    rotations = R.identity((frames, 22))
    rotations[:, 7] = rotations[:, 8] = lift
    motion = Motion.from_rotations(SMPL22, np.zeros((frames, 3)), rotations, 30)
    # Hang the body from its balls: they stay while heels rise.
    ball = motion.positions[:, 10]
    root = t_pose(SMPL22)[0][10] - ball
    motion = Motion.from_rotations(SMPL22, root, rotations, 30)
    assert np.ptp(motion.positions[:, 7, 1]) > 0.04
    assert metrics.planted(motion).all() and metrics.foot_slide(motion) == pytest.approx(0, abs=1e-6)


def test_float_and_sink_are_told_apart():
    up, down = metrics.physical_report(standing(place=(0, 0.07, 0))), metrics.physical_report(standing(place=(0, -0.04, 0)))
    assert (up.float_cm, up.sink_cm) == (pytest.approx(7), 0) and (down.float_cm, down.sink_cm) == (0, pytest.approx(4))
    assert metrics.floor_clearance(standing(place=(0, 0.5, 0)), floor=0.5) == pytest.approx(0, abs=1e-9)


def test_a_tall_body_stands_as_well():
    tall = smpl22_with(SMPL22.offsets * 1.15)
    assert metrics.physical_report(standing(skeleton=tall)).sink_cm == pytest.approx(0, abs=1e-9)


def test_jitter_is_the_third_derivative():
    fps, amplitude, turn = 120.0, 0.1, 2 * np.pi
    time = np.arange(240) / fps
    motion = Motion.from_rotations(SMPL22, np.stack([amplitude * np.sin(turn * time), 0 * time, 0 * time], -1),
                                   R.identity((240, 22)), fps)
    assert metrics.jitter(motion) == pytest.approx(amplitude * turn**3 * 2 / np.pi, rel=0.02)
    assert metrics.jitter(motion[:3]) == 0


def test_penetration_of_two_bodies():
    still = standing(3)
    assert (metrics.penetration(still, standing(3, place=(0, 0, 3))) == 0).all()
    inside = metrics.penetration(still, standing(3, place=(0, 0, 0.001)))
    assert inside.shape == (3,) and (inside > 20).all()
    # Chest to chest: the trunks' radii are half their thickness.
    trunk = next(b.radii[0] for b in bones(SMPL22) if b.part == "trunk")
    hips = metrics.penetration(still, standing(3, place=(0, 0, 2 * trunk - 0.02)))
    assert 1.5 < hips[0] < 6
    # Two T-poses side by side: only the fingertips, at 0.89 m each, overlap.
    side = standing(3, place=(1.77, 0, 0))
    assert metrics.penetration(still, side).max() == 0
    assert metrics.penetration(still, side, hands=True) == pytest.approx(1.0)


def test_closest_points_agree_with_a_search():
    draw = np.random.default_rng(0)
    p0, p1, q0, q1 = draw.normal(size=(4, 50, 3))
    q1[:5] = q0[:5] + p1[:5] - p0[:5]
    q1[5] = q0[5]
    _, _, distance = metrics._closest(p0, p1, q0, q1)
    t = np.linspace(0, 1, 201)[:, None, None]
    a, b = p0 + t * (p1 - p0), q0 + t * (q1 - q0)
    searched = np.linalg.norm(a[:, None] - b[None], axis=-1).min((0, 1))
    assert (distance <= searched + 1e-9).all() and np.abs(distance - searched).max() < 0.02


def test_contact_error_is_between_palms():
    a = standing()
    # Side by side: the right palm of b is 1 cm beside and 5 cm above the left palm of a.
    b = standing(place=(2 * (0.71 + 0.005) + 2 * metrics.PALM_M, 0.05, 0))
    reach = metrics.touching_point(a, 20)[0]
    other = metrics.touching_point(b, 21)[0]
    expected = 100 * np.linalg.norm(reach - other)
    assert reach[0] - a.positions[0, 20, 0] == pytest.approx(metrics.PALM_M)
    errors = metrics.contact_error(a, b, [(20, 21, 5, 10), (20, 21, 5, 10, expected / 100), (0, 0, 0, 1)])
    assert errors[0] == pytest.approx(expected) and errors[1] == pytest.approx(0, abs=1e-9) and errors[2] > 100
    assert metrics.physical_report(a, b, [(20, 21, 5, 10)]).contact_error_cm == pytest.approx(expected)


@pytest.mark.parametrize("yaw", [0.0, 0.5, -2.0, np.pi])
def test_facing_and_distance(yaw):
    a, b = standing(yaw=yaw), standing(place=(3 * np.sin(yaw), 0, 3 * np.cos(yaw)), yaw=yaw)
    assert metrics.facing_error(a, b) == pytest.approx(0, abs=1e-6)
    assert metrics.facing_error(b, a) == pytest.approx(180, abs=1e-6)
    assert metrics.pelvis_distance(a, b) == pytest.approx(3)
    aside = standing(place=(3 * np.cos(yaw), 0, -3 * np.sin(yaw)))
    assert metrics.facing_error(a, aside) == pytest.approx(90, abs=1e-6)


def test_hands_on_the_partner_are_contacts():
    a = standing(20)
    palm = metrics.touching_point(a, 21)[0]
    # A partner whose trunk is where a's right palm is, arms along z; then one who steps away after ten frames.
    b = standing(20, place=(palm[0], 0, palm[2]), yaw=np.pi / 2)
    assert metrics.hand_contacts(a, b).tolist() == [[False, True, False, False]] * 20
    assert metrics.hand_contacts(b, a).tolist() == [[False, False, False, True]] * 20
    places = b.positions + np.where(np.arange(20) < 10, 0.0, 2.0)[:, None, None] * np.array([0, 0, 1.0])
    left = Motion(places, b.rotations, b.skeleton, b.fps)
    counts = metrics.ContactCounts.of(metrics.hand_contacts(a, left), metrics.hand_contacts(a, b))
    assert (counts.precision, counts.recall) == (1.0, 0.5)
    both = counts + metrics.ContactCounts(made=10)
    assert (both.made, both.true, both.both, both.precision) == (20, 20, 10, 0.5)
    assert metrics.ContactCounts().precision is None and metrics.ContactCounts(made=3).recall is None
    with pytest.raises(MotionError, match="same frames"):
        metrics.ContactCounts.of(np.zeros((3, 4), bool), np.zeros((4, 4), bool))


def test_position_error_global_and_root_aligned():
    a = walker()
    assert metrics.mpjpe(a, a.moved(translation=(0.03, 0, 0.04))) == pytest.approx(50)
    assert metrics.mpjpe(a, a.moved(translation=(0.03, 0, 0.04)), align="root") == pytest.approx(0, abs=1e-9)


def test_consistency_and_tilt():
    a = walker()
    moved = a.positions.copy()
    moved[3, 15, 0] += 0.02
    assert metrics.fk_error(replace(a, positions=moved)) == pytest.approx(20)
    lying = R.multiply(R.about("X", np.full(len(a), np.pi / 2)), a.rotations[:, 0])
    rotations = a.rotations.copy()
    rotations[:, 0] = lying
    assert np.median(metrics.tilt(Motion.from_rotations(SMPL22, a.root, rotations, 30))) == pytest.approx(90, abs=3)


def test_a_pair_has_a_full_report():
    report = metrics.physical_report(*meeting(2.0), [(21, 21, 40, 50)])
    assert all(np.isfinite(v) for v in report.to_dict().values())
    assert report.facing_deg < 5 and 0 < report.distance_min_m < report.distance_mean_m


def test_unfit_motions_are_refused():
    other = Skeleton("two", ("a", "b"), (-1, 0), np.array([[0, 0, 0], [0, 1.0, 0]]))
    stick = Motion.from_rotations(other, np.zeros((5, 3)), R.identity((5, 2)), 30)
    with pytest.raises(MotionError, match="SMPL-22.*to_model"):
        metrics.physical_report(stick)
    with pytest.raises(MotionError, match="equal length"):
        metrics.penetration(standing(5), standing(6))
    with pytest.raises(MotionError, match="'none' or 'root'"):
        metrics.mpjpe(standing(5), standing(5), align="hips")
    for contact in [(20, 21, 90, 95), (22, 21, 0, 5)]:
        with pytest.raises(MotionError, match="contact"):
            metrics.contact_error(standing(5), standing(5), [contact])


def test_one_frame_is_a_clip():
    assert np.isfinite(list(metrics.physical_report(standing(1)).to_dict().values())[0])
