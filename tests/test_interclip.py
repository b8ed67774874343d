"""The evaluator: features as the preprocessing has them, embeddings of the clip alone, training, import."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import here
from rtinteract.training.interclip import Evaluator, InterClip, InterClipConfig, rows_of, save_evaluator, sines
from rtinteract.training.interclip_import import import_evaluator
from rtinteract.training.interclip_train import EvaluatorStage, EvaluatorTraining, train_evaluator
from rtinteract.training.pairs import PairClip, save_pairs
from rtinteract.training.recognition import ceiling, prompts_by_kind, recognised
from rtinteract.training.trainer import LoopConfig
from safetensors.torch import load_file
from synthetic import meeting, walker

from rtinteract import rotation as R
from rtinteract.clip import ClipTower
from rtinteract.config import TextConfig
from rtinteract.errors import CheckpointError, ConfigError, MotionError
from rtinteract.features.interhuman import process_pair
from rtinteract.motion import Motion
from rtinteract.text import train_tokenizer

CLIP = Path(__file__).parent / "data" / "clip"
TEXT = TextConfig(kind="bpe", width=32, layers=1, heads=2, ff=32, vocabulary=300, max_tokens=24)
SMALL = InterClipConfig(patch=4, width=32, layers=1, heads=2, ff=64, dropout=0.0, embedding=16, most=60, text=TEXT)
LOOP = LoopConfig(steps=80, batch=12, learning_rate=3e-3, warmup=5, precision="float32", threads=1, ema=0.9, save_s=1e9,
                  validate_s=1e9)


def facing(gap, turn):
    """Two people who walk towards each other, or past one who looks away."""
    a, b = meeting(1.5, gap)
    return a, b if not turn else walker(1.5, yaw=0.0, place=(0.05, 0, gap / 2), speed=1.1)


def clips(kinds=("meet", "leave"), each=6):
    """Two kinds that look different, with texts that say so."""
    found = []
    for k, kind in enumerate(kinds):
        for i in range(each):
            pair = facing(2.0 + 0.15 * i, bool(k % 2))
            arrays = (np.stack([f(m) for m in pair]).astype(np.float32) for f in (
                lambda m: m.root, lambda m: m.rotations, lambda m: m.skeleton.offsets))
            found.append(PairClip(*arrays, kind, (f"two people {kind}", f"they {kind} now"), meta={"split": "test"}))
    return found


def tiny_evaluator(**changes):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["two people meet and leave"] * 3, 300)
    return Evaluator(InterClip(replace(SMALL, **changes)), tokenizer)


def tensors(pair):
    return (torch.tensor(np.stack([getattr(m, name) for m in pair]), dtype=torch.float32) for name in ("positions", "rotations"))


def test_rows_are_those_of_the_data_set():
    """A pair somewhere in the world, above the floor, written as the data set's files have it: Z up, 6D row by row."""
    pair = [m.moved(0.7, (1.0, 0.0, -2.0)) for m in meeting(0.5)]
    pair[1] = Motion(pair[1].positions + [0, 0.3, 0], pair[1].rotations, pair[1].skeleton, pair[1].fps)
    files = []
    for m in pair:
        p = m.positions
        z_up = np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1).reshape(len(p), 66)
        six = R.to_matrix(m.rotations[:, 1:])[..., :2].reshape(len(p), 126)
        files.append(np.concatenate([z_up, six], -1))
    first, second, _ = process_pair(*files)
    rows = rows_of(*tensors(pair))
    assert rows.shape == (len(pair[0]) - 1, 2, 258)
    np.testing.assert_allclose(rows, np.stack([first, second], 1)[..., :258], atol=2e-5)


def test_embeddings_depend_on_the_clip_alone():
    evaluator = tiny_evaluator()
    short, long = tuple(m[:30] for m in meeting(1.5)), meeting(1.9, 3.0)
    both = evaluator.pairs([long, short])
    np.testing.assert_allclose(both[1], evaluator.pairs([short])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), SMALL.scale, rtol=1e-5)
    elsewhere = tuple(m.moved(2.0, (3.0, 0.0, 1.0)) for m in short)
    np.testing.assert_allclose(evaluator.pairs([elsewhere])[0], both[1], atol=1e-4)
    assert np.abs(evaluator.pairs([short[::-1]])[0] - both[1]).max() > 1e-3
    texts = evaluator.texts(["two people meet", "they leave", "two people meet"])
    assert (texts[0] == texts[2]).all() and np.abs(texts[0] - texts[1]).max() > 1e-4


def test_frames_past_the_most_are_left_out_and_bad_pairs_named():
    evaluator, (a, b) = tiny_evaluator(), meeting(2.5)
    np.testing.assert_allclose(evaluator.pairs([(a, b)]), evaluator.pairs([(a[:60], b[:60])]), atol=1e-6)
    with pytest.raises(MotionError, match="one length"):
        evaluator.pairs([(a, b[:10])])


