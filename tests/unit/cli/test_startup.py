"""What is imported before any work begins, by the names of the modules: a start takes as long as its imports."""

import json
import subprocess
import sys

import pytest

from tests.predictor_api.server import predictor_api

HEAVY = {
    "av",
    "boto3",
    "deepspeed",
    "kfp",
    "mlflow",
    "pandas",
    "peft",
    "pyarrow",
    "sklearn",
    "torch",
    "transformers",
}


def imported_by(code, *words):
    """The top-level modules that a new process has when it ends."""
    noting = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules}))))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", noting + code, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    modules = imported_by("from ivcp.cli.main import main\nmain()", "--help")

    assert "typer" in modules
    assert modules & (HEAVY | {"numpy", "pydantic"}) == set()


def test_the_settings_that_a_file_comes_to_need_nothing_heavy(tmp_path):
    (tmp_path / "run.yaml").write_text("lora_rank: 4\n")
    modules = imported_by("from ivcp.cli.main import main\nmain()", "config", str(tmp_path / "run.yaml"))

    assert modules & HEAVY == set()


def test_validation_leaves_torch_to_its_worker_processes(action_data, tmp_path):
    settings = json.dumps(
        {
            "dataset": "actions",
            "dataset_dir": str(action_data.folder),
            "output_dir": str(tmp_path / "out"),
            "preprocessing_num_workers": 1,
        }
    )
    modules = imported_by("import json, sys, ivcp\nivcp.validate(json.loads(sys.argv[1]))", settings)

    assert (tmp_path / "out" / "clips" / "validated" / "annotations.jsonl").exists()
    assert modules & {"torch", "transformers", "mlflow", "sklearn", "deepspeed", "peft", "pandas"} == set()


def test_the_package_imports_nothing_heavy_and_has_its_functions():
    code = "import ivcp\nassert all(callable(getattr(ivcp, name)) for name in (*ivcp.__all__, 'train', 'load'))"
    modules = imported_by(code)

    assert modules & (HEAVY | {"numpy", "pydantic", "typer", "yaml"}) == set()


@pytest.mark.parametrize(
    "room",
    [
        "ivcp.settings",
        "ivcp.records",
        "ivcp.storage",
        "ivcp.stages.registry",
        "ivcp.stages.protocol",
        "ivcp.stages.action_cls.stage",
        "ivcp.distributed.rank",
        "ivcp.models.processor_settings",
        "ivcp.tracking",
        "ivcp.steps",
        "ivcp.checks.run",
        "ivcp.models.base_files",
        "ivcp.client",
    ],
)
def test_light_rooms_import_no_torch(room):
    assert imported_by(f"import {room}") & {"torch", "transformers", "mlflow"} == set()


def test_the_client_needs_little_more_than_httpx_and_records():
    modules = imported_by("from ivcp.client import Client\nClient('http://127.0.0.1:1').close()")

    assert {"httpx", "pydantic"} <= modules
    assert modules & (HEAVY | {"numpy", "fastapi", "starlette", "PIL", "requests"}) == set()


def test_a_server_is_asked_without_torch_or_a_decoder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"video")
    with predictor_api() as api:
        words = ("predict", "--url", api.url, "--json", str(tmp_path), "s3://bucket/b.mp4")
        modules = imported_by("from ivcp.cli.main import main\nmain()", *words)

    assert len(api.asked) == 3
    assert modules & (HEAVY | {"numpy", "fastapi"}) == set()
