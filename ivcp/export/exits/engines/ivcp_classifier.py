"""The action classifier for transformers alone: written beside a model by its export, nothing else of ivcp is needed.

    AutoModelForSequenceClassification.from_pretrained(DIRECTORY, trust_remote_code=True)
    pipeline("video-classification", model=DIRECTORY, trust_remote_code=True)("VIDEO.mp4")

What it was trained with stands in config.json below `action_classifier`. Where ivcp is installed, the pipeline reads
videos with it: the same frames as in training, whatever the file. Without, PyAV reads them: the same frames of a file
whose picture is neither cut by an edit list nor shown at uneven times.
"""

import inspect
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, Pipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file
from transformers.video_utils import VideoMetadata

_DECODER_FILE = "action_decoder.safetensors"
_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class ActionClassifier(nn.Module):
    """A video language model whose last hidden state at the action token is classified."""

    main_input_name = "input_ids"

    def __init__(self, model, config):
        super().__init__()
        self.model = model
        self.config = config
        self.decoder = _Decoder(config.action_classifier["decoder"])

    @classmethod
    def from_pretrained(cls, name, *args, config, **options):
        """Reads the language model as transformers does, and the decoder beside it."""
        hub = {key: options[key] for key in _HUB_OPTIONS if options.get(key) is not None}
        options = {key: value for key, value in options.items() if key not in ("adapter_kwargs", "code_revision")}
        loaded = cls(AutoModelForImageTextToText.from_pretrained(name, *args, config=config, **options), config)
        loaded.decoder.load_state_dict(load_file(cached_file(name, _DECODER_FILE, **hub)))
        loaded.decoder.to(loaded.device)
        return loaded.eval()

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """transformers asks for it; nothing is to be done."""

    @property
    def device(self):
        """Where the language model lies."""
        return self.model.device

    @property
    def dtype(self):
        """Of the language model's weights."""
        return self.model.dtype

    @property
    def input_modalities(self):
        """What it reads."""
        return ("video", "text")

    def can_generate(self):
        """It writes no text."""
        return False

    def forward(self, input_ids, attention_mask=None, labels=None, **inputs):
        """Logits, (batch, classes), of prompts that hold the action token once; `inputs` is what the processor made."""
        base = self.model.base_model
        known = inspect.signature(type(base).forward).parameters
        types = inputs.get("mm_token_type_ids")
        states = base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            **{name: value for name, value in inputs.items() if name in known},
        ).last_hidden_state
        at_action = (input_ids == self.config.action_classifier["action_token_id"]).int().argmax(dim=1)
        logits = self.decoder(states[torch.arange(len(states), device=states.device), at_action], states, types)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class _Decoder(nn.Module):
    """From the state, (batch, hidden), to logits, (batch, classes); one kind looks at the vision tokens' states too."""

    def __init__(self, shape):
        super().__init__()
        kind, hidden, classes = shape["decoder_type"], shape["hidden_size"], shape["num_classes"]
        width = shape["decoder_hidden_size"] or hidden
        self.reads_vision = kind == "transformer"
        if kind == "linear":
            self.layers = nn.Linear(hidden, classes)
        elif kind == "mlp":
            self.layers = nn.Sequential(nn.Linear(hidden, width), nn.GELU(), nn.Dropout(0), nn.Linear(width, classes))
        else:
            self.layers = _TransformerLayers(
                hidden, width, shape["num_heads"], shape["num_transformer_layers"], classes
            )

    def forward(self, at_action, states, types):
        dtype = next(self.parameters()).dtype
        if isinstance(self.layers, _TransformerLayers):
            context = states.to(dtype) if self.reads_vision else None
            return self.layers(at_action.to(dtype), context, types).float()
        return self.layers(at_action.to(dtype)).float()


