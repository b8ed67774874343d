"""demo: the whole path on the bundled actor, within a minute."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import typer

from rtinteract.cli.files import check_model, check_outputs, make_folder, write_all
from rtinteract.cli.infer import DEVICE, MODEL, SEED
from rtinteract.cli.live import perform
from rtinteract.errors import CheckpointError
from rtinteract.metrics import physical_report
from rtinteract.model import load
from rtinteract.motion import Motion, read_motion
from rtinteract.motion.atomic import replacing

OUT = typer.Option("rtinteract-demo", "--out", "-o", help="Folder for the results; made if it is not there.")
FORMATS = (".glb", ".bvh", ".gif", ".png")


def bundled_scene() -> tuple[Motion, Motion, dict]:
    """What ships with the package: an actor's clip, the pose in which the other person waits, and what is known of the scene:
    its text, and when and where hands should meet."""
    assets = resources.files("rtinteract") / "assets"
    clip, start, about = assets / "actor.npz", assets / "start.npz", assets / "scene.json"
    for file in (clip, start, about):
        if not file.is_file():
            raise CheckpointError(f"the bundled file {file} is missing; reinstall the package")
    return read_motion(Path(str(clip))), read_motion(Path(str(start))), json.loads(about.read_text(encoding="utf-8"))


def shifted(contacts: list[dict], by: int, frames: int) -> list[tuple]:
    """Contacts of actor and reactor, as the reactor's with the actor, in a clip of ``frames`` that begins ``by`` frames later.

    Those wholly outside are left out.
    """
    moved = [(c["joint_b"], c["joint_a"], max(c["start"] - by, 0), min(c["end"] - by, frames), c.get("gap", 0.0))
             for c in contacts]
    return [c for c in moved if c[3] > c[2]]


def demo(out: Path = OUT, model: Path = MODEL, device: str = DEVICE, seed: int = SEED,
         contact: bool = typer.Option(True, "--contact/--no-contact", help="Bring the second person's hands to where the two are "
                                      "about to touch."),
         fast: bool = typer.Option(False, "--fast", help="Do not wait for the clock.")) -> None:
    """Stream a reaction to the bundled actor: .glb, .bvh, .gif, .png and a report of latency and motion.

    The figures of the motion are the reactor's; contact_error_cm says how far its hands were from where a human's met.

    Example: rtinteract demo --out rtinteract-demo
    """
    actor, start, about = bundled_scene()
    check_model(model)
    make_folder(out)
    outputs = [out / f"actor+reactor{suffix}" for suffix in FORMATS]
    check_outputs(outputs)
    loaded = load(model, device=device)
    typer.echo(f"streaming a reaction to {actor.seconds:.1f} s of an actor: {about['text']}")
    (heard, reactor), first, report = perform(loaded, actor, text=about["text"], real_time=not fast, seed=seed, start=start,
                                              contact=contact)
    contacts = shifted(about["contacts"], first, len(reactor))
    report |= physical_report(reactor, heard, contacts=contacts).to_dict()
    write_all(outputs, (heard, reactor))
    with replacing(out / "report.json") as beside:
        beside.write_text(json.dumps({"text": about["text"], "seed": seed, **report}, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"wrote {out / 'report.json'}")
    for name, value in report.items():
        typer.echo(f"  {name:22} {f'{value:.4g}' if isinstance(value, float) else value}")
    typer.echo(f"open {outputs[0]} in Blender (File > Import > glTF), {outputs[2]} in a browser")
