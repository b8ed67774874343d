"""CLIP's text tower: what `transformers` makes of the same files, and a word on every kind of wrong folder."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rtinteract.clip import ClipText, ClipTower, TowerConfig
from rtinteract.config import TextConfig
from rtinteract.errors import CheckpointError
from rtinteract.text import PromptEncoder, TextHead

FOLDER = Path(__file__).parent / "data" / "clip"
TEXT = TextConfig(width=32, layers=1, ff=16)
# The texts of tests/data/make_oracle_clip.py.
TEXTS = ["two people wave at each other", "  One person WAVES,\n the other doesn't wave 3 times ", "café 挥手 🙋", "hug " * 60]


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny folder, to be spoilt."""
    return Path(shutil.copytree(FOLDER, tmp_path / "clip"))


def rewrite(folder, change):
    """Put what `change` makes of the folder's tensors in their place."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def having(name, *size, dtype=torch.float32, value=0):
    return lambda tensors: tensors | {name: torch.full(size, value, dtype=dtype)}


def close(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=2e-6 * float(want.abs().max()))


def test_tower_gives_what_transformers_gives():
    """Float16 weights, contractions, other scripts, a text far too long; the padding is 0, as published models had it."""
    oracle = load_file(FOLDER / "oracle.safetensors")
    tower = ClipTower(FOLDER, TEXT)
    rows = [tower.tokenizer.encode(text, 77) for text in TEXTS]
    assert torch.equal(torch.tensor([ids for ids, _ in rows]), oracle["ids"])
    features, ends = tower(TEXTS)
    assert features.dtype == torch.float32 and torch.equal(ends, oracle["ends"]) and ends[3] == 76
    close(features, oracle["features"])


def test_no_position_sees_a_later_one():
    tower = ClipTower(FOLDER, TEXT)
    ids = torch.tensor([tower.tokenizer.encode(TEXTS[0], 77)[0]])
    other = ids.clone()
    other[0, 5:] = 7
    torch.testing.assert_close(tower.module(ids)[:, :5], tower.module(other)[:, :5])
    assert not torch.allclose(tower.module(ids)[:, 5], tower.module(other)[:, 5])


@pytest.mark.parametrize("prefix", ["text_model.", "clip.text_model."])
def test_tower_is_found_in_a_whole_clip_model(folder, prefix):
    want = ClipTower(folder, TEXT)(TEXTS)[0]
    rewrite(folder, lambda t: {prefix + k: v for k, v in t.items()} | {
        "vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(3, 3), "logit_scale": torch.zeros(()),
        "text_projection.weight": torch.zeros(4, 32), prefix + "embeddings.position_ids": torch.arange(77)[None]})
    assert torch.equal(ClipTower(folder, TEXT)(TEXTS)[0], want)


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="num_attention_heads that divides the width 32"):
        ClipTower(folder, TEXT)
    tensors = ClipText(TowerConfig(vocabulary=534, width=128, heads=2, layers=1, ff=8)).state_dict()
    save_file(tensors, folder / "model.safetensors")
    assert ClipTower(folder, TextConfig(width=128)).config == TowerConfig(534, 77, 128, 2, 1, 8)


def test_a_long_prompt_is_cut_once_said_once(caplog):
    prompts = PromptEncoder(TEXT, TextHead(TEXT).eval(), tower=ClipTower(FOLDER, TEXT))
    with caplog.at_level(logging.WARNING):
        first = prompts.encode([TEXTS[3]])
        again = prompts.encode([TEXTS[3], TEXTS[3]])
    assert torch.equal(first[0], again[1])
    assert [r.getMessage() for r in caplog.records] == [f"text of 120 tokens cut to the 75 that CLIP reads: {TEXTS[3]!r:.40}..."]


def test_a_prompt_does_not_depend_on_its_neighbours():
    prompts = [PromptEncoder(TEXT, TextHead(TEXT).eval(), tower=ClipTower(FOLDER, TEXT)) for _ in range(2)]
    prompts[1].module.load_state_dict(prompts[0].module.state_dict())
    assert torch.equal(prompts[0].encode(TEXTS)[2], prompts[1].encode(TEXTS[2:3])[0])


def test_special_tokens_in_a_prompt_are_plain_text():
    tokenizer = ClipTower(FOLDER, TEXT).tokenizer
    ids, end = tokenizer.encode("wave <|endoftext|> wave", 77)
    assert ids.count(tokenizer.eos) == 1 and ids[end] == tokenizer.eos


def test_another_clip_is_told(folder, caplog):
    told = json.loads((folder / "config.json").read_text())
    for pixels, count in ((336, 0), (224, 1)):
        (folder / "config.json").write_text(json.dumps({"text_config": told, "vision_config": {"image_size": pixels}}))
        ClipTower(folder, TEXT)
        assert len(caplog.records) == count
    assert "pictures of 224 pixels" in caplog.text


WRONG_WEIGHTS = [
    (without("final_layer_norm.bias"), r"1 are missing.*final_layer_norm.bias: expected \(32,\), got none"),
    (without("embeddings.token_embedding.weight"), "text tower of a CLIP model.*openai/clip-vit-large-patch14-336"),
    (without("embeddings.position_embedding.weight"), "position_embedding"),
    (without("encoder.layers.0.mlp.fc1.weight"), "with embeddings.position_embedding.weight and layers"),
    (having("encoder.layers.1.mlp.fc1.bias", 5), r"fc1.bias: expected \(64,\), got \(5,\)"),
    (having("encoder.layers.0.extra", 5), r"extra: expected none, got \(5,\)"),
    (having("final_layer_norm.bias", 32, dtype=torch.int8), "float weights, got I8"),
    (lambda _: {"transformer.resblocks.0.weight": torch.zeros(2)}, "got transformer.resblocks"),
]


@pytest.mark.parametrize("change, message", WRONG_WEIGHTS)
def test_wrong_weights(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        ClipTower(folder, TEXT)


def test_weights_that_are_not_finite(folder):
    rewrite(folder, having("final_layer_norm.bias", 32, value=float("nan")))
    with pytest.raises(CheckpointError, match="NaN or infinity in final_layer_norm.bias"):
        ClipTower(folder, TEXT)(["wave"])


def test_wrong_width():
    with pytest.raises(CheckpointError, match=r"768 wide with 77 positions.*got 32 wide.*ViT-L/14@336px"):
        ClipTower(FOLDER, TextConfig())


@pytest.mark.parametrize("name, content, message", [
    ("model.safetensors", None, "expected the weights, got nothing there; give a folder of CLIP ViT-L/14@336px"),
    ("model.safetensors", FOLDER.joinpath("model.safetensors").read_bytes()[:-100], "cut short"),
    ("model.safetensors", b"version https://git-lfs", "another kind of file"),
    ("tokenizer.json", None, "expected CLIP's tokenizer, got nothing there"),
    ("tokenizer.json", b"{}", "cannot be read"),
    ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "without"),
    ("config.json", b"{", "JSON configuration"),
    ("config.json", b"[]", "JSON configuration"),
    ("config.json", b'{"hidden_act": "relu"}', "hidden_act quick_gelu or gelu, got 'relu'"),
    ("config.json", b'{"num_attention_heads": 5}', "divides the width 32"),
])
def test_wrong_files(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        ClipTower(folder, TEXT)


def test_wrong_folders(tmp_path, folder):
    with pytest.raises(CheckpointError, match="got nothing there"):
        ClipTower(tmp_path / "absent", TEXT)
    with pytest.raises(CheckpointError, match="got a file there"):
        ClipTower(folder / "model.safetensors", TEXT)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="rtinteract import-clip"):
        ClipTower(folder, TEXT)


def test_tokenizer_of_a_larger_model(folder):
    rewrite(folder, having("embeddings.token_embedding.weight", 500, 32))
    with pytest.raises(CheckpointError, match="at most the 500 entries.*got 534"):
        ClipTower(folder, TEXT)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: the oracle in tests/data stands for it")


@torch.no_grad()
@pytest.mark.parametrize("sizes", [
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3, "vocab_size": 90,
     "hidden_act": "gelu", "layer_norm_eps": 1e-3, "bos_token_id": 1, "eos_token_id": 2}], ids=["ViT-L/14@336px", "odd"])
def test_seeded_weights_against_transformers(transformers, sizes):
    torch.manual_seed(1)
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes)).eval()
    c = theirs.config
    ours = ClipText(TowerConfig(c.vocab_size, 77, c.hidden_size, c.num_attention_heads, c.num_hidden_layers, c.intermediate_size,
                                c.hidden_act, c.layer_norm_eps)).eval()
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, mean=float(tensor.ndim == 1), std=0.05)
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, c.vocab_size, (2, 77))
    close(ours(ids), theirs(input_ids=ids).last_hidden_state)


def test_whole_clip_model_of_transformers(transformers, folder, tmp_path):
    torch.manual_seed(2)
    text = json.loads((FOLDER / "config.json").read_text())
    vision = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 336,
              "patch_size": 168}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)).float().eval()
    model.save_pretrained(folder)
    tower = ClipTower(folder, TEXT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(TEXTS, truncation=True, max_length=77)["input_ids"]
    features, ends = tower(TEXTS)
    assert [tower.tokenizer.encode(text, 77)[0][:end + 1] for text, end in zip(TEXTS, ends, strict=True)] == rows
    for row, got in zip(rows, features, strict=True):
        with torch.no_grad():
            want = model.text_model(input_ids=torch.tensor([row])).last_hidden_state[0]
        close(got[:len(row)], want)
