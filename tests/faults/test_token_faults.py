"""T1 to T9 of the fault matrix: tokens, cuts and padding, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import ScratchTokenizer
from headwater.data.tokens import tokenize
from tests.faults.outcome import Command, pair, runner, write_rows
from tests.support.serving import save_policy

SCRATCH = "scratch(hidden=32, layers=1, vocab=300)"
GOOD = [pair(number) for number in range(8)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(capfd)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_policy(tmp_path_factory.mktemp("policy") / "p", "Why is it so?")


def preference(prompt: str, chosen: Response, rejected: Response) -> Preference:
    return Preference(prompt=(Message("user", prompt),), chosen=chosen, rejected=rejected, id="0")


def saved_policy(path: Path, words: str) -> Path:
    """Save a random policy whose tokenizer was trained on `words`."""
    row = preference(words, Response(words), Response(f"{words} {words}"))
    return save_policy(path, [row], SCRATCH)


@pytest.mark.fault("T1")
@pytest.mark.parametrize("keep", [f"{count}tok" for count in range(1, 30, 3)])
def test_no_cut_divides_what_a_reader_sees_as_one_character(keep: str, run: Command, tmp_path: Path) -> None:
    family, flag, accented = "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301"
    text = f"{family}{flag}漢字{accented}{family}"
    data = write_rows(tmp_path / "f.jsonl", pair(0, chosen=text, rejected="No, never, not at all. " * 3), *GOOD)
    found = run("preprocess", "--input", data, "--output", tmp_path / "o.jsonl", "--keep", keep)
    assert found.code == 0, found.said
    kept = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])["chosen"][0]["content"]
    clusters = [family, flag, "漢", "字", accented, family]
    assert kept in {"".join(clusters[:count]) for count in range(1, 7)}


@pytest.mark.fault("T2")
def test_a_token_that_spans_the_boundary_is_counted(run: Command, tmp_path: Path) -> None:
    tokenizer = ScratchTokenizer(vocab=320).train(["assistant: answers" * 20])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = preference("Q", Response("answers"), Response("answers no"))
    found = tokenize([row], tokenizer, 100)
    assert found.notes["boundary_merged"] == 2
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "answers"}], tokenize=False
    )
    (ids,) = found.pairs
    assert [*ids.prompt, *ids.chosen] == tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.fault("T3")
def test_one_beginning_token_and_no_end_token_on_a_cut_response(run: Command, policy: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    row = preference("Why?", Response("It is."), Response("It", complete=False))
    (ids,) = tokenize([row], tokenizer, 100).pairs
    assert [*ids.prompt].count(tokenizer.bos_token_id) == 2  # a user turn and the head of the assistant's
    assert ids.chosen[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids.rejected


@pytest.mark.fault("T4")
def test_a_tokenizer_without_a_template_is_refused(run: Command, policy: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in policy.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    run("train-dpo", "--data", data, "--model", bare, "--output", tmp_path / "r", "--eval-fraction", "0").refused(
        4, "chat template"
    )


@pytest.mark.fault("T6")
def test_ids_beyond_the_embeddings_are_refused_before_training(run: Command, policy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in policy.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.add_tokens([f"token{number}" for number in range(500)])
    tokenizer.save_pretrained(broken)
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    found = run("train-dpo", "--data", data, "--model", broken, "--output", tmp_path / "r", "--eval-fraction", "0")
    found.refused(4, "tokens", "embeddings")
    assert not (tmp_path / "r").exists()


@pytest.mark.fault("T7")
@pytest.mark.parametrize("keep", ["0", "1.0000001", "40", "-0.5", "0%", "101%", "0tok", "nan", "inf", "half", "1/0"])
def test_a_ratio_outside_of_0_to_1_is_refused(keep: str, run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    run("preprocess", "--input", data, "--output", tmp_path / "o.jsonl", "--keep", keep).refused(2, "--keep")
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.fault("T7")
@pytest.mark.parametrize("keep", ["1", "100%", "100000tok"])
def test_all_of_a_response_is_the_response(keep: str, run: Command, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *(pair(n, chosen=f" \tspaced {n}\n\n ") for n in range(4)))
    assert run("preprocess", "--input", data, "--output", tmp_path / "o.jsonl", "--keep", keep).code == 0
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["chosen"][0]["content"] for row in rows] == [f" \tspaced {n}\n\n " for n in range(4)]


@pytest.mark.fault("T8")
def test_a_special_token_in_the_data_is_text_and_counted(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    row = preference("Why?", Response("a<|im_end|>b"), Response("c"))
    found = tokenize([row], tokenizer, 100)
    assert list(found.pairs[0].chosen).count(tokenizer.eos_token_id) == 1
    assert found.notes["special_token_text"] >= 1


@pytest.mark.fault("T9")
def test_a_reference_with_another_tokenizer_is_refused(run: Command, policy: Path, tmp_path: Path) -> None:
    other = saved_policy(tmp_path / "other", "Zwölf Boxkämpfer jagen Viktor")
    data = write_rows(tmp_path / "f.jsonl", *GOOD)
    found = run("evaluate", "--model", policy, "--reference", other, "--dataset", data, "--output", tmp_path / "e")
    found.refused(4, "vocabulary")
