"""The same assertions for every family: `docs/model_families.md` holds the table of what is tested here."""

import pickle
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.video_utils import VideoMetadata

from ivcp.data.prepared.reader import PreparedSamples
from ivcp.data.prepared.sample import EncodedSample
from ivcp.data.prompts import render_prompt
from ivcp.export.merge import merge_adapter
from ivcp.feature_cache.encoder import VisionEncoder
from ivcp.inference.compute import Compute
from ivcp.models.families import (
    UnsupportedModelError,
    encode_vision,
    part_of,
    processor_settings,
)
from ivcp.models.load import load_base_model
from ivcp.models.positions import ROPE_POSITIONS, RopePositions
from ivcp.models.processor import Processor
from ivcp.records import Message
from ivcp.settings import ModelConfig, VideoConfig
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import load_directory
from ivcp.training.build import build_trainer
from ivcp.training.result import run_trainer
from tests.conftest import REPOSITORY
from tests.prepared import write_index
from tests.samples import batch_of, tokens_of
from tests.tiny_families import FAMILIES
from tests.unit.conftest import LABELS, PROMPT, prepared_clip

OF_ONE_LENGTH = ("llava_onevision",)
"""Families whose batches hold clips of one length only."""


def without_pixels(inputs):
    return {name: value for name, value in inputs.items() if not name.startswith("pixel_")}


each_family = pytest.mark.parametrize("base_model_dir", FAMILIES, indirect=True)


@pytest.fixture(scope="module")
def processor(base_model_dir):
    video = VideoConfig(video_num_frames=4, video_min_pixels=1024, video_max_pixels=1024)
    return Processor.from_pretrained(base_model_dir, video=video, special_tokens=("<ACTION>",))


@pytest.fixture(scope="module")
def classifier(base_model_dir, processor):
    torch.manual_seed(0)
    model = load_base_model(base_model_dir, settings=ModelConfig())
    shape = DecoderShape(decoder_type="linear", hidden_size=model.config.get_text_config().hidden_size, num_classes=3)
    return ActionClassifier(
        model, ActionDecoder(shape), labels=LABELS, action_token_id=processor.token_id("<ACTION>")
    ).eval()


@pytest.fixture
def batch(processor, prepared_clips):
    return inputs_of(processor, prepared_clips[:3])


@pytest.fixture
def clips_of_all_sizes(base_model_dir, processor):
    is_of_one_length = AutoConfig.from_pretrained(base_model_dir).model_type in OF_ONE_LENGTH
    shapes = [(2, (32, 32)), (6, (90, 120)), (4, (640, 360))]
    return [
        prepared_clip(processor, number, num_frames=4 if is_of_one_length else length, size=processor.frame_size(*size))
        for number, (length, size) in enumerate(shapes)
    ]


def inputs_of(processor, clips):
    return {name: value for name, value in batch_of(processor, clips).items() if name != "labels"}


@torch.no_grad()
def states_of(classifier, inputs):
    return classifier.action_states(**inputs)


@each_family
def test_tokens_and_pixels_are_those_of_the_familys_own_processor(classifier, processor, prepared_clips):
    """One call of transformers' processor and one of its model, against what preparation and training make of it."""
    clip, frames = prepared_clips[1], prepared_clips[1].media[0].frames
    num_frames = len(frames)
    whole = processor.processor(
        text=[render_prompt(processor.processor, PROMPT, action_token="<ACTION>")],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[VideoMetadata(total_num_frames=num_frames, fps=4.0, frames_indices=[*range(num_frames)])],
        videos_kwargs=processor_settings(processor.processor.video_processor) | {"return_tensors": "pt"},
    )
    inputs = {name: torch.as_tensor(value) for name, value in whole.items()}
    with torch.no_grad():
        states = classifier.backbone.base_model(**inputs, use_cache=False).last_hidden_state

    assert inputs["input_ids"][0].tolist() == clip.input_ids.tolist()
    torch.testing.assert_close(states[:, -1], states_of(classifier, inputs_of(processor, [clip])), atol=1e-6, rtol=0)


