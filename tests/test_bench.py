"""`rtinteract bench`: the table, the history, what counts as a regression; and the tuning script as far as no GPU is needed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from command_line import here
from rtinteract.kernels import blocks

from rtinteract.cli import bench
from rtinteract.errors import RtInteractError

ROOT = Path(__file__).resolve().parents[1]


def info(**figures):
    return {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4.0, "device": "AMD EPYC", "threads": 2, "dtype": "int8", "commit": "abc",
            **figures}


def results(**figures):
    return {"benchmarks": [{"fullname": "benches/test_hop.py::test_hop[text-3]", "extra_info": info(**figures)}]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout's benches whose history is empty."""
    (tmp_path / "benches").mkdir()
    for name in ("measured.py", "test_hop.py"):
        (tmp_path / "benches" / name).write_text("")
    monkeypatch.setattr(bench, "BENCHES", tmp_path / "benches")
    # What it starts is no worker of this suite's.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return tmp_path / "benches"


@pytest.fixture
def ran(folder, monkeypatch):
    figures = {"ratio": 3.0, "over_floor": 4.0, "peak_mb": 120.0}
    monkeypatch.setattr(bench, "_run", lambda chosen, threads: results(**figures))
    return figures


def test_one_table_with_ratios_and_memory(ran, monkeypatch, capsys):
    done = here(monkeypatch, capsys, "bench")
    head, row = done.out.splitlines()[:2]
    assert done.code == 0 and all(word in head for word in ("p99 ms", "x eager", "x floor", "peak MB"))
    assert "test_hop[text-3" in row and row.split()[1:] == ["2", "3", "4", "3", "4", "-", "-", "120", "int8"]


def test_history_keeps_a_file_a_machine_kind_and_compare_reads_it(ran, folder, monkeypatch, capsys):
    done = here(monkeypatch, capsys, "bench", "--compare")
    assert done.code == 1 and "--save first" in done.err
    assert here(monkeypatch, capsys, "bench", "--save").code == 0
    kept = json.loads((folder / "history" / "amd-epyc-2.json").read_text())
    assert kept["test_hop.py::test_hop[text-3]"]["ratio"] == 3.0
    assert here(monkeypatch, capsys, "bench", "--compare").code == 0
    ran["ratio"] = 2.0
    done = here(monkeypatch, capsys, "bench", "--compare")
    assert done.code == 1 and "ratio 3.00 -> 2.00" in done.err and len(done.err.splitlines()) == 1


def test_a_regression_is_a_worse_ratio_and_never_a_longer_time():
    before = {"a": info(ratio=3.0), "b": info(over_floor=2.0), "c": info()}
    slow = {"a": info(ratio=2.5, p50_ms=900.0), "b": info(over_floor=2.4), "c": info(p50_ms=900.0)}
    assert bench.regressions(slow, before) == []
    worse = bench.regressions({"a": info(ratio=2.3), "b": info(over_floor=2.6), "new": info(ratio=0.1)}, before)
    assert [line.split(":")[0] for line in worse] == ["a", "b"]


def test_what_is_missing_is_told(folder, monkeypatch, capsys, tmp_path):
    done = here(monkeypatch, capsys, "bench", "nothing")
    assert done.code == 1 and "hop" in done.err and "nothing" in done.err
    real = bench.importlib.util.find_spec
    with monkeypatch.context() as m:
        m.setattr(bench.importlib.util, "find_spec", lambda name: None if name == "pytest_benchmark" else real(name))
        assert "rtinteract[test]" in here(m, capsys, "bench").err
    with monkeypatch.context() as m:
        m.setattr(bench, "BENCHES", tmp_path / "absent")
        assert "checkout" in here(m, capsys, "bench").err
    with pytest.raises(RtInteractError, match="measured.note"):
        bench.figures_of({"benchmarks": [{"fullname": "x::y", "extra_info": {}}]})


@pytest.mark.parametrize("body, code, told", [
    ("def test_x(benchmark):\n    benchmark(sum, [1])\n    benchmark.extra_info.update(p50_ms=1.0, p95_ms=1.0, p99_ms=1.0, "
     "device='d', threads=1, dtype='float32', commit='c')\n", 0, "test_x"),
    ("def test_x(benchmark):\n    assert benchmark(sum, [1]) == 2\n", 1, "FAILED")])
def test_benchmarks_run_in_their_own_process(folder, monkeypatch, capsys, body, code, told):
    (folder / "test_hop.py").write_text(body)
    done = here(monkeypatch, capsys, "bench", "hop", "--threads", "1")
    assert done.code == code and told in done.out + done.err


@pytest.fixture
def tuner(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    sys.modules.pop("gpu", None)
    import gpu

    yield gpu
    sys.modules.pop("gpu")


def test_tuning_takes_the_fastest_choice_that_fits_and_leaves_the_table(tuner, capsys):
    before = {kind: dict(table) for kind, table in blocks.TABLE.items()}

    def measure(run):
        chosen = blocks.blocks_of("linear", torch.device("cpu"))
        if chosen["BLOCK_M"] == 128:
            raise RuntimeError("out of shared memory")
        return abs(chosen["BLOCK_M"] - 32) + abs(chosen["BLOCK_N"] - 128) + chosen["BLOCK_K"] + chosen["num_warps"]
    best = tuner.fastest("linear", None, "any", measure)
    assert best == {"BLOCK_M": 32, "BLOCK_N": 128, "BLOCK_K": 32, "num_warps": 4}
    assert blocks.TABLE == before and "passed over" in capsys.readouterr().out


def test_a_written_table_is_read_back(tuner, tmp_path):
    path = tmp_path / "blocks.py"
    path.write_text((ROOT / "kernels" / "blocks.py").read_text())
    table = blocks.TABLE | {"sm_90": {"linear": {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64, "num_warps": 8}}}
    for _ in range(2):
        tuner.write_table(table, path)
        found: dict = {}
        exec(compile(path.read_text(), path, "exec"), found)
        assert found["TABLE"] == table and found["blocks_of"]("linear", torch.device("cpu")) == blocks.TABLE["any"]["linear"]


def test_the_tuned_operations_run_and_without_a_gpu_the_script_says_so(tuner):
    for operation, run in tuner.cases(torch.device("cpu")).items():
        assert torch.isfinite(run()).all() and tuner.CHOICES[operation].keys() == blocks.TABLE["any"][operation].keys()
