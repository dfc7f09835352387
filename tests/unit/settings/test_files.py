import logging
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from ivcp.settings import (
    SECTION_OF_KEY,
    ConfigError,
    RunConfig,
    config_from_settings,
    load_config,
    parse_overrides,
    read_saved_config,
    save_config,
)
from ivcp.settings.known_keys import NO_MEANING, REFUSED, reason_by_key
from ivcp.settings.sections.training import Optimizer, Scheduler

# The example of the users' own documentation of action_cls, as they wrote it.
USERS_FILE = """
### 模型配置
model_name_or_path: path/to/your/video-llm-model  # 例如：Qwen2-VL-7B

### 训练方法
stage: action_cls          # 使用动作分类训练阶段
do_train: true
finetuning_type: lora      # 可选：lora, full, freeze

### 数据集配置
dataset: VideoEspresso_stage3  # 或使用你自定义的数据集
cutoff_len: 8192
max_samples: 10000
overwrite_cache: true
preprocessing_num_workers: 16

### LoRA配置（如果使用lora）
lora_rank: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target: all

### 训练参数
output_dir: output/action_cls_model
num_train_epochs: 3
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 1.0e-4
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000

### 动作分类特定配置
num_action_classes: 51                    # 动作类别数量（例如HMDB-51为51，UCF-101为101）
action_decoder_type: linear               # 解码器类型：linear 或 mlp
action_decoder_hidden_size: null          # MLP隐藏层大小（仅当type=mlp时使用，null表示使用模型hidden_size）
action_decoder_path: null                 # 预训练的action decoder路径（可选）
action_token_lr_scale: 0.1                # <ACTION> token embedding的学习率缩放因子

### 日志配置
logging_steps: 10
save_steps: 500
save_total_limit: 2
plot_loss: true
"""

