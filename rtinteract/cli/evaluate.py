"""evaluate and import-evaluator."""

from __future__ import annotations

from pathlib import Path

import typer

from rtinteract.cli.files import check_folder, check_model, make_folder
from rtinteract.cli.infer import BANK, CLIP, DEVICE, MODEL
from rtinteract.cli.train import CACHE, SMPLX, _training
from rtinteract.errors import ConfigError
from rtinteract.model import load

_PANEL = "Tables"
TABLES = typer.Option(None, help="Instead of the report: the paper's Tables 1 to 4 and more, into this folder, as Markdown, CSV "
                      "and pictures. What is finished there is kept.", rich_help_panel=_PANEL)
EVALUATOR = typer.Option(None, help="The ruler: evaluator.safetensors of train evaluator or import-evaluator; one for all "
                         "--pairs, or one for each.", rich_help_panel=_PANEL)
REPEATS = typer.Option(20, min=1, help="Repeats of all that is sampled.", rich_help_panel=_PANEL)
POOL = typer.Option(96, min=2, help="Pool of R-precision.", rich_help_panel=_PANEL)
MM_TEXTS = typer.Option(100, min=0, help="Texts of MultiModality; 0 leaves it out.", rich_help_panel=_PANEL)
MM_REPEATS = typer.Option(30, min=2, help="Samples of each of them.", rich_help_panel=_PANEL)
MM_RUNS = typer.Option(5, min=1, help="Repeats of MultiModality.", rich_help_panel=_PANEL)
ABLATION = typer.Option(None, help="NAME=FILE: another model. Names that begin with \"codec\" go to Table 2, with \"p_r\" to "
                        "Table 4, with \"no-streaming\" to the gap between streaming and offline, others to Table 3.",
                        rich_help_panel=_PANEL)
ONLY = typer.Option(None, help="Only these tables, separated by commas: table1, table2, table3, table4, reactions, physics, "
                    "streaming, gap, iterations, evaluator.", rich_help_panel=_PANEL)


def _ablations(given: list[str]) -> list[tuple[str, Path]]:
    """(name, file) of each NAME=FILE."""
    found = []
    for one in given:
        name, separator, path = one.rpartition("=")
        if not separator or not name.strip():
            raise ConfigError(f"--ablation: expected NAME=FILE, got {one!r}; give a name and a model file")
        if not Path(path).is_file():
            raise ConfigError(f"--ablation {name}: expected a model file, got nothing at {path}; check the path")
        found.append((name.strip(), Path(path)))
    return found


