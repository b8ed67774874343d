"""quantize: an int8 file of a model, and how near it is."""

from __future__ import annotations

import importlib
import json
from importlib import resources
from pathlib import Path

import torch
import typer

from rtinteract.agreement import LEAST_TOP1, MOST_MM, agreement
from rtinteract.checkpoint import save_model
from rtinteract.cli.files import check_folder, check_model
from rtinteract.cli.tools import people_of
from rtinteract.errors import ConfigError
from rtinteract.model import SHIPPED, Model, load
from rtinteract.motion import Motion
from rtinteract.motion.atomic import replacing
from rtinteract.motion.files import READABLE, stem_and_suffix

PRECISIONS = ("int8",)


def calibration_clips(folder: Path, limit: int) -> list[list[Motion]]:
    """The people, one or two in the model's form, of at most ``limit`` clips of a folder: composed pairs, or motion files.

    ConfigError for a folder that is missing or holds none.
    """
    if not folder.is_dir():
        raise ConfigError(f"--calibrate: expected a folder of motion files or composed pairs, got {folder}, which is "
                          f"{'a file' if folder.exists() else 'not there'}; check the path")
    if (folder / "index.json").is_file():
        pairs = importlib.import_module("rtinteract.training.pairs").load_pairs(folder)
        # Composed pairs lie kind by kind: every kind is seen.
        clips = [list(pair.motions()) for pair in pairs[::max(1, len(pairs) // limit)]]
    else:
        files = sorted(f for f in folder.rglob("*") if f.is_file() and stem_and_suffix(f)[1] in READABLE)
        clips = [people_of(f, None, None) for f in files[:limit]]
    if not clips:
        raise ConfigError(f"--calibrate: expected motion files ({', '.join(READABLE)}) or composed pairs in {folder}, got none; "
                          "give the folder of your clips")
    return [[m.to_model() for m in people] for people in clips[:limit]]


def _paired(full: Model, people: list[Motion], seed: int) -> tuple[Motion, Motion]:
    """A clip's two people; one who is alone gets the partner that the float model answers with."""
    return (people[0], people[1]) if len(people) > 1 else (people[0], full.react(people[0], seed=seed))


def quantize(model: Path = typer.Argument(None, help="A model.safetensors; without it the one that ships with the package."),
             precision: str = typer.Option("int8", help="int8 is the only one: weights of 8 bits with a scale for each output."),
             calibrate: Path = typer.Option(..., help="Folder of clips on which the result is compared with the original: motion "
                                            "files, or composed pairs."),
             out: Path = typer.Option("model-int8.safetensors", "--out", "-o", help="Where to write."),
             report: Path = typer.Option(None, help="Where to write the comparison; without it beside the model, as .json."),
             limit: int = typer.Option(16, min=1, help="At most so many clips."),
             seed: int = typer.Option(0, help="Same seed, same figures.")) -> None:
    """Write a model in int8, a quarter of its float32 size, and compare the two on clips.

    Example: rtinteract quantize model.safetensors --precision int8 --calibrate clips --out model-int8.safetensors
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision: expected {', '.join(PRECISIONS)}, got {precision!r}; float files are made by "
                          "`rtinteract train assemble`")
    check_model(model)
    source = model or Path(str(resources.files("rtinteract") / "assets" / SHIPPED))
    beside = report or out.with_suffix(".json")
    for path in (out, beside):
        check_folder(path)
        if path.resolve() == source.resolve():
            raise ConfigError(f"{path}: this is the file that is read; write to another one")
    people = calibration_clips(calibrate, limit)
    full = load(source, device="cpu", precision="float32")
    save_model(out, full.parts, dtype=torch.int8)
    found = agreement(full, load(out, device="cpu", precision="int8"), [_paired(full, p, seed) for p in people], seed)
    weights = sum(t.numel() * t.element_size() for m in full.parts.modules().values() for t in m.state_dict().values())
    found |= {"model": full.config.name, "bytes": out.stat().st_size, "share_of_float32": out.stat().st_size / weights}
    with replacing(beside) as place:
        place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"wrote {out} ({found['bytes'] / 2**20:.1f} MiB, {found['share_of_float32']:.2f} of float32) and {beside}")
    for section in ("codes", "reconstruction", "reaction"):
        for name, value in found[section].items():
            typer.echo(f"  {section + ' ' + name:40} {value:.4g}")
    if not found["faithful"]:
        typer.echo(f"warning: expected a top-1 agreement of {LEAST_TOP1:g} or more and a reconstruction within {MOST_MM:g} mm; "
                   "this model loses more in int8 than is promised", err=True)
