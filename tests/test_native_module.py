"""rtinteract._native over the worker thread: a Python planner that does everything wrong, and the true one."""

import gc
import subprocess
import sys
import threading
import time

import native_lanes as native
import numpy as np
import pytest

import rtinteract.worker
from rtinteract.skeleton import SMPL22

native.installed("librtinteract_python.so")
_native = pytest.importorskip("rtinteract._native")

pytestmark = pytest.mark.alone

STAND = np.tile(np.float32([1, 0, 0, 0]), (22, 1))


class FakeHost:
    """Answers with the actor's last pose a metre aside; ``fault`` is called before each answer."""

    fault = staticmethod(lambda: None)
    inside = threading.Event()
    batches: list[int] = []
    contact = None

    def __init__(self, path, data, device, precision, threads, vram_limit, prompt_bank):
        self.prompts = {}

    def open(self, session, seed, window, horizon, hop, iterations, prompt, contact):
        self.prompts[session] = prompt
        return hop or 4

    def close(self, session):
        pass

    def hop(self, requests):
        FakeHost.inside.set()
        FakeHost.batches.append(len(requests))
        FakeHost.fault()
        answers = []
        for session, actor, _, _, prompt, contact in requests:
            FakeHost.contact = contact
            assert actor.shape == (4, 91) and actor.dtype == np.float32
            self.prompts[session] = prompt or self.prompts.get(session)
            rows = np.repeat(actor[-1:], 16, 0)
            rows[:, 2] += 1
            answers.append("told to fail" if self.prompts[session] == "fail" else rows)
        return answers


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(rtinteract.worker, "Host", FakeHost)
    monkeypatch.setattr(FakeHost, "fault", staticmethod(lambda: None))
    FakeHost.inside.clear()
    FakeHost.batches = []
    return FakeHost


def play(session, seconds, begin, rate=60.0):
    """The engine's loop; every pose that came out, checked."""
    out = np.empty((22, 4), np.float32)
    info = {}
    for i in range(round(seconds * rate)):
        t = begin + i / rate
        session.push(t, np.float32([0.01 * i, 0.94, 0]), STAND)
        root, rotations, info = session.pull(t, out=out)
        assert rotations is out and np.isfinite(root).all()
        assert np.allclose(np.linalg.norm(out, axis=-1), 1, atol=1e-3)
        time.sleep(1 / rate)
    return root, info


def test_the_module_follows_a_planner(host):
    model = _native.Model()
    assert model.wait(20)
    session = _native.Session(model, prompt="wave")
    assert session.warmup(20) and not session.ready()
    assert session.joints() == list(SMPL22.joints)
    root, info = play(session, 0.8, 5.0)
    assert info["status"] == "RTI_OK" and info["plan"] >= 3 and abs(root[2] - 1) < 1e-3
    assert session.stats()["hops"] >= 3 and session.error() == ""
    assert session.push(2.0, np.float32([0, np.nan, 0]), STAND) == "RTI_E_POSE" and "finite" in session.error()
    assert host.contact is False
    session.set_flags(_native.FOOT_LOCK | _native.CONTACT)
    play(session, 0.4, 6.0)
    assert host.contact is True
    session.set_prompt("fail")
    play(session, 0.5, 6.5)
    assert session.error() == "told to fail" and session.stats()["failed_hops"] >= 1


def raising():
    raise RuntimeError("the planner broke")


@pytest.mark.parametrize("fault", [raising, lambda: time.sleep(1.5)], ids=["raises", "hangs"])
def test_a_broken_planner_stops_nothing(host, fault):
    model = _native.Model()
    session = _native.Session(model)
    assert session.warmup(20)
    play(session, 0.5, 5.0)
    host.fault = staticmethod(fault)
    _, info = play(session, 1.2, 5.5)
    assert info["state"] in (2, 3) and info["status"] == "RTI_OK"
    if fault is raising:
        assert session.stats()["failed_hops"] >= 3 and "the planner broke" in session.error()
    host.fault = staticmethod(lambda: None)
    _, info = play(session, 1.5, 6.7)
    assert info["state"] == 1 and session.stats()["fallbacks"] == 1


