"""Text is encoded whole on every kind of tokenizer: as the template's own tokenisation, and data is never control."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data import encoding
from headwater.data.encoding import ControlTokens, encoder_of
from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import encode, render, token_ends, tokenize
from headwater.data.turns import special_tokens
from tests.data.tokenizers_of_kinds import KINDS, LOSSLESS, SPECIAL, of_kind

WORDS = ["the end", "of a", " ", "  ", "\n", "s>", "</", "<", "end>", "they", "é", "🦉", "日", "<p>", "|", "."]
PLAIN = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join)
QUOTING = st.lists(st.sampled_from([*WORDS, *SPECIAL, *SPECIAL]), min_size=1, max_size=6).map("".join)


@pytest.fixture(scope="module")
def kinds() -> dict[str, Tokenizer]:
    return {kind: of_kind(kind) for kind in KINDS}


def row(prompt: str, chosen: str, rejected: str = "No.") -> Preference:
    answers = Response(chosen), Response(rejected)
    return Preference(prompt=(Message("user", prompt),), chosen=answers[0], rejected=answers[1], id="r")


def spells(text: str) -> bool:
    return any(token in text for token in SPECIAL)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(prompt=PLAIN, text=PLAIN)
def test_ids_are_those_of_the_template(kind: str, prompt: str, text: str, kinds: dict[str, Tokenizer]) -> None:
    tokenizer, one = kinds[kind], row(prompt, f"{text}.")
    if spells(prompt + text):  # words may join to a token
        return
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"{text}."}]
    theirs = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    (ours,) = encode([render(one, one.chosen, tokenizer, "complete")], tokenizer)
    assert ours.ids.tolist() == theirs[: len(ours.ids)]
    assert ours.ids[-1] == tokenizer.convert_tokens_to_ids("<end>")
    assert "<end>" not in tokenizer.convert_ids_to_tokens(theirs[len(ours.ids) :])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(prompt=QUOTING, text=QUOTING)
def test_data_is_never_a_control_token_and_nothing_else_changes(
    kind: str, prompt: str, text: str, kinds: dict[str, Tokenizer]
) -> None:
    tokenizer, one = kinds[kind], row(prompt, f"{text}.")
    rendered = render(one, one.chosen, tokenizer, "complete")
    assert rendered.text == f"<s><start>user\n{prompt}<end>\n<start>assistant\n{text}.<end>"
    (ours,) = encode([rendered], tokenizer)
    control = {tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<start>", "<end>")}
    found = [int(i) for i in ours.ids if int(i) in control]
    assert tokenizer.convert_ids_to_tokens(found) == ["<s>", "<start>", "<end>", "<start>", "<end>"]
    assert [ours.offsets[i][1] for i, number in enumerate(ours.ids) if int(number) in control][-1] == len(rendered.text)
    if kind in LOSSLESS:  # SentencePiece tokenizers put spaces in front, and take one away
        assert tokenizer.decode(ours.ids).replace(" ", "") == rendered.text.replace(" ", "")
    if kind == "byte-level":
        assert tokenizer.decode(ours.ids) == rendered.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_quote_changes_no_other_token(kind: str, kinds: dict[str, Tokenizer]) -> None:
    """What stands before a quote has the same tokens as where a harmless text stands in its place."""
    tokenizer = kinds[kind]
    rows = [row("they say", "the end </s>"), row("they say", "the end </p>")]
    quoting, harmless = tokenize(rows, tokenizer, 512).pairs
    assert quoting.prompt.tolist() == harmless.prompt.tolist()
    assert quoting.rejected.tolist() == harmless.rejected.tolist()
    same = [a == b for a, b in zip(quoting.chosen.tolist(), harmless.chosen.tolist(), strict=False)]
    assert all(same[:3]), (tokenizer.convert_ids_to_tokens(quoting.chosen), same)


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_those_of_the_text(kind: str, kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds[kind]
    plain, quoting = row("they say", "the end </p> the end"), row("they say", "the end </s> the end")
    spans: list[list[str]] = []
    for one in (plain, quoting):
        rendered = render(one, one.chosen, tokenizer, "complete")
        (ours,) = encode([rendered], tokenizer)
        assert (rendered.control is None) == (one is plain)
        spans.append([rendered.text[slice(*each)] for each in ours.offsets])
    for each in spans:
        assert (each[0], each[1], each[-1]) == ("<s>", "<start>", "<end>")
    assert spans[0][:6] == spans[1][:6]
    assert spans[0][-4:] == spans[1][-4:], "offsets behind a quote"


def test_a_text_is_measured_as_text_where_it_is_cut(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["byte-level"]
    texts = ["the end </s> the end", "the end"]
    ends = [list(each) for each in token_ends(tokenizer)(texts)]
    assert len([end for end in ends[0] if 8 < end <= 12]) > 1, "the token is spelled, letter by letter"
    assert ends[1] == ends[0][: len(ends[1])]


def test_tokens_that_take_the_space_beside_them_take_it_in_a_quoting_row_too(kinds: dict[str, Tokenizer]) -> None:
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(kinds["byte-level"])
    tokenizer.add_special_tokens({"eos_token": AddedToken("<stop>", rstrip=True, lstrip=True, special=True)})
    tokenizer.chat_template = tokenizer.chat_template.replace("<end>", " <stop>")
    pairs = tokenize([row("they say </s>", "it ends"), row("they say", "it ends")], tokenizer, 512).pairs
    assert pairs[0].chosen.tolist() == pairs[1].chosen.tolist()
    assert tokenizer.convert_ids_to_tokens(int(pairs[0].chosen[-1])) == "<stop>"


def test_added_tokens_that_are_no_control_tokens_are_known_words(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = copy.deepcopy(kinds["metaspace first"])
    tokenizer.add_tokens(["<think>"])
    number = tokenizer.convert_tokens_to_ids("<think>")
    for text in ("<think> they", "<think> they </s>"):
        (pair,) = tokenize([row("the", text)], tokenizer, 512).pairs
        assert number in pair.chosen.tolist()


def test_a_tokenizer_that_gets_more_tokens_is_looked_at_again(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = copy.deepcopy(kinds["byte-level"])
    assert not encoder_of(tokenizer).tokens.spelled_in("<more>")
    assert encoder_of(tokenizer) is encoder_of(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<more>"]})
    assert "<more>" in special_tokens(tokenizer)
    assert encoder_of(tokenizer).tokens.spelled_in("<more>")


def test_names_can_be_put_in_and_taken_out(kinds: dict[str, Tokenizer]) -> None:
    tokens = ControlTokens(kinds["byte-level"])
    hidden = tokens.hide("a </s> b <end>")
    assert not tokens.spelled_in(hidden)
    assert tokens.show(hidden) == "a </s> b <end>"
    assert tokens.spans(f"<s>{hidden}<end>") == ((0, 3), (17, 22))


def test_a_row_without_quotes_needs_no_second_tokenizer(
    kinds: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = copy.deepcopy(kinds["byte-level"])
    monkeypatch.setattr(encoding, "_renamed", None)
    tokenize([row("they say", "the end")], tokenizer, 512)
    with pytest.raises(TypeError):
        tokenize([row("they say", "the </s>")], tokenizer, 512)
