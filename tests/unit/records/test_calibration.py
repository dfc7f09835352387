import math

import pytest
from pydantic import ValidationError

from ivcp.records.calibration import ALWAYS_UNSURE, Calibration
from tests.calibrations import CALIBRATION


def test_answers_below_the_threshold_are_unsure():
    assert [CALIBRATION.is_unsure(confidence) for confidence in (0.69, 0.7, 0.71)] == [True, False, False]
    assert CALIBRATION.model_copy(update={"unsure_below": None}).is_unsure(0.1) is None


def test_a_model_that_is_never_sure_is_unsure_of_certainty_too(tmp_path):
    CALIBRATION.model_copy(update={"unsure_below": ALWAYS_UNSURE}).write(tmp_path / "calibration.json")
    found = Calibration.read(tmp_path / "calibration.json")
    assert found.is_unsure(1.0)
    assert found.summary == "temperature 1.5 from 100 clips of the val split, every answer is unsure"


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_positive_and_finite(temperature):
    with pytest.raises(ValidationError):
        Calibration.model_validate(CALIBRATION.model_dump() | {"temperature": temperature})


def test_a_newer_file_is_refused():
    with pytest.raises(ValidationError, match="format_version 2 is newer than 1"):
        Calibration.model_validate(CALIBRATION.model_dump() | {"format_version": 2})
