"""train and data: the training package is loaded only when asked for."""

from __future__ import annotations

import importlib
import json
import logging
import os
from pathlib import Path

import typer

from rtinteract.cli.files import check_folder, check_outputs, json_of, make_folder
from rtinteract.cli.infer import DEVICE, MODEL
from rtinteract.config import from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.model import load
from rtinteract.motion.atomic import replacing

train_app = typer.Typer(no_args_is_help=True, help="Train a model from scratch: codec, then text, then transformer, then "
                        "assemble.\n\nEach stage resumes where it was stopped (Ctrl-C, kill, power cut) when it is started "
                        "again.")
data_app = typer.Typer(no_args_is_help=True, help="Compose pairs from solo motion capture, and look at data before "
                       "training on it.")

MOCAP = typer.Option(..., help="Folder of solo motion capture: .bvh, .amc/.asf, rotation-vector text; .xz and .gz too.")
OUT = typer.Option(..., "--out", "-o", help="Folder of the run; a run found there is continued.")
_LAYOUTS = ("Folder of two-person data: InterHuman, Inter-X, motion files two by two (walk.a.bvh, walk.b.bvh), or composed pairs "
            "(rtinteract data compose)")
PAIRS = typer.Option(None, help=f"{_LAYOUTS}.")
NEEDED_PAIRS = typer.Option(..., help=f"{_LAYOUTS}.")
KIND = typer.Option("auto", help="Layout of that folder: interhuman, interx, pairs (motion files), composed; auto looks.")
SMPLX = typer.Option(None, help="SMPLX_NEUTRAL.npz, or a folder of SMPL-X model files: the bodies of Inter-X.")
CONFIG = typer.Option(None, help="JSON with values that replace the defaults, nested as --show-config prints them.")
START = typer.Option(None, help="A codec.safetensors, or a whole model, whose weights and statistics to begin with.")
MINUTES = typer.Option(None, help="Stop after so many minutes of training.")
STEPS = typer.Option(None, min=1, help="Stop after so many steps.")
THREADS = typer.Option(None, min=1, help="CPU threads.")
RUN_DEVICE = typer.Option(None, help="auto, cpu, cuda, cuda:1 ...; without it the configuration's. Under torchrun each process "
                          "takes its own GPU.")
CACHE = typer.Option(None, help="Folder where the read motion capture is kept for the next time.")


def _training(module: str):
    """A module of the training package, whose progress is told from now on."""
    told = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.getLogger().setLevel(min(logging.getLogger().level, told))
    return importlib.import_module(f"rtinteract.training.{module}")


def _merged(defaults: dict, values: dict) -> dict:
    return defaults | {k: _merged(defaults[k], v) if isinstance(v, dict) and isinstance(defaults.get(k), dict) else v
                       for k, v in values.items()}


def _configured(cls, path: Path | None, recipe: str | None = None, stage: str = ""):
    """The stage's configuration: the recipe's, a file's values in place of its own; an unknown key is an error."""
    base = getattr(_training("recipes"), f"{stage}_recipe")(recipe) if recipe else cls()
    return base if path is None else from_dict(cls, _merged(to_dict(base), json_of(path)))


def _recipe(names: str):
    """The option that names a configuration to begin with: eager, so that --show-config after it sees it."""
    return typer.Option(None, is_eager=True, help=f"A named configuration, of which --config replaces values: {names}.")


def _show(module: str, name: str, stage: str = ""):
    """The option that prints a stage's configuration: eager, so that it needs no other option."""
    def show(ctx: typer.Context, asked: bool) -> None:
        if asked:
            configured = _configured(getattr(_training(module), name), None, ctx.params.get("recipe"), stage)
            typer.echo(json.dumps(to_dict(configured), indent=2))
            raise typer.Exit
    return typer.Option(False, "--show-config", is_eager=True, callback=show, help="Print the configuration and stop: of a "
                        "--recipe before it, else the default one.")


SHOW_CODEC = _show("codec", "CodecTraining", "codec")
SHOW_TEXT = _show("text", "TextTraining", "text")
SHOW_TRANSFORMER = _show("transformer", "TransformerTraining", "transformer")
PUBLISHED = _recipe("interhuman, interx (as published), small")
CODECS = _recipe("interhuman, interx (as published), small, small-sequence (whole bodies: better at unseen motion, worse to "
                 "generate with)")
SMALL = _recipe("small")
SHOW_EVALUATOR = _show("interclip_train", "EvaluatorTraining")


def _pairs(folder: Path | None, kind: str, smplx: Path | None, cache: Path, held_out: bool = False):
    """The training clips of a two-person folder, or its held-out ones; None without a folder, or without such clips."""
    if folder is None:
        return None
    datasets = _training("datasets")
    load = datasets.load_held_out if held_out else datasets.load_two_person
    return load(folder, kind, cache=cache, smplx=smplx)


