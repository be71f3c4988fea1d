"""The flags of OpenRLHF's commands, as its argument parsers have them: flat to 0.10.1 (those of 0.10.0), dotted since 0.10.2
(those of 0.11.2)."""

from __future__ import annotations

_ALWAYS_FLAT = """
    adam_betas adam_offload apply_chat_template attn_implementation aux_loss_coef ckpt_path dataloader_num_workers
    deepcompile disable_ds_ckpt disable_fast_tokenizer ds_tensor_parallel_size eval_dataset eval_split eval_steps
    full_determinism grad_accum_dtype gradient_checkpointing gradient_checkpointing_use_reentrant input_template l2
    load_checkpoint load_in_4bit local_rank logging_steps lora_alpha lora_dropout lora_rank lr_scheduler lr_warmup_ratio
    max_ckpt_mem max_ckpt_num max_epochs max_len max_norm max_samples micro_train_batch_size overlap_comm packing_samples
    param_dtype pretrain ring_attn_size ring_head_stride save_hf_ckpt save_path save_steps seed target_modules
    train_batch_size use_ds_universal_ckpt use_ms use_tensorboard use_wandb wandb_group wandb_org wandb_project
    wandb_run_name zero_stage zpg"""
_FLAT = {
    "train_sft": """
        dataset dataset_probs dataset_split input_key learning_rate multiturn output_key pretrain_mode
        tokenizer_chat_template train_split use_liger_kernel""",
    "train_dpo": """
        beta chosen_key dataset dataset_probs dataset_split ipo label_smoothing learning_rate min_lr_ratio nll_loss_coef
        prompt_key ref_offload ref_pretrain rejected_key tokenizer_chat_template use_liger_kernel""",
    "train_rm": """
        chosen_key compute_fp32_loss dataset dataset_probs dataset_split learning_rate loss margin_loss prompt_key
        rejected_key tokenizer_chat_template value_head_prefix""",
    "train_ppo_ray": """
        actor_init_on_gpu actor_learning_rate actor_num_gpus_per_node actor_num_nodes advantage_estimator agent_func_path
        async_queue_size async_train best_metric_key colocate_actor_ref colocate_all_models colocate_critic_reward
        critic_learning_rate critic_num_gpus_per_node critic_num_nodes critic_pretrain deepspeed_enable_sleep dual_clip
        dynamic_filtering dynamic_filtering_reward_range ema_beta enable_ema enable_prefix_caching enable_vllm_is_correction
        enforce_eager entropy_loss_coef eps_clip eps_clip_low_high eval_n_samples_per_prompt eval_temperature
        freeze_visual_encoder freezing_actor_steps gamma image_key init_kl_coef input_key kl_estimator kl_horizon kl_target
        label_key lambd max_images_per_prompt max_new_tokens micro_rollout_batch_size n_samples_per_prompt
        no_advantage_std_norm normalize_reward num_episodes overlong_buffer_len overlong_penalty_factor partial_rollout perf
        policy_loss_type prompt_data prompt_data_probs prompt_split ptx_coef ref_num_gpus_per_node ref_num_nodes
        ref_reward_offload remote_rm_url reward_clip_range reward_num_gpus_per_node reward_num_nodes reward_pretrain
        rollout_batch_size rollout_max_tokens_per_gpu save_value_network stop_properly_penalty_coef temperature top_p
        train_max_tokens_per_gpu use_dynamic_batch use_kl_loss use_liger_kernel value_clip value_head_prefix
        vllm_enable_sleep vllm_generate_batch_size vllm_gpu_memory_utilization vllm_is_correction_type
        vllm_is_truncated_threshold vllm_num_engines vllm_sync_backend vllm_sync_with_ray vllm_tensor_parallel_size""",
}

_ALWAYS_DOTTED = """
    ckpt.disable_ds ckpt.load_enable ckpt.max_mem ckpt.max_num ckpt.output_dir ckpt.path ckpt.save_hf ckpt.save_steps
    data.apply_chat_template data.dataloader_num_workers data.disable_fast_tokenizer data.input_template data.max_len
    data.max_samples ds.adam_offload ds.attn_implementation ds.deepcompile ds.experts_implementation ds.grad_accum_dtype
    ds.load_in_4bit ds.lora.alpha ds.lora.dropout ds.lora.rank ds.lora.target_modules ds.overlap_comm ds.packing_samples
    ds.param_dtype ds.ring_attn_head_stride ds.ring_attn_size ds.tensor_parallel_size ds.use_universal_ckpt ds.zero_stage
    ds.zpg eval.dataset eval.split eval.steps local_rank logger.logging_steps logger.tensorboard_dir logger.wandb.group
    logger.wandb.key logger.wandb.org logger.wandb.project logger.wandb.run_name train.batch_size
    train.full_determinism_enable train.max_epochs train.micro_batch_size train.seed use_ms"""
