"""train ablations: the paper's ablations trained and measured."""

from __future__ import annotations

from pathlib import Path

import typer

from rtinteract.cli.files import json_of
from rtinteract.cli.train import (
    CACHE,
    CONFIG,
    KIND,
    MINUTES,
    NEEDED_PAIRS,
    OUT,
    PUBLISHED,
    RUN_DEVICE,
    SMPLX,
    STEPS,
    THREADS,
    _configured,
    _merged,
    _pairs,
    _training,
)
from rtinteract.config import from_dict, to_dict

_PANEL = "The table of results"


def ablations(codec: Path = typer.Option(..., help="codec.safetensors of `train codec`: the transformers' codec; the codec's "
                                         "ablations change one thing of how it was trained."),
              pairs: Path = NEEDED_PAIRS, kind: str = KIND, smplx: Path = SMPLX, out: Path = OUT,
              mocap: Path = typer.Option(None, help="Folder of solo motion capture, for the codecs of single people."),
              held_out: Path = typer.Option(None, help="Folder of pairs to validate on and to measure; without it the val and "
                                            "the test split of --pairs, where it has them."),
              text: Path = typer.Option(None, help="text.safetensors of `train text` to begin with."),
              clip: Path = typer.Option(None, help="Folder of CLIP ViT-L/14@336px, for a configuration whose text.kind is clip."),
              only: str = typer.Option(None, help="Only these, separated by commas; all of them when left out."),
              recipe: str = PUBLISHED, config: Path = CONFIG,
              codec_config: Path = typer.Option(None, help="JSON with values that replace those --codec was trained with, for "
                                                "the codec's ablations."),
              minutes: float = MINUTES, steps: int = STEPS,
              threads: int = THREADS, device: str = RUN_DEVICE, cache: Path = CACHE,
              evaluator: Path = typer.Option(None, help="evaluator.safetensors of train evaluator or import-evaluator, for FID, "
                                             "R-precision and the like.", rich_help_panel=_PANEL),
              repeats: int = typer.Option(3, min=1, help="Repeats of all that is sampled.", rich_help_panel=_PANEL),
              mm_texts: int = typer.Option(0, min=0, help="Texts of MultiModality; 0 leaves it out.", rich_help_panel=_PANEL),
              limit: int = typer.Option(None, min=2, help="At most so many held-out pairs.", rich_help_panel=_PANEL),
              seed: int = typer.Option(0, help="Same seed, same figures.", rich_help_panel=_PANEL)) -> None:
    """Train the paper's ablations one after the other, --minutes or --steps each, and measure them in one table.

    The codec: codec-1d-map, codec-two-people. The transformer: alternating, no-self, no-cross, no-spatio-temporal,
    no-unroll-interaction, p_r-0.7, p_r-0.8, p_r-0.9; no-streaming is not the paper's. To compare with: codec-full and full,
    trained as long. A run that was stopped goes on.

    Example: rtinteract train ablations --codec runs/codec/codec.safetensors --pairs pairs --held-out heldout
    --evaluator runs/evaluator/evaluator.safetensors --out runs/ablations --minutes 30
    """
    stage, cache = _training("ablations"), cache or out / "cache"
    names = stage.chosen(only)
    settings = _configured(_training("transformer").TransformerTraining, config, recipe, "transformer")
    data = _measured_on(held_out, pairs, kind, evaluator, limit, cache, smplx, device)
    trained = _pairs(pairs, kind, smplx, cache)
    validated = _pairs(held_out or pairs, "auto" if held_out else kind, smplx, cache, held_out=True) \
        or _pairs(held_out, "auto", smplx, cache)
    limits = {"steps": steps, "minutes": minutes, "threads": threads, "device": device}
    files: dict[str, Path] = {}
    asked = [name for name in names if name in stage.CODEC_ABLATIONS]
    if asked:
        body = _training("smplx").Bodies(smplx).mean() if smplx else None
        solo = _training("solo").load_corpus(mocap, cache=cache) if mocap else []
        files = stage.train_codecs(_codec_training(codec, codec_config), solo, trained, validated, out=out, names=asked,
                                   body=body, **limits)
    models = stage.train_ablations(settings, codec, trained, validated, out=out, text_file=text, clip=clip,
                                   names=[name for name in names if name in stage.ABLATIONS], **limits)
    chief = _training("distributed").world().chief
    if data is None:
        if chief:
            typer.echo(f"trained {', '.join(files | models)} in {out}; nothing was measured: give --held-out to measure on")
        return
    options = _training("tables_data").TableOptions(repeats=repeats, mm_texts=mm_texts, limit=limit, seed=seed)
    _training("ablation_tables").evaluate_ablations(files, models, data, out, options, window=stage.window_of(settings),
                                                    device=_where(device), clip=clip)
    if chief:
        typer.echo((out / "ablations.md").read_text(encoding="utf-8"))


def _codec_training(codec: Path, config: Path | None):
    found = _training("ablations").training_of(codec)
    return found if config is None else from_dict(type(found), _merged(to_dict(found), json_of(config)))


def _where(device: str | None) -> str:
    return _training("distributed").device_of(device or "auto")


def _measured_on(held_out: Path | None, pairs: Path, kind: str, evaluator: Path | None, limit: int | None, cache: Path,
                 smplx: Path | None, device: str | None):
    """The held-out pairs with their evaluator; None where there are none."""
    folder, sets = held_out or pairs, _training("datasets")
    composed = "composed" in (kind, sets.detect(folder))
    if held_out is None and (composed or not sets.source_of(pairs, kind, smplx).splits().get("test")):
        return None
    return _training("tables_data").load_data(folder, evaluator, limit, cache=cache, smplx=smplx, device=_where(device))
