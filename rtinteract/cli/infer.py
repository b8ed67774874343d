"""react and generate."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import typer

from rtinteract.cli.files import (
    JOINT_MAP,
    SKELETON,
    UNITS,
    check_model,
    check_outputs,
    make_folder,
    read_actor,
    stem_of,
    texts_of,
    write_all,
)
from rtinteract.errors import ConfigError
from rtinteract.model import load
from rtinteract.motion import write_motion
from rtinteract.motion.atomic import replacing

MODEL = typer.Option(None, "--model", "-m", help="A model.safetensors; without it the one that ships with the package.")
DEVICE = typer.Option("auto", help="auto, cpu, cuda, cuda:1 ...")
OUT = typer.Option(None, "--out", "-o", help="Where to write: .glb, .bvh (a file each), .npz, .gif, .mp4 or .png. May be given "
                   "more than once.")
SEED = typer.Option(0, help="Same seed, same motion.")
CLIP = typer.Option(None, help="Folder of CLIP ViT-L/14@336px, for a model that reads it (published ones do): model.safetensors, "
                    "tokenizer.json, config.json. Also RTI_CLIP.")
BANK = typer.Option(None, help="Prompts encoded before (rtinteract prompts export), which need no CLIP. Also RTI_BANK.")
TEXT = typer.Option(None, "--text", "-t", help="What the two people do.")
ITERATIONS = typer.Option(12, help="Rounds in which tokens are filled: more is better and slower.")
GUIDANCE = typer.Option(2.0, help="How strongly the text steers; 1 is not at all.")
CONTACT = typer.Option(False, "--contact/--no-contact", help="Bring the second person's hands to where the two are about to "
                       "touch.")
TEMPERATURE = typer.Option(1.0, help="Below 1: safer; above: more varied; 0: always the likeliest.")
CHOICE = typer.Option(None, min=0.0, help="How much by chance tokens are retained between rounds; without it the model's own.")


def _bar(label: str):
    """A progress callback that draws one line on a terminal's stderr; None where stderr is not one."""
    if not sys.stderr.isatty():
        return None

    def report(done: int, total: int) -> bool:
        typer.echo(f"\r{label} {done}/{total}", nl=done >= total, err=True)
        return True
    return report


def react(actor: Path = typer.Argument(..., help="The actor: .bvh, .amc, .npz or rotation-vector text; .xz and .gz are read as "
                                       "they are."),
          out: list[Path] = OUT, text: str = TEXT, model: Path = MODEL, device: str = DEVICE, skeleton: Path = SKELETON,
          units: str = UNITS, joint_map: Path = JOINT_MAP, seed: int = SEED, iterations: int = ITERATIONS,
          guidance: float = GUIDANCE, temperature: float = TEMPERATURE, choice_temperature: float = CHOICE, clip: Path = CLIP,
          bank: Path = BANK, contact: bool = CONTACT) -> None:
    """One person's clip in, the other person's reaction out.

    Both people are written, in the actor's own place in the world, at 30 frames a second.

    Example: rtinteract react actor.bvh --text "two people shake hands" --out pair.glb --out pair.gif
    """
    outputs = out or [Path(f"{stem_of(actor)}-reaction.glb")]
    check_outputs(outputs, actor)
    check_model(model)
    motion = read_actor(actor, skeleton, units, joint_map)
    loaded = load(model, device=device, clip=clip, bank=bank)
    began = time.perf_counter()
    reactor = loaded.react(motion, text, iterations=iterations, guidance=guidance, temperature=temperature, seed=seed,
                           choice_temperature=choice_temperature, contact=contact, progress=_bar("filling"))
    typer.echo(f"reaction: {len(reactor)} frames ({reactor.seconds:.1f} s) in {time.perf_counter() - began:.2f} s")
    write_all(outputs, (motion, reactor))


