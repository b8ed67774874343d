"""Evaluate a model on motion it never saw: the codec, reactions against baselines, streaming against offline, a real pair."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rtinteract.training import distributed
from rtinteract.training.codec import reconstruction_error
from rtinteract.training.datasets import load_two_person
from rtinteract.training.evaluate_figures import Case, contact_summary, measure, stand_in, still, summary, versus
from rtinteract.training.evaluate_real import read_pair, real_section
from rtinteract.training.evaluate_report import markdown, write_pictures
from rtinteract.training.pairs import PairClip
from rtinteract.training.solo import SoloClip, load_corpus
from tqdm import tqdm

from rtinteract import metrics
from rtinteract.errors import ConfigError, RtInteractError
from rtinteract.model import Model
from rtinteract.motion import Motion
from rtinteract.motion.atomic import replacing
from rtinteract.pipeline import Poses, body_of, with_contacts
from rtinteract.stream import StreamConfig, hop_together, play, shown

log = logging.getLogger(__name__)

# Pairs sampled at once: bounds the memory for any number of them.
BATCH = 32
# Steps of `rtinteract.refine` that the codec's second row has.
REFINED = 150
# Pairs that are also streamed one by one, for the time of a hop.
TIMED = 4
TRUTH, STILL, RANDOM = "truth", "standing still", "random clip"
OFFLINE, STREAMING, WITH_TEXT, NO_START, CLOSED = "react", "stream", " + text", ", no start", ", contact"


def evaluate(model: Model, *, solo: Path | None = None, pairs: Path | None = None, real_pair: tuple[Path, Path] | None = None,
             out: Path, limit: int | None = None, seed: int = 0, text: bool = True, progress: bool = True,
             cache: Path | None = None, stream_limit: int | None = 24, smplx: Path | None = None) -> dict:
    """Evaluate ``model`` on what is given; writes ``out``/report.json, report.md and pictures, and returns the report.

    ``solo``: a folder of motion capture, of which the held-out clips (split "test") are used; ``cache`` as `load_corpus` takes
    it. ``pairs``: a folder of PairClips composed from held-out clips, or a two-person data set, whose test split is used;
    ``smplx`` are the bodies of Inter-X, as `load_two_person` takes them.
    ``real_pair``: the files of a real actor and reactor.
    Whatever is not given, or cannot be done with this model, stands in the report under "left_out". ``limit`` bounds the
    number of clips and of pairs, ``stream_limit`` the pairs that are also streamed, hop by hop; ``text`` also evaluates with
    each pair's text. Same seed, same numbers (times apart), also where several processes share the work, of which the first
    writes.
    ConfigError when there is nothing to evaluate; MotionError for files that cannot be read.
    """
    if solo is None and pairs is None and real_pair is None:
        raise ConfigError("evaluate: expected at least one of solo, pairs and real_pair, got none; give one")
    if limit is not None and limit < 1:
        raise ConfigError(f"evaluate: expected a limit of at least 1, got {limit}; leave it out for everything")
    out, chief = Path(out), distributed.world().chief
    out.mkdir(parents=True, exist_ok=True)
    progress = progress and chief
    left_out: list[str] = []
    text = text and _takes_text(model, left_out)
    report: dict = {"model": _about(model), "seed": seed, "limit": limit, "text": text, "left_out": left_out, "seconds": {}}
    scenes: dict = {}
    began = time.perf_counter()

    def done(name: str) -> None:
        report["seconds"][name] = round(time.perf_counter() - began - sum(report["seconds"].values()), 2)

    if solo is None:
        left_out.append("codec: no folder of solo motion capture was given")
    else:
        report["codec"] = codec_section(model, load_corpus(solo, cache), limit, left_out, progress)
        done("codec")
    if pairs is None:
        left_out.append("reactions and streaming: no folder of held-out pairs was given")
    else:
        cases = _cases(load_two_person(pairs, split="test", cache=cache, smplx=smplx), limit, left_out)
        report |= pair_sections(model, cases, text=text, seed=seed, left_out=left_out, progress=progress, scenes=scenes,
                                done=done, stream_limit=stream_limit)
    if real_pair is None:
        left_out.append("real pair: no files were given")
    else:
        case = read_pair(Path(real_pair[0]), Path(real_pair[1]))
        with tqdm(desc="real pair", unit="contender", disable=not progress) as bar:
            (report["real"], made), = distributed.shared([case], lambda one: real_section(
                model, one, text=text, seed=seed, left_out=left_out, step=_label(bar)))
        scenes["real"] = (case.actor, made)
        done("real")
    if chief:
        report["pictures"] = write_pictures(out, scenes, report, left_out)
        done("pictures")
        _write(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
        _write(out / "report.md", markdown(report))
    return distributed.told(report)


def _write(path: Path, content: str) -> None:
    with replacing(path) as beside:
        beside.write_text(content, encoding="utf-8")


def _label(bar):
    def step(label: str) -> None:
        bar.set_postfix_str(label)
        bar.update()
    return step


def _about(model: Model) -> dict:
    c = model.config
    return {"name": c.name, "representation": c.representation, "window": c.window, "device": str(model.device),
            "parameters": sum(p.numel() for m in model.parts.modules().values() for p in m.parameters()),
            "torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}


def _takes_text(model: Model, left_out: list[str]) -> bool:
    """Whether prompts can be encoded; if not, why goes to ``left_out``."""
    if model.config.text.kind == "none":
        left_out.append("with text: the model takes no text")
        return False
    try:
        model.prompts.encode(["two people shake hands"])
    except RtInteractError as error:
        left_out.append(f"with text: {error}")
        return False
    return True


def codec_section(model: Model, clips: Sequence[SoloClip], limit: int | None, left_out: list[str], progress: bool = True) -> dict:
    """Reconstruction of held-out clips in mm, each frame weighing the same: whole, and re-anchored through the model, also with
    codes that `REFINED` steps were spent on."""
    held_out = [c for c in clips if c.split == "test"]
    if not held_out:
        left_out.append("codec: the folder holds no held-out clip (split \"test\")")
        return {}
    if limit is not None and len(held_out) > limit:
        left_out.append(f"codec: {len(held_out) - limit} of {len(held_out)} held-out clips (limit {limit})")
        held_out = held_out[:limit]
    pipeline = model.pipeline
    bar = tqdm(total=len(distributed.taken(held_out)), desc="codec", unit="clip", disable=not progress)

    def reconstructed(clip: SoloClip | None) -> dict:
        if clip is None:
            with torch.inference_mode():
                return reconstruction_error(pipeline.codec, pipeline.normalizer, pipeline.representation, held_out,
                                            model.config.window)
        truth = clip.motion.to_model()
        row = {"name": clip.name, "frames": len(truth), **_off(model.reconstruct(truth), truth),
               "refined": _off(model.reconstruct(truth, refine=REFINED), truth)}
        bar.update()
        return row
    with bar:
        *rows, whole = distributed.shared([*held_out, None], reconstructed)
    frames = [row["frames"] for row in rows]

    def mean(found: Sequence[dict]) -> dict:
        return {name: float(np.average([row[name] for row in found], weights=frames)) for name in _OFF}
    return {"clips": len(rows), "frames": sum(frames), "whole": {"mpjpe_mm": whole["mpjpe"], "aligned_mm": whole["aligned"]},
            "reconstruct": mean(rows), "refined": mean([row["refined"] for row in rows]), "refine_steps": REFINED,
            "codes": model.config.codec.codes, "codes_used": whole["codes_used"], "perplexity": whole["perplexity"], "each": rows}


_OFF = ("mpjpe_mm", "aligned_mm", "foot_slide_mm", "true_foot_slide_mm", "jitter_ratio")


def _off(made: Motion, truth: Motion) -> dict:
    """How a reconstruction differs from the truth, by the names `_OFF`."""
    return dict(zip(_OFF, (metrics.mpjpe(made, truth), metrics.mpjpe(made, truth, align="root"), metrics.foot_slide(made),
                           metrics.foot_slide(truth), metrics.jitter(made) / max(metrics.jitter(truth), 1e-9)), strict=True))


def _cases(clips: Sequence[PairClip], limit: int | None, left_out: list[str]) -> list[Case]:
    """The pairs as cases; each takes its texts in turn."""
    if limit is not None and len(clips) > limit:
        left_out.append(f"pairs: {len(clips) - limit} of {len(clips)} (limit {limit})")
        clips = clips[:limit]
    seen = sum(c.meta.get("split", "test") != "test" for c in clips)
    if seen:
        left_out.append(f"warning: {seen} of {len(clips)} pairs were composed from training clips; they are not held out")
    cases = []
    for i, clip in enumerate(clips):
        actor, truth = (m.to_model() for m in clip.motions())
        text = clip.texts[i % len(clip.texts)] if clip.texts else ""
        cases.append(Case(actor, truth, clip.contacts, clip.kind, text, clip.seed))
    return cases


def pair_sections(model: Model, cases: Sequence[Case], *, text: bool, seed: int, left_out: list[str], progress: bool,
                  scenes: dict, done, stream_limit: int | None = None) -> dict:
    """The sections "reactions" and "streaming"; ``scenes["pairs"]`` takes what pictures need."""
    made = baselines(cases, seed)
    if RANDOM not in made:
        left_out.append("random clip: it takes at least two pairs")
    with tqdm(desc="reactions", unit="contender", disable=not progress) as bar:
        for prompt, start in (("", ""), ("", NO_START)) + (((WITH_TEXT, ""),) if text else ()):
            _label(bar)(OFFLINE + prompt + start)
            made[OFFLINE + prompt + start] = react_all(model, cases, text=bool(prompt), start=not start, seed=seed)
    if text:
        both = list(zip(cases, made[OFFLINE + WITH_TEXT], strict=True))
        made[OFFLINE + WITH_TEXT + CLOSED] = distributed.shared(both, lambda one: met(one[0].actor, one[1], len(one[0].start)))
    measured = measure_all(cases, made, progress)
    found = {"reactions": reaction_report(cases, measured)}
    done("reactions")
    streamed, latency, few = {}, {}, cases[:stream_limit]
    if len(few) < len(cases):
        left_out.append(f"streaming: {len(cases) - len(few)} of {len(cases)} pairs (stream_limit {stream_limit})")
    for prompt in ("", WITH_TEXT) if text else ("",):
        try:
            streamed[STREAMING + prompt], latency[STREAMING + prompt] = stream_all(
                model, few, text=bool(prompt), seed=seed, progress=progress)
        except ConfigError as error:
            left_out.append(f"streaming{prompt}: {error}")
    scenes["pairs"] = (cases, made | streamed)
    if streamed:
        rows = measure_all(few, streamed, progress)
        measured = {name: found[:len(few)] for name, found in measured.items()}
        sides = {name: summary(measured[name]) for name in (OFFLINE, OFFLINE + WITH_TEXT) if name in measured}
        sides |= {name: summary(r) for name, r in rows.items()}
        found["streaming"] = {"pairs": len(few), "contenders": sides, "latency": latency,
                              "gaps": {name: versus(r, measured[name.replace(STREAMING, OFFLINE)]) for name, r in rows.items()}}
        done("streaming")
    return found


def baselines(cases: Sequence[Case], seed: int = 0) -> dict[str, list[Motion]]:
    """The truth, the reactor who stands still, and another pair's reactor in each one's place (where there are two pairs)."""
    made = {TRUTH: [c.truth for c in cases], STILL: [still(c) for c in cases]}
    if len(cases) > 1:
        steps = np.random.default_rng([seed, 1]).integers(1, len(cases), size=len(cases))
        others = [cases[(i + int(s)) % len(cases)].truth for i, s in enumerate(steps)]
        made[RANDOM] = [stand_in(case, other) for case, other in zip(cases, others, strict=True)]
    return made


def react_all(model: Model, cases: Sequence[Case], *, text: bool, start: bool, seed: int) -> list[Motion]:
    """Offline reactions to all cases, `BATCH` at a time, shared by the processes where there are several."""
    def some(at: int) -> list[Motion]:
        few = cases[at:at + BATCH]
        return model.react([c.actor for c in few], [c.text for c in few] if text else None,
                           start=[c.start for c in few] if start else None, seed=seed + at)
    return [m for made in distributed.shared(range(0, len(cases), BATCH), some) for m in made]


def stream_together(model: Model, cases: Sequence[Case], *, text: bool, seed: int) -> list[Motion]:
    """Streamed reactions from the true start, all pairs hopping together, each as long as its truth.

    Each has a seed of its own, from ``seed`` on: FID and diversity of streams that draw alike say too much.
    """
    hop = StreamConfig().hop
    streams = [model.stream(c.text if text else None, start=c.start, seed=seed + i) for i, c in enumerate(cases)]
    plans: list[list] = [[] for _ in cases]
    for first in range(0, max(len(c.actor) for c in cases) - hop + 1, hop):
        live = [i for i, c in enumerate(cases) if first + hop <= len(c.actor)]
        hopped = hop_together([streams[i] for i in live], [cases[i].actor[first:first + hop] for i in live])
        for i, plan in zip(live, hopped, strict=True):
            plans[i].append(plan)
    # The first hop's plan begins where the given start ends; the last one reaches past the clip.
    return [Motion.join([c.start, shown(p, hop)])[:len(c.truth)] for c, p in zip(cases, plans, strict=True)]


def hop_times(model: Model, cases: Sequence[Case], *, text: bool, seed: int) -> dict:
    """Milliseconds of the hops of the first few pairs, one after the other, warmed up."""
    hop, seconds = StreamConfig().hop, []
    model.stream(start=cases[0].start).push(cases[0].actor[:3 * hop])
    for case in cases[:TIMED]:
        stream = model.stream(case.text if text else None, start=case.start, seed=seed)
        play(stream, case.actor)
        seconds += stream.hop_seconds
    p50, p95, p99 = np.percentile(np.array(seconds) * 1e3, [50, 95, 99])
    period = 1e3 * hop / cases[0].actor.fps
    return {"hops": len(seconds), "hop_p50_ms": float(p50), "hop_p95_ms": float(p95), "hop_p99_ms": float(p99),
            "hop_period_ms": period, "over_period": float((np.array(seconds) * 1e3 > period).mean()),
            "iterations": StreamConfig().iterations}


def stream_all(model: Model, cases: Sequence[Case], *, text: bool, seed: int, progress: bool = True) -> tuple[list[Motion], dict]:
    """Streamed reactions to all cases, `BATCH` at a time, shared by the processes where there are several; and `hop_times`, while
    the others wait."""
    with tqdm(desc="streaming" + (WITH_TEXT if text else ""), unit="batch", disable=not progress) as bar:
        def some(at: int) -> list[Motion]:
            made = stream_together(model, cases[at:at + BATCH], text=text, seed=seed + at)
            bar.update()
            return made
        made = [m for few in distributed.shared(range(0, len(cases), BATCH), some) for m in few]
    times, = distributed.shared([cases], lambda few: hop_times(model, few, text=text, seed=seed))
    return made, times


def met(actor: Motion, reactor: Motion, fixed: int) -> Motion:
    """What `Model.react` makes of a reactor with ``contact``; the first ``fixed`` frames stay."""
    body = body_of(reactor)
    return with_contacts(Poses.of(reactor), body, Poses.of(actor), fixed).motion(body)


def measure_all(cases: Sequence[Case], made: dict[str, list[Motion]], progress: bool = True) -> dict[str, list[dict]]:
    """Figures of every contender in every case."""
    return {name: distributed.shared(list(zip(cases, reactors, strict=True)), lambda one: measure(*one))
            for name, reactors in tqdm(made.items(), desc="measuring", unit="contender", disable=not progress)}


def reaction_report(cases: Sequence[Case], measured: dict[str, list[dict]]) -> dict:
    """Summaries of all contenders, of each kind of interaction, and of the model against the baselines."""
    kinds: dict = {}
    for kind in sorted({c.kind for c in cases}):
        rows = [i for i, c in enumerate(cases) if c.kind == kind]
        kinds[kind] = {"pairs": len(rows)}
        for name, found in measured.items():
            own = [found[i] for i in rows]
            kinds[kind][name] = {"distance_m": float(np.mean([row["distance_m"] for row in own])), **contact_summary(own)}
    against = {name: {other: versus(found, measured[other]) for other in (STILL, RANDOM) if other in measured}
               for name, found in measured.items() if name.startswith(OFFLINE)}
    each = [{"kind": c.kind, "seed": c.seed, "text": c.text, "frames": len(c.truth),
             "distance_m": {name: found[i]["distance_m"] for name, found in measured.items()},
             "contacts_cm": {name: found[i]["contacts_cm"] for name, found in measured.items()}} for i, c in enumerate(cases)]
    return {"pairs": len(cases), "with_contacts": sum(bool(c.contacts) for c in cases),
            "contenders": {name: summary(found) for name, found in measured.items()}, "kinds": kinds, "against": against,
            "each": each}
