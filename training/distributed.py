"""Several processes as one: who takes which rows of a batch or which items of a list, and what they tell each other.

torchrun (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT) starts the processes. Without
those there is one process, and everything here does nothing. Every batch and every draw depends on the seed, the step and the
row of the whole batch, never on the process, so that any number of processes trains on, and makes, the same.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rtinteract.errors import ConfigError, RtInteractError

Job, Result = TypeVar("Job"), TypeVar("Result")

# The others wait while the first process validates, saves and draws.
_PATIENCE = timedelta(hours=2)
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Part(NamedTuple):
    """Part ``index`` of ``count`` of a batch: the parts of all processes, each cut in as many as gradients are gathered over."""

    index: int = 0
    count: int = 1

    def rows(self, total: int) -> slice:
        """The rows of a batch of ``total`` that are this part's; ConfigError where there are fewer rows than parts."""
        if total < self.count:
            raise ConfigError(f"loop.batch: expected at least one sample for each of {self.count} parts (processes times "
                              f"loop.accumulate), got a step of {total}; raise loop.batch, or take fewer parts")
        return slice(total * self.index // self.count, total * (self.index + 1) // self.count)


WHOLE = Part()


@dataclass(frozen=True)
class World:
    """This process among ``size``; ``local`` counts those of its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def chief(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


def world() -> World:
    """This process's place, by the launcher's environment; the first call joins the others. ConfigError if that fails."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return World()
    try:
        rank, size, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE, LOCAL_RANK: expected whole numbers in the environment, got {error}; start with "
                          "torchrun, or unset them") from error
    if size <= 1:
        return World()
    if not dist.is_initialized():
        missing = [name for name in _NEEDED if name not in os.environ]
        if missing:
            raise ConfigError(f"{', '.join(missing)}: expected in the environment beside WORLD_SIZE={size}, got none; start with "
                              "torchrun, or unset RANK and WORLD_SIZE")
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"process {rank} of {size}: cannot join the others ({error}); check MASTER_ADDR, MASTER_PORT and "
                              "that as many processes were started") from error
        atexit.register(leave)
    return World(rank, size, local)


def leave() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device_of(name: str) -> str:
    """The device that "auto" (a GPU if torch sees one) or "cuda" means for this process; any other name as it is."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    here = world()
    if name != "cuda" or here.size == 1:
        return name
    found = torch.cuda.device_count()
    if here.local >= found:
        raise ConfigError(f"device: expected a GPU for each process of this machine, got {found} for process {here.local + 1}; "
                          f"start at most {found} (torchrun --nproc-per-node)")
    torch.cuda.set_device(here.local)
    return f"cuda:{here.local}"


def agreed(values: Sequence[float]) -> list[float]:
    """The sums of the processes' numbers."""
    if world().size == 1:
        return [float(v) for v in values]
    return summed(torch.tensor(values, dtype=torch.float64)).tolist()


def summed(x: torch.Tensor) -> torch.Tensor:
    """The processes' sum of a tensor, in place."""
    if world().size > 1:
        dist.all_reduce(x)
    return x


def from_chief(x: torch.Tensor) -> torch.Tensor:
    """The first process's tensor, in place."""
    if world().size > 1:
        dist.broadcast(x, 0)
    return x


def gathered(items: Sequence) -> list:
    """Every process's items in one list, the first process's first."""
    here = world()
    if here.size == 1:
        return list(items)
    parts: list[Any] = [None] * here.size
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def wait() -> None:
    """Go on once all processes are here."""
    if world().size > 1:
        dist.barrier()


def told(value: Result) -> Result:
    """The first process's value, at every process."""
    return gathered([value] if world().chief else [])[0]


# Depth of `alone` blocks.
_apart = [0]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, `shared` leaves every job to the process that asks: the work around it is what is shared."""
    _apart[0] += 1
    try:
        yield
    finally:
        _apart[0] -= 1


def taken(jobs: Sequence[Job]) -> Sequence[Job]:
    """Those of the jobs that `shared` lets this process do."""
    here = world()
    return jobs if here.size == 1 or _apart[0] else jobs[here.rank::here.size]


def shared(jobs: Sequence[Job], do: Callable[[Job], Result]) -> list[Result]:
    """What ``do`` makes of each job, in their order, at every process; the processes take the jobs by turns.

    Results travel pickled. A process's RtInteractError is raised at every one of them, so that all go on alike; any other
    exception ends that process, and the others with an error when they next hear nothing from it.
    """
    here = world()
    if here.size == 1 or _apart[0]:
        return [do(job) for job in jobs]
    made: list[Result] = []
    failure: tuple[type[RtInteractError], str] | None = None
    try:
        for job in taken(jobs):
            made.append(do(job))
    except RtInteractError as error:
        # Not every exception can be pickled: its nearest public class can.
        failure = next(c for c in type(error).__mro__ if c.__module__ == RtInteractError.__module__), str(error)
    parts = gathered([(made, failure)])
    for _, failed in parts:
        if failed is not None:
            raise failed[0](failed[1])
    return [parts[i % here.size][0][i // here.size] for i in range(len(jobs))]


def data_parallel(module: nn.Module, sometimes_unused: bool) -> nn.Module:
    """The module with its gradients averaged over the processes. Buffers are not exchanged in its forward passes: what they
    hold is computed alike, or from all processes' samples."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    # torch 2.13 renames the option, and older versions do not know the new name.
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(module, gradient_as_bucket_view=True, find_unused_parameters=sometimes_unused,
                                   **{buffers: False})


def own(count: int) -> range:
    """The indices of ``count`` items that are this process's, evenly spread; fewer items than processes leave some without."""
    here = world()
    return range(count * here.rank // here.size, count * (here.rank + 1) // here.size)
