"""Folders of motion files two by two, and which layout a folder is taken for."""

import logging
import shutil

import numpy as np
import pytest
from dataset_files import write_folder, write_table
from motion_samples import amc, asf
from rtinteract.training.datasets import detect, inspect_folder, load_held_out, load_two_person
from rtinteract.training.pairs import PairClip, save_pairs
from synthetic import meeting, walker

from rtinteract.errors import ConfigError, MotionError
from rtinteract.motion import read_motion, write_motion


def test_names_tell_the_pairs_and_both_stay_where_they_are(tmp_path):
    write_folder(tmp_path)
    assert detect(tmp_path) == "pairs"
    clips = load_two_person(tmp_path)
    assert [c.meta["name"] for c in clips] == ["hug", "walk"] and clips[1].texts == ("two people walk",)
    assert [len(c) for c in clips] == [75, 60] and clips[0].kind == "pairs"
    truth = [read_motion(tmp_path / f"walk.{letter}.bvh").to_model() for letter in "ab"]
    for motion, true in zip(clips[1].motions(), truth, strict=True):
        assert np.abs(motion.positions - true.positions).max() < 1e-4
    # Two people of one take keep their places to each other.
    apart = clips[1].root[1, 0] - clips[1].root[0, 0]
    assert np.abs(apart[[0, 2]] - [0.05, 2.4]).max() < 0.02


@pytest.mark.parametrize("first,second,name", [
    ("hug_1.bvh", "hug_2.bvh", "hug"), ("hug-a.bvh", "hug-b.bvh", "hug"), ("hug_p1.bvh", "hug_p2.bvh", "hug"),
    ("hug_person1.bvh", "hug_person2.bvh", "hug"), ("person1/hug.bvh", "person2/hug.bvh", "hug"),
    ("in/person1/hug.bvh", "in/person2/hug.bvh", "in/hug"), ("sub/hug.A.bvh", "sub/hug.B.bvh", "sub/hug"),
    ("18_04.bvh", "19_04.bvh", "18_04"), ("60_01.bvh", "61_01.bvh", "60_01")])
def test_each_way_of_naming(tmp_path, first, second, name):
    people = meeting()
    for motion, file in zip(people, (first, second), strict=True):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        write_motion(tmp_path / file, motion)
    clip, = load_two_person(tmp_path)
    assert clip.meta["name"] == name and clip.root[0, 0, 2] < 0 < clip.root[1, 0, 2]


def test_a_table_says_pairs_texts_and_splits(tmp_path):
    write_folder(tmp_path, ("walk", "hug", "bow"))
    write_table(tmp_path, [("walk.b.bvh", "walk.a.bvh", "they walk | two people meet", "train"),
                           ("hug.a.bvh", "hug.b.bvh", "", "train"), ("bow.a.bvh", "bow.b.bvh", "they bow", "test")])
    clips = load_two_person(tmp_path)
    assert [c.texts for c in clips] == [("they walk", "two people meet"), ()]
    assert clips[0].root[0, 0, 2] > clips[0].root[1, 0, 2]
    assert [c.texts for c in load_held_out(tmp_path)] == [("they bow",)]
    write_table(tmp_path, [("walk.b.bvh", "", "", "")])
    with pytest.raises(MotionError, match="pairs.csv, line 2.*first and second"):
        load_two_person(tmp_path)


def test_faults_are_named(tmp_path):
    write_folder(tmp_path, ("walk", "hug", "far", "short", "bad"))
    (tmp_path / "walk.txt").unlink()
    (tmp_path / "hug.txt").write_text("\n")
    write_motion(tmp_path / "far.b.bvh", walker(5.0))
    for letter in "ab":
        write_motion(tmp_path / f"short.{letter}.bvh", walker(0.3))
    (tmp_path / "bad.a.bvh").write_text("HIERARCHY\n")
    write_motion(tmp_path / "lonely.a.bvh", walker())
    write_motion(tmp_path / "nobody.bvh", walker())
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train.txt").write_text("walk\nhug\nshort\nbad\nfar\ngone\n")
    report = inspect_folder(tmp_path)
    assert {w: [x.split(":")[0] for x in which] for w, which in report.problems.items()} == {
        "listed but absent": ["gone (train)"], "without a partner": ["nobody.bvh"], "one person missing": ["lonely"],
        "no annotation": ["walk"], "annotation without lines": ["hug"], "lengths differ": ["far"], "too short": ["short"],
        "broken": ["bad"]}
    assert report.clips == {"train": 2}
    lines = "\n".join(report.lines())
    assert "pairs: 2 pairs" in lines and "lengths differ: 1 (far: expected two files of one take" in lines
    shutil.rmtree(tmp_path / "split")
    write_table(tmp_path, [("walk.a.bvh", "walk.b.bvh", "they walk", ""), ("hug.a.bvh", "gone.bvh", "", "")])
    assert inspect_folder(tmp_path).problems["one person missing"][0].startswith("hug.a: expected gone.bvh")


def test_acclaim_pairs_of_two_subjects(tmp_path, caplog):
    for subject in ("18", "19"):
        (tmp_path / f"{subject}.asf").write_text(asf())
        (tmp_path / f"{subject}_05.amc").write_text(amc(frames=150))
    with caplog.at_level(logging.INFO):
        clip, = load_two_person(tmp_path)
    assert len(clip) == 38 and "0 of 1 skipped" in caplog.text and "no annotation: 1 (18_05)" in caplog.text


def test_what_a_folder_is_taken_for(tmp_path):
    solo, composed, empty = (tmp_path / n for n in ("solo", "composed", "empty"))
    for folder in (solo, composed, empty):
        folder.mkdir()
    write_motion(solo / "walk.bvh", walker())
    for take in (1, 2):
        write_motion(solo / f"run_{take}.bvh", walker())
    for take in (1, 2, 3):
        write_motion(solo / f"jump_{take}.bvh", walker())
    first, second = meeting()
    clip = PairClip(*(np.stack([getattr(first, w), getattr(second, w)]) for w in ("root", "rotations")),
                    np.stack([first.skeleton.offsets] * 2), "wave", ("they wave",))
    save_pairs(composed, [clip])
    assert (detect(solo), detect(composed)) == ("solo", "composed")
    assert load_two_person(composed)[0].texts == ("they wave",) and load_held_out(composed) is None
    with pytest.raises(MotionError, match="got a folder of single ones.*data compose"):
        load_two_person(solo)
    # Two takes of a solo corpus may be named like two people: who knows better says so.
    assert len(load_two_person(solo, kind="pairs")) == 1
    for wrong in (empty, tmp_path / "none"):
        with pytest.raises(MotionError, match="check the path"):
            detect(wrong)
    with pytest.raises(ConfigError, match="expected one of auto"):
        load_two_person(solo, kind="mocap")


def test_the_real_pair(shared, tmp_path):
    files = sorted(p for p in (shared / "mocap").rglob("*") if p.name.split(".")[0] in ("18_01", "19_01", "18", "19"))
    if not any(p.name.startswith("18_01") for p in files):
        pytest.skip("the pair 18_01/19_01 is not here")
    for path in files:
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    clip = load_two_person(tmp_path)[0]
    assert clip.meta["name"] == "18_01" and np.linalg.norm((clip.root[0] - clip.root[1])[:, [0, 2]], axis=-1).min() < 1.5
