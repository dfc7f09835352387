"""What stands in the compiled pipeline of resources, nodes, secrets, retries and caching."""

import re

import pytest
from pydantic import ByteSize, TypeAdapter

from pipelines.placement import MODELS_VARIABLE, SECRETS
from tests.unit.pipelines.compiled import compile_pipeline

IN_PARTS = ("preprocessing-plan", "preprocessing-part")
STEPS = (
    "run-start",
    "data-validation",
    *IN_PARTS,
    "preprocessing",
    "training",
    "evaluation",
    "export",
    "serving",
    "run-end",
)


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_requests_limits_and_secrets(compiled_in_parts, step):
    resources = compiled_in_parts.container(step)["resources"]
    secrets = {secret["secretName"]: secret for secret in compiled_in_parts.kubernetes(step)["secretAsEnv"]}

    for kind in ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"):
        assert re.fullmatch(r"\d+(m|Gi)?|\{\{\$\.inputs\.parameters.*\}\}", resources[kind])
    assert set(secrets) == set(SECRETS)
    for name, keys in SECRETS.items():
        assert secrets[name]["optional"] is True
        assert [key["envVar"] for key in secrets[name]["keyToEnv"]] == list(keys)


def test_no_step_installs_packages(compiled, compiled_in_parts):
    assert set(compiled.steps()) == set(STEPS) - set(IN_PARTS)
    assert set(compiled_in_parts.steps()) == set(STEPS)
    for step in STEPS:
        assert "pip install" not in str(compiled_in_parts.container(step))
        assert compiled_in_parts.container(step)["image"].startswith("ivcp-")


def test_training_asks_for_what_the_first_step_says(compiled):
    """Text that the first step makes: KFP reads a number as none, and a launcher of a job holds no accelerator."""
    resources = compiled.container("training")["resources"]
    placed = compiled.kubernetes("training")

    assert resources["accelerator"] == {
        "resourceType": "{{$.inputs.parameters['pipelinechannel--run-start-accelerator_type']}}",
        "resourceCount": "{{$.inputs.parameters['pipelinechannel--run-start-accelerators']}}",
    }
    assert "run-start-memory" in resources["resourceMemoryLimit"]
    node_selector, [toleration] = placed["nodeSelector"]["nodeSelectorJson"], placed["tolerations"]
    assert node_selector["componentInputParameter"] == "pipelinechannel--run-start-node_selector"
    assert toleration["tolerationJson"]["componentInputParameter"] == "pipelinechannel--run-start-tolerations"
    started = compiled.spec["components"]["comp-run-start"]["outputDefinitions"]["parameters"]
    kinds = {name: started[name]["parameterType"] for name in ("accelerators", "node_selector", "tolerations")}
    assert kinds == {"accelerators": "STRING", "node_selector": "STRUCT", "tolerations": "LIST"}


def test_steps_that_load_the_model_have_what_the_first_step_says(compiled):
    placed = compiled.kubernetes("evaluation")

    assert placed["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"].endswith("start-model_node_selector")
    assert placed["tolerations"][0]["tolerationJson"]["componentInputParameter"].endswith("start-model_tolerations")
    for step in ("evaluation", "export"):
        resources = compiled.container(step)["resources"]
        assert "run-start-model_memory" in resources["resourceMemoryLimit"]
        assert "run-start-model_cpu" in resources["resourceCpuRequest"]
    for step in set(compiled.steps()) - {"training", "evaluation"}:
        assert "accelerator" not in compiled.container(step)["resources"]
        assert not {"nodeSelector", "tolerations"} & set(compiled.kubernetes(step))


READ_THE_BASE = set(STEPS) - {"serving", "run-end"}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_limited_disk_and_a_cache_below_it(compiled_in_parts, step):
    """A node's disk is shared: KFP knows no ephemeral-storage, but volumes with a size."""
    [scratch] = [
        mount for mount in compiled_in_parts.kubernetes(step)["emptyDirMounts"] if mount["mountPath"] == "/tmp"
    ]
    limit = int(re.fullmatch(r"(\d+)Gi", scratch["sizeLimit"])[1])
    environment = {entry["name"]: entry["value"] for entry in compiled_in_parts.container(step)["env"]}

    assert "medium" not in scratch
    cache = TypeAdapter(ByteSize).validate_python(environment["IVCP_POD_CACHE_MAX_BYTES"])
    assert 0.5 * limit * 2**30 <= cache < 0.8 * limit * 2**30


