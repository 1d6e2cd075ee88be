"""Small configurations of the families of transformers, for benchmarks/architectures.py."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 160,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "d_inner", "n_inner"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 512),
    # Larger than the usual initial weights, so that a wrong mask shows in the numbers.
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    "num_key_value_heads": 2,
    "moe_intermediate_size": 16,
    "sliding_window": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Given to every configuration that knows the name."""

_LATENT = {"head_dim": None, "num_key_value_heads": 4}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
_LINEAR = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}

SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "minicpm3", "glm4_moe_lite", "glm_moe_dsa",
            "youtu", "mistral4",
        ),
        _LATENT,
    ),
    **{key: _LINEAR for key in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
    **{key: {"layer_types": ["conv", "full_attention"]} for key in ("lfm2", "lfm2_moe", "lfm3")},
    **{key: {"rotary_dim": 4} for key in ("gptj", "codegen")},
    **{key: {"decoder_start_token_id": 0} for key in ("t5", "mt5", "umt5")},
    **{key: {"embedding_size": 32} for key in ("electra", "squeezebert")},
    "bailing_hybrid": {**_LATENT, "num_hidden_layers": 8},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "dbrx": {
        "only": True, "vocab_size": 160, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512,
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "dots1": {"n_shared_experts": 1},
    "esmc": {"num_key_value_heads": 4},
    "falcon": {"head_dim": None},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "funnel": {
        "only": True, "vocab_size": 160, "d_model": 32, "block_sizes": [1, 1], "n_head": 4, "d_head": 8, "d_inner": 48,
        "initializer_range": 0.2,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 0, "laurel_rank": 4, "hidden_size_per_layer_input": 8, "altup_num_inputs": 2,
        "vocab_size_per_layer_input": 160, "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {
        "only": True, "vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "hidden_size_per_layer_input": 8, "sliding_window": 8,
        "vocab_size_per_layer_input": 160, "num_kv_shared_layers": 0, "initializer_range": 0.2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"]},
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 2,
    },
    "lilt": {"channel_shrink_ratio": 4, "hidden_size": 48, "num_attention_heads": 4, "max_2d_position_embeddings": 64},
    "llama4_text": {"intermediate_size_mlp": 48, "attention_chunk_size": 8, "no_rope_layers": [1, 0]},
    "mamba2": {
        "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2, "state_size": 8, "chunk_size": 8,
        "time_step_rank": 2,
    },
    "prophetnet": {
        "only": True, "vocab_size": 160, "hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 8, "lru_width": 32},
    "reformer": {
        "only": True, "vocab_size": 160, "axial_pos_embds": False, "hidden_size": 32, "attn_layers": ["local", "local"],
        "num_attention_heads": 4, "attention_head_size": 8, "feed_forward_size": 48, "is_decoder": True,
        "local_attn_chunk_length": 8, "max_position_embeddings": 512, "initializer_range": 0.2,
    },
    "xlnet": {
        "only": True, "vocab_size": 160, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48,
        "initializer_range": 0.2,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""What single families need beside; None leaves a size out, `only` takes no common size."""

_FACTORS = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, dynamic RoPE": (
        "llama",
        {
            "max_position_embeddings": 32,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0},
        },
    ),
    "phi3, longrope": (
        "phi3",
        {
            "max_position_embeddings": 128, "original_max_position_embeddings": 32, "sliding_window": None,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 32, **_FACTORS,
            },
        },
    ),
    "llama, YaRN": (
        "llama",
        {
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "yarn", "factor": 4.0, "rope_theta": 100.0, "original_max_position_embeddings": 32,
            },
        },
    ),
    "llama, llama3 RoPE": (
        "llama",
        {
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "llama3", "factor": 4.0, "rope_theta": 100.0, "original_max_position_embeddings": 32,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            },
        },
    ),
}  # fmt: skip
"""Families whose numbers may depend on the longest text of a row, by their rotary embedding."""

NOT_SMALL: dict[str, str] = dict.fromkeys(
    (
        "blt", "dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant", "gemma4_unified",
        "gemma4_unified_assistant", "gemma4_unified_text", "git", "got_ocr2", "layoutlmv2", "layoutlmv3", "llama4",
        "mllama", "moss_transcribe_diarize", "musicgen", "musicgen_melody", "phi4_multimodal", "qwen3_5", "qwen3_5_moe",
        "qwen4_exp", "t5gemma", "t5gemma2", "ultravbert", "modernvbert", "perceiver", "trocr", "whisper",
    ),
    "has parts for images or sound, or is nested",
)  # fmt: skip
