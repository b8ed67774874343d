"""The memory-mapped cache: the same clips, built once, resumed after a kill, rebuilt after a change, damage noticed."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dataset_files import interhuman_array, pair, write_interhuman
from rtinteract.training import shards
from rtinteract.training.dataset_interhuman import InterHumanSource
from rtinteract.training.datasets import load_two_person
from rtinteract.training.shards import StoredPairs, built

from rtinteract.errors import MotionError

NAMES = tuple(str(i) for i in range(1, 8))


@pytest.fixture
def data(tmp_path):
    write_interhuman(tmp_path / "data", NAMES, frames=40)
    return tmp_path / "data"


class Counted(InterHumanSource):
    """Counts what it reads, and stops the process's work after ``most`` reads."""

    def __init__(self, folder, most=10 ** 6):
        super().__init__(folder)
        self.most, self.taken = most, []

    def read(self, name):
        if len(self.taken) == self.most:
            raise KeyboardInterrupt
        self.taken.append(name)
        return super().read(name)


def same(a: StoredPairs, b: StoredPairs):
    assert len(a) == len(b) > 0 and a.problems == b.problems
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x.root, y.root) and np.array_equal(x.rotations, y.rotations) and (x.offsets == y.offsets).all()
        assert (x.kind, x.texts, x.fps, x.meta) == (y.kind, y.texts, y.fps, y.meta)


def test_a_cache_gives_what_reading_gives_and_reads_once(data, tmp_path):
    names = InterHumanSource(data).splits()["train"]
    os.remove(data / "annots" / "2.txt")
    source = Counted(data)
    first = built(tmp_path / "cache" / "x", source, "train", names)
    again = built(tmp_path / "cache" / "x", source, "train", names)
    assert source.taken == names and isinstance(again.root, np.memmap)
    same(first, load_two_person(data))
    same(again, first)
    assert again.problems == {"2": ["no annotation", "no annotation"]}
    same(again[1:3], StoredPairs(first.root[first.starts[1]:first.starts[3]], first.rotations[first.starts[1]:first.starts[3]],
                                 first.offsets[1:3], first.facts[1:3], first.problems))
    assert len(again[-2:]) == 2 and len(again[3:1]) == 0 and len(again[-1]) == again.lengths[-1]
    with pytest.raises(ValueError, match="step 1"):
        again[::2]


@pytest.mark.parametrize("cut", ["clean", "frames beyond the journal", "half a line", "half a line of a multibyte text"])
def test_a_killed_build_goes_on(data, tmp_path, cut):
    names = InterHumanSource(data).splits()["train"]
    np.save(data / "motions_processed" / "person1" / "2.npy", np.full((30, 492), np.nan))
    (data / "annots" / "1.txt").write_text("pas à pas\n", encoding="utf-8")
    whole = built(tmp_path / "whole" / "x", InterHumanSource(data), "train", names)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "cut" / "x", Counted(data, most=4), "train", names)
    part = tmp_path / "cut" / "x.part"
    assert not (tmp_path / "cut" / "x").exists()
    if cut == "frames beyond the journal":
        with open(part / "rotations.f32", "ab") as file:
            file.write(b"\1" * 1000)
    elif cut.startswith("half"):
        lines = (part / "journal.jsonl").read_bytes().splitlines(keepends=True)
        short = lines[-1][:len(lines[-1]) // 2] if cut == "half a line" else lines[-1] + b'{"fact": {"name": "\xc3'
        (part / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + short)
    source = Counted(data)
    resumed = built(tmp_path / "cut" / "x", source, "train", names)
    assert source.taken == (names[3:] if cut == "half a line" else names[4:])
    assert not part.exists() and resumed.problems["2"][0] == "broken"
    same(resumed, whole)


def test_a_changed_data_set_is_read_again(data, tmp_path, caplog):
    names = InterHumanSource(data).splits()["train"]
    built(tmp_path / "x", InterHumanSource(data), "train", names)
    np.save(data / "motions_processed" / "person2" / "1.npy", interhuman_array(pair(50)[1]))
    source = Counted(data)
    with caplog.at_level(logging.WARNING):
        changed = built(tmp_path / "x", source, "train", names)
    assert "has changed" in caplog.text and source.taken == names
    same(changed, load_two_person(data))
    # A build that was cut short before the change is of no use after it.
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "y", Counted(data, most=2), "train", names)
    (data / "annots" / "1.txt").write_text("something else\n")
    source = Counted(data)
    same(built(tmp_path / "y", source, "train", names), load_two_person(data))
    assert source.taken == names


