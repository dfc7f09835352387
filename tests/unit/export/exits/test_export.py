"""A whole export with every exit: what `ivcp export` does with a file that names no data set."""

import json
import os

from ivcp.export.export import merge_only
from ivcp.records.export import EXPORT_RESULT_FILE, ExportResult
from ivcp.settings import config_from_settings
from tests.exported import save_exported


def test_an_export_takes_every_exit_and_leaves_no_local_path(hub, tmp_path):
    trained = save_exported(tmp_path / "trained")  # a model directory is merged like an adapter
    settings = {
        "model_name_or_path": str(tmp_path / "trained-base"),
        "export_engines": "transformers, vllm",
        "export_image": str(tmp_path / "image"),
        "export_hub_model_id": "acme/actions",
        "export_license": "apache-2.0",
    }
    result = merge_only(config_from_settings(settings), adapter_dir=trained, export_dir=tmp_path / "model")

    assert result.merge.engines_difference <= 1e-4
    assert result.exits.uploaded_to.startswith(f"{hub.url}/acme/actions/commit/")
    assert result == ExportResult.read(tmp_path / "model" / EXPORT_RESULT_FILE)
    assert f"as an image in {tmp_path}/image, uploaded as {hub.url}" in result.summary
    uploaded = hub.repositories["acme/actions"]["main"]
    assert {"ivcp_classifier.py", "classification_head.safetensors", "vllm_serve.sh"} <= uploaded.keys()
    assert b"`sh actions/vllm_serve.sh --port 8000`" in uploaded["README.md"]
    assert not [name for name, content in uploaded.items() if str(tmp_path).encode() in content]
    assert b"library_name: transformers" in uploaded["README.md"]
    (top,) = json.loads((tmp_path / "image" / "index.json").read_text())["manifests"]
    assert top["digest"] == result.exits.image_digest

    again = config_from_settings(settings | {"export_engines": [], "export_image": None})
    served = [path.open("rb") for path in sorted((tmp_path / "model").glob("*.safetensors"))]
    before = [file.read() for file in served]
    merge_only(again, adapter_dir=trained, export_dir=tmp_path / "model")
    for file, content in zip(served, before, strict=True):
        with file:
            assert file.seek(0) == 0
            assert file.read() == content
            assert os.fstat(file.fileno()).st_nlink == 0, "made anew, not written over: a predictor may have mapped it"
    left = hub.repositories["acme/actions"]["main"].keys()
    assert not left & {"ivcp_classifier.py", "classification_head.safetensors", "vllm_serve.sh"}
    assert b"library_name: ivcp" in hub.repositories["acme/actions"]["main"]["README.md"]
