"""What export made, as its `export_result.json` in the model directory says; the deployment reads it."""

from __future__ import annotations

from ivcp.records.graph import GraphInfo
from ivcp.records.record import Record
from ivcp.records.registered import ModelVersionRef

EXPORT_RESULT_FILE = "export_result.json"


class MergeCheck(Record):
    """How near the written model's logits are to those of base model and adapter."""

    clips: int
    """That both were asked for; 0 where export had no data set."""
    max_logit_difference: float | None
    """Null where nothing was compared."""
    dtype: str
    served_difference: float | None = None
    """How near the logits as they are served are to those that evaluation measured, where export rounds weights
    (bfloat16, a quantized base); null where it does not, and `max_logit_difference` says it."""
    served_changes: int = 0
    """Of the clips, those whose class is another one as it is served."""
    engines_difference: float | None = None
    """How near transformers alone, in a fresh process, is to the merged model; null without `export_engines`."""

    @property
    def words(self) -> str:
        """What was compared, in a few words; empty where nothing was."""
        if self.max_logit_difference is None:
            return ""
        if self.served_difference is None:
            return f"|Δ logit| ≤ {self.max_logit_difference:.1g}"
        return (
            f"|Δ logit| ≤ {self.served_difference:.1g} to evaluation as it is served, {self.served_changes} of "
            f"{self.clips} classes changed"
        )


class Exits(Record):
    """Where the model went beside its directory and the registry."""

    uploaded_to: str | None = None
    """Address of the hub's commit; null where nothing was uploaded."""
    image: str | None = None
    """Folder of the OCI layout; null where none was written."""
    image_digest: str | None = None
    """Of the image, `sha256:…`."""

    @property
    def words(self) -> str:
        """In a few words; empty where there are none."""
        image = f", as an image in {self.image}" if self.image else ""
        return image + (f", uploaded as {self.uploaded_to}" if self.uploaded_to else "")


class ExportResult(Record):
    """What export did: `export_result.json` in the model directory."""

    model_dir: str
    """Where the step wrote it; `registered.source` is where it is read from."""
    merge: MergeCheck
    registered: ModelVersionRef | None = None
    """Null where export had no data set and no setting asked for registration."""
    run_id: str | None = None
    """The MLflow run; null where `report_to` does not name mlflow, or nothing was registered."""
    graph: GraphInfo | None = None
    """The graph in a folder of the model directory; null where none was asked for."""
    is_measured: bool = True
    """Whether evaluation measured the model before."""
    exits: Exits = Exits()

    @property
    def source(self) -> str:
        """Where others read it: what is registered, else what the step wrote."""
        return self.registered.source if self.registered else self.model_dir

    @property
    def summary(self) -> str:
        """The result in a few words."""
        version = self.registered
        alias = f" ({version.alias})" if version and version.alias else ""
        name = f"{version.name} v{version.version}{alias}" if version else "merged, not registered"
        checked = f", {words}" if (words := self.merge.words) else ""
        graph = f"; {self.graph.words}" if self.graph else ""
        measured = "" if self.is_measured else ", not measured here: no data set is named"
        return f"{name}{checked}{graph}{self.exits.words}{measured}"


MODEL_REFERENCE_FILE = "model_reference.json"


class ModelReference(Record):
    """`model_reference.json`: where the weights of a model lie that MLflow shows without a copy of them."""

    model_dir: str
    """Path or s3:// URI of the model directory."""
    weights: str | None
    """`ivcp.tracking.identity.sampled_hash` of its *.safetensors; null on S3, where each run has a place of its own."""
