"""Steps in containers of this machine: the project's images through KFP's Docker runner, Docker or Podman behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from kfp import local

from ivcp.pipeline_runs.interruption import Interruption
from ivcp.settings import RunConfig
from ivcp.validation.splits.kept import splits_uri


class ContainerError(RuntimeError):
    """There is no container engine, or it lacks an image."""


def container_runner(config: RunConfig, *, runs_dir: Path) -> local.DockerRunner:
    """Containers that see this folder, `runs_dir` and what `config` names, each under the path that it has here.

    They run as this user, on this machine's network, with a root file system that cannot be written.

    Raises:
        ContainerError: the predictor is to be left running, which a container that ends with its step cannot.
    """
    if config.serving.serve_keep:
        raise ContainerError(
            "serve_keep: the predictor would end with the step's container; remove it, or --containers"
        )
    from docker.types import Mount

    return local.DockerRunner(
        mounts=[
            Mount(str(folder), str(folder), type="bind", read_only=read_only)
            for folder, read_only in _folders(config, runs_dir).items()
        ],
        network_mode="host",
        read_only=True,
        shm_size="2g",
        tmpfs={"/tmp": ""},
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(Path.cwd()),
    )


@contextmanager
def own_containers(variables: Mapping[str, str], interruption: Interruption) -> Iterator[None]:
    """Lets KFP run its containers by `run_container`, with environment variables for all of them.

    KFP 2.17 has the engine remove containers that end; where that is faster than KFP's question how one ended, KFP
    takes it for a success. And a task's own variables replace the runner's.
    """
    from kfp.local import docker_task_handler

    theirs = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = partial(run_container, variables=variables, interruption=interruption)
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = theirs


def run_container(
    client: Any,
    image: str,
    command: list[str],
    volumes: Mapping[str, Any],
    *,
    variables: Mapping[str, str],
    interruption: Interruption,
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> int:
    """Runs a command in a container of an image that is here, prints what it writes, and gives its exit code.

    `environment` wins over `variables`. Nothing is run where an interruption was requested; one that is requested
    meanwhile ends the container.

    Raises:
        ContainerError: there is no such image.
    """
    import docker

    if interruption.requested:
        return 1
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound as error:
        raise ContainerError(
            f"there is no image {image} here: build it with `make images`, or name others by IVCP_REGISTRY and IVCP_TAG"
        ) from error
    arguments |= {"environment": {**variables, **(environment or {})}, "volumes": volumes}
    # As in a pod, the command stands in the place of the image's own entry point: that of the predictor.
    arguments |= {"entrypoint": command[:1], "command": command[1:]}
    container = client.containers.run(image=image, detach=True, **arguments)
    try:
        with interruption.ends(partial(_signal, container)):
            for line in container.logs(stream=True):
                print(line.decode(errors="replace"), end="")  # noqa: T201 (KFP's log of the step)
            code: int = container.wait()["StatusCode"]
    finally:
        container.remove(force=True)
    return code


def _signal(container: Any, number: int) -> None:
    import docker

    with suppress(docker.errors.APIError):  # it ended meanwhile
        container.kill(signal=number)


def _folders(config: RunConfig, runs_dir: Path) -> dict[Path, bool]:
    """What containers see → whether they only read it; none lies inside another."""
    splits = splits_uri(config.data)  # which validation adds to
    written = [
        Path.cwd(), runs_dir, config.cluster.shards_uri, config.train.output_dir, config.export.export_dir,
        splits if "://" in splits else Path(splits).parent,
    ]  # fmt: skip
    read = [config.model.model_name_or_path, config.data.dataset_dir, config.data.media_dir]
    folders: dict[Path, bool] = {}
    for paths, read_only in ((written, False), (read, True)):
        for path in paths:
            folder = Path(path).resolve() if path and "://" not in str(path) else None
            if folder and folder.is_dir() and not any(folder.is_relative_to(other) for other in folders):
                folders[folder] = read_only
    return folders
