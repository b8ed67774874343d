"""The C++ retargeting: Python's answers, both hands of axes, odd skeletons, contacts, refusals, no allocation."""

import numpy as np
import pytest
from native_retarget import COMPILER, Native, compiled, roles_of
from test_presets import NAMES, UE, handshake, lopsided
from test_retarget import wild

from rtinteract import rotation as R
from rtinteract.errors import SkeletonError
from rtinteract.motion import AXES, PRESETS, Axes, axes, preset, read_motion, retarget, retarget_pair
from rtinteract.motion.jointmaps import families, joint_map_of
from rtinteract.motion.restpose import calibrate
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS, Skeleton, forward_kinematics

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler, g++ or clang++")


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("native"))


def off(a, b):
    """The largest angle between rotations [..., 4]."""
    return R.angle(R.normalize(np.asarray(a, np.float64)), R.normalize(np.asarray(b, np.float64))).max()


def agrees(native, skeleton, motion, units, tolerance=1e-4):
    """C++ and Python give the same engine pose and, of that, the same model pose."""
    there = retarget(motion, skeleton)
    root, local = native.from_model(motion.root, motion.rotations)
    seen_root, seen = units.pose_to_model(root, local)
    assert np.abs(seen_root - there.root).max() < tolerance and off(seen, there.rotations) < tolerance
    back = retarget(there, SMPL22)
    model_root, model = native.to_model(*units.pose_from_model(there.root, there.rotations))
    assert np.abs(model_root - back.root).max() < tolerance and off(model, back.rotations) < tolerance
    return (root, local), (model_root, model)


@pytest.mark.parametrize("units", AXES)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_agree_with_python_and_come_back(lib, name, units):
    m = wild(60, seed=3, size=0.8)
    native = Native.preset(lib, name, units)
    assert native.joints == len(preset(name))
    (root, local), _ = agrees(native, preset(name), m, axes(units))
    model_root, model = native.to_model(root, local)
    assert np.abs(model_root - m.root).max() < 1e-4 and off(model, m.rotations) < 1e-4


@pytest.mark.parametrize("take", ["18_01", "19_01"])
def test_a_real_clip_agrees_with_python(lib, shared, take):
    m = retarget(read_motion(shared / "mocap" / "cmu-pair" / f"{take}.bvh"), SMPL22)
    for name, units in (("ue5", "unreal"), ("unity", "unity"), ("godot", "godot")):
        agrees(Native.preset(lib, name, units), preset(name), m, axes(units))


@pytest.mark.parametrize("units,place,left", [
    ("rtinteract", (0.6, 0.9, 3), (0.7071, 0, 0.7071, 0)), ("godot", (0.6, 0.9, 3), (0.7071, 0, 0.7071, 0)),
    ("unity", (-0.6, 0.9, 3), (0.7071, 0, -0.7071, 0)), ("unreal", (300, -60, 90), (0.7071, 0, 0, -0.7071))])
def test_a_quarter_turn_to_the_left_is_one_in_the_engines_axes(lib, units, place, left):
    native = Native.preset(lib, "smpl22", units)
    rotations = R.identity((1, 22))
    rotations[:, 0] = rotations[:, 15] = R.yaw(np.array([np.pi / 2]))
    root, local = native.from_model(np.array([[0.6, 0.9, 3.0]]), rotations)
    assert root[0] == pytest.approx(place, abs=1e-3)
    assert local[0, 0] == pytest.approx(left, abs=1e-4) and local[0, 15] == pytest.approx(left, abs=1e-4)


@pytest.mark.parametrize("units", AXES)
def test_a_lopsided_pose_stands_in_the_engine_as_in_the_model(lib, units):
    """The engine's arithmetic on the engine's numbers: its joints are where the model's are, none mirrored."""
    m, a = lopsided(), axes(units)
    root, local = Native.preset(lib, "smpl22", units).from_model(m.root, m.rotations)
    body = Skeleton("engine", SMPL22_JOINTS, SMPL22.parents, a.pose_from_model(SMPL22.offsets, R.identity((22,)))[0])
    seen, _ = a.pose_to_model(forward_kinematics(body, root.astype(float), local.astype(float)), R.identity(()))
    np.testing.assert_allclose(seen, m.positions, atol=1e-5)
    mirrored = m.positions * (-1, 1, 1)
    assert np.abs(seen - mirrored).max() > 0.2


