"""The questions that imported rows ask: read from YAML, checked, and chosen per row by a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ivcp.data.prompts import PromptError, check_prompt
from ivcp.imports.listing import ImportRefusedError, read_source_text
from ivcp.records import Message

_TOKEN, _LABEL = "<ACTION>", "{label}"


@dataclass(frozen=True)
class Template:
    """A question that ends in the action token, and its answer."""

    user: str
    answer: str

    def conversation(self, label_name: str) -> list[dict[str, str]]:
        """The turns of a row, in the dialect of the seeds' documents."""
        answer = self.answer.replace(_LABEL, label_name)
        return [{"from": "human", "value": self.user}, *([{"from": "gpt", "value": answer}] if answer else [])]


def read_templates(path: Path | None, *, language: str, action_token: str) -> tuple[Template, ...]:
    """The templates of a YAML file, or those that come with the package: a list of `user` and `answer` per language.

    `<ACTION>` in the file becomes `action_token`.

    Raises:
        ImportRefusedError: the file has none in this language, or one of them cannot be classified.
    """
    where = str(path or "the package's templates")
    content = _parse(path)
    entries = content.get(language) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ImportRefusedError(f"{where}: expected a list of templates for the language {language!r}, got {found}")
    return tuple(_template(entry, action_token, f"{where}, {language} {n}") for n, entry in enumerate(entries))


def choose(templates: tuple[Template, ...], *, seed: int, row_id: str) -> Template:
    """The template of a row: the same for the same seed and row, whatever other rows there are."""
    digest = hashlib.sha256(f"{seed}:{row_id}".encode()).digest()
    return templates[int.from_bytes(digest[:8], "big") % len(templates)]


def _parse(path: Path | None) -> Any:
    text = read_source_text(path) if path else (resources.files(__package__) / "templates.yaml").read_text("utf-8")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ImportRefusedError(f"{path} is not valid YAML: {error}") from error


def _template(entry: Any, action_token: str, where: str) -> Template:
    if not isinstance(entry, dict) or not isinstance(entry.get("user"), str) or not set(entry) <= {"user", "answer"}:
        raise ImportRefusedError(f"{where}: expected the keys user and answer, got {entry!r}")
    template = Template(
        user=entry["user"].strip().replace(_TOKEN, action_token),
        answer=str(entry.get("answer") or "").strip().replace(_TOKEN, action_token),
    )
    if _LABEL in template.user:
        raise ImportRefusedError(f"{where}: {_LABEL} in the question would tell the model the answer")
    if not template.user.endswith(action_token):
        raise ImportRefusedError(f"{where}: expected the user's turn to end with {_TOKEN}, got {template.user!r}")
    turns = (Message(role="user", content=template.user), Message(role="assistant", content=template.answer))
    try:
        check_prompt(turns, action_token=action_token)
    except PromptError as error:
        raise ImportRefusedError(f"{where}: {error}") from error
    return template
