"""Images are read back by their own digests; where skopeo and umoci are installed, these read them too."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from ivcp.export.exits.image import check_image, write_image
from ivcp.settings import ConfigError


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "sub" / "note.txt").write_text("below")
    return folder


def blob(layout, digest):
    content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def manifests(layout):
    """Every manifest of an image with its config, checked against their digests and sizes."""
    (top,) = json.loads((layout / "index.json").read_text())["manifests"]
    content = json.loads(blob(layout, top["digest"]))
    found = [json.loads(blob(layout, part["digest"])) for part in content.get("manifests", ())] or [content]
    for manifest in found:
        for part in (manifest["config"], *manifest["layers"]):
            assert len(blob(layout, part["digest"])) == part["size"]
    return [(manifest, json.loads(blob(layout, manifest["config"]["digest"]))) for manifest in found]


def unpacked(layout, manifest, target):
    for layer in manifest["layers"]:
        with tarfile.open(layout / "blobs" / layer["digest"].replace(":", "/")) as tar:
            tar.extractall(target, filter="data")
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_the_files_lie_below_models_on_both_platforms(model, tmp_path):
    write_image(model, tmp_path / "image")

    images = manifests(tmp_path / "image")
    assert [config["architecture"] for _, config in images] == ["amd64", "arm64"]
    for number, (manifest, config) in enumerate(images):
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        assert len(manifest["layers"]) == 3
        files = unpacked(tmp_path / "image", manifest, tmp_path / str(number))
        assert files == {
            f"models/{path.relative_to(model).as_posix()}": path.read_bytes()
            for path in model.rglob("*")
            if path.is_file()
        }


def test_the_same_files_give_the_same_digest_whoever_has_them(model, tmp_path):
    first = write_image(model, tmp_path / "first")
    copy = shutil.copytree(model, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert write_image(copy, tmp_path / "second") == first


def test_another_version_shares_the_layers_that_are_the_same(model, tmp_path):
    first = write_image(model, tmp_path / "image")
    layers = {layer["digest"] for layer in manifests(tmp_path / "image")[0][0]["layers"]}
    (model / "config.json").write_text('{"new": 1}')
    assert write_image(model, tmp_path / "image") != first
    (manifest, _), _ = manifests(tmp_path / "image")
    assert len(layers & {layer["digest"] for layer in manifest["layers"]}) == 2
    # two configs, two manifests, the index, and no blob of the earlier image
    assert len(list((tmp_path / "image" / "blobs" / "sha256").iterdir())) == len(manifest["layers"]) + 5


@pytest.fixture
def base(tmp_path):
    """An image with a shell, as far as these tests look: one of this module's own with another file."""
    folder = tmp_path / "shell"
    folder.mkdir()
    (folder / "sh").write_text("#!")
    write_image(folder, tmp_path / "base")
    return tmp_path / "base"


def test_a_base_lies_below_and_keeps_its_platforms_and_history(model, base, tmp_path):
    write_image(model, tmp_path / "image", base=base)
    images = manifests(tmp_path / "image")
    assert [config["architecture"] for _, config in images] == ["amd64", "arm64"]
    manifest, config = images[0]
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == 4
    files = unpacked(tmp_path / "image", manifest, tmp_path / "files")
    assert files["models/sh"] == b"#!"
    assert "models/model.safetensors" in files


def test_what_is_no_image_is_refused_before_anything_is_written(model, base, tmp_path):
    with pytest.raises(ConfigError, match="no OCI image layout: name another folder"):
        check_image(model, None)
    with pytest.raises(ConfigError, match="skopeo copy docker://busybox oci:model"):
        check_image(tmp_path / "image", model)
    with pytest.raises(ConfigError, match="is export_image_base"):
        check_image(base, base)
    (layer, *_) = manifests(base)[0][0]["layers"]
    (base / "blobs" / layer["digest"].replace(":", "/")).unlink()
    with pytest.raises(ConfigError, match=f"lacks {layer['digest']}: copy it again"):
        write_image(model, tmp_path / "image", base=base)
    assert not (tmp_path / "image").exists()


def test_a_damaged_layer_of_the_base_is_found(model, base, tmp_path):
    (layer, *_) = manifests(base)[0][0]["layers"]
    (base / "blobs" / layer["digest"].replace(":", "/")).write_bytes(b"other")
    with pytest.raises(ConfigError, match="is damaged: copy the base again"):
        write_image(model, tmp_path / "image", base=base)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_and_copies_it(model, tmp_path):
    write_image(model, tmp_path / "image")
    words = ["skopeo", "copy", "--insecure-policy", "--all", f"oci:{tmp_path}/image:latest", f"oci:{tmp_path}/copy:v1"]
    subprocess.run(words, check=True, capture_output=True)
    assert len(manifests(tmp_path / "copy")) == 2


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_it_on_a_base_of_one_platform(model, base, tmp_path):
    (top,) = json.loads((base / "index.json").read_text())["manifests"]
    index = json.loads(blob(base, top["digest"]))
    (base / "index.json").write_text(json.dumps(index | {"manifests": index["manifests"][:1]}))
    write_image(model, tmp_path / "image", base=base)
    words = ["umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/image:latest", str(tmp_path / "files")]
    subprocess.run(words, check=True, capture_output=True)
    assert (tmp_path / "files" / "models" / "model.safetensors").read_bytes() == bytes(range(256)) * 100