_DOTTED = {
    "train_sft": """
        adam.betas adam.eps adam.lr adam.weight_decay data.dataset data.dataset_probs data.dataset_split data.input_key
        data.multiturn data.output_key data.tokenizer_chat_template ds.use_liger_kernel lr_scheduler lr_warmup_ratio
        max_norm min_lr_ratio model.aux_loss_coef model.gradient_checkpointing_enable model.gradient_checkpointing_reentrant
        model.model_name_or_path model.pretrain_mode_enable muon.lr muon.momentum muon.nesterov muon.no_nesterov
        muon.ns_steps optim""",
    "train_dpo": """
        adam.betas adam.eps adam.lr adam.weight_decay data.chosen_key data.dataset data.dataset_probs data.dataset_split
        data.prompt_key data.rejected_key data.tokenizer_chat_template ds.use_liger_kernel lr_scheduler lr_warmup_ratio
        max_norm min_lr_ratio model.aux_loss_coef model.beta model.gradient_checkpointing_enable
        model.gradient_checkpointing_reentrant model.ipo_enable model.label_smoothing model.model_name_or_path
        model.nll_loss_coef muon.lr muon.momentum muon.nesterov muon.no_nesterov muon.ns_steps optim ref.model_name_or_path
        ref.offload""",
    "train_rm": """
        adam.betas adam.eps adam.lr adam.weight_decay data.chosen_key data.dataset data.dataset_probs data.dataset_split
        data.prompt_key data.rejected_key data.tokenizer_chat_template ds.value_head_prefix lr_scheduler lr_warmup_ratio
        max_norm min_lr_ratio model.aux_loss_coef model.compute_fp32_loss_enable model.gradient_checkpointing_enable
        model.gradient_checkpointing_reentrant model.loss_type model.margin_loss_enable model.model_name_or_path muon.lr
        muon.momentum muon.nesterov muon.no_nesterov muon.ns_steps optim""",
    "train_ppo_ray": """
        actor.adam.betas actor.adam.eps actor.adam.lr actor.adam.weight_decay actor.aux_loss_coef actor.dual_clip
        actor.entropy_coef actor.eps_clip actor.eps_clip_low_high actor.freeze_visual_encoder
        actor.gradient_checkpointing_enable actor.gradient_checkpointing_reentrant actor.loss_agg_mode actor.lr_scheduler
        actor.lr_warmup_ratio actor.max_norm actor.min_lr_ratio actor.model_name_or_path actor.muon.lr actor.muon.momentum
        actor.muon.nesterov actor.muon.no_nesterov actor.muon.ns_steps actor.num_gpus_per_node actor.num_nodes actor.optim
        actor.policy_loss_type algo.advantage.estimator algo.advantage.gamma algo.advantage.is_correction_gating
        algo.advantage.is_correction_level algo.advantage.is_correction_mode algo.advantage.is_correction_threshold
        algo.advantage.lambd algo.advantage.no_std_norm algo.dynamic_filtering_enable algo.dynamic_filtering_range
        algo.kl.estimator algo.kl.horizon algo.kl.init_coef algo.kl.target algo.kl.unbiased_gradient algo.kl.use_loss
        ckpt.best_metric_key critic.adam.betas critic.adam.eps critic.adam.lr critic.adam.weight_decay critic.freezing_steps
        critic.lr_scheduler critic.lr_warmup_ratio critic.max_norm critic.min_lr_ratio critic.model_name_or_path
        critic.muon.lr critic.muon.momentum critic.muon.nesterov critic.muon.no_nesterov critic.muon.ns_steps
        critic.num_gpus_per_node critic.num_nodes critic.optim critic.save_value_network critic.value_clip data.image_key
        data.input_key data.label_key data.max_images_per_prompt data.prompt_dataset data.prompt_probs data.prompt_split
        ds.enable_sleep ds.use_liger_kernel ds.value_head_prefix eval.n_samples_per_prompt eval.temperature
        ref.num_gpus_per_node ref.num_nodes ref.offload reward.clip_range reward.model_name_or_path reward.normalize_enable
        reward.num_gpus_per_node reward.num_nodes reward.offload reward.overlong_buffer_len reward.overlong_penalty_factor
        reward.remote_url reward.stop_properly_penalty_coef rollout.batch_size rollout.max_new_tokens
        rollout.max_tokens_per_gpu rollout.micro_batch_size rollout.n_samples_per_prompt rollout.temperature rollout.top_p
        rollout.vllm_generate_batch_size train.agent_func_path train.async_enable train.async_queue_size
        train.colocate_actor_ref train.colocate_all train.colocate_critic_reward train.dynamic_batch_enable train.ema_beta
        train.enable_ema train.max_tokens_per_gpu train.num_episodes train.partial_rollout_enable vllm.enable_prefix_caching
        vllm.enable_sleep vllm.enforce_eager vllm.gpu_memory_utilization vllm.num_engines vllm.sync_backend
        vllm.sync_with_ray vllm.tensor_parallel_size""",
}