def evaluate(model: Path = MODEL, device: str = DEVICE,
             mocap: Path = typer.Option(None, help="Folder of solo motion capture: the codec on its held-out clips."),
             pairs: list[Path] = typer.Option(None, help="Folder of held-out composed pairs (data compose --split test), or a "
                                              "two-person data set, whose test split is used. With --tables once for each."),
             actor: Path = typer.Option(None, help="A real actor's file ..."),
             reactor: Path = typer.Option(None, help="... and the real reactor's."),
             out: Path = typer.Option("evaluation", "--out", "-o", help="Folder for report.json, report.md and pictures."),
             limit: int = typer.Option(None, min=1, help="At most so many clips and pairs."),
             stream_limit: int = typer.Option(24, min=1, help="At most so many pairs are also streamed, hop by hop."),
             seed: int = typer.Option(0, help="Same seed, same figures."), cache: Path = CACHE, smplx: Path = SMPLX,
             clip: Path = CLIP, bank: Path = BANK,
             tables: Path = TABLES, evaluator: list[Path] = EVALUATOR, repeats: int = REPEATS, pool: int = POOL,
             mm_texts: int = MM_TEXTS, mm_repeats: int = MM_REPEATS, mm_runs: int = MM_RUNS,
             ablation: list[str] = ABLATION, only: str = ONLY) -> None:
    """Measure a model: codec, reactions against baselines, streaming against offline, and a real pair; or the paper's tables.

    Example: rtinteract evaluate --mocap mocap --pairs heldout --actor 18_01.bvh --reactor 19_01.bvh --out evaluation

    Tables: rtinteract evaluate --tables out/ --pairs heldout --evaluator runs/evaluator/evaluator.safetensors

    Shared by four GPUs: torchrun --nproc-per-node 4 --no-python rtinteract evaluate --tables out/ ...
    """
    check_model(model)
    if tables is None:
        if (actor is None) != (reactor is None):
            raise ConfigError("evaluate: expected --actor and --reactor together, got one of them; give both or none")
        if pairs and len(pairs) > 1:
            raise ConfigError(f"evaluate: expected one --pairs without --tables, got {len(pairs)}; give one")
        make_folder(out)
        _training("evaluate").evaluate(
            load(model, device=_here(device), clip=clip, bank=bank), solo=mocap, pairs=pairs[0] if pairs else None,
            real_pair=None if actor is None else (actor, reactor), out=out, limit=limit, seed=seed, cache=cache,
            stream_limit=stream_limit, smplx=smplx)
        _show(out / "report.md")
        return
    options = _training("tables_data").TableOptions(repeats=repeats, pool=pool, mm_texts=mm_texts, mm_repeats=mm_repeats,
                                                    mm_runs=mm_runs, limit=limit, seed=seed)
    models = [(model.stem if model else "shipped model", model), *_ablations(ablation or [])]
    make_folder(tables)
    chosen = [name.strip() for name in only.split(",")] if only else []
    _make_tables(models, pairs or [], evaluator or [], tables, options, chosen, cache=cache, smplx=smplx, device=_here(device),
                 clip=clip, bank=bank)
    _show(tables / "tables.md")


def _here(device: str) -> str:
    """The device of this process, among others where torchrun started several."""
    return _training("distributed").device_of(device)


def _show(path: Path) -> None:
    if _training("distributed").world().chief:
        typer.echo(path.read_text(encoding="utf-8"))


def _make_tables(models: list[tuple[str, Path | None]], folders: list[Path], rulers: list[Path], out: Path, options,
                 only: list[str], *, cache: Path | None, smplx: Path | None, device: str, clip: Path | None,
                 bank: Path | None) -> None:
    """The tables of the first model, the others as its ablations."""
    if len(rulers) > 1 and len(rulers) != len(folders):
        raise ConfigError(f"--evaluator: expected one, or one for each of {len(folders)} --pairs, got {len(rulers)}")
    rulers = rulers * len(folders) if len(rulers) == 1 else rulers or [None] * len(folders)
    data = _training("tables_data")
    sets = [data.load_data(folder, ruler, options.limit, cache=cache, smplx=smplx, device=device)
            for folder, ruler in zip(folders, rulers, strict=True)]
    contenders = [data.Contender(name, path, device, clip, bank) for name, path in models]
    _training("tables_more").Tables(contenders[0], contenders[1:], sets, out, options).make(only)


def import_evaluator(checkpoint: Path = typer.Argument(..., help="The published interclip.ckpt."),
                     tokenizer: Path = typer.Option(..., help="CLIP's tokenizer.json, or the CLIP folder that holds it."),
                     out: Path = typer.Option("evaluator.safetensors", "--out", "-o", help="Where to write.")) -> None:
    """Turn the published InterCLIP evaluator of InterHuman into one file for `rtinteract evaluate --tables --evaluator`.

    Nothing is unpickled but tensors and plain values; every tensor must be accounted for.

    Example: rtinteract import-evaluator interclip.ckpt --tokenizer clip-vit-large-patch14-336 --out evaluator.safetensors
    """
    check_folder(out)
    config = _training("interclip_import").import_evaluator(checkpoint, tokenizer, out)
    typer.echo(f"InterCLIP of {config.layers} layers, {config.width} wide, text of {config.text.layers} layers")
    typer.echo(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")