def _said(result) -> None:
    if not _training("distributed").world().chief:
        return
    typer.echo(f"{result.reason}: {result.steps} steps in {result.minutes:.1f} min -> {result.file}")
    for name, value in result.metrics.items():
        typer.echo(f"  {name:24} {value:.4g}")


@train_app.command()
def codec(mocap: Path = typer.Option(None, help="Folder of solo motion capture: .bvh, .amc/.asf, rotation-vector text; .xz and "
                                     ".gz too."),
          out: Path = OUT, pairs: Path = PAIRS, kind: str = KIND, smplx: Path = SMPLX, start: Path = START,
          recipe: str = CODECS, config: Path = CONFIG,
          ablation: str = typer.Option(None, help="One of the paper's ablations, on top of the configuration: codec-1d-map or "
                                       "codec-two-people."),
          minutes: float = MINUTES, steps: int = STEPS, threads: int = THREADS,
          device: str = RUN_DEVICE, cache: Path = CACHE, show_config: bool = SHOW_CODEC) -> None:
    """Train the motion codec on solo clips, on the people of pairs, or on both.

    Example: rtinteract train codec --mocap mocap --pairs pairs --out runs/codec --minutes 120

    As published, on four GPUs: torchrun --nproc-per-node 4 --no-python rtinteract train codec --recipe interhuman
    --pairs InterHuman --out runs/codec
    """
    if mocap is None and pairs is None:
        raise ConfigError("train codec: expected --mocap, --pairs or both, got neither; give data to train on")
    stage, cache = _training("codec"), cache or out / "cache"
    settings = _configured(stage.CodecTraining, config, recipe, "codec")
    settings = _training("ablations").ablated_codec(settings, ablation) if ablation else settings
    clips = _training("solo").load_corpus(mocap, cache=cache) if mocap else []
    loaded, held_out = (_pairs(pairs, kind, smplx, cache, held_out=side) for side in (False, True))
    body = _training("smplx").Bodies(smplx).mean() if smplx else None
    _said(stage.train_codec(settings, clips, loaded, out=out, start=start, held_out=held_out, body=body, steps=steps,
                            minutes=minutes, threads=threads, device=device,
                            kind=_training("codec_pairs").stage_of(settings)))


@train_app.command()
def text(pairs: Path = NEEDED_PAIRS, kind: str = KIND, smplx: Path = SMPLX, out: Path = OUT, recipe: str = SMALL,
         config: Path = CONFIG, minutes: float = MINUTES, steps: int = STEPS, threads: int = THREADS, device: str = RUN_DEVICE,
         cache: Path = CACHE, show_config: bool = SHOW_TEXT) -> None:
    """Train the tokenizer and the text encoder on the texts of pairs.

    Two phrasings of one clip are drawn together, others apart.

    Example: rtinteract train text --pairs pairs --out runs/text
    """
    stage = _training("text")
    settings = _configured(stage.TextTraining, config, recipe, "text")
    clips = _pairs(pairs, kind, smplx, cache or out / "cache")
    _said(stage.train_text(settings, clips, out=out, steps=steps, minutes=minutes, threads=threads, device=device))


@train_app.command()
def transformer(codec: Path = typer.Option(..., help="codec.safetensors of `train codec`, or a whole model."),
                pairs: Path = NEEDED_PAIRS, kind: str = KIND, smplx: Path = SMPLX, out: Path = OUT,
                held_out: Path = typer.Option(None, help="Folder of pairs to validate on; without it the val or test split of "
                                              "--pairs, where there is none a twentieth of it."),
                text: Path = typer.Option(None, help="text.safetensors of `train text` to begin with."),
                start: Path = typer.Option(None, help="A transformer.safetensors, or a whole model, whose weights and words "
                                            "to begin with."),
                clip: Path = typer.Option(None, help="Folder of CLIP ViT-L/14@336px, for a configuration whose text.kind is "
                                          "clip, as the published recipes' is."),
                recipe: str = PUBLISHED, config: Path = CONFIG,
                ablation: str = typer.Option(None, help="One of the paper's ablations, on top of the configuration: see "
                                             "`train ablations`."),
                minutes: float = MINUTES, steps: int = STEPS, threads: int = THREADS, device: str = RUN_DEVICE,
                cache: Path = CACHE, show_config: bool = SHOW_TRANSFORMER) -> None:
    """Train the Inter-M transformer and its text encoder on pairs seen through a frozen codec.

    Example: rtinteract train transformer --codec runs/codec/codec.safetensors --pairs pairs --held-out heldout
    --text runs/text/text.safetensors --out runs/transformer --minutes 120
    """
    stage, cache = _training("transformer"), cache or out / "cache"
    settings = _configured(stage.TransformerTraining, config, recipe, "transformer")
    settings = _training("ablations").ablated(settings, ablation) if ablation else settings
    chosen, its_kind = (held_out, "auto") if held_out else (pairs, kind)
    # A folder to validate on that has no splits is held out as a whole.
    validated = _pairs(chosen, its_kind, smplx, cache, held_out=True) or _pairs(held_out, "auto", smplx, cache)
    _said(stage.train_transformer(
        settings, codec, _pairs(pairs, kind, smplx, cache), out=out, held_out=validated, text_file=text,
        start=start, clip=clip, steps=steps, minutes=minutes, threads=threads, device=device))


