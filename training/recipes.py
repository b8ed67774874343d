"""Named configurations: the published ones of InterMask for InterHuman and Inter-X, and the small model of this project.

Numbers are of the InterMask paper (section 3, appendix E) and, where that is silent, of its published implementation. Where the
two differ the paper is followed in the codec's batch (512 windows of one person) and the implementation in its warm-up (a quarter
of an epoch). What differs from both: batches are drawn with replacement, an epoch being as many samples as they count in one.
"""

from __future__ import annotations

from collections.abc import Callable

from rtinteract.training.codec import CodecTraining
from rtinteract.training.data import Augmentation
from rtinteract.training.loop import LoopConfig
from rtinteract.training.shares import Shares
from rtinteract.training.text import TextTraining
from rtinteract.training.transformer import Sizes, TransformerTraining

from rtinteract.config import CodecConfig, TextConfig, TransformerConfig
from rtinteract.errors import ConfigError

NAMES = ("interhuman", "interx", "small")
SEQUENCE = "small-sequence"
# Frames of the shortest and of the longest clip that the transformer sees.
_FRAMES = {"interhuman": (15, 300), "interx": (24, 150)}


def _published_loop(batch: int, epochs: float, factor: float, milestones: tuple[float, ...], **other) -> LoopConfig:
    """What both published trainings share: AdamW (0.9, 0.99) at 2e-4 with steps down, no averaged weights."""
    return LoopConfig(batch=batch, epochs=epochs, learning_rate=2e-4, betas=(0.9, 0.99), warmup_epochs=0.25, schedule="step",
                      milestones=milestones, factor=factor, ema=0.0, device="auto", **other)


def _plain(name: str, **other) -> Augmentation:
    """InterHuman is mirrored half of the time, and otherwise all is as captured."""
    return Augmentation(mirror=0.5 if name == "interhuman" else 0.0, scale=(1.0, 1.0), warp=(1.0, 1.0), anchor_first=1.0,
                        elsewhere=0.0, **other)


def _codec(name: str) -> CodecTraining:
    codec = CodecConfig.interhuman() if name == "interhuman" else CodecConfig.interx()
    loop = _published_loop(512, 50, 0.1, (0.7, 0.85), weight_decay=0.0, gradient_norm=1.0)
    return CodecTraining(representation=name, codec=codec, loop=loop, augmentation=_plain(name, anchor_clip=True), frames=64,
                         usual=1.0, pair_share=1.0, own_frames=False, normalize=name == "interhuman")


def _transformer(name: str) -> TransformerTraining:
    published = TransformerConfig()
    sizes = Sizes(width=published.width, heads=published.heads, layers=published.layers, ff=published.ff,
                  dropout=published.dropout)
    # Half of the interaction masks hide either person, whole; the other person always is at the clip's first frame.
    shares = Shares(interaction=0.2, reactor=0.5, streaming=0.0, cold=0.0, whole=1.0, begun=0.0, starter=0.5, text_dropped=0.1,
                    reaction_text_dropped=0.1, history_noise=0.0)
    # The published training of the transformer does not clip gradients.
    loop = _published_loop(52, 500, 1 / 3, (0.5, 0.7, 0.85), weight_decay=1e-5, gradient_norm=0.0)
    shortest, most = _FRAMES[name]
    return TransformerTraining(sizes=sizes, text=TextConfig(), loop=loop, augmentation=_plain(name), own_frames=False, prior=0.0,
                               shares=shares, unroll=1.0, unroll_share=1.0, shortest=shortest, most=most, whole=True,
                               unroll_over="all", echo=1)


def _chosen(stage: str, name: str, small: Callable, published: Callable):
    if name not in NAMES:
        raise ConfigError(f"recipe: expected one of {', '.join(NAMES)} for {stage}, got {name!r}")
    return small() if name == "small" else published(name)


def _sequence() -> CodecTraining:
    """The small codec over whole bodies (`rtinteract.sequence`): nearer to motion it never saw, but each of its tokens is about
    all of a body, and the transformer, which draws the tokens of a column apart, learns gestures from them badly."""
    codec = CodecConfig(form="sequence", widths=(128, 160, 208), code_dim=5, codes=2500, quantizer="fsq", levels=(5, 5, 5, 5, 4),
                        fsq_reach=1.5, dropout=0.0)
    loop = LoopConfig(minutes=60.0, batch=64, learning_rate=2.5e-3, weight_decay=1e-4, final_rate=0.01)
    return CodecTraining(codec=codec, loop=loop, pair_share=0.2)


def codec_recipe(name: str) -> CodecTraining:
    """The codec's configuration of that name, or "small-sequence"; ConfigError lists the names there are."""
    if name == SEQUENCE:
        return _sequence()
    return _chosen("train codec", name, CodecTraining, _codec)


def transformer_recipe(name: str) -> TransformerTraining:
    """The transformer's configuration of that name; ConfigError lists the names there are."""
    return _chosen("train transformer", name, TransformerTraining, _transformer)


def text_recipe(name: str) -> TextTraining:
    """The small text encoder's configuration; the published models read CLIP, of which nothing is trained apart."""
    if name != "small":
        raise ConfigError(f"recipe: expected small for train text, got {name!r}: published models read text through CLIP, whose "
                          "head is trained with the transformer; skip this stage and give train transformer --clip")
    return TextTraining()
