"""A new model beside the registered one of the same name, on the same samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.evaluation.language.evaluate import LanguageEvaluation
from ivcp.evaluation.unseen import SplitClips
from ivcp.export.export import merge_only
from ivcp.records import RUN_CONFIG_FILE
from ivcp.stages.directory import load_directory
from ivcp.stages.registry import stage_of
from ivcp.tracking import register_model
from tests.language import index_of, language_config, samples_of
from tests.prepared import identities_of

NUMBERS = range(100, 109)
GREEDY = {"predict_with_generate": True, "max_new_tokens": 48}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for the module, since making its tables takes seconds: tests register under names of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        yield tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def forgetful(trained, tmp_path_factory) -> Path:
    """The model that learned its answers, without what its MLPs learned."""
    directory = tmp_path_factory.mktemp("forgetful") / "model"
    shutil.copytree(trained("sft").train.output_dir, directory)
    file = directory / "model.safetensors"
    weights = {name: value * (0.0 if "down_proj" in name else 1.0) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return directory


def evaluation_of(config, directory, name, *, stage=None, **settings):
    settings = {"per_device_eval_batch_size": 4, "report_to": "none", "registered_model_name": name, **settings}
    base, method = Path(config.model.required_name), config.method
    asked = language_config(base, stage or method.stage, finetuning_type=method.finetuning_type, **settings)
    model = load_directory(directory)
    samples = samples_of(config, model.processor, NUMBERS)
    split = SplitClips(samples, identities_of(sample.sample_id for sample in samples))
    if stage:
        model = replace(model, stage=stage_of(asked))
    index = index_of(asked, {"test": len(samples)})
    return LanguageEvaluation(asked, model=model, index=index, unseen=split.unseen_by(model.seen), split="test")


def register(directory, name, store, *, fingerprint="another", **metrics):
    config = language_config(Path("nowhere"), "sft", registered_model_name=name)
    tags = {"test_fingerprint": fingerprint}
    register_model(directory, config=config, metrics=metrics, run_id=None, tags=tags, default_store=store)


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        ({}, "perplexity"),
        (GREEDY, "exact_match"),
        pytest.param(
            *(GREEDY | {"gate_metric": "token_accuracy", "gate_minimum": 0.0}, "token_accuracy"),
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_the_worse_of_two_is_refused_whoever_comes_first(trained, forgetful, store, settings, metric):
    good, config = Path(trained("sft").train.output_dir), trained("sft")
    register(good, f"good by {metric}", store)
    refused = evaluation_of(config, forgetful, f"good by {metric}", **settings).measure(default_store=store).metrics
    assert (refused.champion.how, refused.champion.metric, refused.champion.num_clips) == ("evaluated", metric, 9)
    assert not refused.gate.passed
    assert refused.champion.new_value == refused.numbers[metric]
    said = f"{metric} {refused.numbers[metric]:.4g} is worse than champion good by {metric} version 1 with "
    assert refused.gate.reasons[1].startswith(said + f"{refused.champion.value:.4g} (measured now")

    register(forgetful, f"bad by {metric}", store)
    passed = evaluation_of(config, good, f"bad by {metric}", **settings).measure(default_store=store).metrics
    assert passed.gate.passed
    assert passed.champion.new_value == pytest.approx(refused.champion.value, rel=1e-5)
    assert passed.champion.value == pytest.approx(refused.champion.new_value, rel=1e-5)


def test_what_was_recorded_counts_where_it_was_measured_alike(trained, forgetful, store):
    config, good = trained("sft"), Path(trained("sft").train.output_dir)
    first = evaluation_of(config, good, "alike", **GREEDY).measure(default_store=store).metrics
    assert first.champion is None
    register(good, "alike", store, fingerprint=first.test_fingerprint, exact_match=0.25, perplexity=1.0)
    second = evaluation_of(config, good, "alike", **GREEDY).measure(default_store=store).metrics
    assert (second.champion.how, second.champion.value, second.champion.new_value) == ("recorded", 0.25, 1.0)
    shorter = evaluation_of(config, good, "alike", **GREEDY | {"max_new_tokens": 2}).measure(default_store=store)
    assert shorter.metrics.champion.how == "evaluated"
    assert shorter.metrics.champion.value == shorter.metrics.numbers["exact_match"] == 0.0


def test_a_champion_that_has_seen_some_is_compared_on_the_rest(trained, forgetful, store, tmp_path):
    config, champion = trained("sft"), tmp_path / "champion"
    shutil.copytree(config.train.output_dir, champion)
    SeenClips(trained=identities_of(f"clips:{number}" for number in NUMBERS[:5])).write(champion / SEEN_CLIPS_FILE)
    register(champion, "seen", store)
    found = evaluation_of(config, forgetful, "seen").measure(default_store=store).metrics
    assert (found.champion.num_clips, found.champion.left_out.total) == (4, 5)
    assert found.champion.new_value != found.numbers["perplexity"]
    assert "on them is worse than champion" in found.gate.reasons[1]
    assert "left out are 5 of the 9 clips" in found.gate.reasons[1]


def test_a_merged_champion_is_measured_relative_to_what_the_new_model_is(trained, store, tmp_path):
    """It has no adapter that could be switched off; its reference is the base that both come from."""
    config = trained("dpo")
    adapter, merged = Path(config.train.output_dir), tmp_path / "merged"
    merge_only(config, adapter_dir=adapter, export_dir=merged)
    register(merged, "pairs", store)
    by_margins = {"gate_metric": "rewards/margins", "gate_minimum": -100}
    found = evaluation_of(config, adapter, "pairs", **by_margins).measure(default_store=store).metrics
    assert found.champion.how == "evaluated"
    assert found.champion.value == pytest.approx(found.champion.new_value, abs=1e-5) != 0.0
    by_default = evaluation_of(config, adapter, "pairs").measure(default_store=store).metrics
    assert by_default.champion.metric == "rewards/accuracies"
    assert by_default.gate.passed


def test_models_that_learn_from_rewards_are_compared_by_them(trained, forgetful, store, tmp_path):
    """The reward is that of validation: of the likeliest answers, by the run's own rule."""
    config, good = trained("sft"), Path(trained("sft").train.output_dir)
    rule = {"reward_rule": "exact_match", "max_new_tokens": 48}
    register(forgetful, "another stage", store)
    found = evaluation_of(config, good, "another stage", stage="grpo", **rule).measure(default_store=store).metrics
    assert found.metrics["reward"] == 1.0
    assert found.champion.how == "not_comparable"
    assert "of stage sft" in found.champion.detail

    champion = tmp_path / "champion"
    shutil.copytree(forgetful, champion)
    settings = (champion / RUN_CONFIG_FILE).read_text()
    (champion / RUN_CONFIG_FILE).write_text(settings.replace('"stage": "sft"', '"stage": "grpo"'))
    register(champion, "rewarded", store)
    by_reward = evaluation_of(config, good, "rewarded", stage="grpo", **rule).measure(default_store=store).metrics
    assert (by_reward.champion.how, by_reward.champion.metric) == ("evaluated", "reward")
    assert by_reward.champion.value < by_reward.champion.new_value == 1.0
    unrewarded = evaluation_of(config, good, "rewarded", stage="grpo").measure(default_store=store).metrics
    assert unrewarded.champion.metric is None
    assert "(reward, exact_match) nothing was measured" in unrewarded.gate.reasons[1]