def test_a_model_that_cannot_load_says_why(monkeypatch):
    def broken(*arguments):
        raise OSError("no such weights")

    monkeypatch.setattr(rtinteract.worker, "Host", broken)
    model = _native.Model()
    with pytest.raises(ValueError, match="RTI_E_PYTHON.*no such weights"):
        model.wait(20)
    session = _native.Session(model)
    root, _, info = session.pull(1.0)
    assert info["status"] == "RTI_NOT_READY" and np.isfinite(root).all()
    with pytest.raises(ValueError, match="RTI_E_FILE"):
        _native.Model(path="/nowhere/model.safetensors")
    with pytest.raises(ValueError, match="RTI_E_SKELETON"):
        _native.Session(None, actor="centaur")


def test_sessions_share_hops_and_end_in_any_order_while_they_hop(host):
    host.fault = staticmethod(lambda: time.sleep(0.15))
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        host.inside.clear()
        model = _native.Model()
        handles = [_native.Session(model), _native.Session(model), model]
        assert handles[0].warmup(20) and handles[1].warmup(20)
        for i in range(80):
            for session in handles[:2]:
                session.push(i / 60, np.float32([0, 0.94, 0]), STAND)
            time.sleep(0.005)
        assert host.inside.wait(10)
        del model, session
        for i in order:
            handles[i] = None
            gc.collect()
    assert max(host.batches) == 2


