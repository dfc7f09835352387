"""YAML as text: with its lines, and without the line ends that the form of Kubeflow Pipelines takes out."""

from pathlib import Path

import pytest

from ivcp.settings import ConfigError, config_from_settings, load_config
from ivcp.settings.pasted import read_pasted

FILES = sorted((Path(__file__).parents[2] / "integration" / "launch" / "users_files").glob("*.yaml"))


def as_a_browser_pastes(text: str) -> str:
    """Into a text box of one line: a space for each line end."""
    return text.replace("\r\n", " ").replace("\n", " ")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_users_file_is_read_as_from_its_path(file):
    assert config_from_settings(read_pasted(file.read_text())) == load_config(file)


@pytest.mark.parametrize("name", ["action_cls_lora", "my_video_training", "minicpmv4_5_lora_sft"])
def test_a_users_file_that_lost_its_line_ends_is_read_as_from_its_path(name, caplog):
    file = next(file for file in FILES if file.stem == name)
    assert config_from_settings(read_pasted(as_a_browser_pastes(file.read_text()))) == load_config(file)
    assert "came as one line, and is read as:\nmodel_name_or_path: " in caplog.text


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        ("", {}),
        ("  \n", {}),
        ("lora_rank: 8", {"lora_rank": 8}),
        ("{lora_rank: 8, dataset: [a, b]}", {"lora_rank": 8, "dataset": ["a", "b"]}),
        ("dataset: a, b\nrun_name: don't  # c'est ça", {"dataset": "a, b", "run_name": "don't"}),
        ("run_name: 'a: b # c'\nlora_rank: 8", {"run_name": "a: b # c", "lora_rank": 8}),
        ('run_name: "a: \\" b"\nlora_rank: 8', {"run_name": 'a: " b', "lora_rank": 8}),
        ("train_node_selector: {pool: gpu}\nlora_rank: 8", {"train_node_selector": {"pool": "gpu"}, "lora_rank": 8}),
        ("run_name:\nlora_rank: 8", {"run_name": None, "lora_rank": 8}),
        ("# one\n\n\nlora_rank: 8 # two\n### three\nmax_steps: 3", {"lora_rank": 8, "max_steps": 3}),
        ("dataset_dir: s3://b/a", {"dataset_dir": "s3://b/a"}),
        ("run_name: 'learning_rate:1'", {"run_name": "learning_rate:1"}),
        ("dataset_dir: s3://b/a#b\nmax_steps: 3", {"dataset_dir": "s3://b/a#b", "max_steps": 3}),
        ("run_name: 训练 🎬 {{x}} $HOME\nmax_steps: 3", {"run_name": "训练 🎬 {{x}} $HOME", "max_steps": 3}),
    ],
)  # fmt: skip
def test_with_its_lines_and_without(lines, settings):
    assert read_pasted(lines) == read_pasted(as_a_browser_pastes(lines)) == settings


@pytest.mark.parametrize(
    "lines",
    [
        "dataset: a #\nlora_rank: 8",  # an empty comment, or a setting that is commented out
        "dataset: a\n# lora_rank: 8",
        "dataset: a # rank\nlora_rnk: 8",  # a wrong key would be swallowed
        "# see: below\ndataset: a",
        "dataset:\n- a\n- b\nlora_rank: 8",
        "output_dir: out\nlearning_rate:1e-4",  # YAML wants a space
        "output_dir: out\nlora_rank： 8\nmax_steps: 3",
        "dataset: a\n#- lora_rank: 8\nmax_steps: 3",
        "curriculum:\n- {stage: sft, dataset: a}\n- {dataset: b}\nlora_rank: 8",
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(lines):
    with pytest.raises(ConfigError, match=r"came as one line.*s3://.*ivcp submit FILE|not valid YAML"):
        read_pasted(as_a_browser_pastes(lines))


def test_no_mapping():
    with pytest.raises(ConfigError, match="expected `key: value` lines, got str"):
        read_pasted("my.yaml")


def test_a_key_that_stands_twice():
    with pytest.raises(ConfigError, match="lora_rank stands twice"):
        read_pasted("lora_rank: 8 # once\nlora_rank: 9")


def test_lines_that_are_all_indented():
    """As they stand in a page's code block or in a list."""
    assert read_pasted("  lora_rank: 8\n  max_steps: 3\n") == {"lora_rank": 8, "max_steps": 3}
    assert read_pasted("\ufeff\n    lora_rank: 8\r\n    max_steps: 3") == {"lora_rank": 8, "max_steps": 3}


@pytest.mark.parametrize("text", ["learning_rate: {{ lr }}\nlora_rank: 8", "? [a]\n: 8"])
def test_a_key_that_is_no_text(text):
    """A template that was not filled in, say."""
    with pytest.raises(ConfigError, match=r"not valid YAML: a key in line 1 is no text"):
        read_pasted(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_object_is_read_as_a_file_is(monkeypatch, encoding):
    monkeypatch.setattr("ivcp.storage.read_bytes", lambda _: "run_name: 训练\n".encode(encoding))
    assert read_pasted(" s3://bucket/my.yaml ") == {"run_name": "训练"}


def test_an_object_that_is_no_text(monkeypatch):
    monkeypatch.setattr("ivcp.storage.read_bytes", lambda _: "run_name: 训练\n".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"s3://bucket/my.yaml line 1: expected text in UTF-8, .* UTF-8 my\.yaml"):
        read_pasted("s3://bucket/my.yaml")
