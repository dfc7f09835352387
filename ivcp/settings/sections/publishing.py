"""Where an exported model goes beside its directory and the registry."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ivcp.settings.places import LocalPath
from ivcp.settings.sections.section import Section, as_names

_REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


Engine = Literal["transformers", "vllm"]


class PublishingConfig(Section):
    """Other engines, images and the Hugging Face hub, by `ivcp export` and the pipeline's export step."""

    export_engines: Annotated[tuple[Engine, ...], BeforeValidator(as_names)] = ()
    """Engines besides ivcp that the exported directory is to serve: `transformers` (AutoModelForSequenceClassification
    and its video-classification pipeline, with code beside the model), `vllm` (for Qwen2-VL, Qwen2.5-VL and Qwen3-VL:
    its /classify with a linear decoder, states for others). What is written is compared with this project's logits in a
    fresh process of transformers: more than 1e-4 apart is an error."""
    export_image: LocalPath | None = None
    """Folder that the model is written to as a container image (an OCI layout, without a daemon), its files below
    `/models`: for a Kubernetes image volume, or KServe's modelcar. `skopeo copy --all oci:FOLDER docker://…` pushes
    it."""
    export_image_base: LocalPath | None = None
    """Folder of an OCI layout that the image is put on; null is an empty image. A modelcar needs one with a shell."""
    export_hub_model_id: str | None = None
    """Repository on the Hugging Face hub that the exported model is uploaded to: `owner/name`, or `name` for one of
    your own. The token comes from the environment's HF_TOKEN and nowhere else. Null uploads nothing."""
    push_to_hub: bool = False
    """Upload the exported model to `hub_model_id`: the same as `export_hub_model_id`, in the Trainer's words. Training
    itself uploads nothing."""
    hub_model_id: str | None = None
    """Repository of `push_to_hub`; null is the name of `output_dir`, as one of your own."""
    hub_private_repo: bool | None = None
    """Whether a repository that the upload makes is private; null is what its owner's settings say. One that is there
    stays as it is."""
    hub_revision: str | None = Field(None, pattern=r"^[A-Za-z0-9][\w./-]*$")
    """Branch of the repository that is written; it is made where it is missing. Null is `main`."""
    export_license: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """The model's licence on its card, by the hub's short name (apache-2.0, cc-by-nc-4.0, other …); null is that of the
    base model's card."""

    @field_validator("export_hub_model_id", "hub_model_id")
    @classmethod
    def _is_a_repository(cls, value: str | None) -> str | None:
        if value is None:
            return None
        name = value.rpartition("/")[2]
        if not _REPOSITORY.fullmatch(value) or ".." in value or "--" in value or name.endswith((".git", ".", "-")):
            raise ValueError(f"expected a repository of the hub as owner/name or name, got {value!r}")
        if len(value) > 96:
            raise ValueError(f"the hub takes names of repositories of at most 96 characters, got {len(value)}")
        return value

    @model_validator(mode="after")
    def _has_an_image(self) -> Self:
        if self.export_image_base and not self.export_image:
            raise ValueError(
                f"export_image_base = {self.export_image_base}: set export_image to the folder that the image goes to"
            )
        return self

    @model_validator(mode="after")
    def _names_one_repository(self) -> Self:
        named = {self.export_hub_model_id, self.hub_model_id if self.push_to_hub else None} - {None}
        if len(named) > 1:
            raise ValueError(
                f"export_hub_model_id = {self.export_hub_model_id} and hub_model_id = {self.hub_model_id}: the "
                "exported model is uploaded to one repository: keep one of them"
            )
        return self

    @property
    def uploads_to_hub(self) -> bool:
        """Whether the exported model is uploaded."""
        return self.push_to_hub or self.export_hub_model_id is not None
