"""The compiled pipeline, as a cluster reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from pipelines.action_cls import action_cls


@dataclass(frozen=True)
class Compiled:
    spec: dict[str, Any]
    platform: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        return self.spec["root"]["inputDefinitions"]["parameters"]

    def tasks(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Group, name and definition of every task and group of tasks."""
        groups = {"root": self.spec["root"]} | self.spec["components"]
        for group, component in groups.items():
            for name, task in component.get("dag", {}).get("tasks", {}).items():
                yield group.removeprefix("comp-"), name, task

    def task(self, wanted: str) -> dict[str, Any]:
        return next(task for _, name, task in self.tasks() if name == wanted)

    def order(self) -> dict[str, str]:
        """Each step and the group that it is in."""
        return {name: group for group, name, task in self.tasks() if self.is_step(task)}

    def steps(self) -> dict[str, dict[str, Any]]:
        return {name: task for _, name, task in self.tasks() if self.is_step(task)}

    def is_step(self, task: dict[str, Any]) -> bool:
        return "executorLabel" in self.spec["components"][task["componentRef"]["name"]]

    def container(self, step: str) -> dict[str, Any]:
        return self.spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]

    def kubernetes(self, step: str) -> dict[str, Any]:
        return self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]


def compile_pipeline(path: Path, *, in_parts: bool = False) -> Compiled:
    """With what the environment says now."""
    return compile_graph(action_cls(in_parts=in_parts), path)


def compile_graph(pipeline: GraphComponent, path: Path) -> Compiled:
    compiler.Compiler().compile(pipeline, str(path))
    return Compiled(*yaml.safe_load_all(path.read_text()))
