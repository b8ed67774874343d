"""Evaluation of a tiny untrained model: the figures exist, the baselines are what they say, what is missing is told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rtinteract.training import evaluate as evaluation
from rtinteract.training.evaluate_figures import START, Case, measure, stand_in, still, summary, versus
from rtinteract.training.pairs import Contact, PairClip, save_pairs
from synthetic import meeting, walker

from rtinteract import metrics
from rtinteract.checkpoint import build
from rtinteract.config import CodecConfig, ModelConfig, TextConfig, TransformerConfig
from rtinteract.errors import ConfigError
from rtinteract.features.canonical import frame_of
from rtinteract.model import Model
from rtinteract.motion import write_motion
from rtinteract.text import train_tokenizer


def tiny(text, tokenizer=None):
    """Untrained: its figures are bad, but they are figures."""
    torch.manual_seed(0)
    parts = build(ModelConfig(
        representation="hybrid", text=text,
        codec=CodecConfig(width=16, code_dim=16, codes=1000, quantizer="fsq", levels=(8, 5, 5, 5)),
        transformer=TransformerConfig(codes=1000, code_dim=16, width=32, heads=2, layers=1, ff=64, condition=32)))
    return Model(replace(parts, tokenizer=tokenizer))


@pytest.fixture(scope="module")
def model():
    return tiny(TextConfig(kind="none"))


def clip_of(pair, kind, seed, contacts=()):
    root, rotations = (np.stack([getattr(m, name) for m in pair]).astype(np.float32) for name in ("root", "rotations"))
    offsets = np.stack([m.skeleton.offsets for m in pair]).astype(np.float32)
    return PairClip(root, rotations, offsets, kind, ("they meet", "two people meet"), contacts, 30.0, seed, {"split": "test"})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    touch = (Contact(21, 21, 20, 30, 0.0),)
    save_pairs(folder, [clip_of(meeting(2.4), "handshake", 1, touch), clip_of(meeting(1.5), "ignore", 2),
                        clip_of(meeting(1.6, gap=2.0), "ignore", 3)])
    return folder


@pytest.fixture(scope="module")
def run(model, pairs, tmp_path_factory):
    """One evaluation with everything but the codec: (report, folder)."""
    out = tmp_path_factory.mktemp("out")
    for name, motion in zip("ab", meeting(1.5), strict=True):
        write_motion(out / f"{name}.npz", motion)
    report = evaluation.evaluate(model, pairs=pairs, real_pair=(out / "a.npz", out / "b.npz"), out=out / "report", progress=False)
    return report, out / "report"


def leaves(value, path=""):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


def case_of(pair, contacts=()):
    actor, truth = (m.to_model() for m in pair)
    return Case(actor, truth, contacts, "wave", "", 0)


def test_report_is_whole_and_finite(run):
    report, folder = run
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    assert all(math.isfinite(v) for _, v in leaves(report) if isinstance(v, float))
    assert set(report["reactions"]["contenders"]) == {"truth", "standing still", "random clip", "react", "react, no start"}
    assert set(report["streaming"]["contenders"]) == {"react", "stream"}
    assert report["reactions"]["pairs"] == 3 and report["reactions"]["with_contacts"] == 1
    assert report["reactions"]["kinds"]["ignore"]["pairs"] == 2
    assert report["reactions"]["kinds"]["ignore"]["react"]["contact_mean_cm"] is None
    assert report["reactions"]["contenders"]["react"]["contacts"] == 1
    latency = report["streaming"]["latency"]["stream"]
    assert latency["hops"] == 18 + 11 + 12 and 0 < latency["hop_p50_ms"] <= latency["hop_p99_ms"]


def test_truth_is_no_distance_from_itself(run):
    report, _ = run
    truth, react = (report["reactions"]["contenders"][name] for name in ("truth", "react"))
    assert truth["distance_m"] < 1e-9 and truth["heading_off_deg"] < 1e-9 and truth["jitter_ratio"] == pytest.approx(1)
    assert react["distance_m"] > 0.01
    real = report["real"]["contenders"]["the real B"]
    assert real["distance_off_m"] < 1e-9 and real["hand_at_contact_cm"] == pytest.approx(real["hand_nearest_cm"])


def test_readable_report_and_pictures(run):
    report, folder = run
    text = (folder / "report.md").read_text()
    for part in ("## Reactions", "## Streaming against offline", "## The real pair", "## Left out", "| standing still |"):
        assert part in text
    assert "reactions.png" in report["pictures"] and len(report["pictures"]) >= 4
    assert all((folder / name).stat().st_size > 1000 for name in report["pictures"])


def test_what_is_missing_is_said(run, model, pairs, tmp_path):
    left_out = " ".join(run[0]["left_out"])
    assert "no folder of solo" in left_out and "takes no text" in left_out
    report = evaluation.evaluate(model, pairs=pairs, out=tmp_path, limit=1, progress=False)
    assert report["streaming"]["pairs"] == 1
    left_out = " ".join(report["left_out"])
    assert "2 of 3 (limit 1)" in left_out and "real pair" in left_out and "random clip" in left_out
    assert "random clip" not in report["reactions"]["contenders"] and "real" not in report
    with pytest.raises(ConfigError, match="at least one of"):
        evaluation.evaluate(model, out=tmp_path)


def test_a_model_with_text_has_rows_with_text(pairs, tmp_path):
    config = TextConfig(kind="bpe", width=32, layers=1, heads=2, ff=32, vocabulary=300, max_tokens=32)
    model = tiny(config, train_tokenizer(["two people meet and shake hands"] * 3, 300))
    for name, motion in zip("ab", meeting(1.1), strict=True):
        write_motion(tmp_path / f"{name}.npz", motion)
    report = evaluation.evaluate(model, pairs=pairs, real_pair=(tmp_path / "a.npz", tmp_path / "b.npz"), out=tmp_path, limit=2,
                                 stream_limit=1, progress=False)
    assert "react + text" in report["reactions"]["against"] and report["reactions"]["each"][1]["text"] == "two people meet"
    assert set(report["streaming"]["contenders"]) == {"react", "react + text", "stream", "stream + text"}
    assert {"offline with text, with start", "streaming with text, with start"} <= set(report["real"]["contenders"])
    assert "stream_limit 1" in " ".join(report["left_out"]) and "takes no text" not in " ".join(report["left_out"])


def test_same_seed_same_motion_in_any_company(model):
    cases = [case_of(meeting(1.2)), case_of(meeting(2.5))]
    both = evaluation.react_all(model, cases, text=False, start=True, seed=3)
    alone = evaluation.react_all(model, cases[:1], text=False, start=True, seed=3)
    assert np.abs(both[0].positions - alone[0].positions).max() < 1e-3
    for made, case in zip(both, cases, strict=True):
        assert len(made) == len(case.truth)
        assert np.abs(made.positions[:START] - case.truth.positions[:START]).max() < 1e-5


def test_streamed_clip_begins_as_the_truth_and_is_as_long(model):
    cases = [case_of(meeting(1.1))]
    made, _ = evaluation.stream_all(model, cases, text=False, seed=0, progress=False)
    assert len(made[0]) == len(cases[0].truth) == 33
    assert np.abs(made[0].positions[:START] - cases[0].truth.positions[:START]).max() == 0


def test_streams_of_one_case_differ_and_repeat(model):
    case = case_of(meeting(1.5))
    one, other = evaluation.stream_together(model, [case, case], text=False, seed=5)
    assert np.abs(one.positions - other.positions).max() > 1e-3
    again, = evaluation.stream_together(model, [case], text=False, seed=6)
    assert np.abs(again.positions - other.positions).max() < 1e-3


def test_still_reactor_keeps_the_first_pose():
    case = case_of(meeting(1.0))
    stood = still(case)
    assert len(stood) == len(case.truth) and np.abs(np.diff(stood.positions, axis=0)).max() == 0
    assert (stood.positions[-1] == case.truth.positions[0]).all()
    found = measure(case, stood)
    assert found["jitter"] == 0 and found["foot_slide_mm"] == 0
    assert found["distance_m"] == pytest.approx(metrics.mpjpe(stood[START:], case.truth[START:]) / 1000)


def test_stand_in_begins_where_the_truth_begins():
    case, other = case_of(meeting(1.5)), walker(1.0, yaw=1.1, place=(3.0, 0, -2.0))
    moved = stand_in(case, other)
    here, there = frame_of(moved.positions[0]), frame_of(case.truth.positions[0])
    assert here.origin == pytest.approx(there.origin) and math.cos(here.yaw - there.yaw) == pytest.approx(1)
    assert len(moved) == len(case.truth) and metrics.fk_error(moved) < 1e-6
    assert (moved.positions[-1] == moved.positions[len(other) - 1]).all()
    assert metrics.jitter(moved[:30]) == pytest.approx(metrics.jitter(other[:30]))


def test_contacts_are_measured_at_their_own_frames():
    case = case_of(meeting(1.0), (Contact(21, 21, 10, 20, 0.0),))
    expected = metrics.contact_error(case.actor, case.truth, [(21, 21, 10, 20)])
    assert measure(case, case.truth)["contacts_cm"] == pytest.approx(expected.tolist())
    early = case_of(meeting(1.0), (Contact(21, 21, 0, START, 0.0),))
    assert measure(early, early.truth)["contacts_cm"] == []


def test_summary_and_versus_count_pairs():
    case = case_of(meeting(1.0), (Contact(21, 21, 10, 20, 0.0),))
    good, bad = measure(case, case.truth), measure(case, still(case))
    good["contacts_cm"], bad["contacts_cm"] = [4.0, 12.0], [30.0]
    found = summary([good, good])
    assert (found["contacts"], found["contact_mean_cm"]) == (4, 8.0)
    assert (found["contact_within_5_cm"], found["contact_within_20_cm"]) == (0.5, 1.0)
    better = versus([good] * 5, [bad] * 5)
    assert better["contact_cm"]["gain"] == pytest.approx(22) and better["contact_cm"]["won"] == 1
    assert better["distance_m"]["beats"]
    assert not versus([bad] * 5, [good] * 5)["distance_m"]["beats"]
    assert versus([{**good, "contacts_cm": []}], [bad])["contact_cm"] is None


def test_codec_section_weighs_frames(model):
    from rtinteract.training.solo import SoloClip
    clips = [SoloClip(walker(s).to_model(), "a walk", f"w{s}", f"w{s}", split) for s, split in
             ((1.5, "test"), (3.0, "test"), (2.0, "train"))]
    left_out = []
    found = evaluation.codec_section(model, clips, None, left_out, progress=False)
    assert found["clips"] == 2 and found["frames"] == 135 and not left_out
    assert found["reconstruct"]["mpjpe_mm"] == pytest.approx(sum(r["mpjpe_mm"] * r["frames"] for r in found["each"]) / 135)
    assert found["whole"]["aligned_mm"] > 0 and found["perplexity"] >= 1
    assert evaluation.codec_section(model, clips[2:], None, left_out, progress=False) == {} and "held-out" in left_out[0]
