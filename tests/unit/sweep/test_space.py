"""What the words of a sweep search."""

from __future__ import annotations

import pytest

from ivcp.settings import ConfigError
from ivcp.sweep.space import Choice, Range, check_space, read_space


def test_ranges_and_values_are_searched_and_the_rest_is_given():
    words = ["my.yaml", "learning_rate=1e-5..1e-3:log", "--lora_rank=8,16,32", "num_train_epochs=3", "bf16=true,false"]
    file, given, space = read_space(words)
    assert (file, given) == ("my.yaml", {"num_train_epochs": 3})
    assert space == {
        "learning_rate": Range(1e-5, 1e-3, is_log=True, is_whole=False),
        "lora_rank": Choice((8, 16, 32)),
        "bf16": Choice((True, False)),
    }
    assert [str(values) for values in space.values()] == ["1e-05..0.001:log", "8,16,32", "True,False"]


def test_whole_numbers_and_rates_in_other_spellings():
    _, _, space = read_space(["lora_rank=4..64:log", "warmup_ratio=0..0.2", "learning_rate=1e-4,2e-4"])
    assert space["lora_rank"] == Range(4, 64, is_log=True, is_whole=True)
    assert space["warmup_ratio"] == Range(0, 0.2, is_log=False, is_whole=False)
    assert space["learning_rate"] == Choice((1e-4, 2e-4))


def test_a_list_of_names_is_one_value():
    _, given, space = read_space(["lora_target=q_proj,v_proj", "lora_rank=8,16"])
    assert given == {"lora_target": "q_proj,v_proj"}
    assert list(space) == ["lora_rank"]


def test_the_middle_of_a_range_says_nothing_of_its_numbers():
    _, _, space = read_space(["lora_dropout=0.5..1", "num-train-epochs=1..5"])
    assert space["lora_dropout"] == Range(0.5, 1, is_log=False, is_whole=False)
    assert space["num_train_epochs"] == Range(1, 5, is_log=False, is_whole=False)


def test_a_path_with_two_points_is_a_path():
    words = ["dataset_dir=../../data", "media_dir=a/../b", "lora_rank=8,16"]
    assert read_space(words)[1] == {"dataset_dir": "../../data", "media_dir": "a/../b"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lora_rank=8", "nothing is searched"),
        ("learning_rate=1e-3..1e-5", "begins with the smaller number"),
        ("learning_rate=0..1e-3:log", "begins above 0"),
        ("learning_rate=small..large", "has numbers at its ends"),
        ("lora_rank=8,8", "names a value twice"),
        ("learning_rate=1e-4,0.0001", "names a value twice"),
        ("lora_alpha=16,", "a comma too many"),
        ("lora_rank=1.5..4", "is a whole number, and so are the ends"),
        ("learning_rate=1e-5..inf", "both are finite"),
    ],
)
def test_what_cannot_be_searched_is_told(word, message):
    with pytest.raises(ConfigError, match=message):
        read_space([word])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("video_num_frames=4,8", "all trials train on the same prepared clips"),
        ("seed=1,2,3", "seed cannot be searched"),
        ("action_cls_token_loss_weight=0..1", "all trials train on the same prepared clips"),
        ("eval_strategy=steps,epoch", "eval_strategy cannot be searched"),
        ("lora_rank=0,8", "lora_rank"),
        ("learning_rate=-1..1", "learning_rate"),
        ("lora_dropout=0.1,1.5", "lora_dropout"),
    ],
)
def test_every_end_of_a_space_has_to_be_possible(word, message):
    with pytest.raises(ConfigError, match=message):
        check_space(read_space([word])[2], {})
