"""Beside the paper's tables: reactions, physics, streaming against offline, iterations, and how good the evaluator itself is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from rtinteract.training import distributed
from rtinteract.training import tables_measure as measured
from rtinteract.training.plots import Chart, write_charts
from rtinteract.training.tables import KINDS, MATCH, NO_EVALUATOR, PUBLISHED, UNTRAINED, PaperTables
from rtinteract.training.tables_data import Contender, EvalData, ruler
from rtinteract.training.tables_gap import SIDES, gap_of
from rtinteract.training.tables_write import Column, Row, Table, Value, markdown, mean_and_half, write_table, write_text

from rtinteract.config import to_dict
from rtinteract.errors import ConfigError, RtInteractError

PHYSICS = (Column("foot slide mm/frame ↓", "foot_slide_mm", 2), Column("float cm ↓", "float_cm", 2),
           Column("sink cm ↓", "sink_cm", 2), Column("jitter m/s³", "jitter", 0), Column("jitter / truth's", "jitter_ratio", 2),
           Column("penetration median cm ↓", "penetration_median_cm", 2), Column("deepest cm ↓", "penetration_deepest_cm", 1),
           Column("contact precision ↑", "contact_precision"), Column("contact recall ↑", "contact_recall"),
           Column("touch error cm ↓", "contact_mean_cm", 1), Column("within 5 cm % ↑", "contact_within_5_cm", 0, 100),
           Column("joints to truth m", "distance_m"))
# With text or without, with the other person's first frames or without.
_REACTIONS = {"with text": (True, False), "without text": (False, False), "with text and start": (True, True),
              "with start": (False, True)}
_ERRORS = (Column("touch error cm ↓", "contact_mean_cm", 1), Column("joints to truth m ↓", "distance_m"),
           Column("foot slide mm/frame ↓", "foot_slide_mm", 2), Column("jitter / truth's", "jitter_ratio", 2),
           Column("penetration median cm ↓", "penetration_median_cm", 2))
# Whether reactions have a text.
_WORDS = {True: "with text", False: "without text"}
_LOST = (*MATCH[2:4], KINDS[1], *_ERRORS)
_OF_PEOPLE = "both people"
_OF_REACTORS = "the one who reacts"


def _mean(value: Value) -> float | None:
    return mean_and_half(value)[0]


class Tables(PaperTables):
    """Every table of a run, each written as soon as it is whole."""

    def make(self, only: Sequence[str] = ()) -> list[Table]:
        """All tables, or ``only`` some by name, each written when it is done, then all of them in one tables.md. ConfigError
        lists the names there are."""
        makers = {"table1": self.table1, "table2": self.table2, "table3": self.table3, "table4": self.table4,
                  "reactions": self.reactions, "physics": self.physics, "streaming": self.streaming, "gap": self.gap,
                  "iterations": self.sweep, "evaluator": self.evaluators}
        unknown = [name for name in only if name not in makers]
        if unknown:
            raise ConfigError(f"tables: expected names among {', '.join(makers)}, got {', '.join(map(repr, unknown))}")
        done = []
        for name, make in makers.items():
            if only and name not in only:
                continue
            table = make()
            write_table(self.out, table)
            done.append(table)
        self.bar.close()
        write_text(self.out / "tables.md", "\n".join([self._head(), *map(markdown, done)]))
        return done

    def _head(self) -> str:
        o = self.options
        data = "; ".join(f"{d.name}: {len(d.cases)} pairs" for d in self.data) or "none was given (--pairs FOLDER)"
        size = distributed.world().size
        shared = f" {size} processes shared the work: times are of one among them." if size > 1 else ""
        return (f"# Tables\n\nModel: {self.main.name}. Data: {data}. {o.repeats} repeats, ± is the 95 % interval of their mean; "
                f"seed {o.seed}. Text to two people: {o.iterations} iterations, reactions: {o.reaction_iterations}, guidance "
                f"{o.guidance:g}. –: not measured; the remark or the note says why. Nothing is filled in by hand but the rows "
                f"marked \"{PUBLISHED}\".{shared}\n")

    def reactions(self) -> Table:
        """Reactions to the true actors, with and without text."""
        table = Table("reactions", "Reactions, with and without text", ("data", "method"), (*MATCH, *KINDS))
        for data in self.data:
            table.rows.append(self.truth(data))
            for which in measured.BASELINES:
                values, why = self._baseline(data, which)
                table.rows.append(Row((data.name, which), values, why or ("" if data.evaluator else NO_EVALUATOR)))
            for name, (text, start) in _REACTIONS.items():
                values, why = self.reacted(self.main, data, text=text, start=start)
                table.rows.append(Row((data.name, f"{self.main.name}, {name}"), values,
                                      why or ("" if data.evaluator else NO_EVALUATOR)))
        table.rows.append(Row(("InterHuman", "InterMask, with text"), {"r1": .462, "fid": 2.99}, PUBLISHED))
        table.notes.append("\"start\": the other person's first 4 frames are given. Standing still and a random clip: what the "
                           "true actor alone gives away.")
        return self._missing(table)

    def _baseline(self, data: EvalData, which: str) -> tuple[dict, str]:
        def measure(repeat: int) -> dict:
            return measured.baseline(data, self.options, repeat, which)
        return self._tried(lambda: self._repeated(f"baseline {which}", None, data, measure, self.options.repeats))

    def physics(self) -> Table:
        """Physical figures of the truth and of everything made."""
        table = Table("physics", "Physical figures", ("data", "motion", "measured on"), PHYSICS)
        for data in self.data:
            values, why_none = self._tried(lambda d=data: [self.ledger.get(
                f"physics {d.name}", {"data": d.mark}, lambda d=d: measured.physics_of_truth(d))])
            if not why_none:
                people, reactors = (values[name][0] for name in ("pairs", "reactors"))
                table.rows += [Row((data.name, "truth", _OF_PEOPLE), people | {"jitter_ratio": 1.0}),
                               Row((data.name, "truth", _OF_REACTORS), reactors)]
            made, why = self.generated(self.main, data)
            if made and not why_none:
                made = made | {"jitter_ratio": [j / people["jitter"] for j in made["jitter"]]}
            table.rows.append(Row((data.name, f"{self.main.name}, text to two people", _OF_PEOPLE), made, "" if made else why))
            for name, (text, start) in _REACTIONS.items():
                made, why = self.reacted(self.main, data, text=text, start=start)
                table.rows.append(Row((data.name, f"{self.main.name}, reaction {name}", _OF_REACTORS), made, why))
            for which in measured.BASELINES:
                table.rows.append(Row((data.name, which, _OF_REACTORS), *self._baseline(data, which)))
        table.notes += [
            "Slide: of a planted foot. Float, sink: mean height of the lowest foot point above and below standing. Jitter: mean "
            "length of the joints' third derivative. Penetration: of bodies of capsules, hand on hand left out; the mean over "
            "pairs of each one's median and deepest frame.",
            "Contact precision and recall: frames in which a palm is within 5 cm of the partner's body, against the true pair's. "
            "Touch error: by how much touching points miss each other at the true time (composed pairs say where they touch).",
            f"\"{_OF_REACTORS}\": from the fifth frame on."]
        return self._missing(table)

    def streaming(self) -> Table:
        """Streaming against offline, begun alike."""
        table = Table("streaming", "Streaming against offline: reactions from the true first frames", ("data", "method"), (
            *MATCH[2:4], KINDS[1], *_ERRORS, Column("hop p50 ms", "hop_p50_ms", 1), Column("p95 ms", "hop_p95_ms", 1)))
        for data in self.data:
            for who in (self.main, *self._untrained()):
                of = f"{who.name}, " if who is not self.main else ""
                for text, words in _WORDS.items():
                    offline, why = self.reacted(who, data, text=text, start=True)
                    table.rows.append(Row((data.name, f"{of}offline, {words}"), offline, why))
                    values, why = self._streamed(who, data, text)
                    table.rows.append(Row((data.name, f"{of}streaming, {words}"), values, why))
        rounds = measured.StreamConfig()
        table.notes.append(f"Streams: {rounds.iterations} iterations, guidance {rounds.guidance:g}, a hop every {rounds.hop} "
                           f"frames; offline: {self.options.reaction_iterations} iterations, guidance {self.options.guidance:g}.")
        return self._missing(table)

    def _untrained(self) -> list[Contender]:
        return [a for a in self.ablations if a.name.startswith(UNTRAINED)]

    def _streamed(self, who: Contender, data: EvalData, text: bool) -> tuple[dict, str]:
        def measure(repeat: int) -> dict:
            return measured.streaming(who, data, self.options, repeat, self.progress, text=text)
        return self._tried(lambda: self._repeated(f"streaming{' text' if text else ''}", who, data, measure,
                                                  self.options.repeats, text=text, stream=to_dict(measured.StreamConfig())))

    def gap(self) -> Table:
        """What streaming loses against offline: of a model not trained for streaming, of this one, and how much that closes."""
        table = Table("gap", "Gap to offline: what streaming loses, before and after training for it",
                      ("data", "reactions", "offline's sampler", "figure"), SIDES)
        untrained, streams = next(iter(self._untrained()), None), measured.StreamConfig()
        samplers = {"as streams": (streams.iterations, streams.guidance),
                    "its own": (self.options.reaction_iterations, self.options.guidance)}
        for data, (text, words), (sampler, (rounds, guidance)) in product(self.data, _WORDS.items(), samplers.items()):
            sides, whys = {}, []
            for name, who in (("before", untrained), ("after", self.main)):
                if who is not None:
                    offline, no = self.reacted(who, data, text=text, start=True, iterations=rounds, guidance=guidance)
                    streamed, why = self._streamed(who, data, text)
                    sides[name] = offline, streamed
                    whys += [f"{who.name}: {w}" for w in (no, why) if w]
            table.rows += [Row((data.name, words, sampler, figure.title), *gap_of(figure, sides, "; ".join(whys)))
                           for figure in _LOST]
        table.notes.append("Both begin with the true reactor's first frames. Gap: streaming less offline of one model, turned so "
                           "that more is worse. Closed: how much smaller the gap is after training for streaming. Streams take "
                           f"{streams.iterations} iterations at guidance {streams.guidance:g}; offline as they do, which is what "
                           f"hearing the actor hop by hop costs, or {self.options.reaction_iterations} at "
                           f"{self.options.guidance:g}, which no training for streaming makes up for.")
        told = f"Before: {untrained.name}" if untrained else "No model that was not trained for streaming was given"
        table.notes.append(f"{told}. One is trained with the same codec, data and time: rtinteract train transformer "
                           f"--ablation {UNTRAINED} ..., then --ablation {UNTRAINED}=FILE.")
        return self._missing(table)

    def sweep(self) -> Table:
        """Iterations against quality and latency; a picture beside it."""
        table = Table("iterations", "Iterations: quality and latency of reactions with text", ("data", "iterations"), (
            *MATCH[:4], KINDS[1], *_ERRORS, Column("offline ms", "react_p50_ms", 0), Column("hop p50 ms", "hop_p50_ms", 1),
            Column("hop p95 ms", "hop_p95_ms", 1)))
        for data in self.data:
            rows = []
            for n in self.options.sweep:
                values, why = self.reacted(self.main, data, text=True, start=True, iterations=n)
                cost, no = self._tried(lambda n=n, d=data: self._repeated(
                    f"latency {n}", self.main, d, lambda r: measured.latency(self.main, d, self.options, n), 1, "guidance",
                    iterations=n))
                rows.append(Row((data.name, str(n)), values | cost, why or no))
            table.rows += rows
            self._plot(f"iterations-{data.name.lower().replace(' ', '-')}.png", rows, table)
        table.notes.append(f"Offline: one reaction of at most {measured.TIMED_FRAMES} frames, alone, guidance "
                           f"{self.options.guidance:g}; hop: a stream at its own guidance. Medians over few clips: other work "
                           "on the machine shows.")
        return self._missing(table)

    def _plot(self, name: str, rows: list[Row], table: Table) -> None:
        ticks = [row.labels[1] for row in rows]

        def lines(**keys: str) -> dict[str, list[float | None]]:
            return {title.replace("_", " "): [_mean(row.values.get(key)) for row in rows] for title, key in keys.items()}
        charts = [Chart("FID", "iterations", ticks, lines(FID="fid")),
                  Chart("Retrieval and recognition", "iterations", ticks, lines(R_precision_3="r3", kind_in_first_3="kind_3")),
                  Chart("Errors in cm", "iterations", ticks, lines(touch="contact_mean_cm", penetration="penetration_median_cm")),
                  Chart("Latency in ms", "iterations", ticks,
                        lines(offline="react_p50_ms", hop_p50="hop_p50_ms", hop_p95="hop_p95_ms"))]
        try:
            if distributed.world().chief:
                write_charts(self.out / name, charts)
        except RtInteractError as error:
            table.notes.append(f"picture: {error}")
            return
        if (self.out / name).is_file():
            table.notes.append(f"![{name}]({name})")

    def evaluators(self) -> Table:
        """What can be expected of the evaluator: chance, and a ceiling where pairs share their texts."""
        table = Table("evaluator", "The evaluator itself, on true pairs", ("data", "evaluator"), (
            Column("R-precision 1", "r1"), Column("its ceiling", "ceiling_r1"), Column("its chance", "chance_r1"),
            Column("R-precision 3", "r3"), Column("its ceiling ", "ceiling_r3"), Column("its chance ", "chance_r3"), *KINDS,
            Column("kinds", "kinds", 0), Column("chance in first 3 %", "chance_kind_3", 0, 100), Column("pool", "pool", 0),
            Column("pools", "pools", 0)))
        for data in self.data:
            if data.evaluator is None:
                table.rows.append(Row((data.name, "–"), {}, NO_EVALUATOR))
                continue
            card = data.evaluator.card
            name = card.get("source") or f"trained here, {card.get('steps')} steps"
            table.rows.append(Row((data.name, name), self.truth(data).values | ruler(data, self.options)))
        table.notes.append("Ceiling: R-precision of a ruler that tells events apart, but not two clips that share all their "
                           "texts.")
        return self._missing(table)
