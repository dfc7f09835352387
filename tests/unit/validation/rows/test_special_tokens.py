import json
from pathlib import Path

import pytest

from ivcp.data.problems import AnnotationError
from ivcp.settings import from_flat
from ivcp.validation.catalog import Catalog
from ivcp.validation.rows.read import read_annotations
from ivcp.validation.rows.special_tokens import special_tokens_of
from tests.data_sets import DataSet, sharegpt_row


def tokens(model: str | None) -> frozenset[str]:
    return special_tokens_of(from_flat({"model_name_or_path": model}).model)


@pytest.mark.parametrize("base_model_dir", ["llava_next_video"], indirect=True)
def test_a_model_in_a_folder(base_model_dir: Path, data_set: DataSet) -> None:
    assert tokens(str(base_model_dir)) == {"<unk>", "<s>", "</s>", "<video>", "<image>"}
    rows = [sharegpt_row("a.mp4", 0), sharegpt_row("b.mp4", 1)]
    rows[1]["conversations"][0]["value"] = "<video><s>What?</s><ACTION>"
    data_set.add("actions", rows)
    with Catalog() as catalog:
        read_annotations(data_set.config(), catalog)
    with (
        Catalog() as catalog,
        pytest.raises(AnnotationError, match="row 1: the prompt holds </s>, <s>, which the model"),
    ):
        read_annotations(data_set.config(model_name_or_path=str(base_model_dir)), catalog)


def test_older_files_of_a_tokenizer(tmp_path: Path) -> None:
    added = {"1": {"content": "<img>", "special": True}, "2": {"content": "<tool>", "special": False}}
    words = {"3": {"content": "word", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added | words}))
    assert tokens(str(tmp_path)) == {"<img>"}


def test_models_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for model in (None, "somebody/else", str(tmp_path / "nowhere"), str(tmp_path)):
        assert tokens(model) == frozenset()


def test_a_model_of_the_hub_that_was_downloaded(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--somebody--else" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text('{"added_tokens": [{"content": "<pad>", "special": true}]}')
    refs = tmp_path / "models--somebody--else" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    config = from_flat({"model_name_or_path": "somebody/else", "cache_dir": str(tmp_path)})
    assert special_tokens_of(config.model) == {"<pad>"}
