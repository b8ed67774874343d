"""The engine's planner: what the session core's worker thread asks of Python. Poses are float32 rows of 91 numbers, the root [3]
in metres and 22 local rotations wxyz, all of the average body (`SMPL22`)."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rtinteract.model import load
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.skeleton import SMPL22
from rtinteract.stream import Plan, ReactionStream, hop_together

log = logging.getLogger(__name__)
# A hop gains little from more threads than these.
_MOST_THREADS = 4

# (session, the actor's newest poses [hop, 91], where the reactor was placed [1, 91] or None, whether a scene begins, a new prompt
# or None, whether the reactor's hands are brought to where the two are about to touch)
Request = tuple[int, np.ndarray, np.ndarray | None, bool, str | None, bool]


def motion_of(rows: np.ndarray) -> Motion:
    """Rows [T, 91] as a Motion; the rows are copied."""
    rows = np.array(rows, dtype=np.float64)
    return Motion.from_rotations(SMPL22, rows[:, :3], rows[:, 3:].reshape(len(rows), 22, 4), MODEL_FPS)


def threads_beside_an_engine() -> int:
    """CPU threads of a hop while a game runs: half of the processors, one at least. A thread that shares its processor with the
    renderer holds up all the others at every operation."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, max(1, processors // 2))


@dataclass
class _Session:
    stream: ReactionStream
    prompt: str = ""
    # A hop that failed may have left the windows half moved on: the next one begins anew.
    broken: bool = False


class Host:
    """One loaded model and the streams of its sessions. Used by one thread.

    Without ``path`` and ``data`` (a file's bytes) the shipped model; ``threads`` 0 takes `threads_beside_an_engine`,
    ``vram_limit`` 0 sets none.
    """

    def __init__(self, path: str = "", data: bytes = b"", device: str = "auto", precision: str = "auto", threads: int = 0,
                 vram_limit: int = 0, prompt_bank: str = ""):
        torch.set_num_threads(threads or threads_beside_an_engine())
        if data:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.safetensors"
                file.write_bytes(data)
                self.model = load(file, device, precision, bank=prompt_bank or None)
        else:
            self.model = load(path or None, device, precision, bank=prompt_bank or None)
        if vram_limit and self.model.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.model.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, vram_limit / total), self.model.device)
        self.body = torch.tensor(SMPL22.offsets, dtype=torch.float32, device=self.model.device)
        self.sessions: dict[int, _Session] = {}

    def open(self, session: int, seed: int = 0, window: int = 0, horizon: int = 0, hop: int = 0, iterations: int = 0,
             prompt: str = "", contact: bool = False) -> int:
        """Begin a session and hop once through a whole window, so that its first true hops are as fast as the later ones; 0 takes
        the default. Frames a hop. ConfigError on settings that do not fit."""
        asked = {"window": window, "horizon": horizon, "hop": hop, "iterations": iterations}
        settings = {name: value for name, value in asked.items() if value}
        stream = self.model.stream(prompt.strip() or None, seed=seed % 2**31, contact=contact, **settings)
        stream.stand(None, self.body)
        stream.warm_up()
        self.sessions[session] = _Session(stream, prompt.strip())
        return stream.config.hop

    def close(self, session: int) -> None:
        """End a session; unknown ones are none."""
        self.sessions.pop(session, None)

    def hop(self, requests: list[Request]) -> list[np.ndarray | str]:
        """A plan [horizon, 91] for each request, or why there is none. Sessions that are alike are planned as one batch."""
        answers: list[np.ndarray | str] = [""] * len(requests)
        ready: list[tuple[int, _Session, Motion]] = []
        for i, (number, actor, placed, fresh, prompt, contact) in enumerate(requests):
            session = self.sessions[number]
            try:
                self._stage(session, placed, fresh, prompt, contact)
                ready.append((i, session, motion_of(actor)))
            except Exception as error:
                log.exception("session %d: cannot be staged", number)
                session.broken, answers[i] = True, str(error)
        for i, plan in zip([i for i, _, _ in ready], self._plans([r[1:] for r in ready]), strict=True):
            answers[i] = plan if isinstance(plan, str) else plan.rows()
        return answers

    def save_prompts(self, texts: list[str], path: str) -> None:
        """Write the conditions of texts as a prompt bank (`rtinteract.bank`)."""
        self.model.export_prompts(path, texts)

    def _stage(self, session: _Session, placed: np.ndarray | None, fresh: bool, prompt: str | None, contact: bool) -> None:
        stream = session.stream
        if contact != stream.config.contact:
            stream.config = replace(stream.config, contact=contact)
        if prompt is not None and prompt.strip() != session.prompt:
            stream.tell(self.model.prompts.encode([prompt]).to(self.model.device) if prompt.strip() else None)
            session.prompt = prompt.strip()
        if fresh or session.broken:
            stream.stand(None if placed is None else motion_of(placed), self.body)
            session.broken = False

    def _plans(self, sessions: list[tuple[_Session, Motion]]) -> list[Plan | str]:
        if not sessions:
            return []
        try:
            return hop_together([s.stream for s, _ in sessions], [motion for _, motion in sessions])
        except Exception as error:
            log.exception("a hop of %d sessions failed", len(sessions))
            for session, _ in sessions:
                session.broken = True
            return [str(error) or type(error).__name__] * len(sessions)
