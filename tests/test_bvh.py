"""BVH in: channel orders, joints without channels, moving joints, damage."""

import numpy as np
import pytest
from motion_samples import COLUMNS, HEAD_COLUMN, bvh, row

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.motion import read_motion
from rtinteract.motion.bvh import read_bvh


def write(path, text):
    path.write_text(text)
    return path


def test_rotations_follow_each_joints_own_channel_order(tmp_path):
    angles = {"c3": 10.0, "c4": 20.0, "c5": 30.0, "c6": 40.0, "c7": 50.0, "c8": 60.0}
    m = read_motion(write(tmp_path / "a.bvh", bvh([row(f, **angles) for f in range(3)])))
    hips = R.from_euler(np.radians([10.0, 20.0, 30.0]), "ZXY")
    spine = R.from_euler(np.radians([40.0, 50.0, 60.0]), "YXZ")
    assert R.angle(m.rotations[0, 0], hips) < 1e-6
    assert R.angle(m.rotations[0, m.skeleton.index("Spine")], spine) < 1e-6
    neck = m.root[0] + R.rotate(hips, np.array([0, 0.2, 0]) + R.rotate(spine, np.array([0, 0.32, 0])))
    np.testing.assert_allclose(m.positions[0, m.skeleton.index("Neck")], neck, atol=1e-9)


def test_a_joint_without_channels_does_not_turn(tmp_path):
    m = read_motion(write(tmp_path / "a.bvh", bvh()))
    np.testing.assert_array_equal(m.rotations[:, m.skeleton.index("LeftFoot"), 0], 1.0)


def test_position_channels_of_a_joint_replace_its_offset_and_a_slide_is_noted(tmp_path):
    still = read_motion(write(tmp_path / "a.bvh", bvh([row(f, **{f"c{HEAD_COLUMN + 1}": 12.0}) for f in range(3)])))
    assert still.skeleton.offsets[still.skeleton.index("Head")] == pytest.approx([0, 0.12, 0])
    slides = read_motion(write(tmp_path / "b.bvh", bvh([row(f, **{f"c{HEAD_COLUMN + 1}": 10.0 + f}) for f in range(3)])))
    assert any("slides" in n for n in slides.notes)


def test_a_still_node_above_moving_hips_is_folded_in():
    text = ("HIERARCHY\nROOT reference\n{\nOFFSET 0 0 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
            "JOINT Hips\n{\nOFFSET 0 90 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation\n"
            "End Site\n{\nOFFSET 0 10 0\n}\n}\n}\nMOTION\nFrames: 2\nFrame Time: 0.1\n"
            "1 0 0 0 0 90 0 90 0 0 0 0\n1 0 0 0 0 90 0 90 5 0 0 0\n")
    clip = read_bvh(text, "x")
    assert clip.joints == ["Hips"]
    np.testing.assert_allclose(clip.root, [[1, 90, 0], [6, 90, 0]], atol=1e-9)
    assert R.angle(clip.rotations[1, 0], R.yaw(np.pi / 2)) < 1e-9


def test_zero_length_joints_equal_names_and_odd_layout_are_read():
    text = ("\n  hierarchy\r\nROOT a b\r\n{ OFFSET 0 0 0\r\nCHANNELS 3 xrotation yrotation zrotation\r\nJOINT c {\nOFFSET 0 0 0\n"
            "JOINT c\n{\nOFFSET 0 1 0\nCHANNELS 1 Zrotation\nEnd Site\n{ OFFSET 0 1 0 }\n}\n}\n}\nMOTION\nFrames:\t1\n"
            "Frame Time:\t0.01\n1e1 0 0 90\n")
    clip = read_bvh(text.replace("{ OFFSET 0 0 0", "{\nOFFSET 0 0 0").replace("{ OFFSET 0 1 0 }", "{\nOFFSET 0 1 0\n}"), "x")
    assert clip.joints == ["a b", "c", "c.2"] and clip.fps == pytest.approx(100)
    assert R.angle(clip.rotations[0, 0], R.about("X", np.radians(10.0))) < 1e-9


@pytest.mark.parametrize("text,says", [
    ("", "empty"),
    ("   \n\n", "empty"),
    ("Hello world\n", "HIERARCHY"),
    (bvh()[:200], "MOTION"),
    (bvh()[:bvh().index("MOTION") + 7], "Frames"),
    (bvh().replace("Frame Time: 0.033333", "Frame Time: 0"), "frame time"),
    (bvh().replace("Frame Time: 0.033333", "Frame Time: nan"), "frame time"),
    (bvh().replace("Frame Time: 0.033333", "Frame Time: soon"), "number"),
    (bvh().replace("Frames: 8", "Frames: 0"), "at least one frame"),
    (bvh(frames=20), "cut short"),
    (bvh()[:-40], "line"),
    (bvh([row(0), row(1)[:-1], row(2)]), f"expected {COLUMNS} columns"),
    (bvh([row(0), row(1, c5=float("nan")), row(2)]), "frame 1"),
    (bvh([row(0), row(1, c5=float("inf"))]), "infinity"),
    (bvh().replace("94", "ninety"), "ninety"),
    (bvh().replace("CHANNELS 1 Yrotation", "CHANNELS 2 Yrotation"), "CHANNELS".lower()),
    (bvh().replace("ROOT Hips", "ROOT Hips\n{\n}\nROOT Hips"), "second"),
], ids=["empty", "blank", "garbage", "cut-hierarchy", "cut-motion", "0-fps", "nan-fps", "text-fps", "no-frames", "missing-frames",
        "cut-row", "columns", "nan", "inf", "word", "channels", "two-roots"])
def test_damaged_files_say_what_is_wrong(tmp_path, text, says):
    with pytest.raises(RtInteractError) as caught:
        read_motion(write(tmp_path / "bad.bvh", text))
    assert says in str(caught.value).lower() or says in str(caught.value)
    assert "bad.bvh" in str(caught.value)


def test_a_wrong_row_is_named_by_its_line(tmp_path):
    text = bvh([row(0), row(1)[:-1], row(2)])
    line = next(i for i, words in enumerate(text.splitlines(), 1) if len(words.split()) == COLUMNS - 1)
    with pytest.raises(MotionError, match=f"line {line}"):
        read_motion(write(tmp_path / "bad.bvh", text))


def test_rows_past_the_declared_frames_are_noted_not_fatal(tmp_path):
    m = read_motion(write(tmp_path / "a.bvh", bvh(frames=5)))
    assert len(m) == 5 and any("ignored" in n for n in m.notes)