def own_rest(name, extra=()):
    """A preset's joints with further ones, in our axes: (names, parents, offsets, rest rotations)."""
    base = preset(name)
    names, parents = [*base.joints], [*base.parents]
    offsets, rest = [*base.offsets], [*base.tpose]
    for joint, parent, offset, rotation in extra:
        names.append(joint)
        parents.append(names.index(parent))
        offsets.append(np.array(offset))
        rest.append(rotation)
    return names, parents, np.array(offsets), np.array(rest)


def test_an_a_pose_with_its_own_axes_is_calibrated_as_python_does(lib):
    rng = np.random.default_rng(2)
    names, parents, offsets, rest = own_rest("ue4")
    for joint, axis, angle in (("upperarm_l", 0, 0.7), ("upperarm_r", 2, 0.6), ("lowerarm_l", 2, 0.4), ("pelvis", 1, 0.2)):
        j = names.index(joint)
        rest[j] = R.multiply(rest[j], R.about("XYZ"[axis], np.float64(angle)))
    offsets[1:] += 0.01 * rng.normal(size=(len(names) - 1, 3))
    roles = joint_map_of(Skeleton("own", tuple(names), tuple(parents), offsets))
    skeleton = Skeleton("own", tuple(names), tuple(parents), offsets, {}, calibrate(names, parents, offsets, {}, roles, rest))
    a = axes("unreal")
    native = Native.of(lib, names, parents, *a.pose_from_model(offsets, rest), a)
    agrees(native, skeleton, wild(40, seed=6), a)


def test_extra_bones_stay_at_rest_and_a_root_bone_stands_still(lib):
    rng = np.random.default_rng(4)
    turns = R.from_axis_angle(rng.normal(size=(8, 3)))
    names, parents, offsets, rest = own_rest("ue4", [
        ("upperarm_twist_01_l", "upperarm_l", (0, 0, 0.1), turns[0]), ("index_01_l", "hand_l", (0, -0.02, 0.1), turns[1]),
        ("index_02_l", "index_01_l", (0.04, 0, 0), turns[2]), ("calf_twist_01_r", "calf_r", (0.2, 0, 0), turns[3]),
        ("ik_hand_gun", "pelvis", (0.2, 0.1, 0.1), turns[4])])
    names, parents = ["root", *names], [-1, *(p + 1 for p in parents)]
    offsets = np.concatenate([[[0, 0, 0]], offsets])
    offsets[1] = (0, 0.95, 0)
    rest = np.concatenate([[[1, 0, 0, 0]], rest])
    a = axes("unreal")
    native = Native.of(lib, names, parents, *a.pose_from_model(offsets, rest), a)
    plain = Native.preset(lib, "ue4", "unreal")
    m = wild(30, seed=8)
    root, local = native.from_model(m.root, m.rotations)
    expected_root, expected = plain.from_model(m.root, m.rotations)
    assert np.abs(root - expected_root).max() < 1e-3 and off(local[:, 1:23], expected) < 1e-4
    still = [0, *range(23, len(names))]
    at_rest = a.pose_from_model(offsets, rest)[1][still]
    assert off(local[:, still], np.broadcast_to(at_rest, (30, len(still), 4))) < 1e-6
    local[:, 23:] = R.from_axis_angle(rng.normal(size=(30, len(names) - 23, 3)))
    model_root, model = native.to_model(root, local)
    assert np.abs(model_root - m.root).max() < 1e-4 and off(model, m.rotations) < 1e-4


