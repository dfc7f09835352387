import inspect
from pathlib import Path

from typer.testing import CliRunner

import ivcp.cli.cluster_commands as commands
from ivcp.cli.main import app
from ivcp.cli.run_options import RunOptions, with_run_options


def test_both_commands_have_every_option_once():
    for command in (commands.submit_command, commands.schedule_command):
        names = list(inspect.signature(command).parameters)
        assert "options" not in names
        assert [name for name in names if name in RunOptions.__dataclass_fields__] == list(
            RunOptions.__dataclass_fields__
        )


def test_the_command_is_given_them_together():
    given = []

    @with_run_options
    def command(name: str = "a", *, options: RunOptions) -> None:
        given.append((options, name))

    command("b", ca_file=Path("ca.pem"))
    assert given == [(RunOptions(ca_file=Path("ca.pem")), "b")]


def test_they_stand_in_the_help_of_both():
    for command in ("submit", "schedule"):
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        assert all(f"--{name.replace('_', '-')}" in shown for name in RunOptions.__dataclass_fields__)
