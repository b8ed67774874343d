"""The loop that all trainers share: resuming after any death, stopping, schedules, averaged weights, broken losses."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace

import pytest
import torch
from rtinteract.training.state import Ema, load_stage, load_state, save_stage, save_state
from rtinteract.training.trainer import Diverged, LoopConfig, Stage, Trainer, borrowed, generator, rate, step_seed
from torch import nn

from rtinteract.errors import CheckpointError, ConfigError

LOOP = LoopConfig(steps=30, batch=8, learning_rate=0.01, warmup=5, precision="float32", threads=1, save_s=0.0, validate_s=1e9,
                  ema=0.9)


@dataclass(frozen=True)
class Config:
    loop: LoopConfig = LOOP
    extra: dict = field(default_factory=dict)


class Toy(Stage):
    """A regression with dropout, so that the global random state matters too."""

    def __init__(self, seed=0, broken_at=None, on_step=None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 1))
        self.broken_at, self.on_step = broken_at, on_step

    def batch(self, step):
        if self.on_step:
            self.on_step(step)
        x = torch.randn(8, 4, generator=generator(1, step))
        return x, x.sum(1, keepdim=True)

    def loss(self, batch, step):
        x, y = batch
        loss = (self.model(x) - y).square().mean()
        if step == self.broken_at:
            loss = loss * float("nan")
        return loss, {"square": loss}

    @torch.no_grad()
    def validate(self, weights):
        with borrowed(self.model, weights) as model:
            x = torch.randn(64, 4, generator=generator(2, 0))
            return {"error": float((model(x) - x.sum(1, keepdim=True)).square().mean())}

    def export(self, path, weights, card):
        save_stage(path, "toy", {}, {"toy": weights}, card)


def train(out, stage=None, loop=LOOP, **kw):
    return Trainer(stage or Toy(), loop, Config(loop), out, name="toy", progress=False, **kw).run()


def weights_of(out):
    return load_state(out / "state.pt", torch.device("cpu"))


def same(a, b):
    assert a["step"] == b["step"]
    for kind in ("model", "ema"):
        assert all(torch.equal(v, b[kind][k]) for k, v in a[kind].items())
    for i, moments in a["optimizer"]["state"].items():
        assert all(torch.equal(v, b["optimizer"]["state"][i][k]) for k, v in moments.items())


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import rtinteract.training.state as state
from test_trainer import LOOP, Toy, train

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where, at, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
if where == "in save":
    saves, sync = [0], os.fsync
    def fsync(number):
        saves[0] += 1
        if saves[0] == at:
            os.ftruncate(number, 100)
            die()
        sync(number)
    state.os.fsync = fsync
train(out, Toy(on_step=lambda step: die() if where == "in step" and step == at else None))
"""


