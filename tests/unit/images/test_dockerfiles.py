"""The rules that all images keep; `make lint` runs hadolint over them as well."""

import re
import tomllib
from pathlib import Path

import pytest

from ivcp.kubernetes.images import VARIABLES, VERSION

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=sorted(VARIABLES))
def dockerfile(request: pytest.FixtureRequest) -> str:
    text = (ROOT / "images" / request.param / "Dockerfile").read_text(encoding="utf-8")
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")


def last_stage(dockerfile: str) -> list[str]:
    return re.split(r"^FROM .*$", dockerfile, flags=re.MULTILINE)[-1].strip().splitlines()


def test_the_base_is_an_argument_with_a_pinned_default(dockerfile: str) -> None:
    default = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert default is not None
    assert re.search(r":\d+\.\d+\.\d+-", default[1])
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.MULTILINE)
    assert {base for base, _ in stages} <= {"${BASE}", *(name for _, name in stages)}
    assert stages[-1] == ("${BASE}", "")


def test_it_runs_as_a_numbered_user_and_ends_by_importing_what_it_serves(dockerfile: str) -> None:
    lines = last_stage(dockerfile)
    user = next(number for number, line in enumerate(lines) if line.startswith("USER"))
    assert lines[user] == "USER 10001:10001"
    imports = next(number for number, line in enumerate(lines) if line.startswith("RUN python -c 'import "))
    assert imports > user
    assert not any(line.startswith(("RUN", "COPY")) for line in lines[imports + 1 :])


def test_nothing_is_compiled_or_fetched_in_the_last_stage(dockerfile: str) -> None:
    text = "\n".join(last_stage(dockerfile))
    assert not re.search(r"apt-get|gcc|build-essential|curl|wget", text)
    installs = re.findall(r"pip .*? install .*", text)
    assert installs
    assert all("--no-index" in command or "--no-deps" in command for command in installs)


def test_versions_are_those_that_are_tested_together(dockerfile: str) -> None:
    fetched = re.findall(r"pip wheel .*", dockerfile)
    assert len(fetched) == 3
    assert all("--constraint constraints.txt" in command or "--no-deps" in command for command in fetched)


def test_dependencies_come_before_the_source(dockerfile: str) -> None:
    assert dockerfile.index("COPY pyproject.toml") < dockerfile.index("COPY ivcp")
    packages, project = dockerfile.index("--no-index"), dockerfile.index("COPY --from=wheels /project")
    assert packages < project


@pytest.mark.parametrize("label", ["version", "revision", "title", "licenses"])
def test_labels(dockerfile: str, label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in dockerfile


def test_images_differ_in_what_they_are_for_only() -> None:
    """Dockerfiles have no include: what one of them learns, all of them have to."""

    own = re.compile(r"#|RUN python -c 'import|ENTRYPOINT|CMD|EXPOSE|.*image\.(title|description)=")

    def shared(name: str) -> list[str]:
        text = (ROOT / "images" / name / "Dockerfile").read_text(encoding="utf-8").replace(f"[{name},", "[")
        return [line.removeprefix("LABEL").strip() for line in text.splitlines() if line and not own.match(line)]

    assert shared("data") == shared("training") == shared("serving")


def test_the_tag_is_the_project_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
    assert f"TAG ?= {VERSION}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
