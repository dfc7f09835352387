"""The command line of `ivcp predict`."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ivcp.cli.model_options import ModelDir, TrustRemoteCode
from ivcp.cli.paths import checked_model_dir, new_file
from ivcp.cli.predict.server import Concurrency, Deadline, Key, Url, Vllm, ask, connected
from ivcp.cli.predict.videos import find_videos
from ivcp.cli.terminal import FAILED, complain

if TYPE_CHECKING:
    from ivcp.cli.predict.outcomes import Output
    from ivcp.records.answers import Answer, Failure

INTERRUPTED = 130
"""As the shell says it of a command that Ctrl-C ended."""
_OF_MODEL, _OF_SERVER = ("model_dir", "trust_remote_code"), ("key", "deadline", "concurrency")
_NOT_OF_VLLM = ("url", "prompt", "start", "end")


def predict_command(
    context: typer.Context,
    videos: Annotated[
        list[str],
        typer.Argument(help="Files, folders, quoted patterns, s3:// or (of a server) https://.", show_default=False),
    ],
    model_dir: ModelDir = "runs/latest/model",
    prompt: Annotated[str | None, typer.Option(help="Ask this; default: the model's own question.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Show so many classes.", min=1)] = None,
    start: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where the clip begins.", min=0)] = None,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where the clip ends.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, as answers come.")] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="CSV into this file; - is stdout.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    url: Url = None,
    key: Key = None,
    deadline: Deadline = 120.0,
    concurrency: Concurrency = 4,
    vllm: Vllm = None,
) -> None:
    """Classify videos with an exported model, or with a predictor that serves one.

    Examples: `ivcp predict --model-dir runs/latest/model clip.mp4`,
    `ivcp predict --url https://actions.example.com --json videos/ 'more/*.mp4' s3://bucket/clip.mp4`
    """
    _check_options(context, has_server=url is not None)
    if vllm is not None:
        _check_options_of_vllm(context)
    if start is not None and end is not None and end <= start:
        raise ValueError(f"--start {start:g} --end {end:g}: expected an end behind the start")
    settings = {"prompt": prompt, "top_k": top_k, "start_seconds": start, "end_seconds": end}
    if url is not None:
        names, output = find_videos(videos, has_server=True), _output(as_json, csv, top_k)
        with connected(url, key, deadline_seconds=deadline) as client:
            _write(ask(client, names, concurrency=concurrency, **settings), output, total=len(names))
        return
    model_dir = checked_model_dir(model_dir)
    names, output = find_videos(videos, has_server=False), _output(as_json, csv, top_k)
    from ivcp.settings import ModelConfig

    machine = ModelConfig(trust_remote_code=trust_remote_code)
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if vllm is not None:
        from ivcp.cli.predict.vllm import classify_with_vllm

        _write(classify_with_vllm(model_dir, names, url=vllm, machine=machine, **given), output, total=len(names))
        return
    from ivcp.serving.files import classify_files

    _write(classify_files(model_dir, names, machine=machine, **given), output, total=len(names))


def _check_options(context: typer.Context, *, has_server: bool) -> None:
    """Options that would mean nothing are refused."""
    idle = _OF_MODEL if has_server else _OF_SERVER
    for name in idle:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            with_or_without = "is for a model directory: leave it out with --url" if has_server else "goes with --url"
            raise ValueError(f"--{name.replace('_', '-')} {with_or_without}")


def _check_options_of_vllm(context: typer.Context) -> None:
    """vLLM is asked for whole videos with the prompt of the training."""
    for name in _NOT_OF_VLLM:
        if context.params[name] is not None:
            raise ValueError(f"--{name} does not go with --vllm: leave one of them out")


def _output(as_json: bool, csv: str | None, top_k: int | None) -> Output:
    from ivcp.cli.predict.outcomes import STDOUT, CsvOutput, JsonOutput, TableOutput

    if as_json and csv is not None:
        raise ValueError("--json and --csv are two forms of the same: say one of them")
    if as_json:
        return JsonOutput(sys.stdout)
    if csv is None:
        return TableOutput(shows_others=(top_k or 1) > 1)
    return CsvOutput(sys.stdout if csv == STDOUT else new_file(Path(csv)))


def _write(outcomes: Generator[tuple[str, Answer | Failure]], output: Output, *, total: int) -> None:
    """Writes outcomes as they come; one bad video is a failure at the end, Ctrl-C keeps what was written."""
    from ivcp.records.answers import Failure
    from ivcp.tracking.progress import with_progress

    has_progress = total > 1 and not output.streams_to_terminal
    shown = with_progress(outcomes, total=total, what="videos classified") if has_progress else outcomes
    done = failed = 0
    try:
        with closing(outcomes), closing(shown):
            for video, outcome in shown:
                output.add(video, outcome)
                done, failed = done + 1, failed + isinstance(outcome, Failure)
        is_interrupted = False
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        output.close()
    if is_interrupted:
        complain(f"interrupted after {done} of {total} videos", style="yellow")
        raise typer.Exit(INTERRUPTED)
    if failed:
        raise typer.Exit(FAILED)