@each_family
def test_the_answers_tokens_are_those_of_the_whole_conversation(processor):
    conversation = (*PROMPT, Message(role="assistant", content="The person is waving."))
    frames = np.zeros((2, *processor.frame_size(16, 16), 3), dtype=np.uint8)
    tokens = tokens_of(processor, frames, conversation)
    answer = tokens.input_ids[tokens.num_prompt_tokens :]
    texts = [{"type": "text", "text": turn.content.removeprefix("<video>")} for turn in conversation]
    turns = [{"role": "user", "content": [{"type": "video"}, texts[0]]}, {"role": "assistant", "content": [texts[1]]}]
    text = processor.processor.apply_chat_template(turns, tokenize=False)
    tokenizer = processor.processor.tokenizer
    whole = tokenizer(text)["input_ids"]

    assert whole[whole.index(processor.token_id("<ACTION>")) + 1 :] == answer.tolist()
    assert tokenizer.decode(tokens.input_ids[tokens.loss_mask]).lstrip().startswith("The person is waving.")


@each_family
def test_an_answer_behind_the_token_does_not_change_the_state(classifier, processor, batch):
    answer = processor.processor.tokenizer(" The person is waving.", add_special_tokens=False)["input_ids"]
    behind = torch.tensor([answer] * 3)
    fills = {"input_ids": behind, "attention_mask": torch.ones_like(behind), "mm_token_type_ids": behind * 0}
    kept = {**batch, **{name: torch.cat([batch[name], fill], dim=1) for name, fill in fills.items()}}

    torch.testing.assert_close(states_of(classifier, kept), states_of(classifier, batch), atol=1e-5, rtol=0)


@each_family
def test_the_state_is_what_the_language_model_head_reads(classifier, processor, prepared_clips):
    inputs = inputs_of(processor, prepared_clips[:1])
    model = classifier.backbone
    with torch.no_grad():
        logits = model(**without_pixels(inputs) | {"mm_encoder_outputs": encode_vision(model, inputs)}).logits[:, -1]
        expected = model.get_output_embeddings()(states_of(classifier, inputs))

    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@each_family
def test_the_frames_and_their_order_matter(classifier, processor, prepared_clips):
    clip = prepared_clip(processor, 1, num_frames=6)
    frames = clip.media[0].frames
    frames[:3] = 255 - frames[:3]
    reversed_frames = clip.with_media([replace(clip.media[0], frames=frames[::-1].copy())])
    states = states_of(
        classifier, inputs_of(processor, [clip, reversed_frames, prepared_clip(processor, 1, num_frames=6)])
    )

    for one, other in pairwise(states):
        assert (one - other).abs().max() > 1e-3


@each_family
def test_encoded_vision_gives_the_state_of_the_pixels_bit_for_bit(classifier, batch):
    live = states_of(classifier, batch)
    with torch.no_grad():
        encoded = encode_vision(classifier.backbone, batch)
    (output,) = encoded.values()
    features = output.pooler_output
    rows = features.flatten(0, -2) if isinstance(features, torch.Tensor) else torch.cat([*features])
    assert len(rows) == (batch["mm_token_type_ids"] != 0).sum()

    tower = classifier.backbone.get_encoder(modality="video")
    hook = tower.register_forward_pre_hook(lambda *_: pytest.fail("the vision tower ran all the same"))
    cached = states_of(classifier, without_pixels(batch) | {"mm_encoder_outputs": encoded})
    hook.remove()
    assert torch.equal(cached, live)


@each_family
def test_positions_made_with_the_batch_are_those_that_the_model_finds(classifier, processor, clips_of_all_sizes):
    positions = RopePositions.of(classifier.backbone)
    if positions is None:
        pytest.skip("its positions are those of any text")
    inputs = inputs_of(processor, clips_of_all_sizes)
    made = pickle.loads(pickle.dumps(positions))(inputs)  # a collator takes it to a worker process

    model, found = classifier.backbone.base_model, []
    compute = model.get_rope_index
    model.get_rope_index = lambda *args, **kwargs: found.append(compute(*args, **kwargs)) or found[-1]
    expected = states_of(classifier, inputs)
    assert torch.equal(found[0][0].transpose(0, 1), made[ROPE_POSITIONS])
    assert torch.equal(states_of(classifier, made), expected)
    # DeepSpeed and FSDP2 cast what is floating to bfloat16: pixels bear it, times do not.
    assert {name for name, value in made.items() if value.is_floating_point()} <= {
        "pixel_values_videos",
        "pixel_values",
    }
    assert len(found) == 1  # the model looks for none where the batch has them
    del model.get_rope_index


