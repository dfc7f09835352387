"""What the predictor says over HTTP, read by clients that are older or newer than it."""

import pytest
from pydantic import ValidationError

from ivcp.records.answers import Answer, Problem

MODEL = {"name": "walks", "version": "7", "trained_steps": 1, "data_fingerprint": "data"}
FIRST_RELEASE = {
    "label": 1,
    "label_name": "wave",
    "confidence": 0.9,
    "top": [{"label": 1, "label_name": "wave", "confidence": 0.9}],
    "logits": [0.0, 2.2],
    "model": MODEL,
    "frames": 8,
    "backend": "pyav",
    "seconds": 0.04,
}


def test_an_older_servers_answer_is_read():
    answer = Answer.model_validate(FIRST_RELEASE)

    assert answer.unsure is None
    assert answer.frame_seconds == ()
    assert answer.frame_images is None


def test_fields_of_a_newer_server_are_skipped_at_every_depth():
    newer = FIRST_RELEASE | {"audio": True, "model": MODEL | {"licence": "MIT"}, "unsure": False}
    answer = Answer.model_validate(newer)

    assert answer.unsure is False
    assert answer.model.version == "7"
    assert "audio" not in answer.model_dump()


def test_a_number_that_is_not_finite_is_no_answer():
    with pytest.raises(ValidationError):
        Answer.model_validate(FIRST_RELEASE | {"confidence": float("nan")})


def test_a_problem_of_another_program_is_none():
    assert Problem.model_validate({"title": "T", "status": 422, "detail": "D", "code": "bad_prompt"}).errors is None
    with pytest.raises(ValidationError):
        Problem.model_validate({"detail": "Not Found"})
