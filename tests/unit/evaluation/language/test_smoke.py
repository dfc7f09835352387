"""The conversation that checks a deployment: chosen by evaluation, and what differs from it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.deployment.smoke_question import GivenAnswer
from ivcp.deployment.smoke_test import DeploymentError, check_answer, choose_smoke_clip
from ivcp.evaluation.language.smoke import choose_smoke_question
from ivcp.records import Message
from ivcp.records.language_evaluation import SMOKE_QUESTION_FILE
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.served_language import PROMPT, save_tiny_language_model


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, LoadedModel]:
    folder = tmp_path_factory.mktemp("smoke")
    return {stage: load_directory(save_tiny_language_model(folder / stage, stage)) for stage in ("sft", "rm")}


def sample_of(model: LoadedModel, path: Path) -> Sample:
    clip = load_clip(str(path), processor=model.processor)
    tokens = model.tokenize((*PROMPT, Message(role="assistant", content="It is dark.")), [clip])
    return Sample(**vars(tokens), sample_id=path.stem, source=str(path), media=(Medium.of(clip),))


@pytest.fixture(scope="module")
def samples(models, tmp_path_factory) -> dict[str, list[Sample]]:
    """Of each model: one that only claims to come from its file, and one that does."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [make_clip(folder / f"{seed}.mp4", seed=seed) for seed in range(2)]
    found = {}
    for stage, model in models.items():
        claims, comes = (sample_of(model, path) for path in paths)
        other = replace(claims.media[0], frames=255 - claims.media[0].frames)
        found[stage] = [claims.with_media([other]), comes]
    return found


def given(**changed) -> GivenAnswer:
    return GivenAnswer(**{"name": "m", "version": "1", "text": None, "score": None, "seconds": 0.1} | changed)


def test_an_answer_is_as_long_as_the_model_is_sure(models, samples, tmp_path):
    model = models["sft"]
    question = choose_smoke_question(model, samples["sft"])
    assert question.clip_id == "1", "the first one's file gives other frames"
    assert question.messages == PROMPT
    assert question.answer
    assert 0 < question.num_tokens <= 24
    question.write(tmp_path / SMOKE_QUESTION_FILE)
    assert choose_smoke_clip(tmp_path) == question
    outcome = check_answer(given(text=question.answer), question, model_dir=model.directory)
    assert outcome.summary == f"answers {question.answer!r} like evaluation"
    with pytest.raises(DeploymentError, match=r"1: the predictor writes 'No', evaluation's answer begins"):
        check_answer(given(text="No"), question, model_dir=model.directory)


def test_a_score_is_as_near_as_numbers_are(models, samples):
    model = models["rm"]
    question = choose_smoke_question(model, samples["rm"])
    assert question.messages == (*PROMPT, Message(role="assistant", content="It is dark."))
    near, far = question.score + 1e-4, question.score + 0.01
    assert "with the score" in check_answer(given(score=near), question, model_dir=model.directory).summary
    with pytest.raises(DeploymentError, match="the predictor's score is"):
        check_answer(given(score=far), question, model_dir=model.directory)


@pytest.mark.parametrize("asked", ["<image>What?", "<video><video>What?"])
def test_a_question_that_no_route_takes_is_not_asked(models, samples, asked):
    model = models["sft"]
    info = model.info.model_copy(update={"prompt": (Message(role="user", content=asked),)})
    assert choose_smoke_question(replace(model, info=info), samples["sft"]) is None


def test_where_no_clip_comes_from_its_file_there_is_none(models, samples):
    assert choose_smoke_question(models["sft"], samples["sft"][:1]) is None
