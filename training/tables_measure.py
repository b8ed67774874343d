"""The measurements behind the tables: text to two people, reactions, reconstruction, streaming, and what they cost.

Each returns a flat dict of numbers (None where there is nothing to measure) that `Ledger` keeps, and is called by all processes
alike where there are several: they share its batches. Physical figures are those of
`rtinteract.metrics` (slide in mm a 30 Hz frame while planted, float and sink in cm, jitter in m/s^3 and over the truth's,
penetration in cm, contacts by `hand_contacts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from rtinteract.training import distributed
from rtinteract.training import metrics as figures
from rtinteract.training.evaluate import BATCH, RANDOM, STILL, baselines, hop_times, stream_together
from rtinteract.training.evaluate_figures import START, Case, measure, summary
from rtinteract.training.tables_data import Contender, EvalData, TableOptions, matching
from tqdm import tqdm

from rtinteract import metrics
from rtinteract.model import Model
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.stream import StreamConfig, play

BASELINES = (STILL, RANDOM)
# Clips whose latency is taken, and runs of each.
TIMED, RUNS = 2, 3
# Longest clip that is timed: that of the published latency.
TIMED_FRAMES = 120
# How joints are aligned before their errors are taken.
_ERRORS = {"mpjpe_m": "none", "aligned_m": "root"}


class Looked(NamedTuple):
    """What is kept of a pair that was made: its ``embedding`` [E] (None without an evaluator), ``figures`` of its own, and frames
    with touches where they are asked for. Small, so that processes can tell each other."""

    embedding: np.ndarray | None
    figures: dict
    contacts: metrics.ContactCounts | None = None


def batches(count: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """``count`` indices, in an order, `BATCH` at a time."""
    order = range(count) if order is None else order
    return [list(order[at:at + BATCH]) for at in range(0, count, BATCH)]


def _looked(cases: Sequence[Case], make: Callable[[list[int], list[Case]], list[Looked]], what: str, progress: bool,
            alike: bool = True) -> list[Looked]:
    """What ``make`` makes of the cases (in their order), `BATCH` at a time under a progress bar, clips of ``alike`` lengths
    together; of several processes each takes some of the batches, which are the same for any number of them."""
    order = sorted(range(len(cases)), key=lambda i: len(cases[i].truth)) if alike else None
    jobs = batches(len(cases), order)
    with tqdm(total=sum(map(len, distributed.taken(jobs))), desc=what, unit="pair", leave=False,
              disable=not progress) as bar:
        def one(rows: list[int]) -> list[Looked]:
            made = make(rows, [cases[i] for i in rows])
            bar.update(len(rows))
            return made
        found = distributed.shared(jobs, one)
    place = {i: looked for rows, made in zip(jobs, found, strict=True) for i, looked in zip(rows, made, strict=True)}
    return [place[i] for i in range(len(cases))]


def _embedded(data: EvalData, pairs: Sequence[tuple[Motion, Motion]]) -> Sequence[np.ndarray | None]:
    return [None] * len(pairs) if data.evaluator is None else list(data.evaluator.pairs(pairs))


def _stacked(looked: Sequence[Looked]) -> np.ndarray | None:
    return None if looked[0].embedding is None else np.stack([one.embedding for one in looked])


def _person(motion: Motion) -> dict:
    clearance = metrics.floor_clearance(motion)
    return {"foot_slide_mm": metrics.foot_slide(motion), "float_cm": float(100 * np.maximum(clearance, 0).mean()),
            "sink_cm": float(100 * np.maximum(-clearance, 0).mean()), "jitter": metrics.jitter(motion)}


def _look_at_pairs(data: EvalData, pairs: Sequence[tuple[Motion, Motion]], **more: float) -> list[Looked]:
    """Physical figures of whole pairs, both people weighing the same."""
    looked = []
    for embedding, pair in zip(_embedded(data, pairs), pairs, strict=True):
        depth, figures = metrics.penetration(*pair), _mean([_person(m) for m in pair])
        figures |= {"penetration_median_cm": float(np.median(depth)), "penetration_deepest_cm": float(depth.max())}
        looked.append(Looked(embedding, figures | more))
    return looked


def _look_at_reactors(data: EvalData, cases: Sequence[Case], reactors: Sequence[Motion]) -> list[Looked]:
    """Figures of reactors against the true ones, and frames in which they touch."""
    pairs, looked = [(c.actor, r) for c, r in zip(cases, reactors, strict=True)], []
    for embedding, case, reactor in zip(_embedded(data, pairs), cases, reactors, strict=True):
        made, true = (metrics.hand_contacts(case.actor[START:], m[START:]) for m in (reactor, case.truth))
        looked.append(Looked(embedding, measure(case, reactor), metrics.ContactCounts.of(made, true)))
    return looked


def _mean(rows: Sequence[dict]) -> dict:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _people(looked: Sequence[Looked]) -> dict:
    return _mean([one.figures for one in looked])


def _reactors(looked: Sequence[Looked]) -> dict:
    """Figures of reactors (see `evaluate_figures.summary`), with contact precision and recall over all frames."""
    counts = sum((one.contacts for one in looked), metrics.ContactCounts())
    found = summary([one.figures for one in looked])
    return {**found, "contact_precision": counts.precision, "contact_recall": counts.recall}


def truth(data: EvalData, options: TableOptions, repeat: int) -> dict:
    """The true pairs: what the evaluator says of them with texts drawn anew."""
    cases, order = data.drawn(repeat, options.seed)
    return matching(data, cases, order, options, repeat, None if data.evaluator is None else data.truth)


def physics_of_truth(data: EvalData) -> dict:
    """Physical figures of the true pairs, and of the true reactors."""
    plain = replace(data, evaluator=None)
    pairs = _looked(data.cases, lambda rows, some: _look_at_pairs(plain, [(c.actor, c.truth) for c in some]), "truth", False)
    reactors = _looked(data.cases, lambda rows, some: _look_at_reactors(plain, some, [c.truth for c in some]), "truth", False)
    return {"pairs": _people(pairs), "reactors": _reactors(reactors)}


def _generate(model: Model, cases: Sequence[Case], options: TableOptions, seed: int) -> list[tuple[Motion, Motion]]:
    """A pair from each case's text, as long as its true one."""
    return model.generate([c.text for c in cases], [len(c.truth) / MODEL_FPS for c in cases], iterations=options.iterations,
                          guidance=options.guidance, seed=seed)


