"""The commands on real files: what they write can be read back, pairs are aligned, help teaches."""

import json
import time

import numpy as np
import pytest
from command_line import here, script
from motion_samples import bvh, row
from synthetic import walker

import rtinteract
from rtinteract.cli import demo
from rtinteract.cli.live import perform
from rtinteract.errors import CheckpointError, MotionError
from rtinteract.motion import read_motion, write_motion
from rtinteract.motion.archive import read_people
from rtinteract.motion.gltf import read_gltf

COMMANDS = (["demo"], ["react"], ["generate"], ["stream"], ["view"], ["doctor"], ["import-intermask"], ["import-clip"],
            ["evaluate"], ["prompts", "export"],
            ["train", "codec"], ["train", "text"], ["train", "transformer"], ["train", "assemble"], ["data", "compose"],
            ["data", "inspect"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a self-made capture in centimetres, 18 joints of its own names, 60 frames."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "actor.bvh").write_text(bvh([row(f * 0.5) for f in range(60)]))
    return folder


def test_react_writes_both_people_and_each_file_reads_back(work, small_model_path):
    done = script("react", "actor.bvh", "-m", small_model_path, "-t", "two people wave", "--iterations", 2, "--out", "pair.glb",
                  "--out", "pair.npz", "--out", "pair.bvh", cwd=work)
    assert done.code == 0, done.err
    assert "60 frames" in done.out and "units: cm assumed" in done.out and "pair.a.bvh and pair.b.bvh" in done.out
    actor, reactor = read_people((work / "pair.npz").read_bytes(), "pair.npz")
    truth = read_motion(work / "actor.bvh").to_model()
    assert len(actor) == len(reactor) == len(truth)
    np.testing.assert_allclose(actor.positions, truth.positions, atol=1e-9)
    for found, wanted in zip(read_gltf(work / "pair.glb"), (actor, reactor), strict=True):
        np.testing.assert_allclose(found.positions, wanted.positions, atol=1e-5)
    again = read_motion(work / "pair.b.bvh", units="cm")
    np.testing.assert_allclose(again.root, reactor.root, atol=1e-3)


def test_generate_numbers_the_pairs_and_names_what_it_wrote(work, small_model_path):
    done = script("generate", "two people wave", "they bow", "-m", small_model_path, "--iterations", 2, "--seconds", 1.5,
                  "--out", "made.npz", cwd=work)
    assert done.code == 0 and "made-0.npz" in done.out and "made-1.npz" in done.out, done.err
    for i in range(2):
        assert [len(m) for m in read_people((work / f"made-{i}.npz").read_bytes(), "")] == [45, 45]


def test_stream_prints_latency_and_writes_what_was_shown(work, small_model_path):
    done = script("stream", "actor.bvh", "-m", small_model_path, "--fast", "--iterations", 1, "--out", "shown.npz", cwd=work)
    assert done.code == 0, done.err
    for name in ("hop_p50_ms", "hop_p95_ms", "hop_p99_ms", "late_hops", "fps"):
        assert name in done.out
    actor, reactor = read_people((work / "shown.npz").read_bytes(), "")
    assert len(actor) == len(reactor) == 56


@pytest.mark.parametrize("hop, frames", [(4, 30), (8, 33)])
def test_a_streamed_pair_is_aligned_in_time(small_model_path, hop, frames):
    model, actor = rtinteract.load(small_model_path, device="cpu"), walker(frames / 30)
    (heard, reactor), first, report = perform(model, actor, real_time=False, iterations=1, hop=hop, seed=3)
    plans = model.stream(iterations=1, hop=hop, seed=3).push(actor)
    assert first == hop == plans[0].start and report["hops"] == frames // hop
    assert len(heard) == len(reactor) == frames - hop
    np.testing.assert_array_equal(heard.positions, actor.positions[hop:])
    for t in range(len(reactor)):
        plan = plans[t // hop]
        np.testing.assert_array_equal(reactor.positions[t], plan.reactor.positions[t + hop - plan.start])


def test_streaming_at_the_real_rate_takes_the_clips_time(small_model_path):
    model = rtinteract.load(small_model_path, device="cpu")
    began = time.perf_counter()
    _, _, report = perform(model, walker(1.0), iterations=1)
    assert time.perf_counter() - began >= 0.9 and 0 <= report["late_hops"] <= report["hops"] == 7
    with pytest.raises(MotionError, match="more than 4 frames"):
        perform(model, walker(4 / 30))


def test_contacts_move_with_the_pair_and_change_sides():
    contacts = [{"joint_a": 20, "joint_b": 21, "start": 2, "end": 10}, {"joint_a": 1, "joint_b": 2, "start": 0, "end": 4},
                {"joint_a": 9, "joint_b": 20, "start": 30, "end": 99, "gap": 0.1},
                {"joint_a": 3, "joint_b": 4, "start": 54, "end": 60}]
    assert demo.shifted(contacts, 4, 50) == [(21, 20, 0, 6, 0.0), (20, 9, 26, 50, 0.1)]


def test_view_draws_files_and_pairs(work, monkeypatch, capsys):
    from PIL import Image
    write_motion(work / "two.npz", (walker(0.5), walker(0.5, place=(0, 0, 1))))
    done = script("view", "two.npz", "--out", "two.png", cwd=work)
    assert done.code == 0 and "2 people" in done.out, done.err
    assert Image.open(work / "two.png").size[0] > 400
    monkeypatch.chdir(work)
    done = here(monkeypatch, capsys, "view", "actor.bvh")
    assert done.code == 0 and "1 person" in done.out and Image.open(work / "actor.gif").n_frames > 5


def test_import_intermask_makes_a_file_that_loads(shared, work):
    o = shared / "oracles"
    done = script("import-intermask", "--codec", o / "reference-tiny-vq.tar", "--transformer", o / "reference-tiny-trans.tar",
                  "--heads", 4, "--out", "imported.safetensors", cwd=work)
    assert done.code == 0 and "warning: no statistics" in done.err, done.err
    model = rtinteract.load(work / "imported.safetensors", device="cpu")
    assert model.config.representation == "interhuman" and model.config.transformer.heads == 4


def check_demo(work, done, frames):
    assert done.code == 0, done.err
    report = json.loads((work / "demo" / "report.json").read_text())
    assert {"hop_p50_ms", "hop_p95_ms", "hop_p99_ms", "real_time_factor", "foot_slide_mm", "penetration_max_cm", "jitter"
            } <= report.keys() and report["contact_error_cm"] > 0
    assert [len(m) for m in read_gltf(work / "demo" / "actor+reactor.glb")] == [frames - 4] * 2
    endings = (".glb", ".a.bvh", ".b.bvh", ".gif", ".png")
    assert {p.name for p in (work / "demo").iterdir()} == {"report.json", *(f"actor+reactor{e}" for e in endings)}


def test_demo_writes_everything_and_a_report(tmp_path, small_model_path, monkeypatch, capsys):
    about = {"text": "two people meet", "contacts": [{"joint_a": 21, "joint_b": 21, "start": 20, "end": 30}]}
    other = walker(0.2, yaw=np.pi, place=(0.0, 0.0, 2.0))
    monkeypatch.setattr(demo, "bundled_scene", lambda: (walker(1.5), other, about))
    check_demo(tmp_path, here(monkeypatch, capsys, "demo", "--fast", "-m", small_model_path, "--out", tmp_path / "demo"), 45)


def test_the_bundled_scene_plays(tmp_path, small_model_path, monkeypatch, capsys):
    try:
        actor, start, about = demo.bundled_scene()
    except CheckpointError as missing:
        pytest.skip(str(missing))
    assert about["text"] and len(actor) > 30 and len(start) >= 4 and demo.shifted(about["contacts"], 4, len(actor) - 4)
    done = here(monkeypatch, capsys, "demo", "--fast", "-m", small_model_path, "--out", tmp_path / "demo")
    check_demo(tmp_path, done, len(actor))


def test_help_teaches_with_an_example(work, monkeypatch, capsys):
    done = script("--help", cwd=work)
    assert done.code == 0 and all(name[0] in done.out for name in COMMANDS) and "rtinteract demo" in done.out
    monkeypatch.setenv("COLUMNS", "200")
    for name in COMMANDS:
        done = here(monkeypatch, capsys, *name, "--help")
        assert done.code == 0 and "Example: rtinteract " + " ".join(name) in done.out, name
    for group in ([], ["train"], ["data"], ["prompts"]):
        done = here(monkeypatch, capsys, *group)
        assert done.code in (0, 2) and "Usage" in done.out + done.err


def test_version_and_default_configurations_print_without_other_options(monkeypatch, capsys):
    assert rtinteract.__version__ in here(monkeypatch, capsys, "--version").out
    for stage in ("codec", "text", "transformer"):
        assert "loop" in json.loads(here(monkeypatch, capsys, "train", stage, "--show-config").out)
