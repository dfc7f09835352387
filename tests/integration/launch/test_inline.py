"""Training in several processes of the step itself."""

import os
import signal

import pytest

from ivcp.launch.inline import TrainingProcessesError, train_inline
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.training.checkpoints.folder import UNFINISHED_FILE, whole_checkpoints
from ivcp.training.loop.interruption import TrainingInterrupted
from tests.conftest import REPOSITORY
from tests.integration.training_data import training_settings

RUN = {
    "max_steps": 24,
    "save_steps": 4,
    "save_total_limit": 2,
    "eval_steps": 4,
    "load_best_model_at_end": True,
    "train_start_seconds": 60,
    "train_processes_per_node": 2,
    "per_device_train_batch_size": 2,
}


def inline(data, name, **settings):
    config = config_from_settings(training_settings(data, data / name, **RUN | settings))
    return train_inline(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / name, run_id="inline")


@pytest.mark.slow
def test_sigterm_reaches_the_processes_of_the_step(data, monkeypatch):
    """They end after a checkpoint."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    before = signal.signal(signal.SIGALRM, lambda *_: terminate_behind(data / "in-step" / "checkpoint-4"))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(TrainingInterrupted):
            inline(data, "in-step")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    last = whole_checkpoints(data / "in-step")[-1]
    assert (data / "in-step" / UNFINISHED_FILE).is_file()
    assert int(last.name.rpartition("-")[2]) < 24
    load_directory(last)


def terminate_behind(checkpoint):
    if checkpoint.is_dir():
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_processs_error_is_the_steps(data, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(TrainingProcessesError, match=r"^process 0: .*did you mean deepspeed: z2\?"):
        inline(data, "wrong", deepspeed="zz2")
