import pytest

from ivcp.kubernetes.images import image_reference

DIGEST = "registry.example.com:5000/team/ivcp-data@sha256:0123"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "ivcp-data:0.1.0"),
        ({"IVCP_TAG": "7"}, "ivcp-data:7"),
        (
            {"IVCP_REGISTRY": "registry.example.com:5000/team/", "IVCP_TAG": ""},
            "registry.example.com:5000/team/ivcp-data:0.1.0",
        ),
        ({"IVCP_REGISTRY": "elsewhere", "IVCP_DATA_IMAGE": DIGEST}, DIGEST),
    ],
)
def test_the_environment_names_images(environment: dict[str, str], expected: str) -> None:
    assert image_reference("data", environment) == expected


@pytest.mark.parametrize("reference", ["ivcp-data", "registry:5000/ivcp-data", "registry/ivcp-data:latest"])
def test_a_tag_that_moves_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="no tag that stays"):
        image_reference("data", {"IVCP_DATA_IMAGE": reference})
