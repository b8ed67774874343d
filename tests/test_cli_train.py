"""From motion files to a model that reacts, each stage by its own command, in miniature."""

import json

import numpy as np
import pytest
from command_line import here
from rtinteract.training.pairs import Contact, PairClip, save_pairs
from synthetic import meeting, walker

import rtinteract
from rtinteract.motion import write_motion

LOOP = {"batch": 4, "warmup": 1, "precision": "float32", "threads": 1}
CODEC = {"codec": {"form": "image", "width": 16, "code_dim": 8, "codes": 64, "depth": 1, "quantizer": "fsq", "levels": [4, 4, 4]},
         "frames": 32, "shortest": 16, "longest": 32, "loop": LOOP}
TEXT = {"text": {"width": 32, "layers": 1, "heads": 2, "ff": 32, "vocabulary": 280, "max_tokens": 16}, "loop": LOOP}
TRANSFORMER = {"sizes": {"width": 32, "heads": 2, "layers": 1, "ff": 32}, "text": TEXT["text"], "loop": LOOP, "shortest": 32,
               "longest": 32, "long": 0.0, "most": 32, "validation_batches": 1}


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command that must succeed; returns what it printed."""
    def run(*args):
        done = here(monkeypatch, capsys, *args)
        assert done.code == 0, done
        return done.out
    return run


def make_data(folder):
    """A folder of self-made captures, one of pairs, and the stages' configurations."""
    (folder / "mocap").mkdir()
    for i in range(4):
        name = "test_walk" if i == 3 else f"walk_{i}"
        write_motion(folder / "mocap" / f"{name}.bvh", walker(2.0, speed=0.5 + 0.2 * i))
    clips = []
    for i in range(4):
        pair = meeting(2.0, 2.2 + 0.2 * i)
        clips.append(PairClip(*(np.stack(x).astype(np.float32) for x in zip(
            *((m.root, m.rotations, m.skeleton.offsets) for m in pair), strict=True)), "wave",
            ("two people walk up to each other", "they meet"), (Contact(21, 21, 40, 50),), seed=i, meta={"split": "test"}))
    save_pairs(folder / "pairs", clips)
    for name, values in (("codec", CODEC), ("text", TEXT), ("transformer", TRANSFORMER)):
        (folder / f"{name}.json").write_text(json.dumps(values))


def test_the_whole_way_from_files_to_a_reaction(tmp_path, command):
    make_data(tmp_path)
    mocap, pairs, model = tmp_path / "mocap", tmp_path / "pairs", tmp_path / "model.safetensors"
    said = command("data", "inspect", mocap)
    assert "train" in said and "3 clips" in said and "test" in said
    assert "4 pairs" in command("data", "inspect", pairs)
    stages = {}
    for stage, steps, given in (("codec", 3, ["--mocap", mocap, "--pairs", pairs]), ("text", 2, ["--pairs", pairs]),
                                ("transformer", 2, ["--pairs", pairs, "--held-out", pairs])):
        if stage == "transformer":
            given += ["--codec", stages["codec"], "--text", stages["text"]]
        given += ["--config", tmp_path / f"{stage}.json", "--out", tmp_path / stage, "--steps", steps]
        said = command("train", stage, *given)
        stages[stage] = tmp_path / stage / f"{stage}.safetensors"
        assert f"{steps} steps" in said and stages[stage].is_file()
    (tmp_path / "card.json").write_text('{"data": "self-made"}')
    said = command("train", "assemble", "--codec", stages["codec"], "--transformer", stages["transformer"], "--card",
                   tmp_path / "card.json", "--window", 64, "--out", model)
    assert "wrote" in said and rtinteract.load(model, device="cpu").card["data"] == "self-made"
    assert "60 frames" in command("react", mocap / "walk_0.bvh", "-m", model, "-t", "they meet", "--iterations", 2, "--out",
                                  tmp_path / "out.npz")
    report = command("evaluate", "-m", model, "--mocap", mocap, "--pairs", pairs, "--limit", 2, "--out", tmp_path / "evaluation")
    assert report.startswith("#") and json.loads((tmp_path / "evaluation/report.json").read_text())["reactions"]["pairs"] == 2


def test_pairs_are_composed_from_real_walks(shared, tmp_path, command):
    solo = shared / "mocap" / "cmu-solo"
    for folder in ("amc", "asf", "expmap"):
        (tmp_path / folder).symlink_to(solo / folder)
    lines = (solo / "index.csv").read_text().splitlines()
    wanted = [line for line in lines[1:] if line.startswith(("expmap/walking/", "amc/02_0"))]
    (tmp_path / "index.csv").write_text("\n".join([lines[0], *wanted]))
    out = tmp_path / "pairs"
    said = command("data", "compose", "--mocap", tmp_path, "--out", out, "--count", 2, "--seed", 3, "--sheet", tmp_path / "s.png")
    assert "s.png" in said and (tmp_path / "s.png").is_file()
    assert "2 pairs" in command("data", "inspect", out)
