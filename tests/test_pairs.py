"""The record of a composed clip and its folder format."""

import numpy as np
import pytest
from rtinteract.training.pairs import PALM_M, Contact, PairClip, load_pairs, save_pairs

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.skeleton import SMPL22


def two_tposes(frames=40, apart=1.2, seed=0):
    """Two T-poses side by side; their touching hands are ``apart`` minus two arm spans and palms away."""
    root = np.zeros((2, frames, 3), np.float32)
    root[1, :, 0] = apart
    root[..., 1] = 0.9
    rotations = R.identity((2, frames, 22)).astype(np.float32)
    offsets = np.stack([SMPL22.offsets, 0.9 * SMPL22.offsets]).astype(np.float32)
    return PairClip(root, rotations, offsets, "wave", ("a", "b"), (Contact(20, 21, 3, 9, 0.01),), 30.0, seed, {"delay_s": 0.25})


def test_touching_points_are_palms_and_error_counts_the_gap():
    span = float(SMPL22.offsets[[13, 16, 18, 20], 0].sum())
    clip = two_tposes(apart=span + 0.9 * span + 2 * PALM_M)
    a, b = clip.touching_points(clip.contacts[0])
    assert a[:, 0] == pytest.approx(span + PALM_M, abs=1e-6)
    assert np.abs(a[:, 0] - b[:, 0]).max() < 1e-6
    lift = abs(float((SMPL22.offsets[[3, 6, 9, 13, 16]] * 0.1).sum(0)[1]))
    sway = abs(float((SMPL22.offsets[[3, 6, 9, 13, 16]] * 0.1).sum(0)[2]))
    assert clip.contact_error(clip.contacts[0]) == pytest.approx(abs(np.hypot(lift, sway) - 0.01), abs=1e-5)
    assert len(clip.contact_error(clip.contacts[0])) == 6


def test_motions_have_each_body(tmp_path):
    first, second = two_tposes().motions()
    assert first.fps == 30 and len(first) == 40
    assert second.skeleton.offsets[4] == pytest.approx(0.9 * first.skeleton.offsets[4], abs=1e-6)


def test_round_trip_keeps_everything(tmp_path):
    clips = [two_tposes(frames=30 + i, seed=i) for i in range(5)]
    save_pairs(tmp_path, clips, shard_size=2)
    again = load_pairs(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "pairs-00000.npz", "pairs-00001.npz", "pairs-00002.npz"]
    assert [len(c) for c in again] == [30, 31, 32, 33, 34]
    for a, b in zip(clips, again, strict=True):
        assert (a.root == b.root).all() and (a.rotations == b.rotations).all() and (a.offsets == b.offsets).all()
        assert (a.kind, a.texts, a.contacts, a.seed, a.meta) == (b.kind, b.texts, b.contacts, b.seed, b.meta)
        assert b.root.dtype == np.float32


def test_wrong_shapes_and_damaged_folders_say_what_to_do(tmp_path):
    good = two_tposes()
    with pytest.raises(MotionError, match="expected root"):
        PairClip(good.root[:, :5], good.rotations, good.offsets, "wave", ("a",))
    with pytest.raises(MotionError, match="index.json"):
        load_pairs(tmp_path)
    save_pairs(tmp_path, [good])
    (tmp_path / "pairs-00000.npz").write_bytes(b"cut short")
    with pytest.raises(MotionError, match="compose again"):
        load_pairs(tmp_path)
    (tmp_path / "index.json").write_text('{"format_version": 99, "shards": []}')
    with pytest.raises(MotionError, match="format_version"):
        load_pairs(tmp_path)
