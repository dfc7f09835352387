from dataclasses import replace

import numpy as np
import pytest
import torch

from ivcp.demo.tiny_model import build_tiny_model
from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig
from ivcp.stages.registry import stage_of
from tests.language import image_of, language_config, sample_of
from tests.samples import PROMPT, STAGE, Frames, batch_of, with_answer
from tests.tiny_families import SIDE, build_tiny_family


@pytest.fixture
def processor(base_model_dir):
    video = VideoConfig(video_num_frames=4, video_min_pixels=1024, video_max_pixels=2304)
    return Processor.from_pretrained(base_model_dir, video=video, special_tokens=("<ACTION>",))


def tokenize(processor, frames, **where):
    tokens = STAGE.tokenize(processor, PROMPT, [replace(Frames.all_of(frames), **where)])
    return tokens.input_ids, tokens.mm_token_type_ids


@pytest.mark.parametrize(
    ("height", "width"), [(48, 48), (240, 320), (320, 240), (1080, 1920), (5, 5), (16, 2000), (100, 30)]
)
def test_frames_fit_the_grid_and_the_budget(processor, height, width):
    new_height, new_width = processor.frame_size(height, width)

    assert new_height % 16 == new_width % 16 == 0
    assert new_height * new_width <= 2304 or 16 in (new_height, new_width)
    if max(height, width) / min(height, width) < 4:
        assert new_height * new_width >= 1024
        assert 0.4 < (new_height / new_width) / (height / width) < 2.5


def test_whole_samples_have_labels_where_the_loss_mask_is_set(processor, prepared_clips):
    sample = with_answer(prepared_clips[0], [7, 8, 9], start=1)
    prompt = batch_of(processor, [sample])
    whole = batch_of(processor, [sample, prepared_clips[1]], whole=True)

    assert "token_labels" not in prompt
    assert prompt["input_ids"].shape[1] == sample.num_prompt_tokens
    assert whole["input_ids"][0, -3:].tolist() == [7, 8, 9]
    assert whole["token_labels"][0].tolist() == [-100] * (sample.num_prompt_tokens + 1) + [8, 9]
    assert (whole["token_labels"][1] == -100).all()


def test_tokens_hold_one_placeholder_per_merged_patch_and_end_in_the_token(processor):
    input_ids, types = tokenize(processor, np.zeros((4, 32, 48, 3), np.uint8))

    assert (types == 2).sum() == 2 * 2 * 3
    assert input_ids[-1] == processor.token_id("<ACTION>")
    assert (input_ids == processor.token_id("<ACTION>")).sum() == 1


def test_pixels_of_a_batch_are_those_of_single_clips(processor):
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 255, (4, *size, 3), dtype=np.uint8) for size in ((32, 48), (48, 32), (32, 48))]
    together = processor.pixel_inputs(clips)
    alone = [processor.pixel_inputs([clip]) for clip in clips]

    assert torch.equal(together["pixel_values_videos"], torch.cat([one["pixel_values_videos"] for one in alone]))
    assert torch.equal(together["video_grid_thw"], torch.cat([one["video_grid_thw"] for one in alone]))


def test_batches_are_padded_on_the_right(processor, prepared_clips):
    short, long = prepared_clips[0], prepared_clips[1]
    short = replace(short, input_ids=short.input_ids[-5:], mm_token_type_ids=np.zeros(5, int), num_prompt_tokens=5)
    batch = batch_of(processor, [short, long])

    assert batch["attention_mask"].sum(dim=1).tolist() == [5, len(long.input_ids)]
    assert batch["attention_mask"][0, :5].all()
    assert batch["labels"].tolist() == [sample.columns["label"] for sample in (short, long)]


def test_the_token_is_new_to_the_base_model_and_known_to_a_saved_processor(processor, tmp_path):
    assert processor.new_tokens == {"<ACTION>"}
    processor.processor.save_pretrained(tmp_path)

    saved = Processor.from_pretrained(tmp_path, video=processor.video, special_tokens=("<ACTION>",))
    assert not saved.new_tokens
    assert saved.token_id("<ACTION>") == processor.token_id("<ACTION>")
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    for mine, theirs in zip(tokenize(processor, frames), tokenize(saved, frames), strict=True):
        assert np.array_equal(mine, theirs)


def test_qwen3_vl_writes_the_time_of_the_frames(tmp_path):
    """Its prompt holds time stamps: the place of the frames in the video reaches the tokens."""
    model_dir = build_tiny_model(tmp_path / "tiny", architecture="qwen3_vl", warm_up=False)
    video = VideoConfig(video_num_frames=4, video_min_pixels=1024, video_max_pixels=1024)
    processor = Processor.from_pretrained(model_dir, video=video, special_tokens=("<ACTION>",))
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    ids, _ = tokenize(processor, frames, frame_indices=(0, 10, 20, 30), source_fps=10.0, total_frames=40)
    text = processor.processor.tokenizer.decode(ids)

    assert "<0.5 seconds>" in text
    assert "<2.5 seconds>" in text


def test_a_folder_without_a_processor_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no processor_config.json or tokenizer_config.json"):
        Processor.from_pretrained(tmp_path, video=VideoConfig(), special_tokens=("<ACTION>",))


def test_an_image_is_the_same_whatever_stands_beside_it(tmp_path):
    """LLaVA-OneVision's processor cuts a list of images as single ones, and a list of such lists less finely: there the
    second image of a conversation would change what the model has seen of the first."""
    base = build_tiny_family(tmp_path / "base", "llava_onevision")
    processor = Processor.from_pretrained(base, video=VideoConfig())
    processor.processor.image_processor.image_grid_pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    wide, high = image_of(1, processor), image_of(2, processor)
    sample = sample_of(stage_of(language_config(base, "sft")), processor, 1, kinds=("image", "image"))
    ours = processor.batch_media([sample.with_media((wide, high))])
    pixels = [torch.from_numpy(image.frames[0]).permute(2, 0, 1) for image in (wide, high)]
    theirs = processor.processor(text=["<image>a<image>b"], images=pixels, return_tensors="pt")
    for name in ("pixel_values", "image_sizes"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert ours["pixel_values"].shape[1] == 3, "the whole, and two halves of it"
    lengths = [len(processor.encode("<image>" * len(media), media)[0]) for media in ([wide, high], [wide], [high])]
    assert lengths[0] == lengths[1] + lengths[2] == (theirs["input_ids"] == processor.token_id("<image>")).sum()
    nested = processor.processor(text=["<image>a<image>b"], images=[pixels], return_tensors="pt")
    assert nested["pixel_values"].shape[1] == 1
