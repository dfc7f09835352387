import pytest
from typer.testing import CliRunner

from ivcp.cli.main import app


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("webchat", "ivcp chat VIDEO.mp4 --model-dir DIR"),
        ("webui", "mlflow ui"),
        ("eval", "ivcp evaluate my.yaml"),
        ("infer", "ivcp predict"),
        ("merge", "ivcp export my.yaml"),
        ("version", "ivcp --version"),
    ],
)
def test_commands_of_other_tools_are_answered_with_what_there_is(command, answer):
    with pytest.raises(ValueError, match=f"there is no command {command}: ") as caught:
        CliRunner().invoke(app, [command, "my.yaml"], catch_exceptions=False)
    assert answer in str(caught.value)


def test_a_word_that_nobody_knows_is_a_wrong_call():
    called = CliRunner().invoke(app, ["nothing"])

    assert called.exit_code == 2
    assert "No such command 'nothing'" in called.output
