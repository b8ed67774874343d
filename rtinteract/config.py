"""Frozen configurations, one for each constructor; a checkpoint stores them as JSON."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field

from rtinteract.errors import ConfigError

FORMAT_VERSION = 2
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
# The kinds of attention of a published block (InterMask section 3.2.2).
ATTENTION = ("self", "spatio-temporal", "cross")


def _check(condition: bool, what: str, expected: str, got) -> None:
    if not condition:
        raise ConfigError(f"{what}: expected {expected}, got {got!r}; mend the configuration")


@dataclass(frozen=True)
class CodecConfig:
    """The 2D motion codec (InterMask section 3.1): an image of joints x time, `features` channels.

    ``kernels``/``strides`` are (joints, time) of each strided convolution, ``upsample`` the factors of each upsampling.
    ``widths`` are the channels of each resolution from the finest on, ``width`` everywhere without: a CPU spends most of its
    time at the finest. ``quantizer`` is "vq" (one codebook, EMA) or "fsq" (finite scalar quantisation, ``levels`` a channel).

    ``form`` "image" convolves over joints and time, as published; "sequence" over time alone, each joint with weights of its
    own (`rtinteract.sequence`): of ``kernels``, ``strides`` and ``upsample`` it takes the part of time, ``depth`` counts the
    residual blocks of its coarsest resolution, and with "fsq" the channels of a token are the quantiser's own
    (``code_dim`` = number of ``levels``). ``fsq_reach`` is how many standard deviations of a channel the middle of
    its levels' curve spans: 1 uses the codes evenly, more tells large values apart.

    The published ablations (Table 2): with ``token_map`` "1d" a column is one token, a pose one vector of all its joints, and
    convolutions go over time alone; what ``kernels``, ``strides`` and ``upsample`` say of joints is then of no meaning. With two
    ``people`` one codec takes both together: their rows stand one below the other in one image, so that a token stands for as
    much as otherwise, and ``upsample`` leads back to the rows of both. The paper does not say how it puts two people into one
    image.
    """

    joints: int = 22
    features: int = 12
    width: int = 512
    widths: tuple[int, ...] = ()
    code_dim: int = 512
    codes: int = 1024
    depth: int = 2
    dilation_growth: int = 3
    kernels: tuple[tuple[int, int], ...] = ((4, 4), (4, 4))
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2))
    upsample: tuple[tuple[float, float], ...] = ((2.2, 2.0), (2.0, 2.0))
    dropout: float = 0.2
    quantizer: str = "vq"
    levels: tuple[int, ...] = ()
    ema_decay: float = 0.99
    form: str = "image"
    fsq_reach: float = 1.0
    token_map: str = "2d"
    people: int = 1

    def __post_init__(self):
        for name in ("joints", "features", "width", "code_dim", "codes", "depth"):
            _check(getattr(self, name) >= 1, f"codec.{name}", "an integer of at least 1", getattr(self, name))
        _check(self.quantizer in ("vq", "fsq"), "codec.quantizer", "'vq' or 'fsq'", self.quantizer)
        _check(len(self.kernels) == len(self.strides) == len(self.upsample), "codec.kernels/strides/upsample",
               "one entry a level in each", (self.kernels, self.strides, self.upsample))
        _check(not self.widths or (len(self.widths) == len(self.strides) + 1 and min(self.widths) >= 1), "codec.widths",
               f"{len(self.strides) + 1} numbers of channels, one a resolution, or none", self.widths)
        _check(0 <= self.dropout < 1, "codec.dropout", "a share in [0, 1)", self.dropout)
        _check(self.form in ("image", "sequence"), "codec.form", "'image' or 'sequence'", self.form)
        _check(self.fsq_reach > 0, "codec.fsq_reach", "more than 0", self.fsq_reach)
        _check(self.token_map in ("1d", "2d"), "codec.token_map", "'1d' or '2d'", self.token_map)
        _check(self.people in (1, 2), "codec.people", "1, or 2 together", self.people)
        if self.form == "sequence" and self.quantizer == "fsq":
            _check(self.code_dim == len(self.levels), "codec.code_dim", f"one channel for each of {len(self.levels)} levels",
                   self.code_dim)
        if self.form == "sequence":
            whole = all(time == int(time) for _, time in self.upsample)
            _check(whole, "codec.upsample", "whole factors over time", self.upsample)
        if self.quantizer == "fsq":
            _check(math.prod(self.levels) == self.codes and len(self.levels) > 0, "codec.levels",
                   f"factors of codes = {self.codes}", self.levels)

    @property
    def rows(self) -> int:
        """Rows of the image: joints of all people."""
        return self.joints * self.people

    @property
    def parts(self) -> int:
        """Rows of the token map: body parts after the strided convolutions over joints (padding 1)."""
        if self.token_map == "1d":
            return 1
        rows = self.rows
        for (kernel, _), (stride, _) in zip(self.kernels, self.strides, strict=True):
            rows = (rows + 2 - kernel) // stride + 1
        return rows

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each resolution, the finest first."""
        return self.widths or (self.width,) * (len(self.strides) + 1)

    @property
    def frames_per_column(self) -> int:
        """Frames that one token column stands for."""
        return math.prod(stride for _, stride in self.strides)

    @classmethod
    def interhuman(cls) -> CodecConfig:
        """The published InterHuman codec."""
        return cls()

    @classmethod
    def interx(cls) -> CodecConfig:
        """The published Inter-X codec: 56 rows of 6."""
        return cls(joints=56, features=6, kernels=((6, 4), (6, 4)), strides=((3, 2), (3, 2)), upsample=((3.5, 2.0), (3.3, 2.0)))


