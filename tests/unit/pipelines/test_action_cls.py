import inspect
import typing

import pytest
import yaml
from kfp import compiler

from components.config import SECTION_OF_KEY, SECTIONS, RunConfig
from components.config_files import config_from_settings
from pipelines.action_cls import action_cls
from pipelines.parameters import parameter_names, pipeline_arguments

OWN_PARAMETERS = {"shards_uri", "deploy", "overrides"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(action_cls, str(path))
    return next(yaml.safe_load_all(path.read_text()))


def test_parameters_are_the_schemas(compiled):
    """Same names, defaults and help texts as the settings they stand for."""
    inputs = compiled["root"]["inputDefinitions"]["parameters"]
    defaults = RunConfig().flat()

    assert set(inputs) == set(parameter_names())
    for name in set(inputs) - OWN_PARAMETERS:
        field = SECTIONS[SECTION_OF_KEY[name]].model_fields[name]
        assert inputs[name]["description"].split() == field.description.split(), name
        default = ",".join(defaults[name]) if isinstance(defaults[name], list) else defaults[name]
        if name not in ("model_name_or_path", "dataset"):
            assert inputs[name]["defaultValue"] == default, name


def test_parameter_types_are_the_schemas():
    hints = typing.get_type_hints(action_cls.pipeline_func)
    for name in set(parameter_names()) - OWN_PARAMETERS:
        value = RunConfig().flat()[name]
        assert hints[name] is (str if value is None or isinstance(value, list) else type(value)), name


def test_the_chain(compiled):
    tasks = compiled["root"]["dag"]["tasks"]
    gate = compiled["components"]["comp-condition-2"]["dag"]["tasks"]

    assert set(tasks["training"]["dependentTasks"]) == {"data-validation", "preprocessing"}
    steps = {"data-validation", "preprocessing", "training", "evaluation"}
    assert set(tasks) == steps | {"preprocessing-plan", "for-loop-1", "condition-2"}
    assert "export" in gate
    assert "evaluation-Output" in tasks["condition-2"]["triggerPolicy"]["condition"]


def test_preparation_is_divided_and_merged(compiled):
    """The plan's list of parts is looped over, and the merge waits for all of them."""
    tasks = compiled["root"]["dag"]["tasks"]
    loop = compiled["components"]["comp-for-loop-1"]["dag"]

    items = tasks["for-loop-1"]["parameterIterator"]["items"]["inputParameter"]
    assert tasks["for-loop-1"]["inputs"]["parameters"][items]["taskOutputParameter"] == {
        "outputParameterKey": "Output",
        "producerTask": "preprocessing-plan",
    }
    assert list(loop["tasks"]) == ["preprocessing-part"]
    assert "part" in loop["tasks"]["preprocessing-part"]["inputs"]["parameters"]
    assert set(tasks["preprocessing"]["dependentTasks"]) == {"data-validation", "for-loop-1"}
    collected = tasks["preprocessing"]["inputs"]["parameters"]["parts"]["taskOutputParameter"]
    assert collected["producerTask"] == "for-loop-1"


def test_no_step_is_cached_or_installs_packages(compiled):
    """The cache's key sees neither the data nor our code."""
    dags = [compiled["root"]["dag"]] + [
        component["dag"] for component in compiled["components"].values() if "dag" in component
    ]
    steps = [
        task for dag in dags for name, task in dag["tasks"].items() if not name.startswith(("condition", "for-loop"))
    ]

    assert len(steps) == 8
    assert not [task for task in steps if task.get("cachingOptions", {}).get("enableCache")]
    for executor in compiled["deploymentSpec"]["executors"].values():
        assert "pip install" not in str(executor["container"])
        assert executor["container"]["image"].startswith("ivcp-")


def test_settings_become_parameters_and_overrides():
    config = config_from_settings(
        {"model_name_or_path": "m", "dataset": "a,b", "lora_rank": 16, "weight_decay": 0.1, "report_to": "none"}
    )
    arguments = pipeline_arguments(config, shards_uri="s3://bucket/clips", deploy=False)

    assert arguments["dataset"] == "a,b"
    assert arguments["lora_rank"] == 16
    assert arguments["overrides"] == {"weight_decay": 0.1, "report_to": []}
    assert set(arguments) == set(inspect.signature(action_cls.pipeline_func).parameters)


def test_what_the_first_step_resolves_equals_the_settings():
    config = config_from_settings(
        {"model_name_or_path": "m", "dataset": "a,b", "test_dataset": "c", "video_num_frames": 8, "adam_beta2": 0.99}
    )
    arguments = pipeline_arguments(config, shards_uri="s")
    settings = {key: value for key, value in arguments.items() if key in SECTION_OF_KEY}

    assert config_from_settings(settings | arguments["overrides"]) == config


@pytest.mark.parametrize("missing", ["model_name_or_path", "dataset"])
def test_the_pipeline_cannot_do_without(missing):
    settings = {"model_name_or_path": "m", "dataset": "a"}
    settings.pop(missing)
    with pytest.raises(ValueError, match=f"{missing} is not set"):
        pipeline_arguments(config_from_settings(settings), shards_uri="s")
