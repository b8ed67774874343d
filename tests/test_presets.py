"""Engines' skeletons and axes: rest poses, names, round trips, handedness, contacts between bodies of different size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from synthetic import walker
from test_retarget import wild

from rtinteract import rotation as R
from rtinteract.errors import ConfigError, SkeletonError
from rtinteract.motion import AXES, PRESETS, Axes, Motion, axes, preset, read_motion, retarget, retarget_pair, write_motion
from rtinteract.motion.gltf import read_gltf
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.motion.legs import reach
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS, Skeleton, forward_kinematics, world_rotations

ROOT = Path(__file__).resolve().parents[1]
ENGINES = [p for p in PRESETS if p != "smpl22"]


def offset(name, joint, units):
    skeleton = preset(name)
    return axes(units).pose_from_model(skeleton.offsets[skeleton.index(joint)], R.identity(()))[0]


@pytest.mark.parametrize("name,units,joint,expected", [
    ("ue4", "unreal", "calf_l", (-42.572, 0, 0)), ("ue4", "unreal", "calf_r", (42.572, 0, 0)),
    ("ue4", "unreal", "lowerarm_l", (30.340, 0, 0)), ("ue4", "unreal", "clavicle_l", (11.884, 2.732, -3.782)),
    ("ue4", "unreal", "ball_l", (-10.454, 16.578, 0.080)), ("ue5", "unreal", "calf_l", (-41.2, 0, 0)),
    ("ue5", "unreal", "hand_r", (-25.2, 0, 0)), ("godot", "godot", "LeftLowerLeg", (0, 0.375, 0)),
    ("mixamo", "gltf", "mixamorig:LeftForeArm", (0, 0.274, 0))])
def test_bones_point_along_the_engines_own_axes(name, units, joint, expected):
    assert offset(name, joint, units) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_stands_in_the_t_pose(name):
    skeleton = preset(name)
    assert preset(name) is skeleton and len(joint_map_of(skeleton)) == 22
    places = forward_kinematics(skeleton, np.zeros((1, 3)), skeleton.tpose[None])[0]
    at = {role: places[j] for role, j in joint_map_of(skeleton).items()}
    for side, x in (("left", 1), ("right", -1)):
        arm, leg = at[f"{side}_wrist"] - at[f"{side}_shoulder"], at[f"{side}_ankle"] - at[f"{side}_hip"]
        assert x * arm[0] > 0.999 * np.linalg.norm(arm) and -leg[1] > 0.99 * np.linalg.norm(leg)
        assert at[f"{side}_foot"][2] - at[f"{side}_ankle"][2] > 0.09
    assert at["head"][1] - at["pelvis"][1] > 0.45 and 0.7 < at["pelvis"][1] - at["left_ankle"][1] < 1.0


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(SkeletonError, match="ue5.*got 'unreal'"):
        preset("unreal")
    with pytest.raises(ConfigError, match="unity.*got 'maya'"):
        axes("maya")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("keep_feet", [True, False])
def test_there_and_back_is_the_same(name, keep_feet):
    m = wild(frames=40, seed=5, size=0.7)
    back = retarget(retarget(m, preset(name), keep_feet=keep_feet), SMPL22, keep_feet=keep_feet)
    assert R.angle(m.rotations, back.rotations).max() < 1e-9 and np.abs(m.root - back.root).max() < 1e-9


UE = ("root", "pelvis", "spine_01", "spine_02", "spine_03", "clavicle_l", "upperarm_l", "lowerarm_l", "hand_l", "thumb_01_l",
      "lowerarm_twist_01_l", "upperarm_twist_01_l", "clavicle_r", "upperarm_r", "lowerarm_r", "hand_r", "neck_01", "head",
      "thigh_l", "calf_l", "calf_twist_01_l", "foot_l", "ball_l", "thigh_r", "calf_r", "foot_r", "ball_r", "ik_foot_root",
      "ik_foot_l", "ik_hand_gun", "ik_hand_l")
PARTS = ("Hips", "Spine", "Spine1", "Spine2", "Neck", "Head", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand",
         "RightShoulder", "RightArm", "RightForeArm", "RightHand", "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase",
         "RightUpLeg", "RightLeg", "RightFoot", "RightToeBase")
VROID = tuple(f"J_Bip_{n}" for n in (
    "C_Hips", "C_Spine", "C_Chest", "C_UpperChest", "C_Neck", "C_Head", "L_Shoulder", "L_UpperArm", "L_LowerArm", "L_Hand",
    "R_Shoulder", "R_UpperArm", "R_LowerArm", "R_Hand", "L_UpperLeg", "L_LowerLeg", "L_Foot", "L_ToeBase", "R_UpperLeg",
    "R_LowerLeg", "R_Foot", "R_ToeBase"))
NAMES = {
    "ue4 whole": (UE, {"pelvis": "pelvis", "spine3": "spine_03", "left_collar": "clavicle_l", "left_wrist": "hand_l",
                       "right_foot": "ball_r"}),
    "mixamo": (tuple(f"mixamorig5:{n}" for n in PARTS), {"pelvis": "mixamorig5:Hips", "spine3": "mixamorig5:Spine2",
                                                         "left_foot": "mixamorig5:LeftToeBase"}),
    "mixamo, colons lost": (tuple(f"mixamorig{n}" for n in PARTS), {"spine2": "mixamorigSpine1", "neck": "mixamorigNeck",
                                                                    "right_elbow": "mixamorigRightForeArm"}),
    "vroid": (VROID, {"pelvis": "J_Bip_C_Hips", "spine3": "J_Bip_C_UpperChest", "left_shoulder": "J_Bip_L_UpperArm",
                      "right_ankle": "J_Bip_R_Foot"}),
}


@pytest.mark.parametrize("names,expected", NAMES.values(), ids=NAMES)
def test_skeletons_are_known_by_their_names(names, expected):
    skeleton = Skeleton("x", names, (-1,) + (0,) * (len(names) - 1), np.zeros((len(names), 3)))
    roles = joint_map_of(skeleton)
    assert len(roles) == 22 and {role: names[roles[role]] for role in expected} == expected


@pytest.mark.parametrize("name,place,left", [
    ("rtinteract", (1, 2, 3), (0.7071, 0, 0.7071, 0)), ("gltf", (1, 2, 3), (0.7071, 0, 0.7071, 0)),
    ("godot", (1, 2, 3), (0.7071, 0, 0.7071, 0)), ("unity", (-1, 2, 3), (0.7071, 0, -0.7071, 0)),
    ("unreal", (300, -100, 200), (0.7071, 0, 0, -0.7071))])
def test_axes_turn_and_place_as_the_engine_does(name, place, left):
    """A metre to the left, two up and three forward; a quarter turn to the left, as each engine writes them."""
    p, q = axes(name).pose_from_model(np.array([1.0, 2.0, 3.0]), R.yaw(np.float64(np.pi / 2)))
    assert p == pytest.approx(place) and q == pytest.approx(left, abs=1e-4)


def lopsided():
    """One frame that no mirror leaves alone: right arm forward and bent, head turned left, left knee up, standing off centre."""
    rotations = R.identity((1, 22))
    for joint, axis, angle in ((17, "Y", 1.2), (19, "Y", 0.9), (17, "X", 0.3), (15, "Y", 0.6), (1, "X", -0.9), (4, "X", 1.1)):
        rotations[0, joint] = R.multiply(rotations[0, joint], R.about(axis, np.float64(angle)))
    rotations[0, 0] = R.multiply(R.yaw(np.float64(0.5)), R.about("X", np.float64(0.1)))
    return Motion.from_rotations(SMPL22, np.array([[0.4, 0.95, -0.7]]), rotations, 30.0)


@pytest.mark.parametrize("name", AXES)
def test_a_lopsided_pose_in_the_engines_axes_is_the_same_pose(name):
    """The engine's own arithmetic on its own numbers puts every joint where ours does."""
    m, a = lopsided(), axes(name)
    root, rotations = a.pose_from_model(m.root, m.rotations)
    offsets = a.pose_from_model(SMPL22.offsets, R.identity((22,)))[0]
    body = Skeleton("engine", SMPL22_JOINTS, SMPL22.parents, offsets)
    places = forward_kinematics(body, root, rotations)
    seen, _ = a.pose_to_model(places, world_rotations(body, rotations))
    np.testing.assert_allclose(seen, m.positions, atol=1e-12)
    back = a.pose_to_model(root, rotations)
    np.testing.assert_allclose(back[0], m.root, atol=1e-12)
    assert R.angle(back[1], m.rotations).max() < 1e-7


