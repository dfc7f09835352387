"""Checks of nodes and processes before a distributed training touches any data. Each says what is wrong and what to do;
without them torch would wait for half an hour, or end with a bus error."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from ivcp.distributed.rank import world_size
from ivcp.records import PreparedIndex
from ivcp.settings import RunConfig

GPUS_VARIABLE = "IVCP_GPUS_PER_NODE"
"""GPUs that a node must show; unset is one per process where torch was built for GPUs, else none."""
SHM = Path("/dev/shm")
_SHM_OF_PROCESS = 64 * 2**20
"""NCCL's buffers between the processes of a node, and torch's own files."""
_PIXEL_GROWTH, _PREFETCHED_BATCHES = 4, 3
"""uint8 frames become float32; a data loader's worker holds two finished batches and the one it makes."""


class PreflightError(RuntimeError):
    """A node that cannot train as asked: starting again changes nothing."""


class MissingPeersError(RuntimeError):
    """Processes or nodes that did not come, or do not hear each other: starting again may help."""


@dataclass(frozen=True)
class NodeNeeds:
    """What a run needs of each node."""

    processes: int
    gpus: int
    shm_bytes: int
    disk_bytes: int

    @classmethod
    def of(cls, config: RunConfig, index: PreparedIndex) -> NodeNeeds:
        """Those of a run, from its settings and the sizes of its clips."""
        from ivcp.training.checkpoints.size import checkpoint_bytes, checkpoints_on_disk  # loads all of training

        processes = config.launch.train_processes_per_node
        given = os.environ.get(GPUS_VARIABLE)
        clip = sum(shard.num_bytes for shard in index.shards) / max(1, sum(shard.num_clips for shard in index.shards))
        batch = clip * _PIXEL_GROWTH * config.train.per_device_train_batch_size
        workers = config.train.dataloader_num_workers * _PREFETCHED_BATCHES * batch
        return cls(
            processes=processes,
            gpus=int(given) if given is not None else processes if torch.version.cuda else 0,
            shm_bytes=int(processes * (workers + _SHM_OF_PROCESS)) if processes > 1 or workers else 0,
            disk_bytes=checkpoint_bytes(config) * checkpoints_on_disk(config, index),
        )


def check_node(needs: NodeNeeds, folder: Path, *, shm: Path = SHM, gpus: int | None = None) -> None:
    """Checks this node before its processes start; `folder` is where checkpoints are written.

    Raises:
        PreflightError: names everything that is missing.
    """
    problems = [
        check_gpus(needs.gpus, torch.cuda.device_count() if gpus is None else gpus),
        check_shm(needs.shm_bytes, shm),
        check_disk(needs.disk_bytes, folder),
    ]
    if found := [problem for problem in problems if problem]:
        raise PreflightError(f"node {socket.gethostname()} cannot train: " + "; ".join(found))


def check_gpus(expected: int, visible: int) -> str | None:
    """What is wrong with the GPUs of this node; null if nothing is."""
    if visible >= expected:
        return None
    return (
        f"{visible} of {expected} GPUs are visible: let the TrainingRuntime's container ask for nvidia.com/gpu on "
        f"nodes that have them, or set train_processes_per_node; on CPUs set {GPUS_VARIABLE}=0"
    )


def check_shm(needed_bytes: int, folder: Path = SHM) -> str | None:
    """What is wrong with the memory that processes share; null if nothing is."""
    size = shutil.disk_usage(folder)
    if size.total >= needed_bytes:
        return None
    return (
        f"{folder} has {size.total / 2**20:.0f} MiB, {needed_bytes / 2**20:.0f} MiB are needed: mount an emptyDir with "
        "medium: Memory and that sizeLimit there, or lower dataloader_num_workers"
    )


def check_disk(needed_bytes: int, folder: Path) -> str | None:
    """What is wrong with the disk that checkpoints are written to; null if nothing is."""
    free = shutil.disk_usage(folder).free
    if free >= needed_bytes:
        return None
    return (
        f"{free / 1e9:.3g} GB are free in {folder}, checkpoints need {needed_bytes / 1e9:.3g} GB: set save_total_limit "
        "or save_only_model, save less often, or give the volume more room"
    )


