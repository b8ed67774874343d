"""prompts: texts encoded once and for all."""

from __future__ import annotations

from pathlib import Path

import typer

from rtinteract.cli.files import check_folder, check_model, texts_of
from rtinteract.cli.infer import BANK, CLIP, DEVICE
from rtinteract.errors import RtInteractError
from rtinteract.model import load

prompts_app = typer.Typer(no_args_is_help=True, help="Encode texts once, so that a model that reads CLIP runs without it.")


@prompts_app.command()
def export(model: Path = typer.Argument(..., help="The model.safetensors that will read the prompts."),
           texts: Path = typer.Option(..., help="A text file, one prompt a line."),
           out: Path = typer.Option("prompts.safetensors", "--out", "-o", help="Where to write."),
           clip: Path = CLIP, bank: Path = BANK, device: str = DEVICE) -> None:
    """Write a prompt bank: the texts of a file, encoded for one model.

    The bank serves that model alone, in any precision. Prompts found in --bank are taken from there.

    Example: rtinteract prompts export model.safetensors --clip clip --texts prompts.txt --out bank.safetensors
    """
    check_folder(out)
    if any(out.resolve() == given.resolve() for given in (model, texts)):
        raise RtInteractError(f"{out}: this is a file that is read; write to another one")
    check_model(model)
    asked = texts_of(texts)
    count = load(model, device=device, clip=clip, bank=bank).export_prompts(out, asked)
    typer.echo(f"wrote {out}: {count} prompts ({out.stat().st_size / 2**10:.0f} KiB); give it as --bank {out}")