@dataclass(frozen=True)
class TransformerConfig:
    """The Inter-M transformer (InterMask section 3.2). ``condition`` is the width of the text condition.

    With ``placement`` each person is in a canonical frame of their own, and the tokens are told where the two stand.

    The published ablations (Table 3): ``attention`` names the kinds of attention that a block has; what it lacks is passed over,
    its feed-forwards stay. ``modelling`` "together" is the published model of both people at once; "alternating" updates one
    person's tokens at a time, which read the other's input tokens by cross attention alone (appendix G).
    """

    codes: int = 1024
    code_dim: int = 512
    parts: int = 5
    width: int = 384
    heads: int = 6
    layers: int = 6
    ff: int = 1024
    condition: int = 768
    dropout: float = 0.2
    placement: bool = False
    attention: tuple[str, ...] = ATTENTION
    modelling: str = "together"

    def __post_init__(self):
        for name in ("codes", "code_dim", "parts", "width", "heads", "layers", "ff", "condition"):
            _check(getattr(self, name) >= 1, f"transformer.{name}", "an integer of at least 1", getattr(self, name))
        _check(self.width % self.heads == 0, "transformer.width", f"a multiple of heads = {self.heads}", self.width)
        _check(self.width % 4 == 0, "transformer.width", "a multiple of 4 (2D sine positions)", self.width)
        _check(0 <= self.dropout < 1, "transformer.dropout", "a share in [0, 1)", self.dropout)
        known = len(self.attention) > 0 and set(self.attention) <= set(ATTENTION)
        _check(known and len(set(self.attention)) == len(self.attention), "transformer.attention",
               f"one or more of {', '.join(ATTENTION)}, each once", self.attention)
        _check(self.modelling in ("together", "alternating"), "transformer.modelling", "'together' or 'alternating'",
               self.modelling)
        _check(self.modelling == "together" or "cross" in self.attention, "transformer.attention",
               "'cross' among them where people alternate: nothing else tells one of the other", self.attention)

    @property
    def published(self) -> bool:
        """Whether a block has all that a published one has, and models both people together."""
        return set(self.attention) == set(ATTENTION) and self.modelling == "together"

    @property
    def mask_id(self) -> int:
        """Id of a token still to be filled."""
        return self.codes

    @property
    def pad_id(self) -> int:
        """Id of a token past the end of its sequence."""
        return self.codes + 1

    @property
    def sep_id(self) -> int:
        """Id of the separator between the two people."""
        return self.codes + 2


@dataclass(frozen=True)
class TextConfig:
    """How text becomes the condition.

    "none": the model takes no text. "clip": the frozen CLIP tower's token features [B, 77, width] pass the trained head
    of the published model (``layers`` post-norm layers, ``heads``, ``ff``). "bpe": an encoder of our own over BPE tokens.
    """

    kind: str = "clip"
    width: int = 768
    layers: int = 2
    heads: int = 8
    ff: int = 2048
    vocabulary: int = 0
    max_tokens: int = 77
    dropout: float = 0.1

    def __post_init__(self):
        _check(self.kind in ("none", "clip", "bpe"), "text.kind", "'none', 'clip' or 'bpe'", self.kind)
        _check(self.kind != "bpe" or self.vocabulary >= 4, "text.vocabulary", "at least 4 entries for 'bpe'", self.vocabulary)
        _check(self.width % self.heads == 0, "text.width", f"a multiple of heads = {self.heads}", self.width)


@dataclass(frozen=True)
class ModelConfig:
    """Everything a checkpoint says of itself: representation, frame rate, skeleton, and the three parts.

    ``precision`` is what a file keeps the weights in: "float32", "float16", "bfloat16" or "int8". ``choice_temperature`` is what
    its tokens are best retained with (`rtinteract.sampler.sample_codes`), 0 for the published models.
    """

    representation: str = "interhuman"
    codec: CodecConfig = field(default_factory=CodecConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fps: float = 30.0
    skeleton: str = "smpl22"
    window: int = 64
    name: str = "unnamed"
    precision: str = "float32"
    choice_temperature: float = 0.0

    def __post_init__(self):
        c, t = self.codec, self.transformer
        _check(self.choice_temperature >= 0, "choice_temperature", "0 or more", self.choice_temperature)
        _check(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}", self.precision)
        _check(c.people == 1, "codec.people", "1: a model takes each person's tokens apart", c.people)
        _check(c.codes == t.codes, "transformer.codes", f"the codec's {c.codes}", t.codes)
        _check(c.parts == t.parts, "transformer.parts", f"the codec's {c.parts} body parts", t.parts)
        _check(self.text.kind == "none" or self.text.width == t.condition, "transformer.condition",
               f"the text width {self.text.width}", t.condition)
        _check(self.fps > 0, "fps", "a positive frame rate", self.fps)
        _check(self.window % c.frames_per_column == 0, "window", f"a multiple of {c.frames_per_column} frames", self.window)


def to_dict(config) -> dict:
    """A configuration as plain JSON types."""
    return dataclasses.asdict(config)


def _rebuild(kind, value):
    if typing.get_origin(kind) is tuple or kind is tuple:
        inner = typing.get_args(kind)[0] if typing.get_args(kind) else None
        return tuple(_rebuild(inner, v) for v in value)
    return from_dict(kind, value) if dataclasses.is_dataclass(kind) else value


def from_dict(cls, values: dict):
    """A configuration from plain JSON types; an unknown key is an error, a missing one takes its default."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{cls.__name__}: unknown key {', '.join(map(repr, unknown))}; it knows {', '.join(known)}")
    return cls(**{k: _rebuild(hints[k], v) for k, v in values.items()})
