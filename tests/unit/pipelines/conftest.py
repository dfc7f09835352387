"""The compiled pipeline, as a cluster reads it."""

import pytest

from tests.unit.pipelines.compiled import Compiled, compile_pipeline


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(tmp_path_factory.mktemp("compiled") / "pipeline.yaml")


@pytest.fixture(scope="session")
def compiled_in_parts(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(tmp_path_factory.mktemp("compiled") / "in_parts.yaml", in_parts=True)
