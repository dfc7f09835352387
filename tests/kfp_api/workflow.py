"""The Argo Workflow behind a run: its object, and the nodes of it that KFP lists as the tasks of the run.

Seen on KFP 2.17.0 with Argo 4.0.5:

- KFP's workflow defaults (templateDefaults.retryStrategy, limit 2, OnError) are merged into every template, so that
  every node is there twice, as `training` and as its attempt `training(0)`; where a step exits with an error there is
  no second attempt.
- A node's id is the Workflow's name and a hash of its path; `child_tasks` have the ids of the nodes behind a node. The
  pod of an attempt is called `<workflow>-<template>-<the same hash>`.
- What a run that failed never reached is listed once, without a state, where the group around it had begun.
- No node has an error, nor the name of its pod.
- A Workflow that a schedule started belongs to the ScheduledWorkflow, whose uid is the id of the recurring run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_ATTEMPT = "(0)"


@dataclass
class Node:
    """A node of a Workflow."""

    path: str
    state: str | None
    """Null is Argo's Omitted."""
    children: list[str] = field(default_factory=list)
    """Paths."""

    @property
    def name(self) -> str:
        """As KFP shows it."""
        *_, before, last = ["", *self.path.split(".")]
        return f"{before}.{last}" if last.startswith("onExit") else last


def steps_of(spec: Mapping[str, Any]) -> list[str]:
    """The container tasks of a compiled pipeline in the order in which they begin, without those of an exit."""
    return list(_steps(spec, spec["root"]))


def nodes_of(spec: Mapping[str, Any], workflow: str, states: Mapping[str, str], *, run_state: str) -> list[Node]:
    """The nodes of a run whose container tasks have come to `states`; the others have not begun."""
    return _Nodes(spec, workflow, states, run_state).listed()


def node_id(workflow: str, path: str) -> str:
    """Argo's: the Workflow's name and the 32-bit FNV-1a hash of the node's path."""
    number = 0x811C9DC5
    for byte in path.encode():
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{workflow}-{number}"


def scheduled_by(name: str, recurring_run_id: str) -> dict[str, Any]:
    """The owner reference of a Workflow that a schedule started: it goes with its owner."""
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "ScheduledWorkflow",
        "name": name,
        "uid": recurring_run_id,
    }


def final_status(workflow: str, state: str) -> dict[str, Any]:
    """What the driver of an exit task hands over as PipelineTaskFinalStatus.

    `state` is MLMD's word: COMPLETE, FAILED, CANCELED; RUNNING of runs that failed, and of good ones in which a
    condition was not met or a loop ran. kfp's local runner says SUCCEEDED.
    """
    return {
        "error": {},
        "pipelineJobResourceName": workflow,
        "pipelineTaskName": "exit-handler-1",
        "state": state,
    }


