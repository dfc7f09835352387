"""LLaMA-Factory's command line: the same words run this project's commands.

`llamafactory-cli` comes with the distribution `ivcp-llamafactory-cli` (packages/llamafactory-cli) alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ivcp.cli.terminal import TRACEBACK, WRONG_CALL, complain, explained, say

_SAME = {"train": "train", "export": "export", "eval": "evaluate"}
"""Commands whose words are the same here."""
_INSTEAD = {
    "api": "`ivcp serve` serves classifiers over HTTP (docs/serving.md); `ivcp chat` asks a model that writes",
    "webui": "write a settings file and give it to `ivcp run`; `ivcp serve` has a page to try a classifier on",
    "webchat": "`ivcp chat` asks a model that writes; `ivcp serve` has a page to try a classifier on",
}
_CHAT_OPTIONS = ("model_name_or_path", "adapter_name_or_path")
_HELP = f"""llamafactory-cli COMMAND [FILE.yaml] [key=value | --key value]…
This is IVCP under LLaMA-Factory's name. Commands: {", ".join((*_SAME, "chat", "env", "version", "help"))}."""


def main() -> None:
    """Runs the command that LLaMA-Factory calls so."""
    words = sys.argv[1:]
    command = words[0] if words else "help"
    with explained(with_traceback=TRACEBACK in words):
        if command in _SAME:
            _run(_SAME[command], words[1:])
        elif command == "chat":
            _run("chat", chat_words(words[1:]))
        elif command in ("version", "env"):
            _run("--version", [])
        elif command in ("help", "--help", "-h"):
            say(_HELP)
        else:
            hint = _INSTEAD.get(command, _HELP)
            complain(f"error: there is no {command} here: {hint}")
            raise SystemExit(WRONG_CALL)


def chat_words(words: Sequence[str]) -> list[str]:
    """The words of `ivcp chat` for those of LLaMA-Factory's: its model, or its adapter, is the directory.

    Raises:
        ConfigError: the words are no settings, or name no model.
    """
    from ivcp.settings import ConfigError, read_words
    from ivcp.settings.files import read_yaml

    file, settings = read_words([word for word in words if word != TRACEBACK])
    settings = (read_yaml(Path(file)) if file else {}) | settings
    directory = settings.get("adapter_name_or_path") or settings.get("model_name_or_path")
    if directory is None:
        raise ConfigError("chat: model_name_or_path is missing: name a base model, or what training or export wrote")
    others = [_word(key, value) for key, value in settings.items() if key not in _CHAT_OPTIONS]
    return ["--model-dir", str(directory), *others]


def _word(key: str, value: Any) -> str:
    import yaml

    return f"{key}={yaml.safe_dump(value, default_flow_style=True).strip().removesuffix('...').strip()}"


def _run(command: str, words: Sequence[str]) -> None:
    """This project's command line, as if it had been called with these words."""
    from ivcp.cli.main import main as ivcp

    sys.argv = ["ivcp", command, *words]
    ivcp()
