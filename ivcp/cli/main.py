"""The `ivcp` command.

Exit codes: 0 done; 1 a step failed, or a video has no answer; 2 the call, a file or a setting is wrong; 3 the gate
refused the model; 75 the run or its training was interrupted, the same command again goes on; 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ivcp.cli.chat import chat_command
from ivcp.cli.cluster_commands import schedule_command, submit_command
from ivcp.cli.group import Commands
from ivcp.cli.import_command import import_command
from ivcp.cli.models import models
from ivcp.cli.paths import new_file, new_folder
from ivcp.cli.predict.command import predict_command
from ivcp.cli.predict.timeline import timeline_command
from ivcp.cli.processes import train_in_processes
from ivcp.cli.run_options import DEADLINE, KEEP_FAILED, KEEP_SUCCEEDED
from ivcp.cli.serve import serve_command
from ivcp.cli.settings_words import TAKES_SETTINGS, Settings, read_settings
from ivcp.cli.sweep import sweep_command
from ivcp.cli.terminal import REFUSED, TRACEBACK, complain, explained, say

INTERRUPTED = 75

app = typer.Typer(
    name="ivcp",
    cls=Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Exit codes: 0 done; 1 a step failed; 2 a wrong call, file or setting; 3 the gate refused the model.",
)
app.command("import")(import_command)
app.command("chat")(chat_command)
app.command("predict")(predict_command)
app.command("timeline")(timeline_command)
app.command("serve")(serve_command)
app.command("api")(serve_command)
app.command("sweep", context_settings=TAKES_SETTINGS)(sweep_command)
app.add_typer(models)
app.command("submit", context_settings=TAKES_SETTINGS)(submit_command)
app.command("schedule", context_settings=TAKES_SETTINGS)(schedule_command)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from ivcp.packages import own_version

        say(f"ivcp {own_version()}")
        raise typer.Exit()


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    traceback: Annotated[bool, typer.Option(TRACEBACK, help="Show where an error came from; anywhere.")] = False,
) -> None:
    """Turn a video language model into an action classifier: validate, prepare, train, evaluate, export, serve."""


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

    A file with a list `curriculum` of settings files runs them one after another, each on the model of the one before
    (docs/language.md). `folds=5`, `seeds=3` and `official_splits=…` are several trainings with one result
    (docs/evaluation.md).

    Example: `ivcp run pipelines/configs/demo.yaml num_train_epochs=3`
    """
    from ivcp.checks.run import check_local_run
    from ivcp.cli.console import show_summary
    from ivcp.cli.curriculum import find_curriculum, run_stages
    from ivcp.cli.series import run_series
    from ivcp.pipeline_runs.local import PipelineFailedError, run_locally

    stages = find_curriculum(settings or [])
    try:
        if stages:
            summary = run_stages(stages, new_folder(runs_dir), deploy=deploy, containers=containers, fresh=fresh)
        else:
            config = read_settings(settings)
            if config.protocol.repeats or config.protocol.fold is not None:
                _exit_for(run_series(config, new_folder(runs_dir), deploy=deploy, containers=containers, fresh=fresh))
                return
            check_local_run(config, containers=containers)
            folder = new_folder(runs_dir)
            summary = run_locally(config, runs_dir=folder, deploy=deploy, containers=containers, fresh=fresh)
    except PipelineFailedError as error:
        show_summary(error.summary)
        raise
    show_summary(summary)
    _exit_for(summary.status)


def _exit_for(status: str) -> None:
    """Ends the process with the exit code of what a run came to, where that is not 0."""
    if code := {"refused": REFUSED, "interrupted": INTERRUPTED}.get(status):
        raise typer.Exit(code)


