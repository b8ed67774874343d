"""react, generate, stream."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import typer

from rtinteract.errors import ConfigError
from rtinteract.model import Model, load
from rtinteract.motion import MODEL_FPS, Motion, read_motion, write_motion

MODEL = typer.Option(None, "--model", "-m", help="A model.safetensors; without it the one that ships with the package.")
DEVICE = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ...")
SKELETON = typer.Option(None, help="The .asf of an .amc file, if it does not lie beside it.")
UNITS = typer.Option(None, help="m, cm, mm, in or cmu; without it they are told by the body's height.")
OUT = typer.Option(None, "--out", "-o", help="Where to write: .glb, .bvh (two files), .npz, .gif, .mp4 or .png. May be given more than once.")
SEED = typer.Option(0, help="Same seed, same motion.")
TEXT = typer.Option(None, "--text", "-t", help="What the two people do.")
ITERATIONS = typer.Option(12, help="Rounds in which tokens are filled: more is better and slower.")
GUIDANCE = typer.Option(2.0, help="How strongly the text steers; 1 is not at all.")
TEMPERATURE = typer.Option(1.0, help="Below 1: safer; above: more varied; 0: always the likeliest.")


def _bar(total_label: str):
    """A progress callback that draws one line on stderr."""
    def report(done: int, total: int) -> bool:
        typer.echo(f"\r{total_label} {done}/{total}", nl=done >= total, err=True)
        return True
    return report


def _write(paths: list[Path], motions) -> None:
    for path in paths:
        write_motion(path, motions)
        typer.echo(f"wrote {path}")


def read_actor(path: Path, skeleton: Path | None, units: str | None) -> Motion:
    """A motion file in the model's form; what its reader assumed is told."""
    actor = read_motion(path, skeleton=skeleton, units=units)
    typer.echo(f"{path.name}: {len(actor)} frames at {actor.fps:g} fps, skeleton {actor.skeleton.name} of {len(actor.skeleton)} joints")
    for note in actor.notes:
        typer.echo(f"  {note}")
    return actor.to_model()


def react(actor: Path = typer.Argument(..., help="The actor: .bvh, .amc, .npz or rotation-vector text; .xz and .gz are read as they are."),
          out: list[Path] = OUT, text: str = TEXT, model: Path = MODEL, device: str = DEVICE, skeleton: Path = SKELETON,
          units: str = UNITS, seed: int = SEED, iterations: int = ITERATIONS, guidance: float = GUIDANCE,
          temperature: float = TEMPERATURE) -> None:
    """One person's clip in, the other person's reaction out; both are written in the actor's world.

    Example: rtinteract react actor.bvh --text "two people shake hands" --out reaction.glb --out reaction.gif
    """
    motion = read_actor(actor, skeleton, units)
    loaded = load(model, device=device)
    began = time.perf_counter()
    reactor = loaded.react(motion, text, iterations=iterations, guidance=guidance, temperature=temperature, seed=seed,
                           progress=_bar("filling"))
    typer.echo(f"{len(reactor)} frames ({reactor.seconds:.1f} s) in {time.perf_counter() - began:.2f} s")
    _write(out or [actor.with_name(actor.name.split(".")[0] + "-reaction.glb")], (motion, reactor))


def generate(texts: list[str] = typer.Argument(..., help="One sentence a pair."),
             out: list[Path] = OUT, seconds: float = typer.Option(4.0, help="Length of each clip."), model: Path = MODEL,
             device: str = DEVICE, seed: int = SEED, iterations: int = ITERATIONS, guidance: float = GUIDANCE,
             temperature: float = TEMPERATURE) -> None:
    """Both people from a sentence; several sentences are sampled as one batch.

    Example: rtinteract generate "two people wave at each other" --seconds 5 --out wave.glb
    """
    loaded = load(model, device=device)
    pairs = loaded.generate(texts, seconds, iterations=iterations, guidance=guidance, temperature=temperature, seed=seed,
                            progress=_bar("filling"))
    for i, pair in enumerate(pairs):
        targets = out or [Path("generated.glb")]
        _write([p if len(pairs) == 1 else p.with_name(f"{p.stem}-{i}{p.suffix}") for p in targets], pair)


def play(model: Model, actor: Motion, *, text: str | None = None, real_time: bool = True, **settings) -> tuple[Motion, dict]:
    """Stream a clip frame by frame; returns the reactor's motion for the clip's frames and the latency figures.

    With ``real_time`` each hop waits until its last frame would have been captured, so a late hop is really late.
    """
    stream = model.stream(text, **settings)
    hop, shown, late, began = stream.config.hop, [], 0, time.perf_counter()
    for start in range(0, len(actor) - hop + 1, hop):
        due = began + (start + hop) / MODEL_FPS
        if real_time and (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        plan = stream.hop(actor[start:start + hop])
        late += time.perf_counter() - max(due, began) > hop / MODEL_FPS if real_time else plan.seconds > hop / MODEL_FPS
        shown.append(plan.reactor[:hop])
    if not shown:
        raise ConfigError(f"stream: expected at least {hop} frames at {MODEL_FPS:g} fps, got {len(actor)}; give a longer clip")
    seconds = np.array(stream.hop_seconds)
    reactor = Motion.from_rotations(shown[0].skeleton, np.concatenate([m.root for m in shown]),
                                    np.concatenate([m.rotations for m in shown]), MODEL_FPS)
    p50, p95, p99 = np.percentile(seconds * 1e3, [50, 95, 99])
    report = {"hops": len(seconds), "hop_p50_ms": round(p50, 2), "hop_p95_ms": round(p95, 2), "hop_p99_ms": round(p99, 2),
              "late_hops": int(late), "hop_period_ms": round(hop / MODEL_FPS * 1e3, 1),
              "real_time_factor": round(hop / MODEL_FPS / float(seconds.mean()), 2),
              "fps": round(hop / float(seconds.mean()), 1), "iterations": stream.config.iterations}
    # A plan starts one hop after the frames it answers: shown frame t belongs to the actor's frame t + hop.
    return reactor, report


def stream(actor: Path = typer.Argument(..., help="The actor's clip, played at its real rate."), out: list[Path] = OUT,
           text: str = TEXT, model: Path = MODEL, device: str = DEVICE, skeleton: Path = SKELETON, units: str = UNITS,
           seed: int = SEED, iterations: int = typer.Option(6, help="Rounds a hop."), guidance: float = GUIDANCE,
           temperature: float = TEMPERATURE, window: int = typer.Option(64, help="Frames of the past that are seen."),
           horizon: int = typer.Option(16, help="Frames a plan reaches past now."),
           hop: int = typer.Option(4, help="Frames between two plans (30 a second)."),
           fast: bool = typer.Option(False, "--fast", help="Do not wait for the clock.")) -> None:
    """Play a clip through the streaming path as a game would, and print the latency of its hops."""
    motion = read_actor(actor, skeleton, units)
    reactor, report = play(load(model, device=device), motion, text=text, real_time=not fast, seed=seed, iterations=iterations,
                           guidance=guidance, temperature=temperature, window=window, horizon=horizon, hop=hop)
    for name, value in report.items():
        typer.echo(f"{name:18} {value}")
    _write(out or [], (motion[hop:hop + len(reactor)], reactor[:len(motion) - hop]))