@each_family
def test_clips_of_other_lengths_and_shapes_in_a_batch_change_no_logit(classifier, processor, clips_of_all_sizes):
    with torch.no_grad():
        together = classifier(**inputs_of(processor, clips_of_all_sizes)).logits
        alone = torch.cat([classifier(**inputs_of(processor, [clip])).logits for clip in clips_of_all_sizes])

    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@each_family
def test_features_kept_in_one_batch_serve_in_another(classifier, processor, clips_of_all_sizes, tmp_path, make_config):
    index = write_index(tmp_path, clips_of_all_sizes, video=make_config().video)
    alone = Compute(torch.device("cpu"))
    encoder = VisionEncoder(classifier, processor, alone, num_workers=0)
    stored = list(encoder.encode(PreparedSamples(index, "test"), [0, 1, 2]))
    kept = [
        EncodedSample(**vars(clip), tensors=tensors) for clip, tensors in zip(clips_of_all_sizes, stored, strict=True)
    ]

    for chosen in ([0, 2], [2, 1, 0], [1]):
        live = inputs_of(processor, [clips_of_all_sizes[number] for number in chosen])
        served = inputs_of(processor, [kept[number] for number in chosen])
        assert "vision_features" in served
        torch.testing.assert_close(states_of(classifier, served), states_of(classifier, live), atol=1e-5, rtol=0)


@pytest.mark.parametrize("base_model_dir", ["llava_onevision"], indirect=True)
def test_a_model_that_takes_clips_of_one_length_says_so(processor):
    clips = [prepared_clip(processor, 0, num_frames=length) for length in (4, 6)]

    with pytest.raises(UnsupportedModelError, match="these have 4, 6 frames: set video_num_frames"):
        batch_of(processor, clips)


@each_family
def test_lora_trains_merges_and_loads(make_config, make_index, prepared_clips, tmp_path):
    config = make_config(max_steps=2, save_steps=1, learning_rate=2e-2, disable_gradient_checkpointing=False)
    trainer = build_trainer(
        config, index=make_index(), samples={"train": prepared_clips[:12]}, output_dir=tmp_path / "adapter"
    )
    adapted = [name for name, weight in trainer.model.named_parameters() if "lora_" in name]
    untrained = torch.from_numpy(trainer.predict(prepared_clips[12:]).predictions)
    run_trainer(trainer)
    trained = torch.from_numpy(trainer.predict(prepared_clips[12:]).predictions)

    model = trainer.model.backbone.get_base_model()
    assert {part_of(name.removeprefix("backbone.base_model.model."), model) for name in adapted} == {"language_model"}
    assert (trained - untrained).abs().max() > 1e-2
    for directory in (tmp_path / "adapter", tmp_path / "adapter" / "checkpoint-2"):
        torch.testing.assert_close(load_directory(directory).outputs(prepared_clips[12:]), trained, atol=1e-5, rtol=0)

    merge_adapter(
        tmp_path / "adapter",
        tmp_path / "model",
        machine=ModelConfig(),
        samples=prepared_clips[:2],
        max_shard_gigabytes=1,
    )
    merged = load_directory(tmp_path / "model")
    torch.testing.assert_close(merged.outputs(prepared_clips[12:]), trained, atol=1e-4, rtol=0)
    assert merged.module.backbone.get_input_embeddings().num_embeddings > merged.processor.token_id("<ACTION>")


@each_family
def test_one_batch_is_learnt_by_heart_with_vision_frozen(make_config, make_index, prepared_clips, tmp_path):
    config = make_config(
        finetuning_type="full",
        num_train_epochs=20,
        per_device_train_batch_size=6,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
    )
    trainer = build_trainer(
        config, index=make_index(), samples={"train": prepared_clips[:6]}, output_dir=tmp_path / "adapter"
    )
    model = trainer.model.backbone
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer.train()

    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] > 0.5
    assert losses[-1] < 0.05
    moved = {part_of(name, model) for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"language_model"}
    assert {part_of(name, model) for name in before} >= {"language_model", "vision_tower", "projector"}


def test_the_table_of_the_documentation_lists_these_families():
    table = (REPOSITORY / "docs" / "model_families.md").read_text(encoding="utf-8")
    tested = table.partition("## Tested")[2].partition("\n## ")[0]

    assert tuple(re.findall(r"^\| [^|]+ \| `(\w+)` \|", tested, flags=re.MULTILINE)) == FAMILIES
