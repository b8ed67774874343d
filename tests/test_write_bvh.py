"""BVH files read back, by the package's reader and by a plain parser here."""

import re

import numpy as np
import pytest
from synthetic import walker

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion import read_motion
from rtinteract.motion.types import Motion
from rtinteract.motion.write_bvh import write_bvh
from rtinteract.skeleton import SMPL22, Skeleton


def tumbling():
    """A body whose root and neck turn through gimbal lock and past a full circle."""
    motion = walker(2.0, yaw=0.7)
    rotations = motion.rotations.copy()
    rotations[:, 0] = R.multiply(R.yaw(np.linspace(0, 9, len(motion))), R.about("X", np.linspace(0, 2.5, len(motion))))
    rotations[:, 12] = R.about("Y", np.linspace(-1.6, 1.6, len(motion)))
    return Motion.from_rotations(SMPL22, motion.root, rotations, 30)


@pytest.mark.parametrize("make", [walker, tumbling])
@pytest.mark.parametrize("units", ["cm", "m"])
def test_our_reader_gives_the_motion_back(tmp_path, make, units):
    motion = make()
    write_bvh(tmp_path / "a.bvh", motion, units)
    # The unit is found from the body's height unless the clip lies down; frame 0 is no T-pose to drop.
    back = read_motion(tmp_path / "a.bvh", drop_first=False)
    order = [back.skeleton.index(j) for j in SMPL22.joints]
    assert back.fps == pytest.approx(30, abs=1e-6) and len(back) == len(motion)
    assert any(f"units: {units} " in note for note in back.notes)
    assert np.abs(back.positions[:, order] - motion.positions).max() < 1e-4
    assert R.angle(back.rotations[:, order], motion.rotations).max() < 1e-4
    for j, tip in SMPL22.end_sites.items():
        np.testing.assert_allclose(back.skeleton.end_sites[order[j]], tip, atol=1e-6)


def test_the_text_is_plain_bvh(tmp_path):
    motion = walker(1.0)
    write_bvh(tmp_path / "a.bvh", motion)
    text = (tmp_path / "a.bvh").read_text()
    assert text.startswith("HIERARCHY\nROOT pelvis\n{\n  OFFSET 0.0") and text.count("{") == text.count("}")
    assert len(re.findall(r"CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation", text)) == 1
    assert len(re.findall(r"CHANNELS 3 Zrotation Yrotation Xrotation", text)) == 21 and text.count("End Site") == 5
    head, rows = text.split("MOTION\n")
    lines = rows.splitlines()
    assert lines[0] == "Frames: 30" and float(lines[1].split(":")[1]) == pytest.approx(1 / 30)
    table = np.array([line.split() for line in lines[2:]], dtype=float)
    assert table.shape == (30, 6 + 21 * 3)
    np.testing.assert_allclose(table[:, :3], 100 * motion.root, atol=1e-5)
    names = re.findall(r"(?:ROOT|JOINT) (\S+)", head)
    left = 3 + 3 * names.index("left_hip")
    hip = R.from_euler(np.radians(table[:, left:left + 3]), "ZYX")
    assert R.angle(hip, motion.rotations[:, 1]).max() < 1e-6


def test_angles_do_not_jump(tmp_path):
    write_bvh(tmp_path / "a.bvh", tumbling())
    rows = (tmp_path / "a.bvh").read_text().split("MOTION\n")[1].splitlines()[2:]
    table = np.array([row.split() for row in rows], dtype=float)[:, 3:]
    assert np.abs(np.diff(table, axis=0)).max() < 60


def test_any_skeleton_and_names_with_blanks(tmp_path):
    offsets = np.array([[0, 0, 0], [0, 0.9, 0], [0, 0.6, 0], [0.2, 0, 0]])
    skeleton = Skeleton("toy", ("Hips", "my spine", "head", "arm"), (-1, 0, 1, 1), offsets)
    write_bvh(tmp_path / "a.bvh", Motion.from_rotations(skeleton, np.zeros((1, 3)), R.identity((1, 4)), 25))
    text = (tmp_path / "a.bvh").read_text()
    assert "JOINT my_spine" in text and text.count("End Site") == 2 and "Frames: 1\n" in text


def test_a_long_chain_needs_no_recursion(tmp_path):
    n = 1500
    offsets = np.tile([0, 0.001, 0], (n, 1))
    skeleton = Skeleton("chain", tuple(f"j{i}" for i in range(n)), tuple(range(-1, n - 1)), offsets)
    write_bvh(tmp_path / "a.bvh", Motion.from_rotations(skeleton, np.zeros((1, 3)), R.identity((1, n)), 30))
    assert (tmp_path / "a.bvh").read_text().count("JOINT") == n - 1


def test_mistakes_are_named_and_leave_nothing(tmp_path):
    motion = walker(0.5)
    with pytest.raises(MotionError, match="'cm' or 'm'"):
        write_bvh(tmp_path / "a.bvh", motion, units="inch")
    with pytest.raises(MotionError, match="one Motion"):
        write_bvh(tmp_path / "a.bvh", (motion, motion))
    with pytest.raises(MotionError, match="existing folder"):
        write_bvh(tmp_path / "none" / "a.bvh", motion)
    motion.rotations[3, 2] = np.nan
    (tmp_path / "a.bvh").write_text("old")
    with pytest.raises(MotionError, match="frame 3"):
        write_bvh(tmp_path / "a.bvh", motion)
    assert [f.name for f in tmp_path.iterdir()] == ["a.bvh"] and (tmp_path / "a.bvh").read_text() == "old"
