"""stream: a clip through the streaming path at its real rate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer

from rtinteract.cli.files import JOINT_MAP, SKELETON, UNITS, check_model, check_outputs, read_actor, write_all
from rtinteract.cli.infer import BANK, CHOICE, CLIP, CONTACT, DEVICE, MODEL, OUT, SEED, TEMPERATURE, TEXT
from rtinteract.errors import MotionError
from rtinteract.model import Model, load
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.stream import Plan, StreamConfig, shown


def perform(model: Model, actor: Motion, *, text: str | None = None, real_time: bool = True,
            **settings) -> tuple[tuple[Motion, Motion], int, dict]:
    """Stream a clip; returns the pair as a viewer saw it, the actor's first frame in it, and the latency figures.

    ``actor`` is in the model's form. The first plan is made when ``hop`` frames have been heard and begins with the next
    one, so the pair begins at the actor's frame ``hop``; both people have one length. With ``real_time`` each hop waits until
    its last frame would have been captured, so a late hop is really late. MotionError for a clip of ``hop`` frames or fewer.
    """
    stream = model.stream(text, **settings)
    hop = stream.config.hop
    if len(actor) <= hop:
        raise MotionError(f"stream: expected more than {hop} frames at {MODEL_FPS:g} fps, got {len(actor)}; give a longer clip, "
                          "or use `rtinteract react`")
    stream.warm_up()
    period, late, plans, began = hop / MODEL_FPS, 0, [], time.perf_counter()
    for start in range(0, len(actor) - hop + 1, hop):
        due = began + (start + hop) / MODEL_FPS
        if real_time and (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        plans += stream.push(actor[start:start + hop])
        late += time.perf_counter() - due > period if real_time else plans[-1].seconds > period
    return (actor[hop:], shown(plans, hop)[:len(actor) - hop]), hop, _latency(plans, period, int(late), stream.config.iterations)


def _latency(plans: Sequence[Plan], period: float, late: int, iterations: int) -> dict:
    """Milliseconds a hop, and how much of real time they leave."""
    seconds = np.array([plan.seconds for plan in plans])
    figures = {f"hop_p{p}_ms": round(float(np.percentile(seconds, p)) * 1e3, 2) for p in (50, 95, 99)}
    factor = period / float(seconds.mean())
    return {"hops": len(plans), **figures, "hop_period_ms": round(period * 1e3, 1), "late_hops": late,
            "real_time_factor": round(factor, 2), "fps": round(factor * MODEL_FPS, 1), "iterations": iterations}


def stream(actor: Path = typer.Argument(..., help="The actor's clip, played at its real rate."), out: list[Path] = OUT,
           text: str = TEXT, model: Path = MODEL, device: str = DEVICE, skeleton: Path = SKELETON, units: str = UNITS,
           joint_map: Path = JOINT_MAP, seed: int = SEED,
           iterations: int = typer.Option(StreamConfig.iterations, help="Rounds a hop."),
           guidance: float = typer.Option(StreamConfig.guidance, help="How strongly the text steers; above 1 it costs time. "
                                          "Default: 2, with --contact 1."),
           temperature: float = TEMPERATURE, choice_temperature: float = CHOICE, clip: Path = CLIP, bank: Path = BANK,
           contact: bool = CONTACT,
           window: int = typer.Option(StreamConfig.window, help="Frames of the past that are seen."),
           horizon: int = typer.Option(StreamConfig.horizon, help="Frames a plan reaches past now."),
           hop: int = typer.Option(StreamConfig.hop, help="Frames between two plans (30 a second)."),
           fast: bool = typer.Option(False, "--fast", help="Do not wait for the clock.")) -> None:
    """Play a clip through the streaming path as a game would, and print the latency of its hops.

    A late hop took longer than the frames it answers last. What was shown can be written too: both people, from the
    actor's frame HOP on.

    Example: rtinteract stream actor.bvh --out streamed.glb
    """
    check_outputs(out or [], actor)
    check_model(model)
    motion = read_actor(actor, skeleton, units, joint_map)
    loaded = load(model, device=device, clip=clip, bank=bank)
    pair, _, report = perform(loaded, motion, text=text, real_time=not fast, seed=seed, iterations=iterations, guidance=guidance,
                              temperature=temperature, choice_temperature=choice_temperature, contact=contact, window=window,
                              horizon=horizon, hop=hop)
    for name, value in report.items():
        typer.echo(f"{name:18} {value}")
    write_all(out or [], pair)
