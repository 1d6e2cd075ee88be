"""Responses that call tools, and the other places in which tools are given or settled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.data.preference import Message, Preference, Response, Unpaired
from headwater.data.prompts import read_prompts
from headwater.data.reading import ReadOptions, stream, write
from headwater.data.templates import CHATML
from headwater.data.token_cache import key
from headwater.data.tokens import EncodeOptions, token_ends, tokenize
from headwater.data.truncation import Truncation, parse_keep, truncate
from headwater.errors import DataError
from headwater.evaluation.alpaca_eval import read_answers
from headwater.evaluation.judgement_files import read_all
from tests.data.test_tools import (
    ASKED,
    CALLS,
    FUNCTION,
    RESULT,
    SIDES,
    SKIP_BAD,
    TOOLS,
    TURNS,
    WITH_TOOLS,
    read,
    tokenizer_of,
)

CALL = {"role": "assistant", "content": "", "tool_calls": CALLS}
SAYING = {**CALL, "content": "Let me look it up."}
EXTRA = json.dumps({"tool_calls": CALLS}, separators=(",", ":"))
ROW = {"prompt": [ASKED], "tools": TOOLS, "chosen": [CALL], "rejected": [{"role": "assistant", "content": "No."}]}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Preference:
    (found,) = read(tmp_path_factory.mktemp("calls") / "a.jsonl", ROW)
    assert isinstance(found, Preference)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"chosen": CALL},
        {"chosen": [{k: v for k, v in CALL.items() if k != "content"}]},
        {"chosen": [{"role": "assistant", "content": None, "tool_calls": json.dumps(CALLS)}]},
        {"prompt": None, "chosen": [ASKED, CALL], "rejected": [ASKED, *ROW["rejected"]]},
        {"tools": None, "functions": [FUNCTION]},
        {"tool_choice": "auto", "function_call": "auto"},
    ],
)
def test_every_spelling_of_a_response_that_calls_is_one_record(
    fields: dict[str, Any], record: Preference, tmp_path: Path
) -> None:
    row = {name: value for name, value in (ROW | fields).items() if value is not None}
    (found,) = read(tmp_path / "a.jsonl", row)
    assert found == record
    assert (found.chosen, found.rejected) == (Response("", extra=EXTRA), Response("No."))
    assert found.prompt[0].extras == {"tools": TOOLS}


def test_openais_form_has_tools_in_its_input(record: Preference, tmp_path: Path) -> None:
    given = {"messages": [ASKED], "tools": TOOLS, "parallel_tool_calls": True}
    row = {"input": given, "preferred_output": [CALL], "non_preferred_output": ROW["rejected"]}
    path = tmp_path / "a.jsonl"
    (found,) = read(path, row)
    assert found == record
    row_reader = stream(path, ReadOptions())
    list(row_reader)
    assert row_reader.row_counts.not_read == ["input.parallel_tool_calls"]
    assert [turn.role for turn in read(path, row | {"preferred_output": [{**CALL, "tool_calls": []}]})] == []


def test_described_rows_may_have_tools(record: Preference, tmp_path: Path) -> None:
    row = {"ask": [ASKED], "data": {"functions": TOOLS}, "good": [CALL], "bad": "No."}
    options = ReadOptions(columns="prompt=ask, chosen=good, rejected=bad, tools=data.functions")
    assert read(tmp_path / "a.jsonl", row, options=options) == [record]
    plain = ReadOptions(columns="prompt=ask, chosen=good, rejected=bad")
    assert read(tmp_path / "a.jsonl", {**row, "data": None, "tools": TOOLS}, options=plain) == [record]
    asked = read_prompts(tmp_path / "a.jsonl", ReadOptions(columns="prompt=ask")).asked
    assert asked[0].request()["tools"] == TOOLS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": "required"}, "tool_choice changes what the row means"),
        ({"function_call": {"name": "weather"}}, "function_call changes what the row means"),
        ({"functions": [FUNCTION]}, "tools at two places"),
        ({"prompt": [ASKED, CALL]}, "the prompt ends in a call of a tool"),
        ({"chosen": [CALL, RESULT, {**ASKED, "tools": TOOLS}, CALL]}, "a turn of a response has tools"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = ReadOptions(turns="whole")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl", ROW | fields, options=whole)
    row_reader = stream(tmp_path / "a.jsonl", replace(SKIP_BAD, turns="whole"))
    assert not list(row_reader) and row_reader.quarantine.codes == {"TOOLS": 1}


def test_texts_alone_hold_no_calls(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        (ReadOptions(columns="prompt=q, responses=all"), {"q": [ASKED], "all": [CALL, "No."]}),
        (ReadOptions(), {"prompt": "Warm?", "response": [CALL], "score": 1}),
    ]
    for options, row in rows:
        with pytest.raises(DataError, match="ends in a call of a tool · expected a text"):
            read(path, row, options=options)
    path.write_text(json.dumps({"prompt": [ASKED], "completion": [CALL]}) + "\n")
    with pytest.raises(DataError, match="completion ends in a call of a tool"):
        read_answers(path, None, ReadOptions(columns="prompt=prompt, completion=completion").description)
    for row in ({"a": [CALL], "b": "No."}, {"a": "Yes.", "b": "No.", "tools": TOOLS}):
        path.write_text(json.dumps({"prompt": "Warm?", "winner": "a", **row}) + "\n")
        with pytest.raises(DataError, match=r"a ends in a call of a tool|tools changes what the row means"):
            read_all([path], ReadOptions(columns="a=a, b=b, winner=winner").description)


def test_a_prompt_that_ends_in_a_call_is_continued_by_its_result(tmp_path: Path) -> None:
    sides = {side: [RESULT, *SIDES[side]] for side in SIDES}
    expected = read(tmp_path / "a.jsonl", {"prompt": TURNS, **SIDES, "tools": TOOLS})
    for turns in ("last", "whole"):
        options = ReadOptions(turns=turns)  # type: ignore[arg-type]
        assert read(tmp_path / "a.jsonl", {"prompt": TURNS[:2], **sides, "tools": TOOLS}, options=options) == expected
    other = {**sides, "rejected": [{**RESULT, "content": "0"}, *SIDES["rejected"]]}
    assert read(tmp_path / "a.jsonl", {"prompt": TURNS[:2], **other, "tools": TOOLS}) == []
    with pytest.raises(DataError, match="a response begins with the result of a tool"):
        read(tmp_path / "a.jsonl", {"prompt": [ASKED], **sides, "tools": TOOLS})


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_written_calls_read_back_equal(name: str, record: Preference, tmp_path: Path) -> None:
    saying = replace(record, chosen=Response("Hm.", extra=EXTRA, score=1.0), id="b")
    one = Unpaired(prompt=record.prompt, response=record.chosen, label=True, id="d", source="d")
    for records in ([record, saying], [one]):
        (path,) = write(tmp_path / name, records)
        assert list(stream(path, ReadOptions())) == records


def test_calls_distinguish_responses(record: Preference, tmp_path: Path) -> None:
    other = [{**CALLS[0], "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
    rows = [ROW, {**ROW, "rejected": [{**CALL, "tool_calls": other}]}, {**ROW, "rejected": [CALL]}, ROW]
    row_reader = stream(_saved(tmp_path / "a.jsonl", rows), ReadOptions())
    first, second = list(row_reader)
    assert first.key != second.key
    assert row_reader.row_counts.dropped == {"identical_responses": 1, "duplicate": 1}
    options, tokenizer = EncodeOptions(Truncation(), "complete"), tokenizer_of(WITH_TOOLS)
    keys = {key([replace(each, uncut_key="k")], options, tokenizer) for each in (first, second)}
    assert len(keys) == 2
    assert record.chosen.shown.startswith('call {"name": "weather"')


def _saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("template", ["with tools", "qwen2_5", "qwen3", "lfm2_v2"])
def test_ids_of_a_call_are_those_of_the_template(template: str, record: Preference) -> None:
    from tests.data.test_conversations import EVERY

    if template != "with tools" and template not in EVERY:
        pytest.skip("TRL's templates are not installed")
    tokenizer = tokenizer_of(EVERY.get(template, WITH_TOOLS))
    saying = replace(record, rejected=Response(str(SAYING["content"]), extra=EXTRA))
    looked_up = (Message("assistant", "", EXTRA), Message("tool", RESULT["content"], json.dumps({"name": "weather"})))
    longer = replace(record, rejected=Response("31 degrees.", before=looked_up))
    for row in (saying, longer):
        found = tokenize([row], tokenizer, 1 << 20, "template")
        (pair,) = found.pairs
        for ids, response in ((pair.chosen, row.chosen), (pair.rejected, row.rejected)):
            turns = [ASKED, *(turn.fields for turn in response.turns)]
            theirs = tokenizer.apply_chat_template(turns, tools=TOOLS, tokenize=True, return_dict=False)
            assert [*pair.prompt, *ids] == theirs
    assert pair.rejected_mask is not None
    said = tokenizer.decode(pair.rejected[pair.rejected_mask])
    assert "Paris" in said and "31 degrees." in said and '"degrees": 31' not in said


def test_control_tokens_in_a_call_are_text(record: Preference) -> None:
    tokenizer = tokenizer_of(WITH_TOOLS)
    control = tokenizer.convert_tokens_to_ids("<|im_end|>")
    call = {"function": {"name": "weather", "arguments": {"<|im_end|>": "<|im_end|>"}}}
    row = replace(record, chosen=Response("<|im_end|>", extra=json.dumps({"tool_calls": [call]})))
    (pair,) = tokenize([row], tokenizer, 1 << 20).pairs
    assert pair.chosen.tolist().count(control) == 1 and pair.chosen[-1] == control


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, "leaves out tools"),
        (WITH_TOOLS.replace("message.tool_calls or []", "[]"), "leaves out calls of tools"),
        (WITH_TOOLS.replace("assistant\n{% endif %}", "model\n{% endif %}"), "writes another head before a call"),
    ],
)
def test_a_template_that_cannot_write_the_call_refuses_the_row(template: str, message: str, record: Preference) -> None:
    found = tokenize([record], tokenizer_of(template), 1 << 20)
    assert dict(found.row_counts.dropped) == {"template_refuses": 1}
    assert message in found.row_counts.first["template_refuses"]


def test_a_call_is_not_cut_inside(record: Preference) -> None:
    row = replace(record, chosen=Response("Let me look it up.", extra=EXTRA), rejected=Response("No, it is not warm."))
    tokenizer = tokenizer_of(WITH_TOOLS)

    def cut(keep: str, of: Preference = row) -> Response:
        return truncate([of], Truncation(parse_keep(keep)), token_ends(tokenizer)).preferences[0].chosen

    assert cut("999tok") == row.chosen and cut("100%") == row.chosen
    half = cut("50%")
    assert not half.extra and not half.complete and row.chosen.text.startswith(half.text) and half.text
    assert cut("50%", record) == record.chosen, "a call without a text is kept"


def test_a_tokenizers_own_template_for_tools_is_taken_where_there_are_tools(record: Preference) -> None:
    tokenizer = tokenizer_of(CHATML)
    several = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    several.chat_template = {"default": CHATML.replace("assistant", "bot"), "tool_use": WITH_TOOLS}
    plain = replace(record, prompt=(Message("user", "Warm?"),), chosen=Response("Yes."))
    with_tools, without = tokenize([record, plain], several, 1 << 20, "template").pairs
    theirs = several.apply_chat_template([ASKED, CALL], tools=TOOLS, tokenize=True, return_dict=False)
    assert [*with_tools.prompt, *with_tools.chosen] == theirs
    assert several.decode(without.prompt).endswith("bot\n")
    options = EncodeOptions(Truncation(), "complete")
    before = key([record], options, several)
    several.chat_template = several.chat_template | {"tool_use": WITH_TOOLS.replace("call>", "c>")}
    assert key([record], options, several) != before
