"""The check of every deployment: the predictor must answer one clip as evaluation did."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx

from ivcp import storage
from ivcp.client.transport import KEY_VARIABLE
from ivcp.deployment.predictor_manifests import ServedModel
from ivcp.deployment.smoke_question import GivenAnswer, ask_question, difference_of, read_reply
from ivcp.kubernetes.api import Termination
from ivcp.network import authorities
from ivcp.records import RUN_CONFIG_FILE, Record
from ivcp.records.answers import Answer
from ivcp.records.evaluation import SMOKE_CLIP_FILE, SmokeClip
from ivcp.records.language_evaluation import SMOKE_QUESTION_FILE, SmokeQuestion
from ivcp.settings import read_model_config

Smoke = SmokeClip | SmokeQuestion
"""What a predictor is asked: a clip by one that classifies, a conversation by one that writes or scores."""
SmokeAnswer = Answer | GivenAnswer

MAX_LOGIT_DIFFERENCE = 1e-3
"""Between the server's and evaluation's logits of one clip, where both compute in float32."""
_ROUNDED = 0.5
"""The same where one of them rounds, and the answer is not one class, by which they could be compared."""
REQUEST_SECONDS = 120.0
"""How long one answer may take."""
SERVICE_SECONDS = 60.0
"""How long a Service may need to send requests to the new pods only."""
_PAUSE_SECONDS = 0.5
_SHOWN = 60
"""Characters of a text."""


class SmokeOutcome(Record):
    """How the answer to the clip compares with evaluation's."""

    clip_id: str
    label_name: str
    """The class; or what was written, or the score."""
    max_logit_difference: float | None
    """Null of a model without classes."""
    request_seconds: float

    @property
    def summary(self) -> str:
        """The outcome in a few words."""
        if self.max_logit_difference is None:
            return f"answers {self.label_name} like evaluation"
        return f"answers {self.label_name} like evaluation, |Δ logit| ≤ {self.max_logit_difference:.1g}"


class DeploymentError(RuntimeError):
    """The predictor does not start, or answers other than evaluation did."""


def choose_smoke_clip(results_dir: Path) -> Smoke | None:
    """What evaluation chose for this check; null when it found none that can be compared."""
    path, question = results_dir / SMOKE_CLIP_FILE, results_dir / SMOKE_QUESTION_FILE
    if question.is_file():
        return SmokeQuestion.read(question)
    return SmokeClip.read(path) if path.is_file() else None


def ask(client: httpx.Client, smoke_clip: Smoke) -> SmokeAnswer:
    """Asks the predictor that `client` is bound to.

    Raises:
        DeploymentError: it answers with an error, or not at all.
    """
    try:
        if isinstance(smoke_clip, SmokeQuestion):
            reply = ask_question(client, smoke_clip, _key())
        else:
            path = storage.local_path(smoke_clip.video)
            with path.open("rb") as video:
                reply = client.post("/v1/predict", files={"video": (path.name, video)}, headers=_key())
    except httpx.HTTPError as error:
        raise DeploymentError(f"{client.base_url} did not answer for {smoke_clip.clip_id}: {error}") from error
    if reply.status_code != httpx.codes.OK:
        said = f"{client.base_url} answered {reply.status_code} for {smoke_clip.clip_id}: {reply.text[:500]}"
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            said += f"; the step's key is {KEY_VARIABLE}, on a cluster in the secret ivcp-predictor-key"
        raise DeploymentError(said)
    is_question = isinstance(smoke_clip, SmokeQuestion)
    return read_reply(reply) if is_question else Answer.model_validate_json(reply.text)


def _key() -> dict[str, str]:
    """For a predictor that asks for keys."""
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


