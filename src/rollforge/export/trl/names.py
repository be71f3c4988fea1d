"""The settings of the trl command (TRL 1.16.0 with transformers 5), for where TRL is not installed to be asked."""

from __future__ import annotations

_ALL = """
    accelerator_config activation_checkpointing activation_checkpointing_kwargs adam_beta1 adam_beta2 adam_epsilon
    attn_implementation auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16 bf16_full_eval
    bnb_4bit_quant_storage bnb_4bit_quant_type data_seed dataloader_drop_last dataloader_in_order
    dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory
    dataloader_prefetch_factor dataset_config dataset_name dataset_streaming dataset_test_split dataset_train_split
    datasets ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph
    ddp_timeout debug deepspeed disable_tqdm do_eval do_predict do_train dtype enable_jit_checkpoint
    eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start eval_steps eval_strategy
    eval_use_gather_object fp16 fp16_full_eval fsdp fsdp_config full_determinism gradient_accumulation_steps
    gradient_checkpointing gradient_checkpointing_kwargs greater_is_better hub_always_push hub_model_id
    hub_private_repo hub_revision hub_strategy hub_token ignore_bias_buffers ignore_data_skip include_for_metrics
    include_num_input_tokens_seen label_names label_smoothing_factor learning_rate length_column_name
    liger_kernel_config load_best_model_at_end load_in_4bit load_in_8bit local_rank log_level log_level_replica
    log_on_each_node logging_first_step logging_nan_inf_filter logging_steps logging_strategy lora_alpha
    lora_dropout lora_modules_to_save lora_r lora_target_modules lora_target_parameters lora_task_type loss_type
    lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps metric_for_best_model model_init_kwargs
    model_name_or_path model_revision neftune_noise_alpha num_train_epochs optim optim_args optim_target_modules
    output_dir pad_to_multiple_of parallelism_config per_device_eval_batch_size per_device_train_batch_size
    prediction_loss_only project push_to_hub remove_unused_columns report_to restore_callback_states_from_checkpoint
    resume_from_checkpoint router_aux_loss_coef run_name save_on_each_node save_only_model save_steps save_strategy
    save_total_limit seed skip_memory_metrics streaming test_split_size tf32 torch_compile torch_compile_backend
    torch_compile_mode torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id
    train_sampling_strategy trust_remote_code use_bnb_nested_quant use_cache use_cpu use_dora use_liger_kernel
    use_peft use_rslora warmup_steps weight_decay
"""
_MORE = {
    "SFT": """
        activation_offloading assistant_only_loss chat_template_path completion_only_loss dataset_kwargs
        dataset_num_proc dataset_text_field eos_token eval_packing max_length packing packing_strategy pad_token
        padding_free shuffle_dataset truncation_mode
    """,
    "DPO": """
        activation_offloading beta dataset_num_proc disable_dropout discopop_tau f_alpha_divergence_coef
        f_divergence_type label_smoothing ld_alpha loss_weights max_length pad_token padding_free
        precompute_ref_batch_size precompute_ref_log_probs ref_model_mixup_alpha ref_model_sync_steps sync_ref_model
        truncation_mode use_weighting
    """,
    "KTO": """
        activation_offloading beta dataset_num_proc desirable_weight disable_dropout max_length
        precompute_ref_batch_size precompute_ref_log_probs ref_model_mixup_alpha ref_model_sync_steps sync_ref_model
        undesirable_weight
    """,
    "GRPO": """
        beta cache_implementation cast_lm_head_to_fp32 chat_template_kwargs delta disable_dropout
        ds3_gather_for_generation entropy_coef entropy_coef_delta entropy_coef_max entropy_coef_min entropy_target
        epsilon epsilon_high generation_batch_size generation_kwargs importance_sampling_level log_completions
        log_completions_hub_repo log_multimodal log_unique_prompts mask_truncated_completions max_completion_length
        max_tool_calling_iterations min_p multi_objective_aggregation num_completions_to_print num_generations
        num_generations_eval num_iterations off_policy_mask_threshold ref_model_mixup_alpha ref_model_sync_steps
        repetition_penalty reward_funcs reward_model_name_or_path reward_weights sapo_temperature_neg
        sapo_temperature_pos scale_rewards shuffle_dataset steps_per_generation sync_ref_model temperature
        top_entropy_quantile top_k top_p transformers_continuous_batching_config use_adaptive_entropy
        use_bias_correction_kl use_transformers_continuous_batching use_transformers_paged use_vllm vespo_k_neg
        vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port
        vllm_importance_sampling_cap vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min
        vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_max_model_length vllm_mode
        vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
        vllm_structured_outputs_regex vllm_tensor_parallel_size
    """,
}
NAMES = {trainer: frozenset((*_ALL.split(), *more.split())) for trainer, more in _MORE.items()}
"""Trainer (`SFT`) -> its settings."""

_LAUNCH = """
    accelerate_config config_file deepspeed_config_file dynamo_backend dynamo_mode env gpu_ids gradient_clipping log_dir
    machine_rank main_process_ip main_process_port main_training_function max_restarts mixed_precision monitor_interval
    mpirun_hostfile num_cpu_threads_per_process num_machines num_processes offload_optimizer_device
    offload_optimizer_nvme_path offload_param_device offload_param_nvme_path rdzv_backend rdzv_conf role tee
    zero3_init_flag zero3_save_16bit_model zero_stage
"""
LAUNCH = frozenset(_LAUNCH.split())
"""Not TRL's: the trl command sets the variables of `env` and hands the others to `accelerate launch`."""
LAUNCH_PREFIXES = ("deepspeed_", "fsdp_", "fp8_", "megatron_lm_", "parallelism_config_")
"""Of further such settings."""
