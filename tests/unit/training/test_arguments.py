"""transformers' arguments of a run: one process trains on one device."""

import torch
from transformers import TrainingArguments

from ivcp.stages.registry import stage_of
from ivcp.training.arguments import training_arguments, use_one_device


def test_no_process_trains_on_several_gpus(tmp_path, monkeypatch, caplog):
    """transformers would wrap the model in DataParallel, whose copies share the hooks of one module."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=3)
    assert (arguments.n_gpu, arguments.train_batch_size) == (4, 12)

    use_one_device(arguments)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 3)
    assert "4 GPUs are visible" in caplog.text
    assert "train_processes_per_node: 4" in caplog.text


def test_a_runs_arguments_pass_there(make_config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("ivcp.training.arguments.use_one_device", seen.append)
    arguments = training_arguments(stage_of(make_config()), output_dir=tmp_path, has_val=False)

    assert seen == [arguments]