def test_a_process_ends_while_it_hops():
    code = ("import sys, time; sys.path[:0] = ['tests']; import numpy as np; from rtinteract import _native, worker\n"
            "from test_native_module import FakeHost, STAND\n"
            "worker.Host = FakeHost; FakeHost.fault = staticmethod(lambda: time.sleep(0.3))\n"
            "model = _native.Model(); session = _native.Session(model); session.warmup(20)\n"
            "for i in range(40): session.push(i / 60, np.float32([0, 0.94, 0]), STAND)\n"
            "assert FakeHost.inside.wait(10); print('leaving')")
    done = subprocess.run([sys.executable, "-c", code], cwd=native.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "leaving\n", done.stderr


def test_the_true_planner_streams(small_model_path, tmp_path):
    model = _native.Model(path=str(small_model_path), device="cpu")
    assert model.wait(60)
    session = _native.Session(model, prompt="two people shake hands", hop=4, window=16, iterations=1)
    assert session.warmup(60)
    session.push(5.0, np.float32([0, 0.94, 1]), STAND, person=_native.REACTOR)
    begun, info = time.monotonic(), {"plan": 0}
    while info["plan"] < 3 and time.monotonic() < begun + 60:
        root, info = play(session, 0.2, 5.0 + time.monotonic() - begun)
    assert info["plan"] >= 3 and session.stats()["failed_hops"] == 0, session.error()
    model.save_prompts(["they bow"], str(tmp_path / "bank"))
    second = _native.Model(data=small_model_path.read_bytes(), device="cpu", prompt_bank=str(tmp_path / "bank"))
    assert second.wait(60)


CHAINS = [("hip", ["chest", "neck", "head"]), ("chest", ["lShoulder", "lElbow", "lHand", "lThumb"]),
          ("chest", ["rShoulder", "rElbow", "rHand"]), ("hip", ["lThigh", "lShin", "lFoot", "lToe"]),
          ("hip", ["rThigh", "rShin", "rFoot", "rToe"])]
REST = {"chest": (0, 25, 0), "neck": (0, 28, 0), "head": (0, 12, 0), "Shoulder": (18, 22, 0), "Elbow": (28, 0, 0),
        "Hand": (25, 0, 0), "Thumb": (3, 0, 4), "Thigh": (9, -6, 0), "Shin": (0, -42, 0), "Foot": (0, -40, 0), "Toe": (0, -6, 14)}


def bvh_like():
    """A skeleton as a BVH file has one: centimetres, +Y up, no rotations at rest, names that no preset has."""
    joints, parents, places = ["hip"], [-1], [(0, 95, 0)]
    for top, chain in CHAINS:
        above = joints.index(top)
        for name in chain:
            x, y, z = next(v for k, v in REST.items() if name.endswith(k))
            parents.append(above)
            above = len(joints)
            joints.append(name)
            places.append((-x if name.startswith("r") else x, y, z))
    return joints, parents, np.float32(places)


def test_a_skeleton_of_ones_own(host):
    joints, parents, places = bvh_like()
    own = _native.Skeleton(joints, parents, places, basis=np.eye(3), metres_per_unit=0.01)
    model = _native.Model()
    session = _native.Session(model, actor=own, reactor="unity", axes=2, flags=_native.FOOT_LOCK | _native.PUSH_OUT)
    assert session.warmup(20) and session.joints(_native.ACTOR) == joints and session.joints()[0] == "Hips"
    rotations = np.tile(np.float32([1, 0, 0, 0]), (len(joints), 1))
    for i in range(48):
        assert session.push(i / 60, np.float32([100, 95, 0]), rotations) == "RTI_OK"
        root, out, info = session.pull(i / 60)
        assert np.isfinite(root).all() and np.allclose(np.linalg.norm(out, axis=-1), 1, atol=1e-3)
        time.sleep(1 / 60)
    # A metre to the left of the origin and one ahead of the actor, in Unity's left-handed metres.
    assert info["plan"] >= 2 and root == pytest.approx([-1, 1, 1], abs=0.1)
    session.set_flags(0)
    assert session.pull(49 / 60)[2]["foot_slide"] == 0
    with pytest.raises(ValueError, match="RTI_E_VERSION"):
        session.set_flags(1 << 20)
    both = _native.Session(None, actor=own, reactor=own, hands=0.5)
    root, out, _ = both.pull(1.0)
    assert out.shape == (len(joints), 4) and 80 < root[1] < 110


def test_a_skeleton_comes_back_as_it_was_pushed():
    """Through the model and back: the placed reactor is shown as it was placed."""
    joints, parents, places = bvh_like()
    # Left-handed, +Z up.
    basis = np.float32([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    swapped = _native.Skeleton(joints, parents, places[:, [0, 2, 1]], basis=basis, metres_per_unit=0.01)
    rng = np.random.default_rng(0)
    turns = np.zeros((len(joints), 4))
    turns[:, 0] = 1
    body = [j for j, name in enumerate(joints) if not name.endswith(("Thumb", "Toe", "hest", "neck"))]
    turns[body, 1:] = 0.2 * rng.normal(size=(len(body), 3))
    turns = np.float32(turns / np.linalg.norm(turns, axis=-1, keepdims=True))
    mirrored = _native.Session(None, actor="smpl22", reactor=swapped, flags=0)
    assert mirrored.push(0.0, np.float32([10, 20, 95]), turns, person=_native.REACTOR) == "RTI_OK"
    root, out, _ = mirrored.pull(0.0)
    assert np.abs(root - [10, 20, 95]).max() < 0.1 and np.abs((out * turns).sum(-1)).min() > 1 - 1e-4


@pytest.mark.parametrize("spoil,text", [
    (lambda s: s.update(translations=s["translations"][:-1]), r"skeleton.translations: expected \[19, 3\], got \(18, 3\)"),
    (lambda s: s.update(rotations=np.ones((19, 3))), r"skeleton.rotations: expected \[19, 4\]"),
    (lambda s: s.update(parents=s["parents"][1:]), "skeleton.parents: expected one for each of 19 joints, got 18"),
    (lambda s: s.update(parents=[-1, 5, *s["parents"][2:]]), "RTI_E_SKELETON.*parent before joint 1"),
    (lambda s: s.update(joints=[f"bone {j}" for j in range(19)]), "RTI_E_SKELETON.*which joints are pelvis"),
    (lambda s: s.update(translations=s["translations"] * np.nan), "RTI_E_SKELETON.*finite translation"),
    (lambda s: s.update(rotations=np.zeros((19, 4))), "RTI_E_SKELETON.*unit quaternion"),
    (lambda s: s.update(basis=2 * np.eye(3)), "RTI_E_SKELETON.*square to each other"),
    (lambda s: s.update(basis=np.eye(4)), r"skeleton.basis: expected \[3, 3\]"),
    (lambda s: s.update(basis=np.eye(3), metres_per_unit=0.0), "RTI_E_SKELETON.*metres per unit above 0"),
    (lambda s: s.update(axes=9), "RTI_E_ARGUMENT.*RTI_AXES"),
    (lambda s: s.update(joints=[], parents=[], translations=np.zeros((0, 3))), "RTI_E_SKELETON.*1 to 4096 joints, got 0")])
def test_what_is_no_skeleton_is_refused_with_the_reason(spoil, text):
    joints, parents, places = bvh_like()
    asked = {"joints": joints, "parents": parents, "translations": places}
    spoil(asked)
    with pytest.raises(ValueError, match=text):
        _native.Session(None, actor=_native.Skeleton(**asked))