@pytest.mark.parametrize("matrix,metres,text", [
    (np.diag([1.0, 2.0, 1.0]), 1.0, "square to each other"), (np.full((3, 3), np.nan), 1.0, "square to each other"),
    (np.eye(2), 1.0, "square"), (np.eye(3), 0.0, "above 0"), (np.eye(3), float("nan"), "above 0")])
def test_axes_that_are_none_are_refused(matrix, metres, text):
    with pytest.raises(ConfigError, match=text):
        Axes(matrix, metres)


def handshake(apart=0.7, away=0.0):
    """Two average people who shake hands, ``apart`` metres between them, ``away`` metres from the origin; 20 frames."""
    people = []
    for z, turn in ((-0.5 * apart, 0.0), (0.5 * apart, np.pi)):
        rotations = R.identity((20, 22))
        rotations[:, 0], rotations[:, 16] = R.yaw(np.full(20, turn)), R.about("Z", np.full(20, -1.3))
        m = Motion.from_rotations(SMPL22, np.tile([away, 0.955, z + away], (20, 1)), rotations, 30.0)
        up = 1.2 + 0.04 * np.sin(np.linspace(0, 9, 20))
        place = np.stack([np.full(20, away), up, np.full(20, away + 0.08 * np.sign(z))], -1)
        at = m.positions
        upper, lower = reach(at[:, 19] - at[:, 17], at[:, 21] - at[:, 19], place - at[:, 17], np.tile([0.0, 1.0, 0.0], (20, 1)))
        body = rotations[:, 0]
        rotations[:, 17] = R.multiply(R.inverse(body), R.multiply(upper, body))
        rotations[:, 19] = R.multiply(R.inverse(R.multiply(upper, body)), R.multiply(lower, body))
        rotations[:, 21] = R.multiply(R.inverse(R.multiply(lower, body)), body)
        people.append(Motion.from_rotations(SMPL22, m.root, rotations, 30.0))
    return tuple(people)


