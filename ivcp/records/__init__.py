"""What passes between steps: one typed record per file on disk, and the names of the files."""

from ivcp.records.annotations import SPLITS, Clip, Labels, Message, QuarantinedClip, Split, first_path
from ivcp.records.names import (
    ANNOTATIONS_FILE,
    CHECKPOINT_FILE,
    CHECKPOINT_FOLDER,
    CLIPS_DIR,
    CONFUSION_MATRIX_FILE,
    INDEX_FILE,
    LABELS_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    PREDICTIONS_FILE,
    QUARANTINE_FILE,
    REPORT_HTML,
    REPORT_JSON,
    RUN_CONFIG_FILE,
)
from ivcp.records.predictions import Prediction
from ivcp.records.prepared import PreparedIndex, ShardInfo, TableInfo
from ivcp.records.record import Record, RecordT, VersionedRecord, read_lines, write_lines

__all__ = [
    "ANNOTATIONS_FILE",
    "CHECKPOINT_FILE",
    "CHECKPOINT_FOLDER",
    "CLIPS_DIR",
    "CONFUSION_MATRIX_FILE",
    "INDEX_FILE",
    "LABELS_FILE",
    "METRICS_FILE",
    "MODEL_CARD_FILE",
    "PREDICTIONS_FILE",
    "QUARANTINE_FILE",
    "REPORT_HTML",
    "REPORT_JSON",
    "RUN_CONFIG_FILE",
    "SPLITS",
    "Clip",
    "Labels",
    "Message",
    "Prediction",
    "PreparedIndex",
    "QuarantinedClip",
    "Record",
    "RecordT",
    "ShardInfo",
    "Split",
    "TableInfo",
    "VersionedRecord",
    "first_path",
    "read_lines",
    "write_lines",
]