def test_ranks_that_ask_at_once_build_once(data, tmp_path):
    names = InterHumanSource(data).splits()["train"]
    sources = [Counted(data) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda source: built(tmp_path / "x", source, "train", names), sources))
    assert sorted(len(s.taken) for s in sources) == [0, 0, len(names)]
    same(found[0], found[1])
    same(found[1], found[2])


def test_a_cache_does_not_depend_on_how_the_folder_was_written(data, tmp_path, monkeypatch):
    load_two_person(data, cache=tmp_path / "cache")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.f32")}
    monkeypatch.chdir(tmp_path)
    load_two_person("data", cache="cache")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.f32")} == kept and len(kept) == 3


def test_an_unfinished_cache_that_lost_frames_says_what_to_delete(data, tmp_path):
    names = InterHumanSource(data).splits()["train"]
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "x", Counted(data, most=3), "train", names)
    os.truncate(tmp_path / "x.part" / "root.f32", 100)
    with pytest.raises(MotionError, match="of an unfinished cache, got 100; delete the folder"):
        built(tmp_path / "x", InterHumanSource(data), "train", names)


def test_damage_is_found_and_says_what_to_delete(data, tmp_path):
    names = InterHumanSource(data).splits()["train"]

    def stored():
        return built(tmp_path / "x", InterHumanSource(data), "train", names)

    stored()
    path = tmp_path / "x" / "rotations.f32"
    good = path.read_bytes()
    path.write_bytes(good[:-8] + b"damaged!")
    with pytest.raises(MotionError, match="clip 5 with checksum.*delete the folder"):
        stored()
    path.write_bytes(good[:-8])
    with pytest.raises(MotionError, match="bytes, got .*delete the folder"):
        stored()
    (tmp_path / "x" / "index.json").write_text("{")
    with pytest.raises(MotionError, match="index.json.*delete the folder"):
        stored()
    (tmp_path / "x" / "index.json").write_text('{"shards": []}')
    with pytest.raises(MotionError, match="choose another --cache"):
        stored()
    assert path.exists()


def test_a_full_disk_is_told_and_leaves_what_was_there(data, tmp_path, monkeypatch):
    names = InterHumanSource(data).splits()["train"]
    kept = built(tmp_path / "x", InterHumanSource(data), "train", names)
    (data / "annots" / "1.txt").write_text("changed\n")
    add = shards._Build.add

    def full(build, read):
        if read.name == names[2]:
            raise OSError(28, "No space left on device")
        add(build, read)

    monkeypatch.setattr(shards._Build, "add", full)
    with pytest.raises(MotionError, match="No space left.*free the disk"):
        built(tmp_path / "x", InterHumanSource(data), "train", names)
    same(shards.opened(tmp_path / "x"), kept)
    monkeypatch.undo()
    same(built(tmp_path / "x", InterHumanSource(data), "train", names), load_two_person(data))


def test_every_clip_unusable_is_told_with_a_cache_too(data, tmp_path):
    for name in NAMES:
        np.save(data / "motions_processed" / "person1" / f"{name}.npy", np.zeros((3, 492)))
    with pytest.raises(MotionError, match="no clip of split 'train' can be used.*too short: 5"):
        load_two_person(data, cache=tmp_path / "cache")
