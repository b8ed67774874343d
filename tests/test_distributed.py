"""One batch on two processes, or in parts on one, against the undivided batch: samples, gradients, codebooks, stopping."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import here
from distributed_runs import close, start_together
from rtinteract.training.distributed import Part
from rtinteract.training.state import load_state
from test_train_codec import TINY, CodecStage, pair_clips, solo_clips, train_codec
from test_train_codec import config as codec_config
from test_train_transformer import CONFIG, TransformerStage, codec_file, pairs, train_transformer  # noqa: F401
from test_train_transformer import LOOP as TOKEN_LOOP
from test_trainer import LOOP, Toy, train

from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError
from rtinteract.motion.archive import read_people

VQ = CodecConfig(width=8, code_dim=8, codes=16, dropout=0.0)
SMALL_LOOP = dict(steps=3, batch=8, learning_rate=3e-3, warmup=1, precision="float32", threads=1, save_s=1e9, validate_s=1e9,
                  schedule="constant", ema=0.9)


def small_codec(codec, **loop):
    return codec_config(codec=codec, loop=replace(LOOP, **(SMALL_LOOP | loop)), frames=16, shortest=16, longest=24)


def state(folder):
    return load_state(folder / "state.pt", torch.device("cpu"))


def test_parts_cover_a_batch_once():
    for total, count in ((8, 2), (7, 3), (5, 5)):
        rows = [i for k in range(count) for i in range(total)[Part(k, count).rows(total)]]
        assert rows == list(range(total))
    with pytest.raises(ConfigError, match="loop.batch"):
        Part(0, 4).rows(3)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_parts_of_a_codecs_batch_are_its_rows(step):
    stage = CodecStage(small_codec(VQ), solo_clips(), pair_clips())
    whole, parts = stage.batch(step), [stage.batch(step, Part(k, 2)) for k in range(2)]
    for name, rows in whole._asdict().items():
        assert torch.equal(rows, torch.cat([getattr(p, name) for p in parts])), name


def test_parts_of_a_transformers_batch_are_its_rows(codec_file, pairs):  # noqa: F811
    stage = TransformerStage(CONFIG, codec_file, pairs, None, None)
    for step in range(4):
        whole, parts = stage.batch(step), [stage.batch(step, Part(k, 2)) for k in range(2)]
        for name in ("inputs", "labels", "schedule", "texts", "modes", "placement", "seen"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts])), name


@pytest.mark.parametrize("codec", [VQ, replace(TINY, dropout=0.0)], ids=["vq", "fsq"])
def test_gathered_gradients_are_the_undivided_batchs(tmp_path, codec):
    for parts in (1, 2):
        train_codec(small_codec(codec, accumulate=parts), solo_clips(), pair_clips(), out=tmp_path / str(parts), progress=False)
    close(state(tmp_path / "1"), state(tmp_path / "2"), 2e-4)


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"recompute": True}])
def test_a_transformer_learns_the_same_in_parts_and_with_recomputed_activations(tmp_path, codec_file, pairs, settings):  # noqa: F811
    text = replace(CONFIG.text, dropout=0.0)
    for name, more in (("plain", {}), ("other", settings)):
        config = replace(CONFIG, text=text, loop=replace(TOKEN_LOOP, steps=4, **more))
        train_transformer(config, codec_file, pairs, out=tmp_path / name, progress=False)
    close(state(tmp_path / "plain"), state(tmp_path / "other"), 2e-4)


TOGETHER = """
import os, signal
from dataclasses import replace
from pathlib import Path
import torch
from test_distributed import VQ, small_codec
from test_train_codec import TINY, pair_clips, solo_clips, train_codec
from test_trainer import LOOP, Toy, train
from rtinteract.cli.infer import generate
from rtinteract.training.distributed import gathered, own

out, second = Path(sys.argv[1]), os.environ["RANK"] == "1"
train_codec(small_codec(VQ), solo_clips(), pair_clips(), out=out / "vq", progress=False)
train_codec(small_codec(replace(TINY, dropout=0.0)), solo_clips(), pair_clips(), out=out / "fsq", progress=False)
train(out / "toy", loop=replace(LOOP, steps=6))
assert gathered([10 * i for i in own(5)]) == [0, 10, 20, 30, 40]
torch.set_num_threads(1)
generate(texts=None, out=[out / "made"], seconds=0.5, model=Path(sys.argv[2]), device="cpu", seed=3, iterations=2, guidance=2.0,
         temperature=1.0, choice_temperature=None, clip=None, bank=None, prompts=Path(sys.argv[3]), batch=2, form="npz",
         contact=False)
