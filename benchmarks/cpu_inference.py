"""Ways of running a model on a CPU, side by side: the call of the model only, for batches of several sizes.

For each model, number of threads and batch size: seconds for a clip in each way, and how often the first way would fit
into them. The ways take turns, and the fastest of their turns counts, so that a busy machine harms them alike. Beside
it stands how far logits are from the first way's, and how many of `--clips` clips get another class.

`tiny` is the demo's model (0.9 M parameters, 8 frames of 48x48), `small` a random Qwen2-VL of about 100 M (8 frames of
112x112).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.data.seen_clips import SeenClips
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.models.backbone import language_model_of
from ivcp.models.graphs.inputs import graph_inputs
from ivcp.models.graphs.quantize import write_quantized
from ivcp.models.graphs.run import open_graph
from ivcp.models.graphs.trace import write_graph
from ivcp.models.load import load_base_model
from ivcp.models.positions import RopePositions
from ivcp.models.processor import Processor
from ivcp.records import Labels, Message
from ivcp.records.graph import Bits, Runtime
from ivcp.settings import config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import load_directory, save_directory
from ivcp.stages.loaded_model import LoadedModel
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of

_SIDES = {"tiny": 48, "small": 112}
_FRAMES = 8
_NAMES = tuple(f"class {number}" for number in range(10))
_GRAPHS: tuple[tuple[Runtime, Bits | None], ...] = (
    ("onnxruntime", None),
    ("openvino", None),
    ("onnxruntime", 8),
    ("openvino", 8),
    ("openvino", 4),
)
Way = Callable[[dict[str, Any]], Tensor]


def main() -> None:
    """Prints a table for each model, and all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(_SIDES), choices=list(_SIDES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--clips", type=int, default=32, help="for the comparison of logits")
    parser.add_argument("--ways", nargs="+", help="only these, by the names in the table; the first is always there")
    parser.add_argument("--folder", type=Path, help="keeps models and graphs for the next time")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            model_dir = (options.folder or Path(temporary)) / name
            if not model_dir.is_dir():
                write_model(model_dir, name)
            for threads in options.threads:
                torch.set_num_threads(threads)
                rows += _measure(model_dir, name, options)
    print(json.dumps(rows))


def _measure(model_dir: Path, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    model = load_directory(model_dir)
    samples = _clips(model, _SIDES[name], max(options.clips, *options.batches))
    ways = dict(_ways(model, model_dir, samples, options.ways))
    logits = {way: torch.cat([call(_batch(model, [each])) for each in samples]) for way, call in ways.items()}
    expected = next(iter(logits.values()))
    rows = []
    for size in options.batches:
        batch = _batch(model, samples[:size])
        seconds = _fastest(ways, batch, options.rounds)
        first = next(iter(seconds.values()))
        print(f"\n{name}, {torch.get_num_threads()} threads, batches of {size}", flush=True)
        for way, (wall, busy) in seconds.items():
            row = {
                "model": name,
                "threads": torch.get_num_threads(),
                "batch": size,
                "way": way,
                "ms_per_clip": round(1000 * wall / size, 3),
                "cpu_ms_per_clip": round(1000 * busy / size, 3),
                "ratio": round(first[0] / wall, 2),
                "cpu_ratio": round(first[1] / busy, 2),
                "max_logit_difference": (logits[way] - expected).abs().max().item(),
                "changed_classes": int((logits[way].argmax(1) != expected.argmax(1)).sum()),
            }
            rows.append(row)
            print(
                "{way:>22} {ms_per_clip:9.2f} ms {ratio:6.2f}x  (CPU {cpu_ms_per_clip:9.2f} ms {cpu_ratio:5.2f}x)  "
                "|d| {max_logit_difference:.1e}, {changed_classes} changed".format(**row),
                flush=True,
            )
    return rows


def _is_asked(way: str, asked: list[str] | None) -> bool:
    return asked is None or way in asked or way == "today"


def _fastest(ways: dict[str, Way], batch: dict[str, Any], rounds: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each way's fastest turn."""
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, call in ways.items():
            wall, busy = time.perf_counter(), time.process_time()
            call(batch)
            if turn:  # the first one warms up
                taken[way].append((time.perf_counter() - wall, time.process_time() - busy))
    return {way: (min(wall for wall, _ in each), min(busy for _, busy in each)) for way, each in taken.items()}


def _ways(
    model: LoadedModel, model_dir: Path, samples: list[Sample], asked: list[str] | None
) -> Iterator[tuple[str, Way]]:
    yield from [each for each in _in_process(model, model_dir) if _is_asked(each[0], asked)]
    graph = model_dir / "graph" / "model.onnx"
    tower = language_model_of(model.module.backbone).get_encoder(modality="video")
    for runtime, bits in _GRAPHS:
        name = f"{runtime} {'float32' if bits is None else f'int{bits}'}"
        if not _is_asked(name, asked):
            continue
        if not graph.is_file():
            graph.parent.mkdir(exist_ok=True)
            write_graph(model.module, _batch(model, samples[:3]), graph)
        rounded = graph.with_name(f"model_int{bits}.{'xml' if runtime == 'openvino' else 'onnx'}")
        path = graph if bits is None else rounded
        if not path.is_file():
            write_quantized(graph, runtime, bits)
        run = open_graph(path, runtime)
        yield name, lambda batch, run=run: run(graph_inputs(batch, tower))


def _in_process(model: LoadedModel, model_dir: Path) -> list[tuple[str, Way]]:
    """What PyTorch can do."""
    module, half = model.module, load_directory(model_dir, dtype=torch.bfloat16).module

    def today(batch: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return module(**batch).logits

    def inference_mode(batch: dict[str, Any]) -> Tensor:
        with torch.inference_mode():
            return module(**batch).logits

    def bfloat16(batch: dict[str, Any]) -> Tensor:
        """As `infer_dtype: bfloat16` of the predictor computes."""
        with torch.no_grad():
            return half(**batch).logits.float()

    def autocast(batch: dict[str, Any]) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return module(**batch).logits.float()

    def slice_by_slice(batch: dict[str, Any]) -> Tensor:
        with _attention("sdpa", module), torch.no_grad():
            return module(**batch).logits

    return [
        ("today", today),
        ("inference_mode", inference_mode),
        ("slice by slice", slice_by_slice),
        ("bfloat16", bfloat16),
        ("bfloat16 autocast", autocast),
        ("torch.compile", _compiled(module)),
        ("torch.jit.trace", _traced(module)),
    ]


def _compiled(module: ActionClassifier) -> Way:
    """The layers of language model and vision tower, by inductor."""
    compiled = torch.compile(module.forward, dynamic=True)

    def call(batch: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return compiled(**batch).logits

    return call


def _traced(module: ActionClassifier) -> Way:
    """By torch.jit.trace, anew for each shape of a batch: grids are numbers in it."""
    traces: dict[str, Any] = {}

    def call(batch: dict[str, Any]) -> Tensor:
        shape = str([(name, tuple(value.shape)) for name, value in batch.items()])
        names = tuple(batch)
        if shape not in traces:
            wrapped = _ByPlace(module, names)
            traces[shape] = torch.jit.trace(wrapped, tuple(batch.values()), check_trace=False)
        with torch.no_grad():
            return traces[shape](*batch.values())

    return call


class _ByPlace(nn.Module):
    """Takes a batch's tensors by their places."""

    def __init__(self, module: ActionClassifier, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> Tensor:
        """Logits, (batch, outputs)."""
        return self.module(**dict(zip(self.names, values, strict=True))).logits


@contextlib.contextmanager
def _attention(implementation: str, module: ActionClassifier) -> Iterator[None]:
    config = language_model_of(module.backbone).get_encoder(modality="video").config
    before, config._attn_implementation = config._attn_implementation, implementation
    try:
        yield
    finally:
        config._attn_implementation = before


def _batch(model: LoadedModel, samples: list[Sample]) -> dict[str, Any]:
    positions = RopePositions.of(language_model_of(model.module.backbone))
    batch = model.stage.collator(model.module, model.processor, positions=positions, training=False)(samples)
    batch.pop("labels")
    return batch


def _clips(model: LoadedModel, side: int, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [_sample(model, rng.integers(0, 256, (_FRAMES, side, side, 3), np.uint8)) for _ in range(count)]


def _sample(model: LoadedModel, frames: Any) -> Sample:
    medium = Medium(frames, 0.25, tuple(range(len(frames))), 4.0, len(frames))
    tokens = model.tokenize(model.prompt, [medium])
    return Sample(**vars(tokens), sample_id="", source="", media=(medium,), columns={"label": 0})


def write_model(directory: Path, name: str) -> Path:
    """Writes a model directory with random weights that says it was trained."""
    build_tiny_model(directory, warm_up=False)
    side = _SIDES[name]
    if name == "small":
        config = AutoConfig.from_pretrained(directory)
        text, vision = config.get_text_config(), config.vision_config
        text.hidden_size, text.intermediate_size, text.num_hidden_layers = 768, 2048, 10
        text.num_attention_heads, text.num_key_value_heads, text.initializer_range = 12, 4, 0.02
        text.layer_types, text.rope_parameters["mrope_section"] = ["full_attention"] * 10, [8, 12, 12]
        text.max_window_layers = 10
        vision.embed_dim, vision.depth, vision.num_heads, vision.hidden_size = 512, 8, 8, 768
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(directory)
    settings = {"video_num_frames": _FRAMES, "video_min_pixels": side**2, "video_max_pixels": side**2}
    config = config_from_settings({"model_name_or_path": str(directory), **settings})
    processor = Processor.from_pretrained(directory, video=config.video, special_tokens=("<ACTION>",))
    model = load_base_model(directory, settings=config.model)
    hidden_size = model.config.get_text_config().hidden_size
    torch.manual_seed(0)
    decoder = ActionDecoder(DecoderShape(decoder_type="linear", hidden_size=hidden_size, num_classes=len(_NAMES)))
    labels, token_id = Labels(label_names=_NAMES), processor.token_id("<ACTION>")
    prompt = (Message(role="user", content="<video>What is the person doing? <ACTION>"),)
    save_directory(
        directory,
        stage=stage_of(config),
        module=ActionClassifier(model, decoder, labels=labels, action_token_id=token_id),
        processor=processor,
        info=ModelInfo(trained_steps=1, prompt=prompt, data_fingerprint="none", prepared_fingerprint="none"),
        seen=SeenClips(),
        with_backbone=False,
    )
    return directory


if __name__ == "__main__":
    main()
