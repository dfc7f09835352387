"""Each check can fail, and says what to do."""

import multiprocessing
import threading
from dataclasses import replace

import pytest
from torch.distributed import HashStore

from ivcp.launch.preflight import (
    MissingPeersError,
    NodeNeeds,
    PreflightError,
    check_in,
    check_node,
    check_world,
    meet_nodes,
)
from ivcp.settings import config_from_settings
from tests.ports import free_pair
from tests.unit.launch.reduce_processes import reduce

NOTHING = NodeNeeds(processes=1, gpus=0, shm_bytes=0, disk_bytes=0)


def test_a_node_that_has_what_it_needs(tmp_path):
    check_node(replace(NOTHING, gpus=2, shm_bytes=1, disk_bytes=1), tmp_path, shm=tmp_path, gpus=2)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"gpus": 4}, r"1 of 4 GPUs are visible: .*nvidia\.com/gpu"),
        ({"shm_bytes": 2**60}, r"MiB, 1\d{12} MiB are needed: mount an emptyDir with medium: Memory"),
        ({"disk_bytes": 2**60}, r"GB are free in .*, checkpoints need 1\.15e\+09 GB: set save_total_limit"),
    ],
)
def test_a_node_that_lacks_something(tmp_path, needs, message):
    with pytest.raises(PreflightError, match=message):
        check_node(replace(NOTHING, **needs), tmp_path, shm=tmp_path, gpus=1)


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    needs = NodeNeeds(processes=2, gpus=4, shm_bytes=2**60, disk_bytes=2**60)
    with pytest.raises(PreflightError, match=r"GPUs.*medium: Memory.*save_total_limit"):
        check_node(needs, tmp_path, shm=tmp_path, gpus=1)


def test_fewer_processes_than_asked_for():
    launch = {"train_launcher": "trainjob", "train_nodes": 2, "train_processes_per_node": 4}
    config = config_from_settings(launch | {"checkpoints_uri": "s3://bucket/runs"})
    check_world(config, 8)
    with pytest.raises(PreflightError, match="4 processes were started, 2 nodes × 4 processes were asked for"):
        check_world(config, 4)


def test_a_process_that_never_comes_is_named():
    store = HashStore()
    store.set("process/2", "there")
    with pytest.raises(MissingPeersError, match=r"process 0: of 4: these did not come within 0 s: 1, 3;"):
        check_in(store, "process", number=0, count=4, seconds=0.2)


def test_nodes_meet_in_any_order():
    port, arrived = free_pair(), []

    def come(number):
        meet_nodes("127.0.0.1", port, number=number, count=3, seconds=20)
        arrived.append(number)

    threads = [threading.Thread(target=come, args=(number,)) for number in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(arrived) == [0, 1, 2]


def test_a_node_that_never_comes_is_named():
    with pytest.raises(MissingPeersError, match=r"node 0: of 2: these did not come within 1 s: 1; look at the logs"):
        meet_nodes("127.0.0.1", free_pair(), number=0, count=2, seconds=1)


def test_a_first_node_that_never_comes_is_named():
    with pytest.raises(MissingPeersError, match=r"the first node, 127\.0\.0\.1:\d+, did not answer within 0 s"):
        meet_nodes("127.0.0.1", free_pair(), number=1, count=2, seconds=0.1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("none", "sound"), ("wrong", "gave 2.0 instead of 3.0"), ("silent", "did not arrive within 1 s")],
)
def test_the_all_reduce(tmp_path, fault, message):
    context = multiprocessing.get_context("forkserver")
    arguments = (fault, tmp_path / "store", tmp_path / "seen")
    processes = [context.Process(target=reduce, args=(rank, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert message in (tmp_path / "seen").read_text()
