"""The measurements behind the tables: text to two people, reactions, reconstruction, streaming, and what they cost.

Each returns a flat dict of numbers (None where there is nothing to measure) that `Ledger` keeps. Physical figures are those of
`rtinteract.metrics` (slide in mm a 30 Hz frame while planted, float and sink in cm, jitter in m/s^3 and over the truth's,
penetration in cm, contacts by `hand_contacts`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rtinteract.training import metrics as figures
from rtinteract.training.evaluate import BATCH, RANDOM, STILL, baselines, stream_all
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


def _batches(cases: Sequence[Case], what: str, progress: bool):
    """Indices of the cases, `BATCH` at a time, clips of like lengths together, under a progress bar."""
    order = sorted(range(len(cases)), key=lambda i: len(cases[i].truth))
    with tqdm(total=len(order), desc=what, unit="pair", leave=False, disable=not progress) as bar:
        for at in range(0, len(order), BATCH):
            yield order[at:at + BATCH]
            bar.update(len(order[at:at + BATCH]))


def generate_all(model: Model, cases: Sequence[Case], options: TableOptions, seed: int, *, what: str = "generating",
                 progress: bool = True) -> list[tuple[Motion, Motion]]:
    """A pair from each case's text, as long as its true one."""
    made: list = [None] * len(cases)
    for rows in _batches(cases, what, progress):
        some = model.generate([cases[i].text for i in rows], [len(cases[i].truth) / MODEL_FPS for i in rows],
                              iterations=options.iterations, guidance=options.guidance, seed=seed + rows[0])
        for i, pair in zip(rows, some, strict=True):
            made[i] = pair
    return made


def react_all(model: Model, cases: Sequence[Case], options: TableOptions, seed: int, *, text: bool, start: bool, iterations: int,
              what: str = "reacting", progress: bool = True) -> list[Motion]:
    """A reaction to each case's actor; with ``start`` it begins with the true one's first frames."""
    made: list = [None] * len(cases)
    for rows in _batches(cases, what, progress):
        some = [cases[i] for i in rows]
        reactors = model.react([c.actor for c in some], [c.text for c in some] if text else None, iterations=iterations,
                               guidance=options.guidance, start=[c.start for c in some] if start else None, seed=seed + rows[0])
        for i, reactor in zip(rows, reactors, strict=True):
            made[i] = reactor
    return made


def _people(pairs: Sequence[tuple[Motion, Motion]]) -> dict:
    """Physical figures of whole pairs, every person weighing the same."""
    each = [m for pair in pairs for m in pair]
    clearance = [metrics.floor_clearance(m) for m in each]
    depth = [metrics.penetration(*pair) for pair in pairs]
    return {"foot_slide_mm": float(np.mean([metrics.foot_slide(m) for m in each])),
            "float_cm": float(np.mean([100 * np.maximum(c, 0).mean() for c in clearance])),
            "sink_cm": float(np.mean([100 * np.maximum(-c, 0).mean() for c in clearance])),
            "jitter": float(np.mean([metrics.jitter(m) for m in each])),
            "penetration_median_cm": float(np.mean([np.median(d) for d in depth])),
            "penetration_deepest_cm": float(np.mean([d.max() for d in depth]))}


def _reactors(cases: Sequence[Case], reactors: Sequence[Motion]) -> dict:
    """Figures of reactors against the true ones (see `evaluate_figures.summary`), with contact precision and recall."""
    counts = metrics.ContactCounts()
    for case, reactor in zip(cases, reactors, strict=True):
        made, true = (metrics.hand_contacts(case.actor[START:], m[START:]) for m in (reactor, case.truth))
        counts += metrics.ContactCounts.of(made, true)
    found = summary([measure(case, reactor) for case, reactor in zip(cases, reactors, strict=True)])
    return {**found, "contact_precision": counts.precision, "contact_recall": counts.recall}


def truth(data: EvalData, options: TableOptions, repeat: int) -> dict:
    """The true pairs: what the evaluator says of them with texts drawn anew."""
    cases, order = data.drawn(repeat, options.seed)
    return matching(data, cases, [], order, options, repeat, embedded=None if data.evaluator is None else data.truth)


def physics_of_truth(data: EvalData) -> dict:
    """Physical figures of the true pairs, and of the true reactors."""
    reactors = _reactors(data.cases, [c.truth for c in data.cases])
    return {"pairs": _people([(c.actor, c.truth) for c in data.cases]), "reactors": reactors}


