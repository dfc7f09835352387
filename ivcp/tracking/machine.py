"""How busy the machine is while a step works: processors, memory, disk, network, GPUs, as MLflow's pages show them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ivcp.tracking.runs import TrackedRun

log = logging.getLogger(__name__)

_SECONDS = 10.0
_SWITCH, _INTERVAL = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"


@contextmanager
def watched_machine(run: TrackedRun) -> Iterator[None]:
    """Inside, the run gets the machine's figures every ten seconds, as `system/…`.

    MLflow's own environment variables hold: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false switches it off,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says how many seconds lie between.
    """
    if not run.is_open or os.environ.get(_SWITCH, "true").lower() in ("false", "0"):
        yield
        return
    ended = threading.Event()
    seconds = float(os.environ.get(_INTERVAL) or _SECONDS)
    thread = threading.Thread(target=_watch, args=(run, ended, seconds), name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(run: TrackedRun, ended: threading.Event, seconds: float) -> None:
    monitors, step = _monitors(), 0
    while not ended.wait(seconds):
        figures: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            figures |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        run.log_metrics({f"system/{name}": value for name, value in figures.items()}, step)
        step += 1


def _monitors() -> list[Any]:
    """mlflow's; that of GPUs needs NVIDIA's library, which is not where there are none."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except (ImportError, RuntimeError) as error:
        log.debug("no GPUs are watched: %s", error)
    return monitors
