"""Pictures: what is in them, how fast they are made, and mistakes."""

import shutil
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from synthetic import meeting, walker

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.motion import picture
from rtinteract.motion.draw import PEOPLE, Scene, shade
from rtinteract.motion.picture import write_picture, write_sheet
from rtinteract.motion.types import Motion
from rtinteract.skeleton import Skeleton


def near(image, colour, tolerance=6):
    """Count of pixels of about one colour."""
    return int((np.abs(np.asarray(image.convert("RGB")).astype(int) - colour).max(-1) <= tolerance).sum())


def test_contact_sheet_shows_both_people_and_both_sides(tmp_path):
    write_picture(tmp_path / "a.png", meeting(2.0), title="meeting", names=("actor", "reactor"))
    image = Image.open(tmp_path / "a.png")
    assert image.format == "PNG" and image.width > 1400
    for colour in PEOPLE[:2]:
        assert near(image, colour) > 500 and near(image, shade(colour, 0.55)) > 500
    assert near(image, PEOPLE[2]) == 0


def test_frames_choose_the_panels(tmp_path):
    sizes = []
    for frames in (4, [0, 5, 59, 30], 1):
        write_picture(tmp_path / "a.png", walker(), frames=frames)
        sizes.append(Image.open(tmp_path / "a.png").size)
    assert sizes[0] == sizes[1] and sizes[2][0] < sizes[0][0] / 3


@pytest.mark.alone
def test_gif_plays_at_the_clip_s_speed_and_is_fast(tmp_path):
    start = time.process_time()
    write_picture(tmp_path / "a.gif", meeting(4.0))
    assert time.process_time() - start < 6
    image = Image.open(tmp_path / "a.gif")
    total = 0
    for page in range(image.n_frames):
        image.seek(page)
        total += image.info["duration"]
    assert image.info["loop"] == 0 and image.n_frames > 60 and total == pytest.approx(4000, abs=100)
    first, last = (np.asarray((image.seek(k), image.convert("RGB"))[1]).astype(int) for k in (0, image.n_frames - 1))
    assert (np.abs(first - last).max(-1) > 40).mean() > 0.01


def test_everyone_stays_in_the_frame_all_along():
    people = meeting(3.0, gap=5.0)
    scene = Scene(people, 4 / 3)
    for frame in range(0, scene.frames, 10):
        for points in (scene.start[frame], scene.end[frame]):
            xy, depth, _ = scene.camera.project(points, (640, 480), scene.shift[frame])
            assert (xy > 0).all() and (xy < [640, 480]).all() and (depth > 0.5).all()
    first, second = (scene.camera.project(m.root[0], (640, 480))[0] for m in people)
    assert first[0] < second[0] - 100


def test_the_camera_follows_a_long_walk():
    scene = Scene([walker(8.0, speed=2.0)], 1.0)
    assert np.ptp(scene.shift[:, 2]) > 10
    heights = []
    for frame in (0, 120, 239):
        xy, _, _ = scene.camera.project(scene.end[frame], (100, 100), scene.shift[frame])
        heights.append(np.ptp(xy[:, 1]))
        assert (xy > 0).all() and (xy < 100).all()
    assert min(heights) > 45


def test_any_skeleton_any_rate_any_length(tmp_path):
    toy = Skeleton("toy", ("a", "b", "c"), (-1, 0, 1), np.array([[0, 0, 0], [0, 0.9, 0], [0, 0, 0]]), {2: np.array([0, 0.3, 0])})
    stick = Motion.from_rotations(toy, np.zeros((1, 3)), R.identity((1, 3)), 30)
    dot = Motion.from_rotations(Skeleton("dot", ("a",), (-1,), np.zeros((1, 3))), np.zeros((3, 3)), R.identity((3, 1)), 30)
    for name, motions in {"stick.png": stick, "stick.gif": stick, "both.png": (stick, walker(0.5)), "dot.png": (dot, walker(0.5)),
                          "lone.png": dot, "rates.png": (walker(1.0), walker(1.0, fps=60))}.items():
        write_picture(tmp_path / name, motions)
        assert Image.open(tmp_path / name).width > 0


def test_sheet_of_twenty_clips(tmp_path):
    pairs = [meeting(1.0, gap=1 + i / 10) for i in range(18)] + [walker(1.0), meeting(1.0)]
    write_sheet(tmp_path / "s.png", pairs, titles=[f"clip {i}" for i in range(20)])
    image = Image.open(tmp_path / "s.png")
    cell = np.array(image.size) // (5, 4)
    for i in range(20):
        x, y = i % 5 * cell[0], i // 5 * cell[1]
        assert near(image.crop((x, y, x + cell[0], y + cell[1])), PEOPLE[0], 25) > 60


@pytest.mark.skipif(shutil.which("ffmpeg") is None and find_spec("imageio_ffmpeg") is None, reason="needs ffmpeg")
def test_mp4(tmp_path):
    write_picture(tmp_path / "a.mp4", walker(1.0))
    assert b"ftyp" in (tmp_path / "a.mp4").read_bytes()[:16]


def test_a_failing_ffmpeg_is_quoted(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(picture, "_ffmpeg", lambda: str(fake))
    with pytest.raises(RtInteractError, match="no such codec"):
        write_picture(tmp_path / "a.mp4", walker(0.5))
    assert [f.name for f in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_gif_of_two_minutes_is_refused(tmp_path):
    with pytest.raises(MotionError, match="at most 1200 pages"):
        write_picture(tmp_path / "a.gif", walker(120, fps=30))


def test_mp4_without_ffmpeg_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(picture.shutil, "which", lambda _: None)
    with pytest.raises(RtInteractError, match="pip install imageio-ffmpeg"):
        write_picture(tmp_path / "a.mp4", walker(0.5))
    assert list(tmp_path.iterdir()) == []


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RtInteractError, match=r"pip install rtinteract\[view\]"):
        write_picture(tmp_path / "a.png", walker(0.5))


@pytest.mark.parametrize(("path", "options", "what"), [
    ("a.jpg", {}, "ends in .png, .gif or .mp4"), ("none/a.png", {}, "existing folder"), ("a.png", {"frames": [99]}, "0 to 14"),
    ("a.png", {"frames": 0}, "at least one frame"), ("a.png", {"names": ["x", "y"]}, "1 names"),
])
def test_mistakes_are_named(tmp_path, path, options, what):
    with pytest.raises(MotionError, match=what):
        write_picture(tmp_path / path, walker(0.5), **options)
    assert list(tmp_path.iterdir()) == []


def test_nan_leaves_the_old_picture(tmp_path):
    broken = walker(0.5)
    broken.positions[4] = np.nan
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(MotionError, match="frame 4"):
        write_picture(tmp_path / "a.png", broken)
    with pytest.raises(MotionError, match="one Motion or several"):
        write_picture(tmp_path / "a.png", ["a.bvh"])
    with pytest.raises(MotionError, match="title for each"):
        write_sheet(tmp_path / "s.png", [walker(0.5)], titles=[])
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"
