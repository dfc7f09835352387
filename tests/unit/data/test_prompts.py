import pytest

from ivcp.data.prompts import (
    PromptError,
    check_prompt,
    cut_behind_action,
    render_answer,
    render_prompt,
    special_tokens_pattern,
)
from ivcp.models.processor import Processor
from ivcp.records import Message


def user(text):
    return Message(role="user", content=text)


def assistant(text):
    return Message(role="assistant", content=text)


@pytest.mark.parametrize(
    ("messages", "num_videos", "message"),
    [
        ([user("<video>What?")], 1, "<ACTION> is missing"),
        ([user("<video>What?<ACTION> <ACTION>")], 1, "<ACTION> stands 2 times"),
        ([user("<video>What?<ACTION>"), assistant("<ACTION>")], 1, "<ACTION> stands 2 times"),
        ([user("What?<ACTION>")], 1, r"0 <video> tag\(s\) for 1 video"),
        ([user("<video><video>What?<ACTION>")], 1, r"2 <video> tag\(s\) for 1 video"),
        ([user("What?<ACTION><video>")], 1, "could not see the clip"),
        ([user("<video><|video_pad|>What?<ACTION>")], 1, r"the prompt holds <\|video_pad\|>, which the model reads as"),
        ([user("<|vision_start|><video><|vision_end|>?<ACTION>")], 1, r"<\|vision_end\|>, <\|vision_start\|>"),
        ([user("<video>What?<ACTION>"), assistant("Run.<|im_end|>")], 1, r"<\|im_end\|>"),
        ([user("<video><image>What?<ACTION>")], 1, "the prompt holds <image>"),
        ([user("<video><IMG_CONTEXT>What?<ACTION>")], 1, "the prompt holds <IMG_CONTEXT>"),
    ],
)
def test_conversations_that_cannot_be_classified(messages, num_videos, message):
    with pytest.raises(PromptError, match=message):
        check_prompt(messages, action_token="<ACTION>", num_videos=num_videos)


def test_conversations_that_can():
    check_prompt([user("<video>What?<ACTION>"), assistant("Running.")], action_token="<ACTION>")
    check_prompt([user("<video>What?"), assistant("It is <ACT>.")], action_token="<ACT>")
    check_prompt([user("<video>a <|b| c|> <s> [INST] <think>?<|act|>")], action_token="<|act|>")


def test_special_tokens_of_the_model():
    found = special_tokens_pattern(["<s>", "</s>", "<video>", "<ACTION>"])
    check_prompt([user("<video>What?<ACTION>")], action_token="<ACTION>", special_tokens=found)
    with pytest.raises(PromptError, match="the prompt holds </s>, <s>, which"):
        check_prompt([user("<video><s>What?</s><ACTION>")], action_token="<ACTION>", special_tokens=found)


def test_everything_behind_the_token_is_cut():
    messages = [user("<video>What?"), assistant("It is <ACT>."), user("Sure?")]

    assert cut_behind_action(messages, action_token="<ACT>") == (user("<video>What?"), assistant("It is <ACT>"))
    assert cut_behind_action([user("<video>What?<ACTION> now")], action_token="<ACTION>") == (
        user("<video>What?<ACTION>"),
    )


@pytest.mark.parametrize(
    ("messages", "token", "end"),
    [
        ([user("<video>What?<ACTION>"), assistant("Running.")], "<ACTION>", "What?<ACTION>"),
        ([user("<video>What?"), assistant("It is <ACT>.")], "<ACT>", "<|im_start|>assistant\nIt is <ACT>"),
    ],
)
def test_the_models_text_ends_in_the_token(base_model_dir, make_config, messages, token, end):
    processor = Processor.from_pretrained(base_model_dir, video=make_config().video, special_tokens=(token,))
    text = render_prompt(processor.processor, messages, action_token=token)

    assert text.endswith(end)
    assert text.count("<|video_pad|>") == 1


@pytest.mark.parametrize(
    ("messages", "token", "header", "answer"),
    [
        (
            [user("<video>What?<ACTION>"), assistant("Running.")],
            "<ACTION>",
            "<|im_end|>\n<|im_start|>assistant\n",
            "Running.<|im_end|>\n",
        ),
        ([user("<video>What?"), assistant("<ACT>Running.")], "<ACT>", "", "Running.<|im_end|>\n"),
        ([user("<video>What?<ACTION>")], "<ACTION>", "", ""),
    ],
)
def test_what_follows_the_token_is_split_into_header_and_answer(
    base_model_dir, make_config, messages, token, header, answer
):
    processor = Processor.from_pretrained(base_model_dir, video=make_config().video, special_tokens=(token,))

    assert render_answer(processor.processor, messages, action_token=token) == (header, answer)
