"""Settings as command-line words: at most one YAML file, and settings that win over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ivcp.settings import RunConfig

TAKES_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True}
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE.yaml] [key=value | --key value]…",
        help="A YAML file with settings, and settings that win over it. `ivcp config --help-keys` lists them.",
        show_default=False,
    ),
]


def read_settings(words: list[str] | None) -> RunConfig:
    """The configuration from command-line words."""
    from ivcp.settings import load_config, read_words

    return load_config(*read_words(words or []))
