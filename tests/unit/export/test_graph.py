import dataclasses

import pytest
import torch

from ivcp.export.graph import GraphDiffersError, check_graph_settings, export_graph, remove_graphs
from ivcp.records.graph import GRAPH_FILE, GraphInfo
from ivcp.serving.predictor import Predictor
from ivcp.settings import ConfigError, ExportConfig, ModelConfig, config_from_settings
from ivcp.stages.directory import load_directory, save_directory
from tests.graphs import clip_of, save_tiny_model
from tests.videos import write_video

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
    pytest.importorskip(package, reason="the extra `graphs` is not installed")

NUM_CLIPS = 40


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A model that gives clips of noise all its classes: rounding then changes some answers."""
    directory = save_tiny_model(tmp_path_factory.mktemp("exported") / "model", "qwen2_vl")
    model = load_directory(directory)
    with torch.no_grad():
        model.module.decoder.layers.bias -= model.outputs(drawn_for(model)).mean(dim=0)
    save_directory(
        directory,
        stage=model.stage,
        module=model.module,
        processor=model.processor,
        info=model.info,
        seen=model.seen,
        with_backbone=False,
    )
    return directory


def drawn_for(model):
    return [clip_of(model, number) for number in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def clips(model_dir):
    """Clips of the classes that the model itself gives them: it is right for all."""
    model = load_directory(model_dir)
    drawn = drawn_for(model)
    answers = model.outputs(drawn).argmax(dim=1).tolist()
    return [dataclasses.replace(clip, columns={"label": answer}) for clip, answer in zip(drawn, answers, strict=True)]


def graph_of(model_dir, clips, **settings):
    remove_graphs(model_dir)
    return export_graph(model_dir, export=ExportConfig(**settings), machine=ModelConfig(), samples=clips, split="test")


def folders(model_dir):
    return sorted(path.name for path in model_dir.iterdir() if path.is_dir())


def test_a_graph_is_a_directory_that_the_predictor_serves(model_dir, clips, tmp_path, caplog):
    info = graph_of(model_dir, clips, export_runtime="onnxruntime")
    assert info.comparison.clips == NUM_CLIPS
    assert info.comparison.top1_accuracy == info.comparison.top1_accuracy_before == 1.0
    assert info.comparison.max_logit_difference <= 1e-5
    assert folders(model_dir) == ["onnxruntime"]
    assert GraphInfo.read(model_dir / "onnxruntime" / GRAPH_FILE) == info

    write_video(tmp_path / "clip.mp4", num_frames=8)
    answers = []
    for directory in (model_dir, model_dir / "onnxruntime"):
        predictor = Predictor(directory)
        predictor.load()
        answers.append(predictor.predict(tmp_path / "clip.mp4", prompt="Which one is it?"))
    assert answers[1].model.precision == "float32 in onnxruntime"
    assert answers[1].logits == pytest.approx(answers[0].logits, abs=1e-5)
    assert answers[1].label_name == answers[0].label_name
    Predictor(model_dir / "onnxruntime", infer_dtype="bfloat16").load()
    assert "infer_dtype = bfloat16 means nothing for a graph: it is float32 in onnxruntime" in caplog.text


def test_rounded_weights_that_lose_accuracy_do_not_get_out(model_dir, clips):
    lax = graph_of(model_dir, clips, export_quantization_bit=4, export_max_accuracy_drop=1.0)
    lost = 1 - lax.comparison.top1_accuracy
    assert folders(model_dir) == ["openvino_int4"]
    assert lost == pytest.approx(lax.comparison.changed_classes / NUM_CLIPS)
    assert lost > 0, "a model of this size must lose some, or the next lines show nothing"

    with pytest.raises(GraphDiffersError, match=rf"{lost:.4f} of accuracy are lost, .* allows 0.01: nothing of it is"):
        graph_of(model_dir, clips, export_quantization_bit=4)
    assert folders(model_dir) == []


def test_a_float32_graph_that_answers_otherwise_does_not_get_out(model_dir, clips, monkeypatch):
    def another(module, batch, path):
        with torch.no_grad():
            module.decoder.layers.bias += 0.001
        write_graph(module, batch, path)
        with torch.no_grad():
            module.decoder.layers.bias -= 0.001

    from ivcp.export import graph
    from ivcp.models.graphs.trace import write_graph

    monkeypatch.setattr(graph, "write_graph", another)
    with pytest.raises(GraphDiffersError, match=r"expected at most 0\.0001: nothing of it is kept"):
        graph_of(model_dir, clips, export_runtime="openvino")
    assert folders(model_dir) == []


def test_what_is_missing_is_said_before_the_merge():
    rounded, plain = ExportConfig(export_quantization_bit=8), ExportConfig(export_runtime="openvino")
    with pytest.raises(ConfigError, match="no data set is named: set dataset"):
        check_graph_settings(rounded, splits=())
    with pytest.raises(ConfigError, match="no data set is named: set dataset"):
        check_graph_settings(plain, splits=())
    with pytest.raises(ConfigError, match=r"measured on the test split before .* give the data a test split"):
        check_graph_settings(rounded, splits=("train", "val"))
    check_graph_settings(plain, splits=("train", "val"))
    check_graph_settings(ExportConfig(), splits=())


def test_settings_of_llama_factory_have_a_meaning():
    export = config_from_settings(
        {"export_device": "auto", "export_quantization_bit": 4, "export_quantization_dataset": "c4_demo.json"}
    ).export
    assert (export.export_device, export.graph_runtime, export.graph_folder) == ("auto", "openvino", "openvino_int4")
    with pytest.raises(ConfigError, match="ONNX Runtime computes in 8 bits here"):
        config_from_settings({"export_quantization_bit": 4, "export_runtime": "onnxruntime"})


def test_what_export_writes_is_deployed_unless_the_settings_say():
    asked = {"export_quantization_bit": 8}
    assert config_from_settings(asked).deployed_graph == "openvino_int8"
    assert config_from_settings(asked | {"serve_graph": False}).deployed_graph is None
    assert config_from_settings({}).deployed_graph is None
