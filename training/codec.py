"""Train the motion codec: windows of single people to codes and back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from rtinteract.kernels.remask import sample_seeds
from rtinteract.training import distributed_codebook
from rtinteract.training.data import Augmentation, Pool, crops, statistics, whole
from rtinteract.training.losses import (
    CodecLossWeights,
    GeometricLosses,
    geometric_losses,
    interx_losses,
    interx_places,
    planted_feet,
)
from rtinteract.training.memory import recompute
from rtinteract.training.metric_losses import MetricWeights, feature_loss, planted, terms
from rtinteract.training.solo import SoloClip
from rtinteract.training.state import load_stage, save_stage
from rtinteract.training.trainer import (
    WHOLE,
    LoopConfig,
    Part,
    Result,
    Stage,
    Trainer,
    borrowed,
    generator,
    step_seed,
    with_limits,
)
from rtinteract.training.variety import Variety, varied_crops

from rtinteract.codec import Codec, CodecOutput, perplexity_of
from rtinteract.config import CodecConfig, from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.features import base
from rtinteract.features.normalize import Normalizer
from rtinteract.motion import Motion
from rtinteract.motion.picture import write_sheet
from rtinteract.skeleton import Skeleton

log = logging.getLogger(__name__)

WINDOW = 64
# Frames between the windows of a clip that one pass over the data counts (InterMask: windows of 64 frames, stride 10).
STRIDE = 10
# Validation decodes held-out clips whole, again and again: so many pairs tell enough.
HELD_OUT_PAIRS = 48


def small_codec() -> CodecConfig:
    """The codec of the shipped model: 2.2 M parameters, finite scalar quantisation 8·5·5·5 (1000 codes)."""
    return CodecConfig(width=96, widths=(48, 64, 192), code_dim=64, codes=1000, quantizer="fsq", levels=(8, 5, 5, 5), dropout=0.0)


def small_loop() -> LoopConfig:
    """The loop of the small model's codec: an hour."""
    return LoopConfig(minutes=60.0, batch=24, learning_rate=1e-3)


@dataclass(frozen=True)
class CodecTraining:
    """Everything that decides a codec training. Windows are ``frames`` long with share ``usual``, else any length between
    ``shortest`` and ``longest`` in whole columns; ``pair_share`` of the batches come from pairs, where there are any. With
    ``own_frames`` each person is seen from its own canonical frame, else both of a pair from the first one's. Without
    ``normalize`` features keep their units, as Inter-X's are published. With ``vary`` and ``own_frames`` solo clips of any length
    serve, varied by ``variety``, and of ``augmentation`` only how bodies, speeds, sides and canonical frames differ counts for
    them. With ``decoder_alone`` a run that begins with another codec keeps what its codes mean, and with it the worth of
    transformers trained on them: encoder and codebook stay, the decoder alone learns."""

    representation: str = "hybrid"
    codec: CodecConfig = field(default_factory=small_codec)
    loop: LoopConfig = field(default_factory=small_loop)
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(
        scale=(0.85, 1.15), warp=(0.8, 1.25), mix=0.35, pose=0.4, curve=0.35))
    metric: MetricWeights = field(default_factory=lambda: MetricWeights(every=4, acceleration=0.03))
    frames: int = WINDOW
    usual: float = 0.7
    shortest: int = 32
    longest: int = 128
    pair_share: float = 0.3
    own_frames: bool = True
    normalize: bool = True
    vary: bool = True
    variety: Variety = field(default_factory=Variety)
    decoder_alone: bool = False

    def __post_init__(self):
        for name in ("frames", "shortest", "longest"):
            if getattr(self, name) % 4 or getattr(self, name) < 4:
                raise ConfigError(f"{name}: expected a positive multiple of 4 frames, got {getattr(self, name)}; mend the "
                                  "configuration")


def people_of(pairs: Sequence) -> list[SoloClip]:
    """Both people of pairs as clips of their own, held out."""
    return [SoloClip(m, "", f"pair {i}", f"pair {i}", "test") for i, c in enumerate(pairs) for m in c.motions()]


