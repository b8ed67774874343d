"""One table of all ablations that were trained: what the codecs make of true motions, and what the transformers make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rtinteract.training import tables_measure as measured
from rtinteract.training.ablations import DONE
from rtinteract.training.codec_pairs import LoneCodec
from rtinteract.training.evaluate_figures import Case
from rtinteract.training.tables import MATCH, NO_EVALUATOR, PaperTables
from rtinteract.training.tables_data import Contender, EvalData, TableOptions
from rtinteract.training.tables_write import Column, Row, Table, write_table

from rtinteract.motion import Motion

CODEC = (Column("reconstruction FID ↓", "reconstruction_fid"), Column("MPJPE m ↓", "mpjpe_m", 4),
         Column("root-aligned m ↓", "aligned_m", 4))
MADE = (*MATCH, Column("MModality ↑", "multimodality"), Column("foot slide mm/frame ↓", "foot_slide_mm", 2),
        Column("penetration median cm ↓", "penetration_median_cm", 2))
REACTION = (Column("reaction FID ↓", "reaction_fid"), Column("reaction R-precision 1 ↑", "reaction_r1"),
            Column("reaction to truth m ↓", "reaction_distance_m"))
RUN = (Column("steps", "steps", 0), Column("min", "minutes", 1))


class _InPairs:
    """What `tables_measure.reconstruction` asks of a model, of a codec of one person or of both people of cases together."""

    def __init__(self, codec: LoneCodec, cases: Sequence[Case]):
        self.codec = codec
        self.pair_of = {id(m): (c.actor, c.truth) for c in cases for m in (c.actor, c.truth)}
        self.made: dict[int, Motion] = {}

    def reconstruct(self, person: Motion) -> Motion:
        """A person of the cases through the codec and back."""
        if self.codec.codec.config.people == 1:
            return self.codec.reconstruct([person])[0]
        if id(person) not in self.made:
            pair = self.pair_of[id(person)]
            self.made = {id(m): back for m, back in zip(pair, self.codec.reconstruct(pair), strict=True)}
        return self.made[id(person)]


@dataclass(frozen=True, eq=False)
class CodecContender(Contender):
    """A codec's file, without a transformer; clips pass in windows of ``window`` frames."""

    cases: Sequence[Case] = field(default=(), repr=False)
    window: int | None = None

    @cached_property
    def model(self) -> _InPairs:
        """The codec itself."""
        return _InPairs(LoneCodec.load(self.path, self.device, self.window), self.cases)


class AblationTables(PaperTables):
    """The table of all ablations; measurements are kept and found again as those of the paper's tables are."""

    def table(self, codecs: Sequence[Contender], models: Sequence[Contender], runs: Mapping[str, Mapping]) -> Table:
        """Write ablations.md and ablations.csv. ``runs`` holds each one's steps and minutes."""
        table = Table("ablations", "Ablations", ("data", "of", "ablation"), (*CODEC, *MADE, *REACTION, *RUN))
        for data in self.data:
            truth = self.truth(data)
            table.rows.append(Row((data.name, "–", "Ground truth"), truth.values, truth.remark))
            for who in codecs:
                values, why = self._tried(lambda w=who, d=data: self._repeated(
                    "reconstruction", w, d, lambda r: measured.reconstruction(w, d, self.progress), 1, window=w.window))
                table.rows.append(Row((data.name, "codec", who.name), values | runs[who.name], why or self._lacking(data)))
            found: dict[Path, Row] = {}
            for who in models:
                # One file may stand for two ablations.
                if who.path not in found:
                    found[who.path] = self._made(who, data, runs[who.name])
                table.rows.append(replace(found[who.path], labels=(data.name, "transformer", who.name)))
        o = self.options
        table.notes += [f"{d.name}: {len(d.cases)} held-out pairs" for d in self.data]
        table.notes += [
            f"{o.repeats} repeats, ± is the 95 % interval of their mean; seed {o.seed}. Text to two people: {o.iterations} "
            f"iterations; reactions with text, of those that Table 4 is about: {o.reaction_iterations}; guidance {o.guidance:g}.",
            "\"full\" and \"codec-full\" change nothing and are trained as long as the others: compare with them. The published "
            "figures stand in Tables 2 to 4 (rtinteract evaluate --tables)."]
        write_table(self.out, table)
        self.bar.close()
        return table

    def _lacking(self, data: EvalData) -> str:
        return "" if data.evaluator else NO_EVALUATOR

    def _made(self, who: Contender, data: EvalData, run: Mapping) -> Row:
        values, why = self.generated(who, data)
        if who.name == "full" or who.name.startswith("p_r"):
            reacted, other = self.reacted(who, data, text=True, start=False)
            values, why = values | {f"reaction_{k}": v for k, v in reacted.items()}, other or why
        return Row((data.name, "transformer", who.name), values | run, why)


def evaluate_ablations(codecs: Mapping[str, Path], models: Mapping[str, Path], data: EvalData, out: Path, options: TableOptions,
                       *, window: int, device: str = "cpu", clip: Path | None = None, progress: bool = True) -> Table:
    """Measure codecs and models of `rtinteract.training.ablations`, by name, on held-out pairs, into ``out``/ablations.md
    and .csv.

    ``window`` frames at once pass through a codec; ``clip`` is a CLIP folder, for models that read it. What was measured before
    is found again.
    """
    lone = [CodecContender(name, path, device, cases=data.cases, window=window) for name, path in codecs.items()]
    whole = [Contender(name, path, device, clip) for name, path in models.items()]
    runs = {name: _run(path) for name, path in (codecs | models).items()}
    tables = AblationTables((whole or lone)[0], [], [data], out, options, progress)
    return tables.table(lone, whole, runs)


def _run(path: Path) -> dict:
    told = json.loads((path.parent / DONE).read_text(encoding="utf-8"))
    return {"steps": told["steps"], "minutes": told["minutes"]}
