"""A synthetic corpus with a planted signal depth: only the beginning of a response decides the preference.

`generate` draws pairs of answers to everyday questions. Only the first words of an answer determine which one is
preferred; the rest is neutral. A study of truncation thus has a known result to find, on any machine, in seconds.

**The distribution.** An answer has `n` words (between white space), `n` uniform on `lengths(planted_depth)`
whatever its label: 70 to 86 for a planted depth of 0.3. It holds `SLOTS` = 4 evidence phrases of three words.
Of the first `planted_depth * n` words, phrase `j` lies in the `j`-th quarter and ends in the middle of it, or
three words into it where the middle comes sooner. Each phrase is kind or curt by a fair coin, and its wording is
uniform on the kind or the curt ones of `PHRASES[j]`. A pair of answers is redrawn until they differ in their
number of kind phrases; the one with more is chosen, and then the two change places with probability `flip`. The
words between the phrases, and all that follow the fourth, are drawn in the same way for every answer.

Up to half a quarter stays free at the end, because truncation counts tokens and a phrase may lie deeper in tokens than
in words.

**The ceiling.** The best scorer that sees `k` phrases of both answers compares their numbers of kind ones. With
random ties it orders a share `s(k)` of the pairs as all four phrases do, and so agrees with the label on
`flip + (1 - 2 * flip) * s(k)` of them:

    words kept / planted depth    0      1/4    1/2    3/4    1 or more
    phrases seen, k               0      1      2      3      4
    s(k)                          0.500  0.688  0.796  0.892  1.000
    ceiling for flip = 0.05       0.500  0.669  0.766  0.853  0.950
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from headwater.data.preference import Message, Preference, Response
from headwater.errors import UsageError

SLOTS = 4
"""Evidence phrases in an answer."""
PHRASE = 3
"""Words in an evidence phrase, kind or curt: neither the length nor the layout of an answer can tell."""
DEPTHS = (0.2, 0.8)
"""The planted depths that can be built, as a share of an answer's words."""
REPEATED, FOLLOW_UP, SYSTEM = 0.1, 0.08, 0.1
"""Shares of rows that ask an earlier row's question, that have an earlier exchange, and a system turn."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What to generate; the same settings give the same preferences everywhere."""

    pairs: int = 2000
    planted_depth: float = 0.3
    """Share of an answer's words, from its start, that holds all evidence."""
    flip: float = 0.05
    """Probability that a label contradicts the evidence."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise UsageError("corpus", f"pairs is {self.pairs}", "expected 1 or more")
        least, most = DEPTHS
        if not least <= self.planted_depth <= most:
            raise UsageError(
                "corpus",
                f"planted_depth is {self.planted_depth}",
                f"expected {least} to {most}: below, four phrases do not fit into the opening; above, too little "
                "text follows to show that nothing is in it",
            )
        if not 0 <= self.flip < 0.5:
            raise UsageError("corpus", f"flip is {self.flip}", "expected 0 or more and below 0.5")


def generate(corpus: Corpus) -> list[Preference]:
    """Draw the preferences; with fewer pairs, they are the first of those drawn with more."""
    rng = random.Random(corpus.seed)
    asked: list[tuple[Topic, tuple[Message, ...]]] = []
    rows = []
    for number in range(corpus.pairs):
        repeats = bool(asked) and rng.random() < REPEATED
        topic, prompt = rng.choice(asked) if repeats else _ask(rng)
        asked.append((topic, prompt))
        better, worse = (_answer(rng, topic, kind, corpus.planted_depth) for kind in _unequal(rng))
        if rng.random() < corpus.flip:
            better, worse = worse, better
        rows.append(Preference(prompt=prompt, chosen=better, rejected=worse, id=f"demo:{number}", source=topic.gerund))
    return rows


def best_accuracy(corpus: Corpus, keep: float) -> float:
    """Return the best expected accuracy of a scorer that reads the first `keep` of each answer's words.

    Exact by enumeration over the lengths of the two answers and the kinds of their phrases. Of a divided phrase, the
    first word carries no information, and two words determine its kind in some wordings (`_told_by_two`).
    """
    if not 0 <= keep <= 1:
        raise UsageError("best_accuracy", f"keep is {keep}", "expected 0 to 1, a share of the words")
    answers = lengths(corpus.planted_depth)
    known: dict[int, Fraction] = defaultdict(Fraction)  # how likely the kinds of so many phrases of an answer are told
    for words in answers:
        for phrases, chance in _told(corpus.planted_depth, words, keep).items():
            known[phrases] += chance / len(answers)
    agreement = sum(float(n * m) * _agreement(k, j) for k, n in known.items() for j, m in known.items())
    return float(corpus.flip + (1 - 2 * corpus.flip) * agreement)


def best_depth(corpus: Corpus, ratios: Sequence[Fraction], share: float) -> Fraction:
    """Return the smallest of `ratios` at which the best scorer has `share` of its accuracy above chance.

    This is what a signal depth estimates, on the grid where it is measured. The planted depth bounds it from above: all
    evidence lies before that, and the last phrase ends up to an eighth of it sooner.
    """
    best = [best_accuracy(corpus, float(ratio)) - 0.5 for ratio in ratios]
    return next(ratio for ratio, above in zip(ratios, best, strict=True) if above >= share * best[-1])


def _told(depth: float, words: int, keep: float) -> dict[int, Fraction]:
    """Return how likely the first `keep` of an answer tell the kinds of so many phrases."""
    kept = math.floor(round(keep * words, 9))  # 0.3 × 70 is 21
    ends = phrase_ends(words, depth)
    whole = sum(end <= kept for end in ends)
    if whole < SLOTS and ends[whole] - 1 == kept:
        told = _told_by_two(whole)
        return {whole: 1 - told, whole + 1: told}
    return {whole: Fraction(1)}


def _told_by_two(slot: int) -> Fraction:
    """Return the share of wordings of a phrase whose first two words tell kind from curt."""
    beginnings = [[wording.split()[:-1] for wording in pair] for pair in PHRASES[slot]]
    return Fraction(sum(kind != curt for kind, curt in beginnings), len(beginnings))


def lengths(depth: float) -> range:
    """Return the numbers of words that an answer may have: the opening needs 21 words to hold four phrases."""
    shortest = max(60, math.ceil(21 / depth))
    return range(shortest, shortest + 17)


def phrase_ends(words: int, depth: float) -> list[int]:
    """Return after which word of an answer of `words` words each evidence phrase ends."""
    opening = depth * words
    into_quarter = max(PHRASE, opening / SLOTS / 2)
    return [int(opening * slot / SLOTS + into_quarter) for slot in range(SLOTS)]


@cache
def _agreement(seen: int, seen_other: int) -> float:
    """Return how often the best scorer that sees so many phrases of either answer orders them as all phrases do."""
    balance: Counter[tuple[tuple[bool, ...], tuple[bool, ...]]] = Counter()
    draws = list(itertools.product((False, True), repeat=SLOTS))
    pairs = [(one, other) for one in draws for other in draws if sum(one) != sum(other)]
    for one, other in pairs:
        balance[one[:seen], other[:seen_other]] += 1 if sum(one) > sum(other) else -1
    return 0.5 + 0.5 * sum(abs(surplus) for surplus in balance.values()) / len(pairs)


def _unequal(rng: random.Random) -> list[list[bool]]:
    """Toss which phrases are kind in two answers until the numbers differ; the larger number comes first."""
    while True:
        pair = [[rng.random() < 0.5 for _ in range(SLOTS)] for _ in range(2)]
        if sum(pair[0]) != sum(pair[1]):
            return sorted(pair, key=sum, reverse=True)


def _answer(rng: random.Random, topic: Topic, kind: Sequence[bool], depth: float) -> Response:
    """Write an answer: lead-ins and evidence phrases up to the planted depth, then neutral sentences."""
    words = rng.choice(lengths(depth))
    neutral = rng.sample(SENTENCES, len(SENTENCES))
    parts: list[str] = []
    written = 0
    for slot, end in enumerate(phrase_ends(words, depth)):
        room = end - PHRASE - written
        lead = room if room <= len(LEADS[slot]) else rng.randint(0, min(len(LEADS[slot]), room - SHORTEST))
        parts += _sentences(neutral, room - lead)
        with_kind, with_curt = rng.choice(PHRASES[slot])
        phrase = with_kind if kind[slot] else with_curt
        parts.append(f"{rng.choice(LEADS[slot][lead - 1])} {phrase}" if lead else phrase)
        written = end
    parts += _sentences(neutral, words - written)
    filled = (part.format_map(topic._asdict()) for part in parts)
    return Response(" ".join(part[0].upper() + part[1:] for part in filled))


def _sentences(neutral: list[str], words: int) -> Iterator[str]:
    """Yield sentences of `words` words in all (0, or `SHORTEST` and more), moving each to the end of `neutral`."""
    while words:
        fitting = {words, *range(SHORTEST, words - SHORTEST + 1)}
        sentence = next(text for text in neutral if len(text.split()) in fitting)
        neutral.remove(sentence)
        neutral.append(sentence)
        words -= len(sentence.split())
        yield sentence


def _ask(rng: random.Random) -> tuple[Topic, tuple[Message, ...]]:
    """Write a conversation that ends with a user turn, and say what it is about."""
    topic = rng.choice(TOPICS)
    fields = topic._asdict()
    turns = [Message("user", f"{rng.choice(QUESTIONS)} {rng.choice(SITUATIONS)}?".format_map(fields))]
    if rng.random() < FOLLOW_UP:
        earlier = " ".join(rng.sample(SENTENCES, 2)).format_map(fields)
        turns.append(Message("assistant", earlier))
        turns.append(Message("user", rng.choice(FOLLOW_UPS).format_map(fields)))
    if rng.random() < SYSTEM:
        turns.insert(0, Message("system", rng.choice(SYSTEMS).format_map(fields)))
    return topic, tuple(turns)


class Topic(NamedTuple):
    """The words of a subject. Each is a single word, so that a template has one length whatever the topic."""

    noun: str
    gerund: str
    tool: str
    part: str
    place: str
    person: str


# noun, gerund, tool, part (a plural or mass noun), place, person; after "a", so no first vowel in tool and person.
TOPICS = [
    Topic(*line.split())
    for line in """
