"""A run that is divided: as good as one process, whatever happens to its parts."""

import pytest

from ivcp.preparation import plan
from ivcp.preparation.merge import IncompleteError
from ivcp.preparation.prepare import merge_parts, plan_parts, prepare_clips, prepare_part
from ivcp.records import SPLITS
from ivcp.records.quarantine import UnusableVideosError
from ivcp.validation.validate import validate_data
from tests.samples import STAGE
from tests.unit.preparation.conftest import contents


@pytest.fixture
def run(action_data, settings, tmp_path, monkeypatch):
    """A configuration of three parts, and where its steps read and write."""
    monkeypatch.setattr(plan, "CLIPS_PER_SHARD", 2)
    config = action_data.config(**settings, preprocessing_parts=3, max_invalid_fraction=0.1)
    validate_data(config, tmp_path / "validated")
    return config, {"validated_dir": tmp_path / "validated", "shards_uri": str(tmp_path / "parts")}


def test_parts_come_to_what_one_process_writes(run, tmp_path):
    config, places = run
    planned = plan_parts(config, **places)
    assert (planned.parts, planned.is_prepared) == ((0, 1, 2), False)
    for part in (2, 0, 1):
        assert prepare_part(config, **places, part=part).num_decoded > 0
    merged = merge_parts(config, **places, index_path=tmp_path / "index.json")
    alone = prepare_clips(
        config, **places | {"shards_uri": str(tmp_path / "alone")}, index_path=tmp_path / "alone.json"
    )

    assert contents(tmp_path / "parts") == contents(tmp_path / "alone")
    assert merged.shards == alone.shards
    again = plan_parts(config, **places)
    assert (again.parts, again.is_prepared, again.fingerprint) == ((0,), True, merged.fingerprint)
    assert prepare_part(config, **places, part=0) is None
    assert merge_parts(config, **places, index_path=tmp_path / "index.json") == merged


def test_a_part_that_did_not_run_is_noticed(run, tmp_path):
    config, places = run
    prepare_part(config, **places, part=0)
    with pytest.raises(IncompleteError, match=r"\d+ of \d+ shards are not in .*a part of the preparation has not run"):
        merge_parts(config, **places, index_path=tmp_path / "index.json")
    assert not (tmp_path / "index.json").exists()


def test_failures_of_all_parts_count_together(run, action_data, tmp_path):
    """Two of twelve are more than a tenth, though no part sees more than one."""
    config, places = run
    shards = plan.plan_shards(
        tmp_path / "validated" / "annotations.jsonl",
        stage=STAGE,
        candidates=dict.fromkeys(SPLITS, 1),
        data_fingerprint="",
    )
    for part in (0, 1):
        clip = next(shards.read(shards.part(part, 3)[0].rows))
        (action_data.folder / f"{clip.row}.mp4").write_bytes(b"")
    for part in range(3):
        assert prepare_part(config, **places, part=part).num_failed == (part < 2)
    with pytest.raises(UnusableVideosError, match=r"2 of 12 rows \(16.7%\).*2 empty"):
        merge_parts(config, **places, index_path=tmp_path / "index.json")

    index = merge_parts(
        config.model_copy(update={"data": config.data.model_copy(update={"max_invalid_fraction": 0.5})}),
        **places,
        index_path=tmp_path / "index.json",
    )
    assert [clip.reason for clip in index.failed] == ["empty", "empty"]
    assert sum(index.num_clips.values()) == 10


def test_there_are_no_more_parts_than_shards(run):
    config, places = run
    many = config.model_copy(update={"data": config.data.model_copy(update={"preprocessing_parts": 100})})
    assert len(plan_parts(many, **places).parts) == len(
        plan.plan_shards(
            places["validated_dir"] / "annotations.jsonl",
            stage=STAGE,
            candidates=dict.fromkeys(SPLITS, 1),
            data_fingerprint="",
        ).shards
    )