def check_world(config: RunConfig, started: int) -> None:
    """Checks that as many processes were started as the settings ask for.

    Raises:
        PreflightError: they are not.
    """
    asked = config.launch
    if started != asked.num_processes:
        raise PreflightError(
            f"{started} processes were started, {asked.train_nodes} nodes × {asked.train_processes_per_node} processes "
            "were asked for: a TrainJob's numNodes and numProcPerNode, or torchrun's --nnodes and --nproc-per-node, "
            "must be train_nodes and train_processes_per_node"
        )


def meet_nodes(address: str, port: int, *, number: int, count: int, seconds: float) -> None:
    """Waits until all nodes are here; the first one listens on `port` for the others.

    Raises:
        MissingPeersError: names those that did not come.
    """
    deadline = time.monotonic() + seconds
    while True:
        patience = timedelta(seconds=min(10.0, max(1.0, deadline - time.monotonic())))
        try:
            store = TCPStore(address, port, is_master=number == 0, wait_for_workers=False, timeout=patience)
            break
        except (RuntimeError, ValueError) as error:  # its name is not known yet, or nobody listens yet
            if time.monotonic() > deadline:
                raise MissingPeersError(
                    f"node {number}: the first node, {address}:{port}, did not answer within {seconds:.0f} s: look at "
                    f"its pod's events, and whether a NetworkPolicy lets the pods of a job talk to each other ({error})"
                ) from error
            time.sleep(0.5)
    check_in(store, "node", number=number, count=count, seconds=max(1.0, deadline - time.monotonic()))
    store.add("gone", 1)
    if number == 0:  # the others read from here
        _wait_until(lambda: store.add("gone", 0) == count, 30.0)


def check_in(store: Store, what: str, *, number: int, count: int, seconds: float) -> None:
    """Waits until all `count` nodes or processes (`what`) have come to the store.

    Raises:
        MissingPeersError: names those that did not come.
    """
    store.set(f"{what}/{number}", socket.gethostname())

    def missing() -> list[int]:
        return [other for other in range(count) if not store.check([f"{what}/{other}"])]

    if not _wait_until(lambda: not missing(), seconds):
        named = ", ".join(map(str, missing()))
        raise MissingPeersError(
            f"{what} {number}: of {count}: these did not come within {seconds:.0f} s: {named}; look at the logs "
            "and events of their pods, give them longer with train_start_seconds, or free the room that they wait for"
        )


def check_processes(config: RunConfig, *, seconds: float) -> None:
    """Checks, in every process that a launcher started, that all are here.

    Raises:
        PreflightError: there are more or fewer than asked for.
        MissingPeersError: some did not come.
    """
    check_world(config, world_size())
    if world_size() == 1:
        return
    store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
    check_in(PrefixStore("preflight", store), "process", number=rank, count=count, seconds=seconds)


def check_all_reduce(*, seconds: float = 120.0) -> None:
    """Adds a number of each process up, over gloo and, where there are GPUs, over NCCL; all processes call this.

    Raises:
        MissingPeersError: the sum is wrong, or did not arrive.
    """
    if not distributed.is_initialized():
        return
    count, rank = distributed.get_world_size(), distributed.get_rank()
    for device, backend in [("cpu", "gloo")] + ([("cuda", "NCCL")] if torch.cuda.is_available() else []):
        number = torch.tensor(float(rank + 1), device=device)
        try:
            distributed.all_reduce(number, async_op=True).wait(timedelta(seconds=seconds))
            total = float(number)
        except RuntimeError as error:
            raise MissingPeersError(
                f"process {rank}: an all-reduce over {backend} among {count} processes did not arrive within "
                f"{seconds:.0f} s: check NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME, and NetworkPolicies between the "
                f"pods of a job; NCCL_DEBUG=INFO says more ({error})"
            ) from error
        if total != count * (count + 1) / 2:
            raise MissingPeersError(
                f"process {rank}: an all-reduce over {backend} among {count} processes gave {total} instead of "
                f"{count * (count + 1) / 2}: a GPU or a network card computes wrong"
            )


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(RuntimeError):  # the store's server left
            if condition():
                return True
        time.sleep(0.05)
    return False