def generate(texts: list[str] = typer.Argument(None, help="One sentence a pair."),
             out: list[Path] = OUT, seconds: float = typer.Option(4.0, help="Length of each clip."), model: Path = MODEL,
             device: str = DEVICE, seed: int = SEED, iterations: int = ITERATIONS, guidance: float = GUIDANCE,
             temperature: float = TEMPERATURE, choice_temperature: float = CHOICE, clip: Path = CLIP, bank: Path = BANK,
             contact: bool = CONTACT,
             prompts: Path = typer.Option(None, "--texts", help="File with one sentence a line instead; --out is then a folder."),
             batch: int = typer.Option(32, min=1, help="Pairs of --texts that are sampled at once."),
             form: str = typer.Option("npz", "--format", help="With --texts: npz, bvh or glb.")) -> None:
    """Both people from a sentence; several sentences are sampled as one batch.

    With several, the files are numbered: wave-0.glb, wave-1.glb ...

    Example: rtinteract generate "two people wave at each other" --seconds 5 --out wave.glb --out wave.gif

    Many, on two GPUs: torchrun --nproc-per-node 2 --no-python rtinteract generate --texts prompts.txt --out made
    """
    options = {"iterations": iterations, "guidance": guidance, "temperature": temperature, "contact": contact,
               "choice_temperature": choice_temperature}
    if (prompts is None) == (not texts):
        raise ConfigError(f"generate: expected sentences or --texts FILE, got {'both' if texts else 'neither'}")
    check_model(model)
    if prompts is not None:
        folder = _folder_of(out, form)
        _generate_many(texts_of(prompts), folder, form, lambda where: load(model, device=where, clip=clip, bank=bank), device,
                       batch, seconds, seed, options)
        return
    targets = out or [Path("generated.glb")]
    check_outputs(targets)
    loaded = load(model, device=device, clip=clip, bank=bank)
    pairs = loaded.generate(texts, seconds, **options, seed=seed, progress=_bar("filling"))
    for i, pair in enumerate(pairs):
        write_all([p if len(pairs) == 1 else p.with_name(f"{p.stem}-{i}{p.suffix}") for p in targets], pair)


def _folder_of(out: list[Path] | None, form: str) -> Path:
    """The one folder that --texts writes into, made if it is not there."""
    if out is None or len(out) != 1 or out[0].suffix:
        got = ", ".join(map(str, out or [])) or "none"
        raise ConfigError(f"--out: expected one folder with --texts, got {got}; name a folder")
    if form not in ("npz", "bvh", "glb"):
        raise ConfigError(f"--format: expected npz, bvh or glb, got {form!r}")
    make_folder(out[0])
    check_outputs([out[0] / f"0.{form}"])
    return out[0]


def _generate_many(texts: list[str], folder: Path, form: str, loaded, device: str, batch: int, seconds: float, seed: int,
                   options: dict) -> None:
    """Sample texts batch by batch; of several processes each takes its share of the batches, and the first writes index.json.

    A batch is the same texts with the same seed whatever the number of processes, so its motions are too.
    """
    from rtinteract.training import distributed

    world = distributed.world()
    model = loaded(distributed.device_of(device))
    starts = range(0, len(texts), batch)
    own = [starts[i] for i in distributed.own(len(starts))]
    made, digits = [], max(4, len(str(len(texts) - 1)))
    for done, start in enumerate(own):
        pairs = model.generate(texts[start:start + batch], seconds, **options, seed=seed + start // batch)
        for i, pair in enumerate(pairs, start):
            name = f"{i:0{digits}}.{form}"
            write_motion(folder / name, pair)
            made.append({"file": name, "text": texts[i], "frames": len(pair[0]), "process": world.rank})
        if world.chief and sys.stderr.isatty():
            typer.echo(f"\rbatches {done + 1}/{len(own)}", nl=done + 1 == len(own), err=True)
    made = distributed.gathered(made)
    if world.chief:
        about = {"seed": seed, "seconds": seconds, "batch": batch, "model": model.config.name, **options, "pairs": made}
        with replacing(folder / "index.json") as beside:
            beside.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        typer.echo(f"wrote {len(made)} pairs and index.json to {folder}")
