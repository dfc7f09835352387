"""The compiled pipeline of a curriculum, as a cluster reads it."""

import pytest

from ivcp.settings.form import OWN_PARAMETERS
from pipelines.curriculum import curriculum
from tests.unit.pipelines.compiled import Compiled, compile_graph

STEPS = ("run-start", "data-validation", "preprocessing", "training", "evaluation", "export")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_graph(curriculum(3), tmp_path_factory.mktemp("compiled") / "curriculum.yaml")


def test_each_stage_is_a_chain_behind_the_gate_of_the_one_before(compiled):
    order = compiled.order()
    assert set(order) == {
        *STEPS,
        *(f"{step}-{number}" for step in STEPS for number in (2, 3)),
        "serving",
        "run-end",
    }
    for number in (2, 3):
        before = "export" if number == 2 else f"export-{number - 1}"
        started = f"run-start-{number}"
        assert order[started] == order[before], "it begins where the model of the stage before is exported"
    assert [step for step, group in order.items() if group == order["serving"]] == ["serving"]
    assert order["run-end"] == "root"


def test_each_stage_starts_from_the_model_of_the_one_before(compiled):
    def base(step):
        return compiled.task(step)["inputs"]["parameters"]["set_model_name_or_path"]

    assert base("run-start")["runtimeValue"]["constant"] == "", "the first one from its settings"
    for number, before in ((2, "export"), (3, "export-2")):
        task = compiled.task(f"run-start-{number}")
        produced = base(f"run-start-{number}")["taskOutputParameter"]
        assert produced == {"producerTask": before, "outputParameterKey": "model_uri"}
        assert task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"] == number
        assert task["dependentTasks"] == [before]


def test_only_the_last_model_is_deployed(compiled):
    def deploys(step):
        given = compiled.task(step)["inputs"]["parameters"]["deploy"]
        return "componentInputParameter" in given or given["runtimeValue"]["constant"]

    assert [deploys(step) for step in ("export", "export-2", "export-3")] == [False, False, True]


def test_each_stage_has_an_id_of_its_own(compiled):
    """A TrainJob, its checkpoints and the MLflow run are found by it."""
    ids = [
        compiled.task(step)["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"]
        for step in ("training", "training-2", "training-3")
    ]
    assert ids == [f"{{{{$.pipeline_job_uuid}}}}-{number}" for number in (1, 2, 3)]


def test_groups_say_which_stage_they_are_of(compiled):
    names = {task["taskInfo"]["name"] for _, _, task in compiled.tasks() if not compiled.is_step(task)}
    assert names >= {"stage 1: train", "stage 2: export", "stage 3: train", "if asked: deploy"}
    assert max(map(len, names)) <= 20, "longer labels are cut off"


def test_the_form(compiled):
    assert set(compiled.inputs) == set(OWN_PARAMETERS)
    assert compiled.spec["pipelineInfo"]["name"] == "curriculum-3"
    assert len(compiled.spec["pipelineInfo"]["description"]) <= 1024


def test_steps_of_later_stages_get_what_those_of_the_first_get(compiled):
    for step in STEPS:
        for number in (2, 3):
            assert compiled.container(f"{step}-{number}")["image"] == compiled.container(step)["image"]
            assert compiled.task(f"{step}-{number}").get("retryPolicy") == compiled.task(step).get("retryPolicy")
