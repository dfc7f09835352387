"""Pods of a TrainJob as processes of this machine, with the environment that Kubeflow Trainer's torch policy gives."""

import signal
import subprocess
import sys
import threading

import psutil

from tests.integration.torchrun import processes_environment
from tests.ports import free_pair


class Nodes:
    """The nodes of one job: each its process group, with a folder of its own for /tmp."""

    def __init__(self, job, folder):
        self.job, self.folder = job, folder
        self.trainer = job.body["spec"]["trainer"]
        self.processes, self.readers = [], []
        port = free_pair()
        job.start_pods()
        for node in range(self.trainer["numNodes"]):
            self._start(node, port)

    def codes(self):
        return [process.poll() for process in self.processes]

    def kill(self, node):
        """As when its machine goes away: nothing of it gets to say anything."""
        whole = psutil.Process(self.processes[node].pid)
        for process in [*whole.children(recursive=True), whole]:
            process.kill()

    def end(self):
        """As JobSet does with the others when one failed, or with all when the job is deleted."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for node, process in enumerate(self.processes):
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill(node)
                process.wait()
        for reader in self.readers:
            reader.join(timeout=10)

    def log(self, node):
        """What a node has written so far."""
        key = (self.job.namespace, self.job.pods()[node]["metadata"]["name"])
        return "\n".join(line.text for line in self.job.state.logs.get(key, []))

    def _start(self, node, port):
        tmp = self.folder / f"node-{node}"
        tmp.mkdir(parents=True)
        environment = processes_environment() | {
            "PET_NNODES": str(self.trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(self.trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
            "TMPDIR": str(tmp),
            "HOME": str(tmp / "home"),
            "IVCP_FAILURE_FILE": str(tmp / "termination-log"),
        }
        command = [sys.executable, *self.trainer["command"][1:]]
        process = subprocess.Popen(
            command, env=environment, cwd=tmp, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        self.readers.append(threading.Thread(target=self._collect, args=(node, process), daemon=True))
        self.readers[-1].start()

    def _collect(self, node, process):
        pod = self.job.pods()[node]["metadata"]["name"]
        with process.stdout:
            for line in process.stdout:
                self.job.state.log(self.job.namespace, pod, line)


def really_runs(folder, *, meanwhile=lambda nodes: None):
    """A script for the controller: `meanwhile(nodes)` is called again and again while they run."""

    def script(job):
        nodes = Nodes(job, folder / f"attempt-{len(list(folder.glob('attempt-*')))}")
        try:
            while any(code is None for code in nodes.codes()) and not any(nodes.codes()):
                meanwhile(nodes)
                yield 0.05
        finally:
            nodes.end()
        failed = next((code for code in nodes.codes() if code not in (0, 75, -signal.SIGTERM)), None)
        if any(nodes.codes()):
            job.fail(exit_code=abs(failed or 75))
        else:
            job.complete()

    return script