def generation(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool) -> dict:
    """Text to two people (Tables 1, 3 and 4)."""
    cases, order = data.drawn(repeat, options.seed)
    began = time.perf_counter()
    pairs = generate_all(contender.model, cases, options, _seed(options, repeat), what=f"{data.name}: text to two people",
                         progress=progress)
    took = (time.perf_counter() - began) / len(pairs)
    return {**matching(data, cases, pairs, order, options, repeat), **_people(pairs), "seconds_a_sample": took}


def _seed(options: TableOptions, repeat: int) -> int:
    """A seed of its own for each repeat, far from those of its batches."""
    return (options.seed * 1009 + repeat) * 100_003


def multimodality(contender: Contender, data: EvalData, options: TableOptions, run: int, progress: bool) -> dict:
    """How far apart the samples of one text lie (``mm_repeats`` samples of each of ``mm_texts`` texts)."""
    cases, order = data.drawn(run, options.seed + 1)
    chosen = [cases[i] for i in order[:options.mm_texts]]
    repeated = [c for c in chosen for _ in range(options.mm_repeats)]
    pairs = generate_all(contender.model, repeated, options, _seed(options, run) + 50_000, what=f"{data.name}: MultiModality",
                         progress=progress)
    embedded = data.evaluator.pairs(pairs).reshape(len(chosen), options.mm_repeats, -1)
    times = min(10, options.mm_repeats // 2)
    return {"multimodality": figures.multimodality(embedded, times=times, seed=options.seed + run, **data.setting)}


def reaction(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool, *, text: bool, start: bool,
             iterations: int | None = None) -> dict:
    """Reactions to the true actors."""
    cases, order = data.drawn(repeat, options.seed)
    rounds = iterations or options.reaction_iterations
    reactors = react_all(contender.model, cases, options, _seed(options, repeat), text=text, start=start, iterations=rounds,
                         what=f"{data.name}: reactions", progress=progress)
    found = matching(data, cases, [(c.actor, r) for c, r in zip(cases, reactors, strict=True)], order, options, repeat)
    return {**found, **_reactors(cases, reactors)}


def baseline(data: EvalData, options: TableOptions, repeat: int, which: str) -> dict:
    """A reactor who is no reaction to the true actor, `STILL` or `RANDOM` (another pair's): what the actor alone gives away."""
    cases, order = data.drawn(repeat, options.seed)
    reactors = baselines(cases, options.seed + repeat)[which]
    found = matching(data, cases, [(c.actor, r) for c, r in zip(cases, reactors, strict=True)], order, options, repeat)
    return {**found, **_reactors(cases, reactors)}


def streaming(contender: Contender, data: EvalData, options: TableOptions, repeat: int, progress: bool, *, text: bool) -> dict:
    """Reactions hop by hop, begun as the true reactor begins; and the time of a hop."""
    cases, order = data.drawn(repeat, options.seed)
    reactors, latency = stream_all(contender.model, cases, text=text, seed=_seed(options, repeat), progress=progress)
    found = matching(data, cases, [(c.actor, r) for c, r in zip(cases, reactors, strict=True)], order, options, repeat)
    return {**found, **_reactors(cases, reactors), **latency}


def latency(contender: Contender, data: EvalData, options: TableOptions, iterations: int) -> dict:
    """Milliseconds of one offline reaction of `TIMED_FRAMES` frames at most, alone, with text; and of a hop of a stream, without
    its first ones. Medians, and the 95th percentile of hops."""
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
    made, errors, aligned, frames = [], [], [], []
    for case in tqdm(data.cases, desc=f"{data.name}: reconstruction", unit="pair", leave=False, disable=not progress):
        pair = []
        for person in (case.actor, case.truth):
            back = contender.model.reconstruct(person)
            errors.append(metrics.mpjpe(back, person) / 1000)
            aligned.append(metrics.mpjpe(back, person, align="root") / 1000)
            frames.append(len(person))
            pair.append(back)
        made.append(tuple(pair))
    found = {"mpjpe_m": float(np.average(errors, weights=frames)), "aligned_m": float(np.average(aligned, weights=frames)),
             "reconstruction_fid": None}
    if data.evaluator is not None:
        found["reconstruction_fid"] = data.fid(data.evaluator.pairs(made))
    return found
