"""A cut keeps a prefix of whole characters, as many tokens as the ratio says, and takes no end for granted."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from unicodedata import category, normalize

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data import segmentation
from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.tokens import token_ends
from headwater.data.truncation import Keep, Truncation, cut, parse_keep, parse_percentage, span, truncate
from headwater.errors import UsageError

HALF = Fraction(1, 2)
KEEPS = [Fraction(n, 20) for n in range(1, 21)]


def words(texts: Sequence[str]) -> list[list[int]]:
    """Token ends where every word is a token, with the white space before it."""
    found = []
    for text in texts:
        ends, end = [], 0
        for word in text.split():
            end = text.index(word, end) + len(word)
            ends.append(end)
        found.append(ends)
    return found


def shorten(response: Response, ends: Sequence[int], keep: Fraction) -> Response:
    """Keep the beginning of one response by its own length."""
    return cut(response, *span(response.text, ends, 0, Keep(keep).count(len(ends))))


def pair(chosen: str, rejected: str, **more: bool) -> Preference:
    return Preference(
        prompt=(Message("user", "one two three four"),),
        chosen=Response(chosen, 1.0, **more),
        rejected=Response(rejected, 0.5, **more),
        id="x",
    )


@pytest.fixture(scope="module")
def qwen(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The real Qwen2 tokenizer: a byte-level BPE that joins accents to their letters (NFC) before it encodes."""
    folder = tmp_path_factory.mktemp("qwen2")
    for path in (shared_data / "tokenizer_qwen2").iterdir():
        content = path.read_bytes()
        packed = path.suffix == ".gz"
        (folder / (path.stem if packed else path.name)).write_bytes(gzip.decompress(content) if packed else content)
    return load_tokenizer(str(folder), [])


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Tokenizer:
    """A real SentencePiece BPE of 512 pieces, with `▁` for a space and bytes for what it lacks, as Llama has it."""
    raw = (shared_data / "stories260K" / "tok512.bin").read_bytes()
    pieces, offset = [], 4
    while offset < len(raw):
        _, length = struct.unpack_from("<fi", raw, offset)
        pieces.append(raw[offset + 8 : offset + 8 + length].decode().replace(" ", "▁"))
        offset += 8 + length
    spelled = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces[259:]]
    vocab = {piece: rank for rank, piece in enumerate(spelled)}
    splits = ((piece[:i], piece[i:]) for piece in pieces[259:] for i in range(1, len(piece)))
    merges = [(left, right) for left, right in splits if left in vocab and right in vocab]
    model = tokenizers.models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=False, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    space = [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    backend.normalizer = tokenizers.normalizers.Sequence(space)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


@pytest.fixture(params=["tokenizer", "qwen", "stories"])
def real(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


# --- what the flags accept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("0.4", Fraction(2, 5)),
        (".5", HALF),
        ("40%", Fraction(2, 5)),
        (" 40 % ", Fraction(2, 5)),
        ("0.5%", Fraction(1, 200)),
        ("1.0", Fraction(1)),
        ("1", Fraction(1)),
        ("100%", Fraction(1)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_keep_accepts_a_ratio_or_a_percentage_with_its_sign(text: str, keep: Fraction) -> None:
    assert parse_keep(text) == Keep(keep)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("40", "is above 1"),
        ("1.5", "is above 1"),
        ("100", "is above 1"),
        ("0", "is outside (0, 1]"),
        ("-1", "is outside (0, 1]"),
        ("101", "is outside (0, 1]"),
        ("0%", "is outside (0, 1]"),
        ("101%", "is outside (0, 1]"),
        ("-40%", "is outside (0, 1]"),
        ("abc", "is not a number"),
        ("nan", "is not a number"),
        ("inf", "is not a number"),
        ("", "is not a number"),
        ("%", "is not a number"),
        ("40%%", "is not a number"),
        ("1/0", "is not a number"),
    ],
)
def test_keep_refuses_what_could_be_meant_otherwise(text: str, found: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_keep(text)
    place, problem, fix = str(error.value).split(" · ")
    assert (place, problem) == (f"--keep {text}", found)
    right = f"write --keep {text}% for a percentage"
    assert fix == (right if found == "is above 1" else "write 0.4, 40%, 128tok, 3sent, 50words or 200chars")


@pytest.mark.parametrize(
    ("text", "keep"), [("40", Fraction(2, 5)), ("40%", Fraction(2, 5)), ("1", Fraction(1, 100)), ("100", Fraction(1))]
)
def test_truncate_percentage_is_the_percentage_kept(text: str, keep: Fraction) -> None:
    assert parse_percentage(text) == Keep(keep)


@pytest.mark.parametrize(
    ("text", "found", "fix"),
    [
        ("0.5", "is below 1", "write --truncate-percentage 50 or --keep 0.5"),
        ("0.075", "is below 1", "write --truncate-percentage 7.5 or --keep 0.075"),
        ("0", "is outside [1, 100]", "write the percentage to keep, such as 40"),
        ("-40", "is outside [1, 100]", "write the percentage to keep, such as 40"),
        ("101", "is outside [1, 100]", "write the percentage to keep, such as 40"),
        ("nan", "is not a number", "write the percentage to keep, such as 40"),
        ("inf", "is not a number", "write the percentage to keep, such as 40"),
        ("abc", "is not a number", "write the percentage to keep, such as 40"),
    ],
)
def test_truncate_percentage_refuses_a_ratio(text: str, found: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_percentage(text)
    assert str(error.value) == f"--truncate-percentage {text} · {found} · {fix}"


# --- how many tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "keep", "kept"),
    [(30, "0.1", 3), (10, "0.7", 7), (100, "0.29", 29), (3, "0.5", 1), (3, "0.1", 1), (1, "0.01", 1), (0, "0.5", 0)],
)
def test_the_floor_of_the_ratio_is_kept_and_at_least_one(tokens: int, keep: str, kept: int) -> None:
    assert parse_keep(keep).count(tokens) == kept


@pytest.mark.parametrize("tokens", [1, 2, 7, 30, 999])
def test_more_is_kept_at_a_larger_ratio_and_all_at_1(tokens: int) -> None:
    counts = [Keep(keep).count(tokens) for keep in KEEPS]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == tokens


# --- one response -------------------------------------------------------------------------------------------------


def test_tokens_are_counted_not_characters() -> None:
    text = "incomprehensibilities a b c"
    assert shorten(Response(text), words([text])[0], HALF).text == "incomprehensibilities a"


def test_a_response_that_lost_something_is_not_complete() -> None:
    assert shorten(Response("a b", 0.5), [1, 3], HALF) == Response("a", 0.5, complete=False)


@pytest.mark.parametrize("complete", [True, False])
def test_a_response_of_one_token_stays_as_it_is(complete: bool) -> None:
    response = Response("a", complete=complete)
    assert shorten(response, [1], HALF) == response


def test_a_response_that_was_cut_before_stays_incomplete() -> None:
    assert not shorten(Response("a b c d", complete=False), [1, 3, 5, 7], HALF).complete
    assert not shorten(Response("a b", complete=False), [1, 3], Fraction(1)).complete


def test_a_last_character_of_several_tokens_that_is_kept_leaves_the_response_as_it_was() -> None:
    for response in (Response("🦉", 0.5), Response("🦉", 0.5, complete=False)):
        assert shorten(response, [1, 1, 1], HALF) == response


def test_trailing_white_space_that_no_token_covers_is_no_loss() -> None:
    response = Response("a b \n")
    assert shorten(response, [1, 3], Fraction(1)) == response


HARD = {
    "emoji": "👍🏽 wow 👩‍👩‍👧 and 🇩🇪 or 🦉🦉🦉 there",
    "CJK": "日本語のテキスト、𠮷野家で食べる。漢字かな交じり文",
    "composed": "Café, naïve, Ångström, señor, Übermut",
    "combining": "Cafe\u0301, nai\u0308ve, A\u030angstro\u0308m, sen\u0303or, U\u0308bermut",
    "stacked": "Z\u0351\u036b\u0343a\u0329\u034dl\u0321\u0353g\u0321o\u0348 he comes",
    "Devanagari": "नमस्ते दुनिया, हिन्दी में लिखा हुआ",
    "Hangul jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af is written so",
    "keycap": "press 1\ufe0f\u20e3 then 2\ufe0f\u20e3",
    "right to left": "שָׁלוֹם עולם مَرْحَبًا بالعالم",
    "line ends": "a\r\n\r\n  b\n\n\n\tc   ",
}


MARKS = {c for text in HARD.values() for c in text if category(c).startswith("M")}


@pytest.mark.parametrize("name", HARD)
def test_a_cut_leaves_a_prefix_of_whole_characters(name: str, real: Tokenizer) -> None:
    text = HARD[name]
    (ends,) = token_ends(real)([text])
    assert len(ends) >= 5
    kept = [shorten(Response(text), ends, Fraction(n, len(ends))) for n in range(1, len(ends) + 1)]
    for response, longer in zip(kept, [*kept[1:], Response(text)], strict=True):
        assert text.startswith(response.text)
        assert longer.text.startswith(response.text)
        assert response.text
        assert response.complete == (response.text == text)
        assert "\ufffd" not in real.decode(real(response.text, add_special_tokens=False)["input_ids"])
        assert normalize("NFC", text).startswith(normalize("NFC", response.text))
        assert text[len(response.text) :][:1] not in MARKS
    assert kept[-1] == Response(text)
    assert len({response.text for response in kept}) > 3


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), keep=st.sampled_from(KEEPS))
def test_any_text_is_cut_to_a_prefix(text: str, keep: Fraction, tokenizer: Tokenizer) -> None:
    (ends,) = token_ends(tokenizer)([text])
    kept = shorten(Response(text), ends, keep)
    assert text.startswith(kept.text)
    assert kept.text
    assert kept.complete == (kept.text == text)


