"""Two processes that prepare the same clips at once: one writes, the other waits and finds them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ivcp.records import PreparedIndex
from ivcp.storage.atomic import PARTIAL
from ivcp.storage.claims import OWNER_FILE
from tests.data_sets import DataSet

PREPARE = """
import json, logging, sys
import ivcp
from ivcp import steps
from ivcp.settings import config_from_settings
logging.basicConfig(level=logging.INFO)
if __name__ == "__main__":
    steps.prepare(config_from_settings(json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize("shares_folder", [True, False])
def test_one_writes_and_the_other_finds(action_data: DataSet, base_model_dir, tmp_path: Path, shares_folder) -> None:
    settings = {
        "model_name_or_path": str(base_model_dir),
        "dataset": "actions",
        "dataset_dir": str(action_data.folder),
        "video_num_frames": 4,
        "video_max_pixels": 1024,
        "preprocessing_num_workers": 1,
        "shards_uri": str(tmp_path / "shards"),
    }
    script = tmp_path / "prepare.py"
    script.write_text(PREPARE)
    folders = [tmp_path / ("same" if shares_folder else name) for name in ("one", "other")]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), json.dumps(settings | {"output_dir": str(folder)})],
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    said = [process.communicate()[1] for process in processes]
    if shares_folder:
        assert sorted(process.returncode for process in processes) == [0, 1]
        assert sum("works in" in text and "or set another output_dir" in text for text in said) == 1
    else:
        assert [process.returncode for process in processes] == [0, 0]
        assert sum("12 clips decoded" in text for text in said) == 1
        assert sum("clips are prepared already" in text for text in said) == 1
        first, second = (PreparedIndex.read(folder / "clips" / "index.json") for folder in folders)
        assert first == second
    assert not [path for path in tmp_path.rglob("*") if path.name == OWNER_FILE or path.name.endswith(PARTIAL)]
