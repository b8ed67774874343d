"""Files by suffix: packing, units, axes, T-pose frames, bad input, npz."""

import gzip
import json
import lzma

import numpy as np
import pytest
from motion_samples import amc, asf, bvh, row

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError, SkeletonError
from rtinteract.motion import read_motion, resample, write_motion
from rtinteract.motion.archive import read_people


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("scale,unit", [(1.0, "cm"), (0.01, "m"), (10.0, "mm"), (1 / 2.54, "inch"), (0.45 / 2.54, "cmu")])
def test_units_are_found_from_the_bodys_height_and_said(tmp_path, scale, unit):
    m = read_motion(write(tmp_path / "a.bvh", bvh(scale=scale)))
    assert m.root[3, 0] == pytest.approx(0.03, abs=1e-6) and m.skeleton.height == pytest.approx(1.74, abs=0.15)
    assert any(n.startswith(f"units: {unit} assumed") for n in m.notes)


def test_given_units_are_used_and_wrong_ones_named(tmp_path):
    path = write(tmp_path / "a.bvh", bvh())
    assert read_motion(path, units="m").root[3, 0] == pytest.approx(3.0)
    assert read_motion(path, units=0.02).root[3, 0] == pytest.approx(0.06)
    for wrong in ("furlong", -1, 0, float("nan"), True):
        with pytest.raises(MotionError, match="units"):
            read_motion(path, units=wrong)


def test_a_height_between_known_units_is_scaled_with_a_warning_and_an_absurd_one_is_an_error(tmp_path, caplog):
    m = read_motion(write(tmp_path / "a.bvh", bvh(scale=0.25)))
    assert m.skeleton.height == pytest.approx(1.70, abs=0.01)
    assert any("unknown" in n for n in m.notes) and "units=" in caplog.text
    for scale in (1e-4, 1e3):
        with pytest.raises(MotionError, match="units="):
            read_motion(write(tmp_path / "b.bvh", bvh(scale=scale)))


def test_z_up_is_turned_to_y_up(tmp_path):
    rows = []
    for f in range(4):
        columns = row(f)
        # Zrotation, Xrotation, Yrotation: +90 degrees about X stands the body along Z.
        columns[0:6] = [float(f), 0.0, 94.0, 0.0, 90.0, 0.0]
        rows.append(columns)
    m = read_motion(write(tmp_path / "a.bvh", bvh(rows)))
    head, foot = m.positions[0, m.skeleton.index("Head")], m.positions[0, m.skeleton.index("LeftFoot")]
    assert head[1] - foot[1] > 1.2 and any("+Z" in n for n in m.notes)
    assert m.to_model().positions[0, 15, 1] > 1.2


def test_a_t_pose_first_frame_is_dropped_by_itself_and_by_wish(tmp_path):
    path = write(tmp_path / "a.bvh", bvh([row(0, arms=0.0), *(row(f) for f in range(1, 6))]))
    assert len(read_motion(path)) == 5
    assert len(read_motion(path, drop_first=False)) == 6
    ordinary = write(tmp_path / "b.bvh", bvh())
    assert len(read_motion(ordinary)) == 8 and len(read_motion(ordinary, drop_first=True)) == 7
    slow = write(tmp_path / "c.bvh", bvh([row(f, arms=2.0 * f) for f in range(6)]))
    assert len(read_motion(slow)) == 6


