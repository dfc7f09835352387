"""The `ivcp` command.

Exit codes: 0 done; 1 a step failed; 2 the call, a file or a setting is wrong; 3 the gate refused the model; 75
the run or its training was interrupted, the same command again goes on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ivcp.cli.cluster_commands import schedule_command, submit_command
from ivcp.cli.import_command import import_command
from ivcp.cli.settings_words import TAKES_SETTINGS, Settings, read_settings

FAILED, WRONG_CALL, REFUSED, INTERRUPTED = 1, 2, 3, 75

app = typer.Typer(
    name="ivcp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Turn a video language model into an action classifier: validate, prepare, train, evaluate, export, serve.",
    epilog="Exit codes: 0 done; 1 a step failed; 2 a wrong call, file or setting; 3 the gate refused the model.",
)
console = Console()
errors = Console(stderr=True)

app.command("import")(import_command)
app.command("submit", context_settings=TAKES_SETTINGS)(submit_command)
app.command("schedule", context_settings=TAKES_SETTINGS)(schedule_command)
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


@app.command(context_settings=TAKES_SETTINGS)
def run(
    settings: Settings = None,
    deploy: Annotated[bool, typer.Option(help="Start the predictor and send it a test clip.")] = True,
    runs_dir: Annotated[Path, typer.Option(help="Folder that runs are written to.")] = Path("runs"),
    containers: Annotated[
        bool, typer.Option("--containers", help="Run each step in its image, through Docker or Podman.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, whatever an earlier run left.")] = False,
) -> None:
    """Run the whole pipeline on this machine, with no cluster; the same command again goes on with an interrupted run.

    Example: `ivcp run pipelines/configs/demo.yaml num_train_epochs=3`
    """
    config = read_settings(settings)
    from ivcp.cli.console import show_summary
    from ivcp.pipeline_runs.local import PipelineFailedError, run_locally

    try:
        summary = run_locally(config, runs_dir=runs_dir, deploy=deploy, containers=containers, fresh=fresh)
    except PipelineFailedError as error:
        show_summary(error.summary, console)
        raise
    show_summary(summary, console)
    if summary.status == "refused":
        raise typer.Exit(REFUSED)
    if summary.status == "interrupted":
        raise typer.Exit(INTERRUPTED)


@app.command("compile")
def compile_pipeline(
    output: Annotated[Path, typer.Argument(help="File to write.")] = Path("action_cls.yaml"),
    kubernetes_manifest: Annotated[
        bool, typer.Option("--kubernetes-manifest", help="Write Pipeline and PipelineVersion objects for kubectl.")
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="Of these objects; default: kubectl's.")] = None,
) -> None:
    """Compile the pipeline to YAML for a cluster.

    Examples: `ivcp compile action_cls.yaml`, `ivcp compile --kubernetes-manifest manifest.yaml --namespace kubeflow`
    """
    from ivcp.pipeline_runs.submit import compile_manifest
    from ivcp.pipeline_runs.submit import compile_pipeline as write

    version = compile_manifest(output, namespace=namespace) if kubernetes_manifest else write(output)
    console.print(f"wrote {output} (version {version})", highlight=False)


@app.command(context_settings=TAKES_SETTINGS)
def validate(settings: Settings = None) -> None:
    """Check every row and every video, and write the report.

    Example: `ivcp validate my.yaml max_invalid_fraction=0.1`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    report = single_steps.validate(config)
    console.print(report.summary, highlight=False)
    console.print(f"report: {single_steps.validated_dir(config) / 'report.html'}", highlight=False)


@app.command(context_settings=TAKES_SETTINGS)
def prepare(settings: Settings = None) -> None:
    """Decode every clip once and write the shards that training reads.

    Example: `ivcp prepare my.yaml video_num_frames=16`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    index = single_steps.prepare(config)
    clips = ", ".join(f"{count} {split}" for split, count in index.num_clips.items() if count)
    console.print(f"{clips} clips, {index.mean_tokens:.0f} tokens each, in {index.root_uri}", highlight=False)


@app.command(context_settings=TAKES_SETTINGS)
def train(settings: Settings = None) -> None:
    """Train, preparing the data first where that is needed.

    Examples: `ivcp train my.yaml`, `ivcp train my.yaml learning_rate=1e-4 --lora_rank 16`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    if not config.train.do_train:
        evaluate(settings)
        return
    result = single_steps.train(config)
    console.print(f"{result.summary}; adapter in {config.train.output_dir}", highlight=False)


