import pytest

from ivcp.data.prompts import check_prompt
from ivcp.imports.listing import ImportRefusedError
from ivcp.imports.templates import choose, read_templates
from ivcp.records import Message


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("action_token", ["<ACTION>", "<ACT>"])
def test_every_template_can_be_classified(language, action_token):
    templates = read_templates(None, language=language, action_token=action_token)
    assert len(set(templates)) >= 8
    for template in templates:
        human, gpt = template.conversation("跑 {步}")
        messages = (Message(role="user", content=human["value"]), Message(role="assistant", content=gpt["value"]))
        check_prompt(messages, action_token=action_token)
        assert human["value"].startswith("<video>")
        assert human["value"].endswith(action_token)
        assert "跑 {步}" in gpt["value"]


def test_the_choice_depends_on_seed_and_row_alone():
    templates = read_templates(None, language="en", action_token="<ACTION>")
    chosen = [choose(templates, seed=3, row_id=f"{n}.mp4") for n in range(400)]
    assert chosen == [choose(templates, seed=3, row_id=f"{n}.mp4") for n in range(400)]
    assert set(chosen) == set(templates)
    assert chosen != [choose(templates, seed=4, row_id=f"{n}.mp4") for n in range(400)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {user: 'What?<ACTION>', answer: ''}", "0 <video> tag"),
        ("- {user: '<video>What?'}", "to end with <ACTION>"),
        ("- {user: '<video>Is it {label}?<ACTION>'}", "would tell the model the answer"),
        ("- {user: '<video>What?<ACTION>', answer: '<ACTION>'}", "stands 2 times"),
        ("- {question: '<video>What?<ACTION>'}", "expected the keys user and answer"),
        ("fr:\n- {user: '<video>Quoi?<ACTION>'}", "for the language 'en', got fr"),
        ("- {user: [", "is not valid YAML"),
    ],
)
def test_own_templates_are_checked(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ImportRefusedError, match=message):
        read_templates(tmp_path / "mine.yaml", language="en", action_token="<ACTION>")
