"""The options that commands share which start runs on a cluster: the server, and the runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ivcp.pipeline_runs.connection import Server
    from ivcp.pipeline_runs.limits import RunLimits

_SERVER, _RUN = "Server", "Runs"
KEEP_SUCCEEDED = "When Kubernetes forgets a run that succeeded, and its pods; KFP 2.17."
KEEP_FAILED = "When it forgets one that failed, and its logs; KFP 2.17."
DEADLINE = "When a run that goes on is terminated; KFP 2.17."


@dataclass(frozen=True)
class RunOptions:
    """Where runs go."""

    endpoint: Annotated[
        str | None,
        typer.Option(help="The server's address; default: KF_PIPELINES_ENDPOINT.", rich_help_panel=_SERVER),
    ] = None
    namespace: Annotated[
        str | None, typer.Option(help="Your profile, where users have one.", rich_help_panel=_SERVER)
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token; or KFP_TOKEN, KFP_COOKIE.", rich_help_panel=_SERVER)
    ] = None
    ca_file: Annotated[Path | None, typer.Option(help="Certificate of your authority.", rich_help_panel=_SERVER)] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="Check no certificate.", rich_help_panel=_SERVER)] = False
    experiment: Annotated[str, typer.Option(help="KFP's experiment of the runs.", rich_help_panel=_RUN)] = "ivcp"
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the steps; default: KFP's.", rich_help_panel=_RUN)
    ] = None
    deploy: Annotated[bool, typer.Option(help="Deploy a model that passes the gate.", rich_help_panel=_RUN)] = True

    keep_succeeded: Annotated[
        float | None, typer.Option(metavar="HOURS", help=KEEP_SUCCEEDED, rich_help_panel=_RUN)
    ] = None
    keep_failed: Annotated[float | None, typer.Option(metavar="HOURS", help=KEEP_FAILED, rich_help_panel=_RUN)] = None
    deadline: Annotated[float | None, typer.Option(metavar="HOURS", help=DEADLINE, rich_help_panel=_RUN)] = None

    def limits(self) -> RunLimits:
        """How long runs take and are kept.

        Raises:
            LimitsError: one is no time.
        """
        from ivcp.pipeline_runs.limits import RunLimits

        return RunLimits(self.keep_succeeded, self.keep_failed, self.deadline)

    def connect(self) -> Server:
        """The server, which answers and takes the credentials.

        Raises:
            ServerError: it does not.
        """
        from ivcp.pipeline_runs.connection import Server, ServerSettings

        return Server(
            ServerSettings(
                endpoint=self.endpoint,
                namespace=self.namespace,
                token_file=self.token_file.expanduser() if self.token_file else None,
                ca_file=self.ca_file.expanduser() if self.ca_file else None,
                verify_tls=not self.insecure,
            )
        )


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has the options of `RunOptions` beside its own, and is given them as its argument `options`."""
    hints = get_type_hints(RunOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(RunOptions)
    ]
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]

    @functools.wraps(command)
    def called(*arguments: Any, **words: Any) -> None:
        given = {field.name: words.pop(field.name) for field in fields(RunOptions) if field.name in words}
        command(*arguments, options=RunOptions(**given), **words)

    called.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return called
