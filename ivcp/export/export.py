"""The exported model: merged, checked, described and registered."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ivcp import storage
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import Sample
from ivcp.evaluation.moved import check_champion
from ivcp.export.exits.engines.check import check_engines_of
from ivcp.export.exits.engines.names import TRANSFORMERS, VLLM
from ivcp.export.exits.engines.write import add_engines, remove_engines
from ivcp.export.exits.leaving import check_exits, take_exits
from ivcp.export.graph import check_graph_settings, export_graph, remove_graphs
from ivcp.export.merge import merge_adapter
from ivcp.export.mlflow_form import add_mlflow_form, referring_model, remove_mlflow_form
from ivcp.export.model_card import model_card
from ivcp.export.weights import weights_hash
from ivcp.records import MODEL_CARD_FILE, RUN_CONFIG_FILE, PreparedIndex, Split
from ivcp.records.calibration import CALIBRATION_FILE
from ivcp.records.evaluation import SMOKE_CLIP_FILE
from ivcp.records.export import EXPORT_RESULT_FILE, Exits, ExportResult, MergeCheck
from ivcp.records.graph import GraphInfo
from ivcp.records.language_evaluation import SMOKE_QUESTION_FILE, Measured
from ivcp.records.markdown import code, escape
from ivcp.records.target_evaluation import TargetMetrics
from ivcp.records.thresholds import THRESHOLDS_FILE
from ivcp.settings import ConfigError, RunConfig, read_model_config
from ivcp.stages.directory import check_complete
from ivcp.stages.registry import stage_of
from ivcp.storage.atomic import writable_folder, write_whole
from ivcp.storage.claims import OWNER_FILE
from ivcp.storage.owner import owned
from ivcp.tracking import TrackedRun, promote_model, register_model, tracked_run, tracking_uri
from ivcp.tracking.identity import CONFIGURATION_TAG, PREPARED_TAG, configuration_fingerprint
from ivcp.tracking.registry import WEIGHTS_TAG, folder_in_run, knows_by_run

log = logging.getLogger(__name__)

_CHECKED_CLIPS = 16
_BEGUN_FILE = ".export"
"""Says of a folder without a result that an export was cut off in it."""
_ASKS_FOR_REGISTRATION = frozenset({"registered_model_name", "model_alias", "models_uri"})


def export_model(
    config: RunConfig,
    *,
    adapter_dir: Path,
    index: PreparedIndex,
    metrics: Measured | None,
    export_dir: Path,
    results_dir: Path | None = None,
    is_deployed_next: bool = False,
) -> ExportResult:
    """Writes the merged model of `adapter_dir` to `export_dir` and registers it.

    The alias `model_alias` moves to it, unless `is_deployed_next`: then it moves when the deployment answers. `metrics`
    null is a model that was not measured: card and registry have no figures then. Of `results_dir`, where evaluation
    wrote, the model keeps what a deployment asks it, now or when somebody goes back to it.

    Other exits (an image, the hub) are taken before it is registered. With `models_uri`, what is registered is a copy
    at `<models_uri>/<registered_model_name>/<run>`; a copy that was interrupted goes on when the step is repeated.

    Raises:
        MergeError: the merged model answers differently; nothing is registered then.
        ModelFilesError: `adapter_dir` is incomplete.
        UploadError: the hub does not take it; nothing is registered then.
        ChampionMovedError: another model was promoted since this one was measured; it is registered all the same.
        ConfigError, RuntimeMissingError, GraphError, GraphDiffersError: as `ivcp.export.graph` says; nothing is
            registered then.
    """
    check_graph_settings(config.export, splits=[split for split, clips in index.num_clips.items() if clips])
    repository = check_exits(config)
    checked = _merge(config, adapter_dir, export_dir, _samples_to_check(index))
    if metrics and metrics.calibration:
        metrics.calibration.write(export_dir / CALIBRATION_FILE)
    if isinstance(metrics, TargetMetrics) and metrics.thresholds:
        metrics.thresholds.write(export_dir / THRESHOLDS_FILE)
    _keep_smoke(results_dir, export_dir)
    graph = _graph(config, export_dir, index)
    exits = _described(config, export_dir, metrics=metrics, repository=repository)
    tags = _fingerprints(index, metrics) | {CONFIGURATION_TAG: configuration_fingerprint(config)}
    result = _registered(
        config, export_dir, checked=checked, graph=graph, metrics=metrics, tags=tags, is_champion=not is_deployed_next
    )
    return _finished(result.model_copy(update={"exits": exits}), export_dir)


def merge_only(config: RunConfig, *, adapter_dir: Path, export_dir: Path) -> ExportResult:
    """The same without a data set: the merged model is compared with nothing, its card says that it was not measured.

    It is registered where the settings name a place or a name for that: `registered_model_name`, `model_alias` or
    `models_uri`.

    Raises:
        ModelFilesError: `adapter_dir` is incomplete.
        UploadError: the hub does not take it.
    """
    check_graph_settings(config.export, splits=())
    repository = check_exits(config)
    checked = _merge(config, adapter_dir, export_dir, ())
    _keep_smoke(None, export_dir)
    exits = _described(config, export_dir, metrics=None, repository=repository)
    result = ExportResult(model_dir=str(export_dir), merge=checked, is_measured=False)
    if _ASKS_FOR_REGISTRATION & config.export.model_fields_set:
        result = _registered(config, export_dir, checked=checked, metrics=None, tags={})
    return _finished(result.model_copy(update={"exits": exits}), export_dir)


def _keep_smoke(results_dir: Path | None, export_dir: Path) -> None:
    for name in (SMOKE_CLIP_FILE, SMOKE_QUESTION_FILE):
        (export_dir / name).unlink(missing_ok=True)
        if results_dir is not None and (results_dir / name).is_file():
            shutil.copyfile(results_dir / name, export_dir / name)


def _described(config: RunConfig, export_dir: Path, *, metrics: Measured | None, repository: str | None) -> Exits:
    """Writes the card, and takes the exits: the model is what others may read from here on."""
    card = model_card(
        export_dir,
        metrics=metrics,
        repository=repository,
        licence=config.publishing.export_license,
        data_sets=config.data.dataset,
        is_for_transformers=TRANSFORMERS in config.publishing.export_engines,
        is_for_vllm=VLLM in config.publishing.export_engines,
    )
    write_whole(export_dir / MODEL_CARD_FILE, card)
    return take_exits(config, export_dir, repository=repository)


def check_export_dir(config: RunConfig, *, adapter_dir: Path, export_dir: Path) -> None:
    """Checks that nothing is written over but an earlier export.

    Raises:
        ConfigError: the folder is the base model's, the adapter's or the data's, or holds something else.
    """
    recorded = read_model_config(adapter_dir / RUN_CONFIG_FILE).model.model_name_or_path
    taken = {
        "the base model": (recorded, config.model.model_name_or_path),
        "the adapter": (str(adapter_dir), config.train.output_dir),
        "the data": (config.data.dataset_dir, config.data.media_dir),
    }
    for what, places in taken.items():
        if any(place and Path(place).is_dir() and export_dir.resolve() == Path(place).resolve() for place in places):
            raise ConfigError(f"export_dir = {export_dir} is the folder of {what}: name another one")
    names = {path.name for path in export_dir.iterdir()} if export_dir.is_dir() else set()
    names -= {OWNER_FILE}
    if names and not names & {EXPORT_RESULT_FILE, _BEGUN_FILE}:
        raise ConfigError(
            f"export_dir = {export_dir} holds {', '.join(sorted(names)[:3])} and no earlier export: name another "
            "folder, or empty this one"
        )


def _merge(config: RunConfig, adapter_dir: Path, export_dir: Path, samples: Sequence[Sample]) -> MergeCheck:
    check_complete(adapter_dir)
    _check_one_class(config, adapter_dir)
    check_engines_of(adapter_dir, config.publishing.export_engines, machine=config.model)
    check_export_dir(config, adapter_dir=adapter_dir, export_dir=export_dir)
    with owned(writable_folder(export_dir), advice="wait for its end, or set another export_dir"):
        (export_dir / _BEGUN_FILE).touch()
        remove_engines(export_dir)
        remove_graphs(export_dir)
        remove_mlflow_form(export_dir)
        for path in export_dir.glob("*.safetensors"):
            path.unlink()  # made anew, not written over: a predictor may have mapped it
        checked = merge_adapter(
            adapter_dir,
            export_dir,
            samples=samples,
            machine=config.model,
            max_shard_gigabytes=config.export.export_size,
            served_prompt=config.serving.served_prompt,
            device=config.export.export_device,
        )
        if not config.publishing.export_engines:
            return checked
        difference = add_engines(export_dir, config.publishing.export_engines, machine=config.model)
        return checked.model_copy(update={"engines_difference": difference})


def _check_one_class(config: RunConfig, adapter_dir: Path) -> None:
    """Raises:
    ConfigError: other engines and graphs are asked for a model that does not tell one class, which they are for.
    """
    asked = {
        "export_engines": bool(config.publishing.export_engines),
        "export_runtime": config.export.graph_runtime is not None,
    }
    named = [key for key, is_set in asked.items() if is_set]
    if named and read_model_config(adapter_dir / RUN_CONFIG_FILE).action_cls.has_other_targets:
        raise ConfigError(
            f"{', '.join(named)}: {adapter_dir} tells several classes, a class of each head, or a number, and they are "
            "for models of one class: leave it out; `ivcp serve` serves every model"
        )


def _registered(
    config: RunConfig,
    export_dir: Path,
    *,
    checked: MergeCheck,
    graph: GraphInfo | None = None,
    metrics: Measured | None,
    tags: Mapping[str, str],
    is_champion: bool = True,
) -> ExportResult:
    """Registers the model, and returns what export did."""
    with tracked_run(config, step="export") as run:
        weights = weights_hash(export_dir, stage_of(config).files)
        tags = {**tags, WEIGHTS_TAG: weights}
        answers_with_a_class = stage_of(config).rows == "labels" and not config.action_cls.has_other_targets
        if answers_with_a_class:
            add_mlflow_form(export_dir)
        model_uri = _published(export_dir, config=config, run=run.run_id or weights)
        registered = register_model(
            model_uri,
            config=config,
            metrics=metrics.headline() if metrics else {},
            run_id=run.run_id,
            tags=tags,
            is_champion=False,
        )
        if answers_with_a_class and run.is_open:
            _show_in_mlflow(run, referring_model(model_uri), config=config, model_uri=model_uri, tags=tags)
        if is_champion:
            if metrics is not None:
                check_champion(config, registered, metrics)
            registered = promote_model(registered, config=config)
        run.describe("Model", f"Version {registered.version} of {escape(registered.name)}: {code(registered.source)}")
        if checked.max_logit_difference is not None:
            run.set_tags({"export.max_logit_difference": f"{checked.max_logit_difference:.3g}"})
        if checked.served_difference is not None:
            run.set_tags({"export.served_logit_difference": f"{checked.served_difference:.3g}"})
    return ExportResult(
        model_dir=str(export_dir),
        merge=checked,
        registered=registered,
        run_id=run.run_id,
        graph=graph,
        is_measured=metrics is not None,
    )


def _show_in_mlflow(
    run: TrackedRun, files: Mapping[str, str], *, config: RunConfig, model_uri: Path | str, tags: Mapping[str, str]
) -> None:
    """Logs the model, and what a version points to that is known by its run."""
    run.log_model(files, name=config.registered_name, tags=tags)
    if knows_by_run(tracking_uri(config), model_uri):
        for name, text in files.items():
            run.log_text(text, f"{folder_in_run(tags)}/{name}")


def _graph(config: RunConfig, export_dir: Path, index: PreparedIndex) -> GraphInfo | None:
    """The whole test split is asked, or where there is none some clips of another one."""
    is_measured = bool(index.num_clips.get("test"))
    return export_graph(
        export_dir,
        export=config.export,
        machine=config.model,
        samples=PreparedSamples(index, "test") if is_measured else _samples_to_check(index),
        split=_split_to_check(index),
    )


def _finished(result: ExportResult, export_dir: Path) -> ExportResult:
    result.write(export_dir / EXPORT_RESULT_FILE)
    (export_dir / _BEGUN_FILE).unlink(missing_ok=True)
    return result


def _fingerprints(index: PreparedIndex, metrics: Measured | None) -> dict[str, str]:
    if metrics:
        return metrics.fingerprints()
    return {PREPARED_TAG: index.fingerprint, "data_fingerprint": index.data_fingerprint}


def _published(export_dir: Path, *, config: RunConfig, run: str) -> Path | str:
    """Where the model is to be read from: its copy below `models_uri`, else the directory itself."""
    if config.export.models_uri is None:
        return export_dir
    uri = storage.join(config.export.models_uri, config.registered_name, run)
    storage.upload(export_dir, uri)
    log.info("the model lies at %s", uri)
    return uri


def _split_to_check(index: PreparedIndex) -> Split:
    order: tuple[Split, ...] = ("test", "val", "train")
    return next(split for split in order if index.num_clips.get(split))


def _samples_to_check(index: PreparedIndex) -> list[Sample]:
    samples = PreparedSamples(index, _split_to_check(index))
    return [samples[i] for i in range(min(_CHECKED_CLIPS, len(samples)))]
