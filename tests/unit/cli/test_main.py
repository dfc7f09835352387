import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ports import free_port

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
    "timeline",
    "serve",
    "api",
    "sample-data",
    "tiny-model",
    "config",
)


def ivcp(*words, cwd=None):
    return subprocess.run([str(IVCP), *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


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


def test_keys_with_a_word_show_what_they_take():
    shown = ivcp("config", "--help-keys", "lr_scheduler")

    assert shown.returncode == 0
    assert shown.stdout.count("takes: ") == 1
    assert "lr_scheduler_type" in shown.stdout
    assert "takes: linear, cosine, " in shown.stdout


def test_the_version_is_shown():
    assert ivcp("--version").stdout.startswith("ivcp ")


def test_a_traceback_is_shown_where_it_was_asked_for():
    for words in (("--traceback", "train", "lora_rnk=3"), ("train", "lora_rnk=3", "--traceback")):
        called = ivcp(*words)
        assert called.returncode == 2
        assert "Traceback" in called.stderr
        assert "did you mean lora_rank?" in called.stderr


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
        (
            ("train", "stage=detection", "output_dir=o"),
            "stage = detection: it cannot be trained here; choose from action_cls",
        ),
        (
            ("train", "stage=orpo", "output_dir=o"),
            "stage = orpo: it cannot be trained here; set stage: dpo and pref_loss: orpo",
        ),
        (("run", "dataset=a"), "model_name_or_path is not set"),
        (("validate", "dataset=a", "output_dir=o"), "dataset_info.json"),
        (("submit", "dataset=a"), "model_name_or_path is not set"),
        (("submit", "model_name_or_path=m"), "dataset is not set"),
        (("schedule",), "say one of: --name NAME with --cron, --list"),
        (
            (
                "schedule",
                "--name",
                "n",
                "--cron",
                "@daily",
                "dataset=a",
                "model_name_or_path=m",
                "shards_uri=s",
                "models_uri=s",
                "dataset_dir=s3://a/b",
            ),
            "--cron",
        ),
        (("nothing",), "No such command"),
        (("webchat",), "there is no command webchat: `ivcp chat VIDEO.mp4"),
        (("chat", "--model-dir", "nowhere"), "--model-dir nowhere does not exist"),
        (("train", "lora_target=[qv_proj", "model_name_or_path=nowhere"), "model_name_or_path: nowhere does not exist"),
        (("train", "run_name=@alice", "model_name_or_path=/nowhere"), "model_name_or_path: /nowhere does not exist"),
        (("config", "https://example.com/my.yaml"), "is an address: download the settings file"),
        (("export", "export_format=onnx"), "one format is written"),
        (("predict", "https://example.com/a.mp4"), "runs/latest/model does not exist"),
        (("serve", "--model-dir", "nowhere"), "--model-dir nowhere does not exist"),
        (("compile", "."), "is a folder: give the path of a file to write"),
        (("sample-data", "--seed", "-1"), "Invalid value for '--seed'"),
        (("config", "--help-keys", "shampoo"), "no key has shampoo in its name or meaning"),
        (("submit", "dataset=a", "model_name_or_path=m", "shards_uri=s3://a/b", "train_processes_per_node=2"), "share"),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_two(tmp_path, words, message):
    called = ivcp(*words, cwd=tmp_path)

    assert called.returncode == 2
    assert message in " ".join(called.stderr.split())
    assert "Traceback" not in called.stderr


def test_compile_writes_over_no_settings(tmp_path):
    (tmp_path / "my.yaml").write_text("dataset: mine\n")
    refused = ivcp("compile", "my.yaml", cwd=tmp_path)

    assert refused.returncode == 2
    assert "compile takes the path of the file to write" in refused.stderr
    assert (tmp_path / "my.yaml").read_text() == "dataset: mine\n"


def test_limits_are_compiled_for_servers_that_know_them(tmp_path):
    refused = ivcp("compile", "pipeline.yaml", "--deadline", "2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "compile with --kfp 2.17" in refused.stderr
    assert not (tmp_path / "pipeline.yaml").exists()


def test_a_run_without_a_data_folder_is_not_submitted(tmp_path):
    words = ("model_name_or_path=Qwen/Qwen2-VL-2B-Instruct", "dataset=actions")
    refused = ivcp("submit", *words, "--endpoint", "http://127.0.0.1:1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "dataset_dir is not set, and a pod has no folder `data`" in refused.stderr


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


def test_a_server_that_is_not_there_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    uris = [f"{key}=s3://bucket/{key}" for key in ("dataset_dir", "shards_uri", "models_uri")]
    called = ivcp("submit", "dataset=clips", "model_name_or_path=some/model", *uris, cwd=tmp_path)

    assert called.returncode == 2
    (line,) = called.stderr.splitlines()
    assert "does not answer" in line
