import json

import pytest

from ivcp.cli.train import own_words, tell_launcher


@pytest.mark.parametrize(
    "words",
    [
        ["--local_rank=0", "my.yaml", "lora_rank=4"],
        ["--local-rank=1", "my.yaml", "lora_rank=4"],
        ["--local_rank", "3", "my.yaml", "lora_rank=4"],
        ["my.yaml", "lora_rank=4"],
    ],
)
def test_what_launchers_add_is_left_out(words):
    assert own_words(words) == ["my.yaml", "lora_rank=4"]


def test_words_without_a_file():
    words = ["--deepspeed", "z3", "--learning_rate", "1e-4", "--bf16"]

    assert own_words(["--local_rank=0", *words, "--traceback"]) == words


def test_torchrun_is_told_the_message_alone(tmp_path, monkeypatch):
    """It shows a traceback in the message's place where there is one."""
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    tell_launcher("error: lora_rank = 0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_launcher("error: lora_rank = 0")
    told = json.loads((tmp_path / "error.json").read_text())["message"]

    assert told["message"] == "error: lora_rank = 0"
    assert told["extraInfo"].keys() == {"timestamp"}
