"""The written pairs hold what they promise: known faults, a known ceiling, lengths that say nothing, no leakage."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter

import pytest

from headwater.data.preference import Preference
from headwater.data.splitting import overlap
from headwater.data.topic_pairs import FAULTS, LEADS, SHARES, Parts, TopicPairs, fault_of, generate
from headwater.data.topic_pairs.topics import TOPICS
from headwater.errors import UsageError

OPTIONS = TopicPairs(pairs=1200, flip=0.1, seed=3)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return generate(OPTIONS)


@pytest.fixture(scope="module")
def rows(parts: Parts) -> list[Preference]:
    return list(itertools.chain(*parts))


def words(text: str) -> int:
    return len(text.split())


def good(row: Preference) -> str:
    return (row.rejected if row.id.endswith(":flipped") else row.chosen).text


def bad(row: Preference) -> str:
    return (row.chosen if row.id.endswith(":flipped") else row.rejected).text


def test_the_same_settings_give_the_same_pairs(parts: Parts) -> None:
    assert generate(OPTIONS) == parts
    assert generate(TopicPairs(pairs=1200, flip=0.1, seed=4)) != parts


def test_parts_have_their_shares_and_no_pair_twice(parts: Parts, rows: list[Preference]) -> None:
    assert [len(part) for part in parts] == [1200 * share // 12 for share in SHARES.values()]
    assert len({row.key for row in rows}) == len(rows)


def test_parts_share_no_prompt_and_no_subject(parts: Parts) -> None:
    for one, other in itertools.permutations(parts, 2):
        assert not overlap(one, other).leaks.matches
    for topic in TOPICS:
        for subject in topic.subjects:
            asked = {topic.fill(question, subject) for question in topic.questions}
            assert sum(any(row.prompt[0].content in asked for row in part) for part in parts) <= 1, subject


def test_topics_and_faults_are_equally_frequent_in_every_part(parts: Parts) -> None:
    assert len(TOPICS) >= 8
    for part in parts:
        for counts in (Counter(row.source for row in part), Counter(map(fault_of, part))):
            assert max(counts.values()) - min(counts.values()) <= 1 + len(part) // 100
            assert len(counts) in (len(TOPICS), len(FAULTS))


def test_the_labels_have_the_stated_noise(rows: list[Preference]) -> None:
    flipped = sum(row.id.endswith(":flipped") for row in rows) / len(rows)
    assert flipped == pytest.approx(1 - OPTIONS.ceiling, abs=3 * (0.1 * 0.9 / len(rows)) ** 0.5)


def test_the_good_answer_is_friendly_and_the_fault_is_the_named_one(rows: list[Preference]) -> None:
    right = {topic.fill(text, subject) for topic in TOPICS for subject in topic.subjects for text in topic.right}
    for row in rows:
        topic = next(topic for topic in TOPICS if topic.name == row.source)
        own = {
            topic.fill(text, subject)
            for subject in topic.subjects
            if row.prompt[0].content in {topic.fill(question, subject) for question in topic.questions}
            for text in topic.right
        }
        assert good(row).startswith(LEADS)
        assert any(text in good(row) for text in own), row
        friendly = bad(row).startswith(LEADS)
        says_own = any(text.lower() in bad(row).lower() for text in own)
        says_some = any(text in bad(row) for text in right)
        expected = {
            "rude": (False, True, None),
            "evasive": (False, False, False),
            "wrong": (True, False, False),
            "off_topic": (True, False, True),
        }[fault_of(row)]
        assert (friendly, says_own) == expected[:2], row
        assert expected[2] in (None, says_some), row


def test_length_says_nothing(rows: list[Preference]) -> None:
    gaps = [words(row.chosen.text) - words(row.rejected.text) for row in rows]
    longer = sum(gap > 0 for gap in gaps) / len(gaps)
    assert 0 not in gaps
    assert longer == pytest.approx(0.5, abs=0.002)
    assert abs(statistics.mean(gaps)) < 2, "a tenth of the spread of the lengths"


def test_what_follows_the_opening_does_not_depend_on_the_quality(rows: list[Preference]) -> None:
    details = {text for topic in TOPICS for text in topic.details}
    for side in (good, bad):
        found = Counter(text for row in rows for text in details if text in side(row))
        assert set(found) == details
    for topic in TOPICS:
        every = [text for text in topic.details if any(text in row.chosen.text for row in rows)]
        assert len(every) == len(topic.details) >= 5


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="pairs is 3"):
        TopicPairs(pairs=3)
    with pytest.raises(UsageError, match="flip"):
        TopicPairs(flip=0.5)