def grip(a, b):
    """Distance [T] between the two right wrists."""
    return np.linalg.norm(a.positions[:, joint_map_of(a.skeleton)["right_wrist"]]
                          - b.positions[:, joint_map_of(b.skeleton)["right_wrist"]], axis=-1)


@pytest.mark.parametrize("first,second", [("ue5", SMPL22.scaled(1.12)), ("mixamo", SMPL22.scaled(0.88)),
                                          (SMPL22.scaled(0.92), SMPL22.scaled(1.1))])
def test_hands_meet_on_bodies_of_different_size(first, second):
    skeletons = [preset(s) if isinstance(s, str) else s for s in (first, second)]
    pair = handshake(away=4.0)
    assert grip(*pair).max() < 0.2
    ground = np.mean([np.linalg.norm(retarget(m, s).root[0, [0, 2]]) / np.linalg.norm(m.root[0, [0, 2]])
                      for m, s in zip(pair, skeletons, strict=True)])
    with_it, without = (retarget_pair(pair, skeletons, contacts=c) for c in (True, False))
    alone = [retarget(m, s) for m, s in zip(pair, skeletons, strict=True)]
    # A hand's length apart, as before: hands are as large as the people.
    off, loose, torn = (np.abs(grip(*p) - ground * grip(*pair)).max() for p in (with_it, without, alone))
    assert off < 0.01 and loose > 0.03 and torn > 0.1
    turned = R.angle(*(world_rotations(p[1].skeleton, p[1].rotations) for p in (with_it, without))).max(0)
    arm = {joint_map_of(skeletons[1])[f"right_{j}"] for j in ("shoulder", "elbow")}
    assert {j for j in np.flatnonzero(turned > 1e-7)} == arm
    assert np.array_equal(with_it[0].rotations, without[0].rotations)