def generation(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool) -> dict:
    """Text to two people (Tables 1, 3 and 4)."""
    cases, order = data.drawn(repeat, options.seed)
    seed = _seed(options, repeat)

    def make(rows: list[int], some: list[Case]) -> list[Looked]:
        began = time.perf_counter()
        pairs = _generate(contender.model, some, options, seed + rows[0])
        return _look_at_pairs(data, pairs, seconds_a_sample=(time.perf_counter() - began) / len(pairs))
    looked = _looked(cases, make, f"{data.name}: text to two people", progress)
    return {**matching(data, cases, order, options, repeat, _stacked(looked)), **_people(looked)}


def _seed(options: TableOptions, repeat: int) -> int:
    """A seed of its own for each repeat, far from those of its batches."""
    return (options.seed * 1009 + repeat) * 100_003


def multimodality(contender: Contender, data: EvalData, options: TableOptions, run: int, progress: bool) -> dict:
    """How far apart the samples of one text lie (``mm_repeats`` samples of each of ``mm_texts`` texts)."""
    cases, order = data.drawn(run, options.seed + 1)
    chosen = [cases[i] for i in order[:options.mm_texts]]
    repeated = [c for c in chosen for _ in range(options.mm_repeats)]
    seed = _seed(options, run) + 50_000

    def make(rows: list[int], some: list[Case]) -> list[Looked]:
        pairs = _generate(contender.model, some, options, seed + rows[0])
        return [Looked(embedding, {}) for embedding in _embedded(data, pairs)]
    looked = _looked(repeated, make, f"{data.name}: MultiModality", progress)
    embedded = _stacked(looked).reshape(len(chosen), options.mm_repeats, -1)
    times = min(10, options.mm_repeats // 2)
    return {"multimodality": figures.multimodality(embedded, times=times, seed=options.seed + run, **data.setting)}


def reaction(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool, *, text: bool, start: bool,
             iterations: int | None = None) -> dict:
    """Reactions to the true actors; with ``start`` they begin with the true one's first frames."""
    cases, order = data.drawn(repeat, options.seed)
    rounds, seed = iterations or options.reaction_iterations, _seed(options, repeat)

    def make(rows: list[int], some: list[Case]) -> list[Looked]:
        reactors = contender.model.react(
            [c.actor for c in some], [c.text for c in some] if text else None, iterations=rounds, guidance=options.guidance,
            start=[c.start for c in some] if start else None, seed=seed + rows[0])
        return _look_at_reactors(data, some, reactors)
    looked = _looked(cases, make, f"{data.name}: reactions", progress)
    return {**matching(data, cases, order, options, repeat, _stacked(looked)), **_reactors(looked)}


def baseline(data: EvalData, options: TableOptions, repeat: int, which: str) -> dict:
    """A reactor who is no reaction to the true actor, `STILL` or `RANDOM` (another pair's): what the actor alone gives away."""
    cases, order = data.drawn(repeat, options.seed)
    reactors = baselines(cases, options.seed + repeat)[which]
    looked = _looked(cases, lambda rows, some: _look_at_reactors(data, some, [reactors[i] for i in rows]), which, False)
    return {**matching(data, cases, order, options, repeat, _stacked(looked)), **_reactors(looked)}


def streaming(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool, *, text: bool) -> dict:
    """Reactions hop by hop, begun as the true reactor begins; and the time of a hop."""
    cases, order = data.drawn(repeat, options.seed)
    seed = _seed(options, repeat)

    def make(rows: list[int], some: list[Case]) -> list[Looked]:
        return _look_at_reactors(data, some, stream_together(contender.model, some, text=text, seed=seed + rows[0]))
    looked = _looked(cases, make, f"{data.name}: streaming", progress, alike=False)
    timed = distributed.shared([cases], lambda some: hop_times(contender.model, some, text=text, seed=seed))[0]
    return {**matching(data, cases, order, options, repeat, _stacked(looked)), **_reactors(looked), **timed}


def latency(contender: Contender, data: EvalData, options: TableOptions, iterations: int) -> dict:
    """Milliseconds of one offline reaction of `TIMED_FRAMES` frames at most, alone, with text; and of a hop of a stream, without
    its first ones. Medians, and the 95th percentile of hops. Of several processes one takes the time while the others wait."""
    return distributed.shared([iterations], lambda n: _latency(contender, data, options, n))[0]


def _latency(contender: Contender, data: EvalData, options: TableOptions, iterations: int) -> dict:
    cases = [replace(c, actor=c.actor[:TIMED_FRAMES], truth=c.truth[:TIMED_FRAMES]) for c in data.cases[:TIMED]]
    model, offline, hops = contender.model, [], []
    for case in cases:
        for run in range(RUNS):
            began = time.perf_counter()
            model.react(case.actor, case.text, iterations=iterations, guidance=options.guidance, seed=run)
            offline.append(1e3 * (time.perf_counter() - began))
        stream = model.stream(case.text, start=case.start, seed=options.seed, iterations=iterations)
        play(stream, case.actor)
        # The first hops warm up: they record graphs and touch memory.
        hops += [1e3 * s for s in list(stream.hop_seconds)[3:]]
    hop50, hop95 = (float(x) for x in np.percentile(hops, [50, 95])) if hops else (None, None)
    return {"react_p50_ms": float(np.median(offline)), "hop_p50_ms": hop50, "hop_p95_ms": hop95,
            "hop_period_ms": 1e3 * StreamConfig().hop / MODEL_FPS}


def reconstruction(contender: Contender, data: EvalData, progress: bool) -> dict:
    """Both people of every pair through the codec and back (Table 2): joint errors, each frame weighing the same, and FID."""
    def make(rows: list[int], some: list[Case]) -> list[Looked]:
        figures, pairs = [], []
        for case in some:
            people = (case.actor, case.truth)
            pairs.append(tuple(contender.model.reconstruct(person) for person in people))
            figures.append({name: [metrics.mpjpe(back, person, align=align) / 1000 for back, person in
                                   zip(pairs[-1], people, strict=True)] for name, align in _ERRORS.items()})
        return [Looked(e, f) for e, f in zip(_embedded(data, pairs), figures, strict=True)]
    looked = _looked(data.cases, make, f"{data.name}: reconstruction", progress, alike=False)
    frames = [len(person) for case in data.cases for person in (case.actor, case.truth)]
    found = {name: float(np.average([e for one in looked for e in one.figures[name]], weights=frames)) for name in _ERRORS}
    return {**found, "reconstruction_fid": None if data.evaluator is None else data.fid(_stacked(looked))}
