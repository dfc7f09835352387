"""How the files of curricula are read, and what a form takes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ivcp.settings import ConfigError, read_pasted
from ivcp.settings.curriculum import (
    curriculum_from_settings,
    curriculum_text,
    first_settings,
    is_curriculum,
    read_curriculum,
)
from tests.curricula import SECOND, write_curriculum


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_curriculum, tmp_path)


def test_files_and_settings_make_stages(write):
    path = write(["questions.yaml", {"settings": "actions.yaml", "learning_rate": 1e-4}, {**SECOND, "seed": 3}], seed=7)
    assert is_curriculum(path)
    assert not is_curriculum(path.with_name("questions.yaml"))
    first, second, third = read_curriculum(path, {"num_train_epochs": 2})
    assert [stage.name for stage in (first, second, third)] == ["1-sft", "2-action_cls", "3-action_cls"]
    assert (first.config.train.seed, second.config.train.learning_rate, third.config.train.seed) == (7, 1e-4, 3)
    assert {stage.config.train.num_train_epochs for stage in (first, second, third)} == {2}


def test_models_of_earlier_stages_are_no_versions_of_the_last_ones(write):
    stages = read_curriculum(write(["questions.yaml", "actions.yaml"], run_name="mine"))
    assert [stage.config.registered_name for stage in stages] == ["ivcp-sft", "ivcp-action-classifier"]
    assert [stage.config.train.run_name for stage in stages] == ["mine-1-sft", "mine-2-action_cls"]
    same = read_curriculum(write(["questions.yaml", "actions.yaml"], registered_model_name="mine"))
    assert [stage.config.registered_name for stage in same] == ["mine-1-sft", "mine"]


@pytest.mark.parametrize(
    ("entries", "common", "message"),
    [
        ([], {}, "expected a list of settings files"),
        ("questions.yaml", {}, "expected a list of settings files"),
        ([3], {}, "stage 1: expected the path of a settings file, or settings, got 3"),
        ([{"settings": 3}], {}, "settings = 3: expected the path"),
        (["curriculum.yaml"], {}, "is a curriculum itself"),
        (["questions.yaml", {**SECOND, "learning_rat": 1}], {}, "stage 2: unknown setting learning_rat"),
        (["questions.yaml", "actions.yaml"], {"export_dir": "out"}, "export_dir = .*out is that of several stages"),
        (["questions.yaml", {**SECOND, "adapter_name_or_path": "runs/a"}], {}, "which no earlier adapter fits"),
        (["questions.yaml", "actions.yaml"], {"skip_unchanged": True}, "1-sft: skip_unchanged"),
    ],
)
def test_what_cannot_be_a_curriculum(write, entries, common, message):
    with pytest.raises(ConfigError, match=message):
        read_curriculum(write(entries, **common))


def test_a_file_that_is_missing_is_named(write):
    with pytest.raises(FileNotFoundError, match=r"anwsers\.yaml"):
        read_curriculum(write(["anwsers.yaml"]))


def test_its_text_is_the_same_curriculum(write):
    stages = read_curriculum(
        write(
            ["questions.yaml", {"settings": "actions.yaml", "learning_rate": 1e-4}, SECOND], run_name="mine, 100 % 🎬"
        )
    )
    text = curriculum_text(stages)
    assert len(text.splitlines()) == 1, "the page's form takes line ends out"
    again = curriculum_from_settings(read_pasted(text), source="the form")
    assert [stage.config for stage in again] == [stage.config for stage in stages]
    assert first_settings(json.loads(text))["dataset"] == ["questions"]


def test_a_form_has_no_files_beside_it(write):
    pasted = read_pasted(write(["questions.yaml", SECOND]).read_text())
    with pytest.raises(ConfigError, match=r"stage 1: settings = .*a step on a cluster has no such file"):
        curriculum_from_settings(pasted, source="the form")
