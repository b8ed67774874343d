"""Acclaim in: skeleton, axes, damage."""

import numpy as np
import pytest
from motion_samples import amc, asf

from rtinteract import rotation as R
from rtinteract.errors import MotionError, SkeletonError
from rtinteract.motion import read_motion

UNIT = 0.0254 / 0.45


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "07.asf").write_text(asf())
    (tmp_path / "07_01.amc").write_text(amc(ltibia="30", lowerback="10 20 30"))
    return tmp_path


def test_joints_stand_at_the_starts_of_bones_in_metres(folder):
    m = read_motion(folder / "07_01.amc")
    assert m.fps == 120 and len(m) == 6
    s = m.skeleton
    assert np.linalg.norm(s.offsets[s.index("ltibia")]) == pytest.approx(7.5 * UNIT, rel=1e-6)
    np.testing.assert_allclose(m.root[0], [0, 17 * UNIT, 0], atol=1e-12)


def test_values_turn_about_the_bones_axes(folder):
    m = read_motion(folder / "07_01.amc")
    axis = R.rotate(R.about("Z", np.radians(20.0)), np.array([1.0, 0, 0]))
    assert R.angle(m.rotations[0, m.skeleton.index("ltibia")], R.from_axis_angle(axis * np.radians(30))) < 1e-9
    # Rz Ry Rx of values listed rx ry rz.
    expected = R.from_euler(np.radians([30.0, 20.0, 10.0]), "ZYX")
    assert R.angle(m.rotations[0, m.skeleton.index("lowerback")], expected) < 1e-9


def test_a_knee_bends_backward_in_the_model(folder):
    m = read_motion(folder / "07_01.amc").to_model()
    hip, knee, ankle = m.positions[0, [1, 4, 7]]
    assert ankle[2] < knee[2] - 0.1
    assert np.degrees(R.angle(R.between(knee - hip, ankle - knee), R.identity(()))) == pytest.approx(30.0, abs=1e-3)


def test_the_skeleton_is_found_beside_or_in_an_asf_folder_or_given(folder, tmp_path):
    (folder / "asf").mkdir()
    (folder / "amc").mkdir()
    (folder / "07.asf").rename(folder / "asf" / "07.asf")
    (folder / "07_01.amc").rename(folder / "amc" / "07_01.amc")
    assert len(read_motion(folder / "amc" / "07_01.amc")) == 6
    (folder / "asf" / "07.asf").rename(folder / "other.asf")
    with pytest.raises(SkeletonError, match="07.asf"):
        read_motion(folder / "amc" / "07_01.amc")
    assert len(read_motion(folder / "amc" / "07_01.amc", skeleton=folder / "other.asf")) == 6


@pytest.mark.parametrize("text,says", [
    ("", "no|none"),
    ("hello there\n", "not an AMC"),
    (amc(ltibia="30 40"), "'ltibia' needs 1 columns.*got 2"),
    (amc(ltibia="nan"), "NaN"),
    (amc(ltibia="bent"), "bent"),
    (amc()[:-80], "no values for bone"),
])
def test_damaged_amc_says_what_is_wrong(folder, text, says):
    (folder / "07_02.amc").write_text(text)
    with pytest.raises(MotionError, match=says):
        read_motion(folder / "07_02.amc")


@pytest.mark.parametrize("text,says", [
    ("", "complete ASF"),
    (asf().replace(":hierarchy", ":hierarky"), "hierarchy"),
    (asf().replace("lowerback upperback", "lowerback upperbakc"), "upperbakc"),
    (asf().replace("length 0.45", "length 0"), "length unit"),
    (asf().replace("length 7.5", "length long"), "numbers"),
])
def test_damaged_asf_says_what_is_wrong(folder, text, says):
    (folder / "07.asf").write_text(text)
    with pytest.raises(SkeletonError, match=says):
        read_motion(folder / "07_01.amc")


def test_the_same_trial_in_two_formats_agrees(shared):
    solo = shared / "mocap" / "cmu-solo"
    a = read_motion(solo / "amc" / "02_01.amc.xz").to_model()
    b = read_motion(solo / "expmap" / "walking" / "train_walking_1.txt.xz").to_model()
    assert len(a) == len(b)
    gap = np.linalg.norm(a.positions - b.positions, axis=-1)
    # The conversion's pelvis is up to 0.8 degrees off, which feet magnify.
    assert np.median(gap, 0).max() < 0.008 and gap.max() < 0.016
    assert R.angle(a.rotations, b.rotations)[:, 1:].max() < np.radians(0.2)
