"""The users' own files with the stage that their documents give them, `sft`, on tiny models of the families they name.

The rows have the form of VideoEspresso's. What is overridden are paths, sizes and epochs, and FlashAttention, which
needs a GPU. The caption document trains LLaVA-NeXT-Video by a script of its own: it gets the file of the first one.
"""

import json
import sys
from pathlib import Path

import pytest

from ivcp.stages.directory import load_directory
from tests.data_sets import make_clip
from tests.integration.launch.test_launchers import start
from tests.tiny_families import build_tiny_family

FILES = Path(__file__).parent / "users_files"
QUESTIONS = [
    ("How do the steps shown at 2 seconds and 4 seconds keep the samosas sealed?", "The edges are pinched."),
    ("Why does the person lift the box?", "To put it on the shelf."),
]


@pytest.fixture
def questions(data_set):
    """Eight clips, each with a question and an answer that is thought about first."""
    rows = []
    for number in range(8):
        question, answer = QUESTIONS[number % 2]
        video = make_clip(data_set.folder / f"{number}.mp4", seed=number)
        written = f"<think>The clip shows step {number}.  \nIt is followed by another.</think><answer>{answer}</answer>"
        turns = [{"from": "human", "value": f"<video>{question}"}, {"from": "gpt", "value": written}]
        rows.append({"conversations": turns, "videos": [video.name]})
    return data_set.add("questions", rows)


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("my_video_training.yaml", "qwen3_vl"),
        ("minicpmv4_5_lora_sft.yaml", "minicpmv4_6"),
        ("my_video_training.yaml", "llava_next_video"),
        pytest.param("minicpmv4_5_full_sft.yaml", "minicpmv4_6", marks=pytest.mark.nightly),
    ],
)
def test_it_learns_to_answer(questions, tmp_path, file, family):
    own = {
        "stage": "sft",
        "model_name_or_path": build_tiny_family(tmp_path / "base", family),
        "dataset": "questions",
        "dataset_dir": questions.folder,
        "output_dir": tmp_path / "out",
        "num_train_epochs": 1,
        "val_size": 2,
        "flash_attn": "auto",
        "preprocessing_num_workers": 1,
        "video_min_pixels": 1024,
        "video_max_pixels": 1024,
        "video_maxlen": 4,
        "eval_strategy": "epoch",
    }
    overrides = [f"{key}={value}" for key, value in own.items()]
    if "full" in file:
        overrides.append("deepspeed=null")
    done = start(sys.executable, "-m", "ivcp.cli.train", str(FILES / file), *overrides)
    assert done.returncode == 0, done.stdout[-5000:]

    result = json.loads((tmp_path / "out" / "training_result.json").read_text())
    assert (result["epochs"], result["train_clips"]) == (1.0, 6)
    assert "eval_perplexity" in done.stdout
    loaded = load_directory(tmp_path / "out")
    assert loaded.stage.writes
    assert loaded.seen.is_complete
