"""Tables as Markdown, CSV and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rtinteract.training import distributed
from rtinteract.training.metrics import confidence

from rtinteract.motion.atomic import replacing

Value = float | Sequence[float] | None


@dataclass(frozen=True)
class Column:
    """A figure: its heading (with its unit and which way is better), its key in the rows, digits, and a factor."""

    title: str
    key: str
    digits: int = 3
    factor: float = 1.0


@dataclass(frozen=True)
class Row:
    """``labels`` stand in the first columns. A value is a number, or replications, of which the mean and the 95 % interval are
    shown. ``remark`` says what a reader must know, first of all why values are missing."""

    labels: tuple[str, ...]
    values: Mapping[str, Value] = field(default_factory=dict)
    remark: str = ""


@dataclass
class Table:
    """``name`` is the stem of its files; ``first`` the headings of the labels."""

    name: str
    title: str
    first: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def together(found: Sequence[Mapping]) -> dict[str, Value]:
    """Replications by key, of the dicts of each; a figure that any of them lacks is None."""
    keys = {k for one in found for k in one}
    columns = {k: [one.get(k) for one in found] for k in keys}
    return {k: None if any(v is None for v in values) else list(values) for k, values in columns.items()}


def mean_and_half(value: Value) -> tuple[float | None, float | None]:
    """(mean, half of the 95 % interval) of a value; the half is None for a single number or replication."""
    if value is None:
        return None, None
    if isinstance(value, int | float):
        return float(value), None
    mean, half = confidence(list(value))
    return mean, half if len(value) > 1 else None


def _cell(value: Value, column: Column) -> str:
    mean, half = mean_and_half(value)
    if mean is None:
        return "–"
    text = f"{mean * column.factor:.{column.digits}f}"
    return text if half is None else f"{text} ± {half * column.factor:.{column.digits}f}"


def markdown(table: Table) -> str:
    """The table as Markdown, its notes below."""
    remarks = any(row.remark for row in table.rows)
    heads = [*table.first, *(c.title for c in table.columns), *(["remark"] if remarks else [])]
    lines = [f"## {table.title}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in table.rows:
        cells = [*row.labels, *(_cell(row.values.get(c.key), c) for c in table.columns), *([row.remark] if remarks else [])]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def comma_separated(table: Table) -> str:
    """The table as CSV: a column for each mean, one for each half of a 95 % interval, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.first, *(h for c in table.columns for h in (c.title, f"{c.title} ±95%")), "remark"])
    for row in table.rows:
        cells = []
        for c in table.columns:
            cells += ["" if x is None else repr(round(x * c.factor, c.digits + 3)) for x in mean_and_half(row.values.get(c.key))]
        writer.writerow([*row.labels, *cells, row.remark])
    return out.getvalue()


def write_text(path: Path, content: str) -> None:
    """Write a text file whole or not at all; of several processes the first does, and all go on when it is there."""
    if distributed.world().chief:
        with replacing(path) as beside:
            beside.write_text(content, encoding="utf-8")
    distributed.wait()


def write_table(folder: Path, table: Table) -> None:
    """``name``.md and ``name``.csv."""
    write_text(folder / f"{table.name}.md", markdown(table))
    write_text(folder / f"{table.name}.csv", comma_separated(table))