@pytest.mark.parametrize("step", STEPS)
def test_every_step_gets_the_clusters_environment_where_there_is_one(compiled_in_parts, step):
    """As a volume: KFP 2.14 knows no optional ConfigMap as variables, and would start no pod without it."""
    [mounted] = compiled_in_parts.kubernetes(step)["configMapAsVolume"]

    assert (mounted["configMapName"], mounted["optional"]) == ("ivcp-environment", True)
    assert mounted["mountPath"] == "/etc/ivcp/ivcp-environment"
    assert "configMapAsEnv" not in compiled_in_parts.kubernetes(step)


def test_a_volume_with_base_models_is_mounted_where_one_is_named(compiled_in_parts, tmp_path, monkeypatch):
    assert not [step for step in STEPS if "pvcMount" in compiled_in_parts.kubernetes(step)]
    monkeypatch.setenv(MODELS_VARIABLE, "base-models")
    again = compile_pipeline(tmp_path / "pipeline.yaml", in_parts=True)

    mounted = {step: again.kubernetes(step).get("pvcMount") for step in STEPS}
    assert {step for step in STEPS if mounted[step]} == READ_THE_BASE
    for [mount] in filter(None, mounted.values()):
        assert (mount["constant"], mount["mountPath"]) == ("base-models", "/models")


def test_servings_memory_is_what_export_says(compiled):
    resources = compiled.container("serving")["resources"]

    for kind in ("resourceMemoryRequest", "resourceMemoryLimit"):
        assert resources[kind] == "{{$.inputs.parameters['pipelinechannel--export-serving_memory']}}"


@pytest.mark.parametrize(("in_parts", "decodes"), [(False, "preprocessing"), (True, "preprocessing-part")])
def test_steps_with_worker_processes_share_memory(compiled, compiled_in_parts, in_parts, decodes):
    pipeline = compiled_in_parts if in_parts else compiled
    shared = {
        step: [mount for mount in pipeline.kubernetes(step)["emptyDirMounts"] if mount["mountPath"] != "/tmp"]
        for step in pipeline.steps()
    }

    assert {step for step in shared if shared[step]} == {"data-validation", decodes, "training", "evaluation"}
    assert pipeline.container(decodes)["resources"]["resourceMemoryLimit"] == "32Gi"
    for [mount] in filter(None, shared.values()):
        assert (mount["mountPath"], mount["medium"]) == ("/dev/shm", "Memory")
        assert re.fullmatch(r"\d+Gi", mount["sizeLimit"])


def test_only_what_the_datas_fingerprint_covers_is_cached(compiled_in_parts):
    """A cached task gets nothing from one that is not: an artifact of that has another name in every run."""
    steps = compiled_in_parts.steps()
    cached = {name for name, task in steps.items() if task.get("cachingOptions", {}).get("enableCache")}

    assert cached == {"data-validation", "preprocessing-part"}
    validation = steps["data-validation"]["inputs"]["parameters"]
    assert validation["data_fingerprint"]["taskOutputParameter"]["outputParameterKey"] == "data_fingerprint"
    assert "artifacts" not in steps["data-validation"]["inputs"]
    artifacts = steps["preprocessing-part"]["inputs"]["artifacts"]
    assert {one["componentInputArtifact"] for one in artifacts.values()} == {
        "pipelinechannel--data-validation-validated"
    }


def test_what_may_be_done_again_is_retried_with_growing_pauses(compiled_in_parts):
    policies = {name: task.get("retryPolicy") for name, task in compiled_in_parts.steps().items()}

    assert [name for name, policy in policies.items() if policy is None] == ["serving"]
    for policy in filter(None, policies.values()):
        assert policy["backoffDuration"] == "30s"
        assert policy["backoffFactor"] == 2.0
        assert 1 <= policy["maxRetryCount"] <= 3


def test_the_last_step_runs_whatever_happened(compiled):
    end = compiled.spec["root"]["dag"]["tasks"]["run-end"]

    assert end["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert end["dependentTasks"] == ["exit-handler-1"]
    assert end["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"