def test_a_trained_one_tells_kinds_apart_and_is_found_again(tmp_path):
    pairs, config = clips(), EvaluatorTraining(interclip=SMALL, loop=LOOP, mirror=0.0)
    result = train_evaluator(config, pairs, held_out=pairs, out=tmp_path, progress=False)
    assert result.reason == "steps" and result.metrics["r_precision_3"] >= 0.4
    evaluator = Evaluator.load(result.file)
    motion = evaluator.pairs([tuple(m.to_model() for m in c.motions()) for c in pairs])
    prompts = {kind: evaluator.texts(texts) for kind, texts in prompts_by_kind(pairs).items()}
    assert (recognised(prompts, motion, [c.kind for c in pairs]) == 0).mean() >= 0.9
    again = train_evaluator(config, pairs, held_out=pairs, out=tmp_path, progress=False)
    assert again.steps == 80
    (tmp_path / "other.safetensors").write_bytes(b"not a file")
    with pytest.raises(CheckpointError, match="damaged"):
        Evaluator.load(tmp_path / "other.safetensors")


def test_a_text_that_is_true_of_another_clip_tells_nothing_apart():
    stage = EvaluatorStage(EvaluatorTraining(interclip=SMALL, loop=LOOP, mirror=0.0), clips(), clips())
    batch = stage.batch(0)
    assert torch.equal(batch.lengths, stage.batch(0).lengths) and not torch.equal(batch.rows, stage.batch(1).rows)
    # Texts 0 and 1 are of one kind, 2 and 3 of the other.
    kind = batch.texts // 2
    same = kind[:, None] == kind
    assert torch.equal(batch.also, same & ~torch.eye(len(kind), dtype=torch.bool))
    loss, terms = stage.loss(batch, 0)
    assert loss.isfinite() and 0 <= terms["found"] <= 1
    with pytest.raises(ConfigError, match="clips with texts"):
        EvaluatorStage(EvaluatorTraining(interclip=SMALL, loop=LOOP), [replace(c, texts=()) for c in clips()], None)


def test_text_over_clip_is_frozen_below_and_trained_above():
    config = replace(SMALL, text=TextConfig(kind="clip", width=32, layers=1, heads=2, ff=32, vocabulary=1, max_tokens=77))
    with pytest.raises(ConfigError, match="expected a CLIP folder"):
        EvaluatorStage(EvaluatorTraining(interclip=config, loop=LOOP), clips(), None)
    stage = EvaluatorStage(EvaluatorTraining(interclip=config, loop=LOOP), clips(), None, CLIP)
    tower = ClipTower(CLIP, config.text).module
    assert torch.equal(stage.model.text.embedding.weight, tower.embeddings["token_embedding"].weight)
    stage.loss(stage.batch(0), 0)[0].backward()
    trained = {name for name, p in stage.model.named_parameters() if p.grad is not None}
    assert not {"text.embedding.weight", "text.positions"} & trained and "text.head.norm.weight" in trained


def published(path, change=None):
    """A checkpoint named as the published one is, tiny; and the network it holds."""
    torch.manual_seed(1)
    config = InterClipConfig(patch=1, width=32, layers=2, heads=8, ff=24, embedding=12, scale=1.0, text=TextConfig(
        kind="clip", width=32, layers=2, heads=8, ff=16, vocabulary=load_file(CLIP / "model.safetensors")[
            "embeddings.token_embedding.weight"].shape[0], max_tokens=77))
    module = InterClip(config)
    names = {"motion.query": "motion_encoder.query_token", "motion.embed": "motion_encoder.embed_motion",
             "motion.transformer": "motion_encoder.transformer", "motion.norm": "motion_encoder.out_ln",
             "motion.out": "motion_encoder.out", "text.embedding": "token_embedding", "text.positions": "positional_embedding",
             "text.head.encoder": "textTransEncoder", "text.head.norm": "text_ln", "text_out": "out", "scale": "latent_scale"}
    state = {"model.motion_encoder.sequence_pos_encoder.pe": sines(2000, 32)}
    for ours, tensor in module.state_dict().items():
        if ours not in ("motion.mean", "motion.std"):
            prefix = max((p for p in names if ours == p or ours.startswith(p + ".")), key=len)
            state["model." + names[prefix] + ours[len(prefix):]] = tensor
    if change:
        change(state)
    torch.save({"state_dict": state, "epoch": 4}, path)
    return module


