"""What is compiled for which release: servers refuse a field that they do not know.

`kfp_2_14_fields.json` lists the messages of KFP 2.14 with their fields and what those hold (`{}` before a map's
values), as kfp-pipeline-spec 2.14.0 and kfp-kubernetes 2.14.3 describe them. The server reads the compiled pipeline and
each step's Kubernetes settings by these messages, strictly: `protojson.Unmarshal` in `v2_template.go` and
`argocompiler/container.go` of kubeflow/pipelines.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp import network
from ivcp.pipeline_runs.releases import OLDEST
from ivcp.pipeline_runs.submit import Variant, compile_manifest, compile_pipeline
from ivcp.settings.form import choices, description
from pipelines.placement import SECRETS

FIELDS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "kfp_2_14_fields.json").read_text())


def unknown_fields(content: Any, message: str, path: str = "") -> list[str]:
    """Fields that a message of KFP 2.14 does not have."""
    found: list[str] = []
    for key, value in content.items():
        holds = FIELDS[message].get(key)
        if holds is None:
            found.append(f"{path}.{key}")
            continue
        is_map, kind = holds.startswith("{}"), holds.removeprefix("{}")
        entries = value.values() if is_map else value if isinstance(value, list) else [value]
        found += [name for entry in entries if kind for name in unknown_fields(entry, kind, f"{path}.{key}")]
    return found


def unknown_to_2_14(path: Path) -> list[str]:
    spec, platform = yaml.safe_load_all(path.read_text())
    found = unknown_fields(spec, "PipelineSpec") + unknown_fields(spec["deploymentSpec"], "PipelineDeploymentConfig")
    found += unknown_fields(platform, "PlatformSpec")
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        found += unknown_fields(executor, "KubernetesExecutorConfig")
    return sorted(set(found))


def compiled(tmp_path: Path, **variant: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    compile_pipeline(tmp_path / "pipeline.yaml", Variant(**variant))
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("in_parts", [False, True])
def test_what_is_compiled_unasked_is_valid_for_the_oldest_server(tmp_path, in_parts):
    compile_pipeline(tmp_path / "pipeline.yaml", Variant(in_parts=in_parts))
    assert Variant().release == OLDEST == (2, 14)
    assert unknown_to_2_14(tmp_path / "pipeline.yaml") == []


@pytest.mark.parametrize(
    ("release", "unknown"),
    [
        ((2, 15), [".secretAsEnv.optional"]),
        ((2, 17), [".root.inputDefinitions.parameters.literals", ".secretAsEnv.optional"]),
    ],
)
def test_what_newer_servers_have_more_is_what_this_test_finds(tmp_path, release, unknown):
    compile_pipeline(tmp_path / "pipeline.yaml", Variant(release=release))
    found = unknown_to_2_14(tmp_path / "pipeline.yaml")
    assert [name for name in found if "onfigMap" not in name] == unknown


def test_drop_downs(tmp_path):
    spec, _ = compiled(tmp_path, release=(2, 17))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    for name, one in inputs.items():
        assert tuple(one.get("literals", ())) == choices(name), name
        assert not choices(name) or one["defaultValue"] in one["literals"], "the server refuses a value of no literal"
    assert inputs["set_serve_target"]["literals"] == ["", "local", "cluster"]


def test_secrets_that_may_be_missing_are_files_where_variables_may_not_be(tmp_path):
    _, executors = compiled(tmp_path, release=(2, 14))
    for executor in executors.values():
        mounts = {mount["secretName"]: mount for mount in executor["secretAsVolume"]}
        assert set(mounts) == set(SECRETS)
        for secret, mount in mounts.items():
            assert (mount["mountPath"], mount["optional"]) == (str(network.FOLDER / secret), True)
            assert mount["secretNameParameter"]["runtimeValue"] == {"constant": secret}
        assert "secretAsEnv" not in executor
    _, executors = compiled(tmp_path, release=(2, 15))
    assert {len(executor["secretAsEnv"]) for executor in executors.values()} == {len(SECRETS)}


def test_manifests_say_what_the_parameters_mean(tmp_path):
    compile_manifest(tmp_path / "manifest.yaml", namespace="kubeflow")
    pipeline, version = yaml.safe_load_all((tmp_path / "manifest.yaml").read_text())
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["spec"]["description"] == version["spec"]["description"] == description()
