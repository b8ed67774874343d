"""`rtinteract quantize`: the file, the report, and every kind of bad input."""

import json

import numpy as np
import pytest
from command_line import here, script
from synthetic import meeting, walker

import rtinteract
from rtinteract.cli.quantize import calibration_clips
from rtinteract.errors import ConfigError
from rtinteract.motion import write_motion


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_motion(folder / "alone.bvh", walker(1.0))
    write_motion(folder / "pair.npz", meeting(1.0))
    (folder / "notes.md").write_text("no clip")
    return folder


def test_it_writes_a_model_and_says_how_near_it_is(small_model_path, clips, tmp_path):
    done = script("quantize", small_model_path, "--precision", "int8", "--calibrate", clips, "--out", "small-int8.safetensors",
                  cwd=tmp_path)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "small-int8.json").read_text())
    model = rtinteract.load(tmp_path / "small-int8.safetensors", device="cpu")
    assert model.config.precision == "int8" and report["pairs"] == 2
    assert report["bytes"] == (tmp_path / "small-int8.safetensors").stat().st_size
    assert 0.9 < report["codes"]["top1"] <= 1 and np.isfinite(report["reaction"]["hands_difference_cm"])
    assert "codes top1" in done.out and "reconstruction difference_mm" in done.out


@pytest.mark.parametrize("arguments, message", [
    (("--calibrate", "absent"), "not there"), (("--calibrate", "empty"), "got none"),
    (("--calibrate", "clips", "--precision", "int4"), "int4"),
    (("--calibrate", "clips", "--out", "absent/m.safetensors"), "existing folder"),
    (("--calibrate", "clips", "--out", "model.safetensors"), "file that is read"),
])
def test_bad_input_is_one_line_and_writes_nothing(small_model_path, clips, tmp_path, arguments, message, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.safetensors").write_bytes(small_model_path.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    done = here(monkeypatch, capsys, "quantize", "model.safetensors", *arguments)
    assert done.code == 1 and message in done.err and len(done.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_clips_of_a_folder_are_read_one_or_two_people_each(clips):
    assert sorted(len(people) for people in calibration_clips(clips, 9)) == [1, 2]
    assert len(calibration_clips(clips, 1)) == 1
    with pytest.raises(ConfigError, match="a file"):
        calibration_clips(clips / "alone.bvh", 1)
