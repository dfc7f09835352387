"""The processes of a run: how they join, wait for each other and agree. All processes call these functions together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from ivcp.distributed.rank import is_owner, world_size
from ivcp.distributed.sharding import check_distribution
from ivcp.settings import TrainConfig

T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=365)
"""For work that only the owner rank does: preparing the clips of a large data set takes hours."""


class OtherProcessError(RuntimeError):
    """Another process of the run ended; its own log says why."""


@contextmanager
def joined_processes(train: TrainConfig) -> Iterator[None]:
    """Connects the processes that a launcher started; after the block they are separate again.

    Nothing happens in a single process, except with DeepSpeed, which needs a group of one as well. After an error the
    group is left as it is: the launcher ends the other processes.

    Raises:
        ConfigError: `deepspeed` or `fsdp` cannot be used.
    """
    check_distribution(train)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # accelerate imports DeepSpeed in every run, which would warn
    if distributed.is_initialized() or (world_size() == 1 and not train.deepspeed):
        yield
        return
    _connect(timedelta(seconds=train.ddp_timeout))
    if train.deepspeed:
        _prepare_deepspeed()
    linear = torch.nn.functional.linear
    yield
    torch.nn.functional.linear = linear  # ZeRO-3 leaves one of its own there, which rounds twice where a bias is added
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # models that are loaded from here on are replicated
    distributed.barrier()
    distributed.destroy_process_group()


def on_owner(function: Callable[[], T]) -> T:
    """Runs `function` on the owner rank; the others wait, however long, and get its (picklable) result.

    Raises:
        OtherProcessError: in the others, where the owner failed.
    """
    if world_size() == 1:
        return function()
    group = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    answer = [function() if is_owner() else None]
    try:
        distributed.broadcast_object_list(answer, src=0, group=group)
    except RuntimeError as error:
        raise OtherProcessError("process 0 ended before this one could start: its log says why") from error
    distributed.destroy_process_group(group)
    result: T = answer[0]  # type: ignore[assignment]
    return result


def gather_values(value: T) -> list[T]:
    """The (picklable) values of all processes, by rank; they wait for each other, however long.

    Raises:
        OtherProcessError: another process ended.
    """
    if world_size() == 1:
        return [value]
    group = distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    values: list[Any] = [None] * world_size()
    try:
        distributed.all_gather_object(values, value, group=group)
    except RuntimeError as error:
        raise OtherProcessError("another process ended before all were here: its log says why") from error
    distributed.destroy_process_group(group)
    return values


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag))
    distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
    return bool(flags)


def all_processes(flag: bool) -> bool:
    """Whether `flag` is set in all processes."""
    return not any_process(not flag)


def summed_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor of all processes, without gradient; a new tensor."""
    summed = values.detach().clone()
    if world_size() > 1:
        distributed.all_reduce(summed)
    return summed


def wait_for_all() -> None:
    """Returns when all processes are here."""
    any_process(False)  # a barrier would use the GPUs


def _connect(timeout: timedelta) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo beside NCCL: offloaded FSDP weights and the owner rank's answers lie on the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)


def _prepare_deepspeed() -> None:
    """Tells DeepSpeed of the processes, else ZeRO-3 loads the model as if there were one; nothing is compiled.

    The shared-memory operator for CPUs is built at the first start, and a start that is killed in that minute leaves
    a lock on which every later start waits forever.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
