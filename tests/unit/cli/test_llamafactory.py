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


@pytest.mark.parametrize(
    ("command", "message"),
    [("webui", "`ivcp run`"), ("api", "`ivcp serve`"), ("tarin", "Commands: train, export, eval, chat")],
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
