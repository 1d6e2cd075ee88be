"""Random input to everything that reads what others wrote: it is read or refused, and never ends in a traceback.

`make test` tries a few dozen examples each; `make fuzz` tries thousands (`HEADWATER_FUZZ=5000`).
"""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headwater import config
from headwater.commands.train_dpo import Config
from headwater.data import template_limits
from headwater.data.preference import Message, Preference, Response
from headwater.data.reading import ReadOptions, stream
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens, tokenize
from headwater.data.truncation import parse_keep
from headwater.decoding.strategies import STRATEGIES
from headwater.errors import DataError, ModelError, UsageError
from headwater.forward.packing import SIDES, collate, parts_of
from headwater.losses import POLICY_LOSSES

EXAMPLES = int(os.environ.get("HEADWATER_FUZZ", "40"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 100
)

ROW = json.dumps({"prompt": "Why?", "chosen": "Because é.", "rejected": "No.", "score_chosen": 1.5, "id": "a"}).encode()
FRAGMENTS = st.sampled_from(
    [b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b"\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud83d",
     b"NaN", b"1e999", b"-0", b"null", b"true", b'"chosen"', b'"prompt"', b" ", b"\xef\xbb\xbf", b"{}" * 50, b"9" * 400]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Some rows of a good file, with bytes cut out and fragments put in at random places."""
    text = b"\n".join([ROW] * draw(st.integers(1, 4))) + b"\n"
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 8)))
        text = text[:start] + draw(FRAGMENTS | st.binary(max_size=4)) + text[end:]
    return text


@fuzz
@example(b'\xff{"prompt": "Why?",b\n"x",y\n', "a.csv")  # found by `make fuzz`: a header that is no UTF-8
@given(damaged(), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"]))
def test_damaged_files_are_accounted_for_or_refused(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            reading = stream(path, ReadOptions(max_bad_rows="100%"))
            kept = len(list(reading))
        except (DataError, UsageError) as refused:
            assert name in str(refused)
            return
    found = reading.row_counts
    assert kept == found.kept
    assert found.rows_in == found.kept + found.quarantined + found.dropped.total()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["prompt", "chosen", "rejected", "messages", "completion", "label", "instruction", "input", "output_1", "output_2",
     "preference", "conversations", "conversation_a", "conversation_b", "winner", "answers", "completions", "images",
     "system", "history", "response_0", "response_1", "better_response_id", "score_chosen", "margin", "tools"]
)  # fmt: skip
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "Human", ""]), "content": VALUES}
    ),
    max_size=3,
)


@fuzz
@given(st.lists(st.dictionaries(COLUMNS, VALUES | TURNS, max_size=6), max_size=3))
def test_rows_of_any_shape_are_accounted_for_or_refused(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            reading = stream(path, ReadOptions(max_bad_rows="100%"))
            kept = len(list(reading))
        except (DataError, UsageError):
            return
    found = reading.row_counts
    assert kept == found.kept
    assert found.rows_in == len(rows) == found.kept + found.quarantined + found.dropped.total()


CALLS = st.text(
    st.sampled_from("dpobetasigmoid()[]{}=,.'\"\\0123456789e-+*/%_ \n\x00éاⅧ") | st.characters(), max_size=40
) | st.builds(
    "{}({}={})".format,
    st.sampled_from([*POLICY_LOSSES, *STRATEGIES]),
    st.sampled_from(["beta", "alpha", "tokens", "k", "first", "__class__"]),
    st.sampled_from(
        ["1e999", "-1", "0", "nan", "'a'", "[1]*9**9", "9**9**9", "1" * 5000, "(" * 300, "True", "None", "1j"]
    ),
)


@fuzz
@given(CALLS, st.sampled_from(["loss", "strategy"]))
def test_a_constructor_text_builds_a_value_or_is_refused_in_one_line(text: str, what: str) -> None:
    table: Any = {"loss": POLICY_LOSSES, "strategy": STRATEGIES}[what]
    try:
        config.build(text, table, what)
    except UsageError as refused:
        assert "\n" not in str(refused)
        assert len(str(refused)) < 2000


@fuzz
@given(st.text(st.sampled_from("0123456789e.%+-/tokwrdscha_auo:"), max_size=14))
def test_an_amount_to_keep_is_read_or_refused_at_once(text: str) -> None:
    try:
        parse_keep(text)
    except UsageError as refused:
        assert "--keep" in str(refused)


YAML = st.lists(
    st.sampled_from(
        ["data: a", "output: b", "learning_rate: 1e-4", "learning_rate: [1, 2]", "learning_rate: {a: 1}", "? [a]\n: 1",
         "seed: -1", "seed: 0x10", "1: 2", "null: 1", "true: 1", "a: &x 1", "b: *x", "<<: {seed: 1}",
         "!!python/object x", "- a",
         "data: |\n  text", "'data': \"\\x00\"", "loss: dpo(beta=0.1)", "%YAML 9.9", "---", "...", "\t", "{",
         "é: ü", "seed: 1_000", "seed: 2020-01-01", "push_to_hub: .nan", "overwrite: maybe", "config: c.yaml"]
    )
    | st.text(max_size=12),
    max_size=5,
).map("\n".join)  # fmt: skip


@fuzz
@given(YAML)
def test_a_config_file_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "c.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        patch.setattr("sys.stderr", io.StringIO())
        patch.setattr("sys.stdout", io.StringIO())
        try:
            config.parse(Config, ["--config", str(path)])
        except UsageError as refused:
            assert "\n" not in str(refused)


PIECES = st.sampled_from(
    ["{{ m.role }}", "{{ m.content }}", "{% for m in messages %}", "{% endfor %}", "{% if add_generation_prompt %}",
     "{% endif %}", "{% if m.role == 'user' %}", "{% else %}", "<|im_start|>", "<|im_end|>", "\n", " ", "assistant",
     "{{ messages }}", "{{ x.y.z }}", "{{ messages[0].content * 99999 }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}",
     "{% for i in range(10**9) %}a{% endfor %}", "{{ ''.__class__ }}", "{{ m.content | trim }}", "{% set m = 3 %}",
     "{{", "{{ messages | length }}", "{{ m.content.split('a')[-1] }}", "{{ (messages | first).content | upper }}",
     "{% x %}", "{{ 9 ** 9 ** 9 }}", "{{ strftime_now('%Y') }}", "{{ m.content | replace('a', '') }}",
     "{%- generation -%}"]
)  # fmt: skip
TEMPLATES = st.lists(PIECES, max_size=8).map("".join) | st.lists(PIECES, max_size=5).map(
    lambda pieces: "{% for m in messages %}" + "".join(pieces) + "{{ m.content }}<|im_end|>{% endfor %}"
)


@fuzz
@given(TEMPLATES, st.text(max_size=20))
def test_a_chat_template_renders_a_conversation_or_is_refused_in_one_line(
    tokenizer: Tokenizer, template: str, text: str
) -> None:
    template_limits.install()  # as every load of a tokenizer does
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    row = Preference(prompt=(Message("user", "Why?"),), chosen=Response(f"a{text}"), rejected=Response("No."), id="r:1")
    try:
        found = tokenize([row], changed, 10_000)
    except ModelError as refused:
        assert "\n" not in str(refused)
        return
    assert found.row_counts.rows_in == found.row_counts.kept + found.row_counts.dropped.total() == 1


LENGTHS = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(0, 5))


@fuzz
@given(st.lists(LENGTHS, min_size=1, max_size=6), st.integers(1, 40), st.sampled_from(["shared", "packed", "padded"]))
def test_every_response_lies_whole_and_in_order_in_some_row(
    lengths: list[tuple[int, int, int, int]], most: int, layout: Any
) -> None:
    rng = np.random.default_rng(len(lengths))
    pairs = []
    for number, (prompt, chosen, rejected, common) in enumerate(lengths):
        begin = rng.integers(1, 9, min(common, chosen, rejected)).astype(np.int32)
        sides = [
            np.concatenate([begin, rng.integers(1, 9, n - len(begin)).astype(np.int32)]) for n in (chosen, rejected)
        ]
        pairs.append(
            PairTokens(
                rng.integers(1, 9, prompt).astype(np.int32), *sides, id=str(number), source="", conversation_id=""
            )
        )
    parts = parts_of(pairs, layout, most)
    assert sorted(number for part in parts for number in part) == list(range(len(pairs)))
    for part in parts:
        batch = collate([pairs[number] for number in part], layout)
        for place, number in enumerate(part):
            pair = pairs[number]
            for side, expected in enumerate((pair.chosen, pair.rejected)):
                tokens = batch["token"][batch["slot"] == SIDES * place + side]
                at = batch["position"][tokens]
                assert batch["input_ids"].flatten()[at].tolist() == expected.tolist()
                assert batch["position_ids"].flatten()[at].tolist() == [
                    *range(len(pair.prompt), len(pair.prompt) + len(expected))
                ]
