"""Batches of masked tokens from crops of pairs: what one step of the transformer's training sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from rtinteract.kernels.remask import sample_seeds
from rtinteract.training import masks
from rtinteract.training.data import Augmentation, crops, lateness, pick_whole
from rtinteract.training.distributed import WHOLE, Part
from rtinteract.training.self_history import Streams, Tools, own_past
from rtinteract.training.shares import RANDOM, STREAMING
from rtinteract.training.trainer import generator, step_seed

from rtinteract import rotation as R
from rtinteract.features.canonical import Frame, frame_of, from_frame, to_frame
from rtinteract.placement import describe_pair, relative

SHORT = 32
YOUNG = 36
# Batches between two that see the same crops, where crops serve several steps.
APART = 16


class People(NamedTuple):
    """Crops in their canonical frames, the frames' owner first: ``positions`` [B, 2, T, 22, 3], ``rotations`` [B, 2, T, J, 4]."""

    positions: torch.Tensor
    rotations: torch.Tensor


class Codes(NamedTuple):
    """Codes of whole crops [B, 2, S, N], and of streaming samples' pasts [H, 2, S, now], each encoded from a clip that ends now
    (None where nobody streams)."""

    whole: torch.Tensor
    past: torch.Tensor | None


class Crop(NamedTuple):
    """What of a batch does not depend on masks: the ``rows`` that are made of a batch with ``modes`` [B], its columns, the first
    column that streaming samples hide and, where they differ, the samples' own columns ``lengths`` [B]; of the rows their clips,
    whether mirrored, the people with their bodies' ``offsets`` [B, 2, 22, 3], the frames (None: one for both) and codes."""

    side: int
    rows: slice
    modes: torch.Tensor
    columns: int
    now: int
    lengths: torch.Tensor | None
    clip: torch.Tensor
    mirrored: torch.Tensor
    people: People
    offsets: torch.Tensor
    frame: Frame | None
    codes: Codes


class Draws(NamedTuple):
    """What was drawn for each sample: which tokens are hidden [B, 2, S, N] and how, wrong codes of a stream's past, the columns
    whose poses are known [B, 2, N], the sample's columns [B], and (for all alike) the first hidden column of streaming ones."""

    mask: torch.Tensor
    corruption: masks.Corruption
    noise: torch.Tensor
    wrong: torch.Tensor
    known: torch.Tensor
    lengths: torch.Tensor
    now: int

    def of(self, rows) -> Draws:
        """Those of some samples."""
        return Draws(self.mask[rows], self.corruption.of(rows), self.noise[rows], self.wrong[rows], self.known[rows],
                     self.lengths[rows], self.now)


class History(NamedTuple):
    """Streaming samples whose past the model is to make itself: their ``rows`` [H] of the batch, draws, and clips."""

    rows: torch.Tensor
    draws: Draws
    streams: Streams


class Tokens(NamedTuple):
    """A batch: input ids and labels [B, 2, S, N], tokens that each sample's schedule counts [B], text indices [B] (-1: no text),
    modes [B]; what the transformer is told of where they stand [B, 2, N, WIDTH]; the second frame seen from the first [B, 3];
    the samples' columns [B] where they differ; and who is to get a past of the model's own."""

    inputs: torch.Tensor
    labels: torch.Tensor
    schedule: torch.Tensor
    texts: torch.Tensor
    modes: torch.Tensor
    placement: torch.Tensor | None
    seen: torch.Tensor
    lengths: torch.Tensor | None = None
    history: History | None = None