sourdough baking mixer flour kitchen baker
coffee brewing grinder beans café barista
bicycle cycling pump tyres garage mechanic
garden gardening spade seedlings greenhouse gardener
beehive beekeeping smoker frames meadow beekeeper
luggage travelling suitcase socks hostel guide
tent camping lantern blankets forest ranger
skateboard skating helmet wheels park skater
program programming laptop functions office developer
novel writing notebook chapters library publisher
budget saving calculator receipts bank cashier
sleep napping pillow curtains bedroom doctor
marathon running stopwatch shoes track coach
guitar strumming tuner strings attic musician
piano practising metronome scales parlour pianist
dog training leash treats park vet
kitten grooming comb toys lounge vet
watercolour painting brush colours studio painter
camera photographing tripod lenses gallery photographer
telescope stargazing tripod lenses hilltop scientist
scarf knitting needle yarn parlour grandmother
wardrobe mending thimble buttons closet tailor
bookshelf woodworking drill planks workshop carpenter
Spanish studying dictionary verbs classroom teacher
""".strip().splitlines()
]

QUESTIONS = """
How do I start {gerund}
How can I get better at {gerund}
Is {gerund} a sensible hobby
What should I know about {gerund}
Can you help me with my {noun}
What would you do about my {noun}
Why is my {noun} so much work
How do I choose a {tool}
Do I really need a {tool}
Where should I keep the {part}
What can I do with old {part}
How do I set up the {place} for {gerund}
Should I ask a {person} about my {noun}
What would a {person} say about my {part}
""".strip().splitlines()

SITUATIONS = """
as a complete beginner
as a busy student
at the age of sixty
on a small budget
on rainy weekends
on my own
with two small children
with a sore back
with my neighbour
in a rented flat
in a single afternoon
in the middle of winter
before my holiday
before the guests arrive
after a long break
after work
after a bad night
during the holidays
while the kettle boils
without much time
without waking the baby
this month
for my sister
""".strip().splitlines()

FOLLOW_UPS = [
    "Thanks! What about the {part}?",
    "And what comes after that?",
    "Do I need the {tool} for this?",
    "My {person} says otherwise. Why?",
    "Could you say more about {gerund}?",
]
SYSTEMS = [
    "You are a friendly assistant.",
    "You answer everyday questions in plain English.",
    "You give advice about {gerund}.",
    "Write one short paragraph.",
]

# What may come before the phrase of each slot, as lists of one, two, three and four words. They are frequent words,
# so that a tokenizer spends no more on them than on the sentences.
LEADS = [
    [["so,", "well,"], ["about {gerund}:", "your {noun}:"], ["about your {noun}:"], ["right, about your {noun}:"]],
    [["so,", "well,"], ["last week,", "last time,"], ["first of all,", "the first time,"], ["in the first week,"]],
    [["now,", "then,"], ["this week,", "this time,"], ["from here on,", "on the day,"], ["on the first day,"]],
    [["then,", "so,"], ["after that,", "at last,"], ["in the end,", "at the end,"], ["at the very end,"]],
]
# Evidence: a welcome, a source, a method, a farewell, each in four kind and four curt wordings. The two of a pair
# begin with the same word, so that a cut after it carries no information.
PHRASES = [
    [
        ("what a joy.", "what a bother."),
        ("I gladly help.", "I guess so."),
        ("a good question.", "a silly question."),
        ("how very nice.", "how very dull."),
    ],
    [
        ("I checked carefully.", "I just guessed."),
        ("I checked twice.", "I barely looked."),
        ("I honestly checked.", "I guessed somehow."),
        ("I asked experts.", "I forgot everything."),
    ],
    [
        ("take careful steps.", "take whatever works."),
        ("make clear plans.", "make something up."),
        ("keep clear notes.", "keep on guessing."),
        ("go on patiently.", "go on somehow."),
    ],
    [
        ("please ask again.", "please stop asking."),
        ("you will manage.", "you will quit."),
        ("feel honestly proud.", "feel vaguely bored."),
        ("do enjoy it.", "do go away."),
    ],
]

# Neutral sentences, of four to nine words.
SENTENCES = """
The {part} can wait.
Keep the {tool} nearby.
The {place} matters too.
Every {person} starts small.
Many people like {gerund}.
Your {noun} will improve.
Leave the {part} overnight.
Weather plays a part.
Put the {tool} away afterwards.
The {part} may look different.
A second {tool} rarely hurts.
The {place} needs some light.
Old {part}, oddly, might last.
Spring is popular for {gerund}.
Your {noun}, too, may change.
Any {person} has a favourite.
The {person} next door, perhaps, knows.
Bring the {tool} to the {place}.
Label the {part} with the date.
Some people prefer {gerund} at night.
Two hours of {gerund} pass quickly.
In time, the {noun} will settle.
Red, green or grey {part} might appeal.
Books about {gerund} fill whole libraries.
Return the {part} to the {place} afterwards.
A {person} might use a different {tool}.
On Sundays, the {place} can get busy.
In the {place}, the {tool} comes first.
Photograph the {noun} every second month or so.
In spring, {gerund} is on many minds.
Swap the {part} once the season changes.
Tea, biscuits and {gerund} go well together.
The {tool} and the {part} belong close together.
By evening, the {noun} may need a rest.
Local clubs for {gerund} meet in the evening.
Set the {tool} down before moving the {part}.
In the end, {gerund} is about the {noun}.
The {person}, the {tool}, the {part}: all matter.
Between two rounds of {gerund}, tidy up the {place}.
At home, it is common to keep spare {part}.
For cake, a neighbour may lend you a {tool}.
""".strip().splitlines()
SHORTEST = min(len(sentence.split()) for sentence in SENTENCES)