def test_a_hand_out_of_reach_is_reached_for():
    pair, skeletons = handshake(apart=0.95), (SMPL22.scaled(0.85), SMPL22.scaled(1.15))
    (_, b), (_, loose) = (retarget_pair(pair, skeletons, contacts=c) for c in (True, False))
    arm = [b.positions[:, j] for j in (17, 19, 21)]
    assert np.linalg.norm(arm[2] - arm[0], axis=-1).min() > 0.999 * 1.15 * 0.535
    first = retarget_pair(pair, skeletons)[0]
    assert (grip(first, b) < grip(first, loose) - 0.02).all()


def test_hands_far_from_the_partner_are_left_alone():
    pair = handshake(apart=3.0)
    skeletons = (preset("ue5"), preset("mixamo"))
    (_, a), (_, b) = (retarget_pair(pair, skeletons, contacts=c) for c in (True, False))
    assert R.angle(a.rotations, b.rotations).max() < 1e-6


def test_a_real_handshake_survives(shared):
    pair = [read_motion(shared / "mocap" / "cmu-pair" / f"{take}.bvh").to_model() for take in ("18_01", "19_01")]
    pair = [m[:min(map(len, pair))] for m in pair]
    near = grip(*pair) < 0.2
    assert near.sum() > 10
    skeletons = (preset("ue5"), preset("mixamo").scaled(1.1))
    off, loose = (np.median(np.abs(grip(*retarget_pair(pair, skeletons, contacts=c)) - grip(*pair))[near]) for c in (True, False))
    assert off < 0.02 and loose > 2 * off


@pytest.mark.parametrize("suffix", [".bvh", ".glb"])
@pytest.mark.parametrize("name", ["ue5", "mixamo"])
def test_files_are_written_on_an_engines_bones_and_come_back(tmp_path, name, suffix):
    m, path = walker(1.0), tmp_path / f"clip{suffix}"
    write_motion(path, m, skeleton=name)
    there = read_motion(path) if suffix == ".bvh" else read_gltf(path)[0]
    assert set(there.skeleton.joints) == set(preset(name).joints)
    back = retarget(there, m.skeleton)
    assert R.angle(back.rotations, m.rotations).max() < 1e-3 and np.abs(back.root - m.root).max() < 1e-3


def test_a_pair_is_written_on_an_engines_bones(tmp_path):
    write_motion(tmp_path / "pair.glb", handshake(), skeleton="unity")
    assert [p.skeleton.joints for p in read_gltf(tmp_path / "pair.glb")] == [preset("unity").joints] * 2


def test_another_programs_gltf_is_read_from_its_own_rest_pose(tmp_path):
    """Its bind pose is an A-pose, and nothing in the file says so."""
    ue4 = preset("ue4")
    m = wild(frames=10)
    there = retarget(m, ue4)
    a_pose = ue4.tpose.copy()
    for side, angle in (("l", -0.8), ("r", 0.8)):
        j = ue4.index(f"upperarm_{side}")
        turns = world_rotations(ue4, a_pose)
        lowered = R.multiply(R.about("Z", np.float64(angle)), turns[j])
        a_pose[j] = R.multiply(R.inverse(turns[ue4.parents[j]]), lowered)
    bound = Skeleton("exported", ue4.joints, ue4.parents, ue4.offsets, {}, a_pose)
    write_motion(tmp_path / "own.glb", Motion.from_rotations(bound, there.root, there.rotations, 30.0))
    doc = pygltflib.GLTF2.load(str(tmp_path / "own.glb"))
    doc.skins[0].extras = {}
    doc.save(str(tmp_path / "other.glb"))
    own, other = (read_gltf(tmp_path / f"{which}.glb")[0] for which in ("own", "other"))
    assert R.angle(retarget(other, SMPL22).rotations, m.rotations).max() < 1e-3
    assert R.angle(retarget(own, SMPL22).rotations, m.rotations).max() > 0.5


def test_the_tables_for_c_are_made_from_the_same_file():
    run = subprocess.run([sys.executable, str(ROOT / "csrc" / "generate_tables.py")], capture_output=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == (ROOT / "csrc" / "src" / "skeleton_tables.cpp").read_bytes(), \
        "run csrc/generate_tables.py and write what it prints to csrc/src/skeleton_tables.cpp"
