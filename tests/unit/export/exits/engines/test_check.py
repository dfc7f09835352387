"""What other engines cannot serve is refused from the settings: nothing is prepared, trained or merged before."""

import pytest

from ivcp import steps
from ivcp.checks.run import check_local_run, check_started
from ivcp.export.exits.engines.check import check_engines, check_engines_of
from ivcp.export.export import merge_only
from ivcp.settings import ConfigError, ModelConfig, config_from_settings
from tests.exported import save_exported
from tests.tiny_families import build_tiny_family

BOTH = ("transformers", "vllm")
REFUSED = "is a qwen3_5: leave vllm out and keep transformers; `ivcp serve` serves every model"


@pytest.fixture(scope="module")
def other_base(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("other") / "base", "qwen3_5")


def test_vllm_is_refused_for_a_family_that_it_answers_otherwise(other_base, base_model_dir, tmp_path):
    with pytest.raises(ConfigError, match=REFUSED):
        check_engines(BOTH, ModelConfig(model_name_or_path=str(other_base)))
    check_engines(("transformers",), ModelConfig(model_name_or_path=str(other_base)))
    check_engines((), ModelConfig(model_name_or_path=str(other_base)))
    check_engines(BOTH, ModelConfig(model_name_or_path=str(base_model_dir)))
    check_engines(BOTH, ModelConfig(model_name_or_path=str(tmp_path / "on-another-machine")))


@pytest.mark.parametrize("entrance", [check_started, lambda config: check_local_run(config, containers=False)])
def test_a_run_is_refused_before_it_begins(entrance, other_base, run_settings):
    named = {"model_name_or_path": str(other_base), "export_engines": BOTH, "models_uri": "s3://bucket/models"}
    with pytest.raises(ConfigError, match=REFUSED):
        entrance(config_from_settings(run_settings | named))


def test_an_export_is_refused_before_a_video_is_decoded(other_base, run_settings, tmp_path):
    named = {"model_name_or_path": str(other_base), "export_engines": BOTH}
    with pytest.raises(ConfigError, match=REFUSED):
        steps.export(config_from_settings(run_settings | named))
    assert not (tmp_path / "out").exists()


def test_what_was_trained_counts_and_nothing_is_merged(base_model_dir, tmp_path):
    """The settings name another base model than the training had."""
    trained = save_exported(tmp_path / "trained", "qwen3_5")
    settings = {"model_name_or_path": str(base_model_dir), "export_engines": BOTH}
    with pytest.raises(ConfigError, match=REFUSED):
        merge_only(config_from_settings(settings), adapter_dir=trained, export_dir=tmp_path / "model")
    assert not (tmp_path / "model").exists()
    check_engines_of(trained, ("transformers",), machine=ModelConfig())
