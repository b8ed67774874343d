"""What the tables are made of: a data set with its evaluator, the models, and the ledger that keeps every finished figure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rtinteract.training import distributed, metrics
from rtinteract.training.datasets import detect, load_two_person
from rtinteract.training.evaluate_figures import Case
from rtinteract.training.interclip import Evaluator
from rtinteract.training.recognition import ceiling, prompts_by_kind, recognised

from rtinteract.errors import ConfigError
from rtinteract.model import Model, load
from rtinteract.motion.atomic import replacing

NAMES = {"interhuman": "InterHuman", "interx": "Inter-X"}
# Fewer kinds than this make "among the first three" say little.
FEWEST_KINDS = 4


@dataclass(frozen=True)
class TableOptions:
    """``repeats`` of everything that is sampled, each with a seed of its own; R-precision in pools of ``pool``; MultiModality of
    ``mm_texts`` texts, ``mm_repeats`` samples each, ``mm_runs`` times over (InterMask: 20, 96, 100, 30, 5). ``limit`` bounds the
    pairs of each data set. ``iterations`` and ``reaction_iterations`` are those of Tables 1 to 4, ``sweep`` those of the table of
    iterations."""

    repeats: int = 20
    pool: int = metrics.POOL
    mm_texts: int = 100
    mm_repeats: int = 30
    mm_runs: int = 5
    limit: int | None = None
    seed: int = 0
    iterations: int = 20
    reaction_iterations: int = 12
    guidance: float = 2.0
    sweep: tuple[int, ...] = (1, 2, 4, 6, 12, 20)

    def __post_init__(self):
        for name, least in (("repeats", 1), ("pool", 2), ("mm_texts", 0), ("mm_repeats", 2), ("mm_runs", 1), ("limit", 2),
                            ("iterations", 1), ("reaction_iterations", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"tables: expected {name.replace('_', '-')} of at least {least}, got {value}; mend the option")


def _digest(*parts) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()[:16]


def file_mark(path: Path) -> str:
    """What tells a file's content from another's."""
    return _digest(Path(path).read_bytes())


@dataclass(frozen=True, eq=False)
class EvalData:
    """Held-out pairs with texts. ``cases`` in the model's form, ``texts`` the phrasings of each, ``prompts`` those of each kind;
    without an evaluator (None) only what needs none is measured."""

    name: str
    kind: str
    cases: Sequence[Case]
    texts: Sequence[tuple[str, ...]]
    prompts: dict[str, list[str]]
    evaluator: Evaluator | None = None
    mark: str = ""

    @property
    def setting(self) -> dict[str, float]:
        """Scale and divisor of the published figures of this data set."""
        return metrics.INTERHUMAN if self.kind == "interhuman" else metrics.INTERX

    @cached_property
    def truth(self) -> np.ndarray:
        """Embeddings [cases, E] of the real pairs."""
        return self.evaluator.pairs([(c.actor, c.truth) for c in self.cases])

    def fid(self, motion: np.ndarray) -> float | None:
        """FID of embeddings [cases, E] against the true pairs; None where there is but one."""
        return metrics.fid(self.truth, motion, scale=self.setting["scale"]) if len(motion) > 1 else None

    @property
    def recognises(self) -> bool:
        """Whether there are kinds to be told apart."""
        return len(self.prompts) >= FEWEST_KINDS

    def drawn(self, repeat: int, seed: int) -> tuple[list[Case], np.ndarray]:
        """(cases, each with one of its texts; an order of them) of a repeat."""
        draw = np.random.default_rng([seed, repeat, 7])
        texts = [said[int(draw.integers(len(said)))] for said in self.texts]
        return [replace(c, text=t) for c, t in zip(self.cases, texts, strict=True)], draw.permutation(len(self.cases))


def load_data(folder: Path, evaluator: Path | None, limit: int | None, *, cache: Path | None = None,
              smplx: Path | None = None, device: str = "cpu") -> EvalData:
    """The held-out pairs (split "test") of a folder with its evaluator; ConfigError where no pair has a text."""
    kind = detect(folder)
    clips = [c for c in load_two_person(folder, split="test", cache=cache, smplx=smplx) if c.texts]
    if not clips:
        raise ConfigError(f"{folder}: expected pairs with texts, got none; add annotations, or evaluate without --tables")
    prompts = prompts_by_kind(clips)
    if limit is not None and limit < len(clips):
        clips = [clips[i] for i in np.sort(np.random.default_rng(0).permutation(len(clips))[:limit])]
    cases = [Case(*(m.to_model() for m in c.motions()), c.contacts, c.kind, c.texts[0], c.seed) for c in clips]
    mark = _digest([[c.kind, c.texts, len(c)] for c in clips], np.concatenate([c.actor.root for c in cases]).tobytes(),
                   file_mark(evaluator) if evaluator else "")
    return EvalData(NAMES.get(kind, Path(folder).resolve().name), kind, cases, [c.texts for c in clips], prompts,
                    Evaluator.load(evaluator, device) if evaluator else None, mark)


@dataclass(frozen=True, eq=False)
class Contender:
    """A model by name; read when first needed, so that a finished run is found again without it."""

    name: str
    path: Path | None
    device: str = "auto"
    clip: Path | None = None
    bank: Path | None = None

    @cached_property
    def model(self) -> Model:
        """The model itself."""
        return load(self.path, device=self.device, clip=self.clip, bank=self.bank)

    @cached_property
    def mark(self) -> str:
        """What tells its weights from others'."""
        if self.path is not None:
            return file_mark(self.path)
        tensors = {f"{k}.{n}": t for k, m in self.model.parts.modules().items() for n, t in m.state_dict().items()}
        return _digest([[n, tensors[n].double().sum().item(), tensors[n].numel()] for n in sorted(tensors)])


