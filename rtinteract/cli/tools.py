"""import-intermask and view."""

from __future__ import annotations

from pathlib import Path

import typer

from rtinteract.motion import read_motion, write_motion


def import_intermask(codec: Path = typer.Option(..., help="The codec's best_fid.tar."),
                     transformer: Path = typer.Option(..., help="The transformer's best.tar."),
                     mean: Path = typer.Option(None, help="global_mean.npy (262 values)."),
                     std: Path = typer.Option(None, help="global_std.npy (262 values)."),
                     out: Path = typer.Option("model.safetensors", help="Where to write.")) -> None:
    """Turn the published InterMask checkpoints into one model.safetensors; every key must be accounted for."""
    from rtinteract.checkpoint import save_model
    from rtinteract.importer import import_intermask as read

    save_model(out, read(codec, transformer, mean, std))
    typer.echo(f"wrote {out}")


def view(files: list[Path] = typer.Argument(..., help="One motion file, or two for a pair; a .glb or .npz may hold both people."),
         out: Path = typer.Option(None, "--out", "-o", help="A .png contact sheet, .gif or .mp4; beside the first file without it."),
         skeleton: Path = typer.Option(None, help="The .asf of an .amc file.")) -> None:
    """Draw motion files: both people, a floor grid, trails."""
    motions = [read_motion(f, skeleton=skeleton) for f in files]
    rate = motions[0].fps
    target = out or files[0].with_suffix(".gif")
    write_motion(target, tuple(m if m.fps == rate else m.resampled(rate) for m in motions) if len(motions) > 1 else motions[0])
    typer.echo(f"wrote {target}")
