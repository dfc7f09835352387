import pytest

from ivcp.data.prepared.reader import read_identities
from ivcp.data.seen_clips import SEEN_CLIPS_FILE, SeenClips
from ivcp.training.result import run_trainer
from ivcp.training.seen import clips_to_see
from ivcp.training.train import train_model


def _numbers(seen: SeenClips) -> tuple[int, int]:
    return len(set(seen.trained.groups.tolist())), len(set(seen.selected.groups.tolist()))


@pytest.mark.parametrize(
    ("settings", "selected"),
    [
        ({}, 0),
        ({"load_best_model_at_end": True, "val_size": 6}, 6),
        ({"early_stopping_steps": 2, "val_size": 6, "load_best_model_at_end": True}, 6),
    ],
)
def test_training_clips_count_and_those_that_choose(make_config, sharded_index, settings, selected):
    seen = clips_to_see(make_config(**settings), sharded_index)
    assert _numbers(seen) == (12, selected)
    assert seen.is_complete


def test_adapter_and_checkpoints_say_what_their_model_has_seen(make_config, sharded_index, tmp_path):
    config = make_config(max_steps=2, save_steps=1)
    train_model(config, index=sharded_index, output_dir=tmp_path / "adapter")
    for directory in (tmp_path / "adapter", tmp_path / "adapter" / "checkpoint-1"):
        seen = SeenClips.of_directory(directory)
        assert read_identities(sharded_index, "train").among(seen.trained).all()
        assert not read_identities(sharded_index, "val").among(seen.trained).any()


def test_a_model_inherits_what_the_ones_it_starts_from_have_seen(make_config, sharded_index, tmp_path):
    val = read_identities(sharded_index, "val")
    for name, seen in (("adapter", SeenClips(val)), ("decoder", SeenClips(selected=val)), ("base", SeenClips(val))):
        (tmp_path / name).mkdir()
        seen.write(tmp_path / name / SEEN_CLIPS_FILE)
    (tmp_path / "base" / "model_info.json").touch()
    assert _numbers(clips_to_see(make_config(adapter_name_or_path=str(tmp_path / "adapter")), sharded_index)) == (18, 0)
    assert _numbers(clips_to_see(make_config(model_name_or_path=str(tmp_path / "base")), sharded_index)) == (18, 0)
    decoder = make_config(action_decoder_path=str(tmp_path / "decoder" / "action_decoder.safetensors"))
    assert _numbers(clips_to_see(decoder, sharded_index)) == (12, 6)
    (tmp_path / "adapter" / SEEN_CLIPS_FILE).unlink()
    assert not clips_to_see(make_config(adapter_name_or_path=str(tmp_path / "adapter")), sharded_index).is_complete


def test_a_resumed_run_remembers_what_its_checkpoint_has_seen(train_on_shards, sharded_index, tmp_path):
    first = train_on_shards(save_steps=1, max_steps=2)
    first.seen = SeenClips(read_identities(sharded_index, "val"))
    run_trainer(first)
    second = train_on_shards(output_dir=tmp_path / "resumed", max_steps=3)
    second.seen = SeenClips(read_identities(sharded_index, "train"))
    run_trainer(second, resume_from=str(tmp_path / "adapter" / "checkpoint-2"))
    assert _numbers(SeenClips.of_directory(tmp_path / "resumed")) == (18, 0)


def test_clips_of_an_earlier_version_are_prepared_again(make_config, sharded_index, tmp_path, monkeypatch):
    monkeypatch.setattr("ivcp.data.prepared.table.SampleTable.names", ["sample_id", "split"])
    with pytest.raises(ValueError, match="an earlier version of ivcp prepared these clips"):
        clips_to_see(make_config(), sharded_index)
