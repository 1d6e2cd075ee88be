"""Render a conversation by its chat template, and locate a response in the rendered text.

    prompt     what the template writes for generation: the messages, and the header of the answer
    opening    what it writes between that header and a response: white space, a channel header, an empty reasoning
               block. The model has to generate it, so it belongs to the response
    response   the text of the data
    closing    the end of the turn

A response is located by rendering the conversation a second time with a marker in its place. Two kinds of templates
need more. Some write different headers before past answers and before one to be generated (DeepSeek R1 opens a
reasoning block for the latter only): the header of generation is used, because that is what a model is given. Others
remove or rewrite the reasoning of an answer: such an answer is kept as in the data, because that is what a model
generates.

A prompt that ends in an assistant turn is the beginning of the answer, which the response continues.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from headwater.data.earlier_turns import Earlier, end_of_call
from headwater.data.encoding import ControlTokens, Span, encoder_of
from headwater.data.preference import Message, Prompted, Response, fields_of
from headwater.data.templates import FLAG, SENTINEL, ChatTemplate, RefusedError, Turn, assistant, tool_template
from headwater.data.tokenizers import Tokenizer
from headwater.data.turns import Written, end_text
from headwater.errors import ModelError

REASONING = re.compile(r"[<\[][/|]*[^<>\[\]]*(?:think|thought|reason|analysis|channel)[^<>\[\]]*[>\]]", re.IGNORECASE)
"""A tag that opens or closes reasoning: `<think>`, `[/THINK]`, `<|channel|>` …"""
ADDED_SYSTEM = "system_prompt_of_template"
"""Rule of a template that adds a system turn; its text follows in brackets."""
SHOWN = 60
"""Characters of this text that are shown."""
TAG = re.compile(r"[<\[][^<>\[\]\s]+[>\]]")


class Rendered(NamedTuple):
    """A response rendered in its conversation: the text to encode, and character positions in it."""

    text: str
    start: int
    """Where the prompt ends; opening, response and closing follow."""
    body: Span
    """Position of the response."""
    skipped: int = 0
    """Number of leading characters of the response that the text lacks: white space that the template strips, or a tag
    that already ends the prompt.
    """
    control: tuple[Span, ...] | None = None
    """Positions of the template's control tokens, if the data spells some too; None: wherever they are spelled."""
    notes: tuple[str, ...] = ()
    """Rules that were applied, by name."""
    turns: tuple[Span, ...] = ()
    """Positions of the assistant's turns in a response that has several; they alone are the assistant's."""


class Chat(ChatTemplate):
    """A chat template, and what else of the tokenizer a conversation needs."""

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        """Take the template, or another one than the tokenizer's own. Errors: `ModelError` where there is none."""
        super().__init__(tokenizer, template)
        self.tokens: ControlTokens = encoder_of(tokenizer).tokens
        self.notes = ("date_in_prompt",) if self.tells_date else ()
        """Rules that are applied to every conversation."""
        self.notes_without_system = (f"{ADDED_SYSTEM} ({_shortened(self.own_system)})",) if self.own_system else ()
        """Rules that are applied to conversations without a system turn."""
        self._ends: dict[str, str] = {}

    @cached_property
    def with_tools(self) -> Chat:
        """The chat of conversations with tools, for which some tokenizers have a template of their own."""
        template = tool_template(self.tokenizer)
        return self if template is None else Chat(self.tokenizer, template)

    def end(self, after: str) -> str:
        """Return what of the text `after` a response ends the turn. Errors: `ModelError` where nothing does."""
        if after not in self._ends:
            self._ends[after] = end_text(after, self.tokenizer)
        return self._ends[after]


