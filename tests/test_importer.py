"""Published checkpoints: imported to the letter, and refused when a letter is different."""

import dataclasses

import numpy as np
import pytest
import torch
from published_files import CONFIG, HEADS, published
from safetensors.torch import load_file
from synthetic import walker

from rtinteract.checkpoint import load_model, save_model
from rtinteract.config import CodecConfig
from rtinteract.errors import CheckpointError, ConfigError
from rtinteract.features.interhuman import row_to_image
from rtinteract.importer import REBUILT_COUNT, import_intermask, load_codec
from rtinteract.model import Model


def assert_same(got, want):
    for key, tensor in want.state_dict().items():
        if key.split(".")[-1] not in ("code_sum", "code_count", "initialised"):
            assert torch.equal(got.state_dict()[key], tensor), key


def test_import_of_files_made_here(tmp_path, caplog):
    paths, made = published(tmp_path)
    got = import_intermask(*paths, heads=HEADS)
    assert got.config == CONFIG and got.card["codec_epoch"] == 3
    for name, module in made.modules().items():
        assert_same(got.modules()[name], module)
    assert "no statistics" in caplog.text
    assert torch.equal(got.normalizer.std, torch.ones(22, 12))


def test_import_saves_and_loads(tmp_path):
    paths, _ = published(tmp_path)
    got = import_intermask(*paths, heads=HEADS)
    save_model(tmp_path / "model.safetensors", got)
    back = load_model(tmp_path / "model.safetensors")
    assert back.config == got.config and torch.equal(back.codec.quantizer.codebook, got.codec.quantizer.codebook)


def test_running_statistics_are_rebuilt(tmp_path):
    paths, _ = published(tmp_path)
    quantizer = load_codec(paths[0]).quantizer
    assert quantizer.initialised and quantizer.code_count.eq(REBUILT_COUNT).all()
    before = quantizer.codebook.clone()
    rows = before[:1] + 0.01
    quantizer.update(rows, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(quantizer.codebook, before, rtol=0, atol=1e-3)


def test_statistics_become_an_image_without_contacts(tmp_path, caplog):
    paths, _ = published(tmp_path)
    generator = np.random.default_rng(0)
    mean, std = generator.standard_normal(262), generator.uniform(0.5, 2, 262)
    np.save(tmp_path / "mean.npy", mean)
    np.save(tmp_path / "std.npy", std)
    got = import_intermask(*paths, tmp_path / "mean.npy", tmp_path / "std.npy", heads=HEADS).normalizer
    assert "statistics" not in caplog.text
    rows = torch.as_tensor(generator.standard_normal((4, 262)), dtype=torch.float32)
    want = row_to_image((rows - torch.as_tensor(mean)) / torch.as_tensor(std)).float()
    torch.testing.assert_close(got(row_to_image(rows)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("decoder.model.6.bias"), "missing 1 .decoder.model.6.bias"),
    (lambda s: s.update({"encoder.model.9.weight": torch.zeros(1)}), "unexpected 1 .encoder.model.9.weight"),
    (lambda s: s.update({"decoder.model.6.bias": torch.zeros(3)}), "decoder.head.bias of shape"),
    (lambda s: s["encoder.model.4.bias"].fill_(float("nan")), "NaN"),
    (lambda s: s.pop("quantizer.layers.0.codebook"), "expected a tensor quantizer.layers.0.codebook"),
    (lambda s: s.update({"encoder.model.0.weight": torch.zeros(8, 7, 3, 3)}), "got 7"),
])
def test_codec_keys_are_strict(tmp_path, change, message):
    paths, _ = published(tmp_path, change_codec=change)
    with pytest.raises(CheckpointError, match=message):
        import_intermask(*paths, heads=HEADS)


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("clipln.bias"), "missing 1 .clipln.bias"),
    (lambda s: s.pop("Transformer.blocks.1.ffn_split.model.3.bias"), "missing 1"),
    (lambda s: s.update({"clip_model.token": torch.zeros(1)}), "unexpected 1 .clip_model.token"),
    (lambda s: s.pop("position_enc.positional_encoding.inv_freq"), "inv_freq"),
    (lambda s: s["position_enc.positional_encoding.inv_freq"].mul_(2), "frequencies"),
    (lambda s: s.pop("token_emb.weight"), "missing 1 .token_emb.weight"),
])
def test_transformer_keys_are_strict(tmp_path, change, message):
    paths, _ = published(tmp_path, change_transformer=change)
    with pytest.raises(CheckpointError, match=message):
        import_intermask(*paths, heads=HEADS)