_SWITCHES = """
    actor.freeze_visual_encoder actor.gradient_checkpointing_enable actor.gradient_checkpointing_reentrant actor_init_on_gpu
    adam_offload algo.advantage.is_correction_enable algo.advantage.no_std_norm algo.dynamic_filtering_enable
    algo.kl.unbiased_gradient algo.kl.use_loss apply_chat_template async_train ckpt.disable_ds ckpt.load_enable ckpt.save_hf
    colocate_actor_ref colocate_all_models colocate_critic_reward compute_fp32_loss critic.save_value_network
    data.apply_chat_template data.disable_fast_tokenizer data.multiturn deepcompile deepspeed_enable_sleep disable_ds_ckpt
    disable_fast_tokenizer ds.adam_offload ds.deepcompile ds.enable_sleep ds.load_in_4bit ds.overlap_comm ds.packing_samples
    ds.use_liger_kernel ds.use_universal_ckpt dynamic_filtering enable_ema enable_prefix_caching enable_vllm_is_correction
    enforce_eager freeze_visual_encoder full_determinism gradient_checkpointing gradient_checkpointing_use_reentrant ipo
    load_checkpoint load_in_4bit margin_loss model.compute_fp32_loss_enable model.gradient_checkpointing_enable
    model.gradient_checkpointing_reentrant model.ipo_enable model.margin_loss_enable model.pretrain_mode_enable multiturn
    muon.nesterov muon.no_nesterov no_advantage_std_norm normalize_reward overlap_comm packing_samples partial_rollout perf
    pretrain_mode ref.offload ref_offload ref_reward_offload reward.normalize_enable reward.offload save_hf_ckpt
    save_value_network train.async_enable train.colocate_actor_ref train.colocate_all train.colocate_critic_reward
    train.dynamic_batch_enable train.enable_ema train.full_determinism_enable train.partial_rollout_enable
    use_ds_universal_ckpt use_dynamic_batch use_kl_loss use_liger_kernel use_ms vllm.enable_prefix_caching vllm.enable_sleep
    vllm.enforce_eager vllm.sync_with_ray vllm_enable_sleep vllm_sync_with_ray"""

FLAT = {command: frozenset(f"{_ALWAYS_FLAT} {flags}".split()) for command, flags in _FLAT.items()}
DOTTED = {command: frozenset(f"{_ALWAYS_DOTTED} {flags}".split()) for command, flags in _DOTTED.items()}
"""Command (`train_sft`) -> flags without dashes."""
SWITCHES = frozenset(_SWITCHES.split())
"""Flags of either that take no value."""
GONE = {
    "algo.advantage.is_correction_enable": ("0.10.2 to 0.11.0", "algo.advantage.is_correction_level"),
    "algo.advantage.is_correction_type": ("0.10.2 to 0.11.0", "algo.advantage.is_correction_mode"),
    "bf16": ("up to 0.9.1", "ds.param_dtype bf16"),
    "flash_attn": ("up to 0.8", "ds.attn_implementation flash_attention_2"),
    "generate_max_len": ("up to 0.9.7", "rollout.max_new_tokens"),
    "prompt_max_len": ("up to 0.9.7", "data.max_len, of prompt and answer together"),
}
"""Flags of other releases -> (which, what 0.11.2 has)."""


def flat(flag: str) -> str:
    """The name of a dotted flag to 0.10.1."""
    head, _, rest = flag.partition(".")
    if flag in _FORMER or not rest:
        return _FORMER.get(flag, flag)
    joined = head in ("vllm", "ref", "critic") or (head == "actor" and "num_" in rest)
    return f"{head}_{rest}" if joined else rest.replace(".", "_")


