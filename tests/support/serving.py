"""Real OpenAI-compatible servers on this machine, and policies for them, made on the spot.

`transformers serve` takes a path for a model's name, so that one server serves whatever the tests make. It knows
`/v1/chat/completions` and `/v1/completions`, ignores `logprobs`, refuses what OpenAI does not know (`top_k`), and
samples only where the model's own `generation_config.json` says so. llama.cpp starts in a second, serves one model,
whatever a request calls it, and gives log-probabilities.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.data.preference import Preference
from headwater.models import loading

PATIENCE = 120
"""Seconds a server may take to start."""


@contextlib.contextmanager
def transformers_server(log: Path) -> Iterator[str]:
    """Yield the base address of a server that runs as long as the block."""
    port = _free_port()
    serve = ["-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--device", "cpu"]
    with _running([*serve, "--port", str(port)], port, log) as address:
        yield address


LLAMA = """
import sys, threading, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port = sys.argv[1], int(sys.argv[2])
settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.warmup = 2048, 1, 0, False
# One thread: several wait for each other in busy loops, minutes long on a machine that does other work.
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
threading.Event().wait()
"""


@contextlib.contextmanager
def llama_server(model: Path, log: Path) -> Iterator[str]:
    """Yield the base address of a llama.cpp server for a GGUF file (`write_gguf`)."""
    port = _free_port()
    with _running(["-c", LLAMA, str(model), str(port)], port, log) as address:
        yield address


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _running(arguments: Sequence[str], port: int, log: Path) -> Iterator[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with log.open("wb") as handle:
        process = subprocess.Popen([sys.executable, *arguments], stdout=handle, stderr=handle, env=environment)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text('utf-8')[-2000:]}")


def save_policy(path: Path, preferences: Sequence[Preference], model: str, seed: int = 0) -> Path:
    """Save a scratch policy as a server takes it, sampling where a request does not ask for temperature 0."""
    policy, tokenizer = loading.load(model, "policy", preferences, seed)
    policy.generation_config.do_sample = True
    policy.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(policy: Path, target: Path, change: Callable[[Any], object] | None = None) -> Path:
    """Write a scratch policy as llama.cpp reads it: weights in float32, its byte-level BPE, its chat template.

    `change` is called with the writer before the file is written.
    """
    import gguf

    model, tokenizer = loading.load(str(policy), "policy", (), 0)
    config, writer = model.config, gguf.GGUFWriter(str(target), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    kinds = [gguf.TokenType.CONTROL if t in tokenizer.all_special_tokens else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":  # tied to the embeddings
            writer.add_tensor(_gguf_name(name), _rotated(name, weight.numpy().astype(np.float32), config))
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part.removesuffix('.weight')]}.weight"


def _rotated(name: str, weight: Any, config: Any) -> Any:
    """Return queries and keys in llama.cpp's order: it turns neighbouring components, transformers halves of a head."""
    if "q_proj" not in name and "k_proj" not in name:
        return weight
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))