def test_packed_files_are_read_and_damaged_packing_is_named(tmp_path):
    (tmp_path / "a.bvh.xz").write_bytes(lzma.compress(bvh().encode()))
    (tmp_path / "a.bvh.gz").write_bytes(gzip.compress(bvh().encode()))
    assert len(read_motion(tmp_path / "a.bvh.xz")) == len(read_motion(str(tmp_path / "a.bvh.gz"))) == 8
    for name, data in (("b.bvh.xz", lzma.compress(bvh().encode())[:-30]), ("b.bvh.gz", gzip.compress(bvh().encode())[:-30]),
                       ("c.bvh.xz", b"hello"), ("c.bvh.gz", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MotionError, match="damaged"):
            read_motion(tmp_path / name)


def test_one_frame_works_to_the_model(tmp_path):
    m = read_motion(write(tmp_path / "a.bvh", bvh([row(0)])))
    assert len(m) == 1 and len(m.to_model()) == 1
    with pytest.raises(MotionError, match="drop_first"):
        read_motion(tmp_path / "a.bvh", drop_first=True)


def test_ten_kilohertz_is_read_and_resampled(tmp_path):
    m = read_motion(write(tmp_path / "a.bvh", bvh([row(f / 1000) for f in range(2000)], frame_time="0.0001")))
    model = m.to_model()
    assert m.fps == pytest.approx(10_000) and model.fps == 30 and len(model) == 6


@pytest.mark.parametrize("name,data", [
    ("missing.bvh", None), ("binary.bvh", bytes(range(256)) * 20), ("binary.amc", bytes(range(256)) * 20), ("a.fbx", b"Kaydara"),
    ("noend", b"x"), ("empty.npz", b""), ("cut.npz", b"PK\x03\x04xxxx"), ("a.txt", b"1,2,3\n"),
    ("binary.bvh.gz", gzip.compress(b"\0\1" * 99, mtime=0)),
])
def test_files_that_are_no_motion_raise_a_clear_error(tmp_path, name, data):
    (tmp_path / "binary.asf").write_text(asf())
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RtInteractError, match=name.split(".")[0]):
        read_motion(tmp_path / name)
    with pytest.raises(RtInteractError, match=str(tmp_path.name)):
        read_motion(tmp_path)


def test_an_unknown_skeleton_reads_but_needs_a_joint_map_to_be_modelled(tmp_path):
    names = ["Hips", "Spine", "LeftArm", "LeftForeArm", "LeftHand", "RightArm", "RightForeArm", "RightHand", "Neck", "Head",
             "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase", "RightUpLeg", "RightLeg", "RightFoot", "RightToeBase"]
    text = bvh()
    for i, name in enumerate(names):
        text = text.replace(f"ROOT {name}\n", f"ROOT q{i}\n").replace(f"JOINT {name}\n", f"JOINT q{i}\n")
    path = write(tmp_path / "a.bvh", text)
    m = read_motion(path)
    with pytest.raises(SkeletonError, match="could not match.*left_knee.*joint_map"):
        m.to_model()
    smpl = ["pelvis", "spine3", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
            "right_wrist", "neck", "head", "left_hip",
            "left_knee", "left_ankle", "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot"]
    joint_map = {s: f"q{i}" for i, s in enumerate(smpl)}
    mapped = read_motion(path, joint_map=joint_map).to_model()
    plain = read_motion(write(tmp_path / "b.bvh", bvh())).to_model()
    np.testing.assert_allclose(mapped.positions, plain.positions, atol=1e-9)
    with pytest.raises(SkeletonError, match="elbwo.*q99"):
        read_motion(path, joint_map={**joint_map, "left_elbwo": "q1", "head": "q99"})


def test_rotation_vectors_turn_backward_and_name_bad_lines(tmp_path):
    tree = {"names": ["Hips", "Chest"], "parent": [-1, 0], "offset": [[0, 0, 0], [0, 5, 0]], "fps": 120, "unit_in_metres": 0.1}
    (tmp_path / "skeleton.json").write_text(json.dumps(tree))
    good = "0,10,0,0,0,0.5,0,0,0\n"
    m = read_motion(write(tmp_path / "a.txt", good * 3), units="cmu")
    assert R.angle(m.rotations[0, 0], R.about("Z", np.float64(-0.5))) < 1e-9 and m.fps == 120
    for bad, says in (("0,10,0,0,0,0.5,0,0\n", "line 2.*got 8"), ("0,10,0,0,0,x,0,0,0\n", "line 2"),
                      ("0,10,0,0,0,nan,0,0,0\n", "line 2.*NaN")):
        with pytest.raises(MotionError, match=says):
            read_motion(write(tmp_path / "b.txt", good + bad + good))
    (tmp_path / "skeleton.json").write_text("{}")
    with pytest.raises(SkeletonError, match="unit_in_metres"):
        read_motion(tmp_path / "a.txt")


