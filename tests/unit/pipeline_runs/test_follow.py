"""The steps of a run, from what a server lists; names and states are those of KFP 2.17 with Argo 4.0."""

import kfp_server_api as kfp
import pytest

from ivcp.pipeline_runs.follow import step_states

FAILED_AT_ONCE = """
action-cls-ftt6x FAILED, action-cls-ftt6x(0) FAILED, root-driver SUCCEEDED, root-driver(0) SUCCEEDED,
exit-handler-1-driver SUCCEEDED, root FAILED, root(0) FAILED, exit-handler-1 FAILED, exit-handler-1(0) FAILED,
run-start-driver SUCCEEDED, run-start-driver(0) SUCCEEDED, executor FAILED, executor(0) FAILED, run-start FAILED,
run-start(0) FAILED, condition-3, condition-3-driver, data-validation, data-validation-driver, for-loop-2,
preprocessing, preprocessing-driver, preprocessing-plan, exit-handler-1.onExit SUCCEEDED, run-end SUCCEEDED,
run-end(0) SUCCEEDED
"""
IN_THE_LOOP = """
root RUNNING, run-start SUCCEEDED, data-validation SUCCEEDED, preprocessing-plan-driver(0) SUCCEEDED,
preprocessing-plan(0) SUCCEEDED, preprocessing-plan SUCCEEDED, for-loop-2(0) RUNNING, iteration-iterations(0:0)(0)
RUNNING, iteration-item RUNNING, preprocessing-part RUNNING, executor(0) RUNNING
"""
RETRIED = (
    "run-start SUCCEEDED, data-validation SUCCEEDED, preprocessing SUCCEEDED, training(0) FAILED, training(1) RUNNING"
)
A_PART_FAILED = (
    "run-start SUCCEEDED, data-validation SUCCEEDED, preprocessing-part SUCCEEDED, preprocessing-part FAILED"
)

IN_THE_SECOND_STAGE = """
run-start SUCCEEDED, condition-2 RUNNING, training SUCCEEDED, export SUCCEEDED, run-start-2 SUCCEEDED,
run-start-2(0) SUCCEEDED, condition-5-driver SUCCEEDED, training-2-driver SUCCEEDED, training-2(0) FAILED,
training-2(1) RUNNING, export-2
"""


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (FAILED_AT_ONCE, {"run_start": "FAILED"}),
        (IN_THE_LOOP, {"run_start": "SUCCEEDED", "data_validation": "SUCCEEDED", "preprocessing": "RUNNING"}),
        (
            RETRIED,
            dict.fromkeys(("run_start", "data_validation", "preprocessing"), "SUCCEEDED") | {"training": "RUNNING"},
        ),
        (A_PART_FAILED, {"run_start": "SUCCEEDED", "data_validation": "SUCCEEDED", "preprocessing": "FAILED"}),
        (
            IN_THE_SECOND_STAGE,
            dict.fromkeys(("run_start", "training", "export", "run_start of stage 2"), "SUCCEEDED")
            | {"training of stage 2": "RUNNING"},
        ),
    ],
)
def test_the_steps_that_a_person_knows(listed: str, expected: dict[str, str]) -> None:
    entries = [entry.split() for entry in listed.split(",")]
    tasks = [
        kfp.V2beta1PipelineTaskDetail(display_name=name, state=state[0] if state else None) for name, *state in entries
    ]
    run = kfp.V2beta1Run(run_details=kfp.V2beta1RunDetails(task_details=tasks))
    assert step_states(run) == expected