@train_app.command()
def evaluator(pairs: Path = NEEDED_PAIRS, kind: str = KIND, smplx: Path = SMPLX, out: Path = OUT,
              held_out: Path = typer.Option(None, help="Folder of pairs to validate on; without it the val or test split of "
                                            "--pairs, where there is none a twentieth of it."),
              clip: Path = typer.Option(None, help="Folder of CLIP ViT-L/14@336px, for a configuration whose interclip.text.kind "
                                        "is clip."),
              config: Path = CONFIG, minutes: float = MINUTES, steps: int = STEPS, threads: int = THREADS,
              device: str = RUN_DEVICE, cache: Path = CACHE, show_config: bool = SHOW_EVALUATOR) -> None:
    """Train an InterCLIP evaluator, the ruler of `rtinteract evaluate --tables`, on pairs with texts.

    Example: rtinteract train evaluator --pairs pairs --held-out heldout --out runs/evaluator --steps 500
    """
    stage, cache = _training("interclip_train"), cache or out / "cache"
    settings = _configured(stage.EvaluatorTraining, config)
    chosen, its_kind = (held_out, "auto") if held_out else (pairs, kind)
    validated = _pairs(chosen, its_kind, smplx, cache, held_out=True) or _pairs(held_out, "auto", smplx, cache)
    _said(stage.train_evaluator(settings, _pairs(pairs, kind, smplx, cache), out=out, held_out=validated, clip=clip, steps=steps,
                                minutes=minutes, threads=threads, device=device))


@train_app.command()
def contact(pairs: list[Path] = typer.Option(..., help="Folder of composed pairs (rtinteract data compose), or of a model's "
                                             "reactions to them (rtinteract data react); may be given more than once."),
            out: Path = typer.Option(Path("contact.safetensors"), "--out", "-o", help="Where to write."),
            clips: int = typer.Option(3000, min=1, help="About so many clips of each folder, spread over it."),
            steps: int = typer.Option(2500, min=1, help="Steps of training."),
            seed: int = typer.Option(0, help="Same seed and clips, same network.")) -> None:
    """Train the network that tells where hands are about to meet, which `--contact` acts upon; minutes on one core.

    Example: rtinteract train contact --pairs pairs --pairs reactions --out contact.safetensors
    """
    stage = _training("contact")
    check_folder(out)
    settings = stage.ContactConfig(steps=steps, seed=seed)
    found = stage.load_sights(pairs, clips)
    stage.write_net(stage.train_contact(found, settings), out, settings, len(found))
    typer.echo(f"wrote {out} ({len(found)} clips)")


@train_app.command()
def assemble(codec: Path = typer.Option(..., help="codec.safetensors, or a whole model for its codec."),
             transformer: Path = typer.Option(..., help="transformer.safetensors."),
             out: Path = typer.Option("model.safetensors", "--out", "-o", help="Where to write."),
             name: str = typer.Option("rtinteract-small", help="The model's name."),
             window: int = typer.Option(128, help="Frames that are filled at once; longer clips take several windows."),
             card: Path = typer.Option(None, help="JSON to add to the model card: data, licence, metrics."),
             mean_with: Path = typer.Option(None, help="A transformer.safetensors that --transformer's run began with, or the "
                                            "other way about: the model takes the mean of both one's weights."),
             choice_temperature: float = typer.Option(0.0, min=0.0, help="How much by chance the model retains tokens while it "
                                                      "samples: 0 as published; the shipped model has 0.5."),
             half: bool = typer.Option(True, help="Store the weights as float16.")) -> None:
    """Put the trained stages into one model.safetensors.

    Example: rtinteract train assemble --codec runs/codec/codec.safetensors
    --transformer runs/transformer/transformer.safetensors --out model.safetensors
    """
    check_folder(out)
    about = json_of(card) if card else None
    _training("assemble").assemble(codec, transformer, out, name=name, window=window, half=half, card=about,
                                    mean_with=mean_with, choice_temperature=choice_temperature)
    typer.echo(f"wrote {out} ({os.path.getsize(out) / 2**20:.1f} MiB)")


