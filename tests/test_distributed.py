"""One batch on two processes, or in parts on one, against the undivided batch: samples, gradients, codebooks, stopping."""

import contextlib
import signal
import time
from dataclasses import replace

import pytest
import torch
from distributed_runs import close, finish, start_together
from rtinteract.training.distributed import Part
from rtinteract.training.state import load_state
from test_train_codec import TINY, CodecStage, pair_clips, solo_clips, train_codec
from test_train_codec import config as codec_config
from test_train_transformer import CONFIG, TransformerStage, codec_file, pairs, train_transformer  # noqa: F401
from test_train_transformer import LOOP as TOKEN_LOOP
from test_trainer import LOOP, Toy, train

from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError

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
from dataclasses import replace
from pathlib import Path
import sys
from test_distributed import VQ, small_codec
from test_train_codec import TINY, pair_clips, solo_clips, train_codec
from test_trainer import LOOP, Toy, train

out = Path(sys.argv[1])
train_codec(small_codec(VQ), solo_clips(), pair_clips(), out=out / "vq", progress=False)
train_codec(small_codec(replace(TINY, dropout=0.0)), solo_clips(), pair_clips(), out=out / "fsq", progress=False)
train(out / "toy", loop=replace(LOOP, steps=6))
"""


def test_two_processes_train_as_one(tmp_path):
    finish(start_together(tmp_path, TOGETHER, tmp_path / "two"))
    clips = solo_clips(), pair_clips()
    for name, codec in (("vq", VQ), ("fsq", replace(TINY, dropout=0.0))):
        one = train_codec(small_codec(codec), *clips, out=tmp_path / "one" / name, progress=False)
        close(state(tmp_path / "one" / name), state(tmp_path / "two" / name), 2e-4)
        more = train_codec(small_codec(codec, steps=5), *clips, out=tmp_path / "two" / name, progress=False)
        assert one.steps == 3 and more.steps == 5, "a run goes on with another number of processes"
    train(tmp_path / "one" / "toy", loop=replace(LOOP, steps=6))
    close(state(tmp_path / "one" / "toy"), state(tmp_path / "two" / "toy"))
    logs = (tmp_path / "two" / "vq" / "metrics.jsonl").read_text()
    assert logs.count('"validation"') == 2, "the first process alone writes"


STOPPED = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from test_trainer import LOOP, Toy, train

def slowly(step):
    time.sleep(0.02)
    if step == 5 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    if step == 3 and sys.argv[2] == "crash" and os.environ["RANK"] == "1":
        raise RuntimeError("broken clip")

result = train(Path(sys.argv[1]), Toy(on_step=slowly), replace(LOOP, steps=2000))
print("ended", result.reason, result.steps)
"""


def test_an_interrupted_process_stops_all(tmp_path):
    said = finish(start_together(tmp_path, STOPPED, tmp_path / "run", "stop"))
    assert all("ended signal 6" in s for s in said)
    assert state(tmp_path / "run")["step"] == 6


def test_a_crashed_process_leaves_no_other_waiting(tmp_path):
    processes = start_together(tmp_path, STOPPED, tmp_path / "run", "crash")
    try:
        assert processes[1].wait(timeout=120) == 1
        # torchrun ends the others so; a process that waits for a dead one notices by itself with gloo.
        began = time.monotonic()
        processes[0].send_signal(signal.SIGTERM)
        assert processes[0].wait(timeout=120) != 0 and time.monotonic() - began < 110
    finally:
        for p in processes:
            with contextlib.suppress(OSError):
                p.kill()
            p.communicate()


def test_a_stage_that_compares_a_whole_batch_takes_no_parts(tmp_path):
    with pytest.raises(ConfigError, match="accumulate"):
        train(tmp_path, Toy(), replace(LOOP, accumulate=2))
