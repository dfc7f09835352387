"""The `data_validation` step: from settings to clean annotations."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.annotations import AnnotationError
from components.artifacts import REPORT_HTML
from components.config import SECTION_OF_KEY
from components.config_files import check_trainable, config_from_settings, save_config
from components.data_validation.validate import validate_data
from components.step_records import recorded_step


def run_step(parameters: Mapping[str, Any], *, run_config: str, validated: str, report: str) -> dict[str, float]:
    """Resolves the settings among `parameters` (its `overrides` win), validates, and copies the report's page.

    `run_config` and `report` are files, `validated` is a folder; all three are written. Returns the numbers by which
    runs are compared.

    Raises:
        ConfigError: a setting cannot be used, or asks for what training does not do.
        AnnotationError: the data cannot be used, or have no test split for the evaluation step.
    """
    with recorded_step("data_validation") as outcome:
        settings = {key: value for key, value in parameters.items() if key in SECTION_OF_KEY}
        config = config_from_settings(settings | parameters["overrides"], source="pipeline parameters")
        check_trainable(config)
        save_config(config, Path(run_config))
        outcome.directory = validated
        try:
            result = validate_data(config, Path(validated))
        finally:
            _copy_report(Path(validated) / REPORT_HTML, Path(report))
        if not result.num_clips["test"]:
            raise AnnotationError(
                "no clip is in the test split, which the evaluation step measures: set test_size or test_dataset, "
                "or give rows split: test"
            )
        outcome.result = result.summary
    return result.headline()


def _copy_report(written: Path, target: Path) -> None:
    if written.is_file():
        shutil.copyfile(written, target)