def without(*gone):
    """SMPL-22 without these joints; what hung on them hangs on their parents."""
    keep = [j for j, name in enumerate(SMPL22_JOINTS) if name not in gone]
    places = forward_kinematics(SMPL22, np.zeros((1, 3)), R.identity((1, 22)))[0]
    parents = []
    for j in keep:
        p = SMPL22.parents[j]
        while p >= 0 and p not in keep:
            p = SMPL22.parents[p]
        parents.append(-1 if p < 0 else keep.index(p))
    offsets = np.array([places[j] - places[keep[p]] if p >= 0 else np.zeros(3) for j, p in zip(keep, parents, strict=True)])
    return Skeleton("less", tuple(SMPL22_JOINTS[j] for j in keep), tuple(parents), offsets * 1.1)


@pytest.mark.parametrize("gone", [
    ("left_foot", "right_foot"), ("spine1", "spine2"), ("spine2", "spine3"), ("spine1",), ("left_collar", "right_collar"),
    ("neck",), ("spine2", "neck", "left_collar", "right_collar", "left_foot", "right_foot")], ids="+".join)
def test_missing_joints_are_filled_as_python_does(lib, gone):
    skeleton = without(*gone)
    tpose = calibrate(skeleton.joints, skeleton.parents, skeleton.offsets, {}, joint_map_of(skeleton))
    skeleton = Skeleton("less", skeleton.joints, skeleton.parents, skeleton.offsets, {}, tpose)
    native = Native.of(lib, skeleton.joints, skeleton.parents, skeleton.offsets, None)
    agrees(native, skeleton, wild(40, seed=9), axes("rtinteract"))


def test_a_basis_of_ones_own(lib):
    turn = R.to_matrix(R.from_axis_angle(np.array([0.3, -1.1, 0.4])))
    for mirror in (1.0, -1.0):
        a = Axes(turn @ np.diag([1, mirror, 1]), 0.001)
        s = preset("mixamo")
        native = Native.of(lib, s.joints, s.parents, *a.pose_from_model(s.offsets, s.tpose), a)
        agrees(native, s, wild(20, seed=1), a)


BIPED = tuple(f"Bip01 {n}" for n in ("Pelvis", "Spine", "Spine1", "Neck", "Head", *(f"{s} {n}" for s in "LR" for n in (
    "Clavicle", "UpperArm", "Forearm", "Hand", "Thigh", "Calf", "Foot", "Toe0"))))
RIGIFY = ("DEF-spine", "DEF-spine.001", "DEF-spine.002", "DEF-spine.003", "neck", "head", "hips", *(
    f"DEF-{n}.{s}" for s in "LR" for n in ("shoulder", "upper_arm", "forearm", "hand", "thigh", "shin", "foot", "toe")))
NO_ARM = ("hip", "abdomen", "chest", "neck", "head", *(f"{s}{n}" for s in "lr" for n in (
    "Shoulder", "Elbow", "Hand", "Thigh", "Shin", "Foot")))
BARE = ("hips", "spine", "head", *(f"{s}{n}" for s in "lr" for n in ("humerus", "radius", "hand", "femur", "tibia", "foot")))
LISTS = {**{name: names for name, (names, _) in NAMES.items()}, "biped": BIPED, "rigify": RIGIFY, "bare": BARE, "no arm": NO_ARM,
         "ue5": preset("ue5").joints, **{f"family {n}": tuple(t.values()) for n, t in families().items()}}


@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
def test_names_tell_the_same_as_in_python(lib, names):
    skeleton = Skeleton("x", tuple(names), (-1,) + (0,) * (len(names) - 1), np.zeros((len(names), 3)))
    try:
        expected = joint_map_of(skeleton)
    except SkeletonError:
        with pytest.raises(ValueError, match="expected names that tell which joints are"):
            roles_of(lib, names)
        return
    assert {SMPL22_JOINTS[role]: j for role, j in enumerate(roles_of(lib, names)) if j >= 0} == expected