def test_the_kept_text_has_as_many_tokens_as_the_ratio_says(corpus: list[Preference], real: Tokenizer) -> None:
    texts = [p.chosen.text for p in corpus]
    ends = token_ends(real)
    keep = Fraction(3, 10)
    short = [shorten(Response(text), of_text, keep).text for text, of_text in zip(texts, ends(texts), strict=True)]
    before = [len(of_text) for of_text in ends(texts)]
    assert [len(of_text) for of_text in ends(short)] == [int(n * 3 / 10) for n in before]


# --- all preferences ----------------------------------------------------------------------------------------------


def test_both_responses_are_cut_by_their_own_lengths_and_prompts_stay() -> None:
    given_pair = pair("a b c d e f", "u v")
    result = truncate([given_pair], Truncation(Keep(HALF)), words)
    (kept,), row_counts, before, after = result.preferences, result.row_counts, result.before, result.after
    assert kept == Preference(
        prompt=given_pair.prompt,
        chosen=Response("a b c", 1.0, complete=False),
        rejected=Response("u", 0.5, complete=False),
        id="x",
    )
    assert (row_counts.rows_in, row_counts.kept, row_counts.dropped) == (1, 1, {})
    assert before.tokens == {"chosen": 6, "rejected": 2}
    assert after.tokens == {"chosen": 3, "rejected": 1}