@dataclass(frozen=True)
class Ledger:
    """Figures kept as JSON files in ``folder``, one a measurement; a measurement found there with the same description is not
    made again. ``step(label)`` is called before each."""

    folder: Path
    step: Callable[[str], None] = field(default=lambda label: None)

    def _path(self, label: str, about: dict) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
        return self.folder / f"{slug}-{_digest(label, about)}.json"

    def find(self, label: str, about: dict) -> dict | None:
        """The figures of ``label`` under the description ``about``, None if they are not there; all processes must ask, and hear
        what the first one finds."""
        path, found = self._path(label, about), None
        if distributed.world().chief and path.is_file():
            # A damaged file counts for nothing: measured again.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found = json.loads(path.read_text(encoding="utf-8"))["figures"]
        return distributed.told(found)

    def keep(self, label: str, about: dict, figures: dict) -> dict:
        """Write figures; the first process does."""
        if distributed.world().chief:
            with replacing(self._path(label, about)) as beside:
                beside.write_text(json.dumps({"label": label, "about": about, "figures": figures}, indent=1), encoding="utf-8")
        return figures

    def get(self, label: str, about: dict, measure: Callable[[], dict]) -> dict:
        """The figures of ``label`` under the description ``about``, made if they are not there."""
        self.step(label)
        found = self.find(label, about)
        return self.keep(label, about, measure()) if found is None else found


def matching(data: EvalData, cases: Sequence[Case], order: np.ndarray, options: TableOptions, repeat: int,
             motion: np.ndarray | None) -> dict:
    """What the evaluator says of pairs made for cases, of their embeddings [cases, E]; {} without an evaluator.

    R-precision over the shuffled ``order`` in pools of ``options.pool`` (of all pairs where there are fewer), FID against the
    true pairs, MM distance, Diversity (300 draws, or as many as there are pairs), and the share of pairs whose kind is the
    nearest or among the three nearest.
    """
    if data.evaluator is None:
        return {}
    text, pool = data.evaluator.texts([c.text for c in cases]), min(options.pool, len(cases))
    precision = metrics.r_precision(text[order], motion[order], pool=pool)
    found = {"r1": precision[0], "r2": precision[1], "r3": precision[2], "mm_distance": metrics.mm_distance(text, motion),
             "diversity": metrics.diversity(motion, times=min(300, len(motion)), seed=options.seed + repeat, **data.setting)}
    if data.recognises:
        ranks = recognised({k: data.evaluator.texts(t) for k, t in data.prompts.items()}, motion, [c.kind for c in cases])
        found |= {"kind_1": (ranks < 1).mean(), "kind_3": (ranks < 3).mean()}
    return {name: float(value) for name, value in found.items()} | {"fid": data.fid(motion)}


def ruler(data: EvalData, options: TableOptions) -> dict:
    """What the evaluator could reach: R-precision of one that tells events, not clips, apart; and chance."""
    pool = min(options.pool, len(data.cases))
    groups = [tuple(sorted(t)) for t in data.texts]
    order = np.random.default_rng([options.seed, 5]).permutation(len(groups))
    best = ceiling([groups[i] for i in order], pool)
    found = {"pool": pool, "pools": len(groups) // pool, "ceiling_r1": float(best[0]), "ceiling_r3": float(best[2]),
             "chance_r1": 1 / pool, "chance_r3": min(3 / pool, 1.0)}
    if data.recognises:
        found |= {"kinds": len(data.prompts), "chance_kind_3": 3 / len(data.prompts)}
    return found


def about(options: TableOptions, *names: str) -> dict:
    """The named options, for a measurement's description."""
    return {name: asdict(options)[name] for name in names}
