"""InterMask's Tables 1 to 4 for whatever data there is; what else is measured stands in `rtinteract.training.tables_more`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rtinteract.training import distributed
from rtinteract.training import tables_measure as measured
from rtinteract.training.tables_data import NAMES, Contender, EvalData, Ledger, TableOptions, about
from rtinteract.training.tables_write import Column, Row, Table, together
from tqdm import tqdm

from rtinteract.errors import RtInteractError

log = logging.getLogger(__name__)

MATCH = (Column("R-precision 1 ↑", "r1"), Column("R-precision 2 ↑", "r2"), Column("R-precision 3 ↑", "r3"),
         Column("FID ↓", "fid"), Column("MM Dist ↓", "mm_distance"), Column("Diversity →", "diversity"))
KINDS = (Column("kind first %", "kind_1", 0, 100), Column("kind in first 3 % ↑", "kind_3", 0, 100))
# InterMask, Tables 1 to 4: (R-precision 1, 2, 3), FID, MM Dist, Diversity, MModality; codec FID and MPJPE; p_r.
_KEYS = ("r1", "r2", "r3", "fid", "mm_distance", "diversity", "multimodality")
_TABLE1 = {"InterHuman": {"Ground truth": (.452, .610, .701, .273, 3.755, 7.948),
                          "InterGen": (.371, .515, .624, 5.918, 5.108, 7.387, 2.141),
                          "in2IN": (.425, .576, .662, 5.535, 3.803, 7.953, 1.215),
                          "InterMask": (.449, .599, .683, 5.154, 3.790, 7.944, 1.737)},
           "Inter-X": {"Ground truth": (.429, .626, .736, .002, 3.536, 9.734),
                       "InterGen": (.207, .335, .429, 5.207, 9.580, 7.788, 3.686),
                       "InterMask": (.403, .595, .705, .399, 3.705, 9.046, 2.261)}}
_TABLE2 = {"1-D map of one person": (3.146, .354), "2-D map of two people": (1.276, .198), "2-D map of one person": (.970, .129)}
_TABLE3 = {"alternative modelling": (.340, .425, .514, 7.637, 3.937, 8.424, 2.192),
           "without self attention": (.393, .527, .596, 5.715, 3.827, 7.873, 1.683),
           "without cross attention": (.328, .416, .508, 8.461, 3.972, 7.951, 1.942),
           "without spatio-temporal attention": (.296, .391, .470, 10.968, 4.219, 7.659, 1.607),
           "without step unroll and interaction masking": (.402, .548, .633, 5.629, 3.806, 7.942, 1.741),
           "InterMask": (.449, .599, .683, 5.154, 3.790, 7.944, 1.737)}
_TABLE4 = {"p_r 0.7": (5.214, .447, 2.850, .476), "p_r 0.8": (5.154, .449, 2.991, .462), "p_r 0.9": (5.152, .450, 3.368, .416)}
# How the name of a model begins that was not trained for streaming.
UNTRAINED = "no-streaming"
PUBLISHED = "published, their evaluator"
NO_EVALUATOR = "no evaluator: train one (rtinteract train evaluator) and give --evaluator"


class PaperTables:
    """The tables of the paper. A measurement that several of them need is made once, and found again by a later run.

    Several processes (torchrun) share the work and find the same figures as one; the first writes. Each must hold the same data
    and call the same methods in the same order.
    """

    def __init__(self, main: Contender, ablations: Sequence[Contender], data: Sequence[EvalData], out: Path,
                 options: TableOptions, progress: bool = True):
        self.main, self.ablations, self.data, self.out, self.options = main, ablations, data, Path(out), options
        self.progress = progress and distributed.world().chief
        self.bar = tqdm(desc="tables", unit="measurement", disable=not self.progress)
        (self.out / "measured").mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.out / "measured", self._step)

    def _step(self, label: str) -> None:
        self.bar.set_postfix_str(label)
        self.bar.update()

    def _tried(self, make: Callable[[], list[dict]]) -> tuple[dict, str]:
        """(replications by key, "") or ({}, why there are none)."""
        try:
            return together(make()), ""
        except RtInteractError as error:
            log.warning("%s", error)
            return {}, f"not measured: {' '.join(str(error).split())}"

    def _repeated(self, what: str, who: Contender | None, data: EvalData, measure: Callable[[int], dict], times: int,
                  *names: str, samples: int | None = None, **more) -> list[dict]:
        """A measurement's repeats, each kept in the ledger. ``names``: the options that it depends on; ``more``: what else;
        ``samples``: how many pairs it makes, all of the data's without."""
        told = {"data": data.mark, "model": who.mark if who else None, **about(self.options, "seed", "pool", *names), **more}
        name = f"{what} {data.name} {who.name if who else 'truth'}"
        if self._whole(times, samples or len(data.cases)):
            self._make_apart(name, told, measure, times)
        return [self.ledger.get(name, told | {"repeat": r}, lambda r=r: measure(r)) for r in range(times)]

    def _whole(self, times: int, samples: int) -> bool:
        """Whether processes do better to take whole repeats than batches of each: where batches are few."""
        size, batches = distributed.world().size, len(measured.batches(samples))
        return -(-times // size) * batches < times * -(-batches // size)

    def _make_apart(self, name: str, told: dict, measure: Callable[[int], dict], times: int) -> None:
        """Let each process make whole repeats of those that are missing, and keep them."""
        def alone(repeat: int) -> dict:
            with distributed.alone():
                return measure(repeat)
        missing = [r for r in range(times) if self.ledger.find(name, told | {"repeat": r}) is None]
        # Kept as often as there is one of each process: a run that is stopped then loses little.
        for at in range(0, len(missing), distributed.world().size):
            some = missing[at:at + distributed.world().size]
            for repeat, figures in zip(some, distributed.shared(some, alone), strict=True):
                self.ledger.keep(name, told | {"repeat": repeat}, figures)

    def truth(self, data: EvalData) -> Row:
        """The row of the true pairs."""
        values, why = self._tried(lambda: self._repeated(
            "truth", None, data, lambda r: measured.truth(data, self.options, r), self.options.repeats))
        return Row((data.name, "Ground truth"), values, why or ("" if data.evaluator else NO_EVALUATOR))

    def generated(self, who: Contender, data: EvalData) -> tuple[dict, str]:
        """Text to two people, with MultiModality: (replications, why there are none)."""
        o = self.options
        values, why = self._tried(lambda: self._repeated(
            "generation", who, data, lambda r: measured.generation(who, data, o, r, self.progress), o.repeats, "iterations",
            "guidance"))
        if why or data.evaluator is None or o.mm_texts == 0:
            left = "MModality left out (--mm-texts 0)" if o.mm_texts == 0 and data.evaluator else NO_EVALUATOR
            return values, why or left
        modes, why = self._tried(lambda: self._repeated(
            "multimodality", who, data, lambda r: measured.multimodality(who, data, o, r, self.progress), o.mm_runs, "iterations",
            "guidance", "mm_texts", "mm_repeats", samples=min(o.mm_texts, len(data.cases)) * o.mm_repeats))
        return values | modes, why

    def reacted(self, who: Contender, data: EvalData, *, text: bool, start: bool, iterations: int | None = None,
                guidance: float | None = None):
        """Reactions: (replications, why there are none)."""
        o = self.options if guidance is None else replace(self.options, guidance=guidance)
        rounds = iterations or o.reaction_iterations
        return self._tried(lambda: self._repeated(
            f"reaction{' text' if text else ''}{' start' if start else ''} {rounds}", who, data,
            lambda r: measured.reaction(who, data, o, r, self.progress, text=text, start=start, iterations=rounds), o.repeats,
            guidance=o.guidance, text=text, start=start, rounds=rounds))

    def _missing(self, table: Table) -> Table:
        for name in NAMES.values():
            if name not in {d.name for d in self.data}:
                labels = (name, *["–"] * (len(table.first) - 1))
                table.rows.append(Row(labels, {}, f"not measured: no {name} folder was given (--pairs FOLDER)"))
        return table

    def table1(self) -> Table:
        """Text to two people, each data set."""
        table = Table("table1", "Table 1. Text to two people", ("data", "method"),
                      (*MATCH, Column("MModality ↑", "multimodality"), *KINDS, Column("s a sample", "seconds_a_sample", 2)))
        for data in self.data:
            table.rows += [self.truth(data), Row((data.name, self.main.name), *self.generated(self.main, data))]
        for name, rows in _TABLE1.items():
            table.rows += [Row((name, method), dict(zip(_KEYS, values, strict=False)), PUBLISHED)
                           for method, values in rows.items()]
        self._missing(table)
        table.notes.append("The truth's FID is against itself, so 0; the published one compares two draws of clips. Embeddings "
                           "of an evaluator of our own are of another size than the published one's: FID, distances and "
                           "Diversity compare only within one evaluator.")
        table.notes += [f"{d.name}: R-precision in pools of {min(self.options.pool, len(d.cases))}" for d in self.data]
        return table

    def _ablations(self, prefix: str | None) -> list[Contender]:
        """The ablations of a table: those whose name begins with its prefix, or with none of them."""
        if prefix is not None:
            return [a for a in self.ablations if a.name.startswith(prefix)]
        return [a for a in self.ablations if not a.name.startswith(("codec", "p_r", UNTRAINED))]

    def table2(self) -> Table:
        """The codec."""
        table = Table("table2", "Table 2. Codec", ("data", "codec"), (
            Column("reconstruction FID ↓", "reconstruction_fid"), Column("MPJPE m ↓", "mpjpe_m", 4),
            Column("root-aligned m ↓", "aligned_m", 4)))
        for data in self.data:
            for who in (*self._ablations("codec"), self.main):
                values, why = self._tried(lambda w=who, d=data: self._repeated(
                    "reconstruction", w, d, lambda r: measured.reconstruction(w, d, self.progress), 1))
                table.rows.append(Row((data.name, who.name), values, why or ("" if data.evaluator else NO_EVALUATOR)))
        table.rows += [Row(("InterHuman", name), dict(zip(("reconstruction_fid", "mpjpe_m"), values, strict=True)), PUBLISHED)
                       for name, values in _TABLE2.items()]
        table.notes.append("Other codecs of ours: train them and give --ablation \"codec NAME=FILE\".")
        return self._missing(table)

    def table3(self) -> Table:
        """The transformer's ablations."""
        table = Table("table3", "Table 3. Parts of the transformer", ("data", "method"),
                      (*MATCH, Column("MModality ↑", "multimodality")))
        for data in self.data:
            table.rows.append(self.truth(data))
            table.rows += [Row((data.name, who.name), *self.generated(who, data)) for who in (*self._ablations(None), self.main)]
        table.rows += [Row(("InterHuman", name), dict(zip(_KEYS, values, strict=True)), PUBLISHED)
                       for name, values in _TABLE3.items()]
        if not self._ablations(None):
            table.notes.append("No ablation of ours was given: train them and give --ablation NAME=FILE, once for each.")
        return self._missing(table)

    def table4(self) -> Table:
        """Share of random masking."""
        columns = (Column("interaction FID ↓", "fid"), Column("interaction R-precision 1 ↑", "r1"),
                   Column("reaction FID ↓", "reaction_fid"), Column("reaction R-precision 1 ↑", "reaction_r1"))
        table = Table("table4", "Table 4. Random masking p_r: text to two people, and reactions with text", ("data", "method"),
                      columns)
        for data in self.data:
            for who in (*self._ablations("p_r"), self.main):
                values, why = self.generated(who, data)
                reacted, other = self.reacted(who, data, text=True, start=False)
                told = {k: values.get(k) for k in ("fid", "r1")} | {f"reaction_{k}": reacted.get(k) for k in ("fid", "r1")}
                why = why if not values or data.evaluator is None else ""
                table.rows.append(Row((data.name, who.name), told, other or why))
        keys = [c.key for c in columns]
        table.rows += [Row(("InterHuman", name), dict(zip(keys, values, strict=True)), PUBLISHED)
                       for name, values in _TABLE4.items()]
        if not self._ablations("p_r"):
            table.notes.append("No model of ours with another p_r was given: --ablation \"p_r 0.9=FILE\", once for each.")
        return self._missing(table)
