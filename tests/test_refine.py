"""Codes that are searched for: nearer to the motion than the encoder's, never farther."""

import numpy as np
import pytest
import torch
from synthetic import walker

import rtinteract
from rtinteract import metrics
from rtinteract.codec import Codec
from rtinteract.config import CodecConfig
from rtinteract.errors import ConfigError
from rtinteract.features import base
from rtinteract.features.normalize import Normalizer
from rtinteract.motion import read_motion
from rtinteract.quantizer import FiniteScalarQuantizer, VectorQuantizer
from rtinteract.refine import refine


@pytest.fixture(scope="module")
def shipped():
    return rtinteract.load(device="cpu", precision="float32")


def quantizers():
    torch.manual_seed(0)
    return VectorQuantizer(50, 6, 0.99), FiniteScalarQuantizer((8, 5, 4), 6), FiniteScalarQuantizer((5, 4), 2, plain=True)


@pytest.mark.parametrize("quantizer", quantizers(), ids=("vq", "fsq", "fsq plain"))
def test_every_code_relaxes_and_snaps_back(quantizer):
    codes = len(quantizer.codebook) if isinstance(quantizer, VectorQuantizer) else len(quantizer.grid)
    ids = torch.arange(codes).view(1, 2, -1)
    free = quantizer.relaxed(ids).requires_grad_()
    rows, found = quantizer.snapped(free)
    assert torch.equal(found, ids)
    assert torch.allclose(rows, quantizer.vectors(ids), atol=1e-5)
    rows.square().sum().backward()
    assert torch.isfinite(free.grad).all() and free.grad.abs().sum() > 0
    assert torch.equal(quantizer.snapped(free + 0.01 * torch.randn_like(free))[1], ids)
    far = quantizer.snapped(free * 100)[1]
    assert far.min() >= 0 and far.max() < codes


def test_steps_bring_the_shipped_codec_nearer_without_more_trembling_or_sliding(shipped):
    truth = walker(3.0).moved(0.7, (5.0, 0.0, 1.0)).to_model()
    plain, near = shipped.reconstruct(truth), shipped.reconstruct(truth, refine=30)
    assert len(near) == len(truth)
    assert metrics.mpjpe(near, truth) < 0.7 * metrics.mpjpe(plain, truth)
    assert metrics.mpjpe(near, truth, align="root") < metrics.mpjpe(plain, truth, align="root")
    assert metrics.jitter(near) < 1.2 * metrics.jitter(plain)
    assert metrics.foot_slide(near) < 1.2 * max(metrics.foot_slide(plain), metrics.foot_slide(truth))


def test_a_real_clip_never_trained_on_comes_within_the_aims(shipped, shared):
    truth = read_motion(shared / "mocap" / "cmu-pair" / "18_01.bvh").to_model()[60:188]
    near = shipped.reconstruct(truth, refine=100)
    assert metrics.mpjpe(near, truth) < 55 and metrics.mpjpe(near, truth, align="root") < 32


def test_a_piece_does_not_depend_on_its_neighbours(shipped):
    truth = walker(64 * 3 / 30).to_model()
    together = shipped.reconstruct(truth)
    alone = [shipped.reconstruct(truth[i:i + 64]) for i in range(0, len(truth), 64)]
    assert np.abs(together.positions - np.concatenate([m.positions for m in alone])).max() < 1e-4


def test_it_also_serves_in_inference_mode_and_bfloat16(shipped):
    truth = walker(1.0).to_model()
    with torch.inference_mode():
        near = shipped.reconstruct(truth, refine=30)
    assert metrics.mpjpe(near, truth) < metrics.mpjpe(shipped.reconstruct(truth), truth)
    narrow = rtinteract.load(device="cpu", precision="bfloat16")
    assert metrics.mpjpe(narrow.reconstruct(truth, refine=30), truth) < metrics.mpjpe(narrow.reconstruct(truth), truth)


def test_a_published_form_and_codebook_can_be_refined():
    torch.manual_seed(1)
    codec = Codec(CodecConfig(width=24, widths=(12, 16, 24), code_dim=8, codes=64, dropout=0.0)).eval()
    representation, normalizer = base.get("interhuman"), Normalizer.identity(22, 12)
    motion = walker(1.1).to_model()[:33]
    positions, rotations = (torch.tensor(x.tolist())[None] for x in (motion.positions, motion.rotations))
    image = normalizer(representation.encode(positions, rotations))
    codes = codec.encode(image)
    codec.quantizer.codebook.mul_(3)

    @torch.no_grad()
    def error(codes):
        made = codec.decode(codes)[..., :3] - positions[:, :32]
        return float(made.norm(dim=-1).mean() + (made - made[:, :, :1]).norm(dim=-1).mean())
    found = refine(codec, normalizer, representation, codes, positions, rotations, steps=40)
    assert found.shape == codes.shape and found.dtype == codes.dtype
    assert error(found) < error(codes)


def test_frames_past_the_last_column_are_not_seen(shipped):
    motion, pipeline = walker(35 / 30).to_model(), shipped.pipeline
    positions, rotations = (torch.tensor(x.tolist())[None] for x in (motion.positions, motion.rotations))
    codes = shipped.codec.encode(pipeline.normalizer(pipeline.representation.encode(positions, rotations)))
    long, short = (refine(shipped.codec, pipeline.normalizer, pipeline.representation, codes, positions[:, :frames],
                          rotations[:, :frames], steps=20, anchor=0) for frames in (35, 32))
    assert long.shape == codes.shape == (1, 5, 8) and torch.equal(long, short) and not torch.equal(long, codes)


@pytest.mark.parametrize("steps", [-1, 1.5, True, "many"])
def test_bad_steps_are_told(shipped, steps):
    with pytest.raises(ConfigError, match="refine: expected a whole number of steps"):
        shipped.reconstruct(walker(1.0), refine=steps)


def test_no_step_changes_nothing(shipped):
    truth = walker(1.0)
    assert np.array_equal(shipped.reconstruct(truth).positions, shipped.reconstruct(truth, refine=0).positions)