class TokenBatches:
    """The part of the transformer's stage that makes batches. It uses the stage's config, device, bfloat16, codec, normalizer,
    representation, pools and phrasings, and keeps in ``_echoed`` the crops that further steps will see."""

    _echoed: dict[tuple[int, Part], Crop]

    def _frames(self, pool, g: torch.Generator) -> int:
        config = self.config
        if config.whole:
            return config.most
        low, high = config.shortest, config.longest
        kind = float(torch.rand((), generator=g))
        if kind < config.long:
            low, high = config.longest, config.most
        elif kind < config.long + config.young:
            high = max(low, min(high, YOUNG))
        frames = int(torch.randint(low // 4, high // 4 + 1, (), generator=g)) * 4
        return pool.longest_crop(frames, config.augmentation.warp[1])

    @torch.no_grad()
    def codes(self, positions: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Codes [B, 2, S, N] (on the CPU) of crops [B, 2, T, 22, 3] and [B, 2, T, 22, 4] in their canonical frames."""
        image = self.representation.encode(positions.flatten(0, 1).to(self.device), rotations.flatten(0, 1).to(self.device))
        # torch's CPU convolution in bfloat16 answers NaN where a dilated kernel is far wider than the image (seen at 4 frames).
        fast = self.bfloat16 and image.shape[1] >= SHORT
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=fast):
            codes = self.codec.encode(self.normalizer(image))
        return codes.cpu().unflatten(0, (-1, 2))

    def _codes_of(self, positions: torch.Tensor, rotations: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """`codes` of crops that hold so many columns [B]; each ends where it ends, what stands past that is of no meaning."""
        if lengths is None:
            return self.codes(positions, rotations)
        columns = (positions.shape[2] - self.representation.frames_lost) // self.codec.config.frames_per_column
        found = torch.zeros(len(positions), 2, self.codec.config.parts, columns, dtype=torch.int64)
        for length in lengths.unique().tolist():
            frames = length * self.codec.config.frames_per_column + self.representation.frames_lost
            rows = lengths == length
            found[rows, ..., :length] = self.codes(positions[rows][:, :, :frames], rotations[rows][:, :, :frames])
        return found

    def _texts(self, side: int, clip, mirrored, modes, g: torch.Generator, rows: slice = slice(None)) -> torch.Tensor:
        """Text indices of the ``rows`` of a batch with modes [B], -1 where the text is dropped; clips and sides are the rows'."""
        pick = torch.rand(len(modes), generator=g)[rows].tolist()
        found = []
        for c, m, p in zip(clip.tolist(), mirrored.tolist(), pick, strict=True):
            texts = self.phrasings[side][c][int(m)]
            found.append(texts[int(p * len(texts))] if texts else -1)
        s = self.config.shares
        dropped = torch.where(modes == RANDOM, s.text_dropped, s.reaction_text_dropped)
        return torch.tensor(found).masked_fill((torch.rand(len(modes), generator=g) < dropped)[rows], -1)

    def _crops(self, side: int, g: torch.Generator, a: Augmentation, frames: int, batch: int, modes: torch.Tensor,
               part: Part) -> Crop:
        """Crops of training (side 0) or held-out (side 1) clips for a batch with the given modes [B], or a part of it."""
        s, stride, lost = self.config.shares, self.codec.config.frames_per_column, self.representation.frames_lost
        actor = (torch.rand(batch, generator=g) >= s.starter).long()
        picked, lengths = None, None
        if self.config.whole:
            picked = pick_whole(self.pools[side], batch, self.config.shortest, frames, g)
            lengths = (picked.frames - lost) // stride
            frames = int(lengths.max()) * stride
        columns = frames // stride
        now = s.now(columns, g)
        anchor = torch.where(modes == STREAMING, now * stride - 1, 0)
        late = lateness((modes == STREAMING) & (actor == 0), frames + lost, now * stride, a, g)
        rows = part.rows(batch)
        c = crops(self.pools[side], batch, frames + lost, a, g, actor=actor, anchor=anchor, own=self.config.own_frames, late=late,
                  rows=rows, picked=picked)
        # The owner of the canonical frame comes first, as the actor does when the model reacts.
        order = torch.stack([actor, 1 - actor], 1)[rows]
        each = torch.arange(len(order))[:, None]
        people = People(c.positions[each, order], c.rotations[each, order])
        frame = Frame(c.frame.yaw[each, order], c.frame.origin[each, order]) if self.config.own_frames else None
        streaming = modes[rows] == STREAMING
        codes = self._encoded(people, None if lengths is None else lengths[rows], streaming, now)
        return Crop(side, rows, modes, columns, now, lengths, c.clip, c.mirrored, people, c.offsets[each, order], frame, codes)

    def tokens(self, side: int, g: torch.Generator, a: Augmentation, frames: int, batch: int, modes: torch.Tensor,
               part: Part = WHOLE, history: int | None = None) -> Tokens:
        """Crops of training (side 0) or held-out (side 1) clips as a batch of masked tokens with the given modes [B], or a part
        of it. With ``history`` the streaming samples are to get a past of the model's own, drawn by that seed."""
        return self._masked(self._crops(side, g, a, frames, batch, modes, part), g, history)

    def _masked(self, crop: Crop, g: torch.Generator, history: int | None) -> Tokens:
        """Crops as a batch of masked tokens, as `tokens` has it."""
        s, rows, modes, columns, now = self.config.shares, crop.rows, crop.modes, crop.columns, crop.now
        draws, region = self._draws(modes, columns, now, crop.lengths, g, ended=crop.side == 0)
        schedule = region if self.config.unroll_over == "hidden" else masks.inside(draws.lengths, *region.shape[2:])
        texts = self._texts(crop.side, crop.clip, crop.mirrored, modes, g, rows)
        streaming = modes[rows] == STREAMING
        mine = draws.of(rows)
        inputs, labels, placement, seen = self._hidden(crop.codes, crop.people, crop.frame, mine, streaming)
        own = None
        if history is not None and now > 1 and bool(streaming.any()):
            world = from_frame(crop.frame, *crop.people)
            # As many columns as a window's horizon may hold, and at least one that is known.
            made = min(now - 1, 1 + int(torch.randint(s.horizon, (), generator=generator(history, 0, "columns"))))
            streams = Streams(*(x[streaming] for x in (*world, crop.offsets)), now, now - made,
                              sample_seeds(history, len(modes))[rows][streaming])
            own = History(streaming.nonzero()[:, 0], mine.of(streaming), streams)
        ended = bool((draws.lengths < columns).any())
        return Tokens(inputs, labels, schedule.flatten(1).sum(1)[rows], texts, modes[rows], placement, seen,
                      mine.lengths if ended else None, own)

    def _draws(self, modes: torch.Tensor, columns: int, now: int, lengths: torch.Tensor | None, g: torch.Generator,
               ended: bool) -> tuple[Draws, torch.Tensor]:
        """A whole batch's draws, and the region [B, 2, S, N] that its samples could hide."""
        s, codec, batch = self.config.shares, self.codec.config, len(modes)
        ends = s.ends(modes, columns, now, g) if ended else torch.full((batch,), columns)
        lengths = ends if lengths is None else lengths.minimum(ends)
        region, known = s.region(modes, codec.parts, columns, now, g, lengths)
        share = masks.cosine_share(torch.rand(batch, generator=g))
        whole = (torch.rand(batch, generator=g) < s.whole) & (modes != RANDOM)
        mask = masks.random_subset(region, torch.where(whole, 1.0, share), g)
        corruption = masks.Corruption.drawn(mask.shape, codec.codes, g)
        noise = torch.rand(mask.shape, generator=g) < s.history_noise
        wrong = torch.randint(codec.codes, mask.shape, generator=g)
        return Draws(mask, corruption, noise, wrong, known, lengths, now), region

    def _encoded(self, people: People, lengths: torch.Tensor | None, streaming: torch.Tensor, now: int) -> Codes:
        """Codes of crops that hold so many columns [B] (None: all alike)."""
        whole = self._codes_of(*people, lengths)
        if not bool(streaming.any()):
            return Codes(whole, None)
        frames = now * self.codec.config.frames_per_column + self.representation.frames_lost
        return Codes(whole, self.codes(*(x[streaming][:, :, :frames] for x in people)))

    def _hidden(self, codes: Codes, people: People, frame: Frame | None, draws: Draws, streaming: torch.Tensor):
        """Inputs, labels, placement and seen (as in `Tokens`) of crops in their canonical frames."""
        stride, whole = self.codec.config.frames_per_column, codes.whole
        inputs = draws.corruption.apply(whole, draws.mask, self.codec.config.codes)
        inputs = self._with_history(inputs, codes.past, streaming, draws)
        placement, seen = None, torch.zeros(len(whole), 3)
        if frame is not None:
            placement, seen = placed(frame, people.positions[:, :, stride - 1::stride][:, :, :whole.shape[-1]], draws.known)
        return inputs, masks.labels_of(whole, draws.mask), placement, seen

    @staticmethod
    def _with_history(inputs, past: torch.Tensor | None, streaming, draws: Draws) -> torch.Tensor:
        """The past of streaming samples as a stream sees it: encoded from a clip that ends now, with a few wrong tokens."""
        if past is None:
            return inputs
        now = draws.now
        past = torch.where(draws.noise[streaming][..., :now], draws.wrong[streaming][..., :now], past)
        rows = inputs[streaming]
        rows[..., :now] = torch.where(draws.mask[streaming][..., :now], rows[..., :now], past)
        inputs = inputs.clone()
        inputs[streaming] = rows
        return inputs

    @torch.no_grad()
    def with_own_past(self, batch: Tokens, transformer, condition: torch.Tensor) -> Tokens:
        """The batch with a past of the model's own where it asks for one; ``condition`` [B, C] are the batch's."""
        history = batch.history
        if history is None:
            return batch
        rows, draws, stride = history.rows, history.draws, self.codec.config.frames_per_column

        def decode(codes, offsets, anchor):
            image = self.normalizer.inverse(self.codec.decode(codes).float())
            return (x.cpu() for x in self.representation.decode(image.cpu(), offsets, anchor))
        training = transformer.training
        transformer.eval()
        try:
            streams = own_past(transformer, condition[rows.to(condition.device)], history.streams,
                               Tools(self.codes, decode, placed, stride))
        finally:
            transformer.train(training)
        frame = frame_of(streams.positions[:, :, streams.now * stride - 1])
        people = People(*to_frame(frame, streams.positions, streams.rotations))
        streaming = torch.ones(len(rows), dtype=torch.bool)
        found = self._hidden(self._encoded(people, None, streaming, streams.now), people, frame, draws, streaming)
        merged = []
        for old, new in zip((batch.inputs, batch.labels, batch.placement, batch.seen), found, strict=True):
            old = old.clone()
            old[rows] = new
            merged.append(old)
        inputs, labels, placement, seen = merged
        return batch._replace(inputs=inputs, labels=labels, placement=placement, seen=seen, history=None)

    def batch(self, step: int, part: Part = WHOLE) -> Tokens:
        """The tokens of a step, or a part of them."""
        config, seed = self.config, self.config.loop.seed
        own = float(torch.rand((), generator=generator(seed, step, "history"))) < config.shares.self_history
        history = step_seed(seed, step, "own history") if own else None
        if config.echo == 1:
            g = generator(seed, step, "transformer")
            return self._masked(self._drawn(g, part), g, history)
        block, place = step // (config.echo * APART), step % APART
        key = block * APART + place, part
        if key not in self._echoed:
            self._echoed = {k: crop for k, crop in self._echoed.items() if k[0] // APART == block}
            self._echoed[key] = self._drawn(generator(seed, key[0], "transformer"), part)
        return self._masked(self._echoed[key], generator(seed, step, "echo"), history)

    def _drawn(self, g: torch.Generator, part: Part) -> Crop:
        """Training crops of a size and of modes that are drawn too."""
        config = self.config
        frames = self._frames(self.pools[0], g)
        batch = config.loop.batch if config.whole else max(1, config.loop.batch * 64 // frames)
        return self._crops(0, g, config.augmentation, frames, batch, config.shares.modes(batch, g), part)


def placed(frame: Frame, ends: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What tokens are told of where two people stand, [B, 2, N, WIDTH], and the second frame seen from the first [B, 3].

    ``frame`` [B, 2] are their canonical frames, ``ends`` [B, 2, N, 22, 3] the last pose of each column, each person's in its
    own frame, ``known`` [B, 2, N] the columns of which they are told.
    """
    step = frame_of(ends)
    yaw, origin = frame.yaw, frame.origin
    place = origin[..., None, :] + R.rotate(R.yaw(yaw)[..., None, :], step.origin)
    told = describe_pair(yaw, origin, yaw[..., None] + step.yaw, place, known)
    return told, relative(yaw, origin, yaw.flip(1), origin.flip(1))[:, 0]
