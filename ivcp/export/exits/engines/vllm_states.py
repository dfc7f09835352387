"""Classifies with states that vLLM computes: `vllm serve --convert embed`, which a decoder that is not linear needs.

    model = load_without_weights(Path("DIR"))
    with VllmStates("http://localhost:8000", model) as states:
        logits = states.logits("clip.mp4", sample)

The decoder, the labels and the tokens are the directory's; the language model's weights are not read here.
"""

from __future__ import annotations

import base64
import os
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import torch
from torch import Tensor

from ivcp.data.prepared.sample import Sample
from ivcp.export.exits.engines.names import states_task
from ivcp.stages.loaded_model import LoadedModel

KEY_VARIABLE = "VLLM_API_KEY"
"""As vLLM itself calls it."""
_SECONDS = 300.0
_MOST_SHOWN = 300


class VllmError(ConnectionError):
    """vLLM gives no states, or not those of this model; the message says what came and what to do."""


class VllmStates:
    """One vLLM that serves the directory of `model`, and the decoder that reads its states."""

    def __init__(self, url: str, model: LoadedModel) -> None:
        """`url` is vLLM's; a key is read from VLLM_API_KEY.

        Raises:
            ValueError: `model` is no classifier.
        """
        head = model.stage.classifier_head(model.module)
        if head is None:
            raise ValueError(f"{model.directory} is no classifier: there is no decoder to read states with")
        self.url, self._model, self._head = url.rstrip("/"), model, head
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def logits(self, video: Path, sample: Sample) -> Tensor:
        """The logits of a video file, (classes,), float32; `sample` is what this project reads of it.

        Raises:
            VllmError: vLLM does not answer, or saw another prompt or other frames than `sample` has.
        """
        states = self._states(video, num_tokens=sample.num_prompt_tokens)
        head, at_action = self._head, states[-1:]  # the template ends in the token
        with torch.no_grad():
            if not head.reads_vision_states:
                return head.logits(at_action, None, None)[0].float()
            is_vision = torch.from_numpy(sample.mm_token_type_ids[: sample.num_prompt_tokens]) != 0
            return head.logits(at_action, states[None], is_vision[None])[0].float()

    @cached_property
    def _name(self) -> str:
        """What vLLM calls the model that it serves."""
        name: str = self._asked("GET", "/v1/models")["data"][0]["id"]
        return name

    def _states(self, video: Path, *, num_tokens: int) -> Tensor:
        """The last one, (1, hidden_size), or those of all tokens where the decoder looks at them."""
        wants_all = self._head.reads_vision_states
        content = base64.b64encode(video.read_bytes()).decode()
        url = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{content}"}}
        asked = {
            "model": self._name,
            "messages": [{"role": "user", "content": [url]}],
            "task": states_task(self._head),
            "use_activation": False,  # which would make them unit vectors
            "encoding_format": "base64",
        }
        answer = self._asked("POST", "/pooling", asked)
        values = np.frombuffer(base64.b64decode(answer["data"][0]["data"]), dtype="<f4")
        states = torch.from_numpy(values.reshape(-1, int(self._head.shape["hidden_size"])).copy())
        seen = answer["usage"]["prompt_tokens"]
        if seen != num_tokens or len(states) != (num_tokens if wants_all else 1):
            raise VllmError(
                f"{self.url} read {video.name} as {seen} tokens and gave {len(states)} state(s), expected {num_tokens} "
                f"tokens: start vLLM on the same model with vllm_serve.sh of {self._model.directory}, and ivcp "
                "installed beside it"
            )
        return states

    def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise VllmError(f"{self.url}{path} does not answer ({error}): start vLLM, or give its address") from error
        if response.status_code != httpx.codes.OK:
            said = response.text[:_MOST_SHOWN]
            raise VllmError(
                f"{self.url}{path} answers {response.status_code}: {said}; expected a vLLM that vllm_serve.sh of a "
                f"model directory started (--convert embed), and its key in {KEY_VARIABLE} where it has one"
            )
        answer: dict[str, Any] = response.json()
        return answer
