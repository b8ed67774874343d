"""import-intermask, import-clip and view."""

from __future__ import annotations

from pathlib import Path

import typer

from rtinteract.cli.files import SKELETON, UNITS, check_folder, check_outputs, make_folder, stem_of, units_of
from rtinteract.errors import MotionError
from rtinteract.motion import Motion, read_motion, write_motion
from rtinteract.motion.files import read_bytes, stem_and_suffix


def import_intermask(codec: Path = typer.Option(..., help="The codec's best_fid.tar."),
                     transformer: Path = typer.Option(..., help="The transformer's best.tar."),
                     mean: Path = typer.Option(None, help="global_mean.npy (262 values); without it and --std, features are not "
                                               "normalised."),
                     std: Path = typer.Option(None, help="global_std.npy (262 values)."),
                     heads: int = typer.Option(None, min=1, help="Attention heads, where the width is no multiple of 64."),
                     out: Path = typer.Option("model.safetensors", "--out", "-o", help="Where to write.")) -> None:
    """Turn the published InterMask checkpoints into one model.safetensors.

    Every key of the files must be accounted for. A published model reads its texts through CLIP ViT-L/14@336px: give the
    folder as --clip where there is text (see import-clip), or the texts' prompt bank as --bank (see prompts export).

    Example: rtinteract import-intermask --codec best_fid.tar --transformer best.tar --mean global_mean.npy --std global_std.npy
    """
    from rtinteract.checkpoint import save_model
    from rtinteract.importer import import_intermask as read

    check_folder(out)
    parts = read(codec, transformer, mean, std, heads=heads)
    save_model(out, parts)
    c = parts.config
    typer.echo(f"{c.representation}: codec of {c.codec.codes} codes, transformer of {c.transformer.layers} layers, "
               f"{c.transformer.width} wide, {c.transformer.heads} heads")
    typer.echo(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")


def import_clip(folder: Path = typer.Argument(..., help="A folder with pytorch_model.bin, tokenizer.json and config.json."),
                out: Path = typer.Option(..., "--out", "-o", help="Folder for the text tower; made if it is not there.")) -> None:
    """Turn a CLIP folder whose weights are a pytorch_model.bin into one for --clip, with the text tower alone.

    Nothing is unpickled but tensors.

    Example: rtinteract import-clip clip-vit-large-patch14-336 --out clip
    """
    from rtinteract.importer import import_clip as read

    make_folder(out)
    file = read(folder, out)
    typer.echo(f"wrote {file} ({file.stat().st_size / 2**20:.0f} MiB) and what lies beside it; give it as --clip {out}")


def people_of(path: Path, skeleton: Path | None, units: str | None) -> list[Motion]:
    """Everybody in a motion file: our own .npz and .glb may hold more than one person."""
    suffix = stem_and_suffix(path)[1]
    if suffix == ".npz":
        from rtinteract.motion.archive import read_people

        return read_people(read_bytes(path), str(path))
    if suffix == ".glb":
        from rtinteract.motion.gltf import read_gltf

        return read_gltf(path)
    return [read_motion(path, skeleton=skeleton, units=units_of(units))]


def view(files: list[Path] = typer.Argument(..., help="Motion files, shown together; a .glb or .npz of rtinteract may hold both "
                                            "people."),
         out: Path = typer.Option(None, "--out", "-o", help="A .png contact sheet, .gif or .mp4; without it a .gif of the first "
                                  "file's name, here."),
         skeleton: Path = SKELETON, units: str = UNITS) -> None:
    """Draw motion files: the people, a floor grid, trails.

    Example: rtinteract view actor.bvh reactor.bvh --out pair.png
    """
    target = out or Path(f"{stem_of(files[0])}.gif")
    check_outputs([target], *files)
    if target.suffix.lower() not in (".png", ".gif", ".mp4"):
        raise MotionError(f"{target}: expected a picture, .png, .gif or .mp4, got {target.suffix!r}; rename it")
    motions = [m for f in files for m in people_of(f, skeleton, units)]
    write_motion(target, motions)
    typer.echo(f"wrote {target}: {len(motions)} {'person' if len(motions) == 1 else 'people'}, {motions[0].seconds:.1f} s")
