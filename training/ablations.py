"""InterMask's ablations (Tables 2, 3 and 4) as configurations of any recipe, one of what makes a model stream, and the run that
trains them all.

An ablation changes one thing; everything else stays as the recipe has it. "codec-full" and "full" change nothing: trained as
briefly as the others, they are what those are to be compared with.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rtinteract.training import distributed
from rtinteract.training.assemble import assemble
from rtinteract.training.codec import CodecTraining, load_codec, train_codec
from rtinteract.training.codec_pairs import stage_of
from rtinteract.training.loop import FREE
from rtinteract.training.state import write_atomic
from rtinteract.training.trainer import STATE, Result
from rtinteract.training.transformer import TransformerTraining, train_transformer

from rtinteract.config import ATTENTION, CodecConfig, from_dict, to_dict
from rtinteract.errors import Cancelled, ConfigError

log = logging.getLogger(__name__)
Change = Callable[[TransformerTraining], TransformerTraining]

CODEC_ABLATIONS = ("codec-full", "codec-1d-map", "codec-two-people")
DONE = "done.json"
# Of which files a run was begun: with others its state is worth nothing.
BEGUN = "begun.json"


def _without(kind: str) -> Change:
    def change(config: TransformerTraining) -> TransformerTraining:
        return replace(config, sizes=replace(config.sizes, attention=tuple(k for k in ATTENTION if k != kind)))
    return change


def _alternating(config: TransformerTraining) -> TransformerTraining:
    return replace(config, sizes=replace(config.sizes, modelling="alternating"))


def _plainly_masked(config: TransformerTraining) -> TransformerTraining:
    return replace(config, unroll=0.0, shares=replace(config.shares, interaction=0.0))


def _random_share(share: float) -> Change:
    """p_r of the samples that are not a stream's."""
    def change(config: TransformerTraining) -> TransformerTraining:
        return replace(config, shares=replace(config.shares, interaction=round((1 - share) * (1 - config.shares.streaming), 6)))
    return change


def _unstreamed(config: TransformerTraining) -> TransformerTraining:
    """Of what is not a stream's as much hides a whole person as before."""
    shares = config.shares
    rest = round(shares.interaction / (1 - shares.streaming), 6) if shares.streaming < 1 else shares.interaction
    return replace(config, shares=replace(shares, streaming=0.0, interaction=rest, self_history=0.0, horizon_dropped=0.0))


ABLATIONS: dict[str, Change] = {
    "full": lambda config: config,
    "alternating": _alternating,
    "no-self": _without("self"),
    "no-cross": _without("cross"),
    "no-spatio-temporal": _without("spatio-temporal"),
    "no-unroll-interaction": _plainly_masked,
    "p_r-0.7": _random_share(0.7),
    "p_r-0.8": _random_share(0.8),
    "p_r-0.9": _random_share(0.9),
    "no-streaming": _unstreamed,
}


def ablated(config: TransformerTraining, name: str) -> TransformerTraining:
    """A configuration with the named ablation; ConfigError lists the names there are."""
    if name not in ABLATIONS:
        raise ConfigError(f"ablation: expected one of {', '.join(ABLATIONS)}, got {name!r}")
    return ABLATIONS[name](config)


