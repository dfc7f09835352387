"""A model that writes, and one that scores, deployed on this machine: the real server repeats evaluation's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.deployment.locally import deploy_local
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.evaluation.language.smoke import choose_smoke_question
from ivcp.export.deployed_next import why_not_deployed
from ivcp.records import Message
from ivcp.settings import RunConfig, config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.video import load_clip
from tests.data_sets import make_clip
from tests.served_language import PROMPT, save_tiny_language_model

CLUSTER = {"serve_target": "cluster", "models_uri": "s3://ivcp/models"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_the_server_repeats_evaluations_answer(tmp_path: Path, stage: str) -> None:
    model = load_directory(save_tiny_language_model(tmp_path / stage, stage))
    clip = load_clip(str(make_clip(tmp_path / "clip.mp4")), processor=model.processor)
    tokens = model.tokenize((*PROMPT, Message(role="assistant", content="It is dark.")), [clip])
    source = str(tmp_path / "clip.mp4")
    sample = Sample(**vars(tokens), sample_id="clip", source=source, media=(Medium.of(clip),))
    question = choose_smoke_question(model, [sample])
    assert question is not None
    result = deploy_local(RunConfig(), model_dir=model.directory, smoke_clip=question, output_dir=tmp_path / "out")
    assert result.smoke is not None
    assert result.smoke.clip_id == "clip"
    assert "like evaluation" in result.summary


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stage": "action_cls", **CLUSTER}, None),
        ({"stage": "sft"}, None),
        ({"stage": "rm", **CLUSTER, "serve_name": "scores"}, None),
        ({"stage": "sft", **CLUSTER}, "action-classifier is where classifiers serve"),
    ],
)
def test_another_kind_of_model_takes_no_classifiers_place(settings: dict[str, str], reason: str | None) -> None:
    said = why_not_deployed(config_from_settings(settings))
    assert said is None if reason is None else reason in str(said)


def test_a_model_without_classes_says_what_was_measured() -> None:
    model = ServedModel(uri="s3://b/m", name="talks", version=3, run_id=None, measured="perplexity 3.2 on 9 clips")
    shown = model.annotations()
    assert shown["kubernetes.io/change-cause"] == "model talks version 3, perplexity 3.2 on 9 clips"
    assert "ivcp.dev/top1-accuracy" not in shown