class _TransformerLayers(nn.Module):
    def __init__(self, hidden, width, heads, depth, classes):
        super().__init__()
        self.project = nn.Linear(hidden, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, at_action, context, types):
        tokens, hidden = at_action.unsqueeze(1), None
        if context is not None:
            tokens = torch.cat([tokens, context], dim=1)
            hidden = ~torch.cat([types.new_ones(len(types), 1, dtype=torch.bool), types != 0], dim=1)
        encoded = self.encoder(self.project(tokens), src_key_padding_mask=hidden)
        return self.classify(self.norm(encoded[:, 0]))


class ActionClassificationPipeline(Pipeline):
    """Videos to classes: `[{"label": …, "score": …}, …]`, the best `top_k` (5) first."""

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, model, processor=None, **options):
        name = model.config._name_or_path
        super().__init__(model=model, processor=processor or AutoProcessor.from_pretrained(name), **options)

    def _sanitize_parameters(self, top_k=None, **_):
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, video):
        """`video` is a path, or (frames, frame indices, frames per second, frames of the clip)."""
        settings = self.model.config.action_classifier
        frames, indices, fps, total = video if isinstance(video, tuple) else read_video(video, settings["video"])
        metadata = VideoMetadata(
            total_num_frames=total, fps=fps, frames_indices=list(indices), height=frames.shape[1], width=frames.shape[2]
        )
        inputs = self.processor(
            text=[settings["prompt"]],
            videos=[torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)],
            video_metadata=[metadata],
            videos_kwargs={"do_resize": False, "do_sample_frames": False},
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        if "second_per_grid_ts" in self.processor.model_input_names:
            seconds = (indices[-1] - indices[0]) / max(1, len(indices) - 1) / fps
            inputs["second_per_grid_ts"] = torch.tensor([seconds * self.processor.video_processor.temporal_patch_size])
        return inputs

    def _forward(self, model_inputs):
        return self.model(**model_inputs)

    def postprocess(self, model_outputs, top_k=5):
        shares = model_outputs.logits[0].softmax(-1)
        best = shares.topk(min(top_k, len(shares)))
        return [
            {"score": score, "label": self.model.config.id2label[label]}
            for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def read_video(path, settings):
    """Frames at the model's size, (frames, height, width, 3), where they stood, the rate, and frames of the clip."""
    try:
        from ivcp.export.exits.engines.frames import read_clip
    except ImportError:
        return _read_with_av(Path(path), settings)
    return read_clip(path, settings)


def _read_with_av(path, settings):
    import av

    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        fps = float(stream.average_rate)
        frames = [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in opened.decode(stream)]
    places = _spread(len(frames), settings["num_frames"] or _frames_by_rate(len(frames), fps, settings))
    clip = torch.from_numpy(np.stack([frames[place] for place in places])).permute(0, 3, 1, 2)
    size = frame_size(*clip.shape[2:], settings)
    if clip.shape[2:] != size:
        clip = nn.functional.interpolate(clip, size=size, mode="bicubic", antialias=True)
    return clip.permute(0, 2, 3, 1).numpy(), places, fps, len(frames)


def _frames_by_rate(num_frames, fps, settings):
    wanted = min(round(num_frames / fps * settings["fps"]), num_frames, settings["max_frames"])
    return max(2, wanted - wanted % 2)


def _spread(num_frames, size):
    """Centres of `size` equal spans; the second half mirrors the first."""
    half = [(2 * i + 1) * num_frames // (2 * size) for i in range(size // 2)]
    centre = [(num_frames - 1) // 2] if size % 2 else []
    return [*half, *centre, *(num_frames - 1 - index for index in reversed(half))]


def frame_size(height, width, settings):
    """The (height, width) that frames are resized to: near their own, on the grid, within the pixels allowed."""
    step, low, high = settings["step"], settings["min_pixels"], settings["max_pixels"]
    rows, columns = (max(1, round(side / step)) for side in (height, width))
    if rows * columns * step**2 > high:
        scale = math.sqrt(high / (height * width)) / step
        rows, columns = (max(1, math.floor(side * scale)) for side in (height, width))
    elif rows * columns * step**2 < low:
        scale = math.sqrt(low / (height * width)) / step
        rows, columns = (math.ceil(side * scale) for side in (height, width))
    return rows * step, columns * step