def test_files_that_are_something_else(tmp_path):
    paths, _ = published(tmp_path)
    with pytest.raises(CheckpointError, match="'vq_model'.*t2m_transformer"):
        import_intermask(paths[1], paths[0], heads=HEADS)
    with pytest.raises(CheckpointError, match="nothing there"):
        import_intermask(tmp_path / "absent.tar", paths[1])
    (tmp_path / "text.tar").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_intermask(tmp_path / "text.tar", paths[1])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(paths[0].read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_intermask(cut, paths[1])


def test_nothing_but_tensors_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))
    torch.save({"vq_model": Trap()}, tmp_path / "trap.tar")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(tmp_path / "trap.tar")
    assert not (tmp_path / "sprung").exists()


def test_files_that_do_not_belong_together(tmp_path):
    other = dataclasses.replace(CONFIG, codec=dataclasses.replace(CONFIG.codec, codes=8),
                                transformer=dataclasses.replace(CONFIG.transformer, codes=8))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (codec, _), _ = published(tmp_path / "a")
    (_, transformer), _ = published(tmp_path / "b", other)
    with pytest.raises(ConfigError, match="codes"):
        import_intermask(codec, transformer, heads=HEADS)


def test_heads_must_be_told_where_the_width_does_not(tmp_path):
    paths, _ = published(tmp_path)
    with pytest.raises(CheckpointError, match="heads"):
        import_intermask(*paths)


@pytest.mark.parametrize("mean, message", [(np.zeros(100), "shape"), (np.full(262, np.nan), "finite"), (None, "both")])
def test_statistics_that_do_not_fit(tmp_path, mean, message):
    paths, _ = published(tmp_path)
    np.save(tmp_path / "std.npy", np.ones(262))
    if mean is not None:
        np.save(tmp_path / "mean.npy", mean)
    with pytest.raises(CheckpointError, match=message):
        import_intermask(*paths, None if mean is None else tmp_path / "mean.npy", tmp_path / "std.npy", heads=HEADS)


@pytest.mark.parametrize("representation", ["interhuman", "interx"])
def test_an_imported_model_moves_people(tmp_path, representation):
    codec = CodecConfig.interx() if representation == "interx" else CodecConfig.interhuman()
    config = dataclasses.replace(CONFIG, representation=representation,
                                 codec=dataclasses.replace(codec, width=8, code_dim=4, codes=16))
    model = Model(import_intermask(*published(tmp_path, config)[0], heads=HEADS))
    actor = walker(1.0)
    made = [*model.generate("", 1.0, iterations=1)[0], model.react(actor, iterations=1), model.reconstruct(actor)]
    assert [len(m) for m in made] == [30] * 4
    assert all(np.isfinite(m.positions).all() for m in made)


@torch.no_grad()
def test_published_files(shared, tmp_path):
    o = shared / "oracles"
    got = import_intermask(o / "reference-tiny-vq.tar", o / "reference-tiny-trans.tar", heads=4)
    t = load_file(o / "transformer.safetensors")
    codes = t["ids"].view(2, 2, 5, -1)
    logits = got.transformer(codes, t["cond"], t["token_lens"]).movedim(-1, 1).flatten(2)
    seen = ~t["padding_mask"][:, None].expand_as(logits)
    want = t["logits_f64"]
    assert (logits - want)[seen].abs().max() < 1e-5 * want[seen].abs().max()
    h = load_file(o / "text_head.safetensors")
    condition = got.text(h["clip_features"], h["eot_index"])
    assert (condition - h["text_vector_f64"]).abs().max() < 1e-5 * h["text_vector_f64"].abs().max()
    save_model(tmp_path / "m.safetensors", got)
    assert load_model(tmp_path / "m.safetensors").config == got.config


def test_published_interx_codec(shared):
    codec = load_codec(shared / "oracles" / "reference-tiny-vq-interx.tar")
    assert codec.config == dataclasses.replace(CodecConfig.interx(), width=64, code_dim=64, codes=64)