@app.command("compile")
def compile_pipeline(
    output: Annotated[Path, typer.Argument(help="File to write.")] = Path("action_cls.yaml"),
    kubernetes_manifest: Annotated[
        bool, typer.Option("--kubernetes-manifest", help="Write Pipeline and PipelineVersion objects for kubectl.")
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="Of these objects; default: kubectl's.")] = None,
    in_parts: Annotated[
        bool, typer.Option("--in-parts", help="Prepare clips in several pods: see preprocessing_parts.")
    ] = False,
    kfp: Annotated[
        Literal["2.14", "2.15", "2.17"],
        typer.Option(help="The oldest server that takes it; from 2.17 on the form has drop-downs."),
    ] = "2.14",
    stages: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many it trains: several are those of a curriculum.")
    ] = 1,
    keep_succeeded: Annotated[float | None, typer.Option(metavar="HOURS", help=KEEP_SUCCEEDED)] = None,
    keep_failed: Annotated[float | None, typer.Option(metavar="HOURS", help=KEEP_FAILED)] = None,
    deadline: Annotated[float | None, typer.Option(metavar="HOURS", help=DEADLINE)] = None,
) -> None:
    """Compile the pipeline to YAML for a cluster.

    Examples: `ivcp compile action_cls.yaml --kfp 2.17`, `ivcp compile --kubernetes-manifest manifest.yaml`
    """
    from ivcp.pipeline_runs.limits import RELEASE, LimitsError, RunLimits
    from ivcp.pipeline_runs.submit import Variant, compile_manifest, is_compiled
    from ivcp.pipeline_runs.submit import compile_pipeline as write

    output = new_file(output)
    if output.is_file() and not is_compiled(output):
        raise ValueError(
            f"{output} is there and no compiled pipeline: compile takes the path of the file to write, and no "
            "settings; those of a run go to `ivcp submit`"
        )
    limits = RunLimits(keep_succeeded, keep_failed, deadline)
    major, minor = kfp.split(".")
    variant = Variant(stages=stages, in_parts=in_parts, release=(int(major), int(minor)), limits=limits)
    if limits.fields and variant.release < RELEASE:
        raise LimitsError("limits are fields of KFP 2.17, older servers refuse them: compile with --kfp 2.17")
    version = compile_manifest(output, variant, namespace=namespace) if kubernetes_manifest else write(output, variant)
    say(f"wrote {output.absolute()} (version {version})")


@app.command(context_settings=TAKES_SETTINGS)
def validate(settings: Settings = None) -> None:
    """Check every row and every video, and write the report.

    Example: `ivcp validate my.yaml max_invalid_fraction=0.1`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    report = single_steps.validate(config)
    say(report.summary)
    say(f"report: {(single_steps.validated_dir(config) / 'report.html').absolute()}")


@app.command(context_settings=TAKES_SETTINGS)
def prepare(settings: Settings = None) -> None:
    """Decode every clip once and write the shards that training reads.

    Example: `ivcp prepare my.yaml video_num_frames=16`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    index = single_steps.prepare(config)
    clips = ", ".join(f"{count} {split}" for split, count in index.num_clips.items() if count)
    say(f"{clips} clips, {index.mean_tokens:.0f} tokens each, in {index.root_uri}")


@app.command(context_settings=TAKES_SETTINGS)
def train(settings: Settings = None) -> None:
    """Train, preparing the data first where that is needed; where several GPUs are visible, in a process for each.

    Examples: `ivcp train my.yaml`, `ivcp train my.yaml learning_rate=1e-4 --lora_rank 16`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    if not config.train.do_train:
        evaluate(settings)
        return
    from torch.cuda import device_count

    from ivcp.launch.here import processes_here

    processes = processes_here(config.launch, visible_gpus=device_count(), environment=os.environ)
    if processes > 1:
        train_in_processes(settings or [], processes)
        return
    result = single_steps.train(config)
    say(f"{result.summary}; adapter in {Path(config.train.output_dir).absolute()}")


@app.command(context_settings=TAKES_SETTINGS)
def evaluate(settings: Settings = None) -> None:
    """Measure an adapter on the test split.

    Example: `ivcp evaluate my.yaml disturb_frames=reversed,shuffled,middle`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps
    from ivcp.cli.console import show_metrics

    metrics = single_steps.evaluate(config)
    show_metrics(metrics)
    say(f"report: {(single_steps.results_dir(config) / 'report.html').absolute()}")
    if not metrics.gate.passed:
        complain(f"refused: {'; '.join(metrics.gate.reasons)}")
        raise typer.Exit(REFUSED)


@app.command(context_settings=TAKES_SETTINGS)
def export(settings: Settings = None) -> None:
    """Merge the adapter into a servable model directory and register it; without a data set, merge it only.

    Other exits are settings: `export_hub_model_id` uploads it to the Hugging Face hub (with HF_TOKEN from the
    environment), `export_engines` makes it one that vLLM and transformers read too, `export_image` writes a container
    image.

    Examples: `ivcp export my.yaml export_dir=models/mine`, `ivcp export merge.yaml`,
    `ivcp export merge.yaml export_hub_model_id=me/actions export_engines=transformers,vllm`
    """
    config = read_settings(settings)
    from ivcp import steps as single_steps

    result = single_steps.export(config)
    say(f"{result.summary}, in {Path(result.model_dir).absolute()}")


