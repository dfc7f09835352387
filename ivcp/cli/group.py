"""The command `ivcp` as a group of commands: what other tools call theirs is answered with what there is here."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_ELSEWHERE = {
    "chat": (
        "`ivcp chat VIDEO.mp4 --model-dir DIR` talks to a model that writes; one that classifies answers to `ivcp "
        "predict --model-dir DIR VIDEO.mp4`"
    ),
    "webui": (
        "settings are a YAML file (`ivcp config --help-keys` lists them); `ivcp run` writes reports as web pages, "
        "`mlflow ui` shows the runs, and on a cluster the form is that of Kubeflow Pipelines (`ivcp submit`)"
    ),
    "eval": "`ivcp evaluate my.yaml` measures an adapter on the test split",
    "infer": "`ivcp predict --model-dir DIR VIDEO.mp4` classifies files",
    "merge": "`ivcp export my.yaml` merges an adapter into a servable model",
    "deploy": "`ivcp submit my.yaml serve_target=cluster` deploys a model that passes the gate; `ivcp serve` here",
    "version": "`ivcp --version` shows it",
    "env": "`ivcp --version` shows the version; each run's run_record.json holds those of all packages",
    "help": "`ivcp --help`, or `ivcp COMMAND --help`",
}
_ALIASES = {"webchat": "chat", "cli": "chat", "evaluation": "eval", "test": "eval", "inference": "infer"}
"""Other words for the same."""


class Commands(TyperGroup):
    """Commands, and words for those that other tools have."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Called by typer with the words behind `ivcp`.

        Raises:
            ValueError: the first one is a command of another tool.
        """
        word = args[0].lower()
        answer = _ELSEWHERE.get(_ALIASES.get(word, word))
        if answer is not None and word not in self.commands:
            raise ValueError(f"there is no command {args[0]}: {answer}")
        return super().resolve_command(ctx, args)
