"""Language stages on shards, in two processes and with kept features, equal a single process that sees the frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.training.train import train_model
from tests.integration.torchrun import torchrun
from tests.integration.training.training_processes import train_once
from tests.integration.training_data import training_settings
from tests.language import STAGES, write_language_data
from tests.tiny_families import build_tiny_family
from tests.tiny_hearing import build_tiny_hearing

SHARDED = {"z2": {"deepspeed": "z2"}, "z3": {"deepspeed": "z3"}, "fsdp": {"fsdp": "full_shard"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    build_tiny_family(folder / "base", "qwen2_vl")
    for stage in STAGES:
        write_language_data(folder, stage, base=folder / "base")
    return folder


def settings_of(data: Path, name: str, stage: str, **settings) -> dict:
    return training_settings(data, data / name, stage=stage, gradient_accumulation_steps=2, **settings)


def alone(data: Path, stage: str, **settings) -> dict:
    index = PreparedIndex.read(data / f"{stage}.json")
    return train_once(settings_of(data, f"alone-{stage}-{len(settings)}", stage, **settings), index)


def together(data: Path, stage: str, runs: dict[str, dict]) -> dict[str, dict]:
    todo = data / f"runs-{stage}.json"
    smaller = {"per_device_train_batch_size": 2}
    of_runs = [settings_of(data, f"{stage}-{name}", stage, **(smaller | kind)) for name, kind in runs.items()]
    todo.write_text(json.dumps({"index": str(data / f"{stage}.json"), "runs": of_runs}))
    done = torchrun("-m", "tests.integration.training.training_processes", str(todo), processes=2)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return dict(zip(runs, json.loads(todo.with_suffix(".seen.json").read_text()), strict=True))


def column(seen: dict, key: str) -> list[float]:
    return [row[key] for row in seen["rows"] if key in row]


@pytest.mark.parametrize("stage", ["sft", "dpo", "rm"])
def test_two_processes_equal_one(data, stage):
    expected = alone(data, stage)
    assert len(column(expected, "loss")) == 4
    for kept in (data / "vision_features").glob("reference-*"):
        shutil.rmtree(kept)
    for kind, seen in together(data, stage, {"ddp": {}} | (SHARDED if stage != "rm" else {})).items():
        for key in ("loss", "grad_norm", "eval_loss"):
            assert column(seen, key) == pytest.approx(column(expected, key), rel=1e-4, abs=1e-5), (kind, key)
        np.testing.assert_allclose(seen["logits"], expected["logits"], atol=2e-4, err_msg=kind)
        if stage == "dpo":
            assert len(list((data / "vision_features").glob("reference-*/part-*"))) == 2, "of training and validation"
            assert column(seen, "rewards/margins") == pytest.approx(column(expected, "rewards/margins"), abs=1e-4)


MIXED = {
    "seen": (build_tiny_family, "qwen2_vl", (("video",), (), ("video",), ("image",), ())),
    "heard": (build_tiny_hearing, "qwen2_5_omni_thinker", (("audio",), ("video",), ("video", "audio"), (), ("audio",))),
}
"""Of two processes one has a medium in a step, and the other has none or one of another kind."""


@pytest.mark.parametrize("kind", [pytest.param("seen", marks=pytest.mark.nightly), "heard"])
def test_two_processes_with_unlike_media_equal_one(tmp_path, kind):
    build, family, kinds = MIXED[kind]
    build(tmp_path / "base", family)
    write_language_data(tmp_path, "sft", base=tmp_path / "base", kinds=kinds)
    trained = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
    expected = alone(tmp_path, "sft", **trained)
    runs = {name: trained | sharded for name, sharded in ({"ddp": {}} | SHARDED).items()}
    for name, seen in together(tmp_path, "sft", runs).items():
        for key in ("loss", "grad_norm", "eval_loss"):
            assert column(seen, key) == pytest.approx(column(expected, key), rel=1e-4, abs=1e-5), (name, key)


def test_packed_rows_are_shared_by_processes(data):
    """All samples in a step: rows of one batch, or of one batch of each process."""
    packed = {"packing": True, "cutoff_len": 300}
    expected = alone(data, "sft", per_device_train_batch_size=2, **packed)
    (seen,) = together(data, "sft", {"packed": packed | {"per_device_train_batch_size": 1}}).values()
    assert len(column(expected, "loss")) == 4
    for key in ("loss", "grad_norm", "eval_loss"):
        assert column(seen, key) == pytest.approx(column(expected, key), rel=1e-4, abs=1e-5), key


def test_full_dpo_in_two_processes_has_its_start_as_reference(data):
    full = {"finetuning_type": "full", "learning_rate": 1e-3}
    expected = alone(data, "dpo", **full)
    seen = together(data, "dpo", {"full": full, "full-fsdp": full | SHARDED["fsdp"]})
    for kind, found in seen.items():
        assert column(found, "loss") == pytest.approx(column(expected, "loss"), rel=1e-4, abs=1e-5), kind
    assert column(expected, "loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert column(expected, "loss")[-1] < 0.69


def test_the_divergence_of_kto_is_that_of_all_processes(data):
    """Each process has other batches than one alone, so that only the first step, where all is 0, is the same."""
    (seen,) = together(data, "kto", {"ddp": {}}).values()
    assert column(seen, "loss")[0] == pytest.approx(0.5, abs=1e-6)
    assert np.isfinite(column(seen, "loss")).all()
    assert column(seen, "kl")[0] == 0
    assert max(column(seen, "kl")) > 0


@pytest.mark.parametrize("stage", STAGES)
def test_kept_features_train_as_frames_do(data, stage):
    index = PreparedIndex.read(data / f"{stage}.json")
    losses = {}
    for kept in (True, False):
        out = data / f"kept-{stage}-{kept}"
        settings = settings_of(data, out.name, stage, cache_vision_features=kept, vision_cache_dir=str(data / "kept"))
        train_model(config_from_settings(settings), index=index, output_dir=out)
        rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
        losses[kept] = [row[key] for key in ("loss", "eval_loss") for row in rows if key in row]
        assert load_directory(out).stage.config.method.stage == stage
    assert len(losses[True]) == 6
    assert losses[True] == pytest.approx(losses[False], abs=1e-4)


def test_kept_features_of_images_and_videos_train_as_their_pixels_do(data):
    kinds = (("image",), ("video", "image"), ("image", "image"), ("video",))
    index = PreparedIndex.read(write_language_data(data / "images", "sft", base=data / "base", kinds=kinds))
    losses = {}
    for kept in (True, False):
        out = data / f"images-{kept}"
        settings = settings_of(data, out.name, "sft", cache_vision_features=kept, vision_cache_dir=str(data / "images"))
        train_model(config_from_settings(settings), index=index, output_dir=out)
        rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
        losses[kept] = [row[key] for key in ("loss", "eval_loss") for row in rows if key in row]
    assert losses[True] == pytest.approx(losses[False], abs=1e-4)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_rows_without_media_train_beside_those_with_some(data, stage, caplog):
    """Nothing is kept of the former: a batch may have some of them, or no others."""
    path = write_language_data(data / "mixed", stage, base=data / "base", kinds=((), ("video",), ("video",)))
    index, losses = PreparedIndex.read(path), {}
    for kept in (True, False):
        out = data / f"mixed-{stage}-{kept}"
        keeps = {"cache_vision_features": kept, "vision_cache_dir": str(data / f"kept-{stage}")}
        settings = settings_of(data, out.name, stage, max_steps=8, learning_rate=1e-2, **keeps)
        settings |= {"per_device_train_batch_size": 2, "logging_steps": 1}
        with caplog.at_level("INFO"):
            train_model(config_from_settings(settings), index=index, output_dir=out)
        rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
        losses[kept] = [row["loss"] for row in rows if "loss" in row]
    assert "vision features of 16 train clips are kept in" in caplog.text
    assert len(losses[True]) == 8
    assert losses[True] == pytest.approx(losses[False], abs=1e-4)
    assert min(losses[True][4:]) < 0.9 * losses[True][0]
