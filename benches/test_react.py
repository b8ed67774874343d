"""A reaction of 300 frames by a model of the published sizes (seeded weights), 12 iterations, guided: against the plain float32
path of the same weights in the same run. Must be at least 3 times faster on two cores."""

import pytest
import torch
from measured import DEVICE, note, peak_memory, seconds, synced, transformer_flops

from rtinteract.checkpoint import build
from rtinteract.config import ModelConfig, TextConfig
from rtinteract.pipeline import Pipeline
from rtinteract.precision import choose
from rtinteract.sampler import sample_codes

COLUMNS, ITERATIONS = 75, 12


def published():
    """The published InterHuman model with seeded weights; its modulations are not the zeros that training begins with."""
    config = ModelConfig(representation="interhuman", text=TextConfig(kind="none"), window=4 * COLUMNS, name="published sizes")
    torch.manual_seed(0)
    parts = build(config)
    for name, weight in parts.transformer.named_parameters():
        if "adaln" in name:
            torch.nn.init.normal_(weight, std=0.02)
    for module in parts.modules().values():
        module.to(DEVICE).eval().requires_grad_(False)
    return parts


@pytest.fixture(scope="module")
def parts():
    return published()


def reaction(pipeline):
    """Features of an actor to features of the other: encode, fill 375 tokens, decode."""
    g = torch.Generator().manual_seed(1)
    actor = torch.randn(1, 4 * COLUMNS, 22, 12, generator=g).to(DEVICE)
    condition = torch.randn(1, 768, generator=g).to(DEVICE)
    mask_id = pipeline.parts.config.transformer.mask_id

    @torch.inference_mode()
    def run():
        codes = torch.full((1, 2, 5, COLUMNS), mask_id, device=DEVICE)
        codes[:, 0] = pipeline.codec.encode(actor)
        filled = sample_codes(pipeline.transformer, codes, condition, torch.tensor([COLUMNS]), iterations=ITERATIONS)
        return filled, pipeline.codec.decode(filled[:, 1])

    return run


def test_react(benchmark, parts, monkeypatch):
    transformer = parts.config.transformer
    dtype, _ = choose("auto", DEVICE, transformer.width)
    monkeypatch.setenv("RTI_BACKEND", "reference")
    plain = seconds(reaction(Pipeline(parts, DEVICE)), 3)
    monkeypatch.delenv("RTI_BACKEND")
    run = reaction(Pipeline(parts, DEVICE, dtype))
    peak = peak_memory(run)
    codes, image = benchmark.pedantic(synced(run), rounds=5, warmup_rounds=1)
    assert codes.shape == (1, 2, 5, COLUMNS) and 0 <= int(codes.min()) and int(codes.max()) < 1024
    assert image.shape == (1, 4 * COLUMNS, 22, 12) and torch.isfinite(image).all()
    note(benchmark, dtype, eager_s=plain, peak_bytes=peak, iterations=ITERATIONS,
         flops=ITERATIONS * transformer_flops(transformer, 2, COLUMNS))
