"""LLaMA-Factory's command line: its words run this project's commands."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ivcp.cli import llamafactory
from ivcp.settings import ConfigError

PLACE = ("--host", "0.0.0.0", "--port", "8000")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words that reached `ivcp`."""
    calls: list[list[str]] = []
    monkeypatch.setattr("ivcp.cli.main.main", lambda: calls.append(sys.argv))
    return calls


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["train", "a.yaml", "learning_rate=1e-4"], ["train", "a.yaml", "learning_rate=1e-4"]),
        (["train", "--stage", "sft", "--do_train"], ["train", "--stage", "sft", "--do_train"]),
        (["export", "merge.yaml"], ["export", "merge.yaml"]),
        (["eval", "a.yaml"], ["evaluate", "a.yaml"]),
        (["version"], ["--version"]),
        (
            ["chat", "--model_name_or_path", "base", "--template", "qwen3_vl", "--top_p", "0.5"],
            ["chat", "--model-dir", "base", "template=qwen3_vl", "top_p=0.5"],
        ),
        (
            ["chat", "--model_name_or_path", "base", "--adapter_name_or_path", "saves/a"],
            ["chat", "--model-dir", "saves/a"],
        ),
    ],
)
def test_commands_are_those_of_ivcp(ran, monkeypatch, words, ours):
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", *words])
    llamafactory.main()
    assert ran == [["ivcp", *ours]]


def test_chat_reads_its_file(tmp_path):
    path = tmp_path / "chat.yaml"
    path.write_text(yaml.safe_dump({"model_name_or_path": "base", "temperature": 0.5, "do_sample": True}))
    assert llamafactory.chat_words([str(path), "temperature=0.1"]) == [
        *("--model-dir", "base"),
        *("do_sample=true", "temperature=0.1"),
    ]
    with pytest.raises(ConfigError, match="model_name_or_path is missing"):
        llamafactory.chat_words(["temperature=0.1"])


def test_api_reads_its_environment(tmp_path):
    path = tmp_path / "api.yaml"
    path.write_text(yaml.safe_dump({"model_name_or_path": "base", "infer_backend": "huggingface", "do_sample": True}))
    with llamafactory.api_words([str(path)], {}) as words:
        assert words == [*("--model-dir", "base", "--engine", "ivcp"), *PLACE, "do_sample=true"]
    key = "a-key-of-more-than-sixteen"
    environment = {"API_HOST": "127.0.0.1", "API_PORT": "9", "API_MODEL_NAME": "mine", "API_KEY": key}
    with llamafactory.api_words(["--adapter_name_or_path", "a", "--model_name_or_path", "b"], environment) as words:
        *others, keys = words
        assert others == [
            *("--model-dir", "a", "--engine", "ivcp", "--host", "127.0.0.1", "--port", "9", "--model-name", "mine")
        ]
        file = Path(keys.removeprefix("keys="))
        assert file.read_text() == key
        assert file.stat().st_mode & 0o077 == 0, "nobody else may read it"
    assert not file.exists()
    with llamafactory.api_words(["model_name_or_path=b", "infer_backend=vllm"], environment) as words:
        assert words[:4] == ["--model-dir", "b", "--engine", "vllm"]
        assert not any(word.startswith("keys=") for word in words)
    assert environment["VLLM_API_KEY"] == key
    with pytest.raises(ConfigError, match="infer_backend = sglang: choose from"):
        llamafactory.api_words(["model_name_or_path=b", "infer_backend=sglang"], {}).__enter__()


@pytest.mark.parametrize(
    ("command", "message"),
    [("webui", "`ivcp run`"), ("tarin", "Commands: train, export, eval, chat, api")],
)
def test_what_is_not_here_is_said(monkeypatch, capsys, command, message):
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", command])
    with pytest.raises(SystemExit) as raised:
        llamafactory.main()
    assert raised.value.code == 2
    assert f"there is no {command} here" in (said := capsys.readouterr().err)
    assert message in said


def test_the_command_is_in_a_distribution_of_its_own():
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    theirs = tomllib.loads((ROOT / "packages/llamafactory-cli/pyproject.toml").read_text())["project"]
    assert not {"llamafactory-cli", "lmf"} & set(ours["scripts"])
    assert set(theirs["scripts"].values()) == {"ivcp.cli.llamafactory:main"}
    assert ours["optional-dependencies"]["llamafactory-cli"] == [theirs["name"]]
    assert theirs["version"] == ours["version"]


@pytest.mark.slow
def test_it_is_a_command(tmp_path):
    """As pip writes it: a script that calls the function."""
    script = tmp_path / "llamafactory-cli"
    script.write_text(f"#!{sys.executable}\nfrom ivcp.cli.llamafactory import main\nmain()\n")
    script.chmod(0o755)
    done = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ivcp ")
    wrong = subprocess.run([script, "train", "learning_rat=1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "did you mean learning_rate?" in wrong.stderr
