"""Groups of near-duplicate prompts, of which a selection takes one row each."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.data.preference import Message
from headwater.data.profiling import near_pairs


class PromptGroups:
    """Fills prompt by prompt with `add`; every different prompt is held, because any two are compared."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rows: list[int] = []

    def add(self, prompt: Sequence[Message]) -> None:
        """Take in the prompt of one row; case and white space do not count."""
        text = " ".join(word for message in prompt for word in message.shown.casefold().split())
        self._rows.append(self._numbers.setdefault(text, len(self._numbers)))

    def groups(self) -> list[int]:
        """Return the group of every row: prompts that are near-duplicates, also by way of others, share one."""
        first = list(range(len(self._numbers)))

        def root(number: int) -> int:
            while first[number] != number:
                first[number] = number = first[first[number]]
            return number

        for one, other in near_pairs({str(number): text for text, number in self._numbers.items()}):
            first[root(int(other))] = root(int(one))
        return [root(number) for number in self._rows]
