"""The rules that the images keep; `make lint` runs hadolint over their Dockerfile as well."""

import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from ivcp.kubernetes.images import VARIABLES, VERSION

ROOT = Path(__file__).parents[3]
IMAGES = sorted(VARIABLES)
PACKAGES, FINAL = "packages", ""
"""The stage that all images begin with, and the one that the file ends with, which has no name."""


@pytest.fixture(scope="module")
def dockerfile() -> str:
    text = (ROOT / "images" / "Dockerfile").read_text(encoding="utf-8")
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")


@pytest.fixture(scope="module")
def stages(dockerfile: str) -> dict[str, list[str]]:
    """Instructions of each stage, by its name."""
    parts = re.split(r"^FROM \S+(?: AS (\S+))?$", dockerfile, flags=re.MULTILINE)[1:]
    return {name or FINAL: body.strip().splitlines() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def imported(lines: list[str]) -> set[str]:
    checks = [line for line in lines if line.startswith("RUN")]
    assert len(checks) == 1
    found = re.match(r"RUN python -c '([^']+)'", checks[0])
    assert found is not None
    return {name for statement in found[1].split(";") for name in re.findall(r"^\s*import (\S+)$", statement)}


def arguments(lines: list[str], instruction: str) -> list[str]:
    return [line.removeprefix(instruction).strip() for line in lines if line.startswith(f"{instruction} ")]


def test_the_base_is_an_argument_with_a_pinned_default(dockerfile: str) -> None:
    default = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert default is not None
    assert re.search(r":\d+\.\d+\.\d+-", default[1])
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.MULTILINE)
    assert {base for base, _ in stages} <= {"${BASE}", "${IMAGE}", *(name for _, name in stages)}
    assert [name for base, name in stages if base == "${BASE}"] == ["torch", PACKAGES]


def test_each_image_is_a_stage_and_an_argument_chooses_it(dockerfile: str) -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.MULTILINE)
    built = re.findall(r"^IMAGES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(name for base, name in stages if base == PACKAGES) == IMAGES
    assert stages[-1] == ("${IMAGE}", FINAL)
    assert re.findall(r"^ARG IMAGE=(\S+)$", dockerfile, re.MULTILINE)[0] in IMAGES
    assert [sorted(names.split()) for names in built] == [IMAGES]


def test_make_builds_each_image_on_its_base() -> None:
    command = ("make", "-n", "images", "TAG=7", "BASE=cpu", "TRAINING_BASE=gpu")
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    builds = re.findall(r"--build-arg IMAGE=(\w+) --build-arg BASE=(\w+) .*\n.*/ivcp-(\w+):7 -f (\S+)", printed)

    file = "images/Dockerfile"
    assert sorted(builds) == [
        ("data", "cpu", "data", file),
        ("serving", "cpu", "serving", file),
        ("training", "gpu", "training", file),
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_it_ends_by_importing_what_it_serves_as_a_numbered_user(stages: dict[str, list[str]], image: str) -> None:
    shared = stages[PACKAGES]
    user = shared.index("USER 10001:10001")

    assert not any(line.startswith(("RUN", "COPY")) for line in shared[user:])
    assert imported(stages[image])
    assert not any(line.startswith(("COPY", "USER")) for line in stages[image])
    assert not any(line.startswith(("RUN", "COPY", "USER")) for line in stages[FINAL])


@pytest.mark.parametrize("image", IMAGES)
def test_what_it_imports_are_its_steps(stages: dict[str, list[str]], image: str) -> None:
    """The modules that the components of this image call, and none that is gone."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "components").glob("*/component.py")]
    steps = {
        module
        for source in sources
        if f"base_image=images.{image.upper()}," in source
        for module in re.findall(r"^    from (ivcp\S+) import", source, re.MULTILINE)
    }
    checked = imported(stages[image])

    assert steps
    assert steps <= checked
    assert not [name for name in checked if name.startswith("ivcp.") and find_spec(name) is None]


def test_kfp_finds_no_entry_point_before_its_command(stages: dict[str, list[str]]) -> None:
    """Neither BASE's nor our own; in the serving image a step's command takes the place of the predictor's."""
    assert arguments(stages[PACKAGES], "ENTRYPOINT") == ["[]"]
    assert arguments(stages["serving"], "ENTRYPOINT") == ['["python", "-m", "ivcp.serving.server"]']
    assert arguments(stages["serving"], "CMD") == ['["--host", "0.0.0.0", "--port", "8080"]']
    for name in ("data", "training", FINAL):
        assert not arguments(stages[name], "ENTRYPOINT") + arguments(stages[name], "CMD")


def test_nothing_is_compiled_or_fetched_in_the_images(stages: dict[str, list[str]]) -> None:
    text = "\n".join(line for name in (PACKAGES, *IMAGES, FINAL) for line in stages[name])
    assert not re.search(r"apt-get|gcc|build-essential|curl|wget", text)
    installs = re.findall(r"pip .*? install .*", text)
    assert installs
    assert all("--no-index" in command or "--no-deps" in command for command in installs)


def test_versions_are_those_that_are_tested_together(dockerfile: str) -> None:
    fetched = re.findall(r"pip wheel .*", dockerfile)
    assert len(fetched) == 3
    assert all("--constraint constraints.txt" in command or "--no-deps" in command for command in fetched)


def test_images_share_torch(stages: dict[str, list[str]]) -> None:
    """What does not know IMAGE is the same in all of them."""
    shared = stages[PACKAGES]
    learns = shared.index("ARG IMAGE")

    assert not any("IMAGE" in line for line in stages["torch"] + shared[:learns])
    assert any("--no-index" in line and " torch " in line for line in shared[:learns])
    assert any("ivcp[${IMAGE}," in line for line in shared[learns:])


def test_dependencies_come_before_the_source(dockerfile: str, stages: dict[str, list[str]]) -> None:
    assert dockerfile.index("COPY pyproject.toml") < dockerfile.index("COPY ivcp")
    text = "\n".join(stages[PACKAGES])
    assert text.index("ivcp[${IMAGE},") < text.index("COPY --from=wheels /project")


@pytest.mark.parametrize("image", IMAGES)
def test_labels(stages: dict[str, list[str]], image: str) -> None:
    labels = arguments(stages[image], "LABEL") + arguments(stages[FINAL], "LABEL")
    names = re.findall(r"org\.opencontainers\.image\.(\w+)=", " ".join(labels))

    assert sorted(names) == ["description", "licenses", "revision", "title", "version"]
    assert f'org.opencontainers.image.title="ivcp-{image}"' in " ".join(labels)


def test_the_tag_is_the_project_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
    assert f"TAG ?= {VERSION}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
