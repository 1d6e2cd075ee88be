"""What the loss sees, letter by letter, under three templates: a golden dump.

The tokenizer has no merges, so that a token is a byte and the dump does not depend on any training text.
"""

from __future__ import annotations

import pytest

from headwater.data.preference import Message, Preference, Response
from headwater.data.templates import CHATML
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer
from headwater.data.tokens import EndToken, tokenize

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
HH = (
    # transformers strips a line break that follows a block, so this template writes its own out.
    "{% for m in messages %}{{ '\n\nHuman' if m['role'] == 'user' else '\n\nAssistant' }}: {{ m['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant: ' }}{% endif %}"
)
TEMPLATES = {"ChatML": CHATML, "Llama 3": LLAMA3, "HH plain": HH}

GOLDEN = {
    ("ChatML", "complete"): (
        "<|im_start|>user⏎Hi⏎you?<|im_end|>⏎<|im_start|>assistant⏎",
        "Sure, ok.<|im_end|>",
        "No",
    ),
    ("ChatML", "always"): (
        "<|im_start|>user⏎Hi⏎you?<|im_end|>⏎<|im_start|>assistant⏎",
        "Sure, ok.<|im_end|>",
        "No<|im_end|>",
    ),
    ("ChatML", "never"): ("<|im_start|>user⏎Hi⏎you?<|im_end|>⏎<|im_start|>assistant⏎", "Sure, ok.", "No"),
    ("Llama 3", "complete"): (
        "<|bos|><|start_header_id|>user<|end_header_id|>⏎⏎Hi⏎you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>⏎⏎",
        "Sure, ok.<|eot_id|>",
        "No",
    ),
    ("Llama 3", "always"): (
        "<|bos|><|start_header_id|>user<|end_header_id|>⏎⏎Hi⏎you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>⏎⏎",
        "Sure, ok.<|eot_id|>",
        "No<|eot_id|>",
    ),
    ("HH plain", "complete"): ("⏎⏎Human: Hi⏎you?⏎⏎Assistant: ", "Sure, ok.<|im_end|>", "No"),
    ("HH plain", "always"): ("⏎⏎Human: Hi⏎you?⏎⏎Assistant: ", "Sure, ok.<|im_end|>", "No<|im_end|>"),
}


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    tokenizer = ScratchTokenizer(vocab=300).train([""])
    headers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": headers, "bos_token": "<|bos|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": [*headers, "<|im_start|>"]})
    return tokenizer


@pytest.mark.parametrize(("template", "end"), GOLDEN)
def test_the_loss_sees_the_response_and_nothing_else(template: str, end: EndToken, bytes_tokenizer: Tokenizer) -> None:
    bytes_tokenizer.chat_template = TEMPLATES[template]
    preference = Preference(
        prompt=(Message("user", "Hi\nyou?"),),
        chosen=Response("Sure, ok."),
        rejected=Response("No", complete=False),
        id="g",
    )
    ((pair,), _, _) = tokenize([preference], bytes_tokenizer, 512, end)
    dump = tuple(bytes_tokenizer.decode(ids).replace("\n", "⏎") for ids in (pair.prompt, pair.chosen, pair.rejected))
    assert dump == GOLDEN[template, end]
    control = set(bytes_tokenizer.all_special_ids)
    assert [int(i) in control for i in pair.chosen] == [False] * 9 + [True] * (len(pair.chosen) - 9)
    assert (pair.prompt == bytes_tokenizer.bos_token_id).sum() == (template == "Llama 3"), "one BOS at most"