def load_codec(path: Path) -> tuple[Codec, Normalizer, str, dict]:
    """A trained codec from `train_codec`'s file: (codec in evaluation mode, normaliser, representation, card)."""
    about, parts = load_stage(path, "codec")
    codec = Codec(from_dict(CodecConfig, about["config"]["codec"]))
    codec.load_state_dict(parts["codec"])
    normalizer = Normalizer(parts["normalizer"]["mean"], parts["normalizer"]["std"])
    return codec.eval(), normalizer, about["config"]["representation"], about["card"]


class Windows(NamedTuple):
    """A batch: true positions [B, T, 22, 3] in their canonical frames, bodies' offsets [B, 22, 3], normalised images
    [B, T, J, F], each sample's own seed [B] of its code draws, and the frames [B] whose poses the canonical frames
    were taken from (None where those are another's)."""

    positions: torch.Tensor
    offsets: torch.Tensor
    image: torch.Tensor
    seeds: torch.Tensor
    anchor: torch.Tensor | None


class CodecStage(Stage):
    """Windows in, reconstruction out."""

    divisible = True
    best = "mpjpe"

    def __init__(self, config: CodecTraining, solo: list, pairs: Sequence | None, start: Path | None = None,
                 held_out: Sequence | None = None, body: Skeleton | None = None):
        self.config, self.body, loop = config, body, config.loop
        self.device = torch.device(loop.device)
        self.representation = base.get(config.representation)
        if config.codec.people > 1 and type(self) is CodecStage:
            raise ConfigError("codec.people: expected 1 for windows of single people, got 2; train with `codec_pairs.stage_of`")
        if (config.codec.joints, config.codec.features) != (self.representation.joints, self.representation.features):
            raise ConfigError(f"codec.joints/features: expected {self.representation.joints} and {self.representation.features} "
                              f"for representation {config.representation!r}, got {config.codec.joints} and "
                              f"{config.codec.features}; mend the configuration")
        train = [c for c in solo if c.split == "train"]
        self.held_out = [c for c in solo if c.split != "train"] or people_of((held_out or ())[:HELD_OUT_PAIRS])
        people = Pool.of_people if config.own_frames else Pool.of_pairs
        self.solo = bool(train)
        self.pools = [Pool.of_solo(train)] if train or not pairs else []
        self.pools += [people(pairs, self.representation.turned)] if pairs else []
        windows = sum(p.people * int(((p.lengths - config.frames) // STRIDE + 1).clamp(min=0).sum()) for p in self.pools)
        self.epoch = windows * (2 if config.augmentation.mirror else 1)
        if config.representation == "interx" and body is None:
            log.warning("codec: no SMPL-X model file, so the geometric losses on Inter-X are left out; give --smplx")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)
            self.model = Codec(config.codec).to(self.device, memory_format=torch.channels_last)
        if loop.recompute:
            recompute([*self.model.encoder.blocks, *self.model.decoder.blocks])
        if config.decoder_alone:
            if start is None:
                raise ConfigError("decoder_alone: expected a codec to begin with, got none; give --start, or leave it out")
            self.model.encoder.requires_grad_(False)
            self.model.quantizer.requires_grad_(False)
        if start is not None:
            self._begin_with(start)
        else:
            self.normalizer = self._statistics().to(self.device)
        log.info("codec: %d parameters, %d training clips (%.1f min), %d held out, %d pairs",
                 sum(p.numel() for p in self.model.parameters()), len(train), sum(len(c.motion) for c in train) / 1800,
                 len(self.held_out), len(pairs or ()))

    def _statistics(self) -> Normalizer:
        config = self.config
        if not config.normalize:
            return Normalizer.identity(self.representation.joints, self.representation.features)
        return statistics(self.representation, self.pools, config.augmentation, config.frames, own=config.own_frames,
                          seed_generator=generator(config.loop.seed, 0, "statistics"), make=self._crops)

    def _begin_with(self, start: Path) -> None:
        """Take over the weights and the statistics of a codec file of the same configuration."""
        codec, normalizer, representation, _ = load_codec(start)
        asked, found = ({"representation": r, **to_dict(c)} for r, c in (
            (self.config.representation, self.config.codec), (representation, codec.config)))
        if asked != found:
            raise ConfigError(f"start: expected a codec of this run's configuration, got in {start} "
                              f"{({k: v for k, v in found.items() if v != asked[k]})} where this run has "
                              f"{({k: v for k, v in asked.items() if v != found[k]})}; train with its configuration, or start "
                              "afresh")
        self.model.load_state_dict(codec.state_dict())
        self.normalizer = normalizer.to(self.device)

    def _varied(self, pool: Pool) -> bool:
        return self.config.vary and self.config.own_frames and self.solo and pool is self.pools[0]

    def _crops(self, pool: Pool, batch: int, frames: int, a: Augmentation, g: torch.Generator, own: bool,
               rows: slice = slice(None)):
        """Crops of a pool, of the solo clips with this run's variety."""
        if not self._varied(pool):
            return crops(pool, batch, frames, a, g, own=own, rows=rows)
        return varied_crops(pool, batch, frames, a, self.config.variety, g, rows)

    def batch(self, step: int, part: Part = WHOLE) -> Windows:
        """The windows of a step, or a part of them."""
        config, g = self.config, generator(self.config.loop.seed, step, "codec")
        paired = len(self.pools) > 1 and float(torch.rand((), generator=g)) < config.pair_share
        pool = self.pools[int(paired)]
        frames = config.frames
        if float(torch.rand((), generator=g)) >= config.usual:
            frames = int(torch.randint(config.shortest // 4, config.longest // 4 + 1, (), generator=g)) * 4
        if not self._varied(pool):
            frames = pool.longest_crop(frames, config.augmentation.warp[1])
        # The same number of frames a step whatever the window, and the same for two people as for one.
        batch = max(1, config.loop.batch * config.frames // frames // pool.people)
        own = config.own_frames
        c = self._crops(pool, batch, frames + self.representation.frames_lost, config.augmentation, g, own=own,
                        rows=part.rows(batch))
        seeds = sample_seeds(step_seed(config.loop.seed, step, "codes"), batch * pool.people)
        seeds = seeds.unflatten(0, (batch, -1))[part.rows(batch)].flatten().to(self.device)
        positions, rotations, offsets = (x.flatten(0, 1).to(self.device) for x in (c.positions, c.rotations, c.offsets))
        image = self.normalizer(self.representation.encode(positions, rotations))
        return Windows(positions, offsets, image, seeds, c.anchor.to(self.device) if own else None)

    def loss(self, batch, step: int):
        """The sum of `terms`."""
        parts, seen = self.terms(batch, step)
        return sum(parts.values()), parts | seen

    def counts(self, batch: Windows):
        """Windows, and planted feet for what is taken on those alone."""
        found = {"": len(batch.image)}
        if self.config.representation == "hybrid":
            return found | {"slide": planted(batch.positions).sum()}
        image, n = batch.image, self.normalizer
        if self.config.representation == "interhuman":
            return found | {"foot": planted_feet((image * n.std + n.mean)[..., :3]).sum()}
        if self.body is None:
            return found
        return found | {"foot": planted_feet(interx_places(image, n.mean, n.std, self.body, batch.offsets)).sum()}

    def divided(self, batches):
        """The quantiser moves as by the undivided batch, where it moves."""
        if self.config.decoder_alone:
            return contextlib.nullcontext()
        return distributed_codebook.divided_codebook(self.model, [b.image for b in batches])

    def _through(self, batch: Windows) -> CodecOutput:
        """The training path, or with the decoder alone the one of sampling."""
        model, image, noise = self.model, batch.image, None
        if self.config.decoder_alone:
            with torch.no_grad():
                codes = model.encode(image)
            used = torch.bincount(codes.flatten(), minlength=model.config.codes).to(image.dtype)
            return CodecOutput(model.decode(codes), codes, image.new_zeros(()), perplexity_of(used))
        if self.config.codec.quantizer == "vq":
            columns = image.shape[1] // self.config.codec.frames_per_column
            noise = distributed_codebook.code_noise(model, batch.seeds, columns)
        return model(image, gumbel_noise=noise)

    def terms(self, batch, step: int):
        """Reconstruction by the representation's losses, and commitment."""
        image, w = batch.image, self.config.metric
        out = self._through(batch)
        with torch.autocast(self.device.type, enabled=False):
            reconstruction = out.reconstruction.float()
            if hasattr(self.representation, "read_matrices"):
                parts = {"feature": w.feature * feature_loss(reconstruction, image, w)}
                read = self.representation.read_matrices(self.normalizer.inverse(reconstruction), batch.anchor, w.every)
                parts |= terms(read, batch.positions, batch.offsets, w)
            elif self.config.representation == "interx":
                parts = interx_terms(reconstruction, image, self.normalizer, batch.offsets, self.body)
            else:
                parts = published_terms(reconstruction, image, self.normalizer)
            if self.config.codec.quantizer == "vq" and not self.config.decoder_alone:
                parts["commitment"] = w.commitment * out.commitment
        return parts, {"perplexity": out.perplexity}

    def validate(self, weights):
        """Mean joint error in mm over whole held-out clips, and the use of the codes."""
        clips = self.held_out
        if not clips:
            return {}
        with borrowed(self.model, weights) as codec:
            return reconstruction_error(codec, self.normalizer, self.representation, clips)

    def pictures(self, weights, folder, count):
        """Held-out clips, and beside each what the codec makes of it."""
        chosen = [self.held_out[i * len(self.held_out) // count] for i in range(min(count, len(self.held_out)))]
        if not chosen:
            return []
        scenes = []
        with borrowed(self.model, weights) as codec, torch.no_grad():
            for clip in chosen:
                m = clip.motion
                positions, rotations, body = (torch.tensor(x.tolist(), dtype=torch.float32, device=self.normalizer.mean.device)
                                              for x in (m.positions, m.rotations, m.skeleton.offsets))
                positions, rotations, image = whole(self.representation, positions, rotations)
                back = self.normalizer.inverse(codec.decode(codec.encode(self.normalizer(image)[None])).float())[0]
                made = self.representation.decode(back, body, anchor=0)
                scenes.append(tuple(Motion.from_rotations(m.skeleton, x[:len(back), 0].cpu().double().numpy(),
                                                          q[:len(back)].cpu().double().numpy(), 30.0)
                                    for x, q in ((positions, rotations), made)))
        folder.mkdir(parents=True, exist_ok=True)
        write_sheet(folder / "decoded.png", scenes, columns=1, titles=["a clip, and decoded"] * len(scenes))
        return [folder / "decoded.png"]

    def export(self, path, weights, card):
        """The codec and its normaliser."""
        save_stage(path, "codec", {"representation": self.config.representation, "codec": to_dict(self.config.codec)},
                   {"codec": weights, "normalizer": self.normalizer.state_dict()}, card)


def published_terms(reconstruction: torch.Tensor, image: torch.Tensor, normalizer: Normalizer) -> dict[str, torch.Tensor]:
    """InterMask's weighted losses for "interhuman"."""
    return _weighted(geometric_losses(reconstruction, image, normalizer.mean, normalizer.std), CodecLossWeights())


def interx_terms(reconstruction: torch.Tensor, image: torch.Tensor, normalizer: Normalizer, offsets: torch.Tensor,
                 body: Skeleton | None) -> dict[str, torch.Tensor]:
    """InterMask's weighted losses for "interx"; the reconstruction alone without an SMPL-X body."""
    if body is None:
        return {"feature": torch.nn.functional.smooth_l1_loss(reconstruction, image)}
    found = interx_losses(reconstruction, image, normalizer.mean, normalizer.std, body, offsets)
    return _weighted(found, CodecLossWeights.interx())


def _weighted(found: GeometricLosses, w: CodecLossWeights) -> dict[str, torch.Tensor]:
    return {"feature": found.reconstruction, "explicit": w.explicit * found.explicit, "velocity": w.velocity * found.velocity,
            "bone": w.bone * found.bone, "geodesic": w.geodesic * found.geodesic, "foot": w.foot * found.foot}


@torch.no_grad()
def reconstruction_error(codec: Codec, normalizer: Normalizer, representation, clips, window: int = WINDOW) -> dict[str, float]:
    """Frame-weighted errors in mm of clips encoded and decoded whole in the frame of their first pose.

    ``mpjpe`` in that frame; ``aligned`` with the pelvis moved onto the true one; ``windows`` re-anchored every ``window``
    frames; ``slide_cm_s`` the speed of decoded feet where the true ones are planted; ``codes_used`` share and
    ``perplexity`` of the codes over all clips.
    """
    device = normalizer.mean.device
    sums = torch.zeros(6, dtype=torch.float64)
    counts = torch.zeros(codec.config.codes)

    def through(positions, rotations, image, offsets=None):
        codes = codec.encode(normalizer(image)[None])
        back, _ = representation.decode(normalizer.inverse(codec.decode(codes).float())[0], offsets, anchor=0)
        truth = positions[:len(back)]
        error = (back - truth).norm(dim=-1)
        aligned = ((back - back[:, :1]) - (truth - truth[:, :1])).norm(dim=-1)
        return codes, back, truth, error, aligned

    for clip in clips:
        positions = torch.as_tensor(clip.motion.positions, dtype=torch.float32, device=device)
        rotations = torch.as_tensor(clip.motion.rotations, dtype=torch.float32, device=device)
        # An image of rotations alone tells no lengths of bones.
        body = torch.tensor(clip.motion.skeleton.offsets.tolist(), dtype=torch.float32, device=device)
        body = body if representation.name == "interx" else None
        codes, back, truth, error, aligned = through(*whole(representation, positions, rotations), body)
        counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
        still = planted(truth)
        speed = (back[1:] - back[:-1])[:, [7, 10, 8, 11]].norm(dim=-1) * 30
        sums[:4] += torch.tensor([error.mean(-1).sum(), aligned.mean(-1).sum(), (speed * still).sum() * 100, still.sum()])
        sums[4] += len(truth)
        for start in range(0, len(positions) - window - representation.frames_lost + 1, window):
            cut = slice(start, start + window + representation.frames_lost)
            sums[5] += through(*whole(representation, positions[cut], rotations[cut]), body)[3].mean(-1).sum()
    frames = float(sums[4])
    windowed = sum((len(c.motion) - representation.frames_lost) // window * window for c in clips)
    share = counts / counts.sum()
    entropy = -(share * (share + 1e-9).log()).sum()
    return {"mpjpe": 1000 * float(sums[0]) / frames, "aligned": 1000 * float(sums[1]) / frames,
            "windows": 1000 * float(sums[5]) / max(windowed, 1), "slide_cm_s": float(sums[2] / sums[3].clamp(min=1)),
            "codes_used": float((counts > 0).float().mean()), "perplexity": float(torch.exp(entropy))}


def train_codec(config: CodecTraining, solo: list, pairs: Sequence | None = None, *, out: Path, start: Path | None = None,
                held_out: Sequence | None = None, body: Skeleton | None = None,
                steps: int | None = None, minutes: float | None = None, threads: int | None = None, device: str | None = None,
                progress: bool = True, resume: bool = True, kind: type[CodecStage] = CodecStage) -> Result:
    """Train a codec on solo clips and the people of pairs (or either alone) into ``out``/codec.safetensors; continues a run it
    finds there.

    ``held_out`` pairs are validated on where no solo clip is held out. ``body`` is an SMPL-X body (`training.smplx`) for the
    geometric losses of representation "interx", which are left out without it.
    ``start`` is a codec file whose weights and statistics a new run begins with.
    ``steps``/``minutes``/``threads``/``device`` replace the loop's. Held-out solo clips (split "test") are only validated on.
    ``kind`` is the stage: that of a codec of two people stands in `rtinteract.training.codec_pairs`.
    """
    config = replace(config, loop=with_limits(config.loop, steps=steps, minutes=minutes, threads=threads, device=device))
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    stage = kind(config, solo, pairs, start, held_out, body)
    return Trainer(stage, config.loop, config, Path(out), name="codec", progress=progress, resume=resume).run()
