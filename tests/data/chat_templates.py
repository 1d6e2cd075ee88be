"""Small chat templates, one of each kind that public models carry, and a tokenizer that knows their tokens."""

from __future__ import annotations

import copy
import functools
import re

from headwater.data.tokenizers import ScratchTokenizer, Tokenizer

LOOP, END = "{% for m in messages %}", "{% endfor %}"
HEAD = "{% if add_generation_prompt %}"

TEMPLATES = {
    "Llama 2": (
        f"{LOOP}{{% if m.role == 'user' %}}{{{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}}}"
        f"{{% else %}}{{{{ ' ' + m.content | trim + ' ' + eos_token }}}}{{% endif %}}{END}"
    ),
    "Mistral, no spaces": (
        f"{{{{ bos_token }}}}{LOOP}{{% if m.role == 'user' %}}[INST]{{{{ m.content }}}}[/INST]"
        f"{{% else %}}{{{{ m.content + eos_token }}}}{{% endif %}}{END}"
    ),
    "Vicuna, without a generation prompt": (
        f"{LOOP}{{% if m.role == 'user' %}}USER: {{{{ m.content }}}}{{% else %}} ASSISTANT: {{{{ m.content }}}}"
        f"{{{{ eos_token }}}}{{% endif %}}{END}"
    ),
    "Zephyr": (
        f"{LOOP}{{{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}}}"
        f"{{% if loop.last and add_generation_prompt %}}{{{{ '<|assistant|>\n' }}}}{{% endif %}}{END}"
    ),
    "Phi 3, EOS behind the conversation": (
        f"{LOOP}{{{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}}}{END}"
        f"{HEAD}{{{{ '<|assistant|>\n' }}}}{{% else %}}{{{{ eos_token }}}}{{% endif %}}"
    ),
    "Gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        f"{{% endif %}}{LOOP}{{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim }}"
        f"{{{{ '<end_of_turn>\n' }}}}{END}{HEAD}{{{{ '<start_of_turn>model\n' }}}}{{% endif %}}"
    ),
    "Command A, two tokens behind the response": (
        f"{{{{ bos_token }}}}{LOOP}<|START_OF_TURN_TOKEN|>{{{{ '<|CHATBOT_TOKEN|><|START_RESPONSE|>' "
        "if m.role == 'assistant' else '<|USER_TOKEN|>' }}{{ m.content }}{{ '<|END_RESPONSE|>' "
        f"if m.role == 'assistant' }}}}{{{{ eos_token }}}}{END}"
        f"{HEAD}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{{% endif %}}"
    ),
    "ChatGLM, no end of a turn": (
        f"[gMASK]<sop>{LOOP}<|{{{{ m.role }}}}|>{{{{ '\n' + m.content }}}}{END}{HEAD}<|assistant|>{{% endif %}}"
    ),
    "Qwen 3, an empty block of thoughts": (
        f"{LOOP}{{{{ '<|im_start|>' + m.role + '\n' }}}}{{% if m.role == 'assistant' and loop.last %}}"
        "{% set parts = m.content.split('</think>') %}"
        "{% set thoughts = parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' %}"
        "{{ '<think>\n' + thoughts + '\n</think>\n\n' }}"
        "{{ parts[-1].lstrip('\n') }}{% elif m.role == 'assistant' %}"
        "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}"
        f"{{{{ '<|im_end|>\n' }}}}{END}{HEAD}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
    ),
    "DeepSeek R1, thoughts are opened for generation": (
        f"{{{{ bos_token }}}}{LOOP}{{% if m.role == 'assistant' %}}<|Assistant|>"
        f"{{{{ m.content.split('</think>')[-1] + eos_token }}}}{{% else %}}"
        f"<|User|>{{{{ m.content }}}}{{% endif %}}{END}{HEAD}{{{{ '<|Assistant|><think>\n' }}}}{{% endif %}}"
    ),
    "gpt-oss, channels": (
        "<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') }}<|end|>"
        f"{LOOP}<|start|>{{{{ m.role }}}}{{% if m.role == 'assistant' %}}"
        "{% if '<|channel|>' in m.content %}{{ raise_exception('channels in content') }}{% endif %}"
        "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
        f"{{% else %}}<|message|>{{{{ m.content }}}}<|end|>{{% endif %}}{END}{HEAD}<|start|>assistant{{% endif %}}"
    ),
    "Idefics, content in parts": (
        f"{LOOP}{{{{ m.role }}}}:{{% for part in m.content %}}{{% if part['type'] == 'text' %}}"
        f"{{{{ ' ' + part['text'] }}}}{{% endif %}}{{% endfor %}}<|end|>\n{END}{HEAD}assistant:{{% endif %}}"
    ),
    "system turns left out": (
        f"{LOOP}{{% if m.role != 'system' %}}"
        f"<|im_start|>{{{{ m.role + '\n' + m.content }}}}<|im_end|>\n{{% endif %}}{END}"
        f"{HEAD}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
    ),
}
MARKS = re.compile(
    r"<[|｜][^<>{}'\"\s]*?[|｜]>|<\|?(?:end_of_|start_of_)?turn\|?>|\[/?INST\]|<\|?channel\|?>|<eos>|</s>|<end_of_utterance>|\[gMASK\]|<sop>"
)


@functools.cache
def _letters() -> Tokenizer:
    return ScratchTokenizer(vocab=300).train([""])


def with_template(template: str) -> Tokenizer:
    """Return a tokenizer without merges, a token a byte, that knows the marks of a template as control tokens."""
    tokenizer = copy.deepcopy(_letters())
    marks = sorted({*MARKS.findall(template), "<|assistant|>", "<|user|>", "<|system|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": marks, "bos_token": "<bos>", "eos_token": "<eos>"})
    tokenizer.chat_template = template
    return tokenizer
