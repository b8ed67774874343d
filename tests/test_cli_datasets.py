"""Published data sets through the command line: inspected, and trained on in miniature."""

import json

import numpy as np
import pytest
from command_line import here
from dataset_files import interx_names, smplx_file, write_folder, write_interhuman, write_interx_h5
from rtinteract.training.codec import load_codec
from synthetic import walker

from rtinteract.motion import write_motion

LOOP = {"batch": 2, "warmup": 1, "precision": "float32", "threads": 1}
SMALL = {"form": "image", "width": 16, "code_dim": 8, "codes": 64, "depth": 1, "quantizer": "fsq", "levels": [4, 4, 4]}
CODEC = {"codec": SMALL, "frames": 32, "shortest": 16, "longest": 32, "loop": LOOP, "representation": "interhuman"}
INTERX = {"joints": 56, "features": 6, "kernels": [[6, 4], [6, 4]], "strides": [[3, 2], [3, 2]], "upsample": [[3.5, 2], [3.3, 2]]}
TEXT = {"width": 32, "layers": 1, "heads": 2, "ff": 32, "vocabulary": 280, "max_tokens": 16}
TRANSFORMER = {"sizes": {"width": 32, "heads": 2, "layers": 1, "ff": 32}, "text": TEXT, "loop": LOOP, "shortest": 32,
               "longest": 32, "long": 0.0, "most": 32, "validation_batches": 1}


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command; returns how it ended."""
    return lambda *args: here(monkeypatch, capsys, *args)


def config(path, values):
    path.write_text(json.dumps(values))
    return path


def test_inspect_names_what_is_wrong_and_writes_it_down(tmp_path, command):
    write_interhuman(tmp_path / "data", names=[str(i) for i in range(1, 16)], frames=30)
    for i in range(2, 12):
        (tmp_path / "data" / "annots" / f"{i}.txt").unlink()
    array = np.load(tmp_path / "data" / "motions_processed" / "person2" / "1.npy")
    array[3, 3] = np.nan
    np.save(tmp_path / "data" / "motions_processed" / "person2" / "1.npy", array)
    done = command("data", "inspect", tmp_path / "data", "--report", tmp_path / "missing.json")
    assert done.code == 0 and "interhuman: 14 pairs" in done.out and "train      12 clips" in done.out
    assert "broken: 1 (1: person 2: InterHuman clip: expected finite values" in done.out and "and 2 more" in done.out
    written = json.loads((tmp_path / "missing.json").read_text())
    assert written["clips"] == {"train": 12, "val": 1, "test": 1} and len(written["problems"]["no annotation"]) == 10
    done = command("data", "inspect", tmp_path / "data", "--kind", "mocap")
    assert done.code == 1 and "expected one of auto" in done.err
    done = command("data", "inspect", tmp_path / "data", "--report", tmp_path / "none" / "missing.json")
    assert done.code == 1 and "existing folder" in done.err


def test_a_folder_that_mixes_is_inspected_as_it_is_said(tmp_path, command):
    write_folder(tmp_path, ("walk",))
    for name in ("stand", "jump"):
        write_motion(tmp_path / f"{name}.bvh", walker(1.5))
    assert "4 clips" in command("data", "inspect", tmp_path).out
    assert "pairs: 1 pairs" in command("data", "inspect", tmp_path, "--kind", "pairs").out


def test_interhuman_alone_trains_every_stage(tmp_path, command):
    data, cache = tmp_path / "InterHuman", tmp_path / "cache"
    write_interhuman(data)
    given = ["--pairs", data, "--cache", cache, "--steps", 2]
    done = command("train", "codec", *given, "--out", tmp_path / "codec", "--config", config(tmp_path / "c.json", CODEC))
    assert done.code == 0 and "mpjpe" in done.out, done
    codec = tmp_path / "codec" / "codec.safetensors"
    assert load_codec(codec)[2] == "interhuman"
    kept = {p: p.stat().st_mtime_ns for p in cache.rglob("*.f32")}
    assert {p.parent.name.rsplit("-", 1)[0] for p in kept} == {"interhuman-train", "interhuman-val"}
    done = command("train", "text", *given, "--out", tmp_path / "text", "--config", config(tmp_path / "t.json", {"text": TEXT,
                                                                                                             "loop": LOOP}))
    assert done.code == 0, done
    done = command("train", "transformer", *given, "--codec", codec, "--text", tmp_path / "text" / "text.safetensors", "--out",
                   tmp_path / "transformer", "--config", config(tmp_path / "m.json", TRANSFORMER))
    assert done.code == 0 and "random_loss" in done.out, done
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*.f32")} == kept
    done = command("train", "assemble", "--codec", codec, "--transformer", tmp_path / "transformer" / "transformer.safetensors",
                   "--window", 64, "--out", tmp_path / "model.safetensors")
    assert done.code == 0, done
    done = command("evaluate", "-m", tmp_path / "model.safetensors", "--pairs", data, "--out", tmp_path / "evaluation")
    assert done.code == 0 and json.loads((tmp_path / "evaluation" / "report.json").read_text())["reactions"]["pairs"] == 1, done


def test_interx_trains_a_codec_with_the_users_body(tmp_path, command, caplog):
    write_interx_h5(tmp_path / "InterX", interx_names(4))
    smplx_file(tmp_path / "SMPLX_NEUTRAL.npz")
    values = CODEC | {"codec": SMALL | INTERX, "representation": "interx", "shortest": 32}
    given = ["--pairs", tmp_path / "InterX", "--steps", 1, "--config", config(tmp_path / "c.json", values)]
    done = command("train", "codec", *given, "--out", tmp_path / "a", "--smplx", tmp_path / "SMPLX_NEUTRAL.npz")
    assert done.code == 0 and "no SMPL-X" not in caplog.text, done
    done = command("train", "codec", *given, "--out", tmp_path / "b")
    assert done.code == 0 and "no SMPL-X model file" in caplog.text, done
    done = command("train", "codec", *given, "--out", tmp_path / "d", "--smplx", tmp_path / "c.json")
    assert done.code == 1 and "SMPL-X" in done.err


def test_mistakes_are_told_before_the_work(tmp_path, command):
    write_interhuman(tmp_path / "data")
    done = command("train", "codec", "--out", tmp_path / "codec")
    assert done.code == 1 and "expected --mocap, --pairs or both" in done.err
    (tmp_path / "data" / "split" / "train.txt").write_text("\n")
    done = command("train", "codec", "--pairs", tmp_path / "data", "--out", tmp_path / "codec")
    assert done.code == 1 and "split 'train', got none; it has train (0 clips), val (1 clips), test (1 clips)" in done.err
    done = command("train", "text", "--pairs", tmp_path / "data" / "annots", "--out", tmp_path / "text")
    assert done.code == 1 and "unpack the archives" in done.err
