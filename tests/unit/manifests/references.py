"""What one object says about another is true: selectors find pods, names exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.unit.manifests.rendered import Object, Pod, of_kind, pods, title

ELSEWHERE = {("kubeflow", "pipeline-runner")}
"""Service accounts that Kubeflow Pipelines makes."""


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector of any kind chooses what bears these labels."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def selectors_find_pods(objects: list[Object]) -> list[str]:
    """Services, disruption budgets, network policies and workloads select pods that exist, and ports these have."""
    found = []
    for owner, selector, ports in _selectors(objects):
        chosen = [pod for pod in pods(objects) if selects(selector, pod.labels)]
        if not chosen:
            found.append(f"{owner}: {selector} selects no pod")
        found += [f"{owner}: {pod.owner} has no port {port}" for pod in chosen for port in ports - _ports(pod)]
    return found


def _ports(pod: Pod) -> set[Any]:
    declared = [port for container in pod.containers for port in container.get("ports", [])]
    return {port["name"] for port in declared} | {port["containerPort"] for port in declared}


def _selectors(objects: list[Object]) -> Iterator[tuple[str, Object, set[Any]]]:
    for item in objects:
        spec, owner = item.get("spec", {}), title(item)
        match item["kind"]:
            case "Service":
                yield owner, {"matchLabels": spec["selector"]}, {port["targetPort"] for port in spec["ports"]}
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                yield owner, spec["selector"], set()
            case "NetworkPolicy":
                ingress = {port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])}
                yield owner, spec["podSelector"], ingress if spec["podSelector"] else set()
                for rule in spec.get("ingress", []):
                    yield from ((owner, peer, set()) for peer in _peers(rule.get("from", [])))
                for rule in spec.get("egress", []):
                    ports = {port["port"] for port in rule.get("ports", [])}
                    yield from ((owner, peer, ports) for peer in _peers(rule.get("to", [])))


def _peers(peers: list[Object]) -> Iterator[Object]:
    for peer in peers:
        if "podSelector" in peer and "namespaceSelector" not in peer:
            yield peer["podSelector"]


def workloads_select_only_their_own_pods(objects: list[Object]) -> list[str]:
    """Two workloads that select each other's pods fight over them."""
    return [
        f"{title(item)} selects the pods of {pod.owner}"
        for item in of_kind(objects, "Deployment", "StatefulSet")
        for pod in pods(objects)
        if pod.owner != title(item) and selects(item["spec"]["selector"], pod.labels)
    ]


def names_exist(objects: list[Object]) -> list[str]:
    """Service accounts, config maps, volume claims, scale targets, roles, services, ports and queues exist."""
    known = {(item["kind"], item["metadata"]["name"]) for item in objects}
    return [
        f"{owner}: there is no {kind} {name}"
        for owner, kind, name in [*_of_pods(objects), *_of_others(objects)]
        if (kind, name) not in known
    ]


def _of_pods(objects: list[Object]) -> Iterator[tuple[str, str, str]]:
    for pod in pods(objects):
        yield pod.owner, "ServiceAccount", pod.spec.get("serviceAccountName", "(none given)")
        for container in pod.containers:
            for source in container.get("envFrom", []):
                if "configMapRef" in source and not source["configMapRef"].get("optional"):
                    yield pod.owner, "ConfigMap", source["configMapRef"]["name"]
        for volume in pod.spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                yield pod.owner, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
            if "configMap" in volume and not volume["configMap"].get("optional"):
                yield pod.owner, "ConfigMap", volume["configMap"]["name"]


def _of_others(objects: list[Object]) -> Iterator[tuple[str, str, str]]:
    for item in objects:
        spec, owner = item.get("spec", {}), title(item)
        match item["kind"]:
            case "HorizontalPodAutoscaler":
                yield owner, spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]
            case "RoleBinding":
                yield owner, item["roleRef"]["kind"], item["roleRef"]["name"]
                for subject in item["subjects"]:
                    if (subject["namespace"], subject["name"]) not in ELSEWHERE:
                        yield owner, subject["kind"], subject["name"]
            case "StatefulSet":
                yield owner, "Service", spec["serviceName"]
            case "Ingress":
                yield from ((owner, "Service", backend["name"]) for backend in _backends(spec))
            case "LocalQueue":
                yield owner, "ClusterQueue", spec["clusterQueue"]
            case "ClusterQueue":
                for group in spec["resourceGroups"]:
                    yield from ((owner, "ResourceFlavor", flavor["name"]) for flavor in group["flavors"])


def _backends(ingress: Object) -> Iterator[Object]:
    if "defaultBackend" in ingress:
        yield ingress["defaultBackend"]["service"]
    for rule in ingress.get("rules", []):
        yield from (path["backend"]["service"] for path in rule["http"]["paths"])


def service_ports_exist(objects: list[Object]) -> list[str]:
    """Ingresses and service monitors name ports that the services have."""
    services = of_kind(objects, "Service")
    ports = {item["metadata"]["name"]: {port["name"] for port in item["spec"]["ports"]} for item in services}
    found = [
        f"{title(ingress)}: {backend['name']} has no port {backend['port']['name']}"
        for ingress in of_kind(objects, "Ingress")
        for backend in _backends(ingress["spec"])
        if backend["port"]["name"] not in ports.get(backend["name"], set())
    ]
    for monitor in of_kind(objects, "ServiceMonitor"):
        read = [item for item in services if selects(monitor["spec"]["selector"], item["metadata"]["labels"])]
        wanted = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
        if not any(wanted <= ports[item["metadata"]["name"]] for item in read):
            found.append(f"{title(monitor)} reads no service")
    return found


def queues_cover_jobs(objects: list[Object]) -> list[str]:
    """A job that asks for a resource which its queue does not cover is never admitted."""
    return [
        f"{title(queue)} does not cover {resource} of {pod.owner}"
        for queue in of_kind(objects, "ClusterQueue")
        for pod in pods(of_kind(objects, "TrainingRuntime"))
        for resource in pod.spec["containers"][0]["resources"]["requests"]
        if not any(resource in group["coveredResources"] for group in queue["spec"]["resourceGroups"])
    ]
