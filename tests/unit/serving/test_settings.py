import argparse
from pathlib import Path

import pytest

from ivcp.serving.settings import ServerSettings, add_flags, given_flags

DOCS = Path(__file__).parents[3] / "docs" / "serving.md"


def test_flags_win_over_the_environment_and_that_over_the_defaults():
    variables = {
        "IVCP_SERVE_MAX_UPLOAD_MB": "7",
        "IVCP_SERVE_NUM_DECODERS": "3",
        "HOME": "/root",
        "IVCP_SERVE_KEYS": "",
    }
    settings = ServerSettings.from_environment({"num_decoders": "2"}, variables=variables)
    assert (settings.max_upload_mb, settings.num_decoders, settings.keys) == (7.0, 2, None)
    assert settings.max_requests == ServerSettings().max_requests


def test_commas_divide_only_what_takes_several():
    variables = {"IVCP_SERVE_URI_HOSTS": "a.example.com, *.b.example.com", "IVCP_SERVE_KEYS": "/keys,old"}
    settings = ServerSettings.from_environment(variables=variables)
    assert settings.uri_hosts == ("a.example.com", "*.b.example.com")
    assert settings.keys == "/keys,old"
    assert ServerSettings.from_environment({"uri_ports": "8443"}, variables={}).uri_ports == (8443,)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_upload_mb", "much", "max_upload_mb"),
        ("num_decoders", "0", "num_decoders"),
        ("infer_dtype", "float16", "infer_dtype: Input should be 'auto', 'float32' or 'bfloat16'"),
        ("max_uploads", "3", "'max_uploads' is no setting of the server; the nearest is max_uploads_mb"),
        ("colour", "blue", "'colour' is no setting of the server: docs"),
        ("uri_hosts", "https://a.example.com", "is no host"),
        ("uri_networks", "169.254.0.0/16", "cannot be allowed"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        ServerSettings.from_environment(variables={f"IVCP_SERVE_{name.upper()}": value})


def test_keys_of_no_name_are_not_those_of_the_current_folder():
    with pytest.raises(ValueError, match="keys: String should have at least 1 character"):
        ServerSettings.from_environment({"keys": ""}, variables={})


def test_every_setting_has_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    words = ["--max-upload-mb", "3", "--uri-hosts", "a.example.com", "b.example.com", "--keys", "/keys"]
    given = given_flags(vars(parser.parse_args([*words, "--infer-dtype", "bfloat16"])))
    assert given.pop("infer_dtype") == "bfloat16"
    assert given == {"max_upload_mb": 3.0, "uri_hosts": ["a.example.com", "b.example.com"], "keys": "/keys"}
    flags = {action.dest for action in parser._actions}
    assert set(ServerSettings.model_fields) <= flags


def test_every_setting_is_documented_with_its_default():
    page = DOCS.read_text(encoding="utf-8")
    for name, field in ServerSettings.model_fields.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert " ".join((field.description or "").split()) in row
        if isinstance(field.default, int | float):
            assert f"| {field.default:g} |" in row