def test_contacts_agree_with_python(lib):
    pair = handshake(away=2.0)
    skeletons = preset("ue5"), preset("mixamo").scaled(1.1)
    first, second = retarget_pair(pair, skeletons)
    a = axes("unreal")
    natives = [Native.of(lib, s.joints, s.parents, *a.pose_from_model(s.offsets, s.tpose), a) for s in skeletons]
    lib.shim_share_ground(natives[0].handle, natives[1].handle)
    poses = [n.from_model(m.root, m.rotations) for n, m in zip(natives, pair, strict=True)]
    own, other = ((m.root, m.rotations) for m in pair[::-1])
    reached = natives[1].reach(own, other, natives[0], poses[0], poses[1])
    for (root, local), m in ((poses[0], first), ((poses[1][0], reached), second)):
        seen = forward_kinematics(m.skeleton, *a.pose_to_model(root, local))
        assert np.abs(seen - m.positions).max() < 1e-4
    loose = forward_kinematics(second.skeleton, *a.pose_to_model(*poses[1]))
    assert np.abs(loose - second.positions).max() > 0.05


def bad(names=None, parents=None, offsets=None, rest=None, units=None):
    s = preset("unity")
    return dict(names=names or list(s.joints), parents=parents or list(s.parents),
                translations=s.offsets if offsets is None else offsets, rotations=rest, axes=units or axes("rtinteract"))


def changed(array, j, value):
    array = np.array(array, dtype=float)
    array[j] = value
    return array


class Skewed:
    to_model, metres_per_unit = np.diag([1.0, 2.0, 1.0]), 1.0


class NoUnit:
    to_model, metres_per_unit = np.eye(3), 0.0


@pytest.mark.parametrize("case,text", [
    (bad(parents=[-1, 5, *preset("unity").parents[2:]]), "parent before joint 1 .*got 5; sort"),
    (bad(parents=[-1, -1, *preset("unity").parents[2:]]), "-1 for joint 0 only"),
    (bad(offsets=changed(preset("unity").offsets, 3, np.nan)), "finite translation.*check the rest pose"),
    (bad(offsets=np.zeros((22, 3))), "longer than a millimetre.*unit"),
    (bad(rest=changed(R.identity((22,)), 4, (2, 0, 0, 0))), "unit quaternion.*LeftLowerLeg"),
    (bad(rest=changed(R.identity((22,)), 4, np.nan)), "unit quaternion"),
    (bad(names=["", *preset("unity").joints[1:]]), "name for joint 0"),
    (bad(names=[f"bone {j}" for j in range(22)]), "which joints are pelvis, left_hip.*rename"),
    (bad(units=Skewed), "square to each other"), (bad(units=NoUnit), "metres per unit above 0")])
def test_what_is_no_skeleton_is_refused(lib, case, text):
    with pytest.raises(ValueError, match=text):
        Native.of(lib, **case)


def test_a_chain_without_end_is_refused(lib):
    s = preset("unity")
    names, parents = [f"carrier {k}" for k in range(60)] + list(s.joints), list(range(-1, 59)) + [59 if p < 0 else p + 60
                                                                                             for p in s.parents]
    with pytest.raises(ValueError, match="at most 48 joints.*got 82"):
        Native.of(lib, names, parents, np.concatenate([np.zeros((60, 3)), s.offsets]), None)
    with pytest.raises(ValueError, match="1 to 4096 joints"):
        Native.of(lib, [f"b{k}" for k in range(5000)], list(range(-1, 4999)), np.zeros((5000, 3)), None)


def test_unknown_presets_name_those_there_are(lib):
    with pytest.raises(ValueError, match='ue5, ue4.*got "maya"'):
        Native.preset(lib, "maya", "unity")
    with pytest.raises(ValueError, match='unreal, unity.*got "maya"'):
        Native.preset(lib, "ue5", "maya")


def test_nothing_is_allocated_a_pose(lib):
    a, b = Native.preset(lib, "ue5", "unreal"), Native.preset(lib, "mixamo", "unity")
    m = wild(2000)
    pair = (m.root, m.rotations)
    root, local = a.from_model(*pair)
    other = b.from_model(*pair)
    before = lib.shim_allocations()
    assert before > 0
    for _ in range(5):
        a.from_model(*pair)
        a.to_model(root, local)
    b.reach(pair, pair, a, (root, local), other)
    assert lib.shim_allocations() == before


def test_the_whole_mannequin_is_mapped(lib):
    assert roles_of(lib, UE)[:3] == [UE.index("pelvis"), UE.index("thigh_l"), UE.index("thigh_r")]
