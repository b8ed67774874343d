"""The tables: every figure measured is there, none is made up, and a broken run goes on where it was."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import here
from dataset_files import write_interhuman
from rtinteract.training import metrics, tables_measure
from rtinteract.training.interclip import InterClip, save_evaluator
from rtinteract.training.pairs import Contact, save_pairs
from rtinteract.training.plots import Chart, nice_steps, write_charts
from rtinteract.training.tables_data import Contender, Ledger, TableOptions, load_data, matching
from rtinteract.training.tables_gap import gap_of
from rtinteract.training.tables_more import Tables
from rtinteract.training.tables_write import Column, Row, Table, comma_separated, markdown, mean_and_half, together
from test_interclip import SMALL, clips

from rtinteract.errors import ConfigError
from rtinteract.stream import StreamConfig
from rtinteract.text import train_tokenizer

OPTIONS = TableOptions(repeats=2, pool=4, mm_texts=1, mm_repeats=4, mm_runs=1, iterations=1, reaction_iterations=1, sweep=(1,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A second of each of four kinds."""
    path = tmp_path_factory.mktemp("pairs")
    made = clips(("meet", "leave", "greet", "pass"), 1)
    save_pairs(path, [replace(c, root=c.root[:, :32], rotations=c.rotations[:, :32], contacts=(Contact(21, 21, 20, 28),), seed=i)
                      for i, c in enumerate(made)])
    return path


@pytest.fixture(scope="module")
def ruler(tmp_path_factory):
    """An untrained evaluator."""
    path = tmp_path_factory.mktemp("ruler") / "evaluator.safetensors"
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["two people meet and leave"] * 3, 300)
    save_evaluator(path, SMALL, InterClip(SMALL).state_dict(), tokenizer, {"steps": 0})
    return path


@pytest.fixture(scope="module")
def run(folder, ruler, small_model_path, tmp_path_factory):
    """(folder of the tables, the tables, their maker)."""
    out = tmp_path_factory.mktemp("tables")
    data = load_data(folder, ruler, None)
    others = [Contender(name, small_model_path, "cpu") for name in ("p_r 0.9", "no-streaming")]
    maker = Tables(Contender("small", small_model_path, "cpu"), others, [data], out, OPTIONS, progress=False)
    return out, {t.name: t for t in maker.make()}, maker


def row(table, *labels):
    return next(r for r in table.rows if r.labels[-len(labels):] == labels and "published" not in r.remark)


def test_every_table_is_written_and_measured(run):
    out, tables, _ = run
    assert set(tables) == {"table1", "table2", "table3", "table4", "reactions", "physics", "streaming", "gap", "iterations",
                           "evaluator"}
    for name, table in tables.items():
        rows = list(csv.reader((out / f"{name}.csv").open()))
        assert len(rows) == 1 + len(table.rows) and len({len(r) for r in rows}) == 1
        assert (out / f"{name}.md").read_text() in (out / "tables.md").read_text()
    made = row(tables["table1"], "small")
    assert all(len(made.values[key]) == 2 for key in ("r1", "r3", "fid", "mm_distance", "diversity", "kind_3"))
    assert len(made.values["multimodality"]) == 1
    assert np.isfinite([v for values in made.values.values() for v in values]).all()
    assert row(tables["table1"], "Ground truth").values["fid"] == pytest.approx([0, 0], abs=1e-6)
    assert row(tables["table2"], "small").values["mpjpe_m"][0] > 0
    assert {"interaction" in c.title for c in tables["table4"].columns} == {True, False}
    assert row(tables["table4"], "p_r 0.9").values["fid"] == row(tables["table4"], "small").values["fid"]
    assert (out / "iterations-" f"{tables['iterations'].rows[0].labels[0].lower()}.png").stat().st_size > 2000


def test_the_gap_to_offline_is_what_streaming_loses(run):
    tables = run[1]
    rows = {r.labels[1:]: r for r in tables["gap"].rows if r.labels[0] not in ("InterHuman", "Inter-X")}
    assert len(rows) == 2 * 2 * 8
    far = rows["with text", "its own", "joints to truth m ↓"].values
    seen = row(tables["streaming"], "streaming, with text").values
    assert far["after_streaming"] == seen["distance_m"] and far["before_gap"] == far["after_gap"]
    offline = row(tables["streaming"], "no-streaming, offline, with text").values["distance_m"]
    assert far["before_gap"] == pytest.approx([a - b for a, b in zip(far["before_streaming"], offline, strict=True)])
    assert not any(r.labels[1] == "no-streaming" for r in tables["table3"].rows)
    # What offline loses by sampling as streams do is not streaming's.
    alike = rows["with text", "as streams", "joints to truth m ↓"].values
    assert alike["after_streaming"] == far["after_streaming"] and alike["after_offline"] != far["after_offline"]
    found = rows["without text", "its own", "R-precision 3 ↑"].values
    assert found["after_gap"] == [a - b for a, b in zip(found["after_offline"], found["after_streaming"], strict=True)]