class Conversation:
    """The prompt of a row, rendered once for all its responses."""

    def __init__(self, chat: Chat, row: Prompted, before: tuple[Message, ...] = ()) -> None:
        """Render the prompt, and the turns `before` the last one of a response behind it. Errors: `RefusedError`."""
        self._row, self._before = row, before
        turns, self._tools = fields_of((*row.conversation, *before))
        self._chat = chat = chat.with_tools if self._tools else chat
        extras = [turn[key] for turn in turns if len(turn) > 2 for key in turn if key != "role"]
        texts = itertools.chain([turn["content"] for turn in turns], _texts([extras, self._tools]))
        self._quotes = any(map(chat.tokens.spelled_in, texts))
        if self._quotes:
            self._tools = _hidden(self._tools, chat.tokens)
            turns = [_hidden_turn(turn, chat.tokens) for turn in turns]
        self._begun = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
        self._notes = [*chat.notes, *(() if _begins_with_system(turns) else chat.notes_without_system)]
        self._notes += [] if self._begun is None else ["answer_begun_in_prompt"]
        self._turns, self._prompt = self._rendered(turns)
        if any(message.extra or message.role == "tool" for message in (*row.conversation, *before)):
            chat.check_tools(self._turns, self._tools)
        self._known: dict[tuple[Response, Written], Rendered] = {}

    def _rendered(self, turns: list[Turn]) -> tuple[list[Turn], str]:
        """Return the turns that the template accepts, and the prompt.

        A system turn that it refuses or omits is put before the first user turn, as models without system turns (Gemma)
        were trained.
        """
        folded = _folded(turns)
        try:
            prompt = self._render(turns, generate=True)
            if folded is None or turns[0]["content"].strip() in prompt:
                return turns, prompt
        except RefusedError:
            if folded is None:
                raise
        self._notes.append("system_in_user_turn")
        assert folded is not None
        return folded, self._render(folded, generate=True)

    def _render(self, turns: Sequence[Turn], *, generate: bool = False) -> str:
        return self._chat.render(turns, generate=generate, tools=self._tools)

    @cached_property
    def _marked(self) -> tuple[str, str]:
        """The texts that the template writes before and after a response."""
        before, found, after = self._render([*self._turns, assistant(SENTINEL)]).rpartition(SENTINEL)
        if not found:
            raise ModelError(self._row.id, "the chat template rewrites the response", f"give another: {FLAG}")
        return before, after

    def answered(self, response: Response, closing: Written) -> Rendered:
        """Render a response, and what closes the turn. Errors: `RefusedError`, `ModelError`."""
        if response.before != self._before:
            conversation = Conversation(self._chat, self._row, response.before)
            return conversation.answered(response, closing)
        key = (response, closing)
        if key not in self._known:
            self._known[key] = self._answered(response, closing)
        return self._known[key]

    def _answered(self, response: Response, closing: Written) -> Rendered:
        tokens = self._chat.tokens
        quotes = self._quotes or any(map(tokens.spelled_in, response.turns[-1].texts))
        words = tokens.hide(response.text) if quotes else response.text
        row = self._calling(response, quotes) if response.extra else self._located(words)
        said, after = row.text[: row.body[1]], row.text[row.body[1] :]
        if closing != "template":
            row = row._replace(text=said + (self._chat.end(after) if closing == "end" else ""))
        row = row._replace(notes=(*self._notes, *row.notes))
        if self._before:
            row = self._with_turns(row)
        if not quotes:
            return row

        def shown(place: int) -> int:
            return len(tokens.show(row.text[:place]))

        return Rendered(
            tokens.show(row.text),
            shown(row.start),
            (shown(row.body[0]), shown(row.body[1])),
            len(tokens.show(words[: row.skipped])),
            tokens.spans(row.text),
            (*row.notes, "special_token_text"),
            tuple((shown(start), shown(end)) for start, end in row.turns),
        )

    def _calling(self, response: Response, quotes: bool) -> Rendered:
        """Return the conversation through the end of a response that calls tools. Errors: `RefusedError`."""
        turn = response.turns[-1].fields
        turn = _hidden_turn(turn, self._chat.tokens) if quotes else turn
        if self._begun is not None:
            raise RefusedError("the prompt ends in an assistant turn, which a call of a tool does not continue")
        self._chat.check_tools([*self._turns, turn], self._tools)
        whole = self._render([*self._turns, turn])
        if not whole.startswith(self._prompt):
            raise RefusedError("the chat template writes another head before a call than before an answer")
        after = end_of_call(whole, self._chat, self._chat.tokens)
        return Rendered(whole, len(self._prompt), (len(self._prompt), len(whole) - len(after)))

    def _with_turns(self, row: Rendered) -> Rendered:
        """Return a row whose response begins with the first of several turns of the assistant."""
        first = len(self._turns) - len(self._before)
        if self._begun is not None or first < 1 or self._turns[first]["role"] != "assistant":
            raise RefusedError("the turns of the response continue an assistant turn that the prompt ends in")
        end = self._chat.end(self._chat.closing or "")
        earlier = Earlier(self._chat, self._turns, self._tools, row.text, end).spans(first)
        return row._replace(start=earlier[0][0], turns=(*earlier, (row.start, len(row.text))))

    def _located(self, words: str) -> Rendered:
        """Return the conversation through the end of the template's text, and the position of `words` in it."""
        begun = self._begun or ""
        answer = begun + words
        whole = self._render([*self._turns, assistant(answer)])
        if self._begun is None:
            plain = _as_it_is(whole, self._prompt, answer, self._chat.closing)
            if plain is not None:
                return plain
        before, after = self._marked
        prompt = self._head(before)
        thinks = REASONING.search(answer) is not None or _parts_at_tag(whole, before, after, answer)
        row = None
        if not (thinks and _doubles(before, answer, prompt)):
            row = _stripped(whole, before, after, answer, prompt) or _as_it_is(whole, prompt, answer, after)
        if row is None and thinks:
            row = _as_it_is(whole, prompt, answer, after) or _verbatim(before, after, answer, prompt)
        if row is None:
            raise ModelError(self._row.id, "the chat template rewrites the response", f"give another: {FLAG}")
        return row if self._begun is None else _continued(row, len(begun))

    def _head(self, before: str) -> str:
        """Return the prompt; `before` is what the template writes before a past answer."""
        if self._begun is not None:  # it is continued as a past answer is
            return before
        opening = before.removeprefix(self._prompt)
        if self._chat.has_generation_prompt or opening == before or not opening.strip():
            return self._prompt
        if "head_of_past_answer" not in self._notes:
            self._notes.append("head_of_past_answer")
        return before


