"""The solo corpus: reading, glitches, floor, split, cache."""

import logging

import numpy as np
import pytest
from motion_samples import amc, asf, bvh, row
from rtinteract.training import solo

from rtinteract.errors import MotionError
from rtinteract.motion import read_motion


def long_bvh(frames=240, jump_at=None):
    rows = []
    for f in range(frames):
        columns = row(f * 0.5)
        if jump_at is not None and f >= jump_at:
            columns[2] += 60.0
        rows.append(columns)
    return bvh(rows, frame_time="0.0083333")


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "slow_walk.bvh").write_text(long_bvh())
    (tmp_path / "jump.bvh").write_text(long_bvh(400, 200))
    (tmp_path / "broken.bvh").write_text("HIERARCHY\n")
    (tmp_path / "nan.bvh").write_text(bvh([row(0), row(1, c5=float("nan"))]))
    (tmp_path / "02.asf").write_text(asf())
    (tmp_path / "13_05.amc").write_text(amc(frames=150))
    return tmp_path


def test_any_folder_is_read_and_bad_files_are_named_and_counted(corpus, caplog):
    with caplog.at_level(logging.INFO):
        clips = {c.name: c for c in solo.load_corpus(corpus)}
    assert set(clips) == {"sub/slow_walk.bvh", "jump.bvh#0", "jump.bvh#1", "13_05.amc"}
    assert "broken.bvh" in caplog.text and "nan.bvh" in caplog.text and "2 of 5 files skipped" in caplog.text
    assert clips["sub/slow_walk.bvh"].text == "slow walk"
    assert any("stands in" in n for n in clips["13_05.amc"].motion.notes)
    assert clips["jump.bvh#0"].trial == clips["jump.bvh#1"].trial
    for c in clips.values():
        assert c.motion.fps == 30 and len(c.motion.skeleton) == 22
        assert 0 < np.percentile(c.motion.positions[:, [10, 11], 1].min(1), 5) < 0.05


def test_a_jump_is_cut_out_with_its_edges(corpus):
    m = read_motion(corpus / "jump.bvh")
    assert np.flatnonzero(solo.glitches(m)).size > 0
    parts = solo.clean_parts(m)
    assert len(parts) == 2 and all(not solo.glitches(p).any() for p in parts)
    assert 380 <= sum(len(p) for p in parts) < 400


def test_the_cache_gives_the_same_and_notices_change(corpus, tmp_path):
    first = solo.load_corpus(corpus, tmp_path / "cache")
    again = solo.load_corpus(corpus, tmp_path / "cache")
    assert [(c.name, c.text, c.trial, c.split) for c in first] == [(c.name, c.text, c.trial, c.split) for c in again]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a.motion.positions, b.motion.positions, atol=1e-12)
    kept = next((tmp_path / "cache").glob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(solo.load_corpus(corpus, tmp_path / "cache")) == len(first)
    (corpus / "sub" / "slow_walk.bvh").unlink()
    assert len(solo.load_corpus(corpus, tmp_path / "cache")) == len(first) - 1


def test_a_folder_without_motion_is_an_error(tmp_path):
    with pytest.raises(MotionError, match="index.csv"):
        solo.load_corpus(tmp_path)
    with pytest.raises(MotionError, match="folder"):
        solo.load_corpus(tmp_path / "none")
    (tmp_path / "a.bvh").write_text("junk")
    with pytest.raises(MotionError, match="a.bvh"):
        solo.load_corpus(tmp_path)


def test_both_copies_of_a_trial_are_on_one_side():
    keys = ["02_01", "11_01", "12_01", "02_04", "walking/train_walking_1", "soccer/test_soccer_1", "soccer/train_soccer_1",
            "walking_extra/train_walking_19", *(f"walking_extra/test_walking_{k}" for k in range(6, 24))]
    side = solo.splits(keys)
    assert side["02_01"] == side["walking/train_walking_1"] == "train"
    assert side["11_01"] == side["soccer/test_soccer_1"] == "test"
    assert side["12_01"] == side["walking_extra/train_walking_19"] == "train"
    assert side["02_04"] == "test" and side["soccer/train_soccer_1"] == "train"
    assert solo.splits(keys[::-1]) == side


def test_the_shared_corpus_is_clean(shared, tmp_path):
    whole = shared / "mocap" / "cmu-solo"
    for folder in ("amc", "asf", "bvh", "expmap"):
        (tmp_path / folder).symlink_to(whole / folder)
    lines = (whole / "index.csv").read_text().splitlines()
    # Nine long clips of steady capture are left out for time.
    lines = [line for line in lines if not line.startswith(("amc/13", "amc/14", "amc/60", "expmap/basketball_signal"))]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    clips = solo.load_corpus(tmp_path)
    test = [c for c in clips if c.split == "test"]
    assert 12 <= len(test) <= 20 and len(clips) > 95
    assert not {c.trial for c in test} & {c.trial for c in clips if c.split == "train"}
    for c in clips:
        speed = np.linalg.norm(np.diff(c.motion.positions, axis=0), axis=-1) * 30
        assert speed[:, 0].max() < 6.0 and speed.max() < 16.0, c.name
        assert abs(np.percentile(c.motion.positions[:, [10, 11], 1].min(1), 5) - 0.025) < 0.03, c.name