class _Nodes:
    def __init__(self, spec: Mapping[str, Any], workflow: str, states: Mapping[str, str], run_state: str) -> None:
        self.spec, self.workflow, self.states, self.run_state = spec, workflow, states, run_state
        self.nodes: list[Node] = []

    def listed(self) -> list[Node]:
        top = self.workflow + _ATTEMPT
        self._twice(self.workflow, self.run_state, [f"{top}.root-driver"])
        self._twice(f"{top}.root-driver", "SUCCEEDED", [f"{top}.root"])
        self._twice(f"{top}.root", self.run_state, self._group(f"{top}.root{_ATTEMPT}", self.spec["root"]))
        return self.nodes

    def _group(self, path: str, component: Mapping[str, Any]) -> list[str]:
        """Adds the nodes of a group's tasks; the paths of those that are first."""
        tasks = component["dag"]["tasks"]
        inner = {key: task for key, task in tasks.items() if not _is_exit(task)}
        entries = {key: f"{path}.{key}" + ("" if _is_loop(task) else "-driver") for key, task in inner.items()}
        for key, task in inner.items():
            behind = [entries[other] for other, one in inner.items() if key in one.get("dependentTasks", [])]
            exits = [(name, one) for name, one in tasks.items() if _is_exit(one) and key in one["dependentTasks"]]
            self._task(path, key, task, behind)
            if exits and self.run_state in ("SUCCEEDED", "FAILED"):
                self._exit(f"{path}.{key}", *exits[0])
        return [entries[key] for key, task in inner.items() if not task.get("dependentTasks")]

    def _task(self, group: str, key: str, task: Mapping[str, Any], behind: list[str]) -> None:
        path, state = f"{group}.{key}", self._state(key, self._component(task))
        if state is None:
            if self.run_state == "FAILED":
                if not _is_loop(task):
                    self.nodes.append(Node(f"{path}-driver", None, [path]))
                self.nodes.append(Node(path, None, behind))
            return
        attempt = path + _ATTEMPT
        if _is_loop(task):
            inner = self._iteration(attempt, state, self._component(task))
        else:
            self._twice(f"{path}-driver", "SUCCEEDED", [path])
            inner = self._inside(attempt, state, self._component(task))
        self._twice(path, state, inner + behind)

    def _inside(self, attempt: str, state: str, component: Mapping[str, Any]) -> list[str]:
        if "dag" in component:
            return self._group(attempt, component)
        self._twice(f"{attempt}.executor", state, [])
        return [f"{attempt}.executor"]

    def _iteration(self, loop: str, state: str, component: Mapping[str, Any]) -> list[str]:
        """A loop with one item."""
        all_of_them, first = f"{loop}.iteration-iterations", f"{loop}.iteration-iterations(0:0)"
        item = f"{first}{_ATTEMPT}.iteration-item"
        self._twice(f"{loop}.iteration-driver", "SUCCEEDED", [all_of_them])
        self.nodes.append(Node(all_of_them, state, [first]))
        self._twice(first, state, [f"{item}-driver"])
        self._twice(f"{item}-driver", "SUCCEEDED", [item])
        self._twice(item, state, self._group(item + _ATTEMPT, component))
        return [f"{loop}.iteration-driver"]

    def _exit(self, handler: str, key: str, task: Mapping[str, Any]) -> None:
        ended = f"{handler}.onExit"
        next(node for node in self.nodes if node.path == handler).children.append(ended)
        self._twice(ended, "SUCCEEDED", [f"{ended}{_ATTEMPT}.{key}-driver"])
        self._twice(f"{ended}{_ATTEMPT}.{key}-driver", "SUCCEEDED", [f"{ended}{_ATTEMPT}.{key}"])
        attempt = f"{ended}{_ATTEMPT}.{key}{_ATTEMPT}"
        self._twice(f"{ended}{_ATTEMPT}.{key}", "SUCCEEDED", self._inside(attempt, "SUCCEEDED", self._component(task)))

    def _twice(self, path: str, state: str, children: list[str]) -> None:
        self.nodes += [Node(path, state, [path + _ATTEMPT]), Node(path + _ATTEMPT, state, children)]

    def _component(self, task: Mapping[str, Any]) -> Any:
        return self.spec["components"][task["componentRef"]["name"]]

    def _state(self, key: str, component: Mapping[str, Any]) -> str | None:
        """Of a task; a group has begun with the first step in it, and fails with one."""
        if "dag" not in component:
            return self.states.get(key)
        inner = [self.states.get(step) for step in _steps(self.spec, component)]
        if not any(inner):
            return None
        return "FAILED" if "FAILED" in inner else "SUCCEEDED" if set(inner) == {"SUCCEEDED"} else "RUNNING"


def _steps(spec: Mapping[str, Any], component: Mapping[str, Any]) -> Iterator[str]:
    tasks = {key: task for key, task in component["dag"]["tasks"].items() if not _is_exit(task)}
    while tasks:
        key = next(key for key, task in tasks.items() if not set(task.get("dependentTasks", [])) & set(tasks))
        inner = spec["components"][tasks.pop(key)["componentRef"]["name"]]
        yield from _steps(spec, inner) if "dag" in inner else [key]


def _is_loop(task: Mapping[str, Any]) -> bool:
    return any(key.endswith("Iterator") for key in task)


def _is_exit(task: Mapping[str, Any]) -> bool:
    return task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
