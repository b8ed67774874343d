"""Fixtures that several suites share."""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch: several processes of several threads each would wait for each other's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():
    # Before anything imports Triton: without a GPU kernels are interpreted.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from synthetic import walker

from rtinteract.checkpoint import build, save_model
from rtinteract.config import CodecConfig, ModelConfig, TextConfig, TransformerConfig
from rtinteract.features.base import get
from rtinteract.features.normalize import Normalizer
from rtinteract.text import TextTokenizer, train_tokenizer

WORKER = "PYTEST_XDIST_WORKER" in os.environ
# Processes of a whole run, at most: what one file's tests share is made once in each.
PROCESSES = 4
BUILD = Path(__file__).resolve().parents[1] / "build"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """A run of the whole suite takes a process a processor, where pytest-xdist is there and no option says otherwise."""
    if WORKER:
        # A process of such a run comes here too.
        return
    o, cpus = config.option, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = config.args_source == config.ArgsSource.TESTPATHS
    if whole and cpus > 1 and not o.collectonly and not o.usepdb and getattr(o, "numprocesses", 0) is None and o.dist == "no":
        o.numprocesses, o.dist = min(PROCESSES, cpus), "loadfile"


@contextmanager
def _turn(alone: bool):
    """Beside other processes' tests, or while none of theirs runs. Who wants to be alone keeps the door shut meanwhile: else the
    others' tests, one after the other, would leave no gap."""
    if not WORKER:
        yield
        return
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "tests.door", "w") as door, open(BUILD / "tests.room", "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with _turn(item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and motion capture beside the checkout; its tests skip where it is absent."""
    if not (SHARED / "oracles").is_dir():
        pytest.skip("needs ../shared (oracles and motion capture), which is not beside this checkout")
    return SHARED


def _standing(config: ModelConfig) -> Normalizer:
    """Statistics of someone who stands: without them an untrained decoder's bodies would shrink to a point."""
    motion = walker(1.0, speed=0.0)
    positions, rotations = (torch.tensor(x, dtype=torch.float32) for x in (motion.positions, motion.rotations))
    mean = get(config.representation).encode(positions, rotations).mean(0)
    return Normalizer(mean, torch.full_like(mean, 0.05))


@pytest.fixture(scope="session")
def small_model_path(tmp_path_factory) -> Path:
    """A whole untrained model, small and always the same: bodies of human size that stand and shiver, every path runs."""
    tokenizer = train_tokenizer(["two people shake hands", "one person waves and the other waves back"], 280)
    vocabulary = TextTokenizer(tokenizer).vocabulary
    config = ModelConfig(
        representation="hybrid", window=64, name="small-untrained",
        codec=CodecConfig(width=16, code_dim=16, codes=32, depth=1),
        transformer=TransformerConfig(codes=32, code_dim=16, width=24, heads=2, layers=1, ff=32, condition=16, parts=5,
                                      placement=True),
        text=TextConfig(kind="bpe", width=16, layers=1, heads=2, ff=32, vocabulary=vocabulary, max_tokens=32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        parts = build(config)
    parts.tokenizer, parts.normalizer = tokenizer, _standing(config)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, parts, card={"source": "untrained, for tests"})
    return path
