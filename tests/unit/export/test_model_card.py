import re
import subprocess
import sys

from ivcp.evaluation.measure import measure
from ivcp.export.model_card import model_card
from ivcp.records.evaluation import EvaluationMetrics, GateVerdict
from tests.models import LABELS, save_tiny_classifier
from tests.unit.evaluation.predicted import predicted_split


def test_the_lines_that_load_the_model_work_here_as_they_stand(tmp_path):
    """Beside a torch without torchvision's operators, which `make demo` may install, transformers alone does not."""
    directory = save_tiny_classifier(tmp_path / "model")
    metrics = EvaluationMetrics(
        **measure(predicted_split([0, 1], [[3, 0, 0], [0, 2, 0]]), labels=LABELS, majority_label=0).model_dump(),
        split="test",
        model_dir=str(directory),
        disturbed=(),
        champion=None,
        gate=GateVerdict(passed=True, reasons=()),
        test_fingerprint="t",
        prepared_fingerprint="p",
        data_fingerprint="d",
        seconds=1.0,
    )
    card = model_card(directory, metrics=metrics)
    predicts, loads = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)

    assert predicts == 'import ivcp\n\nivcp.load("model").predict("VIDEO.mp4")\n'
    ended = subprocess.run(
        [sys.executable, "-c", loads], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