@pytest.mark.parametrize("before, after, share, says", [
    ([0.2, 0.4], [0.1, 0.1], 2 / 3, "closed by half"), ([0.2, 0.4], [0.2, 0.2], 1 / 3, "not closed by half"),
    ([0.2], [-0.1], 1.5, "closed by half"), ([-0.1], [0.1], None, "no certain gap to close"),
    ([-0.2, 0.6], [0.1, 0.1], 1 / 2, "no certain gap to close")])
def test_half_of_a_gap_is_closed_or_not(before, after, share, says):
    gaps = {"before": before, "after": after}
    sides = {name: ({"d": [1.0] * len(gap)}, {"d": [1.0 + g for g in gap]}) for name, gap in gaps.items()}
    values, remark = gap_of(Column("d ↓", "d"), sides, "")
    assert remark == says and values["closed"] == (share if share is None else pytest.approx(share))
    assert gap_of(Column("d ↓", "d"), sides, "why")[1] == "why"
    alone, remark = gap_of(Column("d %", "d", 0, 100), {"after": sides["after"]}, "")
    assert alone["closed"] is None and remark == "" and alone["after_gap"] == pytest.approx([100 * g for g in after])


def test_what_is_missing_is_said_and_not_made_up(run):
    table = run[1]["table1"]
    missing = [r for r in table.rows if r.remark.startswith("not measured")]
    assert {r.labels[0] for r in missing} == {"InterHuman", "Inter-X"} and not any(r.values for r in missing)
    assert all(r.remark for r in table.rows if r.labels[0] in ("InterHuman", "Inter-X"))


def test_truth_is_its_own_measure(run):
    physics = run[1]["physics"]
    still, other = (row(run[1]["reactions"], which).values for which in ("standing still", "random clip"))
    assert still["jitter_ratio"] == [0, 0] and other["distance_m"][0] > 0 and still["fid"] != other["fid"]
    truth = row(physics, "truth", "the one who reacts").values
    assert truth["jitter_ratio"] == pytest.approx(1) and truth["distance_m"] == pytest.approx(0)
    assert truth["contact_precision"] in (None, 1.0)
    assert row(physics, "small, text to two people", "both people").values["foot_slide_mm"][0] >= 0
    ruler = run[1]["evaluator"].rows[0].values
    assert ruler["kinds"] == 4 and ruler["chance_r1"] == 0.25 and ruler["chance_kind_3"] == 0.75


def test_a_broken_run_goes_on_where_it_was(run, monkeypatch):
    out, tables, maker = run
    calls = []
    monkeypatch.setattr(tables_measure, "generation", lambda *a, **k: calls.append(a) or {})
    again = Tables(maker.main, maker.ablations, maker.data, out, OPTIONS, progress=False)
    assert again.table1().rows[1].values == tables["table1"].rows[1].values and not calls
    longer = Tables(maker.main, [], maker.data, out, replace(OPTIONS, repeats=3), progress=False)
    longer.table1()
    assert [call[3] for call in calls] == [2]
    other = Tables(maker.main, [], maker.data, out, replace(OPTIONS, seed=1), progress=False)
    other.table1()
    assert len(calls) == 3


def test_streams_of_other_settings_are_measured_anew(run, monkeypatch):
    out, tables, maker = run
    calls = []
    monkeypatch.setattr(tables_measure, "streaming", lambda *a, **k: calls.append(a) or {})
    Tables(maker.main, [], maker.data, out, OPTIONS, progress=False).streaming()
    assert not calls
    monkeypatch.setattr(tables_measure, "StreamConfig", lambda: StreamConfig(guidance=5.0))
    Tables(maker.main, [], maker.data, out, OPTIONS, progress=False).streaming()
    assert len(calls) == 2 * OPTIONS.repeats


def test_without_an_evaluator_what_needs_none_is_measured(folder, small_model_path, tmp_path):
    data = load_data(folder, None, 2)
    assert len(data.cases) == 2 and matching(data, [], np.array([]), OPTIONS, 0, None) == {}
    maker = Tables(Contender("small", small_model_path, "cpu"), [], [data], tmp_path, replace(OPTIONS, repeats=1), progress=False)
    made = row(maker.table2(), "small")
    assert made.values["mpjpe_m"][0] > 0 and made.values["reconstruction_fid"] is None and "--evaluator" in made.remark