@data_app.command()
def compose(mocap: Path = MOCAP,
            out: Path = typer.Option(..., "--out", "-o", help="Folder for the pairs; continued if it was stopped."),
            count: int = typer.Option(2400, min=1, help="How many clips."),
            seed: int = typer.Option(0, help="Same seed, same clips."),
            split: str = typer.Option("train", help="train: clips to train on; test: held-out clips."),
            processes: int = typer.Option(1, help="Processes; the clips do not depend on it."),
            kinds: str = typer.Option(None, help="Only these kinds, separated by commas; all of them when left out."),
            sheet: Path = typer.Option(None, help="Also draw 20 of them on this .png."), cache: Path = CACHE) -> None:
    """Make two-person clips with real coupling and texts from solo clips and inverse kinematics.

    Example: rtinteract data compose --mocap mocap --out pairs --count 2400 --sheet pairs.png

    Held-out pairs, for evaluation: rtinteract data compose --mocap mocap --out heldout --count 96 --split test --seed 1
    """
    if split not in ("train", "test"):
        raise ConfigError(f"--split: expected train or test, got {split!r}")
    if sheet:
        check_outputs([sheet])
    make_folder(out)
    choreography, pair_files = _training("choreography"), _training("pairs")
    clips = _training("solo").load_corpus(mocap, cache=cache)
    only = [k.strip() for k in kinds.split(",")] if kinds else None
    report = choreography.compose_many(out, clips, count, seed, split=split, processes=processes, kinds=only)
    typer.echo(json.dumps(report, indent=2))
    if sheet:
        from rtinteract.motion.picture import write_sheet

        chosen = pair_files.load_pairs(out)[:20]
        write_sheet(sheet, [c.motions() for c in chosen], columns=2, titles=[f"{c.kind}: {c.texts[0]}" for c in chosen])
        typer.echo(f"wrote {sheet}")


@data_app.command()
def react(pairs: Path = typer.Option(..., help="Folder of composed pairs."),
          out: Path = typer.Option(..., "--out", "-o", help="Folder for the pairs; continued if it was stopped."),
          model: Path = MODEL, device: str = DEVICE, count: int = typer.Option(640, min=1, help="How many clips."),
          kinds: str = typer.Option(None, help="Only these kinds, separated by commas; all of them when left out."),
          seed: int = typer.Option(0, help="Same seed, model and pairs, same clips.")) -> None:
    """Make pairs whose second person is a model's reaction, for `train contact` to learn a model's own errors from.

    Example: rtinteract data react --pairs pairs --out reactions --count 640 --kinds handshake,hug,handover
    """
    make_folder(out)
    only = [k.strip() for k in kinds.split(",")] if kinds else None
    done = _training("reactions").write_reactions(load(model, device), pairs, out, count, only, seed)
    typer.echo(f"wrote {done} clips to {out}")


@data_app.command()
def inspect(folder: Path = typer.Argument(..., help="A folder of two-person data (InterHuman, Inter-X, motion files two by two, "
                                          "composed pairs), or of solo motion capture."),
            kind: str = typer.Option("auto", help="Its layout: interhuman, interx, pairs, composed, solo; auto looks."),
            smplx: Path = SMPLX,
            report: Path = typer.Option(None, help="Also write everything that is missing or broken, by name, to this .json.")
            ) -> None:
    """Say what a folder holds: clips, minutes, kinds or splits, and what is missing, broken or could not be used.

    Example: rtinteract data inspect InterHuman --report missing.json
    """
    datasets = _training("datasets")
    kind = datasets.detect(folder) if kind == "auto" else kind
    if kind not in ("composed", "solo"):
        if report:
            check_folder(report)
        found = datasets.inspect_folder(folder, kind, smplx)
        typer.echo("\n".join(found.lines()))
        if report:
            with replacing(report) as beside:
                beside.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
            typer.echo(f"wrote {report}")
        return
    if kind == "composed":
        clips = _training("pairs").load_pairs(folder)
        typer.echo(f"{len(clips)} pairs, {sum(len(c) for c in clips) / 1800:.1f} min")
        for kind in sorted({c.kind for c in clips}):
            chosen = [c for c in clips if c.kind == kind]
            typer.echo(f"  {kind:12} {len(chosen):5} clips {sum(len(c) for c in chosen) / 1800:6.1f} min, "
                       f"{sum(bool(c.contacts) for c in chosen)} with contact, e.g. {chosen[0].texts[0]!r}")
        return
    clips = _training("solo").load_corpus(folder)
    for split in sorted({c.split for c in clips}):
        chosen = [c for c in clips if c.split == split]
        typer.echo(f"{split:6} {len(chosen):4} clips {sum(len(c.motion) for c in chosen) / 1800:6.1f} min")
