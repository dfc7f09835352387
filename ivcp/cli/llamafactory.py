"""LLaMA-Factory's command line: the same words run this project's commands.

`llamafactory-cli` comes with the distribution `ivcp-llamafactory-cli` (packages/llamafactory-cli) alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ivcp.cli.terminal import TRACEBACK, WRONG_CALL, complain, explained, say

_SAME = {"train": "train", "export": "export", "eval": "evaluate"}
"""Commands whose words are the same here."""
_INSTEAD = {
    "webui": "write a settings file and give it to `ivcp run`; `ivcp serve` has a page to try a classifier on",
    "webchat": "`ivcp chat` asks a model that writes; `ivcp serve` has a page to try a classifier on",
}
_MODEL_OPTIONS = ("model_name_or_path", "adapter_name_or_path")
_ENGINES = {"huggingface": "ivcp", "hf": "ivcp", "vllm": "vllm"}
"""Theirs → ours."""
_API_OPTIONS = (
    ("--host", "API_HOST", "0.0.0.0"),
    ("--port", "API_PORT", "8000"),
    ("--model-name", "API_MODEL_NAME", None),
)
"""Option of `ivcp api`, LLaMA-Factory's environment variable for it, and its default there."""
_HELP = f"""llamafactory-cli COMMAND [FILE.yaml] [key=value | --key value]…
This is IVCP under LLaMA-Factory's name. Commands: {", ".join((*_SAME, "chat", "api", "env", "version", "help"))}."""


def main() -> None:
    """Runs the command that LLaMA-Factory calls so."""
    words = sys.argv[1:]
    command = words[0] if words else "help"
    with explained(with_traceback=TRACEBACK in words):
        if command in _SAME:
            _run(_SAME[command], words[1:])
        elif command == "chat":
            _run("chat", chat_words(words[1:]))
        elif command == "api":
            with api_words(words[1:], os.environ) as ours:
                _run("api", ours)
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
    directory, settings = _model_and_settings("chat", words)
    return ["--model-dir", directory, *(_word(key, value) for key, value in settings.items())]


@contextmanager
def api_words(words: Sequence[str], environment: MutableMapping[str, str]) -> Iterator[list[str]]:
    """Inside, the words of `ivcp api` for those of LLaMA-Factory's and its environment: API_HOST and the like.

    Raises:
        ConfigError: the words are no settings, name no model, or an engine that is not here.
    """
    from ivcp.settings import ConfigError

    directory, settings = _model_and_settings("api", words)
    backend = str(settings.pop("infer_backend", "huggingface"))
    if backend not in _ENGINES:
        raise ConfigError(f"infer_backend = {backend}: choose from {', '.join(_ENGINES)}")
    engine = _ENGINES[backend]
    ours = ["--model-dir", directory, "--engine", engine]
    for option, variable, default in _API_OPTIONS:
        if value := environment.get(variable, default):
            ours += [option, value]
    if engine == "vllm" and (key := environment.pop("API_KEY", None)):
        environment["VLLM_API_KEY"] = key  # of vLLM, which takes the place of this process
    with _key_file(environment.get("API_KEY")) as keys:
        yield [*ours, *keys, *(_word(key, value) for key, value in settings.items())]


@contextmanager
def _key_file(key: str | None) -> Iterator[list[str]]:
    """Inside, a key lies in a file that this user alone can read; the setting that names it."""
    if not key:
        yield []
        return
    with tempfile.NamedTemporaryFile("w", prefix="api-key-", encoding="utf-8") as file:
        file.write(key)
        file.flush()
        yield [f"keys={file.name}"]


def _model_and_settings(command: str, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The directory that words name, and what else they say."""
    from ivcp.settings import ConfigError, read_words
    from ivcp.settings.files import read_yaml

    file, settings = read_words([word for word in words if word != TRACEBACK])
    settings = (read_yaml(Path(file)) if file else {}) | settings
    directory = settings.get("adapter_name_or_path") or settings.get("model_name_or_path")
    if directory is None:
        raise ConfigError(
            f"{command}: model_name_or_path is missing: name a base model, or what training or export wrote"
        )
    return str(directory), {key: value for key, value in settings.items() if key not in _MODEL_OPTIONS}


def _word(key: str, value: Any) -> str:
    import yaml

    return f"{key}={yaml.safe_dump(value, default_flow_style=True).strip().removesuffix('...').strip()}"


def _run(command: str, words: Sequence[str]) -> None:
    """This project's command line, as if it had been called with these words."""
    from ivcp.cli.main import main as ivcp

    sys.argv = ["ivcp", command, *words]
    ivcp()