def _begins_with_system(turns: Sequence[Turn]) -> bool:
    return bool(turns) and turns[0]["role"] == "system"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in lists and objects, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(item)


def _hidden_turn(turn: Turn, tokens: ControlTokens) -> Turn:
    return {key: value if key == "role" else _hidden(value, tokens) for key, value in turn.items()}


def _hidden(value: Any, tokens: ControlTokens) -> Any:
    """Return a value with the control tokens in its texts hidden."""
    if isinstance(value, str):
        return tokens.hide(value)
    if isinstance(value, dict):
        return {tokens.hide(key): _hidden(item, tokens) for key, item in value.items()}
    return [_hidden(item, tokens) for item in value] if isinstance(value, list) else value


def _folded(turns: Sequence[Turn]) -> list[Turn] | None:
    """Return the turns with the system turn at the beginning of the first user turn; None where there are no two."""
    if [turn["role"] for turn in turns[:2]] != ["system", "user"]:
        return None
    system, user = turns[:2]
    return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *turns[2:]]


def _as_it_is(whole: str, prompt: str, answer: str, after: str | None) -> Rendered | None:
    """Return a rendering that is prompt, answer and `after`; None where it is not."""
    end = len(prompt) + len(answer)
    if after is None or len(whole) != end + len(after):
        return None
    if not (whole.startswith(prompt) and whole.startswith(answer, len(prompt)) and whole.endswith(after)):
        return None
    return Rendered(whole, len(prompt), (len(prompt), end))


