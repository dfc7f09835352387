"""The `preprocessing` step: from clean annotations to prepared clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ivcp.preparation.folds import of_fold
from ivcp.preparation.prepare import merge_parts, plan_parts, prepare_clips, prepare_part
from ivcp.records import REPORT_HTML, REPORT_JSON, RUN_CONFIG_FILE, PreparedIndex
from ivcp.records.markdown import escape
from ivcp.settings import RunConfig, read_saved_config
from ivcp.tracking import given_run, note_end, tracked_run, unless_away
from ivcp.tracking.identity import unchanged_champion
from ivcp.tracking.steps import recorded_step

log = logging.getLogger(__name__)

_PLACE = " in "
"""In a part's name, before the place of its shards: KFP's local runner gives a loop's tasks the loop's item in place of
any other task's output."""


def run_plan(*, validated: str, shards_uri: str, pipeline_run: str) -> list[str]:
    """Names of the parts that the clips of `validated` are divided into: `<number>-<key> in <shards_uri>`.

    The key stays the same where all clips are prepared already, so that a cluster finds the parts in its cache, and
    is that of this pipeline run where shards are missing: they may have been removed behind the cache's back.
    """
    with recorded_step("preprocessing-plan") as outcome:
        plan = plan_parts(_data_config(validated), validated_dir=Path(validated), shards_uri=shards_uri)
        key = plan.fingerprint[:16] if plan.is_prepared else pipeline_run
        outcome.result = f"{len(plan.parts)} parts"
    return [f"{part}-{key}{_PLACE}{shards_uri}" for part in plan.parts]


def run_part(*, validated: str, part: str) -> str:
    """Prepares the clips of one part, by its name in the plan; what it did, in a few words."""
    name, _, shards_uri = part.partition(_PLACE)
    number = int(name.partition("-")[0])
    with recorded_step(f"preprocessing-part-{number}") as outcome:
        written = prepare_part(
            _data_config(validated), validated_dir=Path(validated), shards_uri=shards_uri, part=number
        )
        outcome.result = f"part {number}: {written or 'all clips were prepared already'}"
    return outcome.result


def run_step(
    *, run_config: str, validated: str, shards_uri: str, deploy: bool, prepared: str, parts: Sequence[str] | None = None
) -> bool:
    """Prepares all clips below `shards_uri`, and writes their index there and to the file `prepared`.

    `parts` is what was done by `run_part`, for all parts of the plan: then only the index is left to do.

    Returns whether there is anything to train: not where `skip_unchanged` is set and the champion was trained on these
    clips with these settings, and serves where this run would `deploy` it.
    """
    with recorded_step("preprocessing") as outcome:
        config = read_saved_config(Path(run_config))
        for part in parts or ():
            log.info("%s", part)
        make = prepare_clips if parts is None else merge_parts
        index = make(config, validated_dir=Path(validated), shards_uri=shards_uri, index_path=Path(prepared))
        index = of_fold(index, config)
        index.write(Path(prepared))
        clips = ", ".join(f"{count} {split}" for split, count in index.num_clips.items() if count)
        outcome.result = f"{clips} clips, {index.mean_tokens:.0f} tokens each, {len(index.failed)} failed"
        outcome.directory = index.root_uri
        if given_run(config):
            _tell_mlflow(config, Path(validated), prepared=outcome.result)
        unchanged_since = _unchanged_since(config, index, deploy=deploy)
        if unchanged_since:
            end = f"nothing changed since {unchanged_since}: nothing was trained"
            outcome.result += f"; {end}"
            note_end(config, end)
            log.info("%s", end)
    return unchanged_since is None


def _tell_mlflow(config: RunConfig, validated: Path, *, prepared: str) -> None:
    """Keeps what validation found with the run; validation itself is cached for many runs, and knows none of them."""
    with tracked_run(config, step="preprocessing") as run:
        for name in (REPORT_HTML, REPORT_JSON):
            if (validated / name).is_file():
                run.log_artifact(validated / name, folder="validation")
        run.describe("Data", escape(prepared))


def _unchanged_since(config: RunConfig, index: PreparedIndex, *, deploy: bool) -> str | None:
    if not config.evaluation.skip_unchanged:
        return None
    champion = unless_away(
        lambda: unchanged_champion(config, prepared_fingerprint=index.fingerprint),
        otherwise=None,
        doing="asking for the champion",
    )
    if champion is None:
        return None
    name = f"{champion.name} v{champion.version}"
    if deploy and champion.deployed_to != config.serving.place:
        log.info("unchanged since %s, but that was never deployed %s: it is trained again", name, config.serving.place)
        return None
    return name


def _data_config(validated: str) -> RunConfig:
    """The settings that the data were validated with: those that preparation depends on."""
    return read_saved_config(Path(validated) / RUN_CONFIG_FILE)