@pytest.mark.parametrize("where, at", [("in step", 13), ("in save", 9)])
def test_a_killed_run_resumes_and_ends_as_if_it_had_never_died(tmp_path, where, at):
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD.format(tests=os.path.dirname(__file__))))
    died = subprocess.run([sys.executable, str(script), where, str(at), str(tmp_path / "killed")],
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert 0 < weights_of(tmp_path / "killed")["step"] < 30
    train(tmp_path / "killed")
    train(tmp_path / "whole")
    same(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_and_gives_the_handler_back(tmp_path, number):
    before = signal.getsignal(number)
    stage = Toy(on_step=lambda step: os.kill(os.getpid(), number) if step == 11 else None)
    stopped = train(tmp_path / "stopped", stage, replace(LOOP, save_s=1e9))
    # The signal comes while a batch is made, which where a core is free is during the step before.
    assert stopped.reason == "signal" and stopped.steps in (11, 12)
    assert signal.getsignal(number) == before
    assert train(tmp_path / "stopped").reason == "steps"
    train(tmp_path / "whole")
    same(weights_of(tmp_path / "stopped"), weights_of(tmp_path / "whole"))


def test_the_caller_keeps_its_random_state(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_broken_loss_stops_with_the_good_state_kept(tmp_path):
    with pytest.raises(Diverged, match="step 20.*learning rate"):
        train(tmp_path, Toy(broken_at=20))
    state = weights_of(tmp_path)
    assert state["step"] == 20 and all(torch.isfinite(v).all() for v in state["model"].values())
    assert not (tmp_path / "toy.safetensors").exists()


def test_training_learns_and_exports_the_averaged_weights(tmp_path):
    start = Toy()
    before = start.validate(start.model.state_dict())["error"]
    result = train(tmp_path, start, replace(LOOP, steps=300))
    assert result.metrics["error"] < 0.3 * before
    about, parts = load_stage(result.file, "toy")
    averaged = weights_of(tmp_path)["ema"]
    assert all(torch.equal(v, averaged[k]) for k, v in parts["toy"].items())
    assert not torch.equal(averaged["0.weight"], start.model[0].weight)
    assert about["card"]["steps"] == 300 and about["card"]["metrics"] == result.metrics
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") >= 15


def test_minutes_end_a_run(tmp_path):
    result = train(tmp_path, loop=replace(LOOP, steps=None, minutes=0.005, save_s=1e9))
    assert result.reason == "minutes" and result.steps > 1


def test_another_configuration_is_not_resumed_but_other_limits_are(tmp_path):
    train(tmp_path, loop=replace(LOOP, steps=4))
    with pytest.raises(ConfigError, match="loop.learning_rate"):
        train(tmp_path, loop=replace(LOOP, learning_rate=0.5))
    assert train(tmp_path, loop=replace(LOOP, steps=8, save_s=1.0)).steps == 8
    assert train(tmp_path, loop=replace(LOOP, steps=3, learning_rate=0.5), resume=False).steps == 3


def test_schedules():
    cosine = LoopConfig(steps=100, learning_rate=1.0, warmup=10, final_rate=0.1)
    assert rate(cosine, 0, 0.0) == pytest.approx(0.1)
    assert rate(cosine, 50, 0.5) == pytest.approx(0.55)
    assert rate(cosine, 99, 1.0) == pytest.approx(0.1)
    step = replace(cosine, schedule="step", milestones=(0.5, 0.7), factor=0.1)
    assert [round(rate(step, 20, d), 6) for d in (0.4, 0.5, 0.9)] == [1.0, 0.1, 0.01]
    assert rate(replace(cosine, schedule="constant"), 50, 0.9) == 1.0


@pytest.mark.parametrize("wrong", [dict(steps=None), dict(steps=0), dict(minutes=-1.0), dict(schedule="linear"), dict(batch=0),
                                   dict(precision="float16")])
def test_a_wrong_loop_is_refused(wrong):
    with pytest.raises(ConfigError):
        LoopConfig(**({"steps": 10} | wrong))


def test_seeds_of_steps_differ():
    seeds = {step_seed(s, i, w) for s in range(3) for i in range(50) for w in ("", "model")}
    assert len(seeds) == 300 and all(0 <= s < 2 ** 63 for s in seeds)


def test_averaging_follows_weights_and_statistics_but_copies_codebooks():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("codebook", torch.zeros(2))
            self.register_buffer("count", torch.tensor(0))
    module = Module()
    ema = Ema(module, 0.5)
    for value in (module.weight.data, module.mean, module.codebook, module.count):
        value.fill_(1)
    ema.update(module, step=1000)
    assert {k: float(v.flatten()[0]) for k, v in ema.weights.items()} == {"weight": 0.5, "mean": 0.5, "codebook": 1, "count": 1}


def test_damaged_files_are_told(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        train(tmp_path)
    save_stage(tmp_path / "a.safetensors", "toy", {}, {"m": {"w": torch.zeros(3)}}, {})
    with pytest.raises(CheckpointError, match="stage 'codec', got 'toy'"):
        load_stage(tmp_path / "a.safetensors", "codec")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        load_stage(tmp_path / "a.safetensors", "toy")
    with pytest.raises(CheckpointError, match="train it first"):
        load_stage(tmp_path / "none.safetensors", "toy")


def test_a_failed_save_leaves_the_old_state(tmp_path, monkeypatch):
    save_state(tmp_path / "s.pt", {"step": 1})
    monkeypatch.setattr("rtinteract.training.state.torch.save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        save_state(tmp_path / "s.pt", {"step": 2})
    assert load_state(tmp_path / "s.pt", torch.device("cpu"))["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]


def test_the_best_result_is_kept_beside_the_latest(tmp_path):
    errors = iter((0.5, 0.2, 0.9, 0.4))

    class Uneven(Toy):
        best = "error"

        def validate(self, weights):
            return {"error": next(errors), "share": 0.5}
    train(tmp_path, Uneven(), replace(LOOP, steps=9, validate_steps=3))
    best, latest = (load_stage(tmp_path / f"toy{n}.safetensors", "toy")[0]["card"] for n in ("-best", ""))
    assert (best["steps"], best["metrics"]["error"]) == (6, 0.2) and (latest["steps"], latest["metrics"]["error"]) == (9, 0.4)
    assert weights_of(tmp_path)["best"] == {"metric": "error", "value": 0.2, "step": 6}
    errors = iter((0.3, 0.1))
    train(tmp_path, Uneven(), replace(LOOP, steps=12, validate_steps=3))
    assert load_stage(tmp_path / "toy-best.safetensors", "toy")[0]["card"]["steps"] == 12
    errors = iter((0.3,) * 9)
    with pytest.raises(ConfigError, match="loop.best: expected one of error, share"):
        train(tmp_path / "other", Uneven(), replace(LOOP, steps=3, best="+fid"))


def test_batches_made_ahead_are_the_same(tmp_path):
    made = []
    train(tmp_path / "ahead", Toy(on_step=made.append), replace(LOOP, steps=8, prefetch="on"))
    train(tmp_path / "plain", loop=replace(LOOP, steps=8))
    same(weights_of(tmp_path / "ahead"), weights_of(tmp_path / "plain"))
    assert made[:8] == list(range(8))
    logged = [json.loads(line) for line in (tmp_path / "ahead" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["waiting"] <= 1 for line in logged if line["kind"] == "train")


def test_a_full_disk_does_not_end_a_run_before_its_end(tmp_path, monkeypatch, caplog):
    full, save = {3, 4}, Trainer.save

    def sometimes(trainer):
        if trainer.step in full:
            raise OSError(28, "No space left on device")
        save(trainer)
    monkeypatch.setattr(Trainer, "save", sometimes)
    assert train(tmp_path / "a", loop=replace(LOOP, steps=6)).steps == 6
    assert "step 3 could not be saved (No space left" in caplog.text and weights_of(tmp_path / "a")["step"] == 6
    full.add(6)
    with pytest.raises(OSError):
        train(tmp_path / "b", loop=replace(LOOP, steps=6))
    assert weights_of(tmp_path / "b")["step"] == 5


def test_samples_are_drawn_after_a_validation_when_it_is_time(tmp_path):
    from PIL import Image

    class Painter(Toy):
        def pictures(self, weights, folder, count):
            folder.mkdir(parents=True)
            Image.new("RGB", (count, 2)).save(folder / "made.png")
            return [folder / "made.png"]
    train(tmp_path, Painter(), replace(LOOP, steps=9, validate_steps=2, sample_steps=4, samples=3))
    assert sorted(p.parent.name for p in (tmp_path / "samples").rglob("*.png")) == ["00000004", "00000008"]
    train(tmp_path / "none", Painter(), replace(LOOP, steps=9, validate_steps=2, sample_steps=4, samples=0))
    assert not (tmp_path / "none" / "samples").exists()


def test_a_run_from_before_a_setting_existed_goes_on(tmp_path):
    train(tmp_path, loop=replace(LOOP, steps=4))
    state = weights_of(tmp_path)
    config = json.loads(state["config"])
    for name in ("accumulate", "epochs", "warmup_epochs", "recompute", "best"):
        del config["loop"][name]
    del state["best"]
    save_state(tmp_path / "state.pt", state | {"config": json.dumps(config)})
    assert train(tmp_path, loop=replace(LOOP, steps=6)).steps == 6
