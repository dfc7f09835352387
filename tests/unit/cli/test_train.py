import pytest

from ivcp.cli.train import own_words


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