def test_keep_1_is_the_identity(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    result = truncate(corpus, Truncation(Keep(Fraction(1))), token_ends(tokenizer))
    assert all(kept is given_pair for kept, given_pair in zip(result.preferences, corpus, strict=True))
    assert (result.row_counts.rows_in, result.row_counts.kept, result.row_counts.dropped) == (
        len(corpus),
        len(corpus),
        {},
    )


def test_keep_1_leaves_an_incomplete_response_incomplete() -> None:
    given_pair = pair("a b", "c d", complete=False)
    assert truncate([given_pair], Truncation(Keep(Fraction(1))), words).preferences == [given_pair]


def test_pairs_that_became_identical_or_empty_are_dropped_and_counted() -> None:
    def spaces_first(texts: Sequence[str]) -> list[list[int]]:
        return [[len(text) - len(text.lstrip()) or 1, len(text)] for text in texts]

    rows = [pair("a b c d", "a b x y"), pair("a b", "c d"), pair("a b  c d", "a  b x y")]
    result = truncate(rows, Truncation(Keep(HALF)), words)
    row_counts = result.row_counts
    assert [p.chosen.text for p in result.preferences] == ["a"]
    assert (row_counts.rows_in, row_counts.kept, row_counts.dropped) == (3, 1, {"identical_responses": 2})
    assert (result.before.tokens.total(), result.after.tokens.total()) == (4, 2)
    assert result.dropped == {"identical_responses": ["x", "x"]}
    assert truncate([pair("  a", "b c")], Truncation(Keep(HALF)), spaces_first).row_counts.dropped == {
        "empty_response": 1
    }


def test_truncation_is_monotone_in_the_ratio(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    ends = token_ends(tokenizer)
    shorter: dict[str, Preference] = {}
    for keep in KEEPS:
        result = truncate(corpus, Truncation(Keep(keep)), ends)
        assert result.row_counts.rows_in == result.row_counts.kept + result.row_counts.dropped.total()
        longer = {p.id: p for p in result.preferences}
        assert longer.keys() >= shorter.keys(), "a pair that could be told apart no longer can"
        for name, short in shorter.items():
            assert longer[name].chosen.text.startswith(short.chosen.text)
            assert longer[name].rejected.text.startswith(short.rejected.text)
        shorter = longer
    assert list(shorter.values()) == corpus


@given(st.text(st.sampled_from("ab\r\n 👩‍👧é\u0301\u200d🇩🇪क्षि\u0600각\u1100\u1161"), max_size=12), st.data())
def test_where_a_grapheme_ends_is_found_without_reading_the_whole_text(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    assert segmentation.is_grapheme_end(text, offset) == (
        offset in {0, len(text), *segmentation.ends(text, "grapheme")}
    )
