"""What a trained model depends on besides its data, as one hash: equal hashes of settings and data give equal models.

Export records it with the registered version, and a pipeline with `skip_unchanged` compares before it trains.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ivcp.packages import own_version
from ivcp.records.registered import Champion
from ivcp.settings import SECTION_OF_KEY, RunConfig
from ivcp.storage import file_versions, is_s3
from ivcp.tracking.client import DEFAULT_STORE
from ivcp.tracking.registry import find_champion

CONFIGURATION_TAG = "configuration_fingerprint"
PREPARED_TAG = "prepared_fingerprint"

_SECTIONS_WITHOUT_EFFECT = frozenset({"tracking", "serving", "publishing"})
_KEYS_WITHOUT_EFFECT = frozenset(
    {
        "cache_dir",
        "challenger_alias",
        "checkpoints_uri",
        "train_launcher",
        "train_max_restarts",
        "train_namespace",
        "train_queue",
        "train_runtime",
        "train_start_seconds",
        "dataloader_num_workers",
        "ddp_timeout",
        "export_device",
        "export_dir",
        "logging_steps",
        "models_uri",
        "output_dir",
        "overwrite_output_dir",
        "plot_loss",
        "prepared_verify_checksums",
        "preprocessing_num_workers",
        "preprocessing_parts",
        "report_examples",
        "report_thumbnails",
        "report_to",
        "resplit",
        "run_name",
        "save_total_limit",
        "shards_uri",
        "skip_unchanged",
        "splits_file",
        "train_accelerator_type",
        "train_cpu",
        "train_memory",
        "train_node_selector",
        "train_tolerations",
        "video_memory_gigabytes",
        "video_timeout_seconds",
        "vision_cache_dir",
        "vision_cache_max_gigabytes",
    }
)
"""Settings that say where, how and under which name a run works. All others count: an unknown one costs a training, a
forgotten change would cost a model."""
_SAMPLE_BYTES = 2**16


def configuration_fingerprint(config: RunConfig) -> str:
    """Hash of the settings that change the model, of the base model's files, and of the project's version."""
    settings = {
        key: value
        for key, value in config.flat().items()
        if key not in _KEYS_WITHOUT_EFFECT and SECTION_OF_KEY[key] not in _SECTIONS_WITHOUT_EFFECT
    }
    described = {
        "settings": settings,
        "model": base_files_hash(config.model.model_name_or_path),
        "version": own_version(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def base_files_hash(name: str | None) -> str | None:
    """Hash of a base model's files: `sampled_hash` of a folder, sizes and ETags on S3; null where the name says it all.

    Errors are those of `ivcp.storage.file_versions`.
    """
    if name is not None and is_s3(name):
        return hashlib.sha256(json.dumps(sorted(file_versions(name).items())).encode()).hexdigest()
    return sampled_hash(Path(name)) if name is not None and Path(name).is_dir() else None


def sampled_hash(folder: Path, pattern: str = "*") -> str:
    """Hash of the names and sizes of a folder's files and of both ends of each: milliseconds for gigabytes of weights.

    Where files lie and when they were copied changes nothing; other weights do: they differ everywhere.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def unchanged_champion(
    config: RunConfig, *, prepared_fingerprint: str, default_store: Path = DEFAULT_STORE
) -> Champion | None:
    """The champion, where it was trained on the same prepared clips with the same settings; else null."""
    champion = find_champion(config, default_store=default_store)
    if champion is None or champion.tags.get(PREPARED_TAG) != prepared_fingerprint:
        return None
    return champion if champion.tags.get(CONFIGURATION_TAG) == configuration_fingerprint(config) else None
