"""Names of the files and folders that steps leave for each other."""

from __future__ import annotations

import re

ANNOTATIONS_FILE = "annotations.jsonl"


LABELS_FILE = "labels.json"


QUARANTINE_FILE = "quarantine.jsonl"


REPORT_HTML = "report.html"


REPORT_JSON = "report.json"


INDEX_FILE = "index.json"


RUN_CONFIG_FILE = "run_config.json"


METRICS_FILE = "metrics.json"


PREDICTIONS_FILE = "predictions.jsonl"


CONFUSION_MATRIX_FILE = "confusion_matrix.png"


CONFIDENCE_FILE = "confidence.png"


MODEL_CARD_FILE = "README.md"


CLIPS_DIR = "clips"
"""Folder in an output folder that holds its validated annotations and prepared clips."""


CHECKPOINT_FOLDER = re.compile(r"checkpoint-(\d+)")
"""Name of a checkpoint's folder, with its step."""


CHECKPOINT_FILE = "checkpoint.json"
"""Last file of a checkpoint: without it the checkpoint was left half-written."""


UNFINISHED_FILE = "unfinished_run.json"
"""Lies in an output folder, with the settings of its training, from the training's start to its end."""


TRAINING_RESULT_FILE = "training_result.json"


CURVES_FILE = "training_curves.png"


RESULTS_DIR = "evaluation"
"""Folder in an output folder that holds what evaluation wrote."""


CLASS_TABLE_FILE = "per_class.csv"