_FORMER = {
    "actor.adam.lr": "actor_learning_rate",
    "actor.adam.weight_decay": "l2",
    "actor.entropy_coef": "entropy_loss_coef",
    "actor.gradient_checkpointing_enable": "gradient_checkpointing",
    "actor.gradient_checkpointing_reentrant": "gradient_checkpointing_use_reentrant",
    "actor.model_name_or_path": "pretrain",
    "adam.betas": "adam_betas",
    "adam.lr": "learning_rate",
    "adam.weight_decay": "l2",
    "algo.advantage.gamma": "gamma",
    "algo.advantage.lambd": "lambd",
    "algo.advantage.no_std_norm": "no_advantage_std_norm",
    "algo.dynamic_filtering_enable": "dynamic_filtering",
    "algo.dynamic_filtering_range": "dynamic_filtering_reward_range",
    "algo.kl.init_coef": "init_kl_coef",
    "algo.kl.use_loss": "use_kl_loss",
    "ckpt.disable_ds": "disable_ds_ckpt",
    "ckpt.load_enable": "load_checkpoint",
    "ckpt.max_mem": "max_ckpt_mem",
    "ckpt.max_num": "max_ckpt_num",
    "ckpt.output_dir": "save_path",
    "ckpt.path": "ckpt_path",
    "ckpt.save_hf": "save_hf_ckpt",
    "critic.adam.lr": "critic_learning_rate",
    "critic.freezing_steps": "freezing_actor_steps",
    "critic.model_name_or_path": "critic_pretrain",
    "critic.save_value_network": "save_value_network",
    "critic.value_clip": "value_clip",
    "data.prompt_dataset": "prompt_data",
    "data.prompt_probs": "prompt_data_probs",
    "ds.enable_sleep": "deepspeed_enable_sleep",
    "ds.lora.target_modules": "target_modules",
    "ds.ring_attn_head_stride": "ring_head_stride",
    "ds.tensor_parallel_size": "ds_tensor_parallel_size",
    "ds.use_universal_ckpt": "use_ds_universal_ckpt",
    "eval.dataset": "eval_dataset",
    "eval.n_samples_per_prompt": "eval_n_samples_per_prompt",
    "eval.split": "eval_split",
    "eval.steps": "eval_steps",
    "eval.temperature": "eval_temperature",
    "logger.tensorboard_dir": "use_tensorboard",
    "logger.wandb.key": "use_wandb",
    "model.compute_fp32_loss_enable": "compute_fp32_loss",
    "model.gradient_checkpointing_enable": "gradient_checkpointing",
    "model.gradient_checkpointing_reentrant": "gradient_checkpointing_use_reentrant",
    "model.ipo_enable": "ipo",
    "model.loss_type": "loss",
    "model.margin_loss_enable": "margin_loss",
    "model.model_name_or_path": "pretrain",
    "model.pretrain_mode_enable": "pretrain_mode",
    "ref.model_name_or_path": "ref_pretrain",
    "reward.clip_range": "reward_clip_range",
    "reward.model_name_or_path": "reward_pretrain",
    "reward.normalize_enable": "normalize_reward",
    "reward.num_gpus_per_node": "reward_num_gpus_per_node",
    "reward.num_nodes": "reward_num_nodes",
    "reward.offload": "ref_reward_offload",
    "reward.remote_url": "remote_rm_url",
    "rollout.batch_size": "rollout_batch_size",
    "rollout.max_tokens_per_gpu": "rollout_max_tokens_per_gpu",
    "rollout.micro_batch_size": "micro_rollout_batch_size",
    "train.async_enable": "async_train",
    "train.batch_size": "train_batch_size",
    "train.colocate_all": "colocate_all_models",
    "train.dynamic_batch_enable": "use_dynamic_batch",
    "train.full_determinism_enable": "full_determinism",
    "train.max_tokens_per_gpu": "train_max_tokens_per_gpu",
    "train.micro_batch_size": "micro_train_batch_size",
    "train.partial_rollout_enable": "partial_rollout",
    "vllm.enable_prefix_caching": "enable_prefix_caching",
    "vllm.enforce_eager": "enforce_eager",
}
"""Dotted flag -> its flat name to 0.10.1. Others are what follows the first dot (`data.max_len`), or all
of it (`vllm.x`), joined by `_`."""
