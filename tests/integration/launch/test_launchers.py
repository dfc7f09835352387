"""The users' ways of starting several processes, on real videos: torchrun, deepspeed, accelerate."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

from ivcp import steps as single_steps
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.records.evaluation import EvaluationMetrics
from ivcp.settings import load_config
from ivcp.training.run_record import RunRecord
from tests.conftest import REPOSITORY
from tests.integration.torchrun import processes_environment, torchrun_command

BESIDE_PYTHON = Path(sys.executable).parent
ON_CPUS = pytest.mark.skipif(torch.cuda.is_available(), reason="the launchers are told to use CPUs")


def settings(action_data, tmp_path) -> dict:
    return {
        "stage": "action_cls",
        "model_name_or_path": str(build_tiny_model(tmp_path / "base", warm_up=False)),
        "dataset": "actions",
        "dataset_dir": str(action_data.folder),
        "output_dir": str(tmp_path / "adapter"),
        "val_size": 3,
        "num_action_classes": 3,
        "finetuning_type": "lora",
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "video_num_frames": 4,
        "video_min_pixels": 1024,
        "video_max_pixels": 1024,
        "report_to": "none",
        "preprocessing_num_workers": 1,
    }


def start(*words: str) -> subprocess.CompletedProcess:
    environment = processes_environment() | {"DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        words, env=environment, cwd=REPOSITORY, text=True, timeout=200, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@ON_CPUS
def test_deepspeed_with_words_as_the_users_write_them(action_data, tmp_path):
    words = [word for key, value in settings(action_data, tmp_path).items() for word in (f"--{key}", str(value))]
    launcher = [str(BESIDE_PYTHON / "deepspeed"), "--num_gpus", "2", "--master_port", "29617", "--module"]
    done = start(*launcher, "ivcp.cli.train", "--deepspeed", "z3", *words, "--learning_rate", "1e-4", "--bf16")

    assert done.returncode == 0, done.stdout[-5000:]
    assert done.stdout.count("rows of 12 videos: train 9, val 3") == 1  # only the first process prepares
    assert (tmp_path / "adapter" / "checkpoint-2" / "global_step2").is_dir()
    assert RunRecord.read(tmp_path / "adapter" / "run_record.json").settings["deepspeed"] == "z3"


@ON_CPUS
def test_accelerate_with_a_file_for_fsdp(action_data, tmp_path):
    """The users' files for accelerate ask for the first FSDP and know nothing of this project."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings(action_data, tmp_path)))
    fsdp = {"fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_sharding_strategy": "FULL_SHARD"}
    (tmp_path / "fsdp.yaml").write_text(
        yaml.safe_dump(
            {
                "compute_environment": "LOCAL_MACHINE",
                "distributed_type": "FSDP",
                "use_cpu": True,
                "fsdp_config": fsdp
                | {"fsdp_cpu_ram_efficient_loading": True, "fsdp_state_dict_type": "FULL_STATE_DICT"},
                "mixed_precision": "no",
                "num_machines": 1,
                "num_processes": 2,
                "main_process_port": 0,
                "rdzv_backend": "c10d",
            }
        )
    )
    launcher = [str(BESIDE_PYTHON / "accelerate"), "launch", "--config_file", str(tmp_path / "fsdp.yaml")]
    done = start(*launcher, "tests/fsdp_on_cpu.py", str(tmp_path / "run.yaml"), "learning_rate=1e-3", "do_eval=true")

    assert done.returncode == 0, done.stdout[-5000:]
    assert "accelerate's configuration: fsdp: full_shard" in done.stdout
    assert (tmp_path / "adapter" / "checkpoint-2" / "optimizer_0" / "__1_0.distcp").is_file()  # the second one's part
    assert (tmp_path / "adapter" / "evaluation" / "metrics.json").is_file()
    assert RunRecord.read(tmp_path / "adapter" / "run_record.json").settings["fsdp"] == "full_shard"


def test_torchrun_shows_a_wrong_setting_first(tmp_path):
    done = start(
        *torchrun_command(), "-m", "ivcp.cli.train", "deepspeed=examples/deepspeed/ds_z3_config.json",
        f"output_dir={tmp_path / 'adapter'}", "model_name_or_path=nowhere", "dataset=actions",
    )  # fmt: skip

    assert done.returncode != 0
    first = next(line for line in done.stdout.splitlines() if "ERROR" in line or "Error" in line)
    assert "model_name_or_path: nowhere does not exist" in first
    root_cause = done.stdout.partition("Root Cause")[2]
    assert "traceback : error: model_name_or_path: nowhere does not exist" in root_cause
    assert not (tmp_path / "adapter").exists()


def ivcp_train(file: Path, *words: str) -> subprocess.CompletedProcess:
    return start(sys.executable, "-m", "ivcp.cli.main", "train", str(file), "train_processes_per_node=2", *words)


@ON_CPUS
def test_ivcp_train_starts_the_processes_itself(action_data, tmp_path):
    """ZeRO-3 in bfloat16, and evaluation in the same run: the figures are those of the directory alone."""
    run = settings(action_data, tmp_path) | {"finetuning_type": "full", "bf16": True, "deepspeed": "z3", "test_size": 3}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    done = ivcp_train(file, "do_eval=true")
    assert done.returncode == 0, done.stdout[-5000:]
    assert RunRecord.read(tmp_path / "adapter" / "run_record.json").num_processes == 2

    metrics = tmp_path / "adapter" / "evaluation" / "metrics.json"
    at_once = EvaluationMetrics.read(metrics)
    metrics.unlink()
    alone = single_steps.evaluate(load_config(file, {})).headline()
    assert alone == pytest.approx(at_once.headline(), abs=1e-6)


@ON_CPUS
def test_packages_with_broken_metadata_end_no_training(action_data, tmp_path, monkeypatch):
    """As an interrupted pip leaves them; MLflow, transformers and kfp look at all packages as well."""
    for name in ("broken-1.0", "~umpy-2.0", "mlflow-1.0", "datasets-1.0"):
        (tmp_path / "packages" / f"{name}.dist-info").mkdir(parents=True)
    run = settings(action_data, tmp_path) | {"report_to": "mlflow", "mlflow_tracking_uri": f"sqlite:///{tmp_path}/m.db"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'packages'}{os.pathsep}{REPOSITORY}")
    done = subprocess.run(
        [sys.executable, "-m", "ivcp.cli.main", "train", str(tmp_path / "run.yaml")], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-5000:]
    packages = RunRecord.read(tmp_path / "adapter" / "run_record.json").packages
    assert "broken" not in packages
    assert packages["torch"] == version("torch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model_name_or_path=nowhere"], "error: model_name_or_path: nowhere does not exist"),
        (
            ["deepspeed=z3", "quantization_bit=4"],
            "error: quantization_bit = 4 with deepspeed = z3: ZeRO-3 cannot shard",
        ),
    ],
)
def test_a_users_mistake_is_one_message(action_data, tmp_path, words, message):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings(action_data, tmp_path)))
    done = ivcp_train(file, *words)

    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert done.returncode == 2
    assert lines[-1].startswith(message)
    assert done.stdout.count(message) == 1
    assert not [line for line in lines if "Traceback" in line or "ChildFailed" in line or "exitcode" in line]
