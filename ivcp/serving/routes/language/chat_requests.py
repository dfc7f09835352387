"""What a chat completion is asked with, and how its answers are to be written."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from ivcp.inference.drawing import Choice
from ivcp.inference.turns import AnswerOptions
from ivcp.serving.http.requests import Text
from ivcp.serving.routes.language.messages import Turn
from ivcp.settings import GenerationConfig

_MOST_ANSWERS, _MOST_STOP_WORDS = 16, 16


def _as_list(value: object) -> object:
    """One word, several, or none."""
    return [value] if isinstance(value, str) else value or []


StopWord = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
StopWords = Annotated[
    tuple[StopWord, ...], BeforeValidator(_as_list, json_schema_input_type=StopWord | list[StopWord] | None)
]

_SAYS_NOTHING = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""Fields that change no answer."""
_LEFT_OUT: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields that would change answers and are not there, with the values that ask for nothing."""
_INSTEAD = {
    "presence_penalty": "; repetition_penalty makes words less likely that were there before",
    "frequency_penalty": "; repetition_penalty makes words less likely that were there before",
}


class StreamOptions(BaseModel):
    """What a stream has beside the answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    include_usage: bool = False
    """Whether the last event says how many tokens were read and written."""


class ChatRequest(BaseModel):
    """One chat completion; fields of OpenAI's API that are not here are refused where they ask for something."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    messages: list[Turn] = Field(min_length=1)
    """The conversation; its last turn is the user's."""
    model: Text | None = None
    """The model's name; by default the one that there is."""
    stream: bool = False
    """Whether the answer comes piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of an answer at most; by default the server's `max_new_tokens`."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """The same."""
    temperature: float | None = Field(None, ge=0, le=2)
    """What logits are divided by before a token is drawn; 0 takes the likeliest token."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw among the likeliest tokens that have this share of the probability together."""
    top_k: int | None = Field(None, ge=-1)
    """Draw among so many of the likeliest tokens; 0 or -1 is all."""
    do_sample: bool | None = None
    """Whether tokens are drawn; by default where `temperature`, `top_p` or `top_k` say how."""
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    """What makes tokens less likely that were written or read before; 1 does not."""
    stop: StopWords = Field((), max_length=_MOST_STOP_WORDS)
    """Words before which the answer ends."""
    n: int = Field(1, ge=1, le=_MOST_ANSWERS)
    """Answers."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Of what is drawn: the same answers every time."""

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _SAYS_NOTHING or value in _LEFT_OUT.get(name, ()):
                continue
            raise ValueError(f"{name[:100]} is not supported: leave it out{_INSTEAD.get(name, '')}")
        if self.messages[-1].role != "user":
            raise ValueError(f"messages: the last turn is the {self.messages[-1].role}'s, expected the user's")
        return self

    @property
    def longest(self) -> int | None:
        """Tokens of an answer that were asked for."""
        return self.max_completion_tokens or self.max_tokens

    def options(self, defaults: GenerationConfig, *, max_new_tokens: int) -> list[AnswerOptions]:
        """How each answer is written; what is not said is as in `defaults`."""
        first = secrets.randbits(62) if self.seed is None else self.seed
        choice = self._choice(defaults)
        return [AnswerOptions(max_new_tokens, choice, stop=self.stop, seed=first + number) for number in range(self.n)]

    def _choice(self, defaults: GenerationConfig) -> Choice:
        penalty = self.repetition_penalty or defaults.repetition_penalty
        says_how = any(value is not None for value in (self.temperature, self.top_p, self.top_k))
        draws = self.do_sample if self.do_sample is not None else says_how or defaults.do_sample
        temperature = defaults.temperature if self.temperature is None else self.temperature
        if not draws or temperature == 0:
            return Choice(repetition_penalty=penalty)
        return Choice(
            temperature=temperature,
            top_p=defaults.top_p if self.top_p is None else self.top_p,
            top_k=defaults.top_k if self.top_k is None else max(0, self.top_k),
            repetition_penalty=penalty,
        )
