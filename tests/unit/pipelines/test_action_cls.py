import inspect
import typing

import pytest

from ivcp.pipeline_runs.parameters import REQUIRED, parameter_names, pipeline_arguments
from ivcp.settings import SECTION_OF_KEY, SECTIONS, RunConfig, config_from_settings
from pipelines.action_cls import action_cls

OWN_PARAMETERS = {"deploy", "overrides"}
SETTINGS = {"model_name_or_path": "m", "dataset": "a,b", "shards_uri": "s3://bucket/clips"}


def test_parameters_are_the_schemas(compiled):
    """Same names, defaults and help texts as the settings they stand for."""
    inputs = compiled.inputs
    defaults = RunConfig().flat()

    assert set(inputs) == set(parameter_names())
    for name in set(inputs) - OWN_PARAMETERS:
        field = SECTIONS[SECTION_OF_KEY[name]].model_fields[name]
        assert inputs[name]["description"].split() == field.description.split(), name
        if name not in REQUIRED:
            default = ",".join(defaults[name]) if name == "test_dataset" else defaults[name]
            assert inputs[name]["defaultValue"] == default, name


def test_every_parameter_has_a_help_text(compiled):
    assert not [name for name, one in compiled.inputs.items() if len(one.get("description", "")) < 15]
    assert 20 <= len(compiled.inputs) <= 26


def test_parameter_types_are_the_schemas():
    hints = typing.get_type_hints(action_cls.pipeline_func)
    for name in set(parameter_names()) - OWN_PARAMETERS:
        value = RunConfig().flat()[name]
        given = typing.get_origin(hints[name]) or hints[name]
        text = value is None or name in ("dataset", "test_dataset")
        assert given is (str if text else type(value)), name


def test_the_chain(compiled):
    assert compiled.order() == {
        "run-start": "exit-handler-1",
        "data-validation": "exit-handler-1",
        "preprocessing-plan": "exit-handler-1",
        "preprocessing-part": "for-loop-2",
        "preprocessing": "exit-handler-1",
        "training": "condition-3",
        "evaluation": "condition-3",
        "export": "condition-4",
        "serving": "condition-5",
        "run-end": "root",
    }
    training = compiled.task("training")["inputs"]["artifacts"]
    assert training["prepared"]["componentInputArtifact"] == "pipelinechannel--preprocessing-prepared"


def test_nothing_is_trained_exported_or_deployed_without_a_reason(compiled):
    conditions = {name: compiled.task(name)["triggerPolicy"]["condition"] for name in ("condition-3", "condition-4")}

    assert "preprocessing-Output" in conditions["condition-3"]
    assert "evaluation-Output" in conditions["condition-4"]
    assert "deploy" in compiled.task("condition-5")["triggerPolicy"]["condition"]


def test_preparation_is_divided_and_merged(compiled):
    """The plan's list of parts is looped over, and the merge waits for all of them."""
    loop = compiled.task("for-loop-2")

    items = loop["parameterIterator"]["items"]["inputParameter"]
    assert loop["inputs"]["parameters"][items]["taskOutputParameter"] == {
        "outputParameterKey": "Output",
        "producerTask": "preprocessing-plan",
    }
    collected = compiled.task("preprocessing")["inputs"]["parameters"]["parts"]["taskOutputParameter"]
    assert collected["producerTask"] == "for-loop-2"


def test_settings_become_parameters_and_overrides():
    config = config_from_settings(SETTINGS | {"lora_rank": 16, "weight_decay": 0.1, "report_to": "none"})
    arguments = pipeline_arguments(config, deploy=False)

    assert arguments["dataset"] == "a,b"
    assert arguments["lora_rank"] == 16
    assert arguments["train_tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert arguments["overrides"] == {"weight_decay": 0.1, "report_to": []}
    assert set(arguments) == set(inspect.signature(action_cls.pipeline_func).parameters)


def test_what_the_first_step_resolves_equals_the_settings():
    changed = {"test_dataset": "c", "video_num_frames": 8, "adam_beta2": 0.99, "train_node_selector": {"pool": "gpu"}}
    config = config_from_settings(SETTINGS | changed)
    arguments = pipeline_arguments(config)
    settings = {key: value for key, value in arguments.items() if key in SECTION_OF_KEY}

    assert config_from_settings(settings | arguments["overrides"]) == config


@pytest.mark.parametrize("missing", REQUIRED)
def test_the_pipeline_cannot_do_without(missing):
    settings = dict(SETTINGS)
    settings.pop(missing)
    with pytest.raises(ValueError, match=f"{missing} is not set"):
        pipeline_arguments(config_from_settings(settings))