# Their example of another stage: it loads, and only the training step refuses it.
USERS_SFT_FILE = """
model_name_or_path: Qwen/Qwen3-VL-4B-Instruct
video_max_pixels: 16384
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_alpha: 16
lora_dropout: 0.05
dataset: mllm_video_demo  # 或使用自定义数据集
template: qwen3_vl
cutoff_len: 2048
max_samples: 1000
output_dir: saves/my_video_model
logging_steps: 10
save_steps: 500
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 5.0e-5
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_users_file_loads_unchanged_and_names_keys_without_meaning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        config = load_config(write(tmp_path, USERS_FILE))

    assert config.action_cls.num_action_classes == 51
    assert config.method.resolved_lora_alpha == 16
    assert config.train.learning_rate == 1e-4
    assert config.train.warmup_ratio == 0.1
    assert config.data.dataset == ("VideoEspresso_stage3",)
    [warning] = [record.getMessage() for record in caplog.records]
    assert "overwrite_cache" in warning
    assert config.train.ddp_timeout == 180000000


def test_users_file_of_another_stage_loads(tmp_path):
    config = load_config(write(tmp_path, USERS_SFT_FILE))

    assert config.method.stage == "sft"
    assert config.video.video_max_pixels == 16384


@pytest.mark.parametrize(
    "fragment",
    [
        {"deepspeed": "examples/deepspeed/ds_z3_config.json"},
        {"report_to": "wandb"},
        {"quantization_bit": 4},
        {"finetuning_type": "lora", "lora_rank": 8},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    ],
)
def test_fragments_of_the_users_documents_load(fragment):
    assert isinstance(config_from_settings(fragment), RunConfig)


def test_overrides_win_over_the_file(tmp_path):
    config = load_config(write(tmp_path, USERS_FILE), parse_overrides(["lora_rank=32", "--learning_rate", "3e-5"]))

    assert config.method.lora_rank == 32
    assert config.train.learning_rate == 3e-5
    assert config.train.num_train_epochs == 3


def test_a_bare_no_in_yaml_is_the_strategy_no(tmp_path):
    config = load_config(write(tmp_path, "eval_strategy: no\nsave_strategy: no\n"))

    assert (config.train.eval_strategy, config.train.save_strategy) == ("no", "no")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rnk": 8}, "unknown setting lora_rnk = 8; did you mean lora_rank?"),
        ({"qqqqqqqq": 8}, "unknown setting qqqqqqqq = 8; `ivcp config --help-keys` lists all keys"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast': input should be a valid number"),
        ({"finetuning_type": "qlora"}, "finetuning_type = 'qlora': input should be 'lora'"),
        ({"lora_rank": 0}, "lora_rank = 0: input should be greater than or equal to 1"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16 exclude each other"),
        ({"serve_graph": True}, "serve_graph: true needs a graph: set export_runtime or export_quantization_bit"),
        ({"val_size": 0.1, "eval_dataset": "b"}, "eval_dataset = b and val_size = 0.1 exclude each other"),
        ({"action_decoder_hidden_size": 64}, "no meaning for action_decoder_type: linear"),
        ({"load_best_model_at_end": True}, "needs a validation split"),
        ({"quantization_bit": 4, "finetuning_type": "full"}, "quantized weights cannot be trained"),
        ({"head_sweep": True}, "head_sweep needs a frozen backbone"),
        (
            {
                "head_sweep": True,
                "finetuning_type": "freeze",
                "freeze_trainable_layers": 0,
                "val_size": 9,
                "fsdp": "full_shard",
            },
            "remove deepspeed and fsdp",
        ),
        ({"deepspeed": "z3", "fsdp": "full_shard"}, "deepspeed and fsdp exclude each other"),
        ({"augment_temporal_jitter": True}, "set video_frame_candidates: 3"),
        ({"folds": 3, "seeds": 3}, "folds and seeds exclude each other"),
        ({"folds": 3, "test_size": 0.2}, "folds = 3 tests every clip of dataset once"),
        ({"folds": 3, "fold": 4}, "fold = 4 is none of folds = 3"),
        ({"folds": 3, "test_num_clips": 3, "video_frame_candidates": 5}, "to the same number"),
        ({"seeds": 3, "problem_type": "regression"}, "are for models that tell one class"),
        ({"official_splits": "a,b", "dataset": "a"}, "official_splits names the data sets"),
        ({"official_splits": "a"}, "expected several data sets"),
        ({"use_galore": True}, "use_galore = True: this optimizer is not available: choose one with optim"),
        ({"video_min_pixels": 100, "video_max_pixels": 50}, "video_min_pixels = 100 is above"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError) as caught:
        config_from_settings(settings)
    assert message in str(caught.value)


def test_a_refused_key_that_is_off_does_no_harm():
    assert config_from_settings({"use_galore": False}) == RunConfig()


def test_files_that_are_no_settings(tmp_path):
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="expected `key: value` lines, got list"):
        load_config(write(tmp_path, "- a\n- b\n"))
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(write(tmp_path, "a: [b"))


def test_saved_configuration_is_read_back_the_same(tmp_path):
    config = config_from_settings({"dataset": ["a", "b"], "report_to": "none", "disturb_frames": "reversed,middle"})
    save_config(config, tmp_path / "run_config.json")

    assert read_saved_config(tmp_path / "run_config.json") == config


def test_whole_numbers_that_arrive_as_floats_are_turned_back():
    config = config_from_settings({"lora_rank": 8.0, "cutoff_len": 512.0})

    assert config.method.lora_rank == 8
    assert isinstance(config.data.cutoff_len, int)


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="learning_rate stands twice, in lines 1 and 3: keep one"):
        load_config(write(tmp_path, "learning_rate: 1e-4\nlora_rank: 8\nlearning_rate: 1e-5\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_need_no_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.yaml").write_text("# 训练\ndataset: 动作\n", encoding=encoding)
    assert load_config(tmp_path / "a.yaml").data.dataset == ("动作",)


def test_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "my run.yaml").write_text("seed: 1\ndataset: 动作\n", encoding="gbk")
    with pytest.raises(
        ConfigError, match=r"my run.yaml line 2: expected text in UTF-8, .*: save it as UTF-8, e.g. from"
    ):
        load_config(tmp_path / "my run.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\): give the path of a YAML file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="got nothing"):
        load_config(write(tmp_path, "# all is commented out\n"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type = 'cosin': input should be 'linear',"),
        ({"lr_scheduler_type": "cosin"}, "did you mean cosine?"),
        ({"optim": "adamw"}, "did you mean adamw_torch?"),
        ({"report_to": "swanlab"}, "report_to = 'swanlab': input should be 'mlflow', 'tensorboard' or 'wandb'"),
        ({"registered_model_name": "team/model"}, "expected a name without / and :"),
        ({"registered_model_name": "a:b"}, "expected a name without / and :"),
        ({"registered_model_name": ".."}, "expected a name without / and :"),
        ({"registered_model_name": " "}, "expected a name without / and :"),
        ({"model_alias": "latest"}, "MLflow keeps latest"),
        ({"model_alias": "v2"}, "MLflow keeps latest"),
        ({"model_alias": "my champion"}, "model_alias = 'my champion'"),
        ({"mlflow_experiment_name": ""}, "mlflow_experiment_name = ''"),
        ({"seed": -1}, "seed = -1: input should be greater than or equal to 0"),
        ({"seed": 2**32}, "seed = 4294967296: input should be less than"),
        ({"run_name": "a/b"}, "run_name = 'a/b'"),
        ({"learning_rate": float("inf")}, "learning_rate = inf: input should be a finite number"),
        ({"min_top1_accuracy": float("nan")}, "min_top1_accuracy = nan: input should be a finite number"),
        ({"min_top1_accuracy": "nan"}, "min_top1_accuracy = 'nan': input should be a finite number"),
        ({"champion_tolerance": float("nan")}, "champion_tolerance = nan: input should be a finite number"),
        ({"export_format": "onnx"}, "one format is written, a Hugging Face folder with safetensors"),
    ],
)
def test_what_only_a_later_step_would_find_is_refused_at_once(settings, message):
    with pytest.raises(ConfigError) as caught:
        config_from_settings(settings)
    assert message in str(caught.value)


def test_the_names_are_those_of_transformers():
    from ivcp.torchvision_compat import register_missing_operators

    register_missing_operators()
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert set(get_args(Scheduler)) <= {kind.value for kind in SchedulerType}
    assert set(get_args(Optimizer)) <= {name.value for name in OptimizerNames}


def test_a_number_is_a_name_where_a_name_is_wanted():
    config = config_from_settings({"run_name": 42, "dataset": 2024, "metric_for_best_model": "eval_top1_accuracy"})

    assert (config.train.run_name, config.data.dataset) == ("42", ("2024",))
    assert config.train.metric_for_best_model == "top1_accuracy"


@pytest.mark.parametrize("value", [None, True, 7, 0.5, "text", "", [], [1, None], {"a": 1}, [[1]], float("nan"), b"x"])
def test_no_value_of_any_key_ends_in_another_error(value):
    for key in SECTION_OF_KEY:
        with suppress(ConfigError):
            config_from_settings({key: value})


def test_every_key_without_meaning_has_one_reason():
    ignored = [key for keys in NO_MEANING.values() for key in keys.split()]
    refused = [key for keys in REFUSED.values() for key in keys.split()]

    assert len(ignored) == len(set(ignored))
    assert len(refused) == len(set(refused))
    assert not set(ignored) & set(refused)
    assert not {*ignored, *refused} & SECTION_OF_KEY.keys()
    assert "TENSORBOARD_LOGGING_DIR" in reason_by_key(NO_MEANING)["logging_dir"]
    assert "HF_TOKEN" in reason_by_key(NO_MEANING)["hub_token"]
