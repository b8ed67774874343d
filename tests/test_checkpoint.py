"""One-file checkpoints: what goes in comes out, and every kind of bad file says what it is."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rtinteract.checkpoint import build, load_model, save_model
from rtinteract.config import FORMAT_VERSION, CodecConfig, ModelConfig, TextConfig, TransformerConfig, to_dict
from rtinteract.errors import CheckpointError

CODEC = {"vq": CodecConfig(width=8, code_dim=8, codes=16),
         "fsq": CodecConfig(width=8, code_dim=8, codes=15, quantizer="fsq", levels=(3, 5))}


def config(quantizer="vq", **fields):
    codec = CODEC[quantizer]
    return ModelConfig(codec=codec, text=TextConfig(kind="none"), name="tiny", transformer=TransformerConfig(
        codes=codec.codes, code_dim=8, width=8, heads=2, layers=1, ff=16, condition=8), **fields)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    made = build(config())
    made.normalizer.mean += 0.25
    made.card = {"data": "none"}
    made.tokenizer = '{"model": "é"}'
    return made


@pytest.fixture
def saved(parts, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, parts)
    return path


def rewrite(path, change_tensors=None, **change_metadata):
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | change_metadata
    save_file(change_tensors(tensors) if change_tensors else tensors, path, metadata=metadata)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_round_trip_keeps_everything(quantizer, tmp_path):
    made = build(config(quantizer, fps=25.0, window=32))
    made.codec.train()(torch.randn(8, 16, 22, 12))
    made.tokenizer, made.card = '{"model": "é"}', {"a": [1, 2]}
    save_model(tmp_path / "m.safetensors", made)
    back = load_model(tmp_path / "m.safetensors")
    assert (back.config, back.tokenizer, back.card) == (made.config, made.tokenizer, made.card)
    for name, module in made.modules().items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(back.modules()[name].state_dict()[key], tensor), key
    assert not back.codec.training
    x = torch.randn(1, 16, 22, 12)
    assert torch.equal(back.codec.encode(x), made.codec.eval().encode(x))


def test_loading_keeps_the_global_random_state(saved):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    load_model(saved)
    assert torch.equal(torch.rand(3), want)


def test_half_precision_halves_weights_but_keeps_codes_and_statistics(parts, saved, tmp_path):
    half = tmp_path / "half.safetensors"
    save_model(half, parts, dtype=torch.float16, card={"half": True})
    kinds = {k: v.dtype for k, v in load_file(half).items()}
    assert kinds["codec.encoder.stem.weight"] == torch.float16
    assert kinds["codec.quantizer.codebook"] == kinds["normalizer.mean"] == torch.float32
    back = load_model(half)
    assert back.card == {"half": True} and back.codec.encoder.stem.weight.dtype == torch.float32
    assert half.stat().st_size < saved.stat().st_size


def test_a_failed_save_leaves_the_old_file(parts, saved):
    before = saved.read_bytes()
    parts.codec.encoder.stem.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="codec.encoder.stem.weight"):
        save_model(saved, parts)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_overflow_in_the_file_dtype_is_told(parts, tmp_path):
    parts.codec.encoder.stem.weight.data[0, 0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match="float16"):
        save_model(tmp_path / "m.safetensors", parts, dtype=torch.float16)


def test_modules_of_another_configuration_are_not_saved(parts, tmp_path):
    parts.config = config("fsq")
    with pytest.raises(CheckpointError, match="other configurations"):
        save_model(tmp_path / "m.safetensors", parts)


def test_a_folder_that_cannot_be_written(parts, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(tmp_path / "absent" / "m.safetensors", parts)


KEY = "codec.encoder.stem.weight"


@pytest.mark.parametrize("change, message", [
    (lambda t: {k: v for k, v in t.items() if k != KEY}, "missing 1 .encoder.stem.weight"),
    (lambda t: t | {"codec.odd": torch.zeros(1)}, "unexpected 1 .odd"),
    (lambda t: t | {"odd.weight": torch.zeros(1)}, "unexpected 1 tensors .odd.weight"),
    (lambda t: t | {KEY: t[KEY][:4].clone()}, r"encoder.stem.weight of shape \[8, 12, 3, 3\], got \[4, 12, 3, 3\]"),
    (lambda t: t | {KEY: t[KEY] * float("nan")}, "NaN or infinity in encoder.stem.weight"),
])
def test_wrong_tensors(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


@pytest.mark.parametrize("metadata, message", [
    ({"format_version": str(FORMAT_VERSION + 1)}, "newer rtinteract"),
    ({"format_version": "soon"}, "format_version"),
    ({"format": "other"}, "another program"),
    ({"config": "{"}, "valid configuration"),
    ({"config": json.dumps(to_dict(config()) | {"speed": 1})}, "unknown key 'speed'"),
    ({"config": json.dumps(to_dict(config()) | {"representation": "interx"})}, "56 x 6"),
    ({"card": "{"}, "cannot|can be built"),
])
def test_wrong_metadata(saved, metadata, message):
    rewrite(saved, **metadata)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.02])
def test_a_file_cut_short(saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:int(len(whole) * keep)])
    with pytest.raises(CheckpointError, match="cut short"):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip archive, as long as a header", b"text, not a model" * 9])
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="another kind of file"):
        load_model(path)


def test_a_damaged_header(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 20) + b"{" + b"x" * 40)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)


def test_nothing_there_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="nothing there"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="a folder there"):
        load_model(tmp_path)
