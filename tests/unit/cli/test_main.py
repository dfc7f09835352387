import subprocess
import sys
from pathlib import Path

import pytest
import yaml

IVCP = Path(sys.executable).parent / "ivcp"
COMMANDS = (
    "run",
    "compile",
    "submit",
    "schedule",
    "import",
    "validate",
    "prepare",
    "train",
    "evaluate",
    "export",
    "predict",
    "serve",
    "sample-data",
    "tiny-model",
    "config",
)


def ivcp(*words, cwd=None):
    return subprocess.run([str(IVCP), *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_every_command_is_listed():
    listed = ivcp("--help")

    assert listed.returncode == 0
    assert not [command for command in COMMANDS if f" {command} " not in listed.stdout]
    assert "Exit codes" in listed.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = ivcp(command, "--help")

    assert shown.returncode == 0
    assert "Example" in shown.stdout
    assert f"ivcp {command}" in shown.stdout


def test_keys_are_listed_with_meaning_and_default():
    shown = ivcp("config", "--help-keys")

    assert shown.returncode == 0
    assert "action_token_lr_scale: 0.1\n    Learning rate of" in shown.stdout


def test_settings_of_a_file_and_overrides_are_shown(tmp_path):
    (tmp_path / "run.yaml").write_text("lora_rank: 4\nlearning_rate: 1e-3\n")
    shown = ivcp("config", "run.yaml", "--learning_rate", "5e-4", cwd=tmp_path)

    printed = yaml.safe_load(shown.stdout)
    assert printed["lora_rank"] == 4
    assert printed["learning_rate"] == 0.0005


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "missing.yaml"), "no configuration file missing.yaml"),
        (("train", "lora_rnk=3"), "did you mean lora_rank?"),
        (("train", "oops"), "write key=value"),
        (("train", "stage=sft", "output_dir=o"), "stage = sft: it cannot be trained here; choose from action_cls"),
        (("run", "dataset=a"), "model_name_or_path is not set"),
        (("validate", "dataset=a", "output_dir=o"), "dataset_info.json"),
        (("submit", "dataset=a", "model_name_or_path=m"), "shards_uri is not set"),
        (("schedule",), "say one of: --name NAME with --cron, --list"),
        (
            ("schedule", "--name", "n", "--cron", "@daily", "dataset=a", "model_name_or_path=m", "shards_uri=s"),
            "--cron",
        ),
        (("nothing",), "No such command"),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_two(tmp_path, words, message):
    called = ivcp(*words, cwd=tmp_path)

    assert called.returncode == 2
    assert message in " ".join(called.stderr.split())
    assert "Traceback" not in called.stderr


def test_the_compiled_pipeline_is_written(tmp_path):
    compiled = ivcp("compile", "pipeline.yaml", cwd=tmp_path)

    assert compiled.returncode == 0, compiled.stderr
    assert "data-validation" in (tmp_path / "pipeline.yaml").read_text()


def test_the_pipeline_is_written_as_kubernetes_objects(tmp_path):
    compiled = ivcp("compile", "--kubernetes-manifest", "manifest.yaml", "--namespace", "team", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    pipeline, version = yaml.safe_load_all((tmp_path / "manifest.yaml").read_text())

    assert [pipeline["kind"], version["kind"]] == ["Pipeline", "PipelineVersion"]
    assert pipeline["metadata"] == {"name": "action-cls", "namespace": "team"}
    assert version["metadata"]["name"].startswith("action-cls-")
    assert version["spec"]["pipelineName"] == "action-cls"
    assert version["spec"]["platformSpec"]["platforms"]["kubernetes"]
