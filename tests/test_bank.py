"""Prompt banks: a model that reads CLIP, with its tower and without it."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from command_line import here
from published_files import HEADS, published
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import walker

import rtinteract
from rtinteract.bank import read_bank, write_bank
from rtinteract.checkpoint import load_model, save_model
from rtinteract.errors import CheckpointError, ConfigError, RtInteractError
from rtinteract.importer import import_intermask
from rtinteract.motion import write_motion
from rtinteract.text import PromptEncoder
from rtinteract.worker import Host

CLIP = Path(__file__).parent / "data" / "clip"
TEXTS = ["two people wave at each other", "One person waves", "they hug"]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """A tiny model imported from published files."""
    folder = tmp_path_factory.mktemp("published")
    save_model(folder / "model.safetensors", import_intermask(*published(folder)[0], heads=HEADS))
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def bank_path(model_path):
    path = model_path.with_name("bank.safetensors")
    assert rtinteract.load(model_path, "cpu", clip=CLIP).export_prompts(path, TEXTS) == 3
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("RTI_CLIP", raising=False)
    monkeypatch.delenv("RTI_BANK", raising=False)


def made(model, text, **settings):
    return torch.tensor(model.generate(text, 1.0, iterations=2, **settings)[0][1].positions)


def test_an_imported_checkpoint_generates_with_the_tower_and_with_its_bank(model_path, bank_path):
    towered, banked = rtinteract.load(model_path, "cpu", clip=CLIP), rtinteract.load(model_path, "cpu", bank=bank_path)
    assert torch.equal(towered.prompts.encode(TEXTS), banked.prompts.encode(TEXTS))
    settings = {"guidance": 8.0, "temperature": 0.0}
    assert torch.equal(made(towered, TEXTS[0], **settings), made(banked, TEXTS[0], **settings))
    assert not torch.equal(*towered.prompts.encode(TEXTS[:2]))
    for model in (towered, banked):
        assert model.react(model.generate(TEXTS[0], 1.0)[0][0], TEXTS[2], iterations=1).positions.shape == (30, 22, 3)


def test_a_bank_holds_each_prompt_once_whatever_its_spelling(model_path, bank_path, tmp_path):
    model = rtinteract.load(model_path, "cpu", bank=bank_path)
    assert model.prompts.given == [text.lower() for text in TEXTS]
    assert torch.equal(*model.prompts.encode(["  ONE person\n waves ", TEXTS[1]]))
    assert model.export_prompts(tmp_path / "b.safetensors", ["They hug", "", " they  HUG "]) == 1
    assert read_bank(tmp_path / "b.safetensors", model.prompts) == ["They hug"]
    with pytest.raises(ConfigError, match="at least one text"):
        model.export_prompts(tmp_path / "c.safetensors", ["", " "])


def test_a_bank_adds_to_a_tower(model_path, bank_path):
    both = rtinteract.load(model_path, "cpu", clip=CLIP, bank=bank_path)
    assert both.prompts.encode([TEXTS[0], "something else"]).isfinite().all()
    assert "module" in vars(both.prompts.tower), "the weights were read for the prompt that the bank lacks"
    only = rtinteract.load(model_path, "cpu", clip=CLIP, bank=bank_path)
    only.prompts.encode(TEXTS)
    assert "module" not in vars(only.prompts.tower), "and only for it"


def test_a_prompt_that_is_nowhere(model_path, bank_path):
    with pytest.raises(RtInteractError, match="clip=FOLDER.*RTI_CLIP.*bank=FILE.*leave the text out"):
        rtinteract.load(model_path, "cpu").generate("wave")
    banked = rtinteract.load(model_path, "cpu", bank=bank_path)
    with pytest.raises(RtInteractError, match="the 3 prompts given; the nearest there are 'two people wave at each other'"):
        banked.generate("two people wave to each other")
    with pytest.raises(RtInteractError, match="prompts given; use one"):
        banked.generate("Ωμέγα")


def test_environment(model_path, bank_path, small_model_path, monkeypatch):
    want = rtinteract.load(model_path, "cpu", clip=CLIP).prompts.encode(TEXTS)
    monkeypatch.setenv("RTI_CLIP", str(CLIP))
    assert torch.equal(rtinteract.load(model_path, "cpu").prompts.encode(TEXTS), want)
    monkeypatch.setenv("RTI_BANK", str(bank_path))
    monkeypatch.delenv("RTI_CLIP")
    assert torch.equal(rtinteract.load(model_path, "cpu").prompts.encode(TEXTS), want)
    assert rtinteract.load(small_model_path, "cpu").prompts.given == [], "a model that reads no CLIP is none of theirs"
    with pytest.raises(ConfigError, match="text.kind 'bpe'"):
        rtinteract.load(small_model_path, "cpu", clip=CLIP)


def test_a_bank_of_a_model_with_its_own_encoder(small_model_path, tmp_path):
    model = rtinteract.load(small_model_path, "cpu")
    model.export_prompts(tmp_path / "bank.safetensors", TEXTS)
    again = rtinteract.load(small_model_path, "cpu", bank=tmp_path / "bank.safetensors")
    assert torch.equal(again.prompts.encode([*TEXTS, "new"]), model.prompts.encode([*TEXTS, "new"]))


def test_the_engines_planner_reads_and_writes_the_same_banks(model_path, bank_path, tmp_path):
    host = Host(str(model_path), device="cpu", threads=torch.get_num_threads(), prompt_bank=str(bank_path))
    host.save_prompts(TEXTS[1:], str(tmp_path / "bank.safetensors"))
    again = Host(data=model_path.read_bytes(), device="cpu", threads=torch.get_num_threads(),
                 prompt_bank=str(tmp_path / "bank.safetensors"))
    assert again.model.prompts.given == [text.lower() for text in TEXTS[1:]]


def test_the_bank_serves_the_model_in_float16_and_no_other(model_path, bank_path, tmp_path):
    parts = load_model(model_path)
    save_model(tmp_path / "half.safetensors", parts, dtype=torch.float16)
    half = rtinteract.load(tmp_path / "half.safetensors", "cpu", bank=bank_path)
    assert half.prompts.given
    torch.manual_seed(5)
    for parameter in parts.text.encoder.layers[0].linear1.parameters():
        parameter.data.normal_(std=0.5)
    save_model(tmp_path / "other.safetensors", parts)
    with pytest.raises(CheckpointError, match="other text weights .intermask.; take the bank"):
        rtinteract.load(tmp_path / "other.safetensors", "cpu", bank=bank_path)


def test_the_bank_of_a_model_of_other_sizes(model_path, bank_path):
    parts = load_model(model_path)
    other = PromptEncoder(dataclasses.replace(parts.config.text, heads=4), parts.text)
    with pytest.raises(CheckpointError, match="one of intermask .text.heads 8 for 4"):
        read_bank(bank_path, other)


def spoilt(bank_path, path, tensors=None, **metadata):
    with safe_open(bank_path, "pt") as file:
        told = {**file.metadata(), **metadata}
    save_file(load_file(bank_path) | (tensors or {}), path, metadata={k: v for k, v in told.items() if v is not None})
    return path


@pytest.mark.parametrize("tensors, metadata, message", [
    ({}, {"format": "rtinteract"}, "expected a prompt bank, got a .safetensors file of another kind"),
    ({}, {"format_version": "2"}, "expected format 1 or older, got 2"),
    ({}, {"texts": None}, "whole prompt bank"),
    ({}, {"texts": json.dumps(["one"])}, "expected 1 finite conditions of 32"),
    ({"conditions": torch.full((3, 32), float("nan"))}, {}, "not finite"),
    ({"probe": torch.zeros(5)}, {}, "conditions and a probe"),
    ({"probe": torch.full((32,), float("nan"))}, {}, "other text weights"),
])
def test_spoilt_banks(model_path, bank_path, tmp_path, tensors, metadata, message):
    path = spoilt(bank_path, tmp_path / "bank.safetensors", tensors, **metadata)
    with pytest.raises(CheckpointError, match=message):
        rtinteract.load(model_path, "cpu", bank=path)


def test_files_that_are_no_banks(model_path, bank_path, tmp_path):
    with pytest.raises(CheckpointError, match="got nothing there"):
        rtinteract.load(model_path, "cpu", bank=tmp_path / "absent")
    cut = tmp_path / "cut"
    cut.write_bytes(bank_path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="cut short"):
        rtinteract.load(model_path, "cpu", bank=cut)
    with pytest.raises(CheckpointError, match="of another kind; make a bank with"):
        rtinteract.load(model_path, "cpu", bank=model_path)


def test_a_bank_is_written_whole_or_not_at_all(model_path, bank_path, tmp_path, monkeypatch):
    path = tmp_path / "bank.safetensors"
    model = rtinteract.load(model_path, "cpu", bank=bank_path)
    write_bank(path, model.prompts, TEXTS)
    before = path.read_bytes()
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, "read by whoever reads other files"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_bank(path, model.prompts, TEXTS[:1])
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["bank.safetensors", "plain"]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: here(monkeypatch, capsys, *args)


def test_the_command_line_from_published_files_to_motion(command, tmp_path):
    codec, transformer = published(tmp_path)[0]
    done = command("import-intermask", "--codec", codec, "--transformer", transformer, "--heads", HEADS, "--out", "m.safetensors")
    assert done.code == 0, done.err
    (tmp_path / "raw").mkdir()
    torch.save(load_file(CLIP / "model.safetensors") | {"logit_scale": torch.zeros(())}, "raw/pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "raw" / name).write_bytes((CLIP / name).read_bytes())
    generate = ["generate", TEXTS[0], "-m", "m.safetensors", "--seconds", 1, "--iterations", 1]
    done = command(*generate, "--clip", "raw", "--out", "a.npz")
    assert done.code == 1 and "rtinteract import-clip raw" in done.err
    done = command("import-clip", "raw", "--out", "clip")
    assert done.code == 0 and "--clip clip" in done.out, done.err
    assert command(*generate, "--clip", "clip", "--out", "a.npz").code == 0
    (tmp_path / "prompts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0].upper()]))
    done = command("prompts", "export", "m.safetensors", "--clip", "clip", "--texts", "prompts.txt", "--out", "bank.safetensors")
    assert done.code == 0 and "3 prompts" in done.out, done.err
    assert command(*generate, "--bank", "bank.safetensors", "--out", "b.npz").code == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    write_motion("actor.npz", walker(1.0))
    react = ["react", "actor.npz", "-t", TEXTS[1], "-m", "m.safetensors", "--iterations", 1, "--out", "c.npz"]
    assert command(*react, "--bank", "bank.safetensors").code == 0
    done = command(*react)
    assert done.code == 1 and "--clip FOLDER" in done.err and "--bank FILE" in done.err


def test_the_command_line_streams_with_a_bank(command, small_model_path):
    Path("prompts.txt").write_text("they bow")
    write_motion("actor.npz", walker(1.0))
    assert command("prompts", "export", small_model_path, "--texts", "prompts.txt", "--out", "bank.safetensors").code == 0
    done = command("stream", "actor.npz", "-t", "they bow", "-m", small_model_path, "--bank", "bank.safetensors", "--fast",
                   "--iterations", 1)
    assert done.code == 0, done.err
    done = command("stream", "actor.npz", "-t", "they bow", "-m", small_model_path, "--clip", CLIP, "--fast")
    assert done.code == 1 and "text.kind 'bpe'" in done.err


@pytest.mark.parametrize("content, message", [(b"\n \n", "got no text"), (b"\xff\xfe\x00wave", "UTF-8"), (None, "No such file")])
def test_prompt_files_without_prompts(command, model_path, tmp_path, content, message):
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    done = command("prompts", "export", model_path, "--clip", CLIP, "--texts", "prompts.txt")
    assert done.code == 1 and message in done.err and "Traceback" not in done.err


def test_export_does_not_write_over_what_it_reads(command, model_path, tmp_path):
    (tmp_path / "prompts.txt").write_text("wave")
    done = command("prompts", "export", model_path, "--clip", CLIP, "--texts", "prompts.txt", "--out", "prompts.txt")
    assert done.code == 1 and "a file that is read" in done.err and (tmp_path / "prompts.txt").read_text() == "wave"


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "pytorch_model.bin").write_bytes(b"no"), "cannot be read"),
    (lambda f: (f / "pytorch_model.bin").unlink(), "got nothing there"),
    (lambda f: (f / "config.json").unlink(), "fetch it too"),
    (lambda f: torch.save({"visual.proj": torch.zeros(2)}, f / "pytorch_model.bin"), "text tower of a CLIP model"),
    (lambda f: torch.save([1, 2], f / "pytorch_model.bin"), "state dict of tensors, got list")])
def test_clip_folders_that_cannot_be_imported(command, tmp_path, spoil, message):
    folder = tmp_path / "raw"
    folder.mkdir()
    torch.save(load_file(CLIP / "model.safetensors"), folder / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((CLIP / name).read_bytes())
    spoil(folder)
    done = command("import-clip", folder, "--out", "clip")
    assert done.code == 1 and message in done.err
    assert not list((tmp_path / "clip").iterdir())
