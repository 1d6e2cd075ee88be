"""Prompt and response become the tokens of the rendered conversation; only what ended gets an end token."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.preference import Message, Preference, Response
from headwater.data.preparation import PrepLog, prepare
from headwater.data.reading import RowCounts
from headwater.data.templates import CHATML
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, is_call, load_tokenizer, texts_of
from headwater.data.tokens import BATCH, EncodeOptions, PairTokens, render, token_ends, tokenize
from headwater.data.truncation import Keep, Truncation, truncate
from headwater.errors import DataError, ModelError, UsageError

HALF = Fraction(1, 2)
END = "<|im_end|>"
TALK = (
    Message("system", "Be brief."),
    Message("user", "What is it?"),
    Message("assistant", "Which one?"),
    Message("user", "The red one, 🦉."),
)
PLAIN = (
    "{% for m in messages %}{{ '\\n\\nHuman: ' if m['role'] == 'user' else '\\n\\nAssistant:GAP' }}{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:GAP' }}{% endif %}"
)
"""Dialogues as HH writes them, without a special token; GAP is what stands between the colon and the answer."""


def talk(chosen: str = "Yes, it is.", rejected: str = "No.", cut: bool = False) -> Preference:
    return Preference(
        prompt=TALK,
        chosen=Response(chosen, complete=not cut),
        rejected=Response(rejected),
        id="lab:7",
        source="lab",
    )


def templated(tokenizer: Tokenizer, template: str | None) -> Tokenizer:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def one(preference: Preference, tokenizer: Tokenizer) -> PairTokens:
    (pair,), row_counts, _ = tokenize([preference], tokenizer, 4096)
    assert row_counts == RowCounts(rows_in=1, kept=1)
    return pair


def sides(preference: Preference, pair: PairTokens) -> list[tuple[Response, list[int]]]:
    return [(preference.chosen, pair.chosen.tolist()), (preference.rejected, pair.rejected.tolist())]


# --- what a pair holds --------------------------------------------------------------------------------------------


def test_the_tokens_spell_the_rendered_conversation(tokenizer: Tokenizer) -> None:
    pair = one(talk(), tokenizer)
    before = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nWhich one?<|im_end|>\n<|im_start|>user\nThe red one, 🦉.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.decode(pair.prompt) == before
    assert tokenizer.decode(pair.chosen) == "Yes, it is.<|im_end|>"
    assert tokenizer.decode(pair.rejected) == "No.<|im_end|>"
    assert (pair.id, pair.source, pair.conversation_id) == ("lab:7", "lab", talk().conversation_id)
    assert pair.prompt.dtype == pair.chosen.dtype == pair.rejected.dtype == np.int32
    assert pair.length == len(pair.prompt) + len(pair.chosen) + len(pair.rejected)


@pytest.mark.parametrize("template", [CHATML, PLAIN.replace("GAP", ""), PLAIN.replace("GAP", " ")])
def test_prompt_and_response_are_the_encoding_of_the_whole_text(
    template: str, corpus: list[Preference], tokenizer: Tokenizer
) -> None:
    other = templated(tokenizer, template)
    cut = truncate(corpus, Truncation(Keep(HALF)), token_ends(other)).preferences
    rows = [*corpus, *cut]
    pairs, row_counts, _ = tokenize(rows, other, 4096)
    assert row_counts == RowCounts(rows_in=len(rows), kept=len(rows))
    for preference, pair in zip(rows, pairs, strict=True):
        for response, ids in sides(preference, pair):
            text = render(preference, response, other, "complete").text
            assert pair.prompt.tolist() + ids == other(text, add_special_tokens=False)["input_ids"]
            assert other.decode([*pair.prompt, *ids]) == text


def test_a_complete_response_ends_with_one_end_token_and_nothing_after(
    corpus: list[Preference], tokenizer: Tokenizer
) -> None:
    end = tokenizer.convert_tokens_to_ids(END)
    for preference, pair in zip(corpus, tokenize(corpus, tokenizer, 4096)[0], strict=True):
        for response, ids in sides(preference, pair):
            assert tokenizer.decode(ids) == response.text + END
            assert ids.count(end) == 1
            assert ids[-1] == end


def test_a_truncated_response_has_no_end_token(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    end = tokenizer.convert_tokens_to_ids(END)
    cut = truncate(corpus, Truncation(Keep(HALF)), token_ends(tokenizer)).preferences
    for preference, pair in zip(cut, tokenize(cut, tokenizer, 4096)[0], strict=True):
        for response, ids in sides(preference, pair):
            assert tokenizer.decode(ids) == response.text
            assert end not in ids


def test_only_the_side_that_was_cut_lacks_its_end(tokenizer: Tokenizer) -> None:
    whole, cut = one(talk(), tokenizer), one(talk(cut=True), tokenizer)
    assert cut.chosen.tolist() == whole.chosen.tolist()[:-1]
    assert cut.rejected.tolist() == whole.rejected.tolist()


def test_more_preferences_than_a_batch_stay_in_order(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    many = [dataclasses.replace(corpus[n % len(corpus)], id=str(n)) for n in range(BATCH + 3)]
    pairs, row_counts, _ = tokenize(many, tokenizer, 4096)
    assert [pair.id for pair in pairs] == [str(n) for n in range(BATCH + 3)]
    assert pairs[-1].chosen.tolist() == pairs[(BATCH + 2) % len(corpus)].chosen.tolist()
    assert row_counts.kept == BATCH + 3
    ends = token_ends(tokenizer)([p.chosen.text for p in many])
    assert [list(e) for e in ends] == [list(token_ends(tokenizer)([p.chosen.text])[0]) for p in many]


def test_token_ends_are_those_of_the_encoding(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    text = corpus[0].chosen.text + " 🎉 ok"
    (ends,) = token_ends(tokenizer)([text])
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert list(ends) == ends[:] == [end for _, end in offsets]
    assert ends[-1] == ends[len(ends) - 1] == len(text)
    with pytest.raises(IndexError):
        ends[len(ends)]


def test_a_pair_longer_than_max_length_is_dropped_and_counted(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    pairs, _, _ = tokenize(corpus, tokenizer, 4096)
    longest = [len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    limit = sorted(longest)[len(longest) // 2]
    kept, row_counts, _ = tokenize(corpus, tokenizer, limit)
    assert [pair.id for pair in kept] == [pair.id for pair, n in zip(pairs, longest, strict=True) if n <= limit]
    assert 0 < len(kept) < len(corpus)
    assert row_counts == RowCounts(len(corpus), len(kept), row_counts.dropped)
    assert row_counts.dropped == {"too_long": len(corpus) - len(kept)}


# --- where prompt and response merge ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    """A tokenizer that has ` yes`, ` no`, ` not`, `::)`, `bc` and `ab` as single tokens."""
    texts = ["Human: is it? yes yes yes", "Assistant: no no no not not not", "smile ::) ::) ::) ::)"] * 20
    texts += ["bc"] * 50 + ["ab"] * 30
    return ScratchTokenizer(vocab=400).train(texts)


MERGES = {
    # name: (gap, chosen, rejected, where the prompt of both ends in the whole text, first tokens of the responses)
    "no merge": ("", "yes", "no", ":", ("yes", "no")),
    "the space is the response's": ("", " yes", " no", ":", (" yes", " no")),
    "the space is the prompt's": (" ", "yes", "no", ":", (" yes", " no")),
    "only one side merges": (" ", "yes", "\nno", ":", (" yes", " ")),
    "punctuation merges on one side": (":", ":)", "yes", ":", ("::)", ":")),
    "a token of one side reaches far back": (":", "yes", ")", "", (":", "::)")),
    "the tokens before the boundary differ too": ("ab", "c", "d", ":", ("a", "ab")),
    "the responses share their first token": (" ", "no", "no no", ":", (" no", " no")),
    "the responses part inside a word": (" ", "no", "not", ":", (" no", " not")),
}


@pytest.mark.parametrize("name", MERGES)
def test_a_token_that_spans_the_boundary_belongs_to_the_response(name: str, merging: Tokenizer) -> None:
    gap, chosen, rejected, end, firsts = MERGES[name]
    other = templated(merging, PLAIN.replace("GAP", gap))
    preference = Preference(
        prompt=(Message("user", "is it?"),),
        chosen=Response(chosen, complete=False),
        rejected=Response(rejected, complete=False),
    )
    pair = one(preference, other)
    assert other.decode(pair.prompt) == f"\n\nHuman: is it?\n\nAssistant{end}"
    assert (other.decode(pair.chosen[:1]), other.decode(pair.rejected[:1])) == firsts
    for response, ids in sides(preference, pair):
        whole = f"\n\nHuman: is it?\n\nAssistant:{gap}{response.text}"
        assert pair.prompt.tolist() + ids == other(whole, add_special_tokens=False)["input_ids"]


@settings(max_examples=100, deadline=None)
@given(
    gap=st.sampled_from(["", " ", ":", "\n"]),
    texts=st.tuples(*[st.text(st.sampled_from(" \nnyesot:)é🦉"), max_size=6).map(lambda t: f"{t}o")] * 2),
)
def test_whatever_merges_the_prompt_is_shared_and_nothing_is_lost(
    gap: str, texts: tuple[str, str], merging: Tokenizer
) -> None:
    other = templated(merging, PLAIN.replace("GAP", gap))
    chosen, rejected = texts
    preference = Preference(prompt=TALK[1:2], chosen=Response(chosen), rejected=Response(rejected))
    pair = one(preference, other)
    before = f"\n\nHuman: What is it?\n\nAssistant:{gap}"
    assert before.startswith(other.decode(pair.prompt).rstrip("\ufffd"))
    for response, ids in sides(preference, pair):
        whole = before + response.text + END
        assert pair.prompt.tolist() + ids == other(whole, add_special_tokens=False)["input_ids"]


def test_a_response_that_starts_with_line_ends_merges_with_the_header() -> None:
    trained = ScratchTokenizer(vocab=300).train(["\n\n\n"] * 50)
    preference = Preference(prompt=(Message("user", "Hi"),), chosen=Response("\n\nYes"), rejected=Response("No"))
    pair = one(preference, trained)
    header = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant"
    assert trained.decode(pair.prompt) == header
    assert trained.decode(pair.chosen) == "\n\n\nYes" + END
    assert trained.decode(pair.rejected) == "\nNo" + END


# --- templates ----------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match="has no chat template") as error:
        tokenize([talk()], templated(tokenizer, None), 4096)
    assert error.value.exit_code == 4


STRIPPING = {
    "both ends": (CHATML.replace("['content']", "['content'].strip()"), "Yes."),
    "the start": (CHATML.replace("['content']", "['content'].lstrip()"), "Yes. "),
    "the end": (CHATML.replace("['content']", "['content'].rstrip()"), " \nYes."),
}


@pytest.mark.parametrize("name", STRIPPING)
def test_a_template_that_strips_the_response_is_followed(name: str, tokenizer: Tokenizer) -> None:
    template, text = STRIPPING[name]
    other = templated(tokenizer, template)
    assert tokenizer.decode(one(talk(chosen=" \nYes. "), other).chosen) == text + END
    assert tokenizer.decode(one(talk(chosen=" \nYes. ", cut=True), other).chosen) == text


@pytest.mark.parametrize("change", ["upper()", "replace('i', 'j')", "split('.')[0]"])
def test_a_template_that_rewrites_the_response_is_refused(change: str, tokenizer: Tokenizer) -> None:
    other = templated(tokenizer, CHATML.replace("['content']", f"['content'].{change}"))
    with pytest.raises(ModelError, match=r"lab:7 · the chat template rewrites the response"):
        tokenize([talk()], other, 4096)


def test_a_row_that_the_template_refuses_is_dropped_and_its_reason_kept(tokenizer: Tokenizer) -> None:
    refuses = "{% if 'brief' in messages[0]['content'] %}{{ raise_exception('no, please') }}{% endif %}"
    other = templated(tokenizer, refuses + CHATML)
    fits = dataclasses.replace(talk(), prompt=(Message("user", "Hi"),), id="lab:8")
    pairs, row_counts, _ = tokenize([talk(), fits, talk()], other, 4096)
    assert [pair.id for pair in pairs] == ["lab:8"]
    assert row_counts == RowCounts(3, 1, row_counts.dropped, first={"template_refuses": "lab:7: no, please"})
    assert row_counts.dropped == {"template_refuses": 2}
    with pytest.raises(ModelError, match="lab:7 · the chat template refuses the conversation: no, please"):
        render(talk(), talk().chosen, other, "complete")
    with pytest.raises(DataError, match=r"template_refuses 1, the first lab:7: no, please"):
        prepare("part", [talk()], EncodeOptions(Truncation(), "complete", 4096), other, PrepLog())


def test_a_template_without_an_end_token_ends_with_the_tokenizers(tokenizer: Tokenizer) -> None:
    other = templated(tokenizer, PLAIN.replace("GAP", " "))
    assert render(talk(), talk().chosen, other, "complete").text.endswith("\n\nAssistant: Yes, it is." + END)
    other.eos_token = None
    other.bos_token = None
    other.pad_token = None
    with pytest.raises(ModelError, match="neither an end-of-turn token in its template nor an EOS token"):
        render(talk(), talk().chosen, other, "complete")
    assert render(talk(cut=True), talk(cut=True).chosen, other, "complete").text.endswith("\n\nAssistant: Yes, it is.")


# --- loading ------------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_loads_and_gives_the_same_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), [])
    assert one(talk(), loaded).chosen.tolist() == one(talk(), tokenizer).chosen.tolist()
    assert one(talk(), loaded).prompt.tolist() == one(talk(), tokenizer).prompt.tolist()


CODE = json.dumps({"auto_map": {"AutoTokenizer": ["custom.Custom", None]}})
FOLDERS: dict[str, tuple[dict[str, str], str]] = {
    "empty": ({}, "no tokenizer"),
    "slow": ({"tokenizer_config.json": '{"tokenizer_class": "ByT5Tokenizer"}'}, "has no fast tokenizer"),
    "cut": ({"tokenizer.json": '{"version'}, "no tokenizer"),
    "of another format": ({"tokenizer.json": "{}"}, "no tokenizer"),
    "bad merges": (
        {"config.json": '{"model_type": "qwen2"}', "vocab.json": '{"a": 0}', "merges.txt": "a b c\n"},
        "no tokenizer",
    ),
    "with code of its own": (
        {"tokenizer_config.json": CODE, "custom.py": "import pathlib; pathlib.Path(__file__ + '.ran').touch()"},
        "names code to run: auto_map",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_without_a_usable_tokenizer_is_refused(name: str, tmp_path: Path) -> None:
    contents, found = FOLDERS[name]
    for file, text in contents.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(ModelError) as error:
        load_tokenizer(str(tmp_path), [])
    assert str(error.value).startswith(f"{tmp_path} · {found}")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents), "the repository's code ran"


@pytest.mark.parametrize("packed", [True, False])
def test_a_vocabulary_that_is_packed_or_missing_is_no_empty_one(packed: bool, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    if packed:
        for name, text in (("vocab.json", '{"a": 0}'), ("merges.txt", "")):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ModelError, match="has no vocabulary") as error:
        load_tokenizer(str(tmp_path), [])
    assert ("merges.txt.gz, vocab.json.gz: packed · unpack them with gunzip" in str(error.value)) == packed


def test_a_path_that_is_not_there_or_is_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder here"):
        load_tokenizer(str(tmp_path / "gone"), [])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is a file"):
        load_tokenizer(str(tmp_path / "tokenizer.json"), [])


def test_training_twice_gives_the_same_tokenizer(corpus: list[Preference]) -> None:
    first, second = (load_tokenizer("scratch(vocab=600)", corpus) for _ in range(2))
    assert len(first) == 600
    assert first.get_vocab() == second.get_vocab()
    texts = list(texts_of(corpus))
    assert first(texts)["input_ids"] == second(texts)["input_ids"]
    assert first.get_vocab() != load_tokenizer("scratch(vocab=600)", corpus[:5]).get_vocab()


def test_a_scratch_tokenizer_spells_any_text(tokenizer: Tokenizer) -> None:
    text = "\0 日本語 🦉 שלום \u202e\r\n\x7f"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("scratch(vocab=299)", "is below 300"),
        ("scratch(vocab='many')", "vocab='many' · expected int"),
        ("scratch(size=400)", "has no setting size"),
    ],
)
def test_a_scratch_tokenizer_that_cannot_be_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        load_tokenizer(name, [])
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("scratch", True),
        ("scratch()", True),
        ("scratch (vocab=400)", True),
        ("scratch/run", False),
        ("scratchpad", False),
        ("/scratch/me/model", False),
        ("Qwen/Qwen2-0.5B", False),
    ],
)
def test_a_call_is_told_from_a_path(name: str, call: bool) -> None:
    assert is_call(name) is call


# --- all in one ---------------------------------------------------------------------------------------------------


def test_prepare_cuts_and_tokenises_and_accounts_for_both(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    prep_log = PrepLog()
    pairs = prepare(
        "training part", corpus, EncodeOptions(Truncation(Keep(HALF)), "complete", 4096), tokenizer, prep_log
    )
    assert list(prep_log.stages) == ["truncate, training part", "tokenize, training part"]
    cut = truncate(corpus, Truncation(Keep(HALF)), token_ends(tokenizer))
    assert prep_log.stages["truncate, training part"] == cut.row_counts
    assert prep_log.stages["tokenize, training part"] == RowCounts(len(cut.preferences), len(pairs))
    for pair, other in zip(pairs, tokenize(cut.preferences, tokenizer, 4096)[0], strict=True):
        assert pair.id == other.id
        assert pair.chosen.tolist() == other.chosen.tolist()


def test_prepare_of_whole_responses_has_no_truncation_stage(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    prep_log = PrepLog()
    assert len(prepare("part", corpus, EncodeOptions(Truncation(), "complete", 4096), tokenizer, prep_log)) == len(
        corpus
    )
    assert prep_log.stages == {"tokenize, part": RowCounts(len(corpus), len(corpus))}


def test_prepare_says_why_nothing_is_left(tokenizer: Tokenizer) -> None:
    for preferences, keep, max_length, reasons in [
        ([talk()], Fraction(1), 5, "too_long 1"),
        ([talk(chosen="yes a", rejected="yes b")], Fraction(1, 100), 4096, "identical_responses 1"),
        ([], Fraction(1), 4096, "none came in"),
    ]:
        with pytest.raises(DataError) as error:
            prepare(
                "held-out part",
                preferences,
                EncodeOptions(Truncation(Keep(keep)), "complete", max_length),
                tokenizer,
                PrepLog(),
            )
        assert str(error.value).startswith(f"held-out part · no row is left ({reasons}) · raise --max-length")
