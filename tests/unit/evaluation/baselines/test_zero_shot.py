import numpy as np
import pytest
import torch

from ivcp.evaluation.asked import AskedSamples
from ivcp.evaluation.baselines.zero_shot import answers, in_words, question, tokenize
from ivcp.inference.compute import Compute
from ivcp.inference.generation import Writer
from ivcp.records import Message
from ivcp.settings import GenerationConfig
from tests.unit.evaluation.baselines.tiny import Tiny

NAMES = ("sit", "sit down", "stand up", "wave", "wave both arms")


def _asked(tiny: Tiny) -> AskedSamples:
    return AskedSamples(tiny.samples, tokenize, tiny.processor, question(NAMES, ()))


def _answers(tiny: Tiny, *, batch_size: int) -> np.ndarray:
    compute = Compute(torch.device("cpu"))
    return answers(
        tiny.base, tiny.processor, _asked(tiny), NAMES, batch_size=batch_size, compute=compute, num_workers=0
    )


def test_it_writes_the_likeliest_of_the_tokens_that_go_on(tiny: Tiny):
    """Token by token, by forward passes of the whole text, one clip at a time; a name may be the start of another."""
    tokenizer = tiny.processor.processor.tokenizer
    spelled = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in NAMES]
    end = Writer(tiny.base, tiny.processor, GenerationConfig()).end_tokens[0]
    expected = []
    for number in range(len(tiny.samples)):
        batch = tiny.processor.batch([_asked(tiny)[number]], prompts_only=True)
        written: list[int] = []
        while not written or written[-1] != end:
            going_on = {[*answer, end][len(written)] for answer in spelled if answer[: len(written)] == written}
            ids = torch.cat([batch["input_ids"], torch.tensor([written], dtype=torch.long)], dim=1)
            more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            types = torch.zeros_like(ids)
            types[:, : batch["input_ids"].shape[1]] = batch["mm_token_type_ids"]
            with torch.no_grad():
                logits = tiny.base(**batch | more | {"mm_token_type_ids": types}).logits[0, -1]
            written.append(max(going_on, key=lambda token: float(logits[token])))
        expected.append(spelled.index(written[:-1]))
    assert len(set(expected)) > 1, "the clips should not all get the same answer"
    np.testing.assert_array_equal(_answers(tiny, batch_size=1), expected)
    np.testing.assert_array_equal(_answers(tiny, batch_size=4), expected)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("sit_down", "wave-hand", "TaiChi", "ApplyEyeMakeup"),
            ("sit down", "wave hand", "tai chi", "apply eye makeup"),
        ),
        (("TV", "no  TV"), ("TV", "no tv")),
        (("sit_down", "sit down"), ("sit_down", "sit down")),  # or nobody could tell which was meant
        (("_", "a"), ("_", "a")),
        (("坐下", "站起来"), ("坐下", "站起来")),
    ],
)
def test_classes_in_words(names: tuple[str, ...], words: tuple[str, ...]):
    assert in_words(names) == words


def test_the_question_keeps_the_system_turn_and_names_all_classes():
    system = Message(role="system", content="You watch people.")
    first, asked = question(NAMES, (system,))
    assert first == system
    assert asked.content.startswith("<video>")
    assert all(f"\n{name}" in asked.content for name in NAMES)
