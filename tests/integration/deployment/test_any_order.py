"""What pipelines and people do to one Deployment, in random orders: something healthy always serves.

People use the real kubectl, between deployments and between two calls of one. A deployment gets SIGTERM at one of its
calls, or is killed there: from then on none of its calls is answered.
"""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcp.deployment import on_cluster, rollout, smoke_test, switch
from ivcp.deployment.smoke_test import choose_smoke_clip
from ivcp.kubernetes import api, lease
from tests.integration.deployment import deployed_model as given
from tests.integration.deployment.answers import Answers
from tests.integration.deployment.any_order import World
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.kubectl import Kubectl

pytestmark = pytest.mark.slow

_IN_CI, _ALL = 8, 500
_ORDERS = 8
_HURRY = (
    (on_cluster, "_LEASE_SECONDS", 3),
    (lease, "_LOOK_SECONDS", 0.05),
    (rollout, "_LOOK_SECONDS", 0.2),
    (smoke_test, "_PAUSE_SECONDS", 0.05),
    (smoke_test, "SERVICE_SECONDS", 15.0),
    (switch, "RESTORE_SECONDS", 20.0),
)


@pytest.fixture(scope="module")
def answers(folder: Path) -> Iterator[Answers]:
    clip = choose_smoke_clip(folder / "results")
    assert clip is not None
    with Answers(clip, name=given.NAME) as started:
        yield started


@pytest.fixture
def world(
    kubernetes_api: KubernetesApi,
    kubectl: Kubectl,
    answers: Answers,
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    clip = choose_smoke_clip(folder / "results")
    assert clip is not None
    made = World(kubernetes_api, kubectl, answers, folder, clip, random.Random(request.node.callspec.params["seed"]))
    monkeypatch.setattr(api, "connect", made.connect)
    for module, name, seconds in _HURRY:
        monkeypatch.setattr(module, name, seconds)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one that comes when its deployment has ended
    yield made
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[] if seed < _IN_CI else pytest.mark.nightly) for seed in range(_ALL)]
)
def test_something_healthy_always_serves(world: World, seed: int):
    world.begin()
    for _ in range(_ORDERS):
        world.step()
    world.end()
    assert not world.violations, "\n".join(world.violations[:3])
