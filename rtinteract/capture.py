"""A function of tensors as one CUDA graph: hundreds of launches become one, and the host does nothing between them.

A graph belongs to one key (shapes and whatever else is constant in it). Its inputs are copied into buffers of their own,
its outputs are cloned, so that nobody holds memory that the next replay writes. All graphs of a `Graphs` share one memory
pool: they replay one after the other.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Function = Callable[..., Sequence[Tensor]]
# Runs before capture, in which libraries choose their kernels and take their workspaces.
_WARM_UP = 3
# Graphs that are kept; the one that was not asked for longest goes first.
_MOST = 64


def asked_for(device: torch.device) -> bool:
    """Whether steps on a device are captured: on a GPU where RTI_CUDA_GRAPH=1 asks for it. It is not the default because capture
    has not yet run on a GPU."""
    return device.type == "cuda" and os.environ.get("RTI_CUDA_GRAPH") == "1"


def cuda_capture(run: Callable[[], Sequence[Tensor]], pool) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Capture ``run`` after its warm-up, beside the current stream: (replay, outputs). RuntimeError where it cannot be."""
    if torch.cuda.get_allocator_backend() == "cudaMallocAsync":
        raise RuntimeError("PYTORCH_CUDA_ALLOC_CONF asks for cudaMallocAsync, whose memory moves under a graph")
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = run()
    return graph.replay, outputs


class GraphedStep:
    """One captured function of tensors of fixed shapes. It replays on the current stream, a host's included."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], pool=None, capture=cuda_capture):
        self._inputs = tuple(x.clone() for x in inputs)
        self._replay, self._outputs = capture(lambda: function(*self._inputs), pool)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs for inputs of the captured shapes."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            if mine.shape != given.shape or mine.dtype != given.dtype:
                raise ValueError(f"graph: expected {mine.dtype} {tuple(mine.shape)}, got {given.dtype} {tuple(given.shape)}")
            mine.copy_(given)
        self._replay()
        return tuple(x.clone() for x in self._outputs)


class Graphs:
    """Captured steps by key, made when a key is first asked for. Safe from several threads, which then take turns."""

    def __init__(self, capture=cuda_capture, most: int = _MOST):
        self._capture, self._most = capture, most
        self._steps: OrderedDict[Hashable, GraphedStep | None] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = None

    def __len__(self):
        return sum(step is not None for step in self._steps.values())

    @torch.inference_mode()
    def run(self, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """``function(*inputs)`` through the graph of ``key``; eagerly, and said once, where that could not be captured (out of
        memory, an operation that synchronises)."""
        with self._lock:
            if key not in self._steps:
                self._steps[key] = self._make(key, function, inputs)
                while len(self._steps) > self._most:
                    self._steps.popitem(last=False)
            self._steps.move_to_end(key)
            step = self._steps[key]
            return function(*inputs) if step is None else step(*inputs)

    def _make(self, key, function: Function, inputs: Sequence[Tensor]) -> GraphedStep | None:
        try:
            if self._pool is None and self._capture is cuda_capture:
                self._pool = torch.cuda.graph_pool_handle()
            return GraphedStep(function, inputs, self._pool, self._capture)
        except RuntimeError as error:
            log.warning("no CUDA graph for %s, it runs step by step: %s", key, error)
            return None
