import pytest

from ivcp.settings import ConfigError, parse_overrides, read_words


def test_words_of_the_command_line():
    assert parse_overrides(["--bf16", "--do-train", "false", "dataset=a,b", "--lora_rank=4", "max_samples=null"]) == {
        "bf16": True,
        "do_train": False,
        "dataset": "a,b",
        "lora_rank": 4,
        "max_samples": None,
    }
    assert parse_overrides(["--bf16", "lora_rank=4"]) == {"bf16": True, "lora_rank": 4}
    with pytest.raises(ConfigError, match="'oops': write key=value"):
        parse_overrides(["oops"])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("lora_target=[qv]_proj", "[qv]_proj"),
        ("lora_target=[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("lora_target=.*(q|v)_proj", ".*(q|v)_proj"),
        ("run_name=@alice", "@alice"),
        ("run_name=%1", "%1"),
        ("run_name=2024-01-01", "2024-01-01"),
        ("run_name=007", "007"),
        ("run_name=no", "no"),
        ("run_name=first: second", "first: second"),
        ("run_name=null", None),
        ("model_revision=1e10", "1e10"),
        ("dataset=2024", "2024"),
        ("save_strategy=no", False),
        ("head_sweep_learning_rates=[0.1, 0.2]", [0.1, 0.2]),
        ("resume_from_checkpoint=true", True),
        ("serve_url=http://a/?b=c", "http://a/?b=c"),
    ],
)
def test_a_value_has_the_type_of_its_key(word, value):
    key = word.partition("=")[0]
    assert parse_overrides([word]) == {key: value}


@pytest.mark.parametrize(
    "words",
    [
        ["my.yaml", "lora_rank=4", "--bf16"],
        ["lora_rank=4", "my.yaml", "--bf16"],
        ["lora_rank=4", "--bf16", "my.yaml"],
    ],
)
def test_the_file_may_stand_anywhere(words):
    assert read_words(words) == ("my.yaml", {"lora_rank": 4, "bf16": True})


def test_a_file_that_is_a_value_is_one():
    assert read_words(["--deepspeed", "ds.yaml", "my.yaml"]) == ("my.yaml", {"deepspeed": "ds.yaml"})


def test_words_that_are_no_settings(tmp_path):
    (tmp_path / "settings").write_text("lora_rank: 4")
    assert read_words([str(tmp_path / "settings")])[0] == str(tmp_path / "settings")
    for words, message in [
        (["a.yaml", "b.yaml"], "two settings files, a.yaml and b.yaml: give one"),
        ([str(tmp_path)], "is a folder: give the path of a YAML file"),
        (["https://example.com/my.yaml"], "is an address: download the settings file"),
        (["https://example.com/my.yaml?a=b"], "is an address: download the settings file"),
        (["-c"], "cannot read '-c': write key=value or --key value, or the path of one YAML file"),
    ]:
        with pytest.raises(ConfigError) as caught:
            read_words(words)
        assert message in str(caught.value)
