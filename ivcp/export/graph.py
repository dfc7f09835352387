"""The exported model as a graph for a runtime on CPUs: a directory of its own, whose answers are compared first."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.predict import predict_split
from ivcp.export.merge import save_beside_weights
from ivcp.inference.loop import Samples
from ivcp.models.backbone import language_model_of
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.models.graphs.quantize import PACKAGES, write_quantized
from ivcp.models.graphs.run import check_installed
from ivcp.models.graphs.trace import write_graph
from ivcp.models.positions import RopePositions
from ivcp.records.graph import GRAPH_FILE, Bits, GraphComparison, GraphInfo, Runtime
from ivcp.settings import ConfigError, ExportConfig, ModelConfig
from ivcp.stages.directory import load_directory
from ivcp.stages.loaded_model import LoadedModel

log = logging.getLogger(__name__)

MAX_LOGIT_DIFFERENCE = 1e-4
"""Between a float32 graph and the model."""
_BATCH = 8
_TRACED_CLIPS = 3
"""More than one, and no number that a dimension of the model has."""


class GraphDiffersError(RuntimeError):
    """A graph that answers otherwise than the model it was made of; nothing of it is kept."""


def check_graph_settings(export: ExportConfig, *, splits: Collection[str]) -> None:
    """Checks, before the merge, that a graph that the settings ask for can be made and compared.

    `splits` are those with prepared clips; none are there where no data set is named.

    Raises:
        ConfigError: there are no clips to compare it on, or no test split to measure rounded weights on.
        RuntimeMissingError: a package is missing.
    """
    if export.graph_runtime is None:
        return
    asked = "export_quantization_bit" if export.export_quantization_bit else "export_runtime"
    if not splits:
        raise ConfigError(
            f"{asked}: a graph is compared with the model on prepared clips before it is let out, and no data set is "
            f"named: set dataset to that of the training, or leave {asked} out"
        )
    if export.export_quantization_bit and "test" not in splits:
        raise ConfigError(
            f"{asked} = {export.export_quantization_bit}: rounded weights are measured on the test split before they "
            f"are let out, and there is none: give the data a test split, or leave {asked} out"
        )
    check_installed(*PACKAGES[export.graph_runtime])


def export_graph(
    model_dir: Path, *, export: ExportConfig, machine: ModelConfig, samples: Samples, split: str
) -> GraphInfo | None:
    """Writes the graph of `model_dir` into a folder of it and compares both on `samples`; null where none is asked for.

    Raises:
        GraphError: the model cannot be traced.
        GraphDiffersError: a float32 graph answers otherwise, or rounded weights are wrong for more clips than
            `export_max_accuracy_drop` allows. Nothing is left of it then.
        NonFiniteError: its logits are not finite.
    """
    if export.graph_runtime is None:
        return None
    model = load_directory(model_dir, machine=machine, dtype=torch.float32)
    beside = model_dir / f".{export.graph_folder}"
    try:
        _write(beside, model, runtime=export.graph_runtime, bits=export.export_quantization_bit, samples=samples)
        info = _compared(beside, model, samples=samples, split=split)
        _check(info, export)
        info.write(beside / GRAPH_FILE)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    beside.rename(model_dir / export.graph_folder)
    log.info("%s: %s", model_dir / export.graph_folder, info.words)
    return info


def remove_graphs(model_dir: Path) -> None:
    """Removes what earlier exports left: graphs of another model than the directory's, and those that were cut off."""
    for path in model_dir.iterdir() if model_dir.is_dir() else ():
        if path.is_dir() and path.name.lstrip(".").partition("_")[0] in PACKAGES:
            shutil.rmtree(path)


def _write(directory: Path, model: LoadedModel, *, runtime: Runtime, bits: Bits | None, samples: Samples) -> None:
    """Everything of a model directory but the backbone's weights, and the graph."""
    save_beside_weights(directory, model)
    shutil.copy(model.directory / MODEL_CONFIG, directory / MODEL_CONFIG)
    positions = RopePositions.of(language_model_of(model.module.backbone))
    collate = model.stage.collator(model.module, model.processor, positions=positions, training=False)
    graph = directory / "model.onnx"
    write_graph(model.module, collate([samples[0]] * _TRACED_CLIPS), graph)
    if bits is not None:
        rounded = write_quantized(graph, runtime, bits)
        for path in directory.glob("model.onnx*"):
            path.unlink()
        graph = rounded
    GraphInfo(file=graph.name, runtime=runtime, bits=bits).write(directory / GRAPH_FILE)


def _compared(directory: Path, model: LoadedModel, *, samples: Samples, split: str) -> GraphInfo:
    """Both are asked what the predictor asks, as evaluation is."""
    loaded = load_directory(directory, machine=model.config.model)
    assert loaded.graph is not None
    asked = AskedSamples(samples, model.stage.tokenize, model.processor, model.prompt)
    before, after = (
        predict_split(
            each.predict, asked, num_classes=model.labels.num_classes, batch_size=_BATCH, source=str(each.directory)
        )
        for each in (model, loaded)
    )
    comparison = GraphComparison(
        split=split,
        clips=len(samples),
        max_logit_difference=float(np.abs(after.logits - before.logits).max()),
        changed_classes=int((after.predictions != before.predictions).sum()),
        top1_accuracy_before=float((before.predictions == before.labels).mean()),
        top1_accuracy=float((after.predictions == after.labels).mean()),
    )
    return loaded.graph.info.model_copy(update={"comparison": comparison})


def _check(info: GraphInfo, export: ExportConfig) -> None:
    found = info.comparison
    assert found is not None
    drop = found.top1_accuracy_before - found.top1_accuracy
    if info.bits and drop > export.export_max_accuracy_drop:
        raise GraphDiffersError(
            f"{info.words}: {drop:.4f} of accuracy are lost, export_max_accuracy_drop allows "
            f"{export.export_max_accuracy_drop:g}: nothing of it is kept; leave export_quantization_bit out, or take 8 "
            "instead of 4, or raise export_max_accuracy_drop"
        )
    if not info.bits and found.max_logit_difference > MAX_LOGIT_DIFFERENCE:
        raise GraphDiffersError(
            f"{info.words}: expected at most {MAX_LOGIT_DIFFERENCE:g}: nothing of it is kept; leave export_runtime out "
            "and report the model's settings"
        )
