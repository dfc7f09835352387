import pytest

from ivcp.settings import describe_keys


def test_every_key_has_a_meaning():
    rows = list(describe_keys())

    assert len(rows) > 70
    assert not [row.key for row in rows if not row.meaning.endswith((".", "…"))]
    assert ("action_token_lr_scale", "action_cls", "0.1") in [(row.key, row.section, row.default) for row in rows]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("finetuning_type", "lora, full, freeze"),
        ("lora_rank", "a whole number ≥ 1"),
        ("lora_alpha", "a whole number ≥ 1 or null"),
        ("warmup_ratio", "a number ≥ 0, < 1"),
        ("eval_strategy", "no, steps, epoch or null"),
        ("seed", "a whole number ≥ 0, ≤ 4294967295"),
        ("dataset", "names, comma-separated"),
        ("head_sweep_learning_rates", "numbers, comma-separated"),
        ("disturb_frames", "any of reversed, shuffled, middle"),
        ("output_dir", "text"),
        ("resume_from_checkpoint", "text or true or false or null"),
        ("train_node_selector", "keys with values"),
        ("train_tolerations", "a list of objects"),
    ],
)
def test_what_a_key_takes(key, values):
    assert {row.key: row.values for row in describe_keys()}[key] == values


def test_a_word_chooses_keys_by_their_names_else_by_their_meaning():
    assert [row.key for row in describe_keys("lora-rank")] == ["lora_rank"]
    assert [row.key for row in describe_keys("SHAMPOO")] == []
    assert [row.key for row in describe_keys("Kueue")] == ["train_queue"]
