"""Texts of generated tokens are those that give the tokens back, with tokenizers of every kind."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from headwater.data.generated import ResponseTexts, differences
from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import encode, render
from headwater.reporting.lens.pieces import pieces_of_row
from tests.data.tokenizers_of_kinds import KINDS, LOSSLESS, of_kind

HEADS = {
    "line end": None,
    "control token": (
        "{% for m in messages %}{{ '<start>' + m['role'] + '<end>' + m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start>assistant<end>' }}{% endif %}"
    ),
    "space": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
    ),
}
"""Templates by what stands in front of a response: of ChatML and Gemma, of Phi and Zephyr, of Llama 2."""
TEXTS = ("the end", " the end", "  the end of it", "end\n the", " é the end 🦉", "they")
ASKED = (Message("user", "user assistant"),)


class Generated(NamedTuple):
    """A response as a model generates it."""

    prompt: list[int]
    tokens: list[int]


def tokenizer_of(kind: str, head: str) -> Tokenizer:
    tokenizer = of_kind(kind)
    if HEADS[head] is not None:
        tokenizer.chat_template = HEADS[head]
    return tokenizer


def generated(tokenizer: Tokenizer, text: str) -> Generated:
    pair = Preference(prompt=ASKED, chosen=Response(text, complete=False), rejected=Response("-"), id="a")
    (encoded,) = encode([render(pair, pair.chosen, tokenizer, "never")], tokenizer)
    ids = encoded.ids.tolist()
    return Generated(ids[: encoded.start], ids[encoded.start :])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_text_gives_the_tokens_back(kind: str, head: str) -> None:
    """Also of the beginnings of a response, where these are whole characters."""
    tokenizer = tokenizer_of(kind, head)
    texts = ResponseTexts(tokenizer)
    for text in TEXTS:
        prompt, tokens = generated(tokenizer, text)
        found = texts.of(ASKED, prompt, tokens)
        unknown = tokenizer.unk_token_id in tokens
        assert found.same_tokens is not unknown
        if not unknown:
            assert generated(tokenizer, found.text) == (prompt, tokens)
        if kind in LOSSLESS and (kind, head) != ("metaspace always", "control token"):
            assert found.text == text
        ends = texts.ends(found.text, prompt, tokens)
        assert len(ends) == len(tokens) and ends == sorted(ends) and ends[-1] == len(found.text)


@pytest.mark.parametrize("kind", ["metaspace first", "legacy", "unigram"])
def test_a_leading_space_is_kept_though_a_fragment_loses_it(kind: str) -> None:
    tokenizer = of_kind(kind)
    prompt, tokens = generated(tokenizer, " the end")
    assert tokenizer.decode(tokens) == "the end"  # what is to be mended
    texts = ResponseTexts(tokenizer)
    assert texts.of(ASKED, prompt, tokens) == (" the end", True)
    assert texts.ends(" the end", prompt, tokens)[0] == len(" the")


@pytest.mark.parametrize("kind", ["byte-level", "metaspace first"])
def test_tokens_that_no_text_has_are_counted(kind: str) -> None:
    """A model may generate letters where a word is a token: the text is right, its tokens are others."""
    tokenizer = of_kind(kind)
    prompt, tokens = generated(tokenizer, "the")
    letters = [generated(tokenizer, letter).tokens[0] for letter in "the"]
    assert len(tokens) < len(letters)
    assert ResponseTexts(tokenizer).of(ASKED, prompt, letters) == ("the", False)
    assert differences([True, False, None]) == "1 of 2 texts are encoded into other tokens than the model generated"
    assert differences([True, None]) == "" == differences([])


def test_control_tokens_are_no_text() -> None:
    tokenizer = of_kind("byte-level")
    prompt, tokens = generated(tokenizer, "the")
    texts = ResponseTexts(tokenizer)
    start = tokenizer.convert_tokens_to_ids("<start>")
    assert texts.of(ASKED, prompt, [*tokens, start]) == ("the", False)
    assert texts.ends("the", prompt, [*tokens, start])[-1] == 3
    assert texts.of(ASKED, prompt, []) == ("", True)
    assert texts.of(ASKED, prompt, [start]) == ("", False)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_row_join_to_its_text(kind: str, head: str) -> None:
    """`headwater tokens` shows them: the text that was encoded, with every space."""
    tokenizer = tokenizer_of(kind, head)
    for text in TEXTS:
        pair = Preference(prompt=ASKED, chosen=Response(text), rejected=Response("-"), id="a")
        row = render(pair, pair.chosen, tokenizer, "complete")
        count = len(generated(tokenizer, text).prompt)
        prompt, response = pieces_of_row(row, tokenizer, count)
        assert "".join(piece.text for piece in [*prompt, *response]) == row.text
        assert sum(piece.tokens for piece in prompt) == count
        (encoded,) = encode([row], tokenizer)
        assert sum(piece.tokens for piece in response) == len(encoded.ids) - count
