from pathlib import Path
from typing import Any

import pytest

from ivcp.data.cutoff import TooLongError
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import INDEX_FILE
from ivcp.records.validation import ValidationReport
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet, make_clip, sharegpt_row
from tests.tiny_families import build_tiny_family


@pytest.fixture
def mixed_data(data_set: DataSet) -> DataSet:
    """Clips of several lengths, sizes, spans and questions."""
    make_clip(data_set.folder / "a.mp4", num_frames=40, size=(48, 64))
    make_clip(data_set.folder / "b.mp4", num_frames=130, size=(64, 64), seed=1)
    make_clip(data_set.folder / "c.mp4", num_frames=12, size=(96, 48), seed=2)
    rows = [sharegpt_row(f"{name}.mp4", number % 2) for number, name in enumerate("abc")]
    rows.append(sharegpt_row("b.mp4", 1, start_seconds=9.5, end_seconds=12.5))
    question = "<video>What is it that the person in this video is doing right now, in one word?<ACTION>"
    rows.append(sharegpt_row("b.mp4", 0, start_seconds=0, end_seconds=11))
    rows[-1]["conversations"][0]["value"] = question
    return data_set.add("actions", rows)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "internvl"])
def test_tokens_are_those_of_prepared_clips(
    mixed_data: DataSet, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, family: str
) -> None:
    settings: dict[str, Any] = {
        "model_name_or_path": str(build_tiny_family(tmp_path / "model", family)),
        "video_num_frames": None,
        "video_max_pixels": 48 * 48,
        "action_cls_token_loss_weight": 0.1,
    }
    config = mixed_data.config(**settings)
    report = validate_data(config, tmp_path / "validated")
    index = prepare_clips(
        config,
        validated_dir=tmp_path / "validated",
        shards_uri=str(tmp_path / "shards"),
        index_path=tmp_path / INDEX_FILE,
    )
    assert report.tokens is not None
    assert report.estimate is not None
    assert report.tokens.with_answers
    assert report.tokens.distribution.maximum == index.max_tokens_with_answer
    plain = validate_data(mixed_data.config(**settings | {"action_cls_token_loss_weight": 0}), tmp_path / "plain")
    assert plain.tokens is not None
    assert (plain.tokens.distribution.maximum, plain.tokens.mean) == (index.max_tokens, index.mean_tokens)
    stored = sum(shard.num_bytes for shard in index.shards)
    assert 0 < stored < 1.2 * report.estimate.shard_bytes + 20_000


def test_rows_that_do_not_fit_are_named_before_preparation(
    mixed_data: DataSet, tmp_path: Path, base_model_dir: Path
) -> None:
    settings = {"model_name_or_path": str(base_model_dir), "video_max_pixels": 32 * 32, "video_num_frames": None}
    with pytest.raises(TooLongError) as caught:
        validate_data(mixed_data.config(**settings, cutoff_len=25), tmp_path)
    report = ValidationReport.read(tmp_path / "report.json")
    assert report.tokens is not None
    longest = report.tokens.too_long[0]
    assert "of 5 rows are longer than cutoff_len = 25 tokens" in str(caught.value)
    assert f"data set actions row {longest.clip_id.partition(':')[2]}: {longest.num_tokens} tokens" in str(caught.value)
    assert f"Set cutoff_len: {longest.num_tokens}" in str(caught.value)
    assert "nothing is ever cut" in (tmp_path / "report.html").read_text()


def test_the_estimate_counts_the_steps_of_training(action_data: DataSet, tmp_path: Path, base_model_dir: Path) -> None:
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2.5}
    settings = {"model_name_or_path": str(base_model_dir), "video_max_pixels": 32 * 32, "test_size": 0.25}
    report = validate_data(action_data.config(**settings, **batches), tmp_path)
    assert report.tokens is not None
    assert report.estimate is not None
    assert (report.estimate.steps_per_epoch, report.estimate.num_steps, report.estimate.batch_size) == (3, 8, 4)
    assert report.estimate.batch_tokens == 2 * report.tokens.distribution.maximum
    assert report.estimate.weight_bytes == sum(path.stat().st_size for path in base_model_dir.glob("*.safetensors"))
    assert report.tokens.num_pixels % (12 * 4) == 0
    assert list(report.tokens.frame_sizes.values()) == [12]


def test_a_model_without_its_tokenizer_is_refused(action_data: DataSet, tmp_path: Path, base_model_dir: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes((base_model_dir / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"has no processor_config.json or tokenizer_config.json"):
        validate_data(action_data.config(model_name_or_path=str(model)), tmp_path / "out")
