"""Composed pairs: two people who interact, made from solo clips and inverse kinematics, deterministic from a seed.

A kind is a function of a Scene (choreo_stage) that plans footprints, builds both people on real posture and walks, adds gaze,
lean and reach with human delays, and cuts a checked PairClip. How-to figures: reaction 0.2-0.6 s, anticipated 0-0.2 s.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rtinteract.training.choreo_check import Rejected
from rtinteract.training.choreo_dance import dance
from rtinteract.training.choreo_fight import punch, push
from rtinteract.training.choreo_follow import follow, ignore, mirror
from rtinteract.training.choreo_give import handover
from rtinteract.training.choreo_meet import bow, handshake, high_five, wave
from rtinteract.training.choreo_show import applaud, point
from rtinteract.training.choreo_source import Library
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.choreo_touch import comfort, hug
from rtinteract.training.choreo_walk import chase, circle, side_by_side
from rtinteract.training.pairs import PairClip, read_shard, write_index, write_shard

from rtinteract.errors import ConfigError

__all__ = ["KINDS", "Kind", "Library", "Rejected", "compose", "compose_many"]

log = logging.getLogger(__name__)

SHARD = 32
# Counted up whenever a seed gives other clips than before: shards of another edition are composed anew.
EDITION = 2
MAX_ATTEMPTS = 60


@dataclass(frozen=True)
class Kind:
    """A kind of interaction: its choreography, how often it is drawn, and the seconds of stage it needs before the cut."""

    choreography: Callable[[Scene], PairClip]
    weight: float
    stage_s: float = 13.0


KINDS: dict[str, Kind] = {
    "handshake": Kind(handshake, 1.5),
    "high_five": Kind(high_five, 1.2),
    "wave": Kind(wave, 1.2),
    "follow": Kind(follow, 1.2),
    "mirror": Kind(mirror, 1.2, 10.0),
    "punch": Kind(punch, 1.2),
    "push": Kind(push, 1.0, 10.0),
    "bow": Kind(bow, 1.0),
    "ignore": Kind(ignore, 0.8, 10.0),
    "handover": Kind(handover, 1.4),
    "circle": Kind(circle, 1.0),
    "hug": Kind(hug, 1.5),
    "side_by_side": Kind(side_by_side, 1.0),
    "point": Kind(point, 1.0),
    "applaud": Kind(applaud, 0.9),
    "comfort": Kind(comfort, 1.2),
    "chase": Kind(chase, 1.0),
    "dance": Kind(dance, 1.2),
}

_libraries: dict[tuple, Library] = {}


def library_of(solo_clips, split: str) -> Library:
    """The analysed clips of one split; the last few are kept, analysing takes about a second."""
    if isinstance(solo_clips, Library):
        if solo_clips.split != split:
            raise ConfigError(f"compose: expected a library of split {split!r}, got {solo_clips.split!r}; build another one")
        return solo_clips
    key = (split, *(id(clip) for clip in solo_clips))
    if key not in _libraries:
        while len(_libraries) >= 2:
            _libraries.pop(next(iter(_libraries)))
        _libraries[key] = Library(solo_clips, split)
        # Holding the clips keeps their ids from being used again.
        _libraries[key].clips = list(solo_clips)
    return _libraries[key]


def compose(kind: str, solo_clips, seed: int, split: str = "train") -> PairClip:
    """One clip of ``kind`` from the solo clips of ``split``; the same arguments give the same clip.

    ``solo_clips`` is a list of SoloClip or a Library. Raises Rejected when the draw fails a check and ConfigError for an
    unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"compose: unknown kind {kind!r}; expected one of {', '.join(KINDS)}")
    library = library_of(solo_clips, split)
    rng = np.random.default_rng([int(seed), list(KINDS).index(kind)])
    clip = KINDS[kind].choreography(Scene(library, rng, KINDS[kind].stage_s))
    return replace(clip, seed=int(seed), meta={**clip.meta, "split": split})