@app.command(context_settings=TAKES_SETTINGS)
def evaluate(settings: Settings = None) -> None:
    """Measure an adapter on the test split.

    Example: `ivcp evaluate my.yaml disturb_frames=reversed,shuffled,middle`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps
    from ivcp.cli.console import show_metrics

    metrics = single_steps.evaluate(config)
    show_metrics(metrics, console)
    console.print(f"report: {single_steps.results_dir(config) / 'report.html'}", highlight=False)
    if not metrics.gate.passed:
        errors.print(f"refused: {'; '.join(metrics.gate.reasons)}", highlight=False)
        raise typer.Exit(REFUSED)


@app.command(context_settings=TAKES_SETTINGS)
def export(settings: Settings = None) -> None:
    """Merge the adapter into a servable model directory and register it; without a data set, merge it only.

    Examples: `ivcp export my.yaml export_dir=models/mine`, `ivcp export merge.yaml`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    result = single_steps.export(config)
    console.print(f"{result.summary}, in {result.model_dir}", highlight=False)


@app.command()
def predict(
    videos: Annotated[list[Path], typer.Argument(help="Video files.", show_default=False)],
    model_dir: ModelDir = "runs/latest/model",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Classify videos with an exported model.

    Example: `ivcp predict --model-dir runs/latest/model clip.mp4`
    """
    from ivcp.serving.predictor import Answer, predict_files
    from ivcp.settings import ModelConfig

    answers = predict_files(model_dir, videos, machine=ModelConfig(trust_remote_code=trust_remote_code))
    table = Table("video", "prediction", "confidence")
    for video, answer in zip(videos, answers, strict=True):
        if isinstance(answer, Answer):
            table.add_row(str(video), answer.label_name, f"{answer.confidence:.3f}")
        else:
            table.add_row(str(video), str(answer), "–")
    console.print(table)
    if not all(isinstance(answer, Answer) for answer in answers):
        raise typer.Exit(FAILED)


@app.command()
def serve(
    model_dir: ModelDir = "runs/latest/model",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve an exported model over HTTP: `POST /v1/predict` with a video file.

    Example: `ivcp serve --model-dir runs/latest/model --port 8080`
    """
    from ivcp.serving.server import serve as serve_model
    from ivcp.settings import ModelConfig

    serve_model(model_dir, host=host, port=port, machine=ModelConfig(trust_remote_code=trust_remote_code))


@app.command("sample-data")
def sample_data(
    output_dir: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("data/sample"),
    num_train_clips: Annotated[int, typer.Option(help="Clips for training and validation.")] = 1000,
    num_test_clips: Annotated[int, typer.Option(help="Clips of other performers for testing.")] = 300,
    seed: Annotated[int, typer.Option(help="Another seed draws other clips.")] = 0,
) -> None:
    """Draw the sample data set: short clips of a figure doing eleven actions.

    Example: `ivcp sample-data data/sample --seed 1`
    """
    from ivcp.demo.sample_data import generate_sample_data

    made = generate_sample_data(output_dir, num_train_clips=num_train_clips, num_test_clips=num_test_clips, seed=seed)
    console.print(f"{made.num_train_clips} + {made.num_test_clips} clips in {made.directory}", highlight=False)
    console.print(f"look at {made.contact_sheet}", highlight=False)


@app.command("tiny-model")
def tiny_model(
    output_dir: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("models/tiny-qwen2-vl"),
    architecture: Annotated[
        Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"], typer.Option(help="Model family.")
    ] = "qwen2_vl",
    warm_up: Annotated[bool, typer.Option(help="Train it on poses of randomly moving figures.")] = True,
    seed: Annotated[int, typer.Option(help="Another seed makes other weights.")] = 0,
) -> None:
    """Build a tiny base model of a real architecture, so that nothing has to be downloaded.

    Example: `ivcp tiny-model models/tiny-qwen3-vl --architecture qwen3_vl`
    """
    from ivcp.demo.tiny_model import build_tiny_model

    console.print(
        f"base model in {build_tiny_model(output_dir, architecture=architecture, warm_up=warm_up, seed=seed)}"
    )


@app.command(context_settings=TAKES_SETTINGS)
def config(
    settings: Settings = None,
    help_keys: Annotated[bool, typer.Option("--help-keys", help="List every key with its meaning.")] = False,
) -> None:
    """Print the settings that result from a file and overrides, as YAML, or every key there is.

    Examples: `ivcp config my.yaml lora_rank=16`, `ivcp config --help-keys`
    """
    if help_keys:
        _show_keys()
        return
    import yaml

    typer.echo(yaml.safe_dump(read_settings(settings).flat(), sort_keys=False, allow_unicode=True), nl=False)


def main() -> None:
    """Runs the command; a wrong file or setting is one message on stderr, like a wrong call."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        app()
    except (ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        sys.exit(WRONG_CALL)
    except RuntimeError as error:
        errors.print(f"failed: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        sys.exit(FAILED)


def _show_keys() -> None:
    from ivcp.settings import describe_keys

    shown = ""
    for key, section, default, meaning in describe_keys():
        if section != shown:
            typer.echo(f"\n# {section}")
            shown = section
        typer.echo(f"{key}: {default}\n    {meaning}")


if __name__ == "__main__":
    main()