torch.distributed.barrier()
print("generated")
stop = train(out / "stopped", Toy(on_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if second and step == 5 else None),
             replace(LOOP, steps=2000))
print("ended", stop.reason, stop.steps, flush=True)

def broken(step):
    if second and step == 3:
        os._exit(7)

train(out / "crash", Toy(on_step=broken), replace(LOOP, steps=10**6))
"""
TEXTS = ["two people wave", "they meet", "two people bow", "they shake hands", "one follows the other"]


@pytest.fixture(scope="module")
def together(tmp_path_factory, small_model_path):
    """What two processes made, and how they ended: the second one dies at last."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    processes = start_together(folder, TOGETHER, folder / "two", small_model_path, folder / "prompts.txt")
    said = [p.communicate(timeout=300)[0] for p in processes]
    return folder, said, [p.returncode for p in processes]


@pytest.mark.parametrize("name, codec", [("vq", VQ), ("fsq", replace(TINY, dropout=0.0))])
def test_two_processes_train_as_one_and_one_goes_on(together, tmp_path, name, codec):
    two = together[0] / "two" / name
    one = train_codec(small_codec(codec), solo_clips(), pair_clips(), out=tmp_path, progress=False)
    close(state(tmp_path), state(two), 2e-4)
    assert "FutureWarning" not in "".join(together[1]), "what torch will no longer take is not asked of it"
    assert (two / "metrics.jsonl").read_text().count('"validation"') == 1, "the first process alone writes"
    if name == "fsq":
        more = train_codec(small_codec(codec, steps=5), solo_clips(), pair_clips(), out=two, progress=False)
        assert one.steps == 3 and more.steps == 5


def test_a_stage_that_is_not_divisible_is_the_same_on_both(together, tmp_path):
    train(tmp_path, loop=replace(LOOP, steps=6))
    close(state(tmp_path), state(together[0] / "two" / "toy"))


def test_an_interrupted_process_stops_all_and_a_dead_one_keeps_nobody_waiting(together):
    folder, said, codes = together
    ends = {line for s in said for line in s.splitlines() if line.startswith("ended")}
    # A batch is made while the step before it runs: the signal may come with the one or with the other.
    assert len(ends) == 1 and ends <= {"ended signal 5", "ended signal 6"}, said
    assert f"ended signal {state(folder / 'two' / 'stopped')['step']}" in ends
    assert codes[1] == 7 and codes[0] not in (0, 7)


def test_prompts_give_the_same_motions_on_any_number_of_processes(together, tmp_path, small_model_path, monkeypatch, capsys):
    folder = together[0]
    done = here(monkeypatch, capsys, "generate", "--texts", folder / "prompts.txt", "--out", tmp_path / "made", "-m",
                small_model_path, "--seconds", 0.5, "--seed", 3, "--iterations", 2, "--batch", 2)
    assert done.code == 0 and "5 pairs" in done.out
    one, two = (json.loads((f / "made" / "index.json").read_text())["pairs"] for f in (tmp_path, folder / "two"))
    assert [p["text"] for p in one] == [p["text"] for p in two] == TEXTS and {p["process"] for p in two} == {0, 1}
    for a, b in zip(one, two, strict=True):
        for x, y in zip(*(read_people((f / "made" / p["file"]).read_bytes(), p["file"])
                          for f, p in ((tmp_path, a), (folder / "two", b))), strict=True):
            assert np.array_equal(x.positions, y.positions) and len(x) == 15
    for wrong in (["wave", "--texts", folder / "prompts.txt"], [], ["--texts", folder / "prompts.txt", "--out", "a.glb"]):
        assert here(monkeypatch, capsys, "generate", *wrong, "-m", small_model_path).code == 1


def test_a_stage_that_compares_a_whole_batch_takes_no_parts(tmp_path):
    with pytest.raises(ConfigError, match="accumulate"):
        train(tmp_path, Toy(), replace(LOOP, accumulate=2))
