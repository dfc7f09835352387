"""A model without eyes learns texts: the users' guide trains Qwen2-7B on an instruction set."""

from __future__ import annotations

import pytest
import torch
import transformers

from ivcp import steps
from ivcp.demo.tiny_tokenizer import train_tokenizer
from ivcp.models.backbone import language_model_of
from ivcp.stages.directory import load_directory
from tests.tiny_family_parts import text

TEMPLATE = """
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""
"""A text model's template takes a content that is text, and no parts."""
ROWS = [
    {"instruction": "写一首关于春天的诗", "output": "春风拂面暖，..."},
    {"instruction": "Which number is it?", "input": "one", "output": "1"},
    {"instruction": "Who sings?", "output": "A bird.", "system": "你是一个有帮助的AI助手"},
    {"instruction": "What is the person doing?", "output": "The person waves."},
]


@pytest.fixture
def base(tmp_path):
    tokenizer = train_tokenizer()
    tokenizer.chat_template = TEMPLATE
    described = transformers.AutoConfig.for_model(**text("qwen2", tokenizer))
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_it_learns_answers_and_is_merged(base, data_set, tmp_path):
    """What it learned is what plain transformers makes of the merged directory: nothing about its tokens is ours."""
    columns = {"system": "system"}
    config = data_set.add("alpaca", ROWS, formatting="alpaca", columns=columns).config(
        stage="sft",
        model_name_or_path=str(base),
        dataset="alpaca",
        output_dir=str(tmp_path / "out"),
        export_dir=str(tmp_path / "merged"),
        finetuning_type="lora",
        learning_rate=2e-2,
        num_train_epochs=30,
        per_device_train_batch_size=4,
        report_to="none",
    )
    steps.train(config)
    steps.export(config)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the person doing?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    written = merged.generate(asked, max_new_tokens=24, do_sample=False)[0, asked.shape[1] :]
    assert tokenizer.decode(written) == "The person waves.<|im_end|>"

    adapter = language_model_of(load_directory(tmp_path / "out").module.backbone)
    with torch.no_grad():
        torch.testing.assert_close(adapter(asked).logits, merged(asked).logits, rtol=0, atol=1e-4)


def test_it_learns_to_prefer_and_its_reference_is_asked_once(base, data_set, tmp_path, caplog):
    pairs = [{"instruction": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No idea."} for n in range(4)]
    columns = {"chosen": "chosen", "rejected": "rejected"}
    config = data_set.add("pairs", pairs, formatting="alpaca", ranking=True, columns=columns).config(
        stage="dpo",
        model_name_or_path=str(base),
        dataset="pairs",
        output_dir=str(tmp_path / "out"),
        learning_rate=2e-2,
        num_train_epochs=5,
        per_device_train_batch_size=4,
        report_to="none",
    )
    with caplog.at_level("INFO"):
        result = steps.train(config)

    assert "what the reference says of 4 train clips is kept" in caplog.text
    assert result.train_loss < 0.6  # ln 2 at first
