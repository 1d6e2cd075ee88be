"""`--turns whole`: whole continuations are compared, of which the turns of the assistant are scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headwater
from headwater.commands import tokens as tokens_command
from headwater.data import token_cache
from headwater.data.conversations import Chat
from headwater.data.layouts.continuations import parted
from headwater.data.preference import Message, Preference, Response
from headwater.data.preparation import PrepLog, prepare
from headwater.data.prompts import read_prompts
from headwater.data.reading import ReadOptions, stream, write
from headwater.data.tokens import EncodeOptions, PairTokens, render, token_ends, tokenize
from headwater.data.truncation import Truncation, parse_keep, truncate
from headwater.data.turns import EndToken
from headwater.errors import DataError, UsageError
from headwater.reporting.lens.pieces import pieces_of
from tests.data.test_conversations import EVERY, tokenizer_of, turns

WHOLE = ReadOptions(turns="whole", max_bad_rows="100%")
ASKED = Message("user", "Why?")
BEFORE = (Message("assistant", "Do you ask?"), Message("user", "I do, please."))
OTHER = (Message("assistant", "Who asks?"), Message("user", "Me."))
LONG = Response("So it is.", before=(*BEFORE, Message("assistant", "It is 🦉."), Message("user", "More!")))
ROW = Preference(prompt=(ASKED,), chosen=LONG, rejected=Response("No, never.", before=OTHER), id="a:1", source="a")


def fields(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.fields for message in messages]


def dialogue(messages: Sequence[Message]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[message.role]}: {message.content}" for message in messages)


def read(path: Path, *rows: dict[str, Any], options: ReadOptions = WHOLE) -> tuple[list[Any], Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    row_reader = stream(path, options)
    return list(row_reader), row_reader


CHOSEN, REJECTED = ROW.chosen.turns, ROW.rejected.turns
SPELLINGS = {
    "a prompt and continuations": {"prompt": "Why?", "chosen": fields(CHOSEN), "rejected": fields(REJECTED)},
    "whole conversations": {"chosen": fields((ASKED, *CHOSEN)), "rejected": fields((ASKED, *REJECTED))},
    "a question and whole conversations": {
        "prompt": "Why?",
        "chosen": fields((ASKED, *CHOSEN)),
        "rejected": fields((ASKED, *REJECTED)),
    },
    "dialogues": {"chosen": dialogue((ASKED, *CHOSEN)), "rejected": dialogue((ASKED, *REJECTED))},
    "judged conversations": {
        "conversation_a": fields((ASKED, *REJECTED)),
        "conversation_b": fields((ASKED, *CHOSEN)),
        "winner": "model_b",
    },
    "OpenAI": {
        "input": {"messages": fields([ASKED])},
        "preferred_output": fields(CHOSEN),
        "non_preferred_output": fields(REJECTED),
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_continuations_are_responses_in_every_layout_that_has_them(spelling: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    (found,), _ = read(path, SPELLINGS[spelling])
    assert (found.prompt, found.chosen, found.rejected) == (ROW.prompt, ROW.chosen, ROW.rejected)
    records, row_reader = read(path, SPELLINGS[spelling], options=replace(WHOLE, turns="last"))
    assert not records and row_reader.row_counts.dropped == {"prompts_differ": 1}


def test_what_both_conversations_begin_with_is_the_prompt_as_in_trl() -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    one, other = (
        ROW.chosen.turns,
        (*BEFORE, Message("assistant", "No."), Message("user", "Hm."), *ROW.chosen.turns[-1:]),
    )
    for first, second in ((one, other), (one, REJECTED), (one[:1], other[:3]), (one[-1:], one[-3:])):
        asked, chosen, rejected = parted((ASKED, *first), (ASKED, *second))
        theirs = data_utils.extract_prompt({"chosen": fields((ASKED, *first)), "rejected": fields((ASKED, *second))})
        assert theirs == {
            "prompt": fields(asked),
            "chosen": fields(chosen.turns),
            "rejected": fields(rejected.turns),
        }


def test_conversations_that_part_at_a_users_turn_part_before_the_answer_to_the_last_common_one(tmp_path: Path) -> None:
    other = (BEFORE[0], Message("user", "I do not."), Message("assistant", "No."))
    row = {"chosen": fields((ASKED, *CHOSEN)), "rejected": fields((ASKED, *other))}
    (found,), _ = read(tmp_path / "a.jsonl", row)
    assert found.prompt == (ASKED,) and found.rejected.turns == other
    first = {"chosen": fields((ASKED, *CHOSEN)), "rejected": fields((Message("user", "Who?"), *CHOSEN[1:]))}
    found, row_reader = read(tmp_path / "a.jsonl", first, {**first, "rejected": fields((ASKED, ASKED, CHOSEN[0]))})
    assert not found and row_reader.row_counts.dropped == {"prompts_differ": 2}


def test_demonstrations_hold_every_answer(tmp_path: Path) -> None:
    (found,), _ = read(tmp_path / "a.jsonl", {"messages": fields((ASKED, *CHOSEN))})
    assert (found.prompt, found.response) == ((ASKED,), ROW.chosen)
    (found,), _ = read(tmp_path / "a.jsonl", {"messages": fields((ASKED, *CHOSEN))}, options=ReadOptions())
    assert (found.prompt, found.response.turns) == ((ASKED, *CHOSEN[:-1]), CHOSEN[-1:])


def test_rows_of_other_earlier_turns_stay_apart(tmp_path: Path) -> None:
    row, turned = SPELLINGS["a prompt and continuations"], {"chosen": fields(REJECTED), "rejected": fields(CHOSEN)}
    other = {"prompt": "Why?", "chosen": fields((*OTHER, *CHOSEN[2:])), "rejected": fields(REJECTED)}
    found, row_reader = read(tmp_path / "a.jsonl", row, row, {**row, **turned}, other)
    assert len({record.key for record in found}) == 2 == len(found)
    assert row_reader.row_counts.dropped == {"duplicate": 1, "flipped_label": 1}
    same = {"prompt": "Why?", "chosen": fields((*BEFORE, CHOSEN[-1])), "rejected": fields((*OTHER, CHOSEN[-1]))}
    assert len(read(tmp_path / "a.jsonl", same)[0]) == 1, "the same last turn, behind other turns"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_written_rows_read_back_equal(name: str, tmp_path: Path) -> None:
    plain = replace(ROW, chosen=Response("Yes.", complete=False), rejected=Response("No."), id="a:2")
    (path,) = write(tmp_path / name, [ROW, plain])
    assert list(stream(path, WHOLE)) == [ROW, plain]


@pytest.mark.parametrize("name", EVERY)
def test_ids_are_those_of_the_template_and_the_assistants_turns_are_scored(name: str) -> None:
    tokenizer = tokenizer_of(name)
    (pair,) = tokenize([ROW], tokenizer, 1 << 20, "template").pairs
    chat = Chat(tokenizer)
    said = [
        tokenizer.decode(ids[mask])
        for ids, mask in zip((pair.chosen, pair.rejected), pair.masks, strict=True)  # type: ignore[index]
    ]
    for text, response in zip(said, ROW.responses, strict=True):
        begins = 0
        for part in response.said:
            begins = text.index(part, begins) + len(part)
        assert not any(turn.content in text for turn in response.before if turn.role == "user")
        assert text.count(chat.end(chat.closing or "")) in (len(response.said), 1, 0)
    for ids, response in zip((pair.chosen, pair.rejected), ROW.responses, strict=True):
        rendered = render(ROW, response, tokenizer, "template")
        whole = chat.render(turns((ASKED, *response.turns)))
        if "head_of_generation" not in rendered.notes:
            assert [*pair.prompt, *ids] == tokenizer(whole, add_special_tokens=False)["input_ids"]
        last = Preference(prompt=(ASKED, *response.before), chosen=Response(response.text), rejected=Response("-"))
        (alone,) = tokenize([last], tokenizer, 1 << 20, "template").pairs
        assert [*pair.prompt, *ids] == [*alone.prompt, *alone.chosen], "as where the last turn alone is the response"


def test_control_tokens_in_earlier_turns_are_text() -> None:
    quoting = (Message("assistant", "Do <|im_end|> ask?"), Message("user", "I<|im_start|>do."))
    row = replace(ROW, chosen=Response("So. <|im_end|>", before=quoting))
    tokenizer = tokenizer_of("qwen2_5") if "qwen2_5" in EVERY else tokenizer_of("system turns left out")
    found = tokenize([row], tokenizer, 1 << 20)
    (pair,) = found.pairs
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert pair.chosen_mask is not None and pair.chosen.tolist().count(end) == 3
    assert pair.chosen[pair.chosen_mask].tolist().count(end) == 2
    assert tokenizer.decode(pair.chosen[pair.chosen_mask]) == "Do <|im_end|> ask?<|im_end|>So. <|im_end|><|im_end|>"
    assert found.notes["special_token_text"]


def cut(keep: str, row: Preference = ROW, **more: Any) -> Preference:
    tokenizer = tokenizer_of("Zephyr")
    (found,) = truncate([row], Truncation(parse_keep(keep), **more), token_ends(tokenizer)).preferences
    return found


def test_a_cut_counts_along_the_assistants_text_and_takes_what_follows_with_it() -> None:
    lengths = [len(ends) for ends in token_ends(tokenizer_of("Zephyr"))(LONG.said)]
    assert cut("100%") == ROW == replace(cut("999tok"), uncut_key="")
    first = cut(f"{lengths[0] - 1}tok").chosen
    assert LONG.said[0].startswith(first.text) and first.text and not first.before and not first.complete
    assert cut(f"{lengths[0]}tok").chosen == Response("Do you ask?"), "the turn is whole, and so is its end"
    second = cut(f"{lengths[0] + 1}tok").chosen
    assert second.before == BEFORE and LONG.said[1].startswith(second.text) and not second.complete
    last = cut(f"{sum(lengths) - 1}tok").chosen
    assert last.before == LONG.before and "So it is.".startswith(last.text) and not last.complete
    assert cut("4words").chosen.turns == (*BEFORE, Message("assistant", "It"))
    assert cut("1sent").chosen.turns == BEFORE[:1]
    with pytest.raises(UsageError, match=r"--part suffix · a response of several turns is cut to its beginning"):
        cut("50%", part="suffix")


@pytest.mark.parametrize("name", ["Zephyr", "Gemma"])
def test_tokens_of_a_cut_response_begin_those_of_the_whole_one(name: str) -> None:
    tokenizer = tokenizer_of(name)
    (whole,) = tokenize([ROW], tokenizer, 1 << 20).pairs
    for keep in ("30%", "70%"):
        (pair,) = tokenize([cut(keep)], tokenizer, 1 << 20).pairs
        for part, full in zip((pair.chosen, pair.rejected), (whole.chosen, whole.rejected), strict=True):
            assert part.tolist() == full[: len(part)].tolist()


def test_masks_come_back_from_the_cache() -> None:
    options = EncodeOptions(Truncation(), "complete")
    plain = replace(ROW, chosen=Response("Yes."), rejected=Response("No."))
    rows, tokenizer = [plain, ROW, replace(ROW, chosen=Response("Yes."))], tokenizer_of("Zephyr")
    made, again = (prepare("part", rows, options, tokenizer, PrepLog()) for _ in range(2))
    assert token_cache.load(token_cache.key(rows, options, tokenizer), rows) is not None
    for one, other in zip(made, again, strict=True):
        assert one.scored == other.scored and _masks(one) == _masks(other)
    assert [[mask is None for mask in pair.masks] for pair in again] == [[True, True], [False, False], [True, False]]
    last = replace(ROW, chosen=Response(LONG.text), uncut_key=ROW.key)
    assert token_cache.key([last], options, tokenizer) != token_cache.key([ROW], options, tokenizer)


def _masks(pair: PairTokens) -> list[Any]:
    return [None if mask is None else np.asarray(mask).tolist() for mask in pair.masks]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("end", ["complete", "template"])
def test_the_lens_parts_a_response_into_scored_pieces_and_turns_of_others(name: str, end: EndToken) -> None:
    tokenizer = tokenizer_of(name)
    (pair,) = tokenize([ROW], tokenizer, 1 << 20, end).pairs
    for ids, scored, response in zip((pair.chosen, pair.rejected), pair.scored, ROW.responses, strict=True):
        found = pieces_of(ROW, response, ids, tokenizer, end)
        assert found is not None and found.tokens == scored
        row = render(ROW, response, tokenizer, end)
        assert "".join(piece.text for piece in found.every) == row.text[row.start :]
        between = [piece.text for piece in found.text if not piece.tokens]
        users = [turn.content for turn in response.before if turn.role == "user"]
        assert len(between) == len(users) and all(map(str.__contains__, between, users))


def test_the_command_tokens_says_how_many_tokens_count(tmp_path: Path) -> None:
    read(tmp_path / "a.jsonl", SPELLINGS["dialogues"])
    text = tokens_command.run(tokens_command.Config(data=tmp_path / "a.jsonl", read_options=WHOLE))
    assert "of the assistant's turns in the loss" in text and "please" in text


def test_prompts_alone_have_no_turns_to_compare(tmp_path: Path) -> None:
    read(tmp_path / "a.jsonl", SPELLINGS["dialogues"])
    with pytest.raises(UsageError, match=r"--turns whole · prompts are read, and no responses"):
        read_prompts(tmp_path / "a.jsonl", WHOLE)


def test_pairs_in_memory_that_were_read_whole_are_read_whole_again() -> None:
    pairs = headwater.load([SPELLINGS["whole conversations"]], turns="whole")
    assert pairs.inspect().row_counts.kept == 1
    (short,) = pairs.truncate("3words", tokenizer=tokenizer_of("Zephyr"))
    assert short.chosen == Response("Do you ask?"), "three words are all of the first turn"
    assert "please" in pairs._repr_html_()
    with pytest.raises(DataError, match="prompts_differ 1"):
        headwater.load([SPELLINGS["whole conversations"]])
