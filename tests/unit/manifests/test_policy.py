"""Every overlay keeps the rules, and every rule notices what breaks it."""

import re
import tomllib
from collections.abc import Callable

import pytest
import yaml

from ivcp.serving import server as predictor
from pipelines.placement import SECRETS
from tests.unit.manifests import policy, references
from tests.unit.manifests.rendered import (
    CLUSTERS,
    DIRECTORIES,
    MANIFESTS,
    OVERLAYS,
    ROOT,
    Object,
    cluster,
    of_kind,
    pods,
    render,
    title,
)

RULES: list[policy.Rule] = [
    policy.runs_restricted,
    policy.has_a_read_only_root,
    policy.has_limits,
    policy.pins_images,
    policy.has_probes,
    policy.has_no_token,
    policy.documents_secrets,
]
REFERENCES: list[policy.Rule] = [
    references.selectors_find_pods,
    references.workloads_select_only_their_own_pods,
    references.names_exist,
    references.service_ports_exist,
    references.queues_cover_jobs,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("directory", DIRECTORIES)
def test_manifests_keep_the_rules(directory: str, rule: policy.Rule):
    assert rule(render(directory)) == []


@pytest.mark.parametrize("rule", REFERENCES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", CLUSTERS)
def test_objects_of_one_cluster_know_each_other(name: str, rule: policy.Rule):
    assert rule(cluster(name)) == []


def _pod(item: Object) -> Object:
    return pods([item])[0].spec


def _context(item: Object) -> Object:
    return _pod(item)["containers"][0]["securityContext"]


def _container(item: Object) -> Object:
    return _pod(item)["containers"][0]


Breakage = Callable[[Object], object]
BREAKAGES: list[tuple[policy.Rule, str, Breakage]] = [
    (policy.runs_restricted, "Deployment/mlflow", lambda item: _context(item).update(runAsUser=0)),
    (policy.runs_restricted, "Deployment/mlflow", lambda item: _context(item).pop("runAsNonRoot")),
    (policy.runs_restricted, "StatefulSet/postgres", lambda item: _context(item).pop("allowPrivilegeEscalation")),
    (policy.runs_restricted, "TrainingRuntime/ivcp-torch", lambda item: _context(item).update(privileged=True)),
    (policy.runs_restricted, "TrainingRuntime/ivcp-torch", lambda item: _context(item).pop("capabilities")),
    (policy.runs_restricted, "Deployment/mlflow", lambda item: _pod(item)["securityContext"].pop("seccompProfile")),
    (policy.runs_restricted, "Deployment/mlflow", lambda item: _pod(item).update(hostNetwork=True)),
    (
        policy.runs_restricted,
        "Deployment/mlflow",
        lambda item: _pod(item)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
    ),
    (policy.runs_restricted, "Deployment/mlflow", lambda item: _container(item)["ports"][0].update(hostPort=80)),
    (
        policy.has_a_read_only_root,
        "Deployment/action-classifier",
        lambda item: _context(item).update(readOnlyRootFilesystem=False),
    ),
    (policy.has_a_read_only_root, "Deployment/mlflow", lambda item: _container(item)["volumeMounts"].clear()),
    (policy.has_limits, "Deployment/mlflow", lambda item: _container(item)["resources"]["limits"].pop("memory")),
    (policy.has_limits, "Deployment/mlflow", lambda item: _container(item).pop("resources")),
    (policy.has_limits, "Deployment/mlflow", lambda item: _pod(item)["volumes"][0].update(emptyDir={})),
    (
        policy.has_limits,
        "TrainingRuntime/ivcp-torch",
        lambda item: _pod(item)["volumes"][1]["emptyDir"].update(sizeLimit="900Gi"),
    ),
    (policy.has_limits, "Deployment/mlflow", lambda item: _container(item)["resources"]["requests"].update(cpu="99")),
    (policy.pins_images, "Deployment/mlflow", lambda item: _container(item).update(image="mlflow:latest")),
    (policy.pins_images, "Deployment/mlflow", lambda item: _container(item).update(image="host:5000/mlflow")),
    (policy.has_probes, "Deployment/action-classifier", lambda item: _container(item).pop("startupProbe")),
    (policy.has_no_token, "Deployment/mlflow", lambda item: _pod(item).pop("automountServiceAccountToken")),
    (policy.documents_secrets, "Deployment/mlflow", lambda item: _pod(item).update(imagePullSecrets=[{"name": "x"}])),
    (
        policy.documents_secrets,
        "Deployment/mlflow",
        lambda item: _container(item)["envFrom"].append({"secretRef": {"name": "unheard-of"}}),
    ),
    (policy.documents_secrets, "Service/mlflow", lambda item: item.update(kind="Secret")),
    (references.selectors_find_pods, "Service/mlflow", lambda item: item["spec"]["selector"].update(a="b")),
    (references.selectors_find_pods, "Service/mlflow", lambda item: item["spec"]["ports"][0].update(targetPort="web")),
    (
        references.selectors_find_pods,
        "PodDisruptionBudget/action-classifier",
        lambda item: item["spec"]["selector"]["matchLabels"].update(a="b"),
    ),
    (
        references.selectors_find_pods,
        "NetworkPolicy/training",
        lambda item: item["spec"]["egress"][1]["to"][0]["podSelector"]["matchLabels"].update(a="b"),
    ),
    (
        references.selectors_find_pods,
        "NetworkPolicy/postgres",
        lambda item: item["spec"]["ingress"][0]["ports"][0].update(port="mysql"),
    ),
    (
        references.workloads_select_only_their_own_pods,
        "Deployment/action-classifier",
        lambda item: item["spec"]["selector"]["matchLabels"].pop("ivcp.dev/track"),
    ),
    (references.names_exist, "Deployment/mlflow", lambda item: _pod(item).update(serviceAccountName="root")),
    (references.names_exist, "Deployment/mlflow", lambda item: _pod(item).pop("serviceAccountName")),
    (
        references.names_exist,
        "Deployment/mlflow",
        lambda item: _container(item)["envFrom"][0]["configMapRef"].update(name="mlflow-server"),
    ),
    (
        references.names_exist,
        "StatefulSet/postgres",
        lambda item: _pod(item)["volumes"][0]["persistentVolumeClaim"].update(claimName="x"),
    ),
    (
        references.names_exist,
        "HorizontalPodAutoscaler/action-classifier",
        lambda item: item["spec"]["scaleTargetRef"].update(name="x"),
    ),
    (references.names_exist, "RoleBinding/pipeline-serving", lambda item: item["roleRef"].update(name="admin")),
    (references.names_exist, "RoleBinding/pipeline-serving", lambda item: item["subjects"][0].update(namespace="x")),
    (references.names_exist, "LocalQueue/training", lambda item: item["spec"].update(clusterQueue="x")),
    (
        references.service_ports_exist,
        "Ingress/action-classifier",
        lambda item: item["spec"]["defaultBackend"]["service"]["port"].update(name="web"),
    ),
    (
        references.service_ports_exist,
        "ServiceMonitor/action-classifier",
        lambda item: item["spec"]["endpoints"][0].update(port="metrics"),
    ),
    (
        references.queues_cover_jobs,
        "ClusterQueue/ivcp-training",
        lambda item: item["spec"]["resourceGroups"][0]["coveredResources"].remove("nvidia.com/gpu"),
    ),
]


@pytest.mark.parametrize(
    ("rule", "name", "breakage"),
    BREAKAGES,
    ids=[f"{rule.__name__}-{number}" for number, (rule, _, _) in enumerate(BREAKAGES)],
)
def test_a_rule_notices_what_breaks_it(rule: policy.Rule, name: str, breakage: Breakage):
    objects = cluster("eks")
    (item,) = [item for item in objects if title(item) == name]
    breakage(item)
    assert rule(objects)


def test_the_namespace_refuses_pods_that_ask_for_more():
    (namespace,) = of_kind(render("manifests/base"), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_needs_nothing_but_kubernetes_stands_by_itself(overlay: str):
    groups = {item["apiVersion"].partition("/")[0] for item in render(f"manifests/overlays/{overlay}")}
    assert groups <= {"v1", "apps", "rbac.authorization.k8s.io", "networking.k8s.io", "storage.k8s.io"}


def test_roles_give_no_more_than_the_steps_need():
    for role in of_kind(render("manifests/base"), "Role", "ClusterRole"):
        assert role["kind"] == "Role"
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & {"*", "secrets", "pods/exec", "serviceaccounts/token", "roles", "rolebindings"}


def test_everything_that_pods_may_say_is_denied_first():
    policies = of_kind(render("manifests/base"), "NetworkPolicy")
    (deny,) = [item["spec"] for item in policies if item["metadata"]["name"] == "default-deny"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_kserve_runs_the_same_container():
    (plain,) = pods(render("manifests/serving/base"))
    (kserve,) = pods(render("manifests/serving/kserve"))
    assert plain.spec["securityContext"] == kserve.spec["securityContext"]
    assert plain.spec["volumes"] == kserve.spec["volumes"]
    (container,), (other,) = plain.spec["containers"], kserve.spec["containers"]
    same = {"kserve-container": "predictor"}
    assert yaml.safe_load(re.sub("|".join(same), lambda match: same[match[0]], yaml.safe_dump(other))) == container


def test_the_plain_service_does_not_find_kserves_pods():
    (service,) = of_kind(render("manifests/serving/base"), "Service")
    (kserve,) = pods(render("manifests/serving/kserve"))
    assert not references.selects({"matchLabels": service["spec"]["selector"]}, kserve.labels)


def test_the_canary_answers_behind_the_same_service():
    (service,) = of_kind(render("manifests/serving/base"), "Service")
    (canary,) = render("manifests/serving/canary")
    (pod,) = pods([canary])
    assert canary["kind"] == "Deployment"
    assert references.selects({"matchLabels": service["spec"]["selector"]}, pod.labels)


def test_the_template_leaves_replicas_to_the_autoscaler():
    (deployment,) = of_kind(render("ivcp/deployment/manifests"), "Deployment")
    assert "replicas" not in deployment["spec"]


def test_the_predictor_has_what_its_manifest_asks_for(tmp_path):
    (pod,) = pods(render("manifests/serving/base"))
    (container,) = pod.spec["containers"]
    (monitor,) = of_kind(render("manifests/serving/monitoring"), "ServiceMonitor")
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    asked |= {endpoint["path"] for endpoint in monitor["spec"]["endpoints"]}
    app = predictor.create_app(tmp_path)
    assert asked == {"/healthz", "/readyz", "/metrics"}
    assert asked <= set(app.openapi()["paths"])


def test_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    mlflow = re.search(r"^mlflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    images = {container["image"] for name in CLUSTERS for pod in pods(cluster(name)) for container in pod.containers}
    tags = {image.rpartition("/")[2].split(":")[0]: set() for image in images}
    for image in images:
        name, tag = image.rpartition("/")[2].split(":")
        tags[name].add(tag)
    assert tags.pop("mlflow") == {f"v{mlflow}-full"}
    assert len(tags.pop("postgres")) == 1
    assert tags == {"ivcp-serving": {project, f"{project}-cuda"}, "ivcp-training": {project}}


def test_every_example_secret_is_read_and_explained():
    read = {name for cluster_name in CLUSTERS for _, name, _ in policy.secret_references(cluster(cluster_name))}
    examples = {item["metadata"]["name"] for item in policy.example_secrets()}
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert read | set(SECRETS) == examples
    assert {name: set(keys) for name, keys in SECRETS.items()} == {
        item["metadata"]["name"]: set(item["stringData"])
        for item in policy.example_secrets()
        if item["metadata"]["name"] in SECRETS
    }
    assert {name for name in examples if f"`{name}`" in page} == examples
    assert "secrets.example.yaml" not in (MANIFESTS / "base" / "kustomization.yaml").read_text(encoding="utf-8")
