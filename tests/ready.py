"""Waiting for a predictor that runs in the test's own process."""

import time

from fastapi.testclient import TestClient


def wait_until_ready(client: TestClient) -> None:
    """Its model is loaded and its decoding processes are started; minutes where other tests take all cores."""
    deadline = time.monotonic() + 180
    while (reply := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.1)
