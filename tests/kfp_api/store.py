"""What a Kubeflow Pipelines server knows, and its rules: every request and answer is a model of `kfp_server_api`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import kfp_server_api as kfp
import yaml

from tests.kfp_api.workflow import Node, node_id, nodes_of, scheduled_by, steps_of


class RefusedError(Exception):
    """An error answer of the API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def parse(model: type, content: Any) -> Any:
    """The model of a request; a key that it does not have is refused, as the server's strict JSON does."""
    unknown = set(content) - set(model.attribute_map.values())
    if unknown:
        raise RefusedError(400, f"unknown field {sorted(unknown)[0]}")
    return kfp.ApiClient().deserialize(SimpleNamespace(data=json.dumps(content)), model)


@dataclass
class Store:
    """The server's database. `outcome` is what runs come to, a step further each time somebody asks."""

    multi_user: bool = False
    release: tuple[int, int] = (2, 17)
    """Of the server, which refuses fields of later ones."""
    outcome: str = "SUCCEEDED"
    failing_step: str = "training"
    page_limit: int = 2
    pipelines: list[Any] = field(default_factory=list)
    versions: list[Any] = field(default_factory=list)
    experiments: list[Any] = field(default_factory=list)
    runs: list[Any] = field(default_factory=list)
    recurring_runs: list[Any] = field(default_factory=list)
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The metadata of the Workflow of each run, by its id, as long as Kubernetes has it."""
    most_enabled: int = 0
    """Most recurring runs of one name that were ever on at the same time."""
    fewest: int = 10**9
    """Fewest recurring runs after the first one was there."""
    begins: Callable[[str], None] = lambda run_id: None
    """Called with the id of each new run."""
    _ticks: int = 0
    _began: dict[str, list[str]] = field(default_factory=dict)

    def now(self) -> datetime:
        self._ticks += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._ticks)

    def create_pipeline(self, pipeline: Any) -> Any:
        if any(known.display_name == pipeline.display_name for known in self.pipelines):
            raise RefusedError(409, f"The name {pipeline.display_name} already exists. Please specify a new name.")
        pipeline.pipeline_id, pipeline.created_at = str(uuid.uuid4()), self.now()
        self.pipelines.append(pipeline)
        return pipeline

    def upload_version(self, package: bytes, name: str, pipeline_id: str, description: str = "") -> Any:
        if not any(known.pipeline_id == pipeline_id for known in self.pipelines):
            raise RefusedError(404, f"Pipeline {pipeline_id} not found")
        if any((known.pipeline_id, known.name) == (pipeline_id, name) for known in self.versions):
            raise RefusedError(409, f"The name {name} already exists.")
        documents = list(yaml.safe_load_all(package))
        if "pipelineInfo" not in documents[0]:
            raise RefusedError(400, "unknown template format")
        self._check_fields(*documents)
        version = kfp.V2beta1PipelineVersion(
            pipeline_id=pipeline_id,
            pipeline_version_id=str(uuid.uuid4()),
            display_name=name,
            name=name,
            description=description,
            created_at=self.now(),
            pipeline_spec={"pipeline_spec": documents[0], "platform_spec": (documents[1:] or [{}])[0]},
        )
        self.versions.append(version)
        return version

    def create_experiment(self, experiment: Any) -> Any:
        if self.multi_user and not experiment.namespace:
            raise RefusedError(400, "Invalid resource references for experiment. Namespace is required")
        experiment.experiment_id = str(uuid.uuid4())
        self.experiments.append(experiment)
        return experiment

    def create_run(self, run: Any) -> Any:
        self._check_job(run)
        run.run_id, run.created_at = str(uuid.uuid4()), self.now()
        run.storage_state, run.scheduled_at = "AVAILABLE", run.created_at
        run.service_account = run.service_account or ("default-editor" if self.multi_user else "pipeline-runner")
        run.run_details, run.state_history = kfp.V2beta1RunDetails(task_details=[]), []
        self._set_state(run, "PENDING")
        name = self._spec(run)["pipelineInfo"]["name"]
        self.workflows[run.run_id] = {"name": f"{name}-{run.run_id[:5]}"}
        self.runs.append(run)
        self.begins(run.run_id)
        return run

    def get_run(self, run_id: str) -> Any:
        """The run; another step of it has begun since, the one before it ended."""
        run = next((run for run in self.runs if run.run_id == run_id), None)
        if run is None:
            raise RefusedError(404, f"Run {run_id} not found")
        if run_id not in self.workflows:
            return run  # nobody tells the server of the end of a Workflow that was deleted
        if run.state == "CANCELING":
            self._set_state(run, "CANCELED")
            return run
        began, steps = self._began.setdefault(run_id, []), steps_of(self._spec(run))
        if began and began[-1] == self.failing_step and self.outcome == "FAILED":
            self._set_state(run, "FAILED")
        elif len(began) == len(steps):
            self._set_state(run, self.outcome)
        elif not _has_ended(run):
            self._set_state(run, "RUNNING")
            began.append(steps[len(began)])
        run.run_details.task_details = self._tasks(run, began)
        return run

    def create_recurring_run(self, recurring: Any) -> Any:
        self._check_job(recurring)
        cron = recurring.trigger.cron_schedule.cron
        if len(cron.split()) != 6:
            raise RefusedError(400, f"Schedule cron is not supported. Expected 6 fields, found {len(cron.split())}")
        if not 1 <= int(recurring.max_concurrency) <= 10:
            raise RefusedError(400, "The max concurrency of the recurring run must be in range [1, 10]")
        recurring.recurring_run_id, recurring.created_at = str(uuid.uuid4()), self.now()
        self.recurring_runs.append(recurring)
        self._set_mode(recurring, recurring.mode)
        return recurring

    def set_mode(self, recurring_run_id: str, mode: str) -> dict[str, Any]:
        self._set_mode(self._recurring(recurring_run_id), mode)
        return {}

    def delete_recurring_run(self, recurring_run_id: str) -> dict[str, Any]:
        """Its ScheduledWorkflow is deleted, and Kubernetes deletes what that owns: the Workflows of its runs."""
        self.recurring_runs.remove(self._recurring(recurring_run_id))
        for run_id, metadata in list(self.workflows.items()):
            if any(owner["uid"] == recurring_run_id for owner in metadata.get("ownerReferences", [])):
                del self.workflows[run_id]
        self._note()
        return {}

    @property
    def killed(self) -> list[str]:
        """Ids of runs whose Workflow was deleted while they were in progress: they stay as they are for ever."""
        return [run.run_id for run in self.runs if run.run_id not in self.workflows and not _has_ended(run)]

    def start_recurring(self, recurring_run_id: str) -> Any:
        """The time of a schedule has come."""
        recurring = self._recurring(recurring_run_id)
        run = self.create_run(
            kfp.V2beta1Run(
                display_name=f"{recurring.display_name}-1",
                experiment_id=recurring.experiment_id,
                pipeline_version_reference=recurring.pipeline_version_reference,
                runtime_config=recurring.runtime_config,
                recurring_run_id=recurring_run_id,
            )
        )
        owner = f"{recurring.display_name}{recurring_run_id[:5]}"
        self.workflows[run.run_id] = {
            "name": f"{owner}-1-{int(run.run_id[:8], 16)}",
            "ownerReferences": [scheduled_by(owner, recurring_run_id)],
        }
        self._set_state(run, "RUNNING")
        return run

    def terminate_run(self, run_id: str) -> dict[str, Any]:
        """The Workflow is told; it has ended when somebody asks the next time."""
        self._set_state(next(run for run in self.runs if run.run_id == run_id), "CANCELING")
        return {}

    def listing(self, entries: Sequence[Any], query: dict[str, str], make: Callable[..., Any], attribute: str) -> Any:
        """A page of the entries that the filter lets through."""
        found = list(entries)
        if query.get("filter"):
            wanted = parse(
                kfp.V2beta1Filter, json.loads(query["filter"].replace("stringValue", "string_value"))
            )  # protobuf reads both
            for predicate in wanted.predicates:
                assert predicate.operation == "EQUALS"
                found = [entry for entry in found if getattr(entry, predicate.key) == predicate.string_value]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        size = min(int(query.get("page_size") or 10), self.page_limit)
        start = int(query.get("page_token") or 0)
        more = str(start + size) if start + size < len(found) else ""
        return make(**{attribute: found[start : start + size]}, total_size=len(found), next_page_token=more)

    def _check_job(self, job: Any) -> None:
        if self.multi_user and not any(known.experiment_id == job.experiment_id for known in self.experiments):
            raise RefusedError(400, "a run needs an experiment")
        reference = job.pipeline_version_reference
        version = next((v for v in self.versions if v.pipeline_version_id == reference.pipeline_version_id), None)
        if version is None:
            raise RefusedError(404, f"PipelineVersion {reference.pipeline_version_id} not found")
        inputs = version.pipeline_spec["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        given = job.runtime_config.parameters or {}
        if unknown := set(given) - set(inputs):
            raise RefusedError(400, f"parameter {sorted(unknown)[0]} is not in the pipeline's inputs")
        required = {name for name, one in inputs.items() if "defaultValue" not in one and not one.get("isOptional")}
        if missing := required - set(given):
            raise RefusedError(400, f"parameter {sorted(missing)[0]} is required")
        for name, value in given.items():
            _check_value(name, value, inputs[name])

    def _check_fields(self, spec: Any, platform: Any = None) -> None:
        """As `protojson` reads them on the server, where these fields are not known (kubeflow/pipelines, changelog)."""
        inputs = spec["root"]["inputDefinitions"]["parameters"].values()
        placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
        if self.release < (2, 16) and any("literals" in one for one in inputs):
            raise RefusedError(400, 'invalid v2 pipeline spec: unknown field "literals"')
        if self.release < (2, 15) and any(
            "optional" in one for e in placed.values() for one in e.get("secretAsEnv", ())
        ):
            raise RefusedError(400, 'failed to compile: unknown field "optional"')

    def _recurring(self, recurring_run_id: str) -> Any:
        for recurring in self.recurring_runs:
            if recurring.recurring_run_id == recurring_run_id:
                return recurring
        raise RefusedError(404, f"RecurringRun {recurring_run_id} not found")

    def _set_mode(self, recurring: Any, mode: str) -> None:
        recurring.mode, recurring.status = mode, "ENABLED" if mode == "ENABLE" else "DISABLED"
        self._note()

    def _note(self) -> None:
        names = [recurring.display_name for recurring in self.recurring_runs if recurring.mode == "ENABLE"]
        self.most_enabled = max([self.most_enabled, *(names.count(name) for name in names)])
        self.fewest = min(self.fewest, len(self.recurring_runs))

    def _spec(self, run: Any) -> Any:
        wanted = run.pipeline_version_reference.pipeline_version_id
        version = next(version for version in self.versions if version.pipeline_version_id == wanted)
        return version.pipeline_spec["pipeline_spec"]

    def _set_state(self, run: Any, state: str) -> None:
        if run.state != state:
            run.state = state
            run.state_history.append(kfp.V2beta1RuntimeStatus(update_time=self.now(), state=state))
            run.finished_at = self.now() if _has_ended(run) else None

    def _tasks(self, run: Any, began: Sequence[str]) -> list[Any]:
        states = dict.fromkeys(began, "SUCCEEDED")
        if began:
            states[began[-1]] = run.state
        workflow = self.workflows[run.run_id]["name"]
        nodes = nodes_of(self._spec(run), workflow, states, run_state=run.state)
        return [self._task(run, workflow, node) for node in nodes]

    def _task(self, run: Any, workflow: str, node: Node) -> Any:
        return kfp.V2beta1PipelineTaskDetail(
            run_id=run.run_id,
            task_id=str(uuid.uuid5(uuid.UUID(run.run_id), node.path)),
            display_name=node.name,
            create_time=run.created_at,
            start_time=run.created_at,
            end_time=None if node.state == "RUNNING" else self.now(),
            state=node.state,
            state_history=[kfp.V2beta1RuntimeStatus(update_time=self.now(), state=node.state)],
            child_tasks=[kfp.PipelineTaskDetailChildTask(pod_name=node_id(workflow, path)) for path in node.children]
            or None,
        )


def _check_value(name: str, value: Any, described: dict[str, Any]) -> None:
    """The server converts nothing, and takes one of the literals where there are some (`v2_template.go`)."""
    kinds = {"STRING": str, "BOOLEAN": bool, "STRUCT": dict, "LIST": list}
    if not isinstance(value, kinds.get(described["parameterType"], int | float)):
        raise RefusedError(400, f"input parameter {name} requires type {described['parameterType'].lower()}")
    if described.get("literals") and value not in described["literals"]:
        raise RefusedError(400, f"input parameter {name} value {value} is not one of {described['literals']}")


def _has_ended(run: Any) -> bool:
    return run.state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
