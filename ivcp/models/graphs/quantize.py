"""Rounds a graph's weights to 8 or 4 bits."""

from __future__ import annotations

import os
from pathlib import Path

from ivcp.records.graph import Bits, Runtime

PACKAGES: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino", "nncf"),
}
"""What writing a graph needs."""


def write_quantized(graph: Path, runtime: Runtime, bits: Bits) -> Path:
    """Writes a graph with rounded weights beside `graph` and returns its path.

    ONNX Runtime's computes products in 8 bits too, for which it measures the values of each input; OpenVINO's computes
    in float32 what 8 or 4 bits hold.

    Raises:
        ImportError: a package is missing.
    """
    return _for_openvino(graph, bits) if runtime == "openvino" else _for_onnxruntime(graph)


def _for_onnxruntime(graph: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = graph.with_name("model_int8.onnx")
    quantize_dynamic(graph, path, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=True)
    return path


def _for_openvino(graph: Path, bits: Bits) -> Path:
    os.environ.setdefault("NNCF_CI", "1")  # or each use of NNCF is reported to its makers
    import nncf
    import openvino

    mode = nncf.CompressWeightsMode.INT8_ASYM if bits == 8 else nncf.CompressWeightsMode.INT4_SYM
    # Groups of 128 weights, of 64 or 32 where a layer's width asks for it; layers that fit none have 8 bits.
    groups = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    model = nncf.compress_weights(
        openvino.Core().read_model(graph), mode=mode, advanced_parameters=groups if bits == 4 else None
    )
    path = graph.with_name(f"model_int{bits}.xml")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path