def test_npz_keeps_everything_exactly(tmp_path):
    (tmp_path / "07.asf").write_text(asf())
    m = read_motion(write(tmp_path / "07_01.amc", amc(ltibia="30")))
    write_motion(tmp_path / "a.npz", m)
    back = read_motion(tmp_path / "a.npz")
    np.testing.assert_allclose(back.rotations, m.rotations, atol=1e-15)
    np.testing.assert_allclose(back.positions, m.positions, atol=1e-12)
    assert back.skeleton.joints == m.skeleton.joints and back.fps == m.fps and back.notes == m.notes
    np.testing.assert_array_equal(back.skeleton.tpose, m.skeleton.tpose)
    write_motion(tmp_path / "pair.npz", (m, resample(m, 30)))
    assert [p.fps for p in read_people((tmp_path / "pair.npz").read_bytes(), "pair")] == [120.0, 30.0]
    with pytest.raises(MotionError, match="one person"):
        read_motion(tmp_path / "pair.npz")
    with pytest.raises(MotionError, match="glb"):
        write_motion(tmp_path / "a.xyz", m)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".tmp") == []


def test_the_faults_of_the_cmu_conversion_are_mended_unasked(shared):
    folder = shared / "mocap" / "cmu-pair"
    a, b = (read_motion(folder / f"{n}_01.bvh") for n in (18, 19))
    assert len(a) == len(b) == 303 and all(any("thorax" in n for n in m.notes) for m in (a, b))

    def gap(joint):
        return np.linalg.norm(a.positions[:, a.skeleton.index(joint)] - b.positions[:, b.skeleton.index(joint)], axis=-1)

    hips, wrists = gap("Hips"), gap("RightHand")
    assert hips[[0, -1]] == pytest.approx([1.98, 1.80], abs=0.01) and hips.min() == pytest.approx(0.738, abs=0.005)
    # 0.189 without the thorax; with it the shoulders stand 12 cm higher and the wrists come nearer.
    assert wrists.min() == pytest.approx(0.157, abs=0.005) and wrists.argmin() + 1 == 106
    am, bm = a.to_model(), b.to_model()
    np.testing.assert_allclose(am.root[:, [0, 2]], a.root[::4, [0, 2]], atol=2e-3)
    assert np.linalg.norm(am.positions[:, 21] - bm.positions[:, 21], axis=-1).min() < 0.18


@pytest.mark.parametrize("name,frames", [("wave_hello", 839), ("zombie", 779), ("jesse_dance", 1007), ("dab", 339),
                                         ("jumping", 654)])
def test_other_peoples_skeletons_stand_upright_on_the_floor(shared, name, frames):
    m = read_motion(shared / "mocap" / "animated-drawings" / f"{name}.bvh.xz")
    assert len(m) == frames
    model = m.to_model()
    up = R.rotate(model.rotations[:, 0], np.broadcast_to(np.array([0.0, 1.0, 0.0]), (len(model), 3)))
    assert np.median(up[:, 1]) > 0.8 and np.median(model.positions[:, 15, 1]) > 1.3
    assert -0.1 < np.percentile(model.positions[:, [10, 11], 1].min(1), 5) < 0.08
    # Knees and elbows bend the way they can: about +X, and about Y toward the front.
    bend = R.to_axis_angle(model.rotations)
    assert all(np.percentile(bend[:, j, 0], 10) > -0.35 for j in (4, 5))
    assert np.percentile(bend[:, 18, 1], 90) < 0.5 and np.percentile(bend[:, 19, 1], 10) > -0.5
