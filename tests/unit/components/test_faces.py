"""Each folder of `components/` is the face of one step: a thin component.py, and a README and metadata that fit it."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.python_component import PythonComponent

from ivcp.kubernetes.images import VARIABLES, image_reference

COMPONENTS = Path(__file__).parents[3] / "components"
STEPS = sorted(path.parent.name for path in COMPONENTS.glob("*/component.py"))
MOST_STATEMENTS = 8
NO_LOGIC = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.For, ast.Return)
"""All that a body may consist of: it imports the step's function, calls it, and hands KFP what came out."""
SPEC_WORDS = {"String": "str", "Integer": "int", "Float": "float", "Boolean": "bool", "List": "list", "Dict": "dict"}
"""KFP's names of types → Python's."""


def components_of(step: str) -> dict[str, PythonComponent]:
    module = import_module(f"components.{step}.component")
    return {name: value for name, value in vars(module).items() if isinstance(value, PythonComponent)}


NAMES = [(step, name) for step in STEPS for name in components_of(step)]


def readme(step: str) -> str:
    return (COMPONENTS / step / "README.md").read_text(encoding="utf-8")


def tables(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the tables named Inputs and Outputs, name → type, by the heading above them and their own."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    above: dict[int, str] = {}
    rows: dict[str, str] | None = None
    for line in text.splitlines():
        heading = re.fullmatch(r"(#+) (.+)", line)
        cells = re.fullmatch(r"\| `(\w+)` \| `([^`]+)` \| ([^|]+) \|", line)
        if heading:
            level, title = len(heading[1]), heading[2]
            above[level] = title
            rows = found.setdefault((above[level - 1], title), {}) if title in ("Inputs", "Outputs") else None
        elif cells and rows is not None:
            assert cells[1] not in rows, f"{cells[1]} stands twice"
            rows[cells[1]] = cells[2]
        elif line.startswith("|") and rows is not None:
            assert line in ("| name | type | meaning |", "|---|---|---|"), f"no row of a table: {line}"
    return found


def as_python(spec_type: str) -> str:
    """`system.Dataset@0.0.1` is `dsl.Dataset`, `Dict[String, Any]` is `dict[str, Any]`."""
    artifact = re.fullmatch(r"system\.(\w+)@.*", spec_type)
    if artifact or spec_type == "PipelineTaskFinalStatus":
        return f"dsl.{artifact[1] if artifact else spec_type}"
    return re.sub(r"\w+", lambda word: SPEC_WORDS.get(word[0], word[0]), spec_type)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.stmt) and node is not statement)


def functions(step: str) -> list[ast.FunctionDef]:
    tree = ast.parse((COMPONENTS / step / "component.py").read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def metadata(step: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPONENTS / step / "metadata.yaml").read_text(encoding="utf-8"))
    return loaded


def test_every_folder_is_a_step() -> None:
    folders = [path.name for path in COMPONENTS.iterdir() if path.is_dir() and not path.name.startswith("_")]
    assert sorted(folders) == STEPS
    for step in STEPS:
        names = {path.name for path in (COMPONENTS / step).iterdir()} - {"__pycache__"}
        assert names == {"__init__.py", "component.py", "README.md", "metadata.yaml"}


@pytest.mark.parametrize("step", STEPS)
def test_readme_describes_the_components_of_its_folder(step: str) -> None:
    text = readme(step)
    documented = {component for component, _ in tables(text)}

    assert text.startswith(f"# {step}\n")
    assert documented == set(components_of(step))


@pytest.mark.parametrize(("step", "name"), NAMES)
def test_readme_names_inputs_and_outputs_of_the_spec(step: str, name: str) -> None:
    spec = components_of(step)[name].component_spec
    documented = tables(readme(step))

    assert documented[name, "Inputs"] == {key: as_python(one.type) for key, one in (spec.inputs or {}).items()}
    assert documented[name, "Outputs"] == {key: as_python(one.type) for key, one in (spec.outputs or {}).items()}


@pytest.mark.parametrize(("step", "name"), NAMES)
def test_readme_names_the_image(step: str, name: str) -> None:
    container = components_of(step)[name].component_spec.implementation.container
    image = next(image for image in VARIABLES if image_reference(image) == container.image)
    section = readme(step).split("## Image\n")[1].split("\n## ")[0]

    assert section.strip().startswith(f"`ivcp-{image}`")


@pytest.mark.parametrize("step", STEPS)
def test_the_example_compiles(step: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", readme(step), re.DOTALL)
    assert len(blocks) == 1
    namespace: dict[str, Any] = {}
    exec(compile(blocks[0], f"{step}/README.md", "exec"), namespace)
    compiled = [value for value in namespace.values() if isinstance(value, GraphComponent)]

    assert len(compiled) == 1
    used = set(compiled[0].pipeline_spec.components)
    assert {f"comp-{name.replace('_', '-')}" for name in components_of(step)} <= used


@pytest.mark.parametrize("step", STEPS)
def test_readme_links_lead_somewhere(step: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme(step))
    assert not [link for link in links if not (COMPONENTS / step / link).exists()]


@pytest.mark.parametrize("step", STEPS)
def test_metadata_has_the_form_of_kubeflows_component_repository(step: str) -> None:
    """Fields, order and values as https://github.com/kubeflow/pipelines-components validates them."""
    found = metadata(step)
    optional = {"tags", "ci", "links"}

    assert [key for key in found if key not in optional] == ["name", "stability", "dependencies", "lastVerified"]
    assert found["name"] == step
    assert found["stability"] in ("experimental", "alpha", "beta", "stable")
    assert found["tags"]
    assert all(isinstance(tag, str) and tag for tag in found["tags"])
    assert isinstance(found.get("links", {}), dict)


@pytest.mark.parametrize("step", STEPS)
def test_metadata_names_dependencies_with_versions(step: str) -> None:
    dependencies = metadata(step)["dependencies"]

    assert {"kubeflow"} <= set(dependencies) <= {"kubeflow", "external_services"}
    assert "Pipelines" in [one["name"] for one in dependencies["kubeflow"]]
    for one in (*dependencies["kubeflow"], *dependencies.get("external_services", ())):
        assert set(one) == {"name", "version"}
        assert re.fullmatch(r"(>=|<=|==)?\d+\.\d+\.\d+", one["version"]), one


@pytest.mark.parametrize("step", STEPS)
def test_metadata_says_when_it_was_verified(step: str) -> None:
    """With date and time in UTC. That it is less than a year ago is a matter for a release, not for this test."""
    verified = metadata(step)["lastVerified"]

    assert isinstance(verified, datetime)
    assert verified.tzinfo == UTC


@pytest.mark.parametrize("step", STEPS)
def test_component_imports_nothing_else(step: str) -> None:
    tree = ast.parse((COMPONENTS / step / "component.py").read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]

    assert {name.partition(".")[0] for name in imported} <= {"kfp", "typing", "ivcp"}
    assert ast.get_docstring(tree)
    assert all(isinstance(node, ast.ImportFrom | ast.FunctionDef) for node in tree.body[1:])


@pytest.mark.parametrize("step", STEPS)
def test_component_only_calls_the_step(step: str) -> None:
    for function in functions(step):
        body = list(statements(function.body[1:]))

        assert ast.get_docstring(function)
        assert len(body) <= MOST_STATEMENTS
        assert all(isinstance(statement, NO_LOGIC) for statement in body)
        imports = [statement for statement in body if isinstance(statement, ast.ImportFrom)]
        assert len(imports) == 1, "one function of the library does the work"
