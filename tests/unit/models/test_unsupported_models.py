"""Models that read no videos: what was expected, what came, what to do."""

from contextlib import nullcontext

import pytest
import transformers as hf

from ivcp.checks.base import check_method
from ivcp.checks.run import check_validation
from ivcp.demo.tiny_model import build_tiny_model
from ivcp.demo.tiny_tokenizer import CHAT_TEMPLATE, train_tokenizer
from ivcp.models.base_files import BaseFilesError
from ivcp.models.families import UnsupportedModelError, check_architecture, check_processor, time_inputs
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig, config_from_settings
from ivcp.stages.language.module import check_head
from tests.unit.conftest import prepared_clip

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def text_model(tmp_path):
    tokenizer = train_tokenizer()
    config = hf.Qwen2Config(**SMALL, num_key_value_heads=2, vocab_size=len(tokenizer))
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def image_model(tmp_path):
    tokenizer = train_tokenizer()
    text = {"model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 2, **SMALL}
    vision = {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, "projection_dim": 32, **SMALL}
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=5)
    hf.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "image")
    processor = hf.LlavaProcessor(hf.CLIPImageProcessor(), tokenizer, patch_size=8, chat_template=CHAT_TEMPLATE)
    processor.save_pretrained(tmp_path / "image")
    return tmp_path / "image"


def load_processor(directory):
    return Processor.from_pretrained(directory, video=VideoConfig(), special_tokens=("<ACTION>",))


def load_model(directory):
    return load_base_model(directory, settings=config_from_settings({}).model)


def test_a_text_model_classifies_nothing(text_model):
    config = config_from_settings({"stage": "action_cls", "model_name_or_path": str(text_model)})

    with pytest.raises(UnsupportedModelError, match=r"text is a qwen2 model, which reads texts only; expected"):
        check_method(config)
    with pytest.raises(BaseFilesError, match=r"no processor for videos: .*a text model learns to write \(stage: sft"):
        check_validation(config)
    check_validation(config.model_copy(update={"method": config.method.model_copy(update={"stage": "sft"})}))


def test_a_text_model_of_another_build_is_refused(text_model):
    tokens = hf.AutoTokenizer.from_pretrained(text_model)
    old = hf.GPT2Config(vocab_size=len(tokens), n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    hf.AutoModelForCausalLM.from_config(old).save_pretrained(text_model)
    config = config_from_settings({"stage": "sft", "model_name_or_path": str(text_model)})

    for check in (check_method, lambda config: load_base_model(text_model, settings=config.model)):
        with pytest.raises(UnsupportedModelError, match="text is a gpt2 model, whose layers are built and named in a"):
            check(config)


@pytest.mark.parametrize(
    ("family", "settings", "fits"),
    [
        (hf.GraniteConfig, {"logits_scaling": 8.0}, False),
        (hf.CohereConfig, {"logit_scale": 0.1}, False),
        (hf.Gemma2Config, {"final_logit_softcapping": 2.0, "head_dim": 16}, True),
        (hf.LlamaConfig, {}, True),
    ],
)
def test_logits_that_a_loss_would_not_be_of_are_refused(family, settings, fits):
    """Granite and Cohere multiply them, and each loss would be another one."""
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = family(**SMALL, num_key_value_heads=2, vocab_size=64, initializer_range=0.5, **ids, **settings)
    model = hf.AutoModelForCausalLM.from_config(config).eval()

    with nullcontext() if fits else pytest.raises(UnsupportedModelError, match="output layer than to cap them"):
        check_head(model)


def test_a_text_model_is_shown_nothing(text_model):
    with pytest.raises(UnsupportedModelError, match=r"the model reads texts only, and videos came: take a video lang"):
        prepared_clip(load_processor(text_model), 0)
    with pytest.raises(UnsupportedModelError, match=r"the model reads texts only, and videos came"):
        load_processor(text_model).frame_size(48, 64)
    with pytest.raises(UnsupportedModelError, match=r"the model reads texts only, and images came"):
        load_processor(text_model).image_size(48, 64)


@pytest.mark.parametrize(
    ("load", "came"),
    [
        (load_processor, r"image has a LlavaProcessor of image_processor, tokenizer and no video processor; expected"),
        (load_model, r"image is a llava model, which reads images but no videos; expected a video language model"),
    ],
)
def test_an_image_model_is_refused(image_model, load, came):
    with pytest.raises(UnsupportedModelError, match=came + r".*set model_name_or_path to one"):
        load(image_model)


def test_code_of_a_model_that_offers_no_such_class_is_refused():
    """MiniCPM-o's does not, whose configuration is one of Qwen2 with another name: what works is named."""

    class MiniCPMOConfig(hf.Qwen2Config):
        model_type = "minicpmo"

    config = MiniCPMOConfig(auto_map={"AutoModel": "modeling_minicpmo.MiniCPMO"})
    with pytest.raises(UnsupportedModelError, match=r"reads no video with its text; .* hear, such as Qwen2\.5-Omni"):
        check_architecture(config, "openbmb/MiniCPM-o-2_6")


def test_an_encoder_decoder_is_refused():
    config = hf.InstructBlipVideoConfig(text_config={"model_type": "t5"})

    with pytest.raises(UnsupportedModelError, match="instructblipvideo model, an encoder-decoder: the state at the"):
        check_architecture(config, "Salesforce/instructblip-vicuna-7b")


def test_a_processor_with_two_tokenizers_is_refused():
    tokenizer = train_tokenizer()
    processor = hf.InstructBlipVideoProcessor(hf.InstructBlipVideoVideoProcessor(), tokenizer, tokenizer)

    with pytest.raises(UnsupportedModelError, match="here has a InstructBlipVideoProcessor with a qformer_tokenizer: "):
        check_processor(processor, "here")


def test_a_chat_template_without_videos_is_refused(tmp_path):
    directory = build_tiny_model(tmp_path / "tiny", warm_up=False)
    processor = load_processor(directory)
    processor.processor.chat_template = "{% for message in messages %}{{ message.content[-1].text }}{% endfor %}"

    with pytest.raises(UnsupportedModelError, match=r"Qwen2VLProcessor put no video into the prompt: expected one"):
        prepared_clip(processor, 0)


def test_a_fixed_frame_size_has_to_be_named(tmp_path):
    processor = load_processor(build_tiny_model(tmp_path / "tiny", warm_up=False))
    processor.processor.video_processor = hf.LlavaNextVideoVideoProcessor(do_center_crop=False)

    with pytest.raises(UnsupportedModelError, match=r"LlavaNextVideoVideoProcessor names no frame size: expected size"):
        processor.frame_size(48, 64)


def test_clips_without_time_are_refused_where_the_model_counts_it(tmp_path):
    processor = load_processor(build_tiny_model(tmp_path / "tiny", architecture="qwen2_5_vl", warm_up=False)).processor

    assert time_inputs(processor, [0.25, 0.5])["second_per_grid_ts"].tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match=r"needs the seconds between frames, which these clips lack: prepare them"):
        time_inputs(processor, [0.25, None])
