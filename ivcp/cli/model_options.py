"""The options of commands that load a model directory."""

from __future__ import annotations

from typing import Annotated

import typer

ModelDir = Annotated[
    str, typer.Option(help="Model directory that export wrote: a path or an s3:// URI.", envvar="IVCP_MODEL_URI")
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run modelling code that comes with the model.",
        envvar="IVCP_TRUST_REMOTE_CODE",
    ),
]
