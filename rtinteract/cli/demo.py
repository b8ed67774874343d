"""demo: the whole path on the bundled actor, within a minute."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import typer

from rtinteract.cli.infer import MODEL, play
from rtinteract.errors import CheckpointError
from rtinteract.metrics import physical_report
from rtinteract.model import load
from rtinteract.motion import read_motion, write_motion

OUT = typer.Option("rtinteract-demo", "--out", "-o", help="Folder for the results; made if it is not there.")


def bundled_actor():
    """The actor's clip that ships with the package, and what is known of it: text, and when and where hands meet."""
    assets = resources.files("rtinteract") / "assets"
    clip, about = assets / "actor.npz", assets / "actor.json"
    if not (clip.is_file() and about.is_file()):
        raise CheckpointError(f"the bundled clip {clip} is missing; reinstall the package")
    return read_motion(Path(str(clip))), json.loads(about.read_text())


def demo(out: Path = OUT, model: Path = MODEL, seed: int = typer.Option(0, help="Same seed, same motion."),
         fast: bool = typer.Option(False, "--fast", help="Do not wait for the clock.")) -> None:
    """Stream a reaction to the bundled actor; write .glb, .bvh, .gif, .png and report.json, and say the latency."""
    actor, about = bundled_actor()
    loaded = load(model)
    typer.echo(f"streaming a reaction to {actor.seconds:.1f} s of an actor: {about['text']}")
    reactor, report = play(loaded, actor, text=about["text"], real_time=not fast, seed=seed)
    hop = len(actor) - len(reactor) if len(reactor) < len(actor) else 4
    pair = (actor[hop:], reactor[:len(actor) - hop])
    contacts = [{**c, "start": c["start"] - hop, "end": c["end"] - hop} for c in about["contacts"]]
    report |= physical_report(*pair, contacts=contacts).to_dict()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("actor+reactor.glb", "actor+reactor.bvh", "actor+reactor.gif", "actor+reactor.png"):
        write_motion(out / name, pair)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, value in report.items():
        typer.echo(f"{name:28} {value}")
    typer.echo(f"wrote {', '.join(sorted(p.name for p in out.iterdir()))} in {out}/: open the .glb in Blender, the .gif in a browser")
