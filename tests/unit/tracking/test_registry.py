import math
from pathlib import Path

import pytest

from ivcp import tracking
from ivcp.settings import from_flat
from ivcp.tracking import ModelVersionRef
from ivcp.tracking.registry import WEIGHTS_TAG


def test_registering_twice_moves_the_alias(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "walks"})
    run_id = tracking.start_pipeline_run(config, default_store=store)
    versions = [
        tracking.register_model(
            tmp_path / "runs of today" / name,
            config=config,
            metrics={"top1_accuracy": accuracy},
            run_id=run_id,
            tags={"test_fingerprint": "abc"},
            default_store=store,
        )
        for name, accuracy in (("first", 0.5), ("second", 0.875))
    ]
    assert [version.version for version in versions] == [1, 2]
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert champion.version == 2
    assert champion.model_dir == str(tmp_path / "runs of today" / "second")
    assert champion.top1_accuracy == 0.875
    assert champion.test_fingerprint == "abc"


def test_figures_that_are_not_finite_are_not_registered(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "diverged"})
    with pytest.raises(ValueError, match="not registered, its figures are not finite: top1_accuracy = nan"):
        tracking.register_model(
            tmp_path, config=config, metrics={"top1_accuracy": math.nan}, run_id=None, tags={}, default_store=store
        )
    assert tracking.find_champion(config, default_store=store) is None


def test_a_repeated_step_registers_one_version(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "repeated"})
    run_id = tracking.start_pipeline_run(config, default_store=store)
    versions = [
        tracking.register_model(
            "s3://bucket/model", config=config, metrics={}, run_id=run_id, tags={}, default_store=store
        )
        for _ in range(2)
    ]
    assert versions[0] == versions[1]
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert champion.model_dir == "s3://bucket/model"
    assert champion.top1_accuracy is None


def test_another_model_in_the_same_folder_is_another_version(store: Path, tmp_path: Path, caplog):
    """Without a run, nothing but its weights tells one training from another."""
    config = from_flat({"registered_model_name": "overwritten"})
    versions = [
        tracking.register_model(
            tmp_path, config=config, metrics={}, run_id=None, tags={WEIGHTS_TAG: weights}, default_store=store
        ).version
        for weights in ("first", "first", "second")
    ]
    assert versions == [1, 1, 2]
    assert "the files of version 1 of overwritten stood in" in caplog.text


def test_no_champion_without_a_model_an_alias_or_a_store(store: Path, tmp_path: Path):
    assert tracking.find_champion(from_flat({"registered_model_name": "nobody"}), default_store=store) is None
    config = from_flat({"registered_model_name": "no-alias"})
    tracking.register_model(tmp_path, config=config, metrics={}, run_id=None, tags={}, default_store=store)
    other = from_flat({"registered_model_name": "no-alias", "model_alias": "best"})
    assert tracking.find_champion(other, default_store=store) is None
    assert tracking.find_champion(config, default_store=tmp_path) is None
    assert not (tmp_path / "mlflow.db").exists()


def test_a_version_becomes_the_champion_when_it_is_deployed(store: Path):
    config = from_flat({"registered_model_name": "deployed"})
    runs = [tracking.start_pipeline_run(config, default_store=store) for _ in range(2)]

    def register(number: int, is_champion: bool) -> ModelVersionRef:
        return tracking.register_model(
            f"s3://bucket/{number}",
            config=config,
            metrics={},
            run_id=runs[number],
            tags={},
            is_champion=is_champion,
            default_store=store,
        )

    assert register(0, is_champion=True).alias == "champion"
    second = register(1, is_champion=False)
    assert (second.version, second.alias) == (2, None)
    assert register(1, is_champion=False) == second  # a repeated step
    known = tracking.registered_versions(config, default_store=store)
    assert [(version.version, version.aliases) for version in known] == [(2, ("challenger",)), (1, ("champion",))]
    assert [version.promoted_at is not None for version in known] == [False, True]
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert (champion.version, champion.deployed_to) == (1, None)
    tracking.promote_model(second, config=config, deployed_to="in ivcp/walks", default_store=store)
    champion = tracking.find_champion(config, default_store=store)
    assert champion is not None
    assert (champion.version, champion.deployed_to) == (2, "in ivcp/walks")
    assert register(1, is_champion=False) == second  # its export, repeated
    known = tracking.registered_versions(config, default_store=store)
    assert [version.aliases for version in known] == [("champion",), ()], "a champion is no challenger"
    assert known[0].promoted_at > known[1].promoted_at
    assert register(0, is_champion=False).version == 1  # a step of an older run, repeated after the newer one


def test_a_name_with_quotes_is_found_again(store: Path, tmp_path: Path):
    config = from_flat({"registered_model_name": "anna's walks"})
    for _ in range(2):
        version = tracking.register_model(
            tmp_path, config=config, metrics={}, run_id=None, tags={}, default_store=store
        )
    assert version.version == 1