def two_people(codec: CodecConfig) -> CodecConfig:
    """A codec of two people together, otherwise the same: its upsampling leads back to the rows of both."""
    both = replace(codec, people=2)
    rows = [both.rows]
    for (kernel, _), (stride, _) in zip(both.kernels, both.strides, strict=True):
        rows.append((rows[-1] + 2 - kernel) // stride + 1)

    def factor(coarse: int, fine: int) -> float:
        exact = fine / coarse
        # Rows are rounded down, so a factor that floats cannot hold must lie a little above.
        return exact if math.floor(coarse * exact) == fine else (fine + 0.5) / coarse
    up = zip(rows[::-1], rows[-2::-1], both.upsample, strict=False)
    return replace(both, upsample=tuple((factor(coarse, fine), time) for coarse, fine, (_, time) in up))


def ablated_codec(config: CodecTraining, name: str) -> CodecTraining:
    """A codec's configuration with the named ablation; ConfigError lists the names there are."""
    if name not in CODEC_ABLATIONS:
        raise ConfigError(f"ablation: expected one of {', '.join(CODEC_ABLATIONS)} for a codec, got {name!r}")
    codec = config.codec
    if name == "codec-1d-map":
        codec = replace(codec, token_map="1d")
    elif name == "codec-two-people":
        codec = two_people(codec)
    return replace(config, codec=codec)


def training_of(codec: Path) -> CodecTraining:
    """How a codec of `train codec` was trained. ConfigError for a file that does not say so."""
    found = load_codec(codec)[3].get("training")
    if found is None:
        raise ConfigError(f"{codec}: expected a codec file that says how it was trained, got one that does not; give the "
                          "codec.safetensors of `rtinteract train codec`")
    return replace(from_dict(CodecTraining, found), decoder_alone=False)


def chosen(only: str | None) -> tuple[str, ...]:
    """The ablations of a list separated by commas, all without one; ConfigError for an unknown name."""
    known = (*CODEC_ABLATIONS, *ABLATIONS)
    names = known if only is None else tuple(name.strip() for name in only.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"--only: expected some of {', '.join(known)}, got {', '.join(map(repr, unknown))}")
    return names


def _described(config, limits: dict) -> str:
    """What tells a run from another: its configuration and how long it is to train."""
    told = to_dict(config)
    told["loop"] = {k: v for k, v in told["loop"].items() if k not in FREE}
    kept = {k: limits.get(k) for k in ("steps", "minutes")}
    return hashlib.sha256(json.dumps([told, kept], sort_keys=True).encode()).hexdigest()[:16]


def _begin(folder: Path, inputs: Sequence[Path | None]) -> None:
    """Drop what was trained in ``folder`` from other contents of the files ``inputs``."""
    mark, held = folder / BEGUN, [path and hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in inputs]
    if not inputs or mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == held:
        return
    for name in (DONE, STATE):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(mark, json.dumps(held).encode())


def _once(name: str, folder: Path, config, limits: dict, train: Callable[[], Result], inputs: Sequence[Path | None] = ()) -> None:
    """Train into ``folder`` unless a run of this configuration on these ``inputs`` has come to these limits there. Cancelled when
    it is stopped."""
    if distributed.world().chief:
        _begin(folder, inputs)
    distributed.wait()
    mark, described = folder / DONE, _described(config, limits)
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("of") == described:
        return
    log.info("ablation %s", name)
    result = train()
    if result.reason == "signal":
        raise Cancelled(f"train ablations: stopped at step {result.steps} of {name}; give the same command again to go on")
    if distributed.world().chief:
        told = {"of": described, "steps": result.steps, "minutes": round(result.minutes, 2), "metrics": result.metrics}
        write_atomic(mark, json.dumps(told, indent=1).encode())


def train_codecs(config: CodecTraining, solo: list, pairs: Sequence | None, held_out: Sequence | None = None, *, out: Path,
                 names: Sequence[str] = CODEC_ABLATIONS, body=None, **limits) -> dict[str, Path]:
    """Train each of the codec's ablations into ``out``/NAME; their files by name. One that came to its limits is passed over, one
    that was stopped goes on. ``solo``, ``pairs``, ``body`` and ``limits`` as `train_codec` takes them; Cancelled at a signal."""
    files = {}
    for name in names:
        settings = ablated_codec(config, name)
        _once(name, out / name, settings, limits, lambda s=settings, n=name: train_codec(
            s, solo if s.codec.people == 1 else [], pairs, out=out / n, held_out=held_out, body=body, kind=stage_of(s), **limits))
        files[name] = out / name / "codec.safetensors"
    return files


def train_ablations(config: TransformerTraining, codec: Path, pairs, held_out, *, out: Path,
                    names: Sequence[str] = tuple(ABLATIONS), text_file: Path | None = None, clip: Path | None = None,
                    **limits) -> dict[str, Path]:
    """Train each of the transformer's ablations into ``out``/NAME and assemble its model; the models by name.

    One that came to its limits is passed over, one that was stopped goes on; of two that are the same, as p_r 0.8 is what the
    published recipes have, one is trained. ``text_file``, ``clip`` and ``limits`` as `train_transformer` takes them (steps,
    minutes, threads, device, progress); Cancelled at a signal.
    """
    models: dict[str, Path] = {}
    for name in names:
        settings, folder = ablated(config, name), out / name
        same = next((other for other in models if ablated(config, other) == settings), None)
        if same is not None:
            models[name] = models[same]
            continue
        model, trained = folder / "model.safetensors", folder / "transformer.safetensors"
        _once(name, folder, settings, limits, lambda s=settings, f=folder: train_transformer(
            s, codec, pairs, out=f, held_out=held_out, text_file=text_file, clip=clip, **limits), (codec, text_file))
        if distributed.world().chief and not (model.is_file() and model.stat().st_mtime_ns >= trained.stat().st_mtime_ns):
            assemble(codec, trained, model, name=name, window=window_of(config))
        distributed.wait()
        models[name] = model
    return models


def window_of(config: TransformerTraining) -> int:
    """Frames that a model is shown at once: the most it was trained on, in whole columns."""
    return config.most // 4 * 4
