"""An evaluation shared by two processes: the figures of one, one who writes, and nobody who waits for ever."""

import json
import re
from dataclasses import replace

import pytest
from distributed_runs import start_together
from rtinteract.training import tables_measure
from rtinteract.training.evaluate import evaluate
from rtinteract.training.tables_data import Contender, load_data
from rtinteract.training.tables_more import Tables
from test_tables import OPTIONS, folder, ruler  # noqa: F401

from rtinteract.model import load

ONLY = ("table1", "table2")
# Figures of time, which no two runs share.
TIMES = re.compile("seconds_a_sample|hop_|over_period")


def tables(out, pairs, evaluator, model, only=ONLY, repeats=3):
    """Some tables of a tiny model."""
    data, options = load_data(pairs, evaluator, None), replace(OPTIONS, repeats=repeats)
    return Tables(Contender("small", model, "cpu"), [], [data], out, options, progress=False).make(only)


TOGETHER = """
import os
from pathlib import Path

from rtinteract.errors import MotionError
from rtinteract.training import distributed, tables_measure
from rtinteract.training.sources import Unusable
from test_distributed_tables import plain, tables

out, pairs, ruler, model = map(Path, sys.argv[1:])
second, made, really = os.environ["RANK"] == "1", [], tables_measure._generate

def counted(*given):
    made.append(len(given[1]))
    return really(*given)

def refused(job):
    raise Unusable("broken", f"job {job}")

try:
    distributed.shared([0, 1], lambda job: refused(job) if job else job)
except MotionError as error:
    print("refused", error)
tables_measure._generate = counted
for name, batch in (("batches", 2), ("repeats", 32)):
    tables_measure.BATCH = batch
    tables(out / name, pairs, ruler, model)
    print(name, *made, flush=True)
    made.clear()
tables_measure.BATCH = 2
tables(out / "stream", pairs, ruler, model, ("streaming",), 1)
plain(out / "plain", pairs, model)
print("plain done", flush=True)

def dies(*given):
    if second and len(made) == 1:
        os._exit(7)
    return counted(*given)

tables_measure._generate = dies
tables(out / "crash", pairs, ruler, model, ("table1",))
"""


def plain(out, pairs, model):
    """The other evaluation, of the same pairs."""
    return evaluate(load(model, device="cpu"), pairs=pairs, out=out, progress=False, text=False, stream_limit=2)


@pytest.fixture(scope="module")
def together(tmp_path_factory, folder, ruler, small_model_path):  # noqa: F811
    """Where two processes wrote, what they said, and how they ended: the second one dies at last."""
    out = tmp_path_factory.mktemp("together")
    processes = start_together(out, TOGETHER, out, folder, ruler, small_model_path)
    said = [p.communicate(timeout=300)[0].splitlines() for p in processes]
    return out, said, [p.returncode for p in processes]


def flat(found, at=""):
    """Numbers of nested figures by their place; what is none stands in the place."""
    if isinstance(found, dict | list):
        items = found.items() if isinstance(found, dict) else enumerate(found)
        return {place: x for key, value in items for place, x in flat(value, f"{at}/{key}").items()}
    return {at: found} if isinstance(found, int | float) else {f"{at}={found}": 0}


def figures(out):
    """Everything measured in a folder, times left out."""
    found = {p.name: json.loads(p.read_text())["figures"] for p in (out / "measured").glob("*.json")}
    return {(name, key): value for name, one in found.items() for key, value in one.items() if not TIMES.match(key)}


def alike(some, all_of_them):
    """Up to rounding."""
    for key, value in some.items():
        assert all_of_them[key] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-7)), key


@pytest.mark.parametrize("name, batch, only, repeats", [
    ("batches", 2, ONLY, 3), ("repeats", 32, ONLY, 3), ("stream", 2, ("streaming",), 1)])
def test_two_processes_find_what_one_finds(together, tmp_path, folder, ruler, small_model_path, monkeypatch,  # noqa: F811
                                           name, batch, only, repeats):
    monkeypatch.setattr(tables_measure, "BATCH", batch)
    tables(tmp_path, folder, ruler, small_model_path, only, repeats)
    one, two = figures(tmp_path), figures(together[0] / name)
    assert len(one) > 40 and one.keys() == two.keys()
    alike(one, two)
    for table in (*only, "tables"):
        heads = [(at / f"{table}.md").read_text().splitlines()[0] for at in (tmp_path, together[0] / name)]
        assert heads[0] == heads[1]


def test_processes_take_batches_or_whole_repeats(together):
    """Three repeats of four pairs, and four samples of one text."""
    for name, counts in (("batches", [[2] * 4, [2] * 4]), ("repeats", [[4], [4, 4, 4]])):
        found = [[int(n) for n in line.split()[1:]] for said in together[1] for line in said if line.startswith(name)]
        assert sorted(found) == counts


def test_another_number_of_processes_goes_on_where_they_were(together, folder, ruler, small_model_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tables_measure, "_generate", lambda *given: pytest.fail("measured again"))
    tables(together[0] / "repeats", folder, ruler, small_model_path)


def test_the_plain_evaluation_is_shared_too(together, tmp_path, folder, small_model_path):  # noqa: F811
    one, two = plain(tmp_path, folder, small_model_path), json.loads((together[0] / "plain" / "report.json").read_text())
    for report in (one, two):
        del report["seconds"], report["streaming"]["latency"], report["model"]["threads"]
    assert flat(json.loads(json.dumps(one))) == pytest.approx(flat(two), rel=1e-6, abs=1e-9)
    assert (together[0] / "plain" / "reactions.png").is_file()


def test_one_processs_error_is_everyones_and_a_dead_one_keeps_nobody_waiting(
        together, folder, ruler, small_model_path, monkeypatch):  # noqa: F811
    out, said, codes = together
    assert all("refused job 1" in lines and "plain done" in lines for lines in said), said
    assert codes[1] == 7 and codes[0] not in (0, 7), said
    kept = figures(out / "crash")
    assert {name for name, _ in kept if name.startswith("generation")}, "what was whole is kept"
    monkeypatch.setattr(tables_measure, "BATCH", 2)
    tables(out / "crash", folder, ruler, small_model_path, ("table1",))
    found = figures(out / "crash")
    assert len(found) > len(kept)
    alike(found, figures(out / "batches"))
