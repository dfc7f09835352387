"""The READMEs' commands exist, and both languages have the same ones."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from ivcp.cli.main import app
from ivcp.settings import RunConfig, config_from_settings

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")


def blocks(name, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def commands(name):
    return [line.split("#")[0].strip() for block in blocks(name, "bash") for line in block.splitlines() if line.strip()]


def without_comments(block):
    return [line.split("#")[0].rstrip() for line in block.splitlines()]


def test_both_languages_have_the_same_blocks():
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert [without_comments(b) for b in blocks(english, "yaml")] == [
        without_comments(b) for b in blocks(chinese, "yaml")
    ]
    assert blocks(english, "text") == blocks(chinese, "text")
    assert len(blocks(english, "json")) == len(blocks(chinese, "json")) == 2
    headings = [len(re.findall(r"^## ", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)) for name in READMES]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("name", READMES)
def test_make_targets_and_ivcp_commands_exist(name):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = set(typer.main.get_command(app).commands)
    used = commands(name)

    assert used[:2] == ["make demo", "make test"]
    assert {line.split()[1] for line in used if line.startswith("make ")} <= targets
    assert {line.split()[1] for line in used if line.startswith("ivcp ")} <= known


@pytest.mark.parametrize("name", READMES)
def test_settings_load(name):
    for block in blocks(name, "yaml"):
        assert isinstance(config_from_settings(yaml.safe_load(block)), RunConfig)


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))

    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_ci_runs_the_two_commands():
    script = (ROOT / ".ci/run").read_text()
    assert "make demo" in script
    assert "make test" in script


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_settings_load(path):
    assert config_from_settings(yaml.safe_load(path.read_text())).data.dataset
