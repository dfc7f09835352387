"""The loop over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from ivcp.data.prepared.sample import Sample
from ivcp.inference.compute import Compute
from ivcp.socket_paths import make_socket_paths_fit
from ivcp.tracking.progress import with_progress

OutputT = TypeVar("OutputT")


class Samples(Protocol):
    """A map-style data set of samples, such as a list."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, position: int, /) -> Sample:
        """One sample."""


def run_batches(
    samples: Samples,
    forward: Callable[[Mapping[str, Any]], OutputT],
    *,
    collate: Callable[[Sequence[Sample]], Mapping[str, Any]],
    batches: Iterable[Sequence[int]],
    compute: Compute,
    num_workers: int = 0,
    what: str | None = None,
) -> Iterator[OutputT]:
    """What `forward` makes of each batch, in order; no gradients are kept, and the random state stays as it was.

    Args:
        samples: what the batches are taken from.
        forward: called with what `collate` made, on the device, in the precision of `compute`.
        collate: makes a batch of samples, in a worker process where there are some.
        batches: positions of the samples of each batch.
        compute: device and precision.
        num_workers: processes that read and collate; 0 does it in this one.
        what: what progress calls the batches; null shows none.
    """
    listed = [list(batch) for batch in batches]
    make_socket_paths_fit()
    with torch.random.fork_rng(devices=[]):  # a loader draws its workers' seed
        loader: Iterable[Any] = iter(
            DataLoader(
                samples,  # type: ignore[arg-type]
                batch_sampler=listed,
                collate_fn=collate,
                num_workers=num_workers,
            )
        )
    for batch in with_progress(loader, total=len(listed), what=what) if what else loader:
        with torch.no_grad(), compute.autocast():
            output = forward(compute.to_device(batch))
        yield output


def batches_of(count: int, batch_size: int) -> list[range]:
    """The positions of `count` samples in order, `batch_size` at a time."""
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