def _compose_one(library, seed, index, kinds):
    """The clip of one index: a kind drawn once, then attempts until one passes; also the rejections by kind and reason."""
    names = list(kinds)
    weights = np.array([KINDS[k].weight for k in names])
    kind = names[np.random.default_rng([seed, index]).choice(len(names), p=weights / weights.sum())]
    rejected = Counter()
    for attempt in range(MAX_ATTEMPTS):
        try:
            return compose(kind, library, _own_seed(seed, index, attempt), library.split), rejected
        except Rejected as fault:
            rejected[f"{kind}: {fault.reason}"] += 1
    raise ConfigError(f"compose: {MAX_ATTEMPTS} draws of {kind!r} were all rejected ({dict(rejected)}); expected some to pass: "
                      "check that the solo clips are clean and stand on the floor")


def _compose_shard(job):
    library, folder, seed, kinds, shard, indices = job
    rejected, clips = Counter(), []
    for index in indices:
        clip, faults = _compose_one(library, seed, index, kinds)
        clips.append(replace(clip, meta={**clip.meta, "index": index, "edition": EDITION, "rejected": dict(faults)}))
        rejected.update(faults)
    write_shard(Path(folder) / _name(shard), clips)
    return len(clips)


def _name(shard):
    return f"pairs-{shard:05d}.npz"


def compose_many(folder_out, solo_clips, count: int, seed: int, progress: bool = True, *, split: str = "train",
                 kinds=None, processes: int = 1) -> dict:
    """Compose ``count`` clips into a folder that `pairs.load_pairs` reads; returns the report that is also in its index.json.

    Clip i depends on (seed, i, split, solo clips) only, so any ``processes`` gives the same clips, and a run that was killed
    goes on after its last whole shard (shards of another seed, split, edition or kinds are composed anew; use another folder for
    other solo clips). The report counts clips by kind and rejections by kind and reason; ``acceptance`` is clips over draws.
    Raises ConfigError for a bad count or kind, or when a kind never passes.
    """
    folder = Path(folder_out)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = tuple(KINDS if kinds is None else kinds)
    if count < 1 or not kinds or any(k not in KINDS for k in kinds):
        raise ConfigError(f"compose: expected count >= 1 and kinds from {', '.join(KINDS)}, got {count} and {kinds}")
    library = library_of(solo_clips, split)
    jobs, shards = [], range((count + SHARD - 1) // SHARD)
    for shard in shards:
        indices = list(range(shard * SHARD, min(count, (shard + 1) * SHARD)))
        if not _done(folder / _name(shard), indices, int(seed), split, kinds):
            jobs.append((library, str(folder), int(seed), kinds, shard, indices))
    _work(jobs, processes, progress, count)
    report = _report(folder, shards)
    write_index(folder, [_name(s) for s in shards], {"clips": count, "seed": int(seed), "split": split, **report})
    return report


def _own_seed(seed, index, attempt):
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1, np.uint32)[0])


def _done(path, indices, seed, split, kinds):
    """Whether a shard holds what this run would write there (told by index, seed, split and kinds)."""
    if not path.exists():
        return False
    clips = read_shard(path)
    return ([c.meta.get("index") for c in clips] == indices
            and all(c.meta.get("edition") == EDITION and c.meta.get("split") == split and c.kind in kinds for c in clips)
            and all(c.seed == _own_seed(seed, c.meta["index"], sum(c.meta["rejected"].values())) for c in clips))


def _work(jobs, processes, progress, count):
    from tqdm import tqdm
    with tqdm(total=sum(len(j[-1]) for j in jobs), desc="composing", unit="clip", disable=not progress) as bar:
        if processes <= 1:
            for job in jobs:
                bar.update(_compose_shard(job))
        else:
            with get_context("spawn").Pool(processes) as pool:
                for done in pool.imap_unordered(_compose_shard, jobs):
                    bar.update(done)
    log.info("composed %d clips", count)


def _report(folder, shards):
    kinds, rejected = Counter(), Counter()
    for shard in shards:
        for clip in read_shard(folder / _name(shard)):
            kinds[clip.kind] += 1
            rejected.update(clip.meta["rejected"])
    total = sum(kinds.values())
    return {"kinds": dict(sorted(kinds.items())), "rejected": dict(sorted(rejected.items())),
            "acceptance": total / max(1, total + sum(rejected.values()))}