def test_a_published_checkpoint_is_taken_to_the_letter(tmp_path):
    module = published(tmp_path / "interclip.ckpt")
    config = import_evaluator(tmp_path / "interclip.ckpt", CLIP, tmp_path / "evaluator.safetensors")
    assert (config.layers, config.text.layers, config.patch, config.embedding) == (2, 2, 1, 12)
    got = Evaluator.load(tmp_path / "evaluator.safetensors")
    want = Evaluator(module, (CLIP / "tokenizer.json").read_text())
    pair = meeting(0.8)
    np.testing.assert_allclose(got.pairs([pair]), want.pairs([pair]), atol=1e-6)
    np.testing.assert_allclose(got.texts(["two people wave"]), want.texts(["two people wave"]), atol=1e-6)


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("model.text_ln.bias"), "missing 1"),
    (lambda s: s.update({"model.extra": torch.zeros(1)}), "unexpected 1"),
    (lambda s: s.update({"model.motion_encoder.embed_motion.weight": torch.zeros(32, 10)}), "got 10"),
    (lambda s: s.update({"model.motion_encoder.sequence_pos_encoder.pe": torch.zeros(20, 32)}), "sine positions"),
    (lambda s: s.clear(), "state_dict"),
])
def test_another_checkpoint_is_refused(tmp_path, change, message):
    published(tmp_path / "interclip.ckpt", change)
    with pytest.raises(CheckpointError, match=message):
        import_evaluator(tmp_path / "interclip.ckpt", CLIP, tmp_path / "evaluator.safetensors")
    assert not (tmp_path / "evaluator.safetensors").exists()


def test_kinds_are_ranked_by_their_nearest_prompt():
    prompts = {"a": np.array([[0.0, 0], [9, 9]]), "b": np.array([[1.0, 0]]), "c": np.array([[5.0, 0]]), "d": np.array([[0.0, 7]])}
    motion = np.array([[0.1, 0], [8.0, 9], [1.1, 0], [1.1, 0]])
    assert recognised(prompts, motion, ["a", "a", "b", "d"]).tolist() == [0, 0, 0, 3]
    with pytest.raises(ConfigError, match="none of e"):
        recognised(prompts, motion[:1], ["e"])


def test_ceiling_is_what_shared_texts_allow():
    assert ceiling(["x"] * 4, 4).tolist() == [0.25, 0.5, 0.75]
    assert ceiling(["x", "y", "z"], 3).tolist() == [1, 1, 1]
    np.testing.assert_allclose(ceiling(["x", "x", "y", "z"], 4), [0.75, 1, 1])
    assert ceiling(["x", "y", "x", "x"], 2).tolist() == [0.75, 1, 1]


def test_sizes_are_checked():
    assert json.dumps(InterClipConfig.published().text.layers) == "8"
    for wrong in ({"width": 33}, {"patch": 0}, {"text": TextConfig(kind="none")}):
        with pytest.raises(ConfigError, match="interclip"):
            replace(SMALL, **wrong)


def test_a_file_holds_all_it_needs(tmp_path):
    evaluator = tiny_evaluator()
    tokenizer = train_tokenizer(["two people meet and leave"] * 3, 300)
    save_evaluator(tmp_path / "e.safetensors", SMALL, evaluator.module.state_dict(), tokenizer, {"steps": 1})
    back = Evaluator.load(tmp_path / "e.safetensors")
    assert back.card == {"steps": 1}
    np.testing.assert_allclose(back.texts(["they meet"]), evaluator.texts(["they meet"]), atol=1e-6)


def test_the_commands(tmp_path, monkeypatch, capsys):
    save_pairs(tmp_path / "pairs", clips())
    text = {"width": 32, "layers": 1, "heads": 2, "ff": 32, "vocabulary": 300, "max_tokens": 24}
    settings = {"interclip": {"width": 32, "layers": 1, "heads": 2, "ff": 64, "embedding": 16, "text": text},
                "loop": {"batch": 4, "warmup": 1, "precision": "float32", "threads": 1}}
    (tmp_path / "evaluator.json").write_text(json.dumps(settings))
    done = here(monkeypatch, capsys, "train", "evaluator", "--pairs", tmp_path / "pairs", "--out", tmp_path / "run", "--steps", 2,
                "--config", tmp_path / "evaluator.json")
    assert done.code == 0 and "r_precision_1" in done.out, done
    assert Evaluator.load(tmp_path / "run" / "evaluator.safetensors").card["steps"] == 2
    done = here(monkeypatch, capsys, "train", "evaluator", "--show-config", "--pairs", "x", "--out", "x")
    assert done.code == 0 and json.loads(done.out)["interclip"]["text"]["kind"] == "bpe"
    published(tmp_path / "interclip.ckpt")
    out = tmp_path / "published.safetensors"
    done = here(monkeypatch, capsys, "import-evaluator", tmp_path / "interclip.ckpt", "--tokenizer", CLIP, "--out", out)
    assert done.code == 0 and "2 layers" in done.out and out.is_file(), done
