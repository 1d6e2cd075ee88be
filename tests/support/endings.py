"""Tokenizers whose chat templates end turns in many ways, and policies that do not fall silent by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from headwater.data.tokenizers import Tokenizer

TEXTS = ["The number is odd. Why is the sky blue? user assistant system", "Because of scattering, I think; not eggs."]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)


def tokenizer_of(
    template: str | None, special: Sequence[str], added: Sequence[str] = (), vocab: int = 320, **named: Any
) -> Tokenizer:
    """Train a byte-level BPE with control tokens that only `added_tokens_decoder` names, but for those of `named`.

    `added` are tokens beside the vocabulary that are no control tokens.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet))
    backend.add_special_tokens(list(special))
    backend.add_tokens(list(added))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **named)


def llama(tokenizer: Tokenizer, kind: Any = transformers.LlamaForCausalLM, **named: Any) -> Any:
    """Return a tiny Llama with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        **{"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, **named},
    )
    return kind(config).eval()


def saying(tokenizer: Tokenizer, first: int, tokens: Sequence[int], **named: Any) -> Any:
    """Return a policy that says `tokens` behind the token `first`, whatever came before, and then says them again.

    Its layers add nothing, so that a token follows from the one before it.
    """
    model = llama(tokenizer, tie_word_embeddings=False, **named)
    embedding, head = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    layer = model.model.layers[0]
    for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight, head):
        weight.data.zero_()
    for before, token in zip((first, *tokens), (*tokens, tokens[0]), strict=True):
        head[token] += 20 * embedding[before] / embedding[before].norm()
    return model
