"""The check of every deployment: the predictor must answer one clip as evaluation did."""

from __future__ import annotations

from pathlib import Path

import httpx

from ivcp import storage
from ivcp.models.load import training_dtype
from ivcp.records import RUN_CONFIG_FILE, Record
from ivcp.records.evaluation import SMOKE_CLIP_FILE, SmokeClip
from ivcp.serving.predictor import Answer
from ivcp.settings import read_model_config

MAX_LOGIT_DIFFERENCE = 1e-3
"""Between the server's and evaluation's logits of one clip, for a float32 model."""
REQUEST_SECONDS = 120.0
"""How long one answer may take."""


class SmokeOutcome(Record):
    """How the answer to the clip compares with evaluation's."""

    clip_id: str
    label_name: str
    max_logit_difference: float
    request_seconds: float

    @property
    def summary(self) -> str:
        """The outcome in a few words."""
        return f"answers {self.label_name} like evaluation, |Δ logit| ≤ {self.max_logit_difference:.1g}"


class DeploymentError(RuntimeError):
    """The predictor does not start, or answers other than evaluation did."""


def choose_smoke_clip(results_dir: Path) -> SmokeClip | None:
    """The clip that evaluation chose for this check; null when it found none that can be compared."""
    path = results_dir / SMOKE_CLIP_FILE
    return SmokeClip.read(path) if path.is_file() else None


def ask(client: httpx.Client, smoke_clip: SmokeClip) -> Answer:
    """Sends the clip's video file to the predictor that `client` is bound to.

    Raises:
        DeploymentError: it answers with an error, or not at all.
    """
    path = storage.local_path(smoke_clip.video)
    try:
        with path.open("rb") as video:
            reply = client.post("/v1/predict", files={"video": (path.name, video)})
    except httpx.HTTPError as error:
        raise DeploymentError(f"{client.base_url} did not answer for {smoke_clip.clip_id}: {error}") from error
    if reply.status_code != httpx.codes.OK:
        raise DeploymentError(
            f"{client.base_url} answered {reply.status_code} for {smoke_clip.clip_id}: {reply.text[:500]}"
        )
    return Answer.model_validate_json(reply.text)


def check_answer(answer: Answer, expected: SmokeClip, *, model_dir: Path) -> SmokeOutcome:
    """Compares the predictor's answer to a clip with evaluation's.

    A model in bfloat16 only has to give the same class: its merged weights are rounded.

    Raises:
        DeploymentError: the class differs, or the logits do by more than `MAX_LOGIT_DIFFERENCE`.
    """
    if len(answer.logits) != len(expected.logits) or answer.label != expected.prediction:
        raise DeploymentError(
            f"{expected.clip_id}: the predictor answers {answer.label_name} of {len(answer.logits)} classes, "
            f"evaluation predicted {expected.predicted_name} of {len(expected.logits)}: it serves another model"
        )
    difference = max(abs(a - b) for a, b in zip(answer.logits, expected.logits, strict=True))
    is_rounded = training_dtype(read_model_config(model_dir / RUN_CONFIG_FILE)).itemsize < 4
    if difference > MAX_LOGIT_DIFFERENCE and not is_rounded:
        raise DeploymentError(
            f"{expected.clip_id}: the predictor's logits differ from evaluation's by {difference:.3g}, expected "
            f"at most {MAX_LOGIT_DIFFERENCE:g}: preparation and serving do not see the same clip, or the model changed"
        )
    return SmokeOutcome(
        clip_id=expected.clip_id,
        label_name=answer.label_name,
        max_logit_difference=difference,
        request_seconds=answer.seconds,
    )