def check_answer(answer: SmokeAnswer, expected: Smoke, *, model_dir: Path) -> SmokeOutcome:
    """Compares the predictor's answer with evaluation's.

    Where one of them computes in bfloat16 or with rounded weights, only the class has to be the same.

    Raises:
        DeploymentError: the class, what was written or the score differs, or the logits do by more than
            `MAX_LOGIT_DIFFERENCE`.
    """
    if isinstance(expected, SmokeQuestion):
        assert isinstance(answer, GivenAnswer)
        return _check_given(answer, expected, model_dir=model_dir)
    assert isinstance(answer, Answer)
    if len(answer.logits) != len(expected.logits) or answer.label != expected.prediction:
        raise DeploymentError(
            f"{expected.clip_id}: the predictor answers {answer.words} of {len(answer.logits)} classes, "
            f"evaluation predicted {expected.predicted_name} of {len(expected.logits)}: it serves another model"
        )
    difference = max(abs(a - b) for a, b in zip(answer.logits, expected.logits, strict=True))
    is_exact = _is_exact(answer, model_dir)
    if difference > (MAX_LOGIT_DIFFERENCE if is_exact or answer.label is not None else _ROUNDED) and (
        is_exact or answer.label is None
    ):
        raise DeploymentError(
            f"{expected.clip_id}: the predictor's logits differ from evaluation's by {difference:.3g}, expected "
            f"at most {MAX_LOGIT_DIFFERENCE:g}: preparation and serving do not see the same clip, or the model changed"
        )
    return SmokeOutcome(
        clip_id=expected.clip_id,
        label_name=answer.words,
        max_logit_difference=difference,
        request_seconds=answer.seconds,
    )


def _check_given(answer: GivenAnswer, expected: SmokeQuestion, *, model_dir: Path) -> SmokeOutcome:
    if difference := difference_of(answer, expected, model_dir=model_dir):
        raise DeploymentError(
            f"{expected.clip_id}: {difference}: evaluation and serving do not see the same clip, or the model changed"
        )
    return SmokeOutcome(
        clip_id=expected.clip_id,
        label_name=_shown(answer.text) if answer.score is None else f"with the score {answer.score:.4g}",
        max_logit_difference=None,
        request_seconds=answer.seconds,
    )


def _shown(text: str | None) -> str:
    """The beginning of what was written."""
    text = text or ""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _is_exact(answer: Answer, model_dir: Path) -> bool:
    """Whether evaluation and the predictor compute in float32, with weights as they were trained."""
    config = read_model_config(model_dir / RUN_CONFIG_FILE)
    return (
        not config.is_rounded and answer.model.precision.startswith("float32") and "-bit" not in answer.model.precision
    )


def check_service(
    url: str, *, model: ServedModel, model_dir: Path, smoke_clip: Smoke | None, termination: Termination
) -> SmokeOutcome | None:
    """What `model` answers through its Service at `url`; without a clip the Service only has to be ready.

    Raises:
        DeploymentError: it answers other than evaluation did, or another model does, or nothing.
        Terminated: SIGTERM.
    """
    each_its_own = httpx.Limits(max_keepalive_connections=0)  # a Service chooses a pod for each connection
    with httpx.Client(
        base_url=url, trust_env=False, verify=authorities(), timeout=REQUEST_SECONDS, limits=each_its_own
    ) as client:
        deadline = time.monotonic() + SERVICE_SECONDS
        while True:
            with termination.interrupting():
                reached = _reached(client)
                answer = ask(client, smoke_clip) if reached and smoke_clip else None
            if answer and smoke_clip and _is_from(answer, model):
                return check_answer(answer, smoke_clip, model_dir=model_dir)
            if reached and smoke_clip is None:
                return None
            if time.monotonic() > deadline:
                raise DeploymentError(_not_answered(url, answer, model))
            termination.sleep(_PAUSE_SECONDS)


def _reached(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=10.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _is_from(answer: SmokeAnswer, model: ServedModel) -> bool:
    """Old pods, and those of a canary, may answer behind the same address."""
    return _name_and_version(answer) == (model.name, str(model.version))


def _name_and_version(answer: SmokeAnswer) -> tuple[str, str | None]:
    said = answer if isinstance(answer, GivenAnswer) else answer.model
    return said.name, said.version


def _not_answered(url: str, answer: SmokeAnswer | None, model: ServedModel) -> str:
    if answer is None:
        return (
            f"{url}/readyz does not answer 200, though all pods are ready: can this step reach the Service (network "
            "policies, serve_url)?"
        )
    name, version = _name_and_version(answer)
    return f"{url} is answered by {name} v{version}, not by {model.name} v{model.version}"
