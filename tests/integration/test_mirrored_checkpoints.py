"""Checkpoints on S3: a run that starts with an empty disk goes on as if nothing had happened."""

import json
import shutil

import pytest

from components import storage
from components.artifacts import PreparedIndex
from components.config_files import config_from_settings
from components.training.mirror import CheckpointMirror
from components.training.train import build_trainer, run_trainer, train_classifier
from tests.integration.test_interrupted_training import RUN, command, losses, run, terminate_in_step
from tests.integration.torchrun import torchrun_command
from tests.integration.training_data import training_settings

URI = "s3://bucket/{}"


def kept(data, name, **settings):
    return training_settings(data, data / name, **RUN | settings)


def train(data, name, *, mirror, **settings):
    config = config_from_settings(kept(data, name, **settings))
    train_classifier(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / name, mirror_uri=mirror)


@pytest.fixture(scope="module")
def uninterrupted(data):
    config = config_from_settings(kept(data, "whole", eval_strategy="steps"))
    train_classifier(config, index=PreparedIndex.read(data / "index.json"), output_dir=data / "whole")
    return losses(data / "whole")


def test_an_evicted_run_goes_on_with_an_empty_disk(data, s3, uninterrupted):
    """Two processes with DeepSpeed, killed by SIGTERM; all that is left of the first pod is in the bucket."""
    uri = URI.format("evicted")
    shared = {"checkpoints_uri": uri, "per_device_train_batch_size": 2, "deepspeed": "z2"}
    words = command(data, data / "evicted", launcher=torchrun_command(), **shared)
    code, log = terminate_in_step([*words, "slow", "2"], 3)
    assert code != 0
    assert "checkpoint-3 is in s3://bucket/evicted/" in log, log
    shutil.rmtree(data / "evicted")

    done = run(words)
    assert done.returncode == 0, done.stderr
    assert "this run was begun elsewhere and did not end: fetching checkpoint-3" in done.stderr
    assert losses(data / "evicted") == pytest.approx(uninterrupted, abs=1e-4)
    folder = next(iter({path.partition("/")[0] for path in storage.list_files(uri)}))
    assert CheckpointMirror(storage.join(uri, folder)).checkpoints() == ["checkpoint-3", "checkpoint-4", "checkpoint-8"]
    assert not storage.exists(storage.join(uri, folder, "unfinished_run.json"))


def test_only_whole_copies_count_and_the_limit_holds_there_too(data, s3, uninterrupted, tmp_path):
    """The best checkpoint and the last one stay, here and there; a half-sent one is sent again."""
    uri, output_dir = URI.format("limited"), data / "limited"
    settings = {"save_steps": 1, "save_total_limit": 2, "load_best_model_at_end": True}
    settings |= {"eval_strategy": "steps", "eval_steps": 1}
    index = PreparedIndex.read(data / "index.json")
    train(data, "limited", mirror=uri, **settings)

    state = json.loads((output_dir / "trainer_state.json").read_text())
    best = state["best_model_checkpoint"].rpartition("/")[2]
    assert CheckpointMirror(uri).checkpoints() == sorted(
        {best, "checkpoint-8"} if best != "checkpoint-8" else {"checkpoint-7", best}
    )
