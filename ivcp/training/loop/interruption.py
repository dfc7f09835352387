"""SIGTERM while training: the pod is being evicted, and some seconds are left to keep what was computed."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ivcp.distributed.processes import any_process
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import TrainerCallback  # noqa: E402

log = logging.getLogger(__name__)

INTERRUPTED = 75
"""Exit code of an interrupted training, `EX_TEMPFAIL` of sysexits.h: the same command again resumes."""


class TrainingInterrupted(SystemExit):
    """The run was told to end and left a checkpoint; like Ctrl-C this is no error, and ends the process."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(INTERRUPTED)
        self.checkpoint = checkpoint


class StopOnTermination(TrainerCallback):  # type: ignore[misc]
    """Ends training with a checkpoint after the step in which any process received SIGTERM.

    A validation that is due after that step is left out: it may take longer than the pod has left.
    """

    def __init__(self) -> None:
        self._requested = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, SIGTERM is remembered instead of ending the process. Only a main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()

        def remember(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:  # a data loader's worker, forked from this process
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self._requested = True

        before = signal.signal(signal.SIGTERM, remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers after each optimizer step, on every process."""
        if not any_process(self._requested):
            return
        log.info("SIGTERM: saving a checkpoint after step %d and ending", state.global_step)
        self.stopped = control.should_save = control.should_training_stop = True
        control.should_evaluate = False
        args.save_only_model = False  # without the optimizer's state nothing could be resumed

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers when it leaves the loop over the steps, too."""
        if self.stopped:
            control.should_save = control.should_evaluate = False
