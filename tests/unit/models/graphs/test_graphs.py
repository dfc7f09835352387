"""Graphs of real tiny classifiers, in the real runtimes."""

import shutil

import pytest
import torch

from ivcp.models.backbone import language_model_of
from ivcp.models.backbone_files import MODEL_CONFIG
from ivcp.models.graphs.inputs import GraphInputError, graph_inputs
from ivcp.models.graphs.quantize import write_quantized
from ivcp.models.graphs.run import RuntimeMissingError, check_installed
from ivcp.models.graphs.trace import GraphError, check_traceable, write_graph
from ivcp.models.positions import RopePositions
from ivcp.records.graph import GRAPH_FILE, GraphInfo
from ivcp.settings import ModelConfig
from ivcp.stages.directory import load_directory
from tests.graphs import clip_of, save_tiny_model

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason="the extra `graphs` is not installed")


@pytest.fixture(
    scope="module",
    params=[("qwen2_vl", "transformer"), ("qwen2_5_vl", "mlp"), ("qwen3_vl", "linear")],
    ids=lambda each: each[0],
)
def model(request, tmp_path_factory):
    """Qwen2.5-VL's tower attends in windows of up to 2x2 tokens, a clip of 48x48 has four of three sizes."""
    family, decoder = request.param
    return load_directory(save_tiny_model(tmp_path_factory.mktemp(family) / "model", family, decoder=decoder))


@pytest.fixture(scope="module")
def graph_dir(model, tmp_path_factory):
    """The model's directory without its weights, with a graph in place of them."""
    folder = tmp_path_factory.mktemp("graph") / "model"
    shutil.copytree(model.directory, folder, ignore=shutil.ignore_patterns("model*.safetensors"))
    write_graph(model.module, batch_of(model, [clip_of(model, 0)] * 3), folder / "model.onnx")
    assert (folder / MODEL_CONFIG).is_file()
    return folder


def batch_of(model, clips):
    positions = RopePositions.of(language_model_of(model.module.backbone))
    return model.stage.collator(model.module, model.processor, positions=positions, training=False)(clips)


def opened(directory, **info):
    GraphInfo(**info).write(directory / GRAPH_FILE)
    return load_directory(directory)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_one_graph_answers_as_the_model_for_clips_of_any_shape(model, graph_dir, runtime):
    graph = opened(graph_dir, file="model.onnx", runtime=runtime)
    assert graph.precision == f"float32 in {runtime}"
    assert {parameter.device.type for parameter in graph.module.backbone.parameters()} == {"meta"}
    for clips in (
        [clip_of(model, 1)],
        [clip_of(model, number, size=(32, 48)) for number in range(2)],
        [clip_of(model, 4, size=(48, 48), frames=8), clip_of(model, 5, size=(48, 48))],
        [clip_of(model, 2, size=(48, 32), frames=6, question="Is it this, or that, or the other?"), clip_of(model, 3)],
    ):
        torch.testing.assert_close(graph.outputs(clips), model.outputs(clips), atol=1e-5, rtol=0)


def test_clips_of_several_sizes_keep_their_order(model, graph_dir):
    graph = opened(graph_dir, file="model.onnx", runtime="onnxruntime")
    clips = [clip_of(model, number, size=[(32, 32), (32, 48), (48, 32)][number % 3]) for number in range(7)]
    alone = torch.cat([model.outputs([clip]) for clip in clips])
    torch.testing.assert_close(graph.outputs(clips), alone, atol=1e-5, rtol=0)
    with pytest.raises(GraphInputError, match="one size at a time"):
        graph_inputs(batch_of(model, clips), language_model_of(model.module.backbone).get_encoder(modality="video"))


@pytest.mark.parametrize(("runtime", "bits"), [("onnxruntime", 8), ("openvino", 8), ("openvino", 4)])
def test_rounded_weights_are_smaller_and_answer_nearly_alike(model, graph_dir, runtime, bits):
    rounded = write_quantized(graph_dir / "model.onnx", runtime, bits)
    graph = opened(graph_dir, file=rounded.name, runtime=runtime, bits=bits)
    assert graph.precision == f"float32 in {runtime}, {bits}-bit weights"
    assert size_of(graph_dir, rounded.stem) < 0.8 * size_of(graph_dir, "model")
    clips = [clip_of(model, number) for number in range(6)]
    exact, found = model.outputs(clips), graph.outputs(clips)
    assert not torch.equal(found, exact)
    assert (found - exact).norm() / exact.norm() < (0.25 if bits == 8 else 0.9)


def size_of(directory, stem):
    return sum(path.stat().st_size for path in directory.glob(f"{stem}.*"))


def test_a_graph_of_another_family_is_refused(tmp_path):
    model = load_directory(save_tiny_model(tmp_path / "model", "qwen3_5"))
    with pytest.raises(GraphError, match=r"a qwen3_5 model has no graph .* leave export_runtime out"):
        check_traceable(model.module)


def test_a_model_with_another_attention_is_refused(tmp_path):
    directory = save_tiny_model(tmp_path / "model", "qwen3_vl")
    model = load_directory(directory, machine=ModelConfig(flash_attn="disabled"))
    with pytest.raises(GraphError, match=r"traced with flash_attn: auto, this model was loaded with eager attention"):
        check_traceable(model.module)


def test_a_missing_runtime_says_what_to_install():
    with pytest.raises(RuntimeMissingError, match=r"no_such_runtime is not installed: pip install 'ivcp\[graphs\]'"):
        check_installed("torch", "no_such_runtime")
