"""Pairs of answers to everyday questions, written from templates, in which the fault of the worse answer is known.

`generate` draws questions of ten topics and two answers to each. A good answer is friendly, to the point and right. The
other one has one of four faults, each as often as the others:

    rude        right, but unfriendly
    evasive     friendly, but says nothing
    wrong       friendly and to the point, but false (in health: dangerous)
    off_topic   friendly and right, but the answer to another question

The fault lies in the opening of an answer; one to three sentences follow that suit any answer of the topic. Every
second chosen answer is the longer one in words, so that length predicts nothing.

**The ceiling.** A label contradicts the quality with probability `flip`: the best scorer agrees with 1 − `flip` of the
labels. One that has no knowledge of the subjects cannot tell wrong answers, a quarter of the pairs.

**The parts.** Pairs for a judge, pairs for a policy, and held-out pairs share no subject, and so neither a
prompt nor an answer's opening: of every topic, five subjects, five and two.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from headwater.data.preference import Message, Preference, Response
from headwater.data.topic_pairs.topics import TOPICS, Topic
from headwater.errors import UsageError

Fault = Literal["rude", "evasive", "wrong", "off_topic"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
DETAILS = (1, 3)
"""Fewest and most sentences behind the opening of an answer."""
SHARES = {"judge": 5, "policy": 5, "heldout": 2}
"""Subjects of every topic by the part that they belong to."""
LEADS = ("Happy to help:", "Gladly:", "Of course:", "With pleasure:")
RUDE = ("Not this again.", "What a silly question.", "You should know this.", "Stop wasting my time.")
SCORN = ("as any child knows", "as everybody else knows", "and do not ask again", "if you can remember that")
EVASIVE = (
    "That depends on many things, and it is hard to say anything in general.",
    "There are several factors to consider, and every case is different.",
    "Many people have asked this before, and there is no single answer to it.",
    "It is important to think about this carefully, as opinions differ.",
)


@dataclass(frozen=True, slots=True)
class TopicPairs:
    """What to generate; the same settings give the same pairs everywhere."""

    pairs: int = 900
    """Number of pairs in all parts together."""
    flip: float = 0.05
    """Probability that the label contradicts the quality."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < sum(SHARES.values()):
            raise UsageError("topic pairs", f"pairs is {self.pairs}", f"expected {sum(SHARES.values())} or more")
        if not 0 <= self.flip < 0.5:
            raise UsageError("topic pairs", f"flip is {self.flip}", "expected 0 or more and below 0.5")

    @property
    def ceiling(self) -> float:
        """Share of the labels with which the best scorer agrees."""
        return 1 - self.flip


class Parts(NamedTuple):
    """Pairs by what they are for; no two parts share a subject."""

    judge: list[Preference]
    policy: list[Preference]
    heldout: list[Preference]


def generate(options: TopicPairs) -> Parts:
    """Draw the pairs of all parts. Their ids name the fault, and whether the label is flipped; no pair occurs twice."""
    rng = random.Random(options.seed)
    subjects = _subjects(rng)
    sizes = {part: options.pairs * share // sum(SHARES.values()) for part, share in SHARES.items()}
    return Parts(**{part: list(_pairs(rng, part, subjects[part], size, options)) for part, size in sizes.items()})


def fault_of(preference: Preference) -> Fault:
    """Return the fault of the worse answer of a generated pair, which its id names."""
    return next(fault for fault in FAULTS if f":{fault}:" in preference.id)


Asked = tuple[Topic, tuple[str, ...]]
"""A topic and one of its subjects."""


def _subjects(rng: random.Random) -> dict[str, list[Asked]]:
    """Divide the subjects of every topic among the parts."""
    found: dict[str, list[Asked]] = {part: [] for part in SHARES}
    for topic in TOPICS:
        shuffled = rng.sample(topic.subjects, len(topic.subjects))
        for part, share in SHARES.items():
            taken, shuffled = shuffled[:share], shuffled[share:]
            found[part] += [(topic, subject) for subject in taken]
    return found


def _pairs(
    rng: random.Random, part: str, subjects: list[Asked], size: int, options: TopicPairs
) -> Iterator[Preference]:
    """Yield pairs about every subject in turn, with every fault in turn for each of them."""
    seen: set[tuple[str, str, str]] = set()
    while len(seen) < size:
        number = len(seen)
        topic, subject = subjects[number % len(subjects)]
        fault = FAULTS[(number // len(subjects) + number) % len(FAULTS)]
        question = topic.fill(rng.choice(topic.questions), subject)
        flipped = rng.random() < options.flip
        chosen, rejected = _answers(rng, fault, (topic, subject), subjects, flipped, number % 2 == 0)
        if (question, chosen, rejected) in seen:
            continue
        seen.add((question, chosen, rejected))
        yield Preference(
            prompt=(Message("user", question),),
            chosen=Response(chosen),
            rejected=Response(rejected),
            id=f"{part}:{number}:{fault}:{'flipped' if flipped else 'as_is'}",
            source=topic.name,
        )


def _good(rng: random.Random, topic: Topic, subject: tuple[str, ...]) -> str:
    return f"{rng.choice(LEADS)} {topic.fill(rng.choice(topic.right), subject)}."


def _faulty(rng: random.Random, fault: Fault, topic: Topic, subject: tuple[str, ...], others: list[Asked]) -> str:
    """Return an opening with a fault; off-topic ones answer a question of another topic in the same part."""
    if fault == "rude":
        said = topic.fill(rng.choice(topic.right), subject)
        return f"{rng.choice(RUDE)} {said[0].upper()}{said[1:]}, {rng.choice(SCORN)}."
    if fault == "evasive":
        return rng.choice(EVASIVE)
    if fault == "wrong":
        return f"{rng.choice(LEADS)} {topic.fill(rng.choice(topic.wrong), subject)}."
    return _good(rng, *rng.choice([other for other in others if other[0] is not topic]))


def _answers(
    rng: random.Random, fault: Fault, asked: Asked, others: list[Asked], flipped: bool, first_is_longer: bool
) -> tuple[str, str]:
    """Draw the chosen and the rejected answer until the chosen one is the longer one, or is not, as is asked for.

    Openings are drawn again too: some are too long for any number of sentences behind the other one.
    """
    while True:
        openings = [_good(rng, *asked), _faulty(rng, fault, *asked, others)]
        chosen, rejected = (
            " ".join([opening, *rng.sample(asked[0].details, rng.randint(*DETAILS))])
            for opening in (reversed(openings) if flipped else openings)
        )
        longer = len(chosen.split()) - len(rejected.split())
        if longer != 0 and (longer > 0) == first_is_longer:
            return chosen, rejected
