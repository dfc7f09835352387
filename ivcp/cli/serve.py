"""The command line of `ivcp serve`, and of `ivcp api`, which is the same."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ivcp.cli.model_options import ModelDir, TrustRemoteCode
from ivcp.cli.paths import checked_model_dir
from ivcp.cli.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_SECTIONS = ("generation", "video")
_READ_KEYS = ("trust_remote_code", "flash_attn", "quantization_bit", "quantization_type", "double_quantization")
"""Settings of runs that a server reads, the last ones of a base model alone."""


def serve_command(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="Settings of the server: docs/serving.md lists them; and, for a model that writes, of its answers.",
            show_default=False,
        ),
    ] = None,
    model_dir: ModelDir = "runs/latest/model",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    model_name: Annotated[
        str | None, typer.Option(help="What requests and answers call the model; default: its directory's name.")
    ] = None,
    engine: Annotated[
        Literal["ivcp", "vllm"], typer.Option(help="What computes; vllm is for merged models that write.")
    ] = "ivcp",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a model over HTTP: what it was trained for says what it answers.

    A classifier has a page at `/`, and `POST /v1/predict` with a video file. A model that writes, and a base model,
    have OpenAI's `POST /v1/chat/completions`; a reward model has `POST /v1/score`. `serve` and `api` are the same.

    Examples: `ivcp serve --model-dir runs/latest/model --port 8080 num_decoders=4 keys=/run/secrets/ivcp-keys`,
    `ivcp api --model-dir models/base video_num_frames=16 max_new_tokens=256`
    """
    from ivcp.serving.language.source import GREEDY
    from ivcp.serving.settings import ServerSettings
    from ivcp.settings import load_config, parse_overrides

    of_server, of_answers = _divided(settings or ())
    server = ServerSettings.from_environment(dict(word.partition("=")[::2] for word in of_server))
    run = load_config(None, GREEDY | {"trust_remote_code": trust_remote_code} | parse_overrides(of_answers))
    place = checked_model_dir(model_dir)
    if engine == "vllm":
        from ivcp.serving.vllm_engine import become, vllm_serve

        become(vllm_serve(place, host=host, port=port, model_name=model_name, run=run, settings=server))
    _check_means_something(place, of_answers)
    from ivcp.serving.server import serve, set_up_logging

    set_up_logging()
    serve(place, host=host, port=port, model_name=model_name, machine=run.model, settings=server, run=run)


def _divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of the server, and of how answers are written; a name that nobody knows is taken for the nearer one."""
    from ivcp.serving.settings import ServerSettings
    from ivcp.settings import describe_keys

    sections = {described.key: described.section for described in describe_keys()}
    of_server: list[str] = []
    of_answers: list[str] = []
    unread: list[str] = []
    for word in words:
        name = word.partition("=")[0]
        is_near = name not in sections and difflib.get_close_matches(name, ServerSettings.model_fields, n=1)
        (of_server if name in ServerSettings.model_fields or is_near or "=" not in word else of_answers).append(word)
        if name in sections and sections[name] not in _READ_SECTIONS and name not in _READ_KEYS:
            unread.append(name)
    if unread:
        complain(f"{', '.join(unread)}: no effect on a server", style="yellow")
    return of_server, of_answers


def _check_means_something(place: str, of_answers: Sequence[str]) -> None:
    """Raises:
    ValueError: a model that does not write is told how to.
    """
    if not of_answers:
        return
    from ivcp.serving.kinds import kind_of

    if (kind := kind_of(place)) != "writer":
        names = ", ".join(word.partition("=")[0] for word in of_answers)
        raise ValueError(f"{names}: {place} is a {kind}, and writes no answers: docs/serving.md lists its settings")
