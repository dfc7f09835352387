"""Settings of LLaMA-Factory that users' files hold and that have no meaning here, each with its reason."""

NO_MEANING = {
    "clips are prepared by their own step, which reuses what is unchanged": (
        "overwrite_cache preprocessing_batch_size tokenized_path streaming buffer_size data_shared_file_system"
    ),
    "torchrun and the pipeline set up processes and their time-outs": (
        "ddp_backend ddp_find_unused_parameters local_rank ray_num_workers ray_init_kwargs master_addr master_port"
    ),
    "`fsdp` and `deepspeed` say all that is needed": "fsdp_config accelerator_config",
    "the model's own chat template is used": (
        "template tool_format default_system enable_thinking preserve_thinking train_on_prompt mask_history"
    ),
    "the action classifier reads one clip per sample": (
        "packing neat_packing mix_strategy interleave_probs eval_num_beams ignore_pad_token_for_loss "
        "eval_on_each_dataset block_diag_attn"
    ),
    "only videos are used": (
        "image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches use_audio_in_video audio_sampling_rate"
    ),
    "nothing is generated": (
        "do_predict predict_with_generate do_sample temperature top_p top_k num_beams max_length max_new_tokens "
        "repetition_penalty length_penalty skip_special_tokens infer_backend infer_dtype use_kv_cache "
        "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config"
    ),
    "the parameter table is always printed": "print_param_status",
    "tokenizers are always fast and never split special tokens": "use_fast_tokenizer split_special_tokens",
    "weights are always written as safetensors": "export_legacy_format save_safetensors",
    "export runs where the step runs": "export_device",
    "models are registered in MLflow": "export_hub_model_id push_to_hub hub_model_id hub_token hf_hub_token",
    "the columns of prepared clips are fixed": "remove_unused_columns",
    "accuracy is always computed": "compute_accuracy",
    "progress bars follow the terminal": "disable_tqdm logging_dir",
    "video settings of one model family; frames are sampled by video_num_frames or video_fps": (
        "enable_high_fps double_frame_duration packing_maxlen time_scale"
    ),
}
"""Reason → keys. Such a key is named in a warning and otherwise ignored."""

REFUSED = {
    "only bitsandbytes quantizes here: set quantization_bit": "quantization_method quantization_device_map",
    "this adapter or optimizer is not available: use finetuning_type: lora or full": (
        "pissa_init pissa_iter loraplus_lr_ratio loraplus_lr_embedding use_galore use_apollo use_badam "
        "use_llama_pro use_adam_mini use_muon oft_rank oft_block_size oft_target module_dropout additional_target "
        "freeze_trainable_modules freeze_extra_modules create_new_adapter"
    ),
    "the forward pass would change: not available": (
        "rope_scaling shift_attn mixture_of_depths use_unsloth neftune_noise_alpha "
        "train_from_scratch resize_vocab add_tokens add_special_tokens new_special_tokens_config"
    ),
    "quantized export is not available": (
        "export_quantization_bit export_quantization_dataset export_quantization_nsamples export_quantization_maxlen"
    ),
}
"""What to do instead → keys that would change the result and are not available. Such a key is an error."""


def reason_by_key(reasons: dict[str, str]) -> dict[str, str]:
    """Each key of `NO_MEANING` or `REFUSED` with its reason."""
    return {key: reason for reason, keys in reasons.items() for key in keys.split()}
