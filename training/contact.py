"""Train the network that tells touches (`rtinteract.contact`) on composed pairs whose reactor errs as a model does, and on pairs
whose reactor a model made (`rtinteract.training.reactions`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rtinteract.training.pairs import PairClip, read_shard, shards_of
from torch.nn import functional as F
from tqdm import tqdm

from rtinteract import rotation as R
from rtinteract.contact import CHANNELS, POINTS, ContactNet, features, mirrored, mirrored_channels, run_out, seen_of
from rtinteract.container import write_container
from rtinteract.errors import ConfigError
from rtinteract.skeleton import SMPL22, forward_kinematics

log = logging.getLogger(__name__)

# Frames of a training crop.
CROP = 96
# Frames: a touch that is shorter weighs as much as one that is so long.
SHORT = 20


@dataclass(frozen=True)
class ContactConfig:
    """``late``: frames by which a reactor comes too late or too early at most; ``short_m``: how far a hand is off; ``stray_m``:
    how far the whole body is. ``strangers``: share of crops whose reactor is another clip's; ``streamed``: share of crops that
    end a plan's ``horizon`` after now, where the actor is known up to now; ``made``: share of crops of pairs whose reactor a
    model made, where there are such."""

    steps: int = 2500
    batch: int = 24
    learning_rate: float = 2e-3
    width: int = 40
    late: float = 15.0
    short_m: float = 0.40
    stray_m: float = 0.30
    strangers: float = 0.08
    streamed: float = 0.5
    horizon: int = 16
    made: float = 0.5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Sight:
    """One clip as the network sees it: ``seen`` [T, 2, 15, 3]; ``touch`` bool [T, C], ``gap`` [T, C] metres and ``weight`` [T, C]
    of the loss, one a channel; ``made``: whether its reactor is a model's."""

    seen: torch.Tensor
    touch: torch.Tensor
    gap: torch.Tensor
    weight: torch.Tensor
    kind: str = ""
    made: bool = False


def sight_of(clip: PairClip) -> Sight:
    """What there is to see in a composed clip, and what touches in it."""
    frames = len(clip)
    people = []
    for p in range(2):
        rotations = R.normalize(torch.from_numpy(clip.rotations[p]).float())
        places, turns = forward_kinematics(SMPL22, torch.from_numpy(clip.root[p]).float(), rotations,
                                           offsets=torch.from_numpy(clip.offsets[p]).float(), with_rotations=True)
        people.append(seen_of(places, turns))
    touch, gap = torch.zeros(frames, len(CHANNELS), dtype=torch.bool), torch.zeros(frames, len(CHANNELS))
    weight = torch.ones(frames, len(CHANNELS))
    for contact in clip.contacts:
        if (contact.joint_a, contact.joint_b) in CHANNELS:
            channel = CHANNELS.index((contact.joint_a, contact.joint_b))
            touch[contact.start:contact.end, channel] = True
            gap[contact.start:contact.end, channel] = contact.gap
            weight[contact.start:contact.end, channel] = max(1.0, SHORT / (contact.end - contact.start))
    return Sight(torch.stack(people, 1), touch, gap, weight, clip.kind, bool(clip.meta.get("made")))


