"""How chat templates end turns: one end token, whoever names it and however it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import tokenize
from headwater.data.turns import Closing, closing_of, padding_token, special_tokens, turn_end
from headwater.errors import ModelError
from tests.support.endings import ALPACA, CHATML, LLAMA2, LLAMA3, PHI, tokenizer_of

MADE: dict[str, Callable[[], Tokenizer]] = {
    "named by added_tokens_decoder alone": lambda: tokenizer_of(
        PHI, ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"], eos_token="<|endoftext|>"
    ),
    "beside another EOS": lambda: tokenizer_of(
        CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ),
    "EOS": lambda: tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>"),
    "no EOS": lambda: tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"]),
    "no control token": lambda: tokenizer_of(
        CHATML, ["<|endoftext|>"], added=["  ", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>"
    ),
    "behind a space": lambda: tokenizer_of(LLAMA2, ["<s>", "</s>"], bos_token="<s>", eos_token="</s>"),
    "no end in the template": lambda: tokenizer_of(ALPACA, ["<|endoftext|>"], eos_token="<|endoftext|>"),
    "spelled, no token of its own": lambda: tokenizer_of(CHATML, ["<|endoftext|>"], eos_token="<|endoftext|>"),
}
WRITTEN = {
    "named by added_tokens_decoder alone": ("<|end|>", "<|endoftext|>"),
    "beside another EOS": ("<|im_end|>", "<|endoftext|>"),
    "EOS": ("<|im_end|>", "<|im_end|>"),
    "no EOS": ("<|im_end|>", None),
    "no control token": ("<|im_end|>", "<|endoftext|>"),
    "behind a space": (" </s>", "</s>"),
    "no end in the template": ("<|endoftext|>", "<|endoftext|>"),
    "spelled, no token of its own": ("<|endoftext|>", "<|endoftext|>"),
}
"""What closes a turn, and EOS."""


@pytest.mark.parametrize("kind", MADE)
def test_a_turn_ends_by_its_template(kind: str) -> None:
    tokenizer, (text, eos) = MADE[kind](), WRITTEN[kind]
    end, ids = turn_end(tokenizer), tokenizer.convert_tokens_to_ids
    assert (end.text, end.token) == (text, ids(text.strip()))
    assert end.stop_ids == tuple(sorted({ids(text.strip()), *([ids(eos)] if eos else [])}))
    assert end.ids[-1] == end.token and tokenizer.decode(end.ids) == text


@pytest.mark.parametrize("kind", MADE)
def test_training_teaches_that_end_to_complete_responses_alone(kind: str) -> None:
    tokenizer = MADE[kind]()
    end = turn_end(tokenizer)
    cut = Response("Because of", complete=False)
    pair = Preference(prompt=(Message("user", "Why?"),), chosen=Response("Because."), rejected=cut, id="p")
    ((found,), _, _) = tokenize([pair], tokenizer, 512)
    assert tokenizer.decode(found.chosen).strip() == f"Because.{end.text}"
    assert found.chosen.tolist().count(end.token) == 1
    assert closing_of(found.chosen, Closing(end.ids)) == len(end.ids)
    assert tokenizer.decode(found.rejected).strip() == "Because of"
    assert closing_of(found.rejected, Closing(end.ids)) == 0


def test_what_ends_nothing_is_refused() -> None:
    for made in (tokenizer_of(None, ["<|endoftext|>"], eos_token="<|endoftext|>"), tokenizer_of(ALPACA, [])):
        with pytest.raises(ModelError, match=r"has no chat template|neither an end-of-turn token"):
            turn_end(made)


def test_control_tokens_are_those_of_both_lists_and_no_others() -> None:
    made = tokenizer_of(PHI, ["<|end|>"], added=["<think>"], vocab=300, eos_token="<eos>")
    assert set(special_tokens(made)) == {"<|end|>", "<eos>"}
    said = [*made("<think>Yes", add_special_tokens=False)["input_ids"], turn_end(made).token]
    assert made.decode(said, skip_special_tokens=True) == "<think>Yes"


HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.mark.parametrize(
    ("more", "named", "expected"),
    [
        ([], {"pad_token": "<|eot_id|>"}, None),
        (["<|end_of_text|>"], {"pad_token": "<|eot_id|>"}, "<|end_of_text|>"),
        (["<|end_of_text|>"], {}, "<|end_of_text|>"),
        (
            ["<|reserved_token_0|>", "<|image_pad|>"],
            {"pad_token": "<|eot_id|>"},
            "<|reserved_token_0|>",
        ),
        (["<|end_of_text|>", "<|finetune_right_pad_id|>"], {"pad_token": "<|eot_id|>"}, "<|finetune_right_pad_id|>"),
        (["<unk>"], {"pad_token": "<|eot_id|>", "unk_token": "<unk>"}, "<unk>"),
        (["<|python_tag|>", "<|image|>"], {"pad_token": "<|eot_id|>"}, None),
        (["<|end_of_text|>", "<|mine|>"], {"pad_token": "<|mine|>"}, "<|mine|>"),
    ],
)
def test_padding_is_a_token_that_ends_no_turn(more: list[str], named: dict[str, str], expected: str | None) -> None:
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", **named}
    assert padding_token(tokenizer_of(LLAMA3, [*HEADERS, *more], **names)) == expected


def test_an_end_that_no_template_writes_does_not_pad() -> None:
    assert padding_token(MADE["no end in the template"]()) is None


def test_an_unknown_token_that_texts_hold_does_not_pad() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<|im_start|>", "<|im_end|>", "user", "assistant", "yes"]
    backend = Backend(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(words[:3])
    named = {"unk_token": "<unk>", "eos_token": "<|im_end|>"}
    assert padding_token(PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHATML, **named)) is None
