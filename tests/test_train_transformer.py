"""The transformer and text trainers on made-up pairs, and the model assembled from their files."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rtinteract.training.assemble import assemble, bundle_scene
from rtinteract.training.data import Augmentation
from rtinteract.training.levels import folded
from rtinteract.training.masks import IGNORED
from rtinteract.training.shares import INTERACTION, RANDOM, STREAMING, Shares
from rtinteract.training.state import load_stage, load_state, save_stage
from rtinteract.training.text import TextTraining, groups_of, load_text, train_text
from rtinteract.training.trainer import LoopConfig
from rtinteract.training.transformer import (
    Sizes,
    TransformerStage,
    TransformerTraining,
    load_transformer,
    train_transformer,
)
from test_data import walk

from rtinteract.checkpoint import load_model
from rtinteract.codec import Codec
from rtinteract.config import CodecConfig, TextConfig, to_dict
from rtinteract.errors import CheckpointError, ConfigError
from rtinteract.features.normalize import Normalizer
from rtinteract.text import TextTokenizer

LOOP = LoopConfig(steps=10, batch=4, learning_rate=2e-3, warmup=2, precision="float32", threads=1, save_s=1e9, validate_s=1e9,
                  ema=0.9, schedule="constant")
TEXT = TextConfig(kind="bpe", width=16, layers=1, heads=2, ff=32, vocabulary=300, max_tokens=24)
CONFIG = TransformerTraining(sizes=Sizes(width=16, heads=2, layers=1, ff=32), text=TEXT, loop=LOOP, shortest=16, longest=48,
                             most=64, validation_batches=1)
TEXTS = (("two people shake hands", "they shake their left hands", "a handshake"),
         ("one person waves", "a wave with the right hand"),
         ("one follows the other", "a person walks behind another"))


@dataclass(frozen=True)
class Pair:
    root: np.ndarray
    rotations: np.ndarray
    offsets: np.ndarray
    texts: tuple[str, ...]

    def __len__(self):
        return self.root.shape[1]


@pytest.fixture(scope="module")
def pairs():
    clips = []
    for i in range(6):
        a, b = walk(100, i), walk(100, 10 + i, 1.0, (1.0, 1.0))
        clips.append(Pair(*(np.stack(x) for x in zip(a, b, strict=True)), TEXTS[i % 3]))
    return clips


@pytest.fixture(scope="module")
def codec_file(tmp_path_factory):
    return untrained_codec(tmp_path_factory.mktemp("codec") / "codec.safetensors", codes=64, levels=(4, 4, 4))


def untrained_codec(path, **codes):
    """Its codes still depend on the motion."""
    config = CodecConfig(width=8, code_dim=8, quantizer="fsq", dropout=0.0, **codes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = Codec(config)
    codec.train()
    codec(torch.randn(8, 32, 22, 12, generator=torch.Generator().manual_seed(0)))
    save_stage(path, "codec", {"representation": "hybrid", "codec": to_dict(config)},
               {"codec": codec.state_dict(), "normalizer": Normalizer.identity(22, 12).state_dict()}, {"steps": 0})
    return path


@pytest.fixture(scope="module")
def stage(codec_file, pairs):
    return TransformerStage(CONFIG, codec_file, pairs, None, None)


def tokens(stage, modes, frames=32, shares=None, seed=0):
    if shares is not None:
        stage.config = replace(CONFIG, shares=shares)
    try:
        return stage.tokens(0, torch.Generator().manual_seed(seed), Augmentation.none(), frames, len(modes), torch.tensor(modes))
    finally:
        stage.config = CONFIG


def test_random_samples_hide_any_tokens_and_labels_are_the_codes(stage):
    t = tokens(stage, [RANDOM] * 8, shares=Shares(begun=0.0))
    assert t.inputs.shape == t.labels.shape == (8, 2, 5, 8)
    labelled = t.labels != IGNORED
    assert labelled.flatten(1).any(1).all() and 0.2 < labelled.float().mean() < 0.95
    assert (t.inputs[labelled] == 64).float().mean() > 0.6
    assert (t.inputs[~labelled] < 64).all() and (t.schedule == 80).all()


def test_interaction_hides_one_person_only(stage):
    t = tokens(stage, [INTERACTION] * 32, shares=Shares(reactor=1.0, whole=1.0, begun=0.0))
    labelled = t.labels != IGNORED
    assert not labelled[:, 0].any() and labelled[:, 1].all() and (t.schedule == 40).all()
    both = tokens(stage, [INTERACTION] * 32, shares=Shares(reactor=0.5))
    people = (both.labels != IGNORED).flatten(2).any(2)
    assert (people.sum(1) == 1).all() and people[:, 0].any() and people[:, 1].any()


def test_begun_samples_show_and_tell_the_first_columns_of_who_is_hidden(stage):
    t = tokens(stage, [INTERACTION] * 32, shares=Shares(reactor=1.0, whole=1.0, begun=1.0))
    hidden = (t.labels != IGNORED)[:, 1].all(1)
    assert not hidden[:, 0].any() and hidden[:, -1].all() and len(set(hidden.sum(1).tolist())) > 2
    told = t.placement[..., -1].bool()
    assert told[:, 0].all() and torch.equal(told[:, 1], ~hidden)
    assert torch.equal(t.schedule, 5 * hidden.sum(1))


def test_streaming_shows_a_past_that_ends_now(stage):
    shares = Shares(cold=0.0, whole=1.0, history_noise=0.0, horizon=4, near=1.0)
    seen = set()
    for seed in range(6):
        t = tokens(stage, [STREAMING] * 4 + [RANDOM] * 2, shares=shares, seed=seed)
        hidden = (t.labels[:4] != IGNORED).flatten(0, 2).all(0)
        now = int((~hidden).sum())
        assert hidden.tolist() == [False] * now + [True] * (8 - now) and 4 <= now < 8
        assert (t.schedule[:4] == 10 * (8 - now)).all()
        seen.add(now)
    assert len(seen) > 1


def test_the_past_is_encoded_from_a_clip_that_ends_now(stage, monkeypatch):
    shares = Shares(cold=0.0, whole=1.0, history_noise=0.0)
    lengths, codes = [], []
    encode = stage.codes

    def spy(positions, rotations):
        out = encode(positions, rotations)
        lengths.append(positions.shape[2])
        codes.append(out)
        return out
    monkeypatch.setattr(stage, "codes", spy)
    t = tokens(stage, [STREAMING] * 6, frames=48, shares=shares)
    now = lengths[1] // 4
    assert lengths[0] == 48 and lengths[1] < 48
    assert torch.equal(t.inputs[..., :now], codes[1])
    assert not torch.equal(codes[0][..., :now], codes[1])
    assert torch.equal(t.labels[..., now:], codes[0][..., now:])


def test_a_single_column_of_history_has_codes_whatever_the_precision(stage, pairs):
    g = torch.Generator().manual_seed(0)
    positions = torch.randn(24, 2, 4, 22, 3, generator=g)
    rotations = torch.nn.functional.normalize(torch.randn(24, 2, 4, 22, 4, generator=g), dim=-1)
    was, stage.bfloat16 = stage.bfloat16, True
    try:
        codes = stage.codes(positions, rotations)
    finally:
        stage.bfloat16 = was
    assert int(codes.min()) >= 0 and int(codes.max()) < stage.codec.config.codes


def test_partners_places_are_told_from_each_ones_own_frame(stage):
    batch = tokens(stage, [RANDOM] * 4, shares=Shares(begun=0.0))
    assert batch.placement.shape[:3] == (len(batch.seen), 2, 8)
    # The first two numbers are half the partner's place; from a frame of one's own one never stands on oneself.
    first = batch.placement[:, :, 0, :2]
    assert torch.allclose(first[:, 0] * 2, batch.seen[:, :2], atol=1e-5)
    assert torch.allclose(first[:, 0].norm(dim=-1), first[:, 1].norm(dim=-1), atol=1e-5)
    assert not batch.placement[..., -1].any()


def test_a_streams_frames_lie_at_its_newest_poses(stage):
    batch = tokens(stage, [STREAMING] * 4, shares=Shares(cold=0.0))
    half, told = batch.placement.shape[-1] // 2, batch.placement[..., -1].bool()
    newest = int(told[0, 0].sum()) - 1
    assert told[:, :, :newest + 1].all() and not told[:, :, newest + 1:].any()
    # At the newest column one stands, in the partner's frame, where the partner is told that one's frame lies.
    here = batch.placement[:, :, newest, half:half + 2]
    assert torch.allclose(here, batch.placement[:, :, newest, :2].flip(1), atol=1e-4)


def test_cold_streams_hide_the_second_persons_past(stage):
    t = tokens(stage, [STREAMING] * 8, shares=Shares(cold=1.0, whole=1.0, history_noise=0.0))
    labelled = t.labels != IGNORED
    assert labelled[:, 1].all() and not labelled[:, 0, :, 0].any()


def test_texts_follow_the_clip_the_mirror_and_the_draw(stage):
    t = tokens(stage, [RANDOM] * 64, shares=Shares(text_dropped=0.5))
    dropped = (t.texts < 0).float().mean()
    assert 0.3 < dropped < 0.7
    condition = stage.condition(t.texts)
    assert (condition[t.texts < 0] == 0).all() and (condition[t.texts >= 0].abs().sum(1) > 0).all()
    same = t.texts[t.texts >= 0][0]
    rows = condition[t.texts == same]
    assert torch.allclose(rows, rows[:1].expand_as(rows))
    clip = torch.zeros(40, dtype=torch.long)
    for mirror, allowed in ((False, "left"), (True, "right")):
        g = torch.Generator().manual_seed(1)
        found = stage._texts(0, clip, torch.full((40,), mirror), torch.full((40,), RANDOM), g)
        words = {stage.words.texts[i] for i in found.tolist() if i >= 0}
        assert f"they shake their {allowed} hands" in words and len(words) == 3


def test_batches_repeat(stage):
    for step in range(4):
        for a, b in zip(stage.batch(step), stage.batch(step), strict=True):
            assert a is b is None or torch.equal(a, b)


def test_it_learns_resumes_to_the_bit_and_becomes_a_model(tmp_path, codec_file, pairs):
    start = TransformerStage(CONFIG, codec_file, pairs, None, None)
    before = start.validate(start.model.state_dict())
    for out, parts in (("whole", (8,)), ("parts", (3, 8))):
        for steps in parts:
            train_transformer(CONFIG, codec_file, pairs, out=tmp_path / out, steps=steps, progress=False)
    a, b = (load_state(tmp_path / out / "state.pt", torch.device("cpu")) for out in ("whole", "parts"))
    assert all(torch.equal(v, b[kind][k]) for kind in ("model", "ema") for k, v in a[kind].items())
    result = train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "whole", steps=90, progress=False)
    for mode in ("random", "interaction", "streaming"):
        assert result.metrics[f"{mode}_loss"] < 0.85 * before[f"{mode}_loss"]
    trained = load_transformer(result.file)
    assert TextTokenizer(trained.tokenizer).vocabulary == trained.text.config.vocabulary <= 300
    assemble(codec_file, result.file, tmp_path / "model.safetensors", name="tiny", card={"licence": "test"})
    model = load_model(tmp_path / "model.safetensors")
    assert model.config.name == "tiny" and model.card["licence"] == "test" and model.card["transformer"]["steps"] == 90
    codes = torch.randint(0, 64, (1, 2, 5, 4))
    close = model.transformer(codes, None, None) - trained.transformer(codes, None, None)
    assert close.abs().max() < 0.05


def test_a_model_may_be_the_mean_of_a_run_and_what_it_began_with(tmp_path, codec_file, pairs):
    first = train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "a", steps=3, progress=False).file
    second = train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "b", steps=4, start=first, progress=False).file
    made = assemble(codec_file, second, tmp_path / "model.safetensors", half=False, mean_with=first)
    a, b = (load_transformer(f) for f in (first, second))
    for name in ("output.weight", "token_embedding.weight"):
        mean = (a.transformer.state_dict()[name] + b.transformer.state_dict()[name]) / 2
        assert torch.allclose(made.transformer.state_dict()[name], mean, atol=1e-6)
    assert load_model(tmp_path / "model.safetensors").card["mean_with"]["steps"] == 3
    other = replace(CONFIG, sizes=Sizes(width=32, heads=2, layers=1, ff=32))
    third = train_transformer(other, codec_file, pairs, out=tmp_path / "c", steps=1, progress=False).file
    with pytest.raises(CheckpointError, match="same codec, sizes and words"):
        assemble(codec_file, third, tmp_path / "no.safetensors", mean_with=first)
    assert not (tmp_path / "no.safetensors").exists()


def test_a_training_goes_on_from_a_model_file(tmp_path, codec_file, pairs):
    first = train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "a", steps=3, progress=False).file
    model, was = tmp_path / "model.safetensors", load_transformer(first)
    assemble(codec_file, first, model)
    again = train_transformer(CONFIG, model, pairs, out=tmp_path / "b", steps=1, start=model, progress=False)
    found, made = load_transformer(again.file), tmp_path / "again.safetensors"
    assert found.tokenizer == was.tokenizer and found.codec == was.codec and found.card["codec"] == {"steps": 0}
    known = TransformerStage(CONFIG, model, pairs, None, None, start=model).model["transformer"].condition.weight
    assert torch.allclose(known, was.transformer.condition.weight, atol=1e-3) and known.dtype == torch.float32
    assemble(model, again.file, made, mean_with=model, choice_temperature=1.5)
    assert load_model(made).card["mean_with"]["steps"] == 3 and load_model(made).config.choice_temperature == 1.5
    with pytest.raises(CheckpointError, match="stage 'evaluator', got a model"):
        load_stage(made, "evaluator")


def test_assembly_refuses_another_codec(tmp_path, codec_file, pairs):
    result = train_transformer(CONFIG, codec_file, pairs, out=tmp_path, steps=1, progress=False)
    config = CodecConfig(width=16, code_dim=8, codes=64, quantizer="fsq", levels=(4, 4, 4))
    other = tmp_path / "other.safetensors"
    save_stage(other, "codec", {"representation": "hybrid", "codec": to_dict(config)},
               {"codec": Codec(config).state_dict(), "normalizer": Normalizer.identity(22, 12).state_dict()}, {})
    with pytest.raises(CheckpointError, match="another configuration"):
        assemble(other, result.file, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_the_text_encoder_brings_phrasings_together_and_starts_the_transformer(tmp_path, codec_file, pairs):
    config = TextTraining(text=TEXT, loop=replace(LOOP, steps=80, batch=6))
    result = train_text(config, pairs, out=tmp_path, prompts=("two people hug",), progress=False)
    assert result.metrics["nearest"] > 0.8
    encoder, tokenizer, text = load_text(result.file)
    stage = TransformerStage(CONFIG, codec_file, pairs, None, result.file)
    assert stage.tokenizer == tokenizer and stage.text == text
    assert torch.equal(stage.model["text"].embedding.weight, encoder.embedding.weight)


def test_groups_hold_both_sides_of_the_mirror(pairs):
    groups = groups_of(pairs)
    assert len(groups) == 5 and any("they shake their right hands" in group for group in groups)


def test_wrong_shares_are_refused():
    with pytest.raises(ConfigError, match="at most 1"):
        Shares(interaction=0.7, streaming=0.5)
    with pytest.raises(ConfigError, match="shares.cold"):
        Shares(cold=1.5)


def test_a_pair_becomes_the_demos_scene(tmp_path, monkeypatch):
    from rtinteract.training.pairs import Contact, PairClip

    from rtinteract.cli import demo

    bodies = [walk(40, i) for i in range(2)]
    root, rotations, offsets = (np.stack([b[k] for b in bodies]).astype(np.float32) for k in range(3))
    clip = PairClip(root, rotations, offsets, "wave", ("they meet",), (Contact(21, 21, 20, 30),), 30.0, 5, {})
    (tmp_path / "assets").mkdir()
    bundle_scene(clip, tmp_path / "assets")
    monkeypatch.setattr(demo.resources, "files", lambda package: tmp_path)
    actor, start, about = demo.bundled_scene()
    assert len(actor) == 40 and len(start) == 4 and about["text"] == "they meet"
    assert np.abs(actor.positions - clip.motions()[0].positions).max() < 1e-5
    assert about["contacts"][0]["joint_a"] == 21 and about["contacts"][0]["end"] == 30


def test_a_run_begins_with_what_another_learned(tmp_path, codec_file, pairs):
    train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "a", progress=False)
    first = tmp_path / "a" / "transformer.safetensors"
    stage = TransformerStage(CONFIG, codec_file, pairs, None, None, start=first)
    fresh = TransformerStage(CONFIG, codec_file, pairs, None, None)
    was = load_state(tmp_path / "a" / "state.pt", torch.device("cpu"))
    learned = fresh.validate(was["ema"])
    begun = stage.validate(stage.model.state_dict())
    assert begun == pytest.approx(learned, rel=1e-4)
    assert stage.tokenizer == load_transformer(first).tokenizer


def test_a_run_on_another_codec_keeps_what_is_not_of_codes(tmp_path, codec_file, pairs):
    train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "a", progress=False)
    first = tmp_path / "a" / "transformer.safetensors"
    other = untrained_codec(tmp_path / "other.safetensors", codes=30, levels=(3, 2, 5))
    stage = TransformerStage(CONFIG, other, pairs, None, None, start=first)
    begun, was = folded(stage.model.state_dict()), load_transformer(first)
    learned = was.transformer.state_dict()
    assert torch.equal(begun["transformer.condition.weight"], learned["condition.weight"])
    assert torch.equal(begun["transformer.token_embedding.weight"][30:], learned["token_embedding.weight"][-3:])
    assert begun["transformer.output.weight"].shape == (30, 16)
    assert stage.tokenizer == was.tokenizer
    result = train_transformer(CONFIG, other, pairs, out=tmp_path / "b", start=first, progress=False)
    assert load_transformer(result.file).codec.codes == 30


def test_a_start_of_another_kind_is_refused(tmp_path, codec_file, pairs):
    train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "a", progress=False)
    first = tmp_path / "a" / "transformer.safetensors"
    with pytest.raises(ConfigError, match="sizes"):
        TransformerStage(replace(CONFIG, sizes=Sizes(width=32, heads=2, layers=1, ff=32)), codec_file, pairs, None, None, first)
    with pytest.raises(ConfigError, match="text encoder"):
        train_transformer(CONFIG, codec_file, pairs, out=tmp_path / "b", text_file=first, start=first, progress=False)


def test_samples_show_the_truth_beside_what_was_made(tmp_path, codec_file, pairs):
    from PIL import Image
    from rtinteract.training.pairs import PairClip

    held_out = [PairClip(p.root.astype(np.float32), p.rotations.astype(np.float32), p.offsets.astype(np.float32), "wave",
                         p.texts) for p in pairs[:2]]
    stage = TransformerStage(CONFIG, codec_file, pairs, held_out, None)
    before = {k: v.clone() for k, v in stage.model.state_dict().items()}
    files = stage.pictures(stage.model.state_dict(), tmp_path / "samples", 2)
    assert [f.name for f in files] == ["reactions.png"] and min(Image.open(files[0]).size) > 100
    assert stage.model.training and all(torch.equal(v, before[k]) for k, v in stage.model.state_dict().items())
    assert all(p.requires_grad for p in stage.model["transformer"].parameters())