def load_sights(folders: Sequence[Path], clips: int | None = None, progress: bool = True) -> list[Sight]:
    """What there is to see in folders of composed pairs, at most about ``clips`` of each, spread over its shards.

    MotionError for a folder that `load_pairs` does not read either.
    """
    found = []
    for folder in folders:
        shards = shards_of(folder)
        some = shards
        if clips is not None:
            each = len(read_shard(shards[0]))
            some = shards[::max(1, -(-len(shards) * each // clips))]
        for shard in tqdm(some, desc=f"reading {folder}", unit="shard", disable=not progress):
            found += [sight_of(clip) for clip in read_shard(shard)]
    return found


def wander(generator: torch.Generator, frames: int, knots: int, count: int) -> torch.Tensor:
    """``count`` slow ways [frames, count, 3] through ``knots`` random places of standard deviation 1."""
    way = torch.randn(1, 3 * count, knots, generator=generator)
    return F.interpolate(way, size=frames, mode="linear", align_corners=True)[0].T.unflatten(1, (count, 3))


def erring(seen: torch.Tensor, config: ContactConfig, generator: torch.Generator) -> torch.Tensor:
    """A reactor's `seen_of` [T, 15, 3] as a model might have made it: late or early, aside, hands short of their goal."""
    def uniform():
        return float(torch.rand((), generator=generator))

    frames = len(seen)
    if uniform() < 0.6:
        off = round(float(torch.randn((), generator=generator)) * config.late / 2)
        seen = seen[(torch.arange(frames) - max(-int(config.late), min(int(config.late), off))).clamp(0, frames - 1)]
    points, turns = seen[:, :POINTS].clone(), seen[:, POINTS:]
    ways = wander(generator, frames, 4, 3)
    if uniform() < 0.7:
        points += config.stray_m / 2 * ways[:, 2:] * torch.tensor([1.0, 0.1, 1.0])
    for side in range(2):
        if uniform() < 0.6:
            off = config.short_m / 3 * uniform() * ways[:, side]
            points[:, side] += off
            points[:, 2 + side] += 0.5 * off
        if uniform() < 0.3:
            # The arm comes up only part of its way.
            rest = points[:, 4 + side] + (points[0, side] - points[0, 4 + side])
            points[:, side] += 0.75 * uniform() * (rest - points[:, side])
    tremble = wander(generator, frames, 8, POINTS + turns.shape[1])
    turns = F.normalize(turns + 0.35 * uniform() * tremble[:, POINTS:], dim=-1)
    return torch.cat([points + 0.01 * tremble[:, :POINTS], turns], 1)


def strange(actor: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Another clip's reactor [T, 15, 3], moved to where this one's ``own`` begins and facing as it does."""
    def heading(seen):
        return torch.atan2(seen[0, -1, 0], seen[0, -1, 2])

    q = R.yaw(heading(own) - heading(other))
    level = other.new_tensor([1.0, 0.0, 1.0])
    out = torch.cat([other[:, :POINTS] - other[0, POINTS - 1] * level, other[:, POINTS:]], 1)
    out = R.rotate(q.expand(*out.shape[:-1], 4), out)
    out[:, :POINTS] += own[0, POINTS - 1] * level
    short = len(actor) - len(out)
    return torch.cat([out, out[-1:].expand(max(0, short), -1, -1)])[:len(actor)]


def guessed(seen: torch.Tensor, now: int) -> torch.Tensor:
    """An actor's `seen_of` [T, 15, 3] as it is known at frame ``now``: what comes is guessed to run out, see
    `rtinteract.contact.run_out`."""
    ahead = torch.arange(1, len(seen) - now + 1)
    after = seen[now - 1] + run_out(ahead)[:, None, None] * (seen[now - 1] - seen[now - 2])
    turns = F.normalize(after[:, POINTS:], dim=-1)
    return torch.cat([seen[:now], torch.cat([after[:, :POINTS], turns], 1)])


def _drawn(pools: Sequence[Sequence[Sight]], config: ContactConfig, rng: np.random.Generator) -> Sight:
    """One of the (composed, made) sights."""
    pool = pools[rng.random() < config.made] or pools[0] or pools[1]
    return pool[rng.integers(len(pool))]


def _crop(sights: Sequence[Sight], sight: Sight, config: ContactConfig, rng: np.random.Generator, generator: torch.Generator):
    """One training crop of a ``sight``: (seen [CROP, 2, 15, 3], touch, gap, weight [CROP, C]); strangers are of ``sights``."""
    seen, touch = sight.seen, sight.touch
    actor, reactor = seen[:, 0], seen[:, 1]
    other = sights[rng.integers(len(sights))]
    if rng.random() < config.strangers and other.kind != sight.kind and not (touch.any() and other.touch.any()):
        reactor, touch = strange(actor, reactor, other.seen[:, 1]), torch.zeros_like(touch)
    first = int(rng.integers(0, max(1, len(seen) - CROP + 1)))
    rows = (torch.arange(CROP) + first).clamp(max=len(seen) - 1)
    # A model's reactor errs as it is.
    actor, reactor = actor[rows], reactor[rows] if sight.made else erring(reactor[rows], config, generator)
    touch, gap = touch[rows], sight.gap[rows]
    weight = torch.where(touch, sight.weight[rows], 1.0)
    if rng.random() < config.streamed:
        now = int(rng.integers(12, CROP - config.horizon))
        actor = guessed(actor, now)
        # Nothing is known after the plan, and nothing asked.
        rows = torch.arange(CROP).clamp(max=now + config.horizon - 1)
        actor, reactor = actor[rows], reactor[rows]
        weight = weight * (torch.arange(CROP) < now + config.horizon)[:, None]
    seen = torch.stack([actor, reactor], 1)
    if rng.random() < 0.5:
        order = torch.tensor(mirrored_channels())
        seen, touch, gap = mirrored(seen), touch[:, order], gap[:, order]
        weight = weight[:, order]
    return seen, touch, gap, weight


def _statistics(net: ContactNet, sights: Sequence[Sight]) -> None:
    x = torch.cat([features(s.seen[::4]) for s in sights[:512]])
    net.mean.copy_(x.mean(0))
    net.scale.copy_(1 / x.std(0).clamp(min=0.02))


def train_contact(sights: Sequence[Sight], config: ContactConfig | None = None, progress: bool = True) -> ContactNet:
    """The trained network; same clips and seed, same network. ConfigError where nothing touches."""
    config = config or ContactConfig()
    if not any(bool(s.touch.any()) for s in sights):
        raise ConfigError(f"train contact: expected pairs with contacts, got none in {len(sights)} clips; compose kinds "
                          "that touch")
    rng, generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = ContactNet(config.width)
    _statistics(net, sights)
    optimizer = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps, pct_start=0.1)
    pools, told = [[s for s in sights if s.made == made] for made in (False, True)], 0.0
    for step in tqdm(range(config.steps), desc="contact", unit="step", disable=not progress):
        crops = [_crop(sights, _drawn(pools, config, rng), config, rng, generator) for _ in range(config.batch)]
        seen, touch, gap, weight = (torch.stack(x) for x in zip(*crops, strict=True))
        logits, apart = net(features(seen))
        loss = F.binary_cross_entropy_with_logits(logits, touch.float(), weight) * 10
        asked = touch & (weight > 0)
        if asked.any():
            loss = loss + (apart - gap)[asked].abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        told = 0.98 * told + 0.02 * float(loss.detach())
        if step % 200 == 199:
            log.info("step %d: loss %.4f", step + 1, told)
    return net.eval().requires_grad_(False)


def write_net(net: ContactNet, path: Path, config: ContactConfig, clips: int) -> None:
    """Write the weights as float16, whole or not at all."""
    write_container(path, {k: v.half() if v.dim() > 1 else v for k, v in net.state_dict().items()},
                    {"contact_width": str(net.width), "seed": str(config.seed), "steps": str(config.steps), "clips": str(clips)})
