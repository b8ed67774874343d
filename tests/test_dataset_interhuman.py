"""InterHuman's published layout: what is read equals what the published preprocessing makes of the files."""

import logging
import os

import numpy as np
import pytest
import torch
from dataset_files import interhuman_array, pair, write_interhuman
from rtinteract.training.data import Pool
from rtinteract.training.dataset_interhuman import read_person
from rtinteract.training.datasets import detect, inspect_folder, load_held_out, load_two_person

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.features import base
from rtinteract.features.canonical import frame_of, to_frame
from rtinteract.features.interhuman import load_rows, process_pair, row_to_image
from rtinteract.skeleton import SMPL22, forward_kinematics


def test_a_person_comes_back_with_body_and_root(tmp_path):
    motion = pair(90, seed=2)[0]
    root, rotations, offsets = read_person(interhuman_array(motion))
    assert np.abs(root - motion.root).max() < 1e-5
    assert np.abs(offsets - motion.skeleton.offsets).max() < 1e-4
    assert R.angle(rotations, motion.rotations).max() < 1e-3
    assert np.abs(forward_kinematics(SMPL22, root, rotations, offsets=offsets) - motion.positions).max() < 1e-4


def test_a_body_that_never_moves_still_stands_where_the_file_says():
    still = pair(30)[0][5:6]
    still = still.moved(translation=(0, -still.positions[..., 1].min(), 0))
    array = np.repeat(interhuman_array(still), 20, axis=0)
    root, rotations, offsets = read_person(array)
    assert np.abs(forward_kinematics(SMPL22, root, rotations, offsets=offsets) - still.positions).max() < 1e-5


def test_clips_encode_to_what_the_published_preprocessing_gives(tmp_path):
    write_interhuman(tmp_path)
    clips = load_two_person(tmp_path)
    assert [c.meta["name"] for c in clips] == ["1", "2"] and [len(c) for c in clips] == [90, 100]
    representation = base.get("interhuman")
    for clip in clips:
        files = [np.load(tmp_path / "motions_processed" / f"person{k}" / f"{clip.meta['name']}.npy") for k in (1, 2)]
        rows = process_pair(*(load_rows(f) for f in files))[:2]
        places, turns = (torch.stack([torch.tensor(getattr(m, what), dtype=torch.float32) for m in clip.motions()])
                         for what in ("positions", "rotations"))
        image = representation.encode(*to_frame(frame_of(places[0, 0]), places, turns))
        for p in range(2):
            assert torch.abs(image[p] - row_to_image(torch.as_tensor(rows[p]))).max() < 2e-4


def test_splits_texts_and_the_ignore_list(tmp_path):
    write_interhuman(tmp_path, names=("1", "2", "3", "4", "5"))
    (tmp_path / "split" / "ignore_list.txt").write_text("2\n")
    assert detect(tmp_path) == "interhuman"
    train = load_two_person(tmp_path)
    assert [c.meta["name"] for c in train] == ["1", "3"]
    assert train[0].texts == ("two people meet on the left, 1", "they walk up to each other", "they meet")
    assert [c.meta["name"] for c in load_held_out(tmp_path)] == ["4"]
    assert [c.meta["name"] for c in load_two_person(tmp_path, split="test")] == ["5"]
    (tmp_path / "split" / "val.txt").write_text("")
    assert [c.meta["name"] for c in load_held_out(tmp_path)] == ["5"]
    with pytest.raises(MotionError, match=r"split 'val', got none; it has train \(2 clips\)"):
        load_two_person(tmp_path, split="val")


def broken_interhuman(folder):
    """One good train clip and one of each fault."""
    names = [str(i) for i in range(1, 12)]
    write_interhuman(folder, names=(*names, "12", "13"))
    motions = folder / "motions_processed"
    for name, frames in (("2", slice(None)), ("3", slice(0, 10))):
        array = np.load(motions / "person2" / f"{name}.npy")[frames]
        array[4, 7] = np.nan if name == "2" else array[4, 7]
        np.save(motions / "person2" / f"{name}.npy", array)
    np.save(motions / "person1" / "4.npy", np.zeros((60, 262), np.float32))
    os.remove(motions / "person2" / "5.npy")
    os.remove(folder / "annots" / "6.txt")
    (folder / "annots" / "7.txt").write_text("\n  \n")
    (motions / "person1" / "8.npy").write_bytes(b"cut short")
    np.save(motions / "person1" / "9.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    shifted = np.load(motions / "person1" / "10.npy")
    shifted[:, 186:312] = np.roll(shifted[:, 186:312], 12, axis=1)
    np.save(motions / "person1" / "10.npy", shifted)
    lines = (folder / "split" / "train.txt").read_text().split()
    lines.remove("11")
    (folder / "split" / "train.txt").write_text("\n".join([*lines, "99"]))


def test_faults_are_skipped_named_and_counted(tmp_path, caplog):
    broken_interhuman(tmp_path)
    with caplog.at_level(logging.INFO):
        clips = load_two_person(tmp_path)
    assert [c.meta["name"] for c in clips] == ["1", "6", "7"] and clips[1].texts == clips[2].texts == ()
    assert "7 of 10 skipped" in caplog.text and "NaN" in caplog.text
    report = inspect_folder(tmp_path)
    problems = {what: sorted(text.split(":")[0] for text in which) for what, which in report.problems.items()}
    assert problems == {
        "in no split": ["11"], "listed but absent": ["99 (train)"], "one person missing": ["5"], "too short": ["3"],
        "no annotation": ["6"], "annotation without lines": ["7"], "places and rotations disagree": ["10"],
        "broken": ["2", "4", "8", "9"]}
    assert "2: person 2: InterHuman clip: expected finite values" in "\n".join(report.problems["broken"])
    assert report.clips == {"train": 3, "val": 1, "test": 1}
    assert sum("broken: 4" in line for line in report.lines()) == 1


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    write_interhuman(tmp_path, names=("1", "2", "3"))
    np.save(tmp_path / "motions_processed" / "person1" / "1.npy", np.full((60, 492), np.nan))
    with pytest.raises(MotionError, match="no clip of split 'train' can be used.*NaN"):
        load_two_person(tmp_path)


def test_pools_read_stored_clips_without_a_copy(tmp_path):
    write_interhuman(tmp_path / "data")
    clips = load_two_person(tmp_path / "data", cache=tmp_path / "cache")
    plain, stored = Pool.of_pairs(list(clips)), Pool.of_pairs(clips)
    assert np.shares_memory(stored.root.numpy(), clips.root) and np.shares_memory(stored.rotations.numpy(), clips.rotations)
    which, times = torch.tensor([1, 0, 1]), torch.tensor([[0.0, 3.25, 99.0]] * 3)
    for a, b in ((plain, stored), (Pool.of_people(list(clips)), Pool.of_people(clips))):
        assert torch.equal(a.lengths, b.lengths) and a.people == b.people and torch.equal(a.offsets, b.offsets)
        for x, y in zip(a.poses(which, times), b.poses(which, times), strict=True):
            torch.testing.assert_close(x, y, atol=1e-6, rtol=0)
