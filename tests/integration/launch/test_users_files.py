"""The users' own files, with the stage that this project trains, on tiny models and two processes.

`users_files` holds them as their documents have them; only `stage: sft` says `action_cls`. What is overridden are
paths, sizes, the number of classes and epochs, and FlashAttention, which needs a GPU.
"""

import json
from pathlib import Path

import pytest

from ivcp.stages.directory import load_directory
from tests.integration.launch.test_launchers import ON_CPUS, start
from tests.integration.torchrun import torchrun_command
from tests.tiny_families import build_tiny_family

FILES = Path(__file__).parent / "users_files"
Z2, Z3 = (f"deepspeed=examples/deepspeed/ds_{stage}_config.json" for stage in ("z2", "z3"))
RUNS = [
    ("minicpmv4_5_full_sft.yaml", "minicpmv4_6", []),  # it names its own ZeRO-2 file
    ("action_cls_lora.yaml", "qwen2_5_vl", [Z3, "finetuning_type=full"]),
    *(
        pytest.param(file, family, words, marks=pytest.mark.nightly)
        for file, family in (
            ("my_video_training.yaml", "qwen3_vl"),
            ("action_cls_lora.yaml", "qwen2_vl"),
            ("minicpmv4_5_lora_sft.yaml", "minicpmv4_6"),
            ("minicpmv4_5_full_sft.yaml", "minicpmv4_6"),
        )
        for words in (
            [Z2, "finetuning_type=lora"],
            [Z3, "finetuning_type=lora"],
            [Z2, "finetuning_type=full"],
            [Z3, "finetuning_type=full"],
        )
    ),
]


@ON_CPUS
@pytest.mark.parametrize(("file", "family", "words"), RUNS)
def test_it_starts_and_finishes(action_data, tmp_path, file, family, words):
    own = {
        "model_name_or_path": build_tiny_family(tmp_path / "base", family),
        "dataset": "actions",
        "dataset_dir": action_data.folder,
        "output_dir": tmp_path / "out",
        "num_action_classes": 3,
        "num_train_epochs": 1,
        "val_size": 3,
        "flash_attn": "auto",
        "preprocessing_num_workers": 1,
        "video_min_pixels": 1024,
        "video_max_pixels": 1024,
        "video_maxlen": 4,
    }
    overrides = [f"{key}={value}" for key, value in own.items()]
    done = start(*torchrun_command(), "-m", "ivcp.cli.train", str(FILES / file), *overrides, *words)
    assert done.returncode == 0, done.stdout[-5000:]

    result = json.loads((tmp_path / "out" / "training_result.json").read_text())
    assert (result["epochs"], result["train_clips"]) == (1.0, 9)
    load_directory(tmp_path / "out")
