"""torchrun, called from Python: it starts this node's processes, and what failed in them is one message."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ivcp.launch.worker import WRONG_CALL
from ivcp.training.loop.interruption import INTERRUPTED

FAILED = 1
_SHUTDOWN_SECONDS = 270
"""For a checkpoint after SIGTERM: a pod has 300."""
_CONSEQUENCES = (
    "OtherProcessError",
    "DistBackendError",
    "DistNetworkError",
    "Connection",
    "gloo",
    "NCCL",
    "Socket",
    "its log says why",
    "(SIGTERM)",
)
"""Words in the errors of processes that only noticed another one's end."""
_NO_MESSAGE = "<NONE>"
"""torch's, of a process that left none."""


class ProcessesFailedError(RuntimeError):
    """Processes of this node ended with an error; the message has the first process's first."""

    def __init__(self, reasons: Mapping[int, str], exit_code: int) -> None:
        """`reasons` are the processes' messages by rank."""
        super().__init__("; ".join(f"process {rank}: {text}" for rank, text in reasons.items()))
        self.reasons = reasons
        self.exit_code = exit_code


def run_torchrun(words: Sequence[str], *, processes: int, options: Sequence[str] = ()) -> None:
    """Starts `processes` of this node and waits for them; hands SIGTERM on.

    Where Kubeflow Trainer's torch policy has set PET_* variables, these say how many. `options` are torchrun's, in
    place of those for one node.

    Raises:
        ProcessesFailedError: one failed, or SIGTERM came.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "PET_NNODES" not in os.environ:
        options = [*(options or ["--standalone"]), f"--nproc-per-node={processes}"]
    try:
        run.run(run.parse_args([f"--shutdown-timeout={_SHUTDOWN_SECONDS}", *options, *words]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        raise _explained(error.failures) from error
    except SignalException as error:
        raise ProcessesFailedError({0: "interrupted by SIGTERM: the next start resumes it"}, INTERRUPTED) from error


def silence_torchrun() -> None:
    """Leaves it to the caller to say what failed: torchrun logs each failed process, and those that it ends for it."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _explained(failures: Mapping[int, Any]) -> ProcessesFailedError:
    """The first process's error first, then those of others that say something else."""
    codes = {failure.exitcode for failure in failures.values()}
    code = next((known for known in (WRONG_CALL, INTERRUPTED) if known in codes), FAILED)
    told = {rank: _told(failure) for rank, failure in sorted(failures.items())}
    causes = {rank: text for rank, text in told.items() if not any(word in text for word in _CONSEQUENCES)} or told
    reasons: dict[int, str] = {}
    for rank, text in causes.items():
        if not any(text in earlier for earlier in reasons.values()):
            reasons[rank] = text
    return ProcessesFailedError(reasons, code)


def _told(failure: Any) -> str:
    if failure.exitcode == INTERRUPTED:
        return "interrupted by SIGTERM after a checkpoint"
    data = failure.error_file_data.get("message", {}) if failure.error_file_data else {}
    message = data.get("message") if isinstance(data, dict) else data
    if not message or message == _NO_MESSAGE:
        return f"ended with exit code {failure.exitcode} ({failure.signal_name()})"
    return str(message) if isinstance(message, str) else json.dumps(message)
