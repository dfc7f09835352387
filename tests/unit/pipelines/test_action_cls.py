import inspect
import typing
from urllib.parse import quote

import pytest
import yaml

from components.run_start.component import run_start
from ivcp.pipeline_runs.parameters import REQUIRED, pipeline_arguments
from ivcp.settings import SECTION_OF_KEY, SECTIONS, config_from_settings, read_pasted
from ivcp.settings.form import FIELDS, OWN_PARAMETERS, PREFIX, choices, description
from pipelines.action_cls import action_cls

SETTINGS = {"model_name_or_path": "m", "dataset": "a,b"}


def signature():
    return inspect.signature(action_cls().pipeline_func).parameters


def test_the_form_has_the_fields_and_no_others(compiled):
    inputs = compiled.inputs
    assert set(inputs) == set(signature()) == {PREFIX + key for key in FIELDS} | set(OWN_PARAMETERS)
    assert set(FIELDS) <= set(SECTION_OF_KEY)
    assert list(signature()) == [*sorted(OWN_PARAMETERS, key=["settings", "overrides", "deploy"].index)] + [
        PREFIX + key for key in sorted(FIELDS)
    ]


def test_fields_of_settings_stand_together_before_the_file(compiled):
    """The page sorts by name."""
    assert [name for name in sorted(compiled.inputs) if not name.startswith(PREFIX)] == [
        "deploy",
        "overrides",
        "settings",
    ]
    assert sorted(compiled.inputs)[2:-1] == [PREFIX + key for key in sorted(FIELDS)]
    assert sorted(compiled.inputs)[-1] == "settings"


def test_a_run_can_be_started_without_filling_anything_in(compiled):
    """The page starts none while a field has no default: an optional one counts as missing until it is touched."""
    for name, one in compiled.inputs.items():
        assert "defaultValue" in one, name
        if name.startswith(PREFIX):
            assert (one["parameterType"], one["defaultValue"]) == ("STRING", ""), "empty says nothing"


def test_every_parameter_is_explained_by_the_schema(compiled):
    for name, one in compiled.inputs.items():
        if name in OWN_PARAMETERS:
            assert one["description"] == OWN_PARAMETERS[name]
            continue
        key = name.removeprefix(PREFIX)
        meaning = SECTIONS[SECTION_OF_KEY[key]].model_fields[key].description
        assert one["description"].startswith(" ".join(meaning.split())), name
    assert "One of `local`, `cluster`." in compiled.inputs["set_serve_target"]["description"]
    assert "Default: `5e-05`" in compiled.inputs["set_learning_rate"]["description"]


def test_the_description_explains_them_too(compiled):
    """Beside the picture; the text in the compiled file has KFP's limit, that of an upload has the URL's."""
    for name, one in compiled.inputs.items():
        assert f"- **{name}**: {one['description']}\n" in description()
    assert len(compiled.spec["pipelineInfo"]["description"]) <= 1024
    assert len(quote(description())) < 6000


def test_the_first_step_has_the_same_fields():
    given = set(typing.get_type_hints(run_start.python_func)) - {"return"}
    assert given == set(signature()) | {"pipeline_run", "pipeline_run_name", "stage", "stages", "run_config"}


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("deploy", (True, False)),
        ("set_serve_target", ("", "local", "cluster")),
        ("set_skip_unchanged", ("", "true", "false")),
        ("set_learning_rate", ()),
        ("settings", ()),
    ],
)
def test_choices(parameter, values):
    assert choices(parameter)[: len(values)] == values
    assert bool(choices(parameter)) == bool(values)


def test_the_chain(compiled):
    assert compiled.order() == {
        "run-start": "exit-handler-1",
        "data-validation": "exit-handler-1",
        "preprocessing": "exit-handler-1",
        "training": "condition-2",
        "evaluation": "condition-2",
        "export": "condition-3",
        "serving": "condition-4",
        "run-end": "root",
    }
    training = compiled.task("training")["inputs"]["artifacts"]
    assert training["prepared"]["componentInputArtifact"] == "pipelinechannel--preprocessing-prepared"


