"""What a row holds beside what its layout reads: named, read, or refused; and messages held as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.cli import main
from headwater.data.layouts import LAYOUTS, Broken, Unread, json_text
from headwater.data.layouts.unread import COLUMNS, KEYS
from headwater.data.preference import Message, Preference, Response
from headwater.data.reading import ReadOptions, RowReader, stream, write
from headwater.errors import DataError

SKIP_BAD = ReadOptions(max_bad_rows="100%")
CALL = [{"id": "1", "type": "function", "function": {"name": "legs", "arguments": '{"n": 2}'}}]


def said(role: str, content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content, **more}]


def row(number: int = 0, **more: Any) -> dict[str, Any]:
    pair = {"chosen": said("assistant", f"{number} legs."), "rejected": said("assistant", "Who knows.")}
    return {"prompt": said("user", f"How many legs have {number} spiders?")} | pair | more


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def read(path: Path, rows: list[dict[str, Any]], read_options: ReadOptions = SKIP_BAD) -> tuple[RowReader, list[Any]]:
    row_reader = stream(saved(path, rows), read_options)
    return row_reader, list(row_reader)


MEANT = {
    "TOOLS": [
        row(tools='[{"type": "function"}]'),
        row(chosen=said("assistant", "Let me count.", tool_calls=[{"type": "function"}])),
        row(chosen=said("assistant", "8.", tool_call_id="1")),
        row(prompt=[*said("user", "Count."), {"role": "assistant", "content": None, "tool_calls": CALL}]),
        row(tool_choice="required"),
        row(function_call="none"),
    ],
    "MEDIA": [
        row(images=["a.png"]),
        row(prompt=said("user", [{"type": "image"}, {"type": "text", "text": "How many?"}])),
        row(prompt=said("user", [{"type": "text", "text": "How?", "image_url": {"url": "a.png"}}])),
    ],
    "REASONING": [
        row(chosen=said("assistant", "8 legs.", reasoning_content="Think.")),
        row(prompt=[*said("user", "Hi"), *said("assistant", "Hm", thinking="Think."), *said("user", "And?")]),
    ],
    "CONTEXT": [row(context="Spiders have 8 legs."), row(input="2 spiders"), row(history=[["Hi", "Ho"]])],
    "WEIGHT": [row(weight=0.5), row(chosen=said("assistant", "8 legs.", weight=0))],
    "NAME": [row(prompt=said("user", "Hi", name="Ann"))],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("code", "fields"), [(code, each) for code, rows in MEANT.items() for each in rows])
def test_what_changes_the_meaning_of_a_row_is_refused(
    code: str, fields: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    rows = [row(1), row(2), fields, row(3)]
    if isinstance(fields["prompt"][0]["content"], list):
        rows = [each | {"prompt": said("user", [{"type": "text", "text": f"{n}"}])} for n, each in enumerate(rows)]
        rows[2] = fields
    if suffix == ".parquet":  # the first rows give the columns
        rows = [{name: each.get(name) for name in {**row(), **fields}} for each in rows]
    row_reader, records = read(tmp_path / f"a{suffix}", rows)
    assert len(records) == 3 and row_reader.quarantine.codes == {code: 1}
    (entry,) = row_reader.quarantine
    assert entry["line"] == 3


@pytest.mark.parametrize("fields", [row(tools="[]"), row(images=[]), row(weight=1.0), row(context=""), row(input=None)])
def test_what_says_nothing_is_no_reason_to_refuse_a_row(fields: dict[str, Any], tmp_path: Path) -> None:
    row_reader, records = read(tmp_path / "a.jsonl", [row(1), fields])
    assert len(records) == 2 and row_reader.row_counts.not_read == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_unknown_is_named(suffix: str, tmp_path: Path) -> None:
    rows = [row(n, votes=n, thinking="", id=n) for n in range(3)]
    rows[2]["chosen"][0]["toxicity"] = 0.5
    rows[0]["chosen"][0]["toxicity"] = None
    row_reader, records = read(tmp_path / f"a{suffix}", rows)
    assert len(records) == 3 and row_reader.row_counts.not_read == ["chosen[].toxicity", "votes"]
    limited, _ = read(tmp_path / f"a{suffix}", rows, ReadOptions(limit=2))
    assert limited.row_counts.not_read == ["votes"]


def test_columns_that_were_left_out_by_columns_are_named_or_refused(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "good": "So.", "bad": "No.", "votes": 3, "prompt": "another"}]
    row_reader, _ = read(tmp_path / "a.jsonl", rows, ReadOptions(columns="prompt=q,chosen=good,rejected=bad"))
    assert row_reader.row_counts.not_read == ["prompt", "votes"]
    rows[0]["context"] = "It rains."
    row_reader, kept = read(
        tmp_path / "a.jsonl", rows, ReadOptions(columns="prompt=q,chosen=good,rejected=bad", max_bad_rows="1")
    )
    assert not kept and row_reader.quarantine.codes == {"CONTEXT": 1}


def test_what_the_user_ignores_is_passed_over_and_named(tmp_path: Path) -> None:
    rows = [row(n, tools="[1]", chosen=said("assistant", f"{n} legs.", tool_calls=CALL)) for n in range(3)]
    row_reader, records = read(tmp_path / "a.jsonl", rows, ReadOptions(ignore_columns="tools, tool_calls"))
    assert [record.chosen.text for record in records] == ["0 legs.", "1 legs.", "2 legs."]
    assert row_reader.row_counts.not_read == ["chosen[].tool_calls", "tools"]


def test_a_condition_column_is_read(tmp_path: Path) -> None:
    row_reader, (pair,) = read(
        tmp_path / "a.jsonl", [row(context="Judge kindness.")], ReadOptions(condition_column="context")
    )
    assert pair.condition == "Judge kindness." and row_reader.row_counts.not_read == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_margin_is_the_gap_of_scores_and_is_written(suffix: str, tmp_path: Path) -> None:
    rows = [row(0), row(1, margin=2.5), row(2, margin=0, score_chosen=3.0, score_rejected=1.0)]
    _, records = read(tmp_path / "a.jsonl", rows)
    assert [record.loss_columns.get("score_gap") for record in records] == [None, 2.5, 0.0]
    write(tmp_path / f"b{suffix}", records)
    assert list(stream(tmp_path / f"b{suffix}")) == records


def test_the_input_of_an_instruction_is_read_in_every_layout(tmp_path: Path) -> None:
    asked = {"instruction": "Summarise the text.", "input": "cats sleep a lot"}
    answers: dict[str, Mapping[str, Any]] = {
        "alpaca-eval": {"output_1": "Cats sleep.", "output_2": "Dogs.", "preference": 1},
        "argilla": {"chosen_response": "Cats sleep.", "rejected_response": "Dogs."},
        "llamafactory-alpaca": {"chosen": "Cats sleep.", "rejected": "Dogs."},
        "ultrafeedback": {"completions": [{"response": "Cats sleep."}, {"response": "Dogs."}]},
        "best-of-n": {"outputs": ["Cats sleep.", "Dogs."], "pref_vs_reference": [1, 0]},
        "llamafactory-kto-alpaca": {"output": "Cats sleep.", "kto_tag": True},
    }
    for layout, fields in answers.items():
        row_reader, (record,) = read(tmp_path / f"{layout}.jsonl", [{**asked, **fields}])
        assert row_reader.layout.startswith(layout)
        assert record.prompt == (Message("user", "Summarise the text.\ncats sleep a lot"),)


def test_the_row_counts_of_a_command_name_what_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.jsonl", [row(n, votes=n + 1) for n in range(3)])
    assert main(["preprocess", "--input", str(path), "--output", str(tmp_path / "b.jsonl"), "--keep", "100%"]) == 0
    assert "read, not read: votes" in capsys.readouterr().err
    (row_counts, *_) = json.loads((tmp_path / "b.jsonl.run" / "account.json").read_text())
    assert row_counts["not_read"] == ["votes"]
    assert main(["inspect", str(path)]) == 0
    assert "not read" in capsys.readouterr().out


def test_longer_conversations_are_counted_in_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [*range(1, 7), *[7] * 4, *[8] * 5, 9, 9]
    rows = [
        row(n, prompt=[{"role": role, "content": f"{n}"} for _ in range(count) for role in ("assistant", "user")])
        for n, count in enumerate(turns)
    ]
    assert main(["inspect", str(saved(tmp_path / "a.jsonl", rows))]) == 0
    assert "11 longer" in capsys.readouterr().out


TOKENS = st.text("abcdefgh", min_size=12, max_size=12)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None)
@given(data=st.data())
def test_no_field_of_a_row_is_lost_in_silence(layout: str, data: st.DataObject) -> None:
    """A unique text in any column is read, named or refused, whatever the layout."""
    name = data.draw(st.sampled_from(sorted(COLUMNS)) | st.text("xyz_", min_size=3))
    unread = Unread(LAYOUTS[layout])
    try:
        unread.check({name: data.draw(TOKENS)})
    except Broken as problem:
        assert problem.code == COLUMNS[name].code
    else:
        assert name in unread.reads or unread.names == [name]


# --- messages held as text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_messages_held_as_text_are_read_as_messages(spell: Any, suffix: str, tmp_path: Path) -> None:
    rows = [{name: spell(value) for name, value in row(n).items()} for n in range(4)]
    row_reader, records = read(tmp_path / f"a{suffix}", rows)
    assert records[2] == Preference(
        prompt=(Message("user", "How many legs have 2 spiders?"),),
        chosen=Response("2 legs."),
        rejected=Response("Who knows."),
        id="a:3",
        source="a",
    )
    assert row_reader.row_counts.notes == {"messages_as_text": 4}


def test_whole_conversations_and_candidates_held_as_text_are_read(tmp_path: Path) -> None:
    whole = {side: json.dumps([*said("user", "Hi"), *said("assistant", side)]) for side in ("chosen", "rejected")}
    row_reader, (pair,) = read(tmp_path / "a.jsonl", [whole])
    assert row_reader.layout.startswith("implicit-prompt") and pair.chosen == Response("chosen")
    several = {"instruction": "Hi", "completions": json.dumps([{"response": "A"}, {"response": "B"}])}
    _, (candidates,) = read(tmp_path / "b.jsonl", [several])
    assert [response.text for response in candidates.responses] == ["A", "B"]


def test_tool_calls_in_messages_held_as_text_are_read_too(tmp_path: Path) -> None:
    fields = row(1) | {"chosen": json.dumps(said("assistant", "Hm.", tool_calls=CALL))}
    _, (_, found) = read(tmp_path / "a.jsonl", [row(), fields])
    assert found.chosen.text == "Hm." and '"n":2' in found.chosen.extra


@pytest.mark.parametrize("text", ['{"legs": 16}', "[0]", "[1, 2", "[]", '["a"]', "{role: x}", '[{"a": 1}]'])
def test_answers_that_are_json_stay_texts(text: str, tmp_path: Path) -> None:
    rows = [row(n) | {"chosen": f" {text}", "rejected": f"{n}"} for n in range(3)]
    row_reader, records = read(tmp_path / "a.jsonl", rows)
    assert [record.chosen.text for record in records] == [f" {text}"] * 3 and not row_reader.row_counts.notes


def test_text_that_looks_like_messages_and_is_not_is_refused(tmp_path: Path) -> None:
    printed = "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Ho'}]"  # as numpy prints them
    row_reader, _ = read(tmp_path / "a.jsonl", [row(), row(1, chosen=printed)])
    assert row_reader.quarantine.codes == {"MALFORMED": 1}


def test_content_parts_of_text_are_joined_and_developers_are_systems(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "many?"}]
    _, (pair,) = read(tmp_path / "a.jsonl", [row(prompt=[*said("developer", "Be kind."), *said("user", parts)])])
    assert pair.prompt == (Message("system", "Be kind."), Message("user", "How many?"))


ASKED = "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:"
TURNS = (Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Why?"))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("prompt", [ASKED, ASKED.strip(), ASKED.removesuffix("\n\nAssistant:"), ASKED + " "])
@pytest.mark.parametrize("before", ["", ASKED])
def test_a_prompt_with_the_markers_of_hh_is_the_dialogue(prompt: str, before: str, suffix: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "So.", "rejected": "No."} for n in range(3)]
    rows.append({"prompt": prompt, "chosen": f"{before} So.", "rejected": f"{before} No."})
    _, records = read(tmp_path / f"a{suffix}", rows)
    assert (records[3].prompt, records[3].chosen.text) == (TURNS, "So.")


def test_markers_inside_of_a_prompt_stay_text_and_are_counted(tmp_path: Path) -> None:
    quoting = "What is wrong here?\n\nHuman: Hi\n\nAssistant: Ho"
    rows = [{"prompt": each, "chosen": " So.", "rejected": "No."} for each in (quoting, "Human: a marker", "Hi")]
    row_reader, records = read(tmp_path / "a.jsonl", rows)
    assert [record.prompt for record in records] == [(Message("user", row["prompt"]),) for row in rows]
    assert records[0].chosen.text == " So." and row_reader.row_counts.notes == {"markers_kept_as_text": 1}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_prompt_that_ends_in_an_assistant_turn_keeps_it_as_its_last_message(suffix: str, tmp_path: Path) -> None:
    prompt = [*said("user", "How many?"), *said("assistant", "Sure: ")]
    row_reader, records = read(tmp_path / f"a{suffix}", [row(n, prompt=prompt) for n in range(3)])
    assert records[1].prompt == (Message("user", "How many?"), Message("assistant", "Sure: "))
    assert records[1].chosen == Response("1 legs.") and not row_reader.quarantine.codes
    write(tmp_path / "b.jsonl", records)
    assert list(stream(tmp_path / "b.jsonl")) == records


def test_data_without_a_usable_row_names_the_reasons(tmp_path: Path) -> None:
    longer = [*said("user", "Hi"), *said("assistant", "a"), *said("user", "sure?"), *said("assistant", "yes")]
    rows = [{"chosen": longer, "rejected": [*said("user", "Hi"), *said("assistant", f"{n}")]} for n in range(6)]
    path = saved(tmp_path / "a.jsonl", [*rows, {"chosen": 7, "rejected": 8}])
    row_reader = stream(path, SKIP_BAD)
    assert not list(row_reader)
    assert str(row_reader.no_usable_rows()) == (
        f"{path} · no usable rows among 7 · dropped: prompts_differ 6 (the two responses answer different prompts; "
        f"first: {path}:1) · bad: MALFORMED 1 (first: {path}:7) · {path}:7 · chosen is a int · "
        "expected a list of messages · the first row: "
        '{"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}, '
        '{"role": "user", "content": "sure…'
    )


def test_the_first_refused_row_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1 · tool_choice changes .* --ignore-columns tool_choice"):
        read(tmp_path / "a.jsonl", [row(tool_choice="required")], ReadOptions())


def test_fields_of_messages_that_change_the_meaning_are_known_in_columns_too() -> None:
    assert {"tool_calls", "reasoning_content", "function_call", "images", "name"} <= set(KEYS)
    assert {"input", "system", "context", "history", "tools", "images", "margin", "weight"} <= set(COLUMNS)


@settings(deadline=None)
@given(st.text(alphabet="[{\"role': content}], ", max_size=40))
def test_any_text_is_a_text_messages_or_refused(text: str) -> None:
    try:
        fields, found = json_text.with_messages({"chosen": text})
    except Broken:
        return
    assert (fields["chosen"] == text) != bool(found)
