"""What the processes of torchrun leave, as one message."""

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from ivcp.launch.torchrun import _explained


def failure(rank, exit_code, tmp_path, message=None):
    file = tmp_path / f"{rank}.json"
    if message is not None:
        file.write_text(f'{{"message": {{"message": "{message}", "extraInfo": {{"timestamp": "1"}}}}}}')
    return ProcessFailure(local_rank=rank, pid=rank, exitcode=exit_code, error_file=str(file))


def test_a_message_of_all_processes_stands_once(tmp_path):
    told = _explained({rank: failure(rank, 2, tmp_path, "error: lora_rank = 0") for rank in range(4)})

    assert dict(told.reasons) == {0: "error: lora_rank = 0"}
    assert (told.exit_code, str(told)) == (2, "process 0: error: lora_rank = 0")


def test_processes_that_were_ended_for_it_say_nothing(tmp_path):
    waited = "failed: process 0 ended before this one could start: its log says why"
    failures = {0: failure(0, 2, tmp_path, "error: no data"), 1: failure(1, -15, tmp_path)}
    failures[2] = failure(2, 1, tmp_path, waited)

    assert dict(_explained(failures).reasons) == {0: "error: no data"}
    assert dict(_explained({1: failures[1]}).reasons) == {1: "ended with exit code -15 (SIGTERM)"}


def test_each_process_with_an_error_of_its_own_says_it(tmp_path):
    failures = {0: failure(0, 1, tmp_path, "failed: the disk is full"), 1: failure(1, -9, tmp_path)}

    assert dict(_explained(failures).reasons) == {
        0: "failed: the disk is full",
        1: "ended with exit code -9 (SIGKILL)",
    }
