"""The folder of a TrainJob on S3 or shared storage, through which the step that starts it and its pods exchange files.

`inputs/` has the settings and the prepared clips' index, `checkpoints/` what `ivcp.training.checkpoints.mirror` keeps,
`adapter/` the result, and `adapter.json`, written last, names the files of the result.
"""

from __future__ import annotations

from pathlib import Path

from ivcp import storage
from ivcp.launch.worker import Work
from ivcp.records import CHECKPOINT_FOLDER, INDEX_FILE, RUN_CONFIG_FILE, UNFINISHED_FILE, PreparedIndex, Record
from ivcp.settings import RunConfig, save_config
from ivcp.stages.directory import check_complete

_INPUTS, _CHECKPOINTS, _ADAPTER, _RESULT_FILE = "inputs", "checkpoints", "adapter", "adapter.json"


class MissingResultError(RuntimeError):
    """A job that succeeded and left no complete result."""


class ResultFiles(Record):
    """`adapter.json`: bytes of each file of the result."""

    files: dict[str, int]


class JobFolder:
    """The folder or s3:// prefix `uri` of one job."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def send_inputs(self, config: RunConfig, index: PreparedIndex, scratch: Path) -> None:
        """Writes what the pods need, and forgets the result of an earlier job of this name."""
        inputs = scratch / _INPUTS
        inputs.mkdir(parents=True)
        save_config(config, inputs / RUN_CONFIG_FILE)
        index.write(inputs / INDEX_FILE)
        storage.delete(storage.join(self.uri, _RESULT_FILE))
        storage.upload(inputs, storage.join(self.uri, _INPUTS))

    def bring_inputs(self, folder: Path) -> Work:
        """Copies the inputs into `folder`; the result goes into its folder `adapter`."""
        storage.fetch(storage.join(self.uri, _INPUTS), folder / _INPUTS)
        return Work(
            run_config=str(folder / _INPUTS / RUN_CONFIG_FILE),
            index=str(folder / _INPUTS / INDEX_FILE),
            output_dir=str(folder / _ADAPTER),
            mirror_uri=storage.join(self.uri, _CHECKPOINTS),
        )

    def send_result(self, adapter: Path) -> None:
        """Copies an adapter directory here, without its checkpoints, which are here already."""
        target = storage.join(self.uri, _ADAPTER)
        storage.delete(target)
        files = {name: size for name, size in storage.file_sizes(adapter).items() if _is_result(name)}
        for entry in sorted({name.partition("/")[0] for name in files}):
            storage.upload(adapter / entry, storage.join(target, entry))
        storage.write_text(storage.join(self.uri, _RESULT_FILE), ResultFiles(files=files).model_dump_json())

    def bring_result(self, adapter: Path) -> None:
        """Copies the result to `adapter`.

        Raises:
            MissingResultError: there is none, or it is not complete.
        """
        marker = storage.join(self.uri, _RESULT_FILE)
        if not storage.exists(marker):
            raise MissingResultError(f"the job is complete and left no result in {self.uri}: see the log of its pods")
        expected = ResultFiles.model_validate_json(storage.read_text(marker)).files
        storage.fetch(storage.join(self.uri, _ADAPTER), adapter)
        arrived = storage.file_sizes(adapter)
        if wrong := [name for name, size in expected.items() if arrived.get(name) != size]:
            raise MissingResultError(f"{self.uri}/{_ADAPTER} is not complete: {', '.join(sorted(wrong))}")
        check_complete(adapter)


def _is_result(name: str) -> bool:
    top = name.partition("/")[0]
    return not CHECKPOINT_FOLDER.fullmatch(top) and name != UNFINISHED_FILE and not top.startswith(".")
