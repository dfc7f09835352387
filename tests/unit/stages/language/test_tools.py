"""Tools go through the model's own chat template, and calls are learned as answers are."""

from __future__ import annotations

import json

import pytest

from ivcp.data.prompts import PromptError, render_conversation
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import VideoConfig
from ivcp.stages.language.conversations import conversation_tokens
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet
from tests.tiny_families import build_tiny_family
from tests.unit.data.test_tools import FUNCTION, SHAREGPT
from tests.unit.preparation.test_image_rows import draw
from tests.unit.stages.language.test_conversations import runs_of

TEMPLATE = """
{%- if tools -%}
{{- '<|im_start|>system\\nTools:\\n' -}}
{%- for tool in tools -%}{{- tool | tojson + '\\n' -}}{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' -}}{%- for item in message.content -%}{{- item.text -}}{%- endfor -%}
{{- '\\n</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for item in message.content -%}
{{- '<|vision_start|><|' + item.type + '_pad|><|vision_end|>' if item.type != 'text' else item.text -}}
{%- endfor -%}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
"""
"""As Qwen's templates have it."""
NAMED = json.dumps([{"type": "function", "function": FUNCTION}])
CALLS = json.dumps([{"text": "Wait."}, *({"name": "find", "arguments": {"what": what}} for what in "ab")])
TURNS = (
    Message(role="tools", content=NAMED),
    Message(role="user", content="Where are both?"),
    Message(role="function", content=CALLS),
    Message(role="observation", content="here"),
    Message(role="observation", content="there"),
    Message(role="assistant", content="Here and there."),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_family(tmp_path_factory.mktemp("tools") / "qwen2_vl", "qwen2_vl")


def processor_with(base, template: str) -> Processor:
    processor = Processor.from_pretrained(base, video=VideoConfig())
    processor.processor.chat_template = template
    return processor


def test_tools_calls_and_observations_are_rendered(base):
    text = render_conversation(processor_with(base, TEMPLATE).processor, TURNS)
    assert json.dumps(FUNCTION["description"]) in text
    assert 'Wait.<tool_call>\n{"name": "find", "arguments": {"what": "a"}}' in text
    assert "<tool_response>\nhere\n</tool_response>\n<tool_response>\nthere" in text


def test_calls_and_answers_are_learned_and_nothing_else(base):
    processor = processor_with(base, TEMPLATE)
    tokens = conversation_tokens(processor, TURNS, [])
    decode = processor.processor.tokenizer.decode
    call, answer = (decode(tokens.input_ids[start:end]) for start, end in runs_of(tokens.loss_mask))
    assert call.startswith('Wait.<tool_call>\n{"name": "find"')
    assert call.endswith("</tool_call><|im_end|>\n")
    assert answer == "Here and there.<|im_end|>\n"
    whole = processor.processor.tokenizer(render_conversation(processor.processor, TURNS))["input_ids"]
    assert tokens.input_ids.tolist() == whole
    (last,) = runs_of(conversation_tokens(processor, TURNS[:3], []).loss_mask)
    assert decode(tokens.input_ids[slice(*last)]) == call, "a call can be the last answer"


def test_a_template_that_knows_no_tools_is_refused(base):
    plain = processor_with(base, Processor.from_pretrained(base, video=VideoConfig()).processor.chat_template)
    with pytest.raises(PromptError, match="writes nothing of the tool find: expected one that knows tools"):
        conversation_tokens(plain, TURNS, [])
    without_calls = processor_with(base, TEMPLATE.replace("message.tool_calls or []", "[]"))
    with pytest.raises(PromptError, match="leaves out what the assistant calls"):
        conversation_tokens(without_calls, TURNS, [])


def test_rows_with_tools_are_counted_or_refused_before_anything_is_decoded(base, tmp_path):
    data = DataSet(tmp_path)
    image = draw(data.folder / "a.png", seed=0, size=(64, 64))
    data.add("d", [SHAREGPT] * 2, columns={"tools": "tools", "images": "images"})
    config = data.config(dataset="d", stage="sft", model_name_or_path=str(base), val_size=0, test_size=0)
    sound = image.read_bytes()
    image.write_bytes(b"no image")
    with pytest.raises(PromptError, match="writes nothing of the tool find"):
        validate_data(config, tmp_path / "validated")
    image.write_bytes(sound)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    report = validate_data(config, tmp_path / "validated")
    assert report.tokens is not None
    assert report.num_clips["train"] == 2
