"""The steps of preparation as the pipeline calls them, and when it ends before training."""

import logging
from pathlib import Path
from typing import Any

import pytest

from ivcp.preparation.step import run_part, run_plan, run_step
from ivcp.records import RUN_CONFIG_FILE, PreparedIndex
from ivcp.settings import RunConfig, save_config
from ivcp.tracking import (
    ENDED_TAG,
    ModelVersionRef,
    find_pipeline_run,
    open_pipeline_run,
    promote_model,
    register_model,
)
from ivcp.tracking.identity import CONFIGURATION_TAG, PREPARED_TAG, configuration_fingerprint
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet


@pytest.fixture(autouse=True)
def _logging():
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


class Run:
    """A scheduled pipeline's steps up to training, again and again."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder, self.config = folder, config
        validate_data(config, folder / "validated")
        for path in (folder / "validated" / RUN_CONFIG_FILE, folder / "run_config.json"):
            save_config(config, path)

    def trains(self, *, deploy: bool) -> bool:
        places = {"validated": str(self.folder / "validated"), "shards_uri": str(self.folder / "shards")}
        plan = run_plan(pipeline_run="id", **places)
        parts = [run_part(validated=places["validated"], part=part) for part in plan]
        return run_step(
            run_config=str(self.folder / "run_config.json"),
            parts=parts,
            prepared=str(self.folder / "index.json"),
            deploy=deploy,
            **places,
        )

    def exports(self, *, is_champion: bool) -> ModelVersionRef:
        """Registers what a training on these clips with these settings gave."""
        prepared = PreparedIndex.read(self.folder / "index.json").fingerprint
        tags = {PREPARED_TAG: prepared, CONFIGURATION_TAG: configuration_fingerprint(self.config)}
        return register_model(
            self.folder, config=self.config, metrics={}, run_id=None, tags=tags, is_champion=is_champion
        )


@pytest.fixture
def run(action_data: DataSet, settings: dict[str, Any], mlflow_uri: str, tmp_path: Path) -> Run:
    more = {"skip_unchanged": True, "mlflow_tracking_uri": mlflow_uri, "models_uri": "s3://bucket/models"}
    cluster = {"serve_target": "cluster", "serve_namespace": "ivcp", "serve_name": "walks"}
    return Run(tmp_path, action_data.config(**settings | more | cluster))


def test_in_parts_or_at_once_the_clips_are_the_same(action_data: DataSet, settings: dict[str, Any], tmp_path: Path):
    run = Run(tmp_path, action_data.config(**settings | {"preprocessing_parts": 3, "val_size": 3, "test_size": 3}))
    assert run.trains(deploy=False)
    in_parts = PreparedIndex.read(run.folder / "index.json")
    assert run_step(
        run_config=str(run.folder / "run_config.json"),
        validated=str(run.folder / "validated"),
        shards_uri=str(run.folder / "others"),
        deploy=False,
        prepared=str(run.folder / "at_once.json"),
    )
    at_once = PreparedIndex.read(run.folder / "at_once.json")

    assert len(in_parts.shards) == 3
    assert at_once.root_uri != in_parts.root_uri
    assert at_once.model_copy(update={"root_uri": in_parts.root_uri}) == in_parts


def test_a_deployment_that_failed_is_tried_again(run: Run):
    assert run.trains(deploy=True)
    registered = run.exports(is_champion=False)
    assert run.trains(deploy=True)  # the deployment failed: the alias did not move
    promote_model(registered, config=run.config, deployed_to=run.config.serving.place)
    assert not run.trains(deploy=True)


def test_a_run_that_has_nothing_to_train_says_that_it_ended_well(run: Run):
    run_id = open_pipeline_run(run.config, pipeline_run="id", run_name="scheduled")
    tracking = run.config.tracking.model_copy(update={"mlflow_run_id": run_id})
    save_config(run.config.model_copy(update={"tracking": tracking}), run.folder / "run_config.json")
    assert run.trains(deploy=False)
    assert ENDED_TAG not in find_pipeline_run(run.config, "id").data.tags
    registered = run.exports(is_champion=True)
    assert not run.trains(deploy=False)
    ended = find_pipeline_run(run.config, "id").data.tags[ENDED_TAG]
    assert ended == f"nothing changed since {registered.name} v{registered.version}: nothing was trained"


def test_a_champion_that_serves_elsewhere_or_nowhere_is_deployed(run: Run):
    assert run.trains(deploy=False)
    registered = run.exports(is_champion=True)
    assert not run.trains(deploy=False)
    assert run.trains(deploy=True)
    promote_model(registered, config=run.config, deployed_to="in another/place")
    assert run.trains(deploy=True)
    promote_model(registered, config=run.config, deployed_to="in ivcp/walks")
    assert not run.trains(deploy=True)