def test_a_data_set_is_read_from_its_test_split(ruler, small_model_path, tmp_path):
    write_interhuman(tmp_path / "data", frames=40)
    data = load_data(tmp_path / "data", ruler, None)
    assert (data.name, len(data.cases), len(data.texts[0])) == ("InterHuman", 1, 3) and data.setting == metrics.INTERHUMAN
    maker = Tables(Contender("small", small_model_path, "cpu"), [], [data], tmp_path, OPTIONS, progress=False)
    table = maker.table2()
    assert row(table, "small").values["mpjpe_m"][0] > 0 and row(table, "small").values["reconstruction_fid"] is None
    assert not any(r.labels[0] == "InterHuman" and r.remark.startswith("not measured") for r in table.rows)
    assert row(maker.table1(), "Ground truth").values["r1"] == [1, 1]


def test_a_damaged_measurement_is_made_again(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.get("a", {"x": 1}, lambda: {"v": 1.0}) == {"v": 1.0}
    assert ledger.get("a", {"x": 1}, lambda: {"v": 2.0}) == {"v": 1.0}
    assert ledger.get("a", {"x": 2}, lambda: {"v": 3.0}) == {"v": 3.0}
    for path in tmp_path.glob("a-*.json"):
        path.write_text(json.dumps({"figures": None})[:9])
    assert ledger.get("a", {"x": 1}, lambda: {"v": 4.0}) == {"v": 4.0}


def test_cells_say_mean_and_interval():
    table = Table("t", "T", ("who",), (Column("share %", "s", 1, 100), Column("n", "n", 0)), [
        Row(("a",), together([{"s": 0.1, "n": 3}, {"s": 0.3, "n": 3}])), Row(("b|c",), {"s": None, "n": 4.0}, "why")], ["note"])
    lines = markdown(table).splitlines()
    assert lines[4:6] == ["| a | 20.0 ± 13.9 | 3 ± 0 |  |", "| b/c | – | 4 | why |"] and lines[-1] == "- note"
    rows = list(csv.reader(comma_separated(table).splitlines()))
    assert rows[0] == ["who", "share %", "share % ±95%", "n", "n ±95%", "remark"] and rows[2] == ["b|c", "", "", "4.0", "", "why"]
    assert float(rows[1][1]) == pytest.approx(20) and float(rows[1][2]) == pytest.approx(1.96 * 10 / np.sqrt(2), abs=1e-3)
    assert mean_and_half([0.5]) == (0.5, None) and together([{"x": 1.0}, {"x": None}, {}]) == {"x": None}


def test_charts_hold_what_they_are_given(tmp_path):
    for low, high in ((0.0, 0.07), (3.2, 11.0), (5.0, 5.0), (-2.0, 900.0)):
        steps = nice_steps(low, high)
        assert steps[0] <= low and steps[-1] >= high and 2 <= len(steps) <= 9
    write_charts(tmp_path / "a.png", [Chart("FID", "iterations", ("1", "2"), {"x": (1.0, None)}),
                                      Chart("none", "iterations", ("1",), {"x": (None,)})])
    assert (tmp_path / "a.png").stat().st_size > 1000
    write_charts(tmp_path / "b.png", [Chart("none", "", ("1",), {"x": (None,)})])
    assert not (tmp_path / "b.png").exists()
    with pytest.raises(ConfigError, match="2 values"):
        Chart("FID", "", ("1", "2"), {"x": (1.0,)})


def test_the_command(folder, ruler, small_model_path, tmp_path, monkeypatch, capsys):
    done = here(monkeypatch, capsys, "evaluate", "--tables", tmp_path / "out")
    assert done.code == 0 and "no InterHuman folder was given" in done.out
    for given, message in ((["--evaluator", ruler, "--evaluator", ruler, "--pairs", folder], "one for each of 1"),
                           (["--ablation", "name"], "NAME=FILE"), (["--ablation", "x=/nowhere"], "got nothing at"),
                           (["--pairs", tmp_path / "none"], "expected a folder")):
        done = here(monkeypatch, capsys, "evaluate", "--tables", tmp_path / "out", *given)
        assert done.code == 1 and message in done.err, done
    done = here(monkeypatch, capsys, "evaluate", "--pairs", folder, "--pairs", folder)
    assert done.code == 1 and "one --pairs without --tables" in done.err
