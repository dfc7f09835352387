import logging

import pytest

from ivcp.checks.settings import (
    check_no_fold,
    check_placement,
    check_protocol,
    check_registration,
    check_sharding,
    check_single_step,
    find_ineffective,
    warn_of_ineffective,
)
from ivcp.settings import ConfigError, config_from_settings


def config(**settings):
    return config_from_settings(settings)


@pytest.mark.parametrize(("accelerators", "processes"), [(1, 1), (4, 4), (0, 1), (0, 4)])
def test_as_many_accelerators_as_processes_or_none(accelerators, processes):
    check_placement(config(train_accelerator_count=accelerators, train_processes_per_node=processes))


@pytest.mark.parametrize(
    ("accelerators", "processes", "what"), [(1, 2, "would share one"), (4, 1, "would leave some idle")]
)
def test_accelerators_that_do_not_fit_the_processes(accelerators, processes, what):
    with pytest.raises(ConfigError) as caught:
        check_placement(config(train_accelerator_count=accelerators, train_processes_per_node=processes))
    assert f"train_accelerator_count = {accelerators} with train_processes_per_node = {processes}" in str(caught.value)
    assert what in str(caught.value)


def test_a_job_has_accelerators_of_its_own():
    job = {"train_launcher": "trainjob", "checkpoints_uri": "s3://a/b"}
    check_placement(config(train_accelerator_count=1, train_processes_per_node=8, **job))
    with pytest.raises(ConfigError, match=r"only a pipeline starts jobs .*set train_launcher: inline"):
        check_single_step(config(**job), num_processes=1)


def test_sharding_needs_processes():
    check_sharding(config(fsdp="full_shard", train_processes_per_node=2))
    with pytest.raises(ConfigError, match="fsdp = full_shard: there is one process"):
        check_sharding(config(fsdp="full_shard"))


def test_processes_that_were_not_started():
    check_single_step(config(train_processes_per_node=2), num_processes=2)
    check_single_step(config(), num_processes=4)
    with pytest.raises(ConfigError, match=r"train_processes_per_node = 2, and 1 started.*torchrun --nproc-per-node 2"):
        check_single_step(config(train_processes_per_node=2), num_processes=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_steps": 10, "warmup_steps": 10}, "warmup_steps = 10 with max_steps = 10: the learning rate never"),
        ({"mixup_alpha": 0.2, "per_device_train_batch_size": 1}, "there is no second clip to mix with"),
        ({"eval_strategy": "steps"}, "eval_strategy = steps: neither val_size nor eval_dataset is set"),
        ({"eval_steps": 50}, "eval_steps = 50.0: neither val_size nor eval_dataset is set"),
    ],
)
def test_what_has_no_effect_is_said(settings, said, caplog):
    [sentence] = find_ineffective(config(**settings))
    assert said in sentence
    with caplog.at_level(logging.WARNING):
        warn_of_ineffective(config(**settings))
    assert [record.getMessage() for record in caplog.records] == [sentence]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_steps": 10, "warmup_steps": 9},
        {"warmup_steps": 100},
        {"mixup_alpha": 0.2, "per_device_train_batch_size": 2},
        {"mixup_alpha": 0.2, "per_device_train_batch_size": 1, "tokens_per_batch": 4096},
        {"eval_strategy": "no"},
        {"eval_strategy": "epoch", "val_size": 0.1},
    ],
)
def test_what_has_an_effect_is_not_spoken_of(settings):
    assert find_ineffective(config(**settings)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 3}, "`ivcp train` trains one of them with fold: 1"),
        ({"seeds": 3, "seed": 4}, "start a run for each seed, with split_seed: 4"),
        ({"official_splits": "a,b"}, "start a run for each dataset"),
    ],
)
def test_several_trainings_are_for_the_command_that_makes_one_result_of_them(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_protocol(config(**settings), has_classes=True)


def test_a_pipeline_exports_no_fold():
    check_no_fold(config())
    with pytest.raises(ConfigError, match="fold = 2: the model of a fold is measured and never exported"):
        check_no_fold(config(folds=3, fold=2))


def test_views_and_folds_are_of_classifiers():
    check_protocol(config(folds=3, fold=2, test_num_crops=3), has_classes=True)
    for settings in ({"folds": 3, "fold": 2}, {"test_num_clips": 3}):
        with pytest.raises(ConfigError, match="is for classifiers, and stage = sft has no classes"):
            check_protocol(config(**settings, stage="sft"), has_classes=False)


def test_a_server_takes_no_folder_without_a_run(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = {"mlflow_tracking_uri": "http://127.0.0.1:5000", "report_to": "none"}
    for settings in ({}, {"models_uri": "/models"}):
        with pytest.raises(ConfigError, match=r"report_to = none: the MLflow server .* set report_to: mlflow, or"):
            check_registration(config(**server, **settings))
    check_registration(config(**server, models_uri="s3://bucket/models"))
    check_registration(config(**server, folds=3))
    check_registration(config(**server | {"report_to": "mlflow"}))
    check_registration(config(report_to="none"))
