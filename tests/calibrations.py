"""A calibration as evaluation writes it."""

from ivcp.records.calibration import Calibration, ConfidenceQuality

QUALITY = ConfidenceQuality(
    expected_calibration_error=0.1, expected_by_chance=0.02, negative_log_likelihood=0.5, bins=()
)
CALIBRATION = Calibration(
    temperature=1.5,
    unsure_below=0.7,
    sure_accuracy=0.95,
    split="val",
    num_clips=100,
    before=QUALITY,
    after=QUALITY,
    coverage=(),
)
