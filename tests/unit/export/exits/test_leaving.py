import json

import pytest

from ivcp import steps
from ivcp.checks.run import check_submitted
from ivcp.checks.settings import warn_of_upload_at_export
from ivcp.export.exits.hub import UploadError
from ivcp.export.exits.leaving import check_exits, take_exits
from ivcp.settings import ConfigError, config_from_settings
from tests.hub_api.writable import TOKEN

BASE = {"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct"}


def test_nothing_asked_for_is_nothing_done(hub, model_dir):
    exits = take_exits(config_from_settings(BASE), model_dir, repository=check_exits(config_from_settings(BASE)))
    assert (exits.words, hub.asked) == ("", [])


def test_the_image_holds_what_others_may_read(model_dir, tmp_path):
    (model_dir / "export_result.json").write_text("{}")
    config = config_from_settings(BASE | {"export_image": str(tmp_path / "image")})
    exits = take_exits(config, model_dir, repository=check_exits(config))

    assert exits.words == f", as an image in {tmp_path}/image"
    (top,) = json.loads((tmp_path / "image" / "index.json").read_text())["manifests"]
    assert top["digest"] == exits.image_digest
    blobs = [path.read_bytes() for path in (tmp_path / "image" / "blobs" / "sha256").iterdir()]
    assert sum(content.startswith(b"models/") for content in blobs) > 5
    assert not [content for content in blobs if str(model_dir.parent).encode() in content]
    assert not [content for content in blobs if b"export_result.json" in content]


def test_a_refusal_comes_before_the_first_video(hub, run_settings, tmp_path):
    """Of the hub, and of the folder of an image: `ivcp export` has neither prepared nor measured anything then."""
    hub.tokens = {TOKEN: {"role": "read"}}
    with pytest.raises(UploadError, match="may only read"):
        steps.export(config_from_settings(run_settings | {"export_hub_model_id": "me/actions"}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ConfigError, match="no OCI image layout"):
        steps.export(config_from_settings(run_settings | {"export_image": str(tmp_path / "mine")}))
    assert not (tmp_path / "out").exists()


def test_an_image_in_a_pod_is_refused():
    with pytest.raises(ConfigError, match="would go with the pod of the export step"):
        check_submitted(config_from_settings(BASE | {"export_image": "/image"}))
    with pytest.raises(ConfigError, match="set export_image to the folder"):
        config_from_settings(BASE | {"export_image_base": "/base"})


def test_a_training_says_that_it_uploads_nothing(caplog):
    warn_of_upload_at_export(config_from_settings(BASE))
    assert caplog.text == ""
    warn_of_upload_at_export(config_from_settings(BASE | {"push_to_hub": True}))
    assert "training uploads nothing to the hub: `ivcp export` uploads" in caplog.text
