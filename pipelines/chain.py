"""The chain of steps: validate, prepare, train, evaluate, and after the gate export and what comes behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from components.data_validation.component import data_validation
from components.evaluation.component import evaluation
from components.export.component import export
from components.preprocessing.component import preprocessing, preprocessing_part, preprocessing_plan
from components.run_start.component import run_start
from components.serving.component import serving
from components.training.component import training
from ivcp.kubernetes import images
from ivcp.settings.curriculum import run_of_stage
from pipelines.placement import DECODING, LIGHT, MODEL_DISK_GIGABYTES, Resources, place, place_on_accelerators


@dataclass(frozen=True)
class Exported:
    """A model that has passed the gate, and what the steps behind it need."""

    run_config: Any
    results: Any
    model: Any
    model_uri: Any
    """Where other steps read it."""
    serving_memory: Any
    """What the serving step needs."""


@dataclass(frozen=True)
class Chain:
    """The steps of one stage of training."""

    deploy: Any
    """Whether a good model is to be deployed: a parameter of the pipeline, or False."""
    behind: Callable[[Exported], None]
    """Adds what comes after the export."""
    in_parts: bool = False
    """Whether several pods prepare clips side by side."""
    stage: int = 1
    """Its number in a curriculum, from 1."""
    stages: int = 1
    """How many there are."""

    def add(self, given: Mapping[str, Any]) -> None:
        """Adds the steps to the pipeline that is being built; `given` are parameters of `run_start`."""
        started = run_start(
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            pipeline_run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            stage=self.stage,
            stages=self.stages,
            deploy=self.deploy,
            **given,
        )
        place(started, LIGHT, retries=3, reads_base=True)
        run_config, shards_uri = started.outputs["run_config"], started.outputs["shards_uri"]
        checked = data_validation(
            data_settings=started.outputs["data_settings"], data_fingerprint=started.outputs["data_fingerprint"]
        )
        place(checked, DECODING, shm="2Gi", retries=1, cached=True, reads_base=True)
        prepare = self._prepared_in_parts if self.in_parts else self._prepared_at_once
        clips = prepare(run_config, checked.outputs["validated"], shards_uri)
        prepared = clips.outputs["prepared"]
        with dsl.If(clips.outputs["Output"] == True, name=self._named("if changed", "train")):  # noqa: E712 (placeholder)
            adapter, measured = self._trained(started, run_config, prepared)
            with dsl.If(measured.outputs["Output"] == True, name=self._named("if good", "export")):  # noqa: E712
                self.behind(self._exported(started, run_config, prepared, adapter, measured.outputs["results"]))

    def _trained(self, started: PipelineTask, run_config: Any, prepared: Any) -> tuple[Any, PipelineTask]:
        """The adapter, and its evaluation."""
        trained = training(run_config=run_config, prepared=prepared, run_id=self._run_id)
        place_on_accelerators(
            trained,
            accelerator_type=started.outputs["accelerator_type"],
            accelerators=started.outputs["accelerators"],
            cpu=started.outputs["cpu"],
            memory=started.outputs["memory"],
            node_selector=started.outputs["node_selector"],
            tolerations=started.outputs["tolerations"],
            retries=2,
        )
        trained.set_env_variable(images.VARIABLES["training"], images.TRAINING)  # of a TrainJob's pods
        adapter = trained.outputs["adapter"]
        measured = evaluation(run_config=run_config, prepared=prepared, adapter=adapter)
        place_on_accelerators(
            measured,
            accelerator_type=started.outputs["accelerator_type"],
            accelerators=started.outputs["evaluation_accelerators"],
            cpu=started.outputs["model_cpu"],
            memory=started.outputs["model_memory"],
            node_selector=started.outputs["model_node_selector"],
            tolerations=started.outputs["model_tolerations"],
            retries=2,
        )
        return adapter, measured

    def _exported(self, started: PipelineTask, run_config: Any, prepared: Any, adapter: Any, results: Any) -> Exported:
        cpu, memory = started.outputs["model_cpu"], started.outputs["model_memory"]
        exported = export(
            run_config=run_config, prepared=prepared, adapter=adapter, results=results, deploy=self.deploy
        )
        place(exported, Resources(cpu, cpu, memory, memory, MODEL_DISK_GIGABYTES), retries=2, reads_base=True)
        return Exported(
            run_config=run_config,
            results=results,
            model=exported.outputs["model"],
            model_uri=exported.outputs["model_uri"],
            serving_memory=exported.outputs["serving_memory"],
        )

    def _prepared_at_once(self, run_config: Any, validated: Any, shards_uri: Any) -> PipelineTask:
        """The step `preprocessing` alone."""
        clips = preprocessing(run_config=run_config, validated=validated, shards_uri=shards_uri, deploy=self.deploy)
        return place(clips, DECODING, shm="2Gi", retries=2, reads_base=True)

    def _prepared_in_parts(self, run_config: Any, validated: Any, shards_uri: Any) -> PipelineTask:
        """A plan, a pod for each part of it, and the step `preprocessing`, which makes one index of all.

        The loop has no name of its own: servers before 2.16 look for its results by the name
        (kubeflow/pipelines#13239).
        """
        planned = preprocessing_plan(validated=validated, shards_uri=shards_uri, pipeline_run=self._run_id)
        place(planned, LIGHT, retries=2, reads_base=True)
        with dsl.ParallelFor(planned.output) as part:
            shards = preprocessing_part(validated=validated, part=part)
            place(shards, DECODING, shm="2Gi", retries=2, cached=True, reads_base=True)
        clips = preprocessing(
            run_config=run_config,
            validated=validated,
            shards_uri=shards_uri,
            deploy=self.deploy,
            parts=dsl.Collected(shards.output),
        )
        return place(clips, LIGHT, retries=2, reads_base=True)

    @property
    def _run_id(self) -> str:
        """KFP's id of the run; of a stage, with its number."""
        return run_of_stage(dsl.PIPELINE_JOB_ID_PLACEHOLDER, self.stage, self.stages)

    def _named(self, condition: str, what: str) -> str:
        """A group's label: the page cuts off what has more than 20 characters."""
        return f"{condition}: {what}" if self.stages == 1 else f"stage {self.stage}: {what}"


def deployment(deploy: Any) -> Callable[[Exported], None]:
    """What deploys an exported model where that is asked for."""

    def add(exported: Exported) -> None:
        with dsl.If(deploy == True, name="if asked: deploy"):  # noqa: E712 (a placeholder)
            served = serving(
                run_config=exported.run_config,
                model=exported.model,
                results=exported.results,
                predictor_image=images.SERVING,  # a pod does not know what the compiler's environment named
            )
            needed = exported.serving_memory
            place(served, replace(LIGHT, memory_request=needed, memory_limit=needed))

    return add
