"""When every process has to run every tower."""

from __future__ import annotations

import pytest

from ivcp.distributed.rank import world_size
from ivcp.models.backbone import language_model_of
from ivcp.settings import ConfigError
from ivcp.stages.registry import stage_of
from ivcp.training.towers import run_towers_alike
from tests.language import index_of, language_config, processor_of
from tests.tiny_families import build_tiny_family
from tests.tiny_hearing import build_tiny_hearing

OPEN = {"freeze_vision_tower": False}
LIVE, KEPT = {"train": ["live"]}, {"train": ["kept"]}


def runs_with(base, monkeypatch, *, media=("none", "video"), processes="2", **settings):
    """The samples that are trained on, and how many hooks the model has then."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    config = language_config(base, "sft", **{name: value for name, value in settings.items() if name in OPEN})
    index = index_of(config, {"train": 4}).model_copy(update={"media": media})
    model = language_model_of(stage_of(config).build(index, processor_of(base)).backbone)
    config = language_config(base, "sft", **settings)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert world_size() == int(processes)
    samples = run_towers_alike(config, index, model, processor_of(base), live=LIVE, kept=KEPT)
    return samples, len(model.base_model._forward_pre_hooks)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("towers") / "base", "qwen2_vl")


@pytest.mark.parametrize(
    "settings",
    [
        {"deepspeed": "z3"},
        {"fsdp": "full_shard"},
        {"deepspeed": "z2", **OPEN},
        {"deepspeed": "z3", "media": ("image", "video")},
    ],
)
def test_processes_that_wait_for_each_other_run_all_towers(base, monkeypatch, settings):
    assert runs_with(base, monkeypatch, **settings) == (LIVE, 1)


@pytest.mark.parametrize(
    "settings",
    [{}, OPEN, {"deepspeed": "z2"}, {"deepspeed": "z3", "processes": "1"}, {"deepspeed": "z3", "media": ("video",)}],
)
def test_others_run_what_their_batches_have(base, monkeypatch, settings):
    assert runs_with(base, monkeypatch, **settings) == (KEPT, 0)


def test_a_model_that_cannot_is_told_of(tmp_path, monkeypatch):
    hearing = build_tiny_hearing(tmp_path / "base", "qwen2_audio")
    told = r"z3 in 2 processes, and rows with different media \(audio, none\).*own forward only; train with DDP"
    with pytest.raises(ConfigError, match=told):
        runs_with(hearing, monkeypatch, media=("audio", "none"), deepspeed="z3")