@app.command("sample-data")
def sample_data(
    output_dir: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("data/sample"),
    num_train_clips: Annotated[int, typer.Option(help="Clips for training and validation.", min=1)] = 1000,
    num_test_clips: Annotated[int, typer.Option(help="Clips of other performers for testing.", min=0)] = 300,
    seed: Annotated[int, typer.Option(help="Another seed draws other clips.", min=0)] = 0,
    labels: Annotated[
        Literal["multi", "heads", "speed"] | None,
        typer.Option(
            help="Other labels than one class: several at once, an action and a direction, or a number.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw the sample data set: short clips of a figure doing eleven actions.

    Examples: `ivcp sample-data data/sample --seed 1`, `ivcp sample-data data/several --labels multi`
    """
    counts = {"num_train_clips": num_train_clips, "num_test_clips": num_test_clips, "seed": seed}
    if labels is not None:
        from ivcp.demo.sample_labels import SETTINGS, generate_labelled_data

        made = generate_labelled_data(new_folder(output_dir), labels, **counts)
        say(f"train with {SETTINGS[labels]}")
    else:
        from ivcp.demo.sample_data import generate_sample_data

        made = generate_sample_data(new_folder(output_dir), **counts)
    say(f"{made.num_train_clips} + {made.num_test_clips} clips in {made.directory.absolute()}")
    say(f"look at {made.contact_sheet.absolute()}")


@app.command("tiny-model")
def tiny_model(
    output_dir: Annotated[
        Path | None,
        typer.Argument(help="Folder to write; models/tiny-qwen2-vl, or models/smollm2-video.", show_default=False),
    ] = None,
    architecture: Annotated[
        Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"] | None,
        typer.Option(help="Model family; qwen2_vl where none is given.", show_default=False),
    ] = None,
    warm_up: Annotated[bool, typer.Option(help="Train it on poses of randomly moving figures.")] = True,
    seed: Annotated[int, typer.Option(help="Another seed makes other weights.", min=0)] = 0,
    language: Annotated[
        Literal["smollm2"] | None,
        typer.Option(help="Give it a real language model, of 135 million parameters.", show_default=False),
    ] = None,
) -> None:
    """Build a tiny base model of a real architecture, so that nothing has to be downloaded.

    Examples: `ivcp tiny-model models/tiny-qwen3-vl --architecture qwen3_vl`, `ivcp tiny-model --language smollm2`
    """
    if language is None:
        from ivcp.demo.tiny_model import build_tiny_model

        folder = new_folder(output_dir or Path("models/tiny-qwen2-vl"))
        made = build_tiny_model(folder, architecture=architecture or "qwen2_vl", warm_up=warm_up, seed=seed)
    else:
        if architecture is not None:
            raise ValueError(f"--language {language} has an architecture of its own: leave out --architecture")
        from ivcp.demo.language.build import build_language_model

        folder = new_folder(output_dir or Path("models/smollm2-video"))
        made = build_language_model(folder, warm_up=warm_up, seed=seed)
    say(f"base model in {made.absolute()}")


@app.command(context_settings=TAKES_SETTINGS)
def config(
    settings: Settings = None,
    help_keys: Annotated[
        bool, typer.Option("--help-keys", help="List every key with its meaning and values, or those with a word.")
    ] = False,
) -> None:
    """Print the settings that result from a file and overrides, as YAML, or the keys there are.

    Examples: `ivcp config my.yaml lora_rank=16`, `ivcp config --help-keys`, `ivcp config --help-keys lora`
    """
    if help_keys:
        _show_keys(settings or [])
        return
    import yaml

    typer.echo(yaml.safe_dump(read_settings(settings).flat(), sort_keys=False, allow_unicode=True), nl=False)


def main() -> None:
    """Runs the command; what goes wrong is one message on stderr, and `--traceback`, anywhere, shows where."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it announces each retry of a request
    logging.getLogger("httpx").setLevel(logging.WARNING)  # and this one each request
    words = [word for word in sys.argv[1:] if word != TRACEBACK]
    with explained(with_traceback=TRACEBACK in sys.argv):
        app(words)


def _show_keys(words: list[str]) -> None:
    from ivcp.settings import describe_keys

    found = [described for word in words for described in describe_keys(word)] if words else list(describe_keys())
    if not found:
        raise ValueError(f"no key has {' or '.join(words)} in its name or meaning: `ivcp config --help-keys` lists all")
    shown = ""
    for described in found:
        if described.section != shown:
            shown = described.section
            typer.echo(f"\n# {shown}")
        typer.echo(f"{described.key}: {described.default}\n    {described.meaning}\n    takes: {described.values}")


if __name__ == "__main__":
    main()
