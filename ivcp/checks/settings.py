"""What the settings alone show: contradictions with where a run goes, and what has no effect."""

from __future__ import annotations

import logging

from ivcp.settings import ConfigError, RunConfig
from ivcp.tracking import tracking_uri
from ivcp.tracking.registry import knows_by_run, needs_run

log = logging.getLogger(__name__)


def check_placement(config: RunConfig) -> None:
    """Checks what a pipeline on a cluster asks of its training step, and that it leaves nothing in a pod.

    Raises:
        ConfigError: accelerators and processes do not fit each other, or an image would go with its pod.
    """
    if config.publishing.export_image:
        raise ConfigError(
            f"export_image = {config.publishing.export_image}: on a cluster the image would go with the pod of the "
            "export step; remove it, and write it with `ivcp export` where skopeo can push it"
        )
    launch, accelerators = config.launch, config.cluster.train_accelerator_count
    processes = launch.train_processes_per_node
    if launch.train_launcher == "inline" and accelerators not in (0, processes):
        more = "would share one" if accelerators < processes else "would leave some idle"
        raise ConfigError(
            f"train_accelerator_count = {accelerators} with train_processes_per_node = {processes}: a process trains "
            f"on one accelerator, and these {more}; set both to the same number, or train_accelerator_count: 0 for CPUs"
        )


def check_place_of_model(config: RunConfig) -> None:
    """Checks, for a pipeline on a cluster, that what it registers can be read from elsewhere.

    Raises:
        ConfigError: there is no place for the model.
    """
    if config.export.models_uri is None:
        raise ConfigError(
            "models_uri = null: on a cluster the model would be registered at a path that only the pod of the export "
            "step has; leave it out, for a folder below the pipeline root, or name an s3:// prefix, or a folder on a "
            "volume that all steps mount"
        )


def check_registration(config: RunConfig) -> None:
    """Checks, for a pipeline, that the registry takes the model that it ends with.

    Raises:
        ConfigError: a server would refuse it.
    """
    ends_with_model = config.protocol.fold is None and not config.protocol.repeats
    uri, place = tracking_uri(config), config.export.models_uri or "."
    if ends_with_model and "mlflow" not in config.train.report_to and knows_by_run(uri, place):
        raise ConfigError(f"report_to = {', '.join(config.train.report_to) or 'none'}: {needs_run(uri)}")


def check_sharding(config: RunConfig) -> None:
    """Checks, for a pipeline, that there are processes to shard weights over.

    Raises:
        ConfigError: there is one.
    """
    if config.train.fsdp and config.launch.num_processes == 1:
        raise ConfigError(
            f"fsdp = {config.train.fsdp}: there is one process, and none to shard the weights with: set "
            "train_processes_per_node, or remove fsdp"
        )


def check_single_step(config: RunConfig, *, num_processes: int) -> None:
    """Checks what a training cannot do that trains in the processes that are there.

    Raises:
        ConfigError: a TrainJob, or other processes, were asked for.
    """
    if config.launch.train_launcher == "trainjob":
        raise ConfigError(
            "train_launcher = trainjob: only a pipeline starts jobs (`ivcp submit`, `ivcp run`); remove it, or set "
            "train_launcher: inline, to train here"
        )
    asked = config.launch.train_processes_per_node
    if asked not in (1, num_processes):
        raise ConfigError(
            f"train_processes_per_node = {asked}, and {num_processes} started: start `ivcp train`, which starts "
            f"{asked}, or `torchrun --nproc-per-node {asked} -m ivcp.cli.train …`; or remove it"
        )


def check_protocol(config: RunConfig, *, has_classes: bool) -> None:
    """Checks what the settings of one training ask of its measurement; `has_classes` says that it is a classifier.

    `ivcp run` alone trains a series, and asks for each of its trainings.

    Raises:
        ConfigError: a series is asked for where there is none, or what is for classifiers of another stage.
    """
    protocol = config.protocol
    if protocol.repeats:
        asked = next(key for key in ("folds", "seeds", "official_splits") if getattr(protocol, key))
        one = {
            "folds": "`ivcp train` trains one of them with fold: 1, fold: 2, …",
            "seeds": f"start a run for each seed, with split_seed: {config.data_seed}",
            "official_splits": "start a run for each dataset",
        }[asked]
        raise ConfigError(f"{asked} is several trainings, which `ivcp run` makes one result of; elsewhere {one}")
    if not has_classes and (protocol.folds or protocol.num_views > 1):
        key = "folds" if protocol.folds else "test_num_clips or test_num_crops"
        raise ConfigError(f"{key} is for classifiers, and stage = {config.method.stage} has no classes: leave it out")


def check_no_fold(config: RunConfig) -> None:
    """Checks, for a pipeline on a cluster, that it does not export a model of a fold.

    Raises:
        ConfigError: it would.
    """
    if config.protocol.fold is not None:
        raise ConfigError(
            f"fold = {config.protocol.fold}: the model of a fold is measured and never exported, and a pipeline exports"
            " it: leave folds and fold out, or train the fold with `ivcp train`"
        )


def find_ineffective(config: RunConfig) -> list[str]:
    """What the settings ask for and will not get, a sentence each."""
    train = config.train
    found: list[str] = []
    if 0 < train.max_steps <= train.warmup_steps:
        found.append(
            f"warmup_steps = {train.warmup_steps} with max_steps = {train.max_steps}: the learning rate never reaches "
            "its peak; set warmup_ratio: 0.1"
        )
    if config.loss.mixup_alpha > 0 and train.per_device_train_batch_size == 1 and config.speed.tokens_per_batch is None:
        found.append(
            f"mixup_alpha = {config.loss.mixup_alpha:g} with per_device_train_batch_size = 1: there is no second clip "
            "to mix with; raise the batch size, or remove mixup_alpha"
        )
    asks_to_validate = train.eval_strategy not in (None, "no") or train.eval_steps is not None
    if asks_to_validate and not (config.data.val_size or config.data.eval_dataset):
        key = "eval_strategy" if train.eval_strategy not in (None, "no") else "eval_steps"
        found.append(
            f"{key} = {train.eval_strategy if key == 'eval_strategy' else train.eval_steps}: neither val_size nor "
            "eval_dataset is set, so that nothing is validated unless rows say split: val"
        )
    return found


def warn_of_ineffective(config: RunConfig) -> None:
    """Logs what `find_ineffective` finds."""
    for sentence in find_ineffective(config):
        log.warning("%s", sentence)


def warn_of_upload_at_export(config: RunConfig) -> None:
    """Says of a training alone that it uploads nothing: other trainers upload when they end."""
    if config.publishing.uploads_to_hub:
        log.warning("training uploads nothing to the hub: `ivcp export` uploads the merged model, when it is checked")
