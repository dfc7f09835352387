"""Settings of LLaMA-Factory that users' files hold and that have no meaning here, each with its reason."""

NO_MEANING = {
    "clips are prepared by their own step, which reuses what is unchanged": "overwrite_cache tokenized_path",
    "prepared clips are read from shards as they are needed": "streaming buffer_size preprocessing_batch_size",
    "the first process prepares, the others wait for it": "data_shared_file_system",
    "torchrun sets up the processes and how they talk": "ddp_backend local_rank master_addr master_port",
    "it is set where something that trains may go unused": "ddp_find_unused_parameters",
    "no Ray: torchrun or a TrainJob starts the processes": "ray_num_workers ray_init_kwargs",
    "`fsdp` and `deepspeed` say all that is needed": "fsdp_config accelerator_config",
    "the model's own chat template is used": "template tool_format",
    "the chat template decides; a system turn stands in the rows": "default_system enable_thinking preserve_thinking",
    "padding is never learned": "ignore_pad_token_for_loss",
    "the samples of a packed row never see each other": "block_diag_attn",
    "the rows of all data sets are shuffled together": "mix_strategy interleave_probs",
    "the validation split is measured as a whole": "eval_on_each_dataset",
    "the model's processor decides how it cuts an image up": "image_do_pan_and_scan crop_to_patches",
    "`num_beams` says how many beams there are, in every evaluation": "eval_num_beams",
    "`max_new_tokens` says how long an answer may be": "max_length",
    "what was computed of earlier tokens is always kept while a text is written": "use_kv_cache",
    "`ivcp api --engine vllm` runs vLLM": (
        "infer_backend vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config"
    ),
    "the predictor computes as training did; its own setting (`ivcp serve infer_dtype=…`) changes that": "infer_dtype",
    "the table of what trains is always logged": "print_param_status",
    "the tokenizer is the model's own, as its files say": "use_fast_tokenizer",
    "a special token is never split": "split_special_tokens",
    "weights are always written as safetensors": "export_legacy_format save_safetensors",
    "the exported model is uploaded once, when it is checked": "hub_strategy hub_always_push",
    "weights are rounded without examples, and then measured on the test split": (
        "export_quantization_dataset export_quantization_nsamples export_quantization_maxlen"
    ),
    "a token stands in no settings: it is HF_TOKEN in the environment": (
        "hub_token hf_hub_token push_to_hub_token ms_hub_token om_hub_token"
    ),
    "training reads the columns that the stage asks for": "remove_unused_columns",
    "accuracy is always computed": "compute_accuracy",
    "a bar is shown on a terminal, lines elsewhere": "disable_tqdm",
    "logs lie in output_dir: TensorBoard's in its folder runs (or in TENSORBOARD_LOGGING_DIR)": "logging_dir",
    "a setting of MiniCPM-V's own code: frames are sampled by video_num_frames or video_fps": (
        "enable_high_fps double_frame_duration packing_maxlen time_scale"
    ),
}
"""Reason → keys. Such a key is named in a warning and otherwise ignored."""

REFUSED = {
    "only bitsandbytes quantizes here: set quantization_bit": "quantization_method quantization_device_map",
    "this adapter is not available: use finetuning_type: lora, full or freeze": (
        "pissa_init pissa_iter use_llama_pro oft_rank oft_block_size oft_target module_dropout"
    ),
    "only one adapter trains: merge the earlier one with `ivcp export` and start from that": "create_new_adapter",
    "the adapter is on linear layers only: choose them with lora_target": "additional_target",
    "the learning rate of a part has its own setting: action_decoder_learning_rate, vision_tower_learning_rate, …": (
        "loraplus_lr_ratio loraplus_lr_embedding"
    ),
    "this optimizer is not available: choose one with optim (`ivcp config --help-keys optim`)": (
        "use_galore use_apollo use_badam use_adam_mini use_muon"
    ),
    "freeze trains layers by their number: set freeze_trainable_layers": (
        "freeze_trainable_modules freeze_extra_modules"
    ),
    "the forward pass would change: not available": (
        "rope_scaling shift_attn mixture_of_depths use_unsloth neftune_noise_alpha train_from_scratch"
    ),
    "the reference is one model: give ref_model the directory of the adapter itself": "ref_model_adapters",
    "the reference computes in the precision of its weights: leave it out": "ref_model_quantization_bit",
    "sft minimises the cross-entropy of the answers' tokens: leave it out": (
        "use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_alpha"
    ),
    "the vocabulary is the base model's and action_token": (
        "resize_vocab add_tokens add_special_tokens new_special_tokens_config"
    ),
    "one format is written, a Hugging Face folder with safetensors (and the decoder beside them): leave it out": (
        "export_format"
    ),
}
"""What to do instead → keys that would change the result and are not available. Such a key is an error."""


def reason_by_key(reasons: dict[str, str]) -> dict[str, str]:
    """Each key of `NO_MEANING` or `REFUSED` with its reason."""
    return {key: reason for reason, keys in reasons.items() for key in keys.split()}
