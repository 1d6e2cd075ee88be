"""Tools, calls of them and their results: read in the published forms, written, hashed, shown and rendered."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired, question_of
from headwater.data.prompts import read_prompts
from headwater.data.reading import ReadOptions, stream, write
from headwater.data.reading.reader import identity
from headwater.data.sampling import Asked
from headwater.data.templates import CHATML
from headwater.data.token_cache import key
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, tokenize
from headwater.data.truncation import Truncation
from headwater.errors import DataError
from headwater.evaluation.alpaca_eval import answer_to, as_rows
from headwater.evaluation.prompts import as_text
from headwater.rewards.sampling import prompt_ids
from tests.data.chat_templates import with_template

ARGUMENTS = {"city": "Paris", "at": 9}
FUNCTION = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}]
ASKED = {"role": "user", "content": "Warm?"}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": '{"degrees": 31}'}
TURNS = [ASKED, {"role": "assistant", "content": "", "tool_calls": CALLS}, RESULT]
SIDES = {
    "chosen": [{"role": "assistant", "content": "Yes, 31 degrees."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}
ROW = {"prompt": TURNS, **SIDES, "tools": TOOLS}
ANY = ReadOptions()
SKIP_BAD = ReadOptions(max_bad_rows="100%")

WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}\n<tool_call>{{ call.function.name }} "
    "{{ call.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def read(path: Path, *rows: dict[str, Any], options: ReadOptions = ANY) -> list[Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(stream(path, options))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Preference:
    (found,) = read(tmp_path_factory.mktemp("tools") / "a.jsonl", ROW)
    assert isinstance(found, Preference)
    return found


@functools.cache
def tokenizer_of(template: str) -> Tokenizer:
    return with_template(template)


def said(**more: Any) -> list[dict[str, Any]]:
    return [ASKED, {"role": "assistant", **more}, RESULT]


AS_TEXT = [{**CALLS[0], "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": said(content=None, tool_calls=AS_TEXT)},
        {"prompt": said(tool_calls=CALLS)},
        {"prompt": json.dumps(said(tool_calls=CALLS))},
        {"prompt": said(content="", tool_calls=json.dumps(CALLS)), "tools": json.dumps(TOOLS)},
        {"tools": json.dumps([FUNCTION])},
        {"prompt": [{**ASKED, "tools": TOOLS}, *TURNS[1:]], "tools": None},
        {"prompt": [ASKED], "chosen": [*TURNS[1:], *SIDES["chosen"]], "rejected": [*TURNS[1:], *SIDES["rejected"]]},
    ],
)
def test_every_spelling_of_a_call_and_of_tools_is_one_record(
    fields: dict[str, Any], record: Preference, tmp_path: Path
) -> None:
    (found,) = read(tmp_path / "a.jsonl", ROW | fields)
    assert found == record
    assert found.prompt == (
        Message("user", "Warm?", json.dumps({"tools": TOOLS}, separators=(",", ":"))),
        Message("assistant", "", json.dumps({"tool_calls": CALLS}, separators=(",", ":"))),
        Message("tool", '{"degrees": 31}', '{"tool_call_id":"c1","name":"weather"}'),
    )


def test_tools_of_llamafactory_are_read(tmp_path: Path) -> None:
    call = json.dumps({"name": "weather", "arguments": ARGUMENTS})
    turns = [("human", "Warm?"), ("function_call", call), ("observation", "31")]
    row = {
        "conversations": [{"from": role, "value": content} for role, content in turns],
        "tools": json.dumps([FUNCTION]),
        "system": "Be brief.",
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    (found,) = read(tmp_path / "a.jsonl", row)
    assert [(turn.role, turn.content) for turn in found.prompt] == [
        ("system", "Be brief."),
        ("user", "Warm?"),
        ("assistant", ""),
        ("tool", "31"),
    ]
    assert found.prompt[0].extras == {"tools": TOOLS}
    assert found.prompt[2].extras == {"tool_calls": [{k: CALLS[0][k] for k in ("type", "function")}]}
    assert replace(found, condition="Judge.").conversation[0].extras == {"tools": TOOLS}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": TURNS[:2]}, "the prompt ends in a call of a tool"),
        ({"tools": "weather"}, "tools is a str · expected a list"),
        ({"tools": [{"type": "function"}]}, "tools holds .* without the name of a function"),
        ({"prompt": [{**ASKED, "tool_calls": CALLS}]}, "tool call of the role user"),
        ({"prompt": [{**ASKED, "tools": TOOLS}]}, "tools at two places"),
        ({"prompt": [ASKED, {"role": "tool_call", "content": "weather()"}, RESULT]}, "a call that is no JSON"),
        ({"prompt": [ASKED, {**TURNS[1], "function_call": CALLS[0]["function"]}]}, "tool_calls and function_call"),
        ({"prompt": [{**ASKED, "tool_call_id": "c1"}]}, "tool_call_id in prompt changes what the row means"),
        ({"prompt": [*TURNS[:2], {**RESULT, "tool_call_id": 1}]}, "tool_call_id in prompt is an? int"),
    ],
)
def test_what_no_prompt_can_hold_is_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl", ROW | fields)
    row_reader = stream(tmp_path / "a.jsonl", SKIP_BAD)
    assert not list(row_reader)
    assert row_reader.quarantine.codes == {"TOOLS": 1}


def test_ignored_tools_are_not_read(tmp_path: Path) -> None:
    path, ignoring = tmp_path / "a.jsonl", ReadOptions(ignore_columns="tools")
    (found,) = read(path, ROW | {"prompt": [ASKED]}, options=ignoring)
    row_reader = stream(path, ignoring)
    assert list(row_reader) == [found]
    assert row_reader.row_counts.not_read == ["tools"]
    assert found.prompt == (Message("user", "Warm?"),)


def test_rows_with_one_prompt_and_other_tools_stay_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "Warm?", "response": f"{n}.", "score": n, "tools": TOOLS[: n < 2]} for n in range(4)]
    found = read(tmp_path / "a.jsonl", *rows, options=ReadOptions(layout="rated-responses"))
    assert [(bool(each.prompt[0].extra), len(each.responses)) for each in found] == [(True, 2), (False, 2)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_written_rows_read_back_equal(name: str, record: Preference, tmp_path: Path) -> None:
    plain = replace(record, prompt=(record.prompt[0], Message("assistant", "Hm."), Message("user", "So?")), id="b")
    several = Candidates(prompt=record.prompt, responses=(Response("Yes.", 1), Response("No.", 0)), id="c", source="c")
    one = Unpaired(prompt=record.prompt, response=Response("Yes.", 1.0), label=True, id="d", source="d")
    for records in ([record, plain], [several], [one]):
        (path,) = write(tmp_path / name, records)
        assert list(stream(path, ReadOptions())) == records


def test_parquet_refuses_calls_that_begin_late(record: Preference, tmp_path: Path) -> None:
    tools = record.prompt[:1]
    rows = [replace(record, prompt=tools, id=str(number)) for number in range(1000)]
    with pytest.raises(DataError, match="tool_calls, tool_call_id, name of messages is not in the first rows"):
        write(tmp_path / "a.parquet", [*rows, record])


def test_hashes_are_those_of_before_without_tools_and_others_with_them(record: Preference) -> None:
    plain = Preference(
        prompt=(Message("system", "Be brief."), Message("user", "Hi")), chosen=Response("Yes."), rejected=Response("No")
    )
    assert plain.key == "e706fa59c50a20ff3a76d5100041ca00"
    assert identity(plain)[0].hex() == "fb24ead541f6dacfacbcbeadfa83a357"
    assert Asked(plain.prompt, "", "").key == "4346489ece331148"
    options = EncodeOptions(Truncation(), "complete")
    cached = functools.partial(key, encode_options=options, tokenizer=tokenizer_of(WITH_TOOLS))
    for place, turn in enumerate(record.prompt):
        bare = [*record.prompt]
        bare[place] = replace(turn, extra="")
        other = replace(record, prompt=tuple(bare))
        assert other.key != record.key
        assert identity(other) != identity(record)
        assert Asked(other.prompt, "", "").key != Asked(record.prompt, "", "").key
        assert cached([replace(other, uncut_key="k")]) != cached([replace(record, uncut_key="k")])
        assert other.conversation_id == record.conversation_id


@pytest.mark.parametrize("template", ["with tools", "qwen2_5"])
def test_tokens_of_a_prompt_are_those_of_the_template_with_tools(template: str, record: Preference) -> None:
    from tests.data.test_conversations import EVERY

    if template != "with tools" and template not in EVERY:
        pytest.skip("TRL's templates are not installed")
    tokenizer = tokenizer_of(EVERY.get(template, WITH_TOOLS))
    found = tokenize([record], tokenizer, 10_000)
    assert found.row_counts.kept == 1
    theirs = tokenizer.apply_chat_template(
        TURNS, tools=TOOLS, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert found.pairs[0].prompt.tolist() == theirs
    assert "weather" in tokenizer.decode(theirs)
    (ids,) = prompt_ids([Asked(record.prompt, "a", "")], tokenizer, 10_000)
    assert ids is not None
    assert ids.tolist() == theirs


def test_control_tokens_in_arguments_are_text(record: Preference) -> None:
    tokenizer = tokenizer_of(WITH_TOOLS)
    control = tokenizer.convert_tokens_to_ids("<|im_end|>")
    call = {"function": {"name": "weather", "arguments": {"<|im_end|>": "<|im_end|>"}}}
    turn = replace(record.prompt[1], extra=json.dumps({"tool_calls": [call]}))
    row = replace(record, prompt=(record.prompt[0], turn, record.prompt[2]))
    plain, quoting = tokenize([record, row], tokenizer, 10_000).pairs
    assert quoting.prompt.tolist().count(control) == plain.prompt.tolist().count(control)


LEAVING_OUT = {
    "tools": WITH_TOOLS.replace("{% if tools %}", "{% if false %}"),
    "calls of tools": WITH_TOOLS.replace("message.tool_calls or []", "[]"),
    "the results of tools": WITH_TOOLS.replace(
        "{{ message.content }}", "{{ message.content if message.role != 'tool' }}"
    ),
    "tools and calls of tools": CHATML,
}


@pytest.mark.parametrize("what", LEAVING_OUT)
def test_a_template_that_leaves_them_out_refuses_the_row(what: str, record: Preference) -> None:
    plain = replace(record, prompt=(Message("user", "Is the weather in Paris warm at 9?"),))
    found = tokenize([plain, record], tokenizer_of(LEAVING_OUT[what]), 10_000)
    assert dict(found.row_counts.dropped) == {"template_refuses": 1}
    assert found.row_counts.kept == 1
    assert f"leaves out {what}; give one with tools" in found.row_counts.first["template_refuses"]


def test_prompts_may_end_in_a_result_and_go_to_servers_with_tools(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": TURNS, "tools": TOOLS}) + "\n", encoding="utf-8")
    (one,) = read_prompts(path, ReadOptions()).asked
    body = one.request()
    assert body["tools"] == TOOLS
    assert body["messages"] == [ASKED, {"role": "assistant", "content": "", "tool_calls": AS_TEXT_COMPACT}, RESULT]


AS_TEXT_COMPACT = [{**CALLS[0], "function": {"name": "weather", "arguments": '{"city":"Paris","at":9}'}}]


def test_calls_are_shown_and_answers_keep_them(record: Preference) -> None:
    text = as_text(record.prompt)
    assert 'call {"name": "weather", "arguments": {"city": "Paris", "at": 9}}' in text
    assert '[tool]\n{"degrees": 31}\ntool_call_id: c1\nname: weather' in text
    assert as_text(record.prompt[:1]).startswith('Warm?\ntools: [{"type": "function"')
    assert question_of(record.prompt) == (
        'Warm?\n[assistant] call {"name": "weather", "arguments": {"city": "Paris", "at": 9}}\n'
        '[tool] {"degrees": 31}\ntool_call_id: c1\nname: weather'
    )
    (row,) = as_rows([answer_to(record.prompt, "Yes.", "m")])
    assert row["prompt"] == [{**ASKED, "tools": TOOLS}, *TURNS[1:]]
