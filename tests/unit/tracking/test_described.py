"""How people read a run in MLflow."""

from ivcp.settings import from_flat
from ivcp.tracking.described import settings_table, shown_settings
from ivcp.tracking.outages import first_line


def test_the_login_of_an_address_is_not_shown() -> None:
    config = from_flat({"mlflow_tracking_uri": "https://me:se@cret@mlflow.example/a", "run_name": "a@b", "seed": 7})
    shown = shown_settings(config)
    assert shown == {"mlflow_tracking_uri": "https://***@mlflow.example/a", "run_name": "a@b", "seed": 7}
    assert "cret" not in settings_table(config)
    assert "cret" not in first_line(OSError("API request to https://me:se@cret@mlflow.example/a failed"))
