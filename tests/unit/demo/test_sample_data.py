import hashlib
import json
from collections import Counter

import av
import pytest

from ivcp.demo import sample_data
from ivcp.demo.actions import ACTIONS, LABEL_NAMES, REVERSED_PAIRS
from ivcp.demo.sample_data import generate_sample_data, plan_clips


def generate(directory, **parameters):
    counts = {"num_train_clips": 12, "num_test_clips": 12, "seed": 3, "workers": 1}
    return generate_sample_data(directory, **{**counts, **parameters})


def digests(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_class_and_performer_gets_its_share():
    plans = plan_clips("train", 1000)
    per_label = Counter(plan.label for plan in plans)
    per_performer = Counter(plan.performer for plan in plans)
    assert set(per_label) == set(LABEL_NAMES)
    assert max(per_label.values()) - min(per_label.values()) <= 2
    assert len(per_performer) == 60
    assert set(per_performer.values()) == {16, 17}
    assert {plan.label for plan in plans if plan.performer == 7} == set(LABEL_NAMES)


def test_splits_keep_performers_apart():
    train = {plan.group for plan in plan_clips("train", 1000)}
    test = {plan.group for plan in plan_clips("test", 300)}
    assert len(train) == 60
    assert len(test) == 30
    assert not train & test


def test_the_data_set_is_written_in_the_format_of_users(tmp_path):
    data_set = generate(tmp_path / "sample")
    directory = data_set.directory
    registry = json.loads((directory / "dataset_info.json").read_text())
    assert list(registry)[:2] == ["sample_train", "sample_test"]
    assert registry["sample_train"]["columns"] == {"messages": "conversations", "videos": "videos"}
    rows = json.loads((directory / registry["sample_train"]["file_name"]).read_text())
    assert len(rows) == 12
    first = rows[0]
    assert first["conversations"][0]["value"].startswith("<video>")
    assert first["conversations"][0]["value"].endswith("<ACTION>")
    assert first["conversations"][1] == {"from": "gpt", "value": "The person is sitting down."}
    assert first["action_label"] == "sit_down"
    labels = json.loads((directory / "labels.json").read_text())
    assert labels == {"label_names": [*LABEL_NAMES], "reversed_pairs": [[*pair] for pair in REVERSED_PAIRS]}
    assert data_set.contact_sheet.is_file()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_clips_are_there_as_language(tmp_path, split):
    directory = generate(tmp_path / "sample").directory
    registry = json.loads((directory / "dataset_info.json").read_text())
    classified, captions, pairs = (
        json.loads((directory / registry[name]["file_name"]).read_text())
        for name in (f"sample_{split}", f"sample_captions_{split}", f"sample_pairs_{split}")
    )
    for row, caption in zip(classified, captions, strict=True):
        question, answer = (turn["value"] for turn in row["conversations"])
        assert [turn["value"] for turn in caption["conversations"]] == [question.removesuffix("<ACTION>"), answer]
        assert (caption["videos"], caption["group"]) == (row["videos"], row["group"])
    partners = {one: two for pair in REVERSED_PAIRS for one, two in (pair, pair[::-1])}
    ordered = [row for row in classified if row["action_label"] in partners]
    assert registry[f"sample_pairs_{split}"]["ranking"] is True
    for row, pair in zip(ordered, pairs, strict=True):
        assert pair["chosen"] == row["conversations"][1]
        assert pair["rejected"] == {"from": "gpt", "value": ACTIONS[partners[row["action_label"]]].sentence}
        assert [turn["from"] for turn in pair["conversations"]] == ["human"]
        assert (pair["videos"], pair["group"]) == (row["videos"], row["group"])


def test_every_video_is_h264_and_decodes(tmp_path):
    directory = generate(tmp_path / "sample").directory
    for path in directory.glob("videos/*/*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            frames = [*container.decode(video=0)]
        assert 15 <= len(frames) <= 60
        assert frames[0].width == frames[0].height


def test_a_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    one, two = generate(tmp_path / "one"), generate(tmp_path / "two", workers=2)
    other = generate(tmp_path / "other", seed=4)
    assert digests(one.directory) == digests(two.directory)
    video = next(name for name in digests(one.directory) if name.endswith(".mp4"))
    assert digests(one.directory)[video] != digests(other.directory)[video]


def test_a_complete_data_set_is_reused_and_another_one_replaced(tmp_path):
    directory = generate(tmp_path / "sample").directory
    witness = directory / "videos" / "witness"
    witness.touch()
    generate(directory)
    assert witness.exists()
    generate(directory, num_train_clips=13)
    assert not witness.exists()
    assert len(json.loads((directory / "sample_train.json").read_text())) == 13


def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_data, "_write_contact_sheet", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "sample")
    assert [*tmp_path.iterdir()] == []


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds files but no sample\.json"):
        generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_too_few_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="each of the 11 classes, but one gets 10"):
        generate(tmp_path / "sample", num_test_clips=10)
