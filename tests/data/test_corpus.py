"""The corpus holds what its settings promise: evidence where planted, none elsewhere, and a known ceiling."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from headwater.data import corpus as module
from headwater.data.corpus import Corpus, best_accuracy, best_depth, generate, lengths, phrase_ends
from headwater.data.preference import Preference, held_out
from headwater.errors import UsageError

QUARTERS = (0.25, 0.5, 0.75, 1.0)
DEPTHS = (0.2, 0.3, 0.5, 0.8)
PrefixScorer = Callable[[str], float]


@pytest.fixture(scope="module")
def rows() -> list[Preference]:
    return generate(Corpus())


def texts(rows: list[Preference]) -> list[str]:
    return [answer.text for row in rows for answer in (row.chosen, row.rejected)]


def accuracy(rows: list[Preference], prefix_scorer: PrefixScorer) -> float:
    gaps = [prefix_scorer(row.chosen.text) - prefix_scorer(row.rejected.text) for row in rows]
    return sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps) / len(gaps)


def errors(count: int, share: float = 0.5) -> float:
    """Three standard errors of a share of `count` pairs."""
    return 3 * math.sqrt(share * (1 - share) / count)


def surplus(text: str, depth: float, keep: float) -> int:
    """Count kind less curt phrases, each at its place, among those whose kind the first `keep` of the words tell."""
    words = text.lower().split()
    kept = words[: math.floor(round(keep * len(words), 9))]
    total = 0
    for pairs, end in zip(module.PHRASES, phrase_ends(len(words), depth), strict=True):
        seen = kept[end - module.PHRASE : end]
        signs = (
            {sign for pair in pairs for wording, sign in zip(pair, (1, -1), strict=True) if begins(wording, seen)}
            if seen
            else set()
        )
        total += signs.pop() if len(signs) == 1 else 0
    return total


def begins(wording: str, words: list[str]) -> bool:
    return wording.lower().split()[: len(words)] == words


def after(text: str, depth: float) -> list[str]:
    words = text.split()
    return words[int(depth * len(words)) :]


def word_accuracy(rows: list[Preference], read: Callable[[str], list[str]]) -> float:
    """Accuracy of smoothed log-odds of words, fitted on each half of the openings and read on the other."""
    halves = [[row for row in rows if held_out(row.conversation_id, 0.5, seed=7) is half] for half in (False, True)]
    right = 0.0
    for fit, test in (halves, halves[::-1]):
        chosen = Counter(word for row in fit for word in set(read(row.chosen.text)))
        rejected = Counter(word for row in fit for word in set(read(row.rejected.text)))
        odds = {word: math.log((chosen[word] + 5) / (rejected[word] + 5)) for word in chosen | rejected}
        prefix_scorer: PrefixScorer = lambda text, odds=odds: sum(odds.get(word, 0.0) for word in set(read(text)))  # noqa: E731
        right += accuracy(test, prefix_scorer) * len(test)
    return right / len(rows)


def test_the_same_settings_give_the_same_rows_and_another_seed_gives_others(rows):
    assert generate(Corpus()) == rows
    assert generate(Corpus(pairs=30)) == rows[:30]
    assert generate(Corpus(pairs=30, seed=1)) != rows[:30]


def test_the_first_row_is_the_same_on_every_machine(rows):
    """The words are those of the day this was written: change them with the corpus, and only then."""
    assert (rows[0].id, rows[0].source) == ("demo:0", "running")
    assert rows[0].prompt[-1].content == "My coach says otherwise. Why?"
    assert rows[0].chosen.text.startswith(
        "How very nice. Last time, I checked carefully. From here on, keep clear notes. In the"
    )
    assert rows[0].rejected.text.startswith(
        "A silly question. Last week, I barely looked. On the day, take careful steps. In the"
    )


def test_prompts_are_many_and_some_repeat(rows):
    prompts = Counter(row.prompt for row in rows)
    assert len(prompts) >= 1500
    assert sum(count > 1 for count in prompts.values()) >= 100
    assert len({row.conversation_id for row in rows}) < len(rows)


def test_some_conversations_have_an_earlier_exchange_and_some_a_system_turn(rows):
    roles = [[message.role for message in row.prompt] for row in rows]
    assert all(turns[-1] == "user" for turns in roles)
    assert 0.05 < sum("assistant" in turns for turns in roles) / len(rows) < 0.11
    assert 0.07 < sum(turns[0] == "system" for turns in roles) / len(rows) < 0.13


@pytest.mark.parametrize("measure", [lambda text: len(text.split()), len], ids=["words", "characters"])
def test_length_does_not_tell_the_label(rows, measure):
    assert abs(accuracy(rows, measure) - 0.5) < errors(len(rows))


@pytest.mark.parametrize("depth", DEPTHS)
def test_answers_have_the_promised_lengths_and_no_gap_in_a_template(depth):
    for text in texts(generate(Corpus(pairs=200, planted_depth=depth))):
        assert len(text.split()) in lengths(depth)
        assert "{" not in text


def test_the_text_after_the_planted_depth_carries_no_signal(rows):
    depth = Corpus().planted_depth
    assert abs(word_accuracy(rows, lambda text: after(text, depth)) - 0.5) < errors(len(rows))
    assert word_accuracy(rows, str.split) > 0.85, "the same scorer finds the signal where there is one"


@pytest.mark.parametrize("depth", DEPTHS)
def test_evidence_is_in_no_other_place(depth):
    wordings = {wording for pairs in module.PHRASES for pair in pairs for wording in pair}
    for text in texts(generate(Corpus(pairs=200, planted_depth=depth))):
        rest = " ".join(after(text, depth)).lower()
        assert not any(wording.lower() in rest for wording in wordings)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_ceiling_is_what_counting_phrases_reaches(depth):
    settings = Corpus(pairs=1500, planted_depth=depth)
    rows = generate(settings)
    for keep in (depth * 0.6, depth * 0.85, *(depth * quarter for quarter in QUARTERS)):
        expected = best_accuracy(settings, keep)
        measured = accuracy(rows, lambda text, keep=keep: surplus(text, depth, keep))
        assert abs(measured - expected) < errors(len(rows), expected), keep


def test_the_ceiling_by_hand():
    values = [best_accuracy(Corpus(), 0.3 * quarter) for quarter in QUARTERS]
    assert best_accuracy(Corpus(), 0.0) == 0.5
    assert values == pytest.approx([0.6694, 0.7661, 0.8532, 0.95], abs=1e-4)
    # One phrase seen: of 186 untied draws in 256 it differs in 128 * 49 / 64, and is right in 84 of those 98.
    assert best_accuracy(Corpus(flip=0), 0.075) == pytest.approx((84 + (186 - 98) / 2) / 186)


def test_the_best_ruler_may_see_more_of_one_answer_than_of_the_other():
    # All of one and nothing of the other: with 0 to 4 kind ones it is right in 15, 44, 30, 44, 15 of 256 draws.
    assert module._agreement(4, 0) == module._agreement(0, 4) == pytest.approx(148 / 186)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_ceiling_rises_to_one_minus_flip_at_the_planted_depth_and_stays(depth):
    settings = Corpus(planted_depth=depth, flip=0.1)
    curve = [best_accuracy(settings, step / 100) for step in range(101)]
    assert curve == sorted(curve)
    assert curve[int(100 * depth / 2)] < 0.8
    assert [best_accuracy(settings, keep) for keep in (depth, 1.0)] == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(("planted", "expected"), [(0.3, "0.3"), (0.4, "0.4"), (0.5, "0.5"), (0.7, "0.6")])
def test_the_depth_of_the_best_ruler_on_tenths(planted, expected):
    """At 0.7 the last phrase ends at 61 % of the words, and two of its three words mostly tell: 60 % is enough."""
    tenths = [Fraction(n, 10) for n in range(1, 11)]
    assert best_depth(Corpus(planted_depth=planted), tenths, 0.9) == Fraction(expected)
    assert best_accuracy(Corpus(planted_depth=planted), float(expected)) > 0.94
    assert best_accuracy(Corpus(planted_depth=planted), float(expected) - 0.1) < 0.86


def test_two_words_of_a_divided_phrase_tell_in_some_wordings():
    """Kind and curt first differ in the second word of 2, 4, 3 and 3 of the four wordings of a phrase."""
    assert [module._told_by_two(slot) for slot in range(module.SLOTS)] == [Fraction(n, 4) for n in (2, 4, 3, 3)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_cut_at_a_quarter_divides_no_phrase(depth):
    for words in lengths(depth):
        cuts = [int(quarter * depth * words) for quarter in QUARTERS]
        ends = phrase_ends(words, depth)
        assert all(end <= cut for end, cut in zip(ends, cuts, strict=True))
        assert all(
            start >= cut for start, cut in zip((end - module.PHRASE for end in ends[1:]), cuts[:-1], strict=True)
        )


def test_kind_and_curt_wordings_differ_in_sense_only():
    for pairs in module.PHRASES:
        for kind, curt in pairs:
            assert len(kind.split()) == len(curt.split()) == module.PHRASE
            assert kind.split()[0] == curt.split()[0] and kind != curt


def token_shares(tokenizer: Tokenizer, text: str, depth: float) -> tuple[float, float]:
    """Return where the last phrase starts and ends, as shares of the answer's tokens."""
    words = text.split()
    end = phrase_ends(len(words), depth)[-1]
    offsets = tokenizer.encode(text).offsets
    counts = [sum(start < len(" ".join(words[:stop])) for start, _ in offsets) for stop in (end - module.PHRASE, end)]
    return counts[0] / len(offsets), counts[1] / len(offsets)


@pytest.mark.parametrize("depth", [0.2, 0.3, 0.8])
def test_the_evidence_lies_within_the_planted_depth_in_tokens_too(depth):
    answers = texts(generate(Corpus(pairs=1000, planted_depth=depth)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(answers, trainer)
    starts, ends = zip(*(token_shares(tokenizer, text, depth) for text in answers), strict=True)
    assert sum(end <= depth for end in ends) >= 0.99 * len(ends)
    assert sum(start >= 0.6 * depth for start in starts) >= 0.95 * len(starts)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"planted_depth": 0.1}, "do not fit"),
        ({"planted_depth": 0.9}, "0.2 to 0.8"),
        ({"planted_depth": math.nan}, "planted_depth is nan"),
        ({"flip": 0.5}, "flip"),
        ({"flip": -0.1}, "flip"),
        ({"pairs": 0}, "pairs"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        Corpus(**settings)


@pytest.mark.parametrize("keep", [-0.1, 1.1, math.nan])
def test_a_share_outside_the_answer_is_refused(keep):
    with pytest.raises(UsageError, match="keep"):
        best_accuracy(Corpus(), keep)
