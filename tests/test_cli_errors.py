"""Bad input at the command line: one clear line on stderr, exit code 1, no traceback, nothing half-written."""

import importlib.util
import json
import os
import sys

import pytest
from command_line import here, script
from motion_samples import BVH, bvh, row
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOOD = bvh([row(f * 0.5) for f in range(12)])
BAD_BVH = {
    "empty": ("", "empty"),
    "cut in the hierarchy": (BVH[:400], "expected"),
    "cut in the motion": (GOOD[:-200], "expected"),
    "garbage": ("\x01\x02 not a motion {{{ 12 34", "expected"),
    "NaN": (bvh([row(0), row(1, c4=float("nan")), row(2)]), "frame"),
    "0 fps": (bvh(frame_time="0"), "frame"),
    "unknown skeleton": (GOOD.replace("Leg", "Limb").replace("Arm", "Wing").replace("Hips", "Core"), "joint"),
}


@pytest.fixture
def clip(tmp_path):
    """A good clip in a folder of its own."""
    (tmp_path / "good.bvh").write_text(GOOD)
    return tmp_path / "good.bvh"


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Runs a command that must fail as promised; returns the line that it said."""
    def run(*args):
        before = sorted(tmp_path.rglob("*"))
        done = here(monkeypatch, capsys, *args)
        lines = done.err.strip().splitlines()
        assert done.code == 1 and lines and lines[-1].startswith("error: ") and "Traceback" not in done.err, done
        assert sum(line.startswith("error: ") for line in lines) == 1
        assert sorted(tmp_path.rglob("*")) == before
        return lines[-1]
    return run


@pytest.mark.parametrize("name", BAD_BVH)
def test_a_bad_bvh(name, tmp_path, fails, small_model_path):
    text, said = BAD_BVH[name]
    (tmp_path / "bad.bvh").write_text(text)
    line = fails("react", tmp_path / "bad.bvh", "-m", small_model_path, "--out", tmp_path / "out.glb")
    assert "bad" in line and said in line


def test_the_process_itself_fails_in_one_line(tmp_path):
    (tmp_path / "bad.bvh").write_text("")
    done = script("react", "bad.bvh", cwd=tmp_path)
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1 and done.err.startswith("error: bad.bvh")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.bvh"]


def test_missing_files_and_places_that_cannot_be_written(clip, fails, small_model_path):
    model = ("-m", small_model_path)
    assert "no such file" in fails("react", clip.with_name("none.bvh"), *model, "--out", clip.with_name("a.glb"))
    assert "no such file" in fails("view", clip.with_name("none.bvh"), "--out", clip.with_name("a.png"))
    assert "make it first" in fails("react", clip, *model, "--out", clip.parent / "none" / "a.glb")
    assert "make it first" in fails("generate", "wave", *model, "--out", clip.parent / "none" / "a.npz")
    assert "rename it" in fails("react", clip, *model, "--out", clip.with_name("a.glb"), "--out", clip.with_name("a.fbx"))
    (clip.parent / "folder.glb").mkdir()
    assert "got a folder" in fails("react", clip, *model, "--out", clip.parent / "folder.glb")
    assert "is read" in fails("react", clip, *model, "--out", clip)
    assert "motion file" in fails("react", clip, "-m", clip, "--out", clip.with_name("a.glb"))
    assert "make it first" in fails("import-intermask", "--codec", clip, "--transformer", clip, "--out", clip.parent / "x" / "m")
    line = fails("import-intermask", "--codec", clip, "--transformer", clip, "--out", clip.with_name("m"))
    assert "torch checkpoint" in line and "arbitrary" not in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights(clip, fails, small_model_path):
    folder = clip.parent / "locked"
    folder.mkdir(mode=0o500)
    assert "rights" in fails("react", clip, "-m", small_model_path, "--out", folder / "a.glb")


def test_bad_models(clip, fails, small_model_path):
    def react(path):
        return fails("react", clip, "-m", path, "--out", clip.with_name("a.glb"))

    path = clip.with_name("model.safetensors")
    assert "expected a .safetensors file" in react(path)
    path.write_bytes(small_model_path.read_bytes()[:-1000])
    assert "cut short" in react(path)
    path.write_text("this is a text file, not weights")
    assert ".safetensors" in react(path)
    with safe_open(small_model_path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(small_model_path), path, metadata=metadata | {"format_version": "99"})
    assert "newer" in react(path) and "99" in react(path)


def test_bad_settings(clip, fails, small_model_path):
    model, out = ("-m", small_model_path), ("--out", clip.with_name("a.npz"))
    assert "units" in fails("react", clip, *model, *out, "--units", "furlong")
    assert "device" in fails("react", clip, *model, *out, "--device", "abacus")
    assert "iterations" in fails("react", clip, *model, *out, "--iterations", 0)
    assert "seconds" in fails("generate", "wave", *model, *out, "--seconds", 0)
    assert "hop" in fails("stream", clip, *model, *out, "--fast", "--hop", 3)
    assert "together" in fails("evaluate", *model, "--actor", clip)
    assert "folder" in fails("data", "inspect", clip.parent / "none")
    config = clip.with_name("config.json")
    for text, said in (("{", "JSON"), ("[]", "object"), ('{"codec": {"wdith": 3}}', "wdith")):
        config.write_text(text)
        assert said in fails("train", "codec", "--mocap", clip.parent, "--out", clip.parent / "run", "--config", config)


def test_a_missing_extra_is_named(clip, fails, monkeypatch, small_model_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in ("pygltflib", "PIL") else find(name, *a))
    assert "rtinteract[demo]" in fails("react", clip, "-m", small_model_path, "--out", clip.with_name("a.glb"))
    assert "rtinteract[view]" in fails("view", clip, "--out", clip.with_name("a.png"))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delitem(sys.modules, "rtinteract.training.solo", raising=False)
    assert "rtinteract[train]" in fails("data", "inspect", clip.parent)


@pytest.mark.parametrize("name, text, said", [
    ("one frame", bvh([row(0)]), "1 frames"),
    ("10 kHz", bvh([row(f * 0.01) for f in range(400)], frame_time="0.0001"), "10000 fps"),
    ("metres", bvh([row(f * 0.5, 0.01) for f in range(9)], scale=0.01), "units: m assumed"),
    ("inches", bvh([row(f * 0.5, 1 / 2.54) for f in range(9)], scale=1 / 2.54), "units: inch assumed")])
def test_odd_clips_work_and_what_was_assumed_is_said(name, text, said, tmp_path, small_model_path, monkeypatch, capsys):
    (tmp_path / "odd.bvh").write_text(text)
    done = here(monkeypatch, capsys, "react", tmp_path / "odd.bvh", "-m", small_model_path, "--iterations", 1, "--out",
                tmp_path / "out.npz")
    assert done.code == 0 and said in done.out and (tmp_path / "out.npz").is_file(), done


def test_a_very_long_text_warns_and_an_empty_one_means_none(tmp_path, small_model_path):
    done = script("generate", "they wave and wave " * 527, "", "-m", small_model_path, "--iterations", 1, "--seconds", 0.5,
                  "--out", "a.npz", cwd=tmp_path)
    assert done.code == 0 and done.err.startswith("warning: text of") and "cut to" in done.err, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-0.npz", "a-1.npz"]


def test_a_joint_map_names_an_unknown_skeleton(tmp_path, small_model_path, monkeypatch, capsys):
    text = GOOD
    for old, new in (("Leg", "Limb"), ("Arm", "Wing"), ("Hips", "Core")):
        text = text.replace(old, new)
    (tmp_path / "odd.bvh").write_text(text)
    pairs = {"pelvis": "Core", "spine1": "Spine", "neck": "Neck", "head": "Head"}
    for side, name in (("left", "Left"), ("right", "Right")):
        pairs |= {f"{side}_hip": f"{name}UpLimb", f"{side}_knee": f"{name}Limb", f"{side}_ankle": f"{name}Foot",
                  f"{side}_foot": f"{name}ToeBase", f"{side}_shoulder": f"{name}Wing", f"{side}_elbow": f"{name}ForeWing",
                  f"{side}_wrist": f"{name}Hand"}
    (tmp_path / "map.json").write_text(json.dumps(pairs))
    done = here(monkeypatch, capsys, "react", tmp_path / "odd.bvh", "--joint-map", tmp_path / "map.json", "-m", small_model_path,
                "--iterations", 1, "--out", tmp_path / "a.npz")
    assert done.code == 0, done.err
