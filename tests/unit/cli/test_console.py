from __future__ import annotations

from ivcp.cli.console import show_metrics
from tests.unit.evaluation.language.measured import measured


def test_the_numbers_of_language_are_shown(capsys):
    show_metrics(measured(disturbed={"reversed": {"exact_match": 0.125}}))
    shown = capsys.readouterr().out
    for words in ("test split, 2 clips", "exact match", "0.500", "rouge-l", "perplexity", "1.649", "0.125"):
        assert words in shown
