"""How a model's confidence is made what it says: `calibration.json` beside the weights, which evaluation fits."""

from __future__ import annotations

import math

from pydantic import Field

from ivcp.records.annotations import Split
from ivcp.records.record import Record, VersionedRecord

CALIBRATION_FILE = "calibration.json"

ALWAYS_UNSURE = math.nextafter(1.0, 2.0)
"""The threshold that no confidence reaches."""


class ConfidenceBin(Record):
    """The answers whose confidence lies in one fifteenth of the range from 0 to 1."""

    num_clips: int
    """At least one."""
    confidence: float
    """On average."""
    accuracy: float
    """Share of right answers: the confidence, if that is what it says."""


class ConfidenceQuality(Record):
    """How far confidences agree with how often the answers are right, on decoded clips."""

    expected_calibration_error: float
    """Mean distance of a bin's confidence from its accuracy, by clips, over the 15 bins."""
    expected_by_chance: float
    """What it would be on average, on as few clips, if each confidence were what it says."""
    negative_log_likelihood: float
    """Mean of -ln(probability of the right class)."""
    bins: tuple[ConfidenceBin, ...]
    """From the lowest confidence to the highest."""


class CoveragePoint(Record):
    """What is answered surely from one threshold on."""

    threshold: float
    """Lowest calibrated confidence that is sure."""
    coverage: float
    """Share of the decoded clips whose answer is sure."""
    accuracy: float | None
    """Share of right ones among them; null where there are none."""


class Calibration(VersionedRecord):
    """`calibration.json`: what turns logits into confidences, and which of those are unsure.

    Probabilities are softmax(logits / `temperature`): the order of the classes stays (Guo et al. 2017).
    """

    format_version: int = 1
    temperature: float = Field(gt=0)
    unsure_below: float | None = Field(None, ge=0)
    """An answer with less calibrated confidence is unsure; above 1, all are. Null says nothing about any."""
    sure_accuracy: float | None = None
    """The share of right ones among sure answers for which `unsure_below` was chosen."""
    split: Split
    """What it was fitted on."""
    num_clips: int
    """Of that split: decoded, and none that the model was trained on."""
    before: ConfidenceQuality
    """On these clips, at temperature 1."""
    after: ConfidenceQuality
    """On these clips, at `temperature`."""
    coverage: tuple[CoveragePoint, ...]
    """On these clips: at most a hundred thresholds, from the highest to the lowest."""

    def is_unsure(self, confidence: float) -> bool | None:
        """Whether an answer with this calibrated confidence is unsure; null where no threshold was chosen."""
        return None if self.unsure_below is None else confidence < self.unsure_below

    @property
    def summary(self) -> str:
        """What was fitted, in a few words."""
        return (
            f"temperature {self.temperature:.3g} from {self.num_clips} clips of the {self.split} split, "
            f"{self.threshold_words}"
        )

    @property
    def threshold_words(self) -> str:
        """Which answers are unsure, in a few words."""
        if self.unsure_below is None:
            return "no answer is called unsure"
        if self.unsure_below > 1:
            return "every answer is unsure"
        return f"unsure below {self.unsure_below:.3f}"
