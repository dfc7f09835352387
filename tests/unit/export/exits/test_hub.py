"""Uploads to a hub on loopback, through the real huggingface_hub."""

import logging

import pytest

from ivcp.export.exits.hub import UploadError, check_upload, upload_model
from ivcp.export.model_card import model_card
from ivcp.settings import ConfigError, config_from_settings
from tests.hub_api.writable import COMMIT, TOKEN
from tests.ports import free_port

NAME = "me/actions"


def config_of(**settings):
    return config_from_settings({"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct"} | settings)


@pytest.fixture
def described(model_dir):
    card = model_card(model_dir, metrics=None, repository=NAME, licence="apache-2.0")
    (model_dir / "README.md").write_text(card)
    return model_dir


def upload(model_dir, **settings):
    config = config_of(export_hub_model_id=NAME, **settings)
    return upload_model(config, model_dir, repository=check_upload(config))


def test_the_model_is_there_for_others(hub, described):
    address = upload(described)

    files = hub.repositories[NAME]["main"]
    assert address == f"{hub.url}/{NAME}/commit/{COMMIT}"
    for name in ("model.safetensors", "action_decoder.safetensors", "README.md", "tokenizer.json"):
        assert files[name] == (described / name).read_bytes(), name
    assert "export_result.json" not in files
    assert not [name for name, content in files.items() if str(described.parent).encode() in content]
    assert hub.private[NAME] is False


def test_the_check_changes_nothing(hub):
    assert check_upload(config_of(export_hub_model_id=NAME)) == NAME
    assert hub.repositories == {}
    assert hub.paths == ["GET /api/whoami-v2", f"GET /api/models/{NAME}/auth-check/write"]


def test_the_same_model_again_is_no_upload(hub, described):
    upload(described)
    hub.asked.clear()
    upload(described)
    assert not [path for path in hub.paths if path.startswith("PUT")]


def test_weights_of_an_earlier_upload_go_and_other_files_stay(hub, described):
    old = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "figure.png": b"mine"}
    hub.repositories[NAME] = {"main": dict(old)}
    upload(described)

    files = hub.repositories[NAME]["main"]
    assert not files.keys() & {"model-00001-of-00002.safetensors", "model.safetensors.index.json"}
    assert files["figure.png"] == b"mine"
    assert files["model.safetensors"] == (described / "model.safetensors").read_bytes()


def test_a_private_repository_and_a_branch(hub, described):
    upload(described, hub_private_repo=True, hub_revision="v2")
    assert hub.private[NAME] is True
    assert "README.md" in hub.repositories[NAME]["v2"]
    assert "README.md" not in hub.repositories[NAME]["main"]


@pytest.mark.parametrize(
    ("settings", "repository"),
    [
        ({"export_hub_model_id": "actions"}, "me/actions"),
        ({"export_hub_model_id": "acme/actions"}, "acme/actions"),
        ({"push_to_hub": True, "hub_model_id": "acme/actions"}, "acme/actions"),
        ({"push_to_hub": True, "output_dir": "runs/mine"}, "me/mine"),
        ({"hub_model_id": "acme/actions"}, None),
        ({}, None),
    ],
)
def test_where_it_goes(hub, settings, repository):
    assert check_upload(config_of(**settings)) == repository
    if repository is None:
        assert hub.asked == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"export_hub_model_id": "a/b/c"}, "owner/name"),
        ({"export_hub_model_id": "/home/me/model"}, "owner/name"),
        ({"hub_model_id": "me/x..y"}, "owner/name"),
        ({"export_hub_model_id": "me/" + "x" * 95}, "at most 96 characters"),
        ({"export_hub_model_id": "me/a", "push_to_hub": True, "hub_model_id": "me/b"}, "keep one of them"),
        ({"export_license": "My own licence"}, "export_license"),
    ],
)
def test_settings_that_no_hub_takes(values, message):
    with pytest.raises(ConfigError, match=message):
        config_of(**values)


