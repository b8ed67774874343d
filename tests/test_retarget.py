"""Retargeting: round trips, twist, feet, mirror, the model's body."""

import numpy as np
import pytest
from motion_samples import amc, asf, bvh

from rtinteract import rotation as R
from rtinteract.errors import SkeletonError
from rtinteract.motion import Motion, mirror, read_motion, resample, retarget, to_model
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS, Skeleton, smpl22_with


def wild(frames=30, seed=0, size=0.5, skeleton=SMPL22):
    """A smooth random movement: every joint turns every way, knees bent."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 2 * np.pi, frames)[:, None, None]
    vectors = size * np.sin(t + rng.uniform(0, 6, (1, 22, 3))) * rng.uniform(0.2, 1, (1, 22, 3))
    vectors[:, [4, 5], 0] += 0.8
    root = np.stack([np.sin(t[:, 0, 0]), 0.9 + 0 * t[:, 0, 0], t[:, 0, 0]], -1)
    return Motion.from_rotations(skeleton, root, R.from_axis_angle(vectors), 30.0)


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skeletons")
    (folder / "07.asf").write_text(asf())
    (folder / "07_01.amc").write_text(amc())
    (folder / "a.bvh").write_text(bvh())
    return {"asf": read_motion(folder / "07_01.amc").skeleton, "bvh": read_motion(folder / "a.bvh").skeleton,
            "tall": SMPL22.scaled(1.15)}


@pytest.mark.parametrize("keep_feet", [True, False])
@pytest.mark.parametrize("name", ["asf", "tall", "bvh"])
def test_there_and_back_is_the_same(skeletons, name, keep_feet):
    m = wild()
    there = retarget(m, skeletons[name], keep_feet=keep_feet)
    back = retarget(there, m.skeleton, keep_feet=keep_feet)
    both = [SMPL22_JOINTS.index(r) for r in joint_map_of(skeletons[name])]
    # World rotations: where the other skeleton lacks a joint, its turn is carried by the joints beside it.
    assert R.angle(world(m), world(back))[:, both].max() < 1e-6
    if len(both) == 22:
        assert np.abs(m.positions - back.positions).max() < 1e-6


def world(m):
    from rtinteract.skeleton import forward_kinematics
    return forward_kinematics(m.skeleton, m.root, m.rotations, with_rotations=True)[1]


def test_cmu_skeletons_and_back_on_real_files(shared):
    pair, solo = shared / "mocap" / "cmu-pair", shared / "mocap" / "cmu-solo"
    m = read_motion(pair / "19_01.bvh").to_model()
    for path in (solo / "amc" / "02_01.amc.xz", pair / "18_01.bvh"):
        skeleton = read_motion(path).skeleton
        back = retarget(retarget(m, skeleton), m.skeleton)
        assert R.angle(m.rotations, back.rotations).max() < 1e-4 and np.abs(m.positions - back.positions).max() < 1e-4


def test_twist_is_carried_over(skeletons):
    rotations = R.identity((1, 22))
    rotations[0, 18] = R.about("X", np.float64(0.7))
    m = Motion.from_rotations(SMPL22, np.array([[0, 0.95, 0.0]]), rotations, 30.0)
    out = retarget(m, skeletons["asf"])
    turned = R.multiply(out.rotations[0, out.skeleton.index("lradius")],
                        R.inverse(out.skeleton.tpose[out.skeleton.index("lradius")]))
    assert R.angle(turned, R.identity(())) == pytest.approx(0.7, abs=1e-6)


def test_planted_ankles_stay_and_soles_keep_their_height_on_other_legs():
    offsets = SMPL22.offsets.copy()
    offsets[[4, 5]] *= 1.25
    offsets[[7, 8]] *= 0.8
    other = smpl22_with(offsets)
    t = np.linspace(0, 1, 20)
    rotations = R.identity((20, 22))
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        rotations[:, hip], rotations[:, knee] = R.about("X", -0.8 * t), R.about("X", 1.6 * t)
        rotations[:, ankle] = R.about("X", -0.8 * t)
    m = Motion.from_rotations(SMPL22, np.zeros((20, 3)), rotations, 30.0)
    m = Motion.from_rotations(SMPL22, -m.positions[:, 7] * (0, 1, 1) + (0, 0.07, 0), rotations, 30.0)
    assert np.abs(np.diff(m.positions[:, 7], axis=0)).max() < 1e-9
    kept, loose = retarget(m, other), retarget(m, other, keep_feet=False)
    assert np.abs(np.diff(kept.positions[:, 7], axis=0)).max() < 1e-6
    assert np.abs(np.diff(loose.positions[:, 7], axis=0)).max() > 1e-3
    assert kept.positions[:, 7, 1] == pytest.approx(0.07 * np.ones(20), abs=0.01)


def test_the_root_is_scaled_with_leg_length_or_not():
    m = wild()
    far, near = retarget(m, SMPL22.scaled(1.2)), retarget(m, SMPL22.scaled(1.2), scale_root=False)
    assert np.ptp(far.root[:, 2]) == pytest.approx(1.2 * np.ptp(m.root[:, 2]), rel=0.02)
    assert np.ptp(near.root[:, 2]) == pytest.approx(np.ptp(m.root[:, 2]), rel=0.02)


def test_mirror_swaps_sides_and_undoes_itself():
    m = wild()
    other = mirror(m)
    np.testing.assert_allclose(other.positions[:, 20], m.positions[:, 21] * (-1, 1, 1), atol=1e-12)
    np.testing.assert_allclose(mirror(other).positions, m.positions, atol=1e-12)
    assert R.angle(mirror(other).rotations, m.rotations).max() < 1e-7
    with pytest.raises(SkeletonError, match="to_model"):
        mirror(Motion.from_rotations(Skeleton("x", ("a",), (-1,), np.zeros((1, 3))), np.zeros((1, 3)), R.identity((1, 1)), 30))


def test_a_pair_keeps_its_places_on_the_ground():
    own = Skeleton("own", tuple(f"x_{j}" for j in SMPL22_JOINTS), SMPL22.parents, SMPL22.offsets, dict(SMPL22.end_sites),
                   SMPL22.tpose, {j: f"x_{j}" for j in SMPL22_JOINTS})
    m = wild(skeleton=own)
    low = m.moved(translation=(3.0, -0.4, 1.0))
    a, b = to_model(m), to_model(low)
    np.testing.assert_allclose(b.positions - a.positions, np.broadcast_to([3.0, 0.0, 1.0], a.positions.shape), atol=1e-9)


def test_a_motion_of_the_models_skeleton_stays_where_it_is():
    m = wild().moved(translation=(0.0, 0.1, 0.0))
    assert np.array_equal(to_model(m).positions, m.positions)
    assert np.array_equal(to_model(to_model(m)[5:9]).positions, m.positions[5:9])


@pytest.mark.parametrize("path", ["amc/01_01.amc.xz", "amc/02_06.amc.xz", "amc/60_01.amc.xz", "bvh/12_01.bvh.xz",
                                  "expmap/soccer/train_soccer_1.txt.xz"])
def test_the_models_body_keeps_joints_where_the_source_has_them(shared, path):
    m = read_motion(shared / "mocap" / "cmu-solo" / path)
    model, source = m.to_model(), resample(m, 30)
    roles = joint_map_of(m.skeleton)
    off = {}
    for k, name in enumerate(SMPL22_JOINTS):
        if not name.startswith("spine"):
            there = source.positions[:, roles[name]] - source.root
            off[name] = np.linalg.norm(there - (model.positions[:, k] - model.root), axis=-1)
    assert max(np.median(v) for v in off.values()) < 0.01 and max(np.percentile(v, 95) for v in off.values()) < 0.03
    assert max(v.max() for n, v in off.items() if n.split("_")[-1] in ("hip", "knee", "ankle", "foot")) < 1e-6