def test_the_chain_in_parts_has_the_same_steps_and_a_loop(compiled, compiled_in_parts):
    order, in_parts = compiled.order(), compiled_in_parts.order()
    assert set(in_parts) - set(order) == {"preprocessing-plan", "preprocessing-part"}
    assert (in_parts["preprocessing-plan"], in_parts["preprocessing-part"]) == ("exit-handler-1", "for-loop-2")
    assert compiled.inputs == compiled_in_parts.inputs


def test_by_default_there_is_no_loop_in_the_exit_handler(compiled):
    """KFP 2.14 fails on it, and 2.16 calls such a run RUNNING (kubeflow/pipelines#12390, #13321)."""
    assert not [name for _, name, task in compiled.tasks() if "parameterIterator" in task]


def test_groups_say_what_they_are(compiled, compiled_in_parts):
    """The page labels a box with its task's name; a loop keeps the key, by which older servers find its results."""
    names = {key: task["taskInfo"]["name"] for _, key, task in compiled.tasks() if not compiled.is_step(task)}
    assert names == {
        "exit-handler-1": "validate to deploy",
        "condition-2": "if changed: train",
        "condition-3": "if good: export",
        "condition-4": "if asked: deploy",
    }
    assert max(map(len, names.values())) <= 20, "longer labels are cut off"
    assert set(compiled.spec["root"]["dag"]["tasks"]) == {"exit-handler-1", "run-end"}
    assert compiled_in_parts.task("for-loop-2")["taskInfo"]["name"] == "for-loop-2"


def test_nothing_is_trained_exported_or_deployed_without_a_reason(compiled):
    conditions = {name: compiled.task(name)["triggerPolicy"]["condition"] for name in ("condition-2", "condition-3")}

    assert "preprocessing-Output" in conditions["condition-2"]
    assert "evaluation-Output" in conditions["condition-3"]
    assert "deploy" in compiled.task("condition-4")["triggerPolicy"]["condition"]


def test_preparation_in_parts_is_divided_and_merged(compiled_in_parts):
    """The plan's list of parts is looped over, and the merge waits for all of them."""
    loop = compiled_in_parts.task("for-loop-2")

    items = loop["parameterIterator"]["items"]["inputParameter"]
    assert loop["inputs"]["parameters"][items]["taskOutputParameter"] == {
        "outputParameterKey": "Output",
        "producerTask": "preprocessing-plan",
    }
    collected = compiled_in_parts.task("preprocessing")["inputs"]["parameters"]["parts"]["taskOutputParameter"]
    assert collected["producerTask"] == "for-loop-2"


def test_clips_go_where_the_first_step_says(compiled):
    given = compiled.task("preprocessing")["inputs"]["parameters"]["shards_uri"]["taskOutputParameter"]
    assert given == {"outputParameterKey": "shards_uri", "producerTask": "run-start"}


def test_settings_become_the_text_that_a_person_would_paste():
    config = config_from_settings(SETTINGS | {"lora_rank": 16, "weight_decay": 0.1, "report_to": "none"})
    arguments = pipeline_arguments(config, deploy=False)

    assert yaml.safe_load(arguments.pop("settings")) == {
        "model_name_or_path": "m",
        "dataset": ["a", "b"],
        "lora_rank": 16,
        "weight_decay": 0.1,
        "report_to": [],
    }
    assert arguments == {"overrides": {}, "deploy": False}


def test_what_the_first_step_reads_of_the_text_equals_the_settings():
    changed = {"test_dataset": "c", "video_num_frames": 8, "adam_beta2": 0.99, "train_node_selector": {"pool": "gpu"}}
    more = {"learning_rate": 1e-5, "run_name": "yes", "served_prompt": "do: {what}? # 'no'\n\"é\" 动作 🎬"}
    config = config_from_settings(SETTINGS | changed | more)

    assert config_from_settings(read_pasted(pipeline_arguments(config)["settings"])) == config


def test_what_kfp_would_fill_in_is_refused():
    with pytest.raises(ValueError, match=r"served_prompt has \{\{\$ in it"):
        pipeline_arguments(config_from_settings(SETTINGS | {"served_prompt": "{{$.inputs.parameters['settings']}}"}))


@pytest.mark.parametrize("missing", REQUIRED)
def test_the_pipeline_cannot_do_without(missing):
    settings = dict(SETTINGS)
    settings.pop(missing)
    with pytest.raises(ValueError, match=f"{missing} is not set"):
        pipeline_arguments(config_from_settings(settings))