def _stripped(whole: str, before: str, after: str, answer: str, prompt: str) -> Rendered | None:
    """Return a rendering that holds the answer where the mark stood, perhaps without white space at its ends."""
    if len(whole) < len(before) + len(after) or not (whole.startswith(before) and whole.endswith(after)):
        return None
    written = whole[len(before) : len(whole) - len(after)]
    skipped = (len(answer) - len(answer.lstrip())) - (len(written) - len(written.lstrip()))
    if written.strip() != answer.strip() or skipped < 0 or not answer.startswith(written, skipped):
        return None
    return _headed(before, written + after, len(written), skipped, prompt)


def _headed(before: str, rest: str, length: int, skipped: int, prompt: str) -> Rendered:
    """Put the head that generation gives before an answer; `rest` begins with its `length` characters."""
    if before == prompt:
        return Rendered(before + rest, len(prompt), (len(prompt), len(prompt) + length), skipped)
    if before.startswith(prompt):
        body = (len(before), len(before) + length)
        return Rendered(before + rest, len(prompt), body, skipped, notes=("template_opens_response",))
    body = (len(prompt), len(prompt) + length)
    return Rendered(prompt + rest, len(prompt), body, skipped, notes=("head_of_generation",))


def _parts_at_tag(whole: str, before: str, after: str, answer: str) -> bool:
    """Return whether the template leaves out what an answer holds before one of its tags, such as `[FINAL ANSWER]`."""
    if len(whole) < len(before) + len(after) or not (whole.startswith(before) and whole.endswith(after)):
        return False
    written = whole[len(before) : len(whole) - len(after)].strip()
    left_out = answer.strip().removesuffix(written).rstrip()
    return bool(written) and left_out != answer.strip() and left_out.endswith((">", "]"))


def _doubles(before: str, answer: str, prompt: str) -> bool:
    """Return whether an answer holds thoughts for which the prompt, or the template, opens a block already."""
    return _behind_open_tag(prompt, answer) != answer or _closes(before, answer, prompt)


def _closes(before: str, answer: str, prompt: str) -> bool:
    """Return whether the template would close a block of thoughts, before an answer, that the answer closes itself."""
    tags = TAG.findall(before[len(prompt) :]) if before.startswith(prompt) else []
    return bool(tags) and tags[-1] in answer


def _verbatim(before: str, after: str, answer: str, prompt: str) -> Rendered:
    """Return the conversation with an answer that holds its reasoning, which the template would remove or rewrite."""
    rest = _behind_open_tag(prompt, answer)
    if rest != answer:
        body = (len(prompt), len(prompt) + len(rest))
        row = Rendered(prompt + rest + after, len(prompt), body, len(answer) - len(rest))
    else:
        head = prompt if _closes(before, answer, prompt) else before
        row = _headed(head, answer + after, len(answer), 0, prompt)
    return row._replace(notes=(*row.notes, "reasoning_kept"))


def _behind_open_tag(prompt: str, answer: str) -> str:
    """Return an answer without the tag that opens its thoughts, where the prompt ends with that tag already."""
    tags = REASONING.findall(prompt)
    if not tags or not prompt.rstrip().endswith(tags[-1]) or not answer.lstrip().startswith(tags[-1]):
        return answer
    return answer.lstrip()[len(tags[-1]) :].removeprefix(prompt[len(prompt.rstrip()) :])


def _continued(row: Rendered, begun: int) -> Rendered:
    """Return a row whose prompt holds the first `begun` characters of the answer too."""
    begin = row.body[0] + max(0, begun - row.skipped)
    skipped = max(0, row.skipped - begun)
    notes = tuple(note for note in row.notes if note == "reasoning_kept")
    return row._replace(start=begin, body=(begin, row.body[1]), skipped=skipped, notes=notes)


def notes_of(rows: Sequence[Rendered]) -> Counter[str]:
    """Count the rules that were applied, by the responses that they were applied to."""
    return Counter(note for row in rows for note in row.notes)
