"""The `data_validation` step: from the settings that data depend on to clean annotations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ivcp.data.problems import AnnotationError
from ivcp.records import REPORT_HTML, RUN_CONFIG_FILE
from ivcp.settings import config_from_settings, save_config
from ivcp.storage.atomic import writable_folder
from ivcp.tracking.steps import recorded_step
from ivcp.validation.reuse import find_validated
from ivcp.validation.validate import validate_data


def run_step(settings: str, *, validated: str, report: str) -> dict[str, float]:
    """Validates with `settings`, flat JSON, into the folder `validated`, and copies the page to the file `report`.

    The settings stand in `validated` as well: preparation reads them there.

    Returns the numbers by which runs are compared.

    Raises:
        ConfigError: a setting cannot be used.
        AnnotationError: the data cannot be used, or have no test split for the evaluation step.
    """
    with recorded_step("data_validation") as outcome:
        config = config_from_settings(json.loads(settings), source="pipeline parameters")
        writable_folder(Path(validated))
        save_config(config, Path(validated) / RUN_CONFIG_FILE)
        outcome.directory = validated
        try:
            result = find_validated(config, Path(validated)) or validate_data(config, Path(validated))
        finally:
            _copy_report(Path(validated) / REPORT_HTML, Path(report))
        if not result.num_clips["test"] and not config.protocol.folds:
            raise AnnotationError(
                "no clip is in the test split, which the evaluation step measures: set test_size or test_dataset, "
                "or give rows split: test"
            )
        outcome.result = result.summary
    return result.headline()


def _copy_report(written: Path, target: Path) -> None:
    if written.is_file():
        shutil.copyfile(written, target)