def test_no_token_is_no_upload_whatever_else_lies_about(hub, monkeypatch, tmp_path):
    """A login's file, the older variable and a setting are not used: whoever uploads says so in the environment."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    with pytest.raises(UploadError, match="needs a token that may write, in HF_TOKEN: make one at"):
        check_upload(config_of(export_hub_model_id=NAME, hf_hub_token=TOKEN))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        (None, NAME, r"refuses the token in HF_TOKEN \(401\): it is wrong or expired"),
        ({"role": "read"}, NAME, "may only read, me/actions is to be written"),
        ({"role": "write"}, "stranger/actions", "cannot be made .* expected a repository of me, acme$"),
        ({"role": "write"}, "museum/actions", "cannot be made .* expected a repository of me, acme$"),
        (
            {
                "role": "fineGrained",
                "fineGrained": {"scoped": [{"entity": {"name": "me"}, "permissions": ["repo.read"]}]},
            },
            NAME,
            "fine-grained token in HF_TOKEN has no write permission for me/actions",
        ),
    ],
)
def test_a_token_that_may_not_write_is_refused_early(hub, token, repository, message):
    hub.tokens = {TOKEN: token} if token else {}
    with pytest.raises(UploadError, match=message):
        check_upload(config_of(export_hub_model_id=repository))
    assert not [path for path in hub.paths if not path.startswith("GET")]


def test_a_fine_grained_token_with_the_right_is_enough(hub):
    scoped = [{"entity": {"type": "org", "name": "acme"}, "permissions": ["repo.content.read", "repo.write"]}]
    hub.tokens = {TOKEN: {"role": "fineGrained", "fineGrained": {"scoped": scoped}}}
    assert check_upload(config_of(export_hub_model_id="acme/actions")) == "acme/actions"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, r"refuses to have me/actions written \(403: no\): give the token in HF_TOKEN the right to write there"),
        (409, r"refuses to change me/actions now \(409: no\): somebody else writes it"),
        (413, r"refuses the upload to me/actions \(413: no\)"),
    ],
)
def test_a_refused_commit_is_one_message(hub, described, status, message):
    hub.refuses[f"POST /api/models/{NAME}/commit"] = (status, "no")
    with pytest.raises(UploadError, match=message):
        upload(described)
    assert set(hub.repositories[NAME]["main"]) == {".gitattributes"}


def test_the_hubs_word_against_writing_is_heard_early(hub):
    hub.repositories[NAME] = {"main": {}}
    hub.refuses[f"GET /api/models/{NAME}/auth-check/write"] = (403, "not yours")
    with pytest.raises(UploadError, match="403: not yours"):
        check_upload(config_of(export_hub_model_id=NAME))


def test_a_card_that_the_hub_does_not_take(hub, described):
    (described / "README.md").write_text(model_card(described, metrics=None, licence="my-licence"))
    with pytest.raises(UploadError, match='"license" must be one of'):
        upload(described)


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UploadError, match=r"does not answer .*check the network"):
        check_upload(config_of(export_hub_model_id=NAME))


def test_offline_is_said_at_once(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UploadError, match="push_to_hub: HF_HUB_OFFLINE is set"):
        check_upload(config_of(push_to_hub=True))


@pytest.mark.parametrize("token", ["hf_two\nlines", "hf_with space", "hf_umläut"])
def test_a_token_that_no_header_holds_is_not_quoted(hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UploadError, match=r"characters that no token has") as error:
        check_upload(config_of(export_hub_model_id=NAME))
    assert token not in str(error.value)


def test_the_token_is_in_no_log_and_no_file(hub, described, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        upload(described)
        hub.refuses["POST /api/models"] = (403, "no")
        with pytest.raises(UploadError) as error:
            upload(described)
    said = capfd.readouterr()
    assert not [text for text in (caplog.text, said.out, said.err, str(error.value)) if TOKEN in text]
    assert not [name for name, content in hub.repositories[NAME]["main"].items() if TOKEN.encode() in content]
    assert {authorization for _, path, authorization in hub.asked if "/objects/" not in path} == {f"Bearer {TOKEN}"}
