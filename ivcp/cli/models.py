"""`ivcp models`: what is registered, what serves of it, and the way forth and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ivcp.cli.settings_words import TAKES_SETTINGS, Settings, read_settings
from ivcp.cli.terminal import say, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ivcp.records.registered import RegisteredVersion
    from ivcp.settings import RunConfig

models = typer.Typer(
    name="models",
    help="See the registered versions of a model; promote one, or go back to the one before, endpoint and all.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_FIGURES = 3
"""Columns of figures in the list."""

Version = Annotated[str, typer.Argument(metavar="VERSION", help="A number, or an alias such as challenger.")]
Deploy = Annotated[bool, typer.Option(help="Deploy it where the settings say, and check its answer, first.")]
OutputDir = Annotated[Path, typer.Option(help="Folder for what the deployment writes.")]


@models.command("list", context_settings=TAKES_SETTINGS)
def list_command(settings: Settings = None) -> None:
    """List the versions of the registered model, the newest first.

    Example: `ivcp models list my.yaml`
    """
    from rich.table import Table

    config = read_settings(settings)
    versions = _versions(config)
    names = _shown_figures(versions)
    table = Table(title=f"{config.registered_name}", title_justify="left")
    for name in ("version", "alias", "registered", *names, "serves", "was promoted", "directory"):
        table.add_column(name, justify="right" if name in names else "left")
    for version in versions:
        figures = version.figures
        table.add_row(
            str(version.version),
            ", ".join(version.aliases),
            version.registered_at[:16].replace("T", " "),
            *(f"{figures[name]:.4g}" if name in figures else "" for name in names),
            version.deployed_to or "",
            (version.promoted_at or "")[:16].replace("T", " "),
            version.model_dir,
        )
    show_table(table)


@models.command("compare", context_settings=TAKES_SETTINGS)
def compare_command(first: Version, second: Version, settings: Settings = None) -> None:
    """Put the figures of two versions side by side, and the settings in which they differ.

    Example: `ivcp models compare champion challenger my.yaml`
    """
    from rich.table import Table

    from ivcp.deployment.versions import settings_apart

    config = read_settings(settings)
    versions = _versions(config)
    ours, theirs = _find(versions, first, config), _find(versions, second, config)
    table = Table(title=config.registered_name, title_justify="left")
    for column in ("", f"version {ours.version}", f"version {theirs.version}"):
        table.add_column(column, justify="left" if not column else "right")
    figures = ours.figures, theirs.figures
    for name in sorted(figures[0].keys() | figures[1].keys()):
        table.add_row(name, *(f"{of[name]:.4g}" if name in of else "" for of in figures))
    for name, one, other in settings_apart(ours, theirs):
        table.add_row(name, one, other)
    show_table(table)
    if ours.test_fingerprint is None or ours.test_fingerprint != theirs.test_fingerprint:
        say("They were measured on other clips: their figures are not comparable.")


@models.command("promote", context_settings=TAKES_SETTINGS)
def promote_command(
    version: Version,
    settings: Settings = None,
    deploy: Deploy = True,
    output_dir: OutputDir = Path("runs/deployment"),
) -> None:
    """Make a version the champion: it is deployed, asked for a clip, and gets the alias when its answer is right.

    Example: `ivcp models promote 7 my.yaml serve_target=cluster`
    """
    config = read_settings(settings)
    _put_into_service(config, _find(_versions(config), version, config), deploy=deploy, output_dir=output_dir)


@models.command("rollback", context_settings=TAKES_SETTINGS)
def rollback_command(
    settings: Settings = None, deploy: Deploy = True, output_dir: OutputDir = Path("runs/deployment")
) -> None:
    """Go back to the version that was the champion before, endpoint and alias together; once more, and forth again.

    Example: `ivcp models rollback my.yaml serve_target=cluster`
    """
    from ivcp.deployment.versions import version_before

    config = read_settings(settings)
    former = version_before(_versions(config), config.export.model_alias)
    _put_into_service(config, former, deploy=deploy, output_dir=output_dir)


def _put_into_service(config: RunConfig, version: RegisteredVersion, *, deploy: bool, output_dir: Path) -> None:
    from ivcp.deployment.versions import put_into_service

    result = put_into_service(config, version, output_dir=output_dir, deploy=deploy)
    if result is not None:
        say(result.summary)
    say(f"version {version.version} of {version.name} is the {config.export.model_alias}")


def _versions(config: RunConfig) -> list[RegisteredVersion]:
    """All versions.

    Raises:
        ConfigError: there are none.
    """
    from ivcp.settings import ConfigError
    from ivcp.tracking import registered_versions, tracking_uri

    versions = registered_versions(config)
    if not versions:
        raise ConfigError(
            f"no model is registered as {config.registered_name} in {tracking_uri(config)}: mlflow_tracking_uri, stage "
            "and registered_model_name say which one is meant"
        )
    return versions


def _find(versions: Sequence[RegisteredVersion], named: str, config: RunConfig) -> RegisteredVersion:
    from ivcp.settings import ConfigError

    number = int(named.lstrip("vV")) if re.fullmatch(r"[vV]?\d+", named) else None
    for version in versions:
        if version.version == number or named in version.aliases:
            return version
    known = ", ".join(
        f"{version.version}" + (f" ({', '.join(version.aliases)})" if version.aliases else "") for version in versions
    )
    raise ConfigError(f"{config.registered_name} has no version {named}: there are {known}")


def _shown_figures(versions: Sequence[RegisteredVersion]) -> list[str]:
    """The first figures, of which most versions have one."""
    names = sorted({name for version in versions for name in version.figures})
    return sorted(names, key=lambda name: -sum(name in version.figures for version in versions))[:_FIGURES]
