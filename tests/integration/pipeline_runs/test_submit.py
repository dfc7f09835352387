"""`ivcp submit` against a server that speaks KFP's API."""

import contextlib
import os
import subprocess
import sys

import pytest
import yaml
from kfp_server_api.exceptions import ApiException

from ivcp.cli.cluster_commands import submit_command
from ivcp.pipeline_runs import submit
from ivcp.pipeline_runs.connection import Server, ServerError, ServerSettings, explained
from ivcp.pipeline_runs.follow import follow_run
from ivcp.pipeline_runs.limits import LimitsError, RunLimits
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.settings import config_from_settings
from ivcp.settings.form import description
from ivcp.tracking import open_pipeline_run, tracked_run
from tests.certificates import write_certificate
from tests.conftest import REPOSITORY
from tests.kfp_api.server import PASSWORD, SESSION, USER, kfp_server

SETTINGS = {"model_name_or_path": "org/model", "dataset": "a", "shards_uri": "s3://bucket/clips", "weight_decay": 0.1}
SETTINGS |= {"models_uri": "s3://bucket/models", "dataset_dir": "s3://bucket/data"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("KF_PIPELINES_ENDPOINT", "KFP_TOKEN", "KFP_COOKIE", "KFP_USER", "KFP_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def kfp(compiled_once):
    with kfp_server() as running:
        yield running


def connect(kfp, **options):
    return Server(ServerSettings(endpoint=kfp.url, pause_seconds=0.01, **options))


def arguments(**settings):
    return pipeline_arguments(config_from_settings(SETTINGS | settings))


def ivcp(kfp, *words, **variables):
    environment = os.environ | {"KF_PIPELINES_ENDPOINT": kfp.url, "COLUMNS": "200"} | variables
    return subprocess.run(
        [sys.executable, "-m", "ivcp.cli.main", *words, *(f"{key}={value}" for key, value in SETTINGS.items())],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_version_is_uploaded_once_and_a_run_has_the_arguments(kfp):
    server = connect(kfp)
    first, second = submit.upload_pipeline(server), submit.upload_pipeline(server)
    run_id = submit.start_run(server, second, arguments(lora_rank=16), name="mine")
    [run] = kfp.store.runs

    assert (first.is_new, second.is_new) == (True, False)
    assert len(kfp.store.pipelines) == len(kfp.store.versions) == 1
    assert run.run_id == run_id
    assert run.pipeline_version_reference.pipeline_version_id == first.version_id
    given = run.runtime_config.parameters
    assert yaml.safe_load(given["settings"]) == SETTINGS | {"dataset": ["a"], "lora_rank": 16}
    assert given["overrides"] == {}
    assert run.experiment_id == kfp.store.experiments[0].experiment_id


def test_another_pipeline_is_another_version(kfp, compiled_once, monkeypatch):
    server = connect(kfp)
    first = submit.upload_pipeline(server)

    def compile_other(path, _):
        path.write_text(compiled_once.read_text().replace("ivcp-training:", "other-training:"))
        return "0123456789ab"

    monkeypatch.setattr(submit, "compile_pipeline", compile_other)
    second = submit.upload_pipeline(server)

    assert second.is_new
    assert second.pipeline_id == first.pipeline_id
    assert len(kfp.store.versions) == 2


def test_the_page_has_the_descriptions(kfp):
    submit.upload_pipeline(connect(kfp))
    assert kfp.store.pipelines[0].description == kfp.store.versions[0].description == description()


@pytest.mark.parametrize(
    ("told", "release", "has_drop_downs"),
    [(None, (2, 14), False), ("2.14.3", (2, 14), False), ("2.16.0", (2, 16), False), ("2.17.0", (2, 17), True)],
)
def test_the_server_gets_what_its_release_knows(told, release, has_drop_downs):
    """One that does not say its release may be the oldest. It refuses what it does not know."""
    with kfp_server() as kfp:
        kfp.version, kfp.store.release = told, release
        version = submit.upload_pipeline(connect(kfp))
        spec = kfp.store.versions[0].pipeline_spec["pipeline_spec"]
        submit.start_run(connect(kfp), version, arguments() | {"set_serve_target": "local"}, name="mine")
    assert ("literals" in spec["root"]["inputDefinitions"]["parameters"]["set_serve_target"]) == has_drop_downs


def test_preparation_in_parts_is_another_version(monkeypatch):
    with kfp_server() as kfp:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp.url)
        for parts in ("1", "4"):
            submit_command([*(f"{key}={value}" for key, value in SETTINGS.items()), f"preprocessing_parts={parts}"])
        at_once, in_parts = (version.pipeline_spec["pipeline_spec"]["components"] for version in kfp.store.versions)
    assert set(in_parts) - set(at_once) >= {"comp-preprocessing-plan", "comp-preprocessing-part"}
    assert not any(name.startswith("comp-for-loop") for name in at_once)


def test_the_version_is_named_by_the_content(tmp_path, monkeypatch):
    first, second = (submit.compile_pipeline(tmp_path / name) for name in ("one.yaml", "two.yaml"))
    changed = subprocess.run(
        [sys.executable, "-m", "ivcp.cli.main", "compile", str(tmp_path / "three.yaml")],
        cwd=REPOSITORY,
        env=os.environ | {"IVCP_DATA_IMAGE": "registry/data@sha256:1", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert first == second
    assert first not in changed.stdout


def test_limits_go_to_servers_that_know_them(kfp):
    kfp.version = "2.16.0"
    with pytest.raises(LimitsError, match=r"the server is Kubeflow Pipelines 2\.16"):
        submit.upload_pipeline(connect(kfp), RunLimits(deadline_hours=1))
    assert kfp.store.pipelines == []


def test_entries_are_found_on_later_pages(kfp):
    server = connect(kfp)
    for number in range(5):
        kfp.store.create_pipeline(submit.kfp_server_api.V2beta1Pipeline(display_name=f"action-cls-{number}"))
    first = submit.upload_pipeline(server)

    assert submit.upload_pipeline(server).pipeline_id == first.pipeline_id


def test_a_refused_parameter_is_named(kfp):
    server = connect(kfp)
    version = submit.upload_pipeline(server)

    with pytest.raises(ServerError, match="400: parameter lora_rnk is not in the pipeline's inputs"):
        submit.start_run(server, version, arguments() | {"lora_rnk": 3}, name="mine")


def test_a_run_is_followed_to_its_end(kfp):
    server, lines = connect(kfp), []
    run_id = submit.start_run(server, submit.upload_pipeline(server), arguments(), name="mine")
    ended = follow_run(server, run_id, lines.append, poll_seconds=0.01)

    assert ended.succeeded
    steps = ("run_start", "data_validation", "preprocessing", "training", "evaluation", "export", "serving")
    assert lines == [f"{step}: {state}" for step in steps for state in ("running", "succeeded")]


def test_a_failed_run_names_the_step(kfp):
    kfp.store.outcome = "FAILED"
    server, lines = connect(kfp), []
    run_id = submit.start_run(server, submit.upload_pipeline(server), arguments(), name="mine")
    ended = follow_run(server, run_id, lines.append, poll_seconds=0.01)

    assert not ended.succeeded
    assert ended.message == "training failed"
    assert lines[-1] == "training: failed"


def test_reads_are_repeated_and_runs_are_not_started_twice(kfp):
    server = connect(kfp)
    version = submit.upload_pipeline(server)
    kfp.fail_on, kfp.failures = lambda method, _: method == "GET", 3
    run_id = submit.start_run(server, version, arguments(), name="mine")
    assert follow_run(server, run_id, lambda _: None, poll_seconds=0.01).succeeded
    kfp.fail_on, kfp.failures = lambda method, path: method == "POST" and path.endswith("/runs"), 1

    with pytest.raises(ServerError, match="500: database is restarting"):
        submit.start_run(server, version, arguments(), name="mine")
    assert len(kfp.store.runs) == 1


def test_a_server_that_restarts_is_waited_for(kfp):
    server = connect(kfp, attempts=2)
    run_id = submit.start_run(server, submit.upload_pipeline(server), arguments(), name="mine")
    kfp.failures = 7
    assert follow_run(server, run_id, lambda _: None, poll_seconds=0.01).succeeded
    kfp.failures = 10**6

    with pytest.raises(ServerError, match="500: database is restarting"):
        follow_run(server, run_id, lambda _: None, poll_seconds=0.01, patience_seconds=0.1)


def test_a_server_that_stays_broken_is_named(kfp):
    kfp.failures = 100
    with pytest.raises(ServerError, match=f"{kfp.url} answers 500: database is restarting"):
        connect(kfp)


def test_a_token_of_a_file_and_of_the_environment(kfp, tmp_path, monkeypatch):
    kfp.token = "secret"
    with pytest.raises(ServerError, match=r"refuses the credentials \(401: Unauthorized\)"):
        connect(kfp)
    (tmp_path / "token").write_text("secret\n")
    server = connect(kfp, token_file=tmp_path / "token")
    kfp.token = "rotated"
    (tmp_path / "token").write_text("rotated")
    submit.upload_pipeline(server)
    monkeypatch.setenv("KFP_TOKEN", "rotated")
    connect(kfp)

    assert len(kfp.store.versions) == 1


def test_a_pods_token(kfp, tmp_path, monkeypatch):
    kfp.token = "of the pod"
    (tmp_path / "token").write_text("of the pod")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    connect(kfp)
    with pytest.raises(ServerError, match="cannot be read: No such file"):
        connect(kfp, token_file=tmp_path / "missing")


def test_forbidden(kfp):
    kfp.forbidden = True
    with pytest.raises(ServerError, match=r"403: User is not authorized to list pipelines.*--namespace"):
        connect(kfp)


def test_a_login_page_is_no_answer(kfp, monkeypatch):
    kfp.login = True
    with pytest.raises(ServerError, match=r"answers with a web page: a login is needed.*KFP_COOKIE"):
        connect(kfp)
    monkeypatch.setenv("KFP_COOKIE", SESSION)
    connect(kfp)


def test_a_login_at_dex(kfp, monkeypatch):
    kfp.login = True
    monkeypatch.setenv("KFP_USER", USER)
    monkeypatch.setenv("KFP_PASSWORD", "wrong")
    with pytest.raises(ServerError, match=f"Dex refuses the name or the password of {USER}"):
        connect(kfp)
    monkeypatch.setenv("KFP_PASSWORD", PASSWORD)
    submit.upload_pipeline(connect(kfp))

    assert kfp.store.versions


def test_a_server_that_is_down_is_tried_once():
    with kfp_server() as gone:
        pass
    with pytest.raises(ServerError, match=r"does not answer.*port-forward"):
        Server(ServerSettings(endpoint=gone.url, pause_seconds=1000))


def test_a_server_that_goes_away_later_is_asked_again(kfp):
    server = connect(kfp)
    retries = server._client.rest_client.pool_manager.connection_pool_kw["retries"]
    assert (retries.total, retries.connect, retries.read) == (4, None, None)


def test_the_other_scheme(kfp):
    other = kfp.url.replace("http:", "https:")
    with pytest.raises(ServerError, match=f"{other}: the server speaks http, not https: give --endpoint {kfp.url}"):
        Server(ServerSettings(endpoint=other, pause_seconds=1000))
    refused = ApiException(status=400)
    refused.body = "Client sent an HTTP request to an HTTPS server.\n"
    with (
        pytest.raises(ServerError, match="speaks https, not http: give --endpoint https://h:8"),
        explained("http://h:8"),
    ):
        raise refused


def test_no_address():
    with pytest.raises(ServerError, match="give --endpoint or set KF_PIPELINES_ENDPOINT"):
        Server(ServerSettings())


def test_tls(tmp_path, monkeypatch):
    certificate = tmp_path / "server.pem"
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    write_certificate(certificate)
    with kfp_server(certificate) as kfp:
        with pytest.raises(ServerError, match=r"certificate of https://localhost.*not trusted.*--ca-file"):
            Server(ServerSettings(endpoint=kfp.url, pause_seconds=1000))
        connect(kfp, ca_file=certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # as IVCP_CA_FILE does
        connect(kfp)


@pytest.mark.parametrize(("version", "is_usable"), [("2.13.0", False), ("2.14.0", True), ("2.17.1", True)])
def test_an_old_server(kfp, version, is_usable):
    kfp.version = version
    if is_usable:
        connect(kfp)
        return
    with pytest.raises(ServerError, match=r"Kubeflow Pipelines 2\.13: the pipeline needs 2\.14"):
        connect(kfp)


def test_another_server(kfp):
    kfp.is_other = True
    with pytest.raises(ServerError, match=r"does not know KFP's API v2beta1 \(404\)"):
        connect(kfp)


def test_several_users(kfp):
    kfp.store.multi_user = True
    with pytest.raises(ServerError, match="give --namespace"):
        connect(kfp)
    server = connect(kfp, namespace="team")
    submit.start_run(server, submit.upload_pipeline(server), arguments(), name="mine")

    assert kfp.store.experiments[0].namespace == kfp.store.pipelines[0].namespace == "team"


def test_the_command_line(kfp):
    submitted = ivcp(kfp, "submit")
    assert submitted.returncode == 0, submitted.stderr
    assert f"run: {kfp.url}/#/runs/details/{kfp.store.runs[0].run_id}" in submitted.stdout
    kfp.token = "secret"
    refused = ivcp(kfp, "submit")

    assert refused.returncode == 2
    assert "refuses the credentials" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_failed_run_says_what_its_step_wrote_to_mlflow(kfp, tmp_path, monkeypatch):
    monkeypatch.setitem(follow_run.__kwdefaults__, "poll_seconds", 0.01)
    kfp.store.outcome = "FAILED"
    mlflow = {"mlflow_tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}

    def begin(run_id):
        started = open_pipeline_run(config_from_settings(mlflow), pipeline_run=run_id, run_name="mine")
        step = tracked_run(config_from_settings(mlflow | {"mlflow_run_id": started}), step="training")
        with contextlib.suppress(MemoryError), step:
            raise MemoryError("no clip fits")

    kfp.store.begins = begin
    words = [f"{key}={value}" for key, value in (SETTINGS | mlflow).items()]
    with pytest.raises(RuntimeError, match="the run ended as failed: training failed: MemoryError: no clip fits"):
        submit_command(words, endpoint=kfp.url, wait=True)


@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
def test_the_runs_result_is_the_commands(kfp, outcome, monkeypatch, capsys):
    """A RuntimeError is exit code 1."""
    monkeypatch.setitem(follow_run.__kwdefaults__, "poll_seconds", 0.01)
    kfp.store.outcome = outcome
    words = [f"{key}={value}" for key, value in SETTINGS.items()]
    if outcome == "FAILED":
        with pytest.raises(RuntimeError, match="the run ended as failed: training failed\nlogs of its steps: http"):
            submit_command(words, endpoint=kfp.url, wait=True)
    else:
        submit_command(words, endpoint=kfp.url, wait=True)
    shown = capsys.readouterr().out

    assert f"training: {outcome.lower()}" in shown
    assert ("the run succeeded" in shown) is (outcome == "SUCCEEDED")
