"""A YAML text on its way through Kubeflow's local runner, and settings files on S3."""

import json
import warnings

import pytest
from kfp import dsl, local

from components.run_start.component import run_start
from ivcp import storage
from ivcp.lifecycle.places import check_reachable
from ivcp.settings import ConfigError, config_from_settings, load_config, read_pasted, read_saved_config
from ivcp.settings.form import FIELDS, PREFIX
from tests.data_sets import sharegpt_row

AWKWARD = """\
### 模型 "model" — it's {not} a {{placeholder}}
model_name_or_path: /models/on/a/volume   # $HOME isn't `expanded`
run_name: 'it''s "{{workflow.name}}" $(date) ${HOME} 100 % 🎬'
served_prompt: "two\\nlines: {a}, [b] & <video> \\"c\\" \\u00e9"
train_node_selector: {"cloud/gpu": 'l4', pool: gpu}
lora_target: ^model\\..*\\.(q|v)_proj$
dataset: actions
learning_rate: 1.0e-4
report_to: none
"""


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def echo(text: str) -> str:
    return text


@dsl.pipeline(name="start")
def start(settings: str, dataset_dir: str = "", deploy: bool = True) -> None:
    empty = {PREFIX + key: "" for key in FIELDS if key != "dataset_dir"}
    started = run_start(
        pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        pipeline_run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        stage=1,
        stages=1,
        deploy=deploy,
        settings=settings,
        overrides={},
        set_dataset_dir=dataset_dir,
        **empty,
    )
    with dsl.If(deploy == True):  # noqa: E712
        echo(text=settings).after(started)


def test_awkward_text_arrives_as_it_was_pasted(data_set, tmp_path):
    (data_set.folder / "a.mp4").write_bytes(b"video")
    data_set.add("actions", [sharegpt_row("a.mp4", "run")])
    warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)  # the images are ours
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True)
    start(settings=AWKWARD, dataset_dir=str(data_set.folder))

    (saved,) = (tmp_path / "root").glob("*/run-start/run_config")
    common = {"shards_uri": str(tmp_path / "root/clips"), "models_uri": str(tmp_path / "root/models")}
    given = read_pasted(AWKWARD) | {"dataset_dir": str(data_set.folder), "serve_target": "local"} | common
    assert read_saved_config(saved) == config_from_settings(given)
    assert json.loads(saved.read_text())["run_name"] == 'it\'s "{{workflow.name}}" $(date) ${HOME} 100 % 🎬'
    assert [path.parent.name for path in (tmp_path / "root").glob("*/echo/*")] == ["echo"], "the condition held"


def test_a_settings_file_on_s3(s3, tmp_path):
    storage.write_text("s3://bucket/settings/mine.yaml", AWKWARD)
    (tmp_path / "mine.yaml").write_text(AWKWARD)
    assert config_from_settings(read_pasted(" s3://bucket/settings/mine.yaml\n")) == load_config(tmp_path / "mine.yaml")
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/settings/none\.yaml"):
        read_pasted("s3://bucket/settings/none.yaml")


def test_a_place_below_the_pipeline_root_is_looked_for(s3):
    check_reachable("s3://bucket/v2/artifacts/action-cls/clips")
    with pytest.raises(ConfigError, match=r"below the pipeline root, .*ivcp-s3: .*no-such-bucket"):
        check_reachable("s3://no-such-bucket/action-cls/clips")
