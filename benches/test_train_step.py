"""One optimiser step of each trainer on made-up pairs, batch and all: samples a second, peak memory, and the share of the time
that goes into making the batch. Small sizes as they are; published sizes with few samples on a CPU, all of them on a GPU.

``memory_gb`` is what the published batch of 52 clips of 300 frames (codec: 512 windows) would take at this size and setting:
weights, gradients, optimiser and averages, and the activations of as many samples as are worked on at once.
"""

import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from measured import DEVICE, note, peak_memory, synced
from rtinteract.training.codec import CodecStage
from rtinteract.training.pairs import PairClip
from rtinteract.training.recipes import codec_recipe, transformer_recipe
from rtinteract.training.state import save_stage
from rtinteract.training.token_batches import APART
from rtinteract.training.trainer import Trainer
from rtinteract.training.transformer import TransformerStage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rtinteract.codec import Codec
from rtinteract.config import to_dict
from rtinteract.features import base
from rtinteract.features.normalize import Normalizer
from rtinteract.skeleton import SMPL22

FRAMES, CLIPS = 320, 12
# Samples a step that a CPU gets through in seconds.
FEW = {"codec": 8, "transformer": 2}
SETTINGS = {"plain": {}, "accumulate 2": {"accumulate": 2}, "recompute": {"recompute": True},
            "accumulate 2, recompute": {"accumulate": 2, "recompute": True}}


class Live(TorchDispatchMode):
    """The most bytes of tensors made within it that lived at once: an allocator keeps what is freed, so a CPU's resident memory
    tells a second run of a process nothing."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self._note(x.untyped_storage())
        return out

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size


def passes_peak(trainer):
    """Bytes that one part's forward and backward pass take: activations, and gradients as they come."""
    batch, part = trainer.batches(trainer.step)[0], trainer.parts[0]

    def passes():
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.backward(batch, part, {"": 1.0}, last=True)
    if DEVICE.type == "cuda":
        return peak_memory(passes)
    with Live() as live:
        passes()
    return live.peak


def clips():
    """Pairs of people whose joints swing by formula."""
    t = np.arange(FRAMES)[:, None] / 30
    found = []
    for k in range(CLIPS):
        g = np.random.default_rng(k)
        angle = 0.3 * np.sin(2 * np.pi * g.uniform(0.2, 1.0, 44) * t + g.uniform(0, 6, 44)).reshape(FRAMES, 2, 22)
        axis = g.normal(size=(2, 22, 3))
        axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
        turns = np.concatenate([np.cos(angle / 2)[..., None], np.sin(angle / 2)[..., None] * axis], -1)
        way = t[:, 0]
        root = np.stack([np.stack([0.3 * np.sin(way + p), 0.95 + 0 * way, 1.5 * p + 0.2 * way], -1) for p in range(2)])
        offsets = np.stack([SMPL22.offsets] * 2)
        found.append(PairClip(root.astype(np.float32), turns.swapaxes(0, 1).astype(np.float32), offsets.astype(np.float32),
                              "wave", ("two people wave",), meta={}))
    return found


def trainer_of(kind, size, settings, folder):
    """A trainer with the recipe of a size; text comes from the small encoder, for there is no CLIP here."""
    published = size == "published"
    name = "interhuman" if published else "small"
    config = (codec_recipe if kind == "codec" else transformer_recipe)(name)
    batch = FEW[kind] if published and DEVICE.type == "cpu" else config.loop.batch
    loop = replace(config.loop, steps=100, epochs=None, minutes=None, batch=batch, device=DEVICE.type, **settings)
    config = replace(config, loop=loop)
    if kind == "codec":
        stage = CodecStage(config, [], clips())
    else:
        codec = codec_recipe(name)
        torch.manual_seed(0)
        shape = base.get(codec.representation)
        save_stage(folder / "codec.safetensors", "codec", {"representation": codec.representation, "codec": to_dict(codec.codec)},
                   {"codec": Codec(codec.codec).state_dict(),
                    "normalizer": Normalizer.identity(shape.joints, shape.features).state_dict()}, {})
        config = replace(config, text=transformer_recipe("small").text)
        stage = TransformerStage(config, folder / "codec.safetensors", clips(), None, None)
    return Trainer(stage, loop, config, folder / "run", name=kind, progress=False)


def timed_steps(trainer, rounds):
    """Steps to time: crops that serve several steps are encoded at the first, so each visit counts the same."""
    visits = getattr(trainer.stage.config, "echo", 1)
    places = -(-rounds // visits)
    return [1 + place + APART * visit for visit in range(visits) for place in range(places)]


def whole_memory(kind, trainer, peak_bytes):
    """Gigabytes for the published batch: what the passes take grows with the samples; weights, gradients, the
    optimiser's two moments, what it works with and the averaged weights do not."""
    weights = sum(p.numel() * 4 for p in trainer.stage.model.parameters())
    return (6 * weights + peak_bytes * {"codec": 512, "transformer": 52}[kind] / trainer.loop.batch) / 1e9


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", ["small", "published"])
@pytest.mark.parametrize("kind", ["codec", "transformer"])
def test_train_step(benchmark, kind, size, setting, tmp_path):
    if size == "small" and setting != "plain":
        pytest.skip("the small model needs neither")
    if kind == "codec" and "recompute" in setting:
        pytest.skip("left to the transformer, which needs it more")
    trainer = trainer_of(kind, size, SETTINGS[setting], tmp_path)
    trainer.stage.model.train()
    making, order = [], iter(())

    def step():
        trainer.step = next(order, trainer.step)
        began = time.perf_counter()
        batches = trainer.batches(trainer.step)
        making.append(time.perf_counter() - began)
        return trainer.advance(batches)
    step()
    peak = passes_peak(trainer)
    making.clear()
    steps = timed_steps(trainer, 2 if size == "published" and DEVICE.type == "cpu" else 8)
    order = iter(steps)
    terms = benchmark.pedantic(synced(step), rounds=len(steps))
    assert torch.isfinite(terms["loss"]) and trainer.step == 1 + steps[-1] and len(making) == len(steps)
    took = benchmark.stats.stats.data
    more = {"memory_gb": whole_memory(kind, trainer, peak)} if size == "published" and peak else {}
    note(benchmark, trainer.autocast or torch.float32, peak_bytes=peak, batch=trainer.loop.batch,
         samples_s=trainer.loop.batch / benchmark.stats.stats.median, making_batches=sum(making) / sum(took), **more)
