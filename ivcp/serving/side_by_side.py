"""Several videos of one request at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def each_of(
    items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[ResultT]], *, at_once: int
) -> list[ResultT]:
    """What `work` makes of each item, in their order; the first failure ends the rest, and is raised.

    anyio's task group and not asyncio's, whose failure leaves the task counted as cancelled up to Python 3.12: the
    limits of time around it then take their own end for somebody else's, and the connection is lost.
    """
    results: dict[int, ResultT] = {}
    room = anyio.Semaphore(at_once)

    async def one(place: int, item: ItemT) -> None:
        async with room:
            results[place] = await work(item)

    try:
        async with anyio.create_task_group() as tasks:
            for place, item in enumerate(items):
                tasks.start_soon(one, place, item)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return [results[place] for place in range(len(items))]
