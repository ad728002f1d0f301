"""How long calls take on a device: back to back as eager code makes them, and replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from lazyneuron.core.timing import interleaved

Mode = Literal["eager", "captured"]
MODES: tuple[Mode, ...] = ("eager", "captured")
Call = Callable[[], object]
Timer = Callable[[Sequence[Call], Mode], list[float]]


@torch.no_grad()
def least_us(calls: Sequence[Call], mode: Mode, *, rounds: int = 7) -> list[float]:
    """Microseconds a call of each, the least of interleaved rounds of a few calls in a row.

    Eager times include what the host does between launches where it is slower than the device; a captured graph has
    only the device's share. Without a GPU, where kernels are interpreted, both are eager.

    Args:
        calls: each writes nothing that another reads.
        mode: how they are called.
        rounds: counted rounds; one before them warms up.
    """
    runs = {str(k): in_a_row(call, mode) for k, call in enumerate(calls)}
    every = {name: lambda _, run=run: run() for name, run in runs.items()}
    times = interleaved(every, [None], budget_s=0.0, least=rounds, most=rounds, warm_up=1)
    return [times[name].least_us / calls_in_a_row() for name in runs]


def calls_in_a_row() -> int:
    """How many calls are timed together: so many that the wait at their end counts little."""
    return 8 if torch.cuda.is_available() else 1


def in_a_row(call: Call, mode: Mode) -> Call:
    """A few calls one after another, as this mode makes them, and a wait until the device has done them."""
    run = _captured(call) if mode == "captured" and torch.cuda.is_available() else _repeated(call)

    def run_and_wait() -> None:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run_and_wait


def _repeated(call: Call) -> Call:
    def run() -> None:
        for _ in range(calls_in_a_row()):
            call()

    return run


def _captured(call: Call) -> Call:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls_in_a_row()):
            call()
    return graph.replay
