"""The commands that ask a server, against real ones: `transformers serve` and llama.cpp, with tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Candidates, Message, Preference, Response
from headwater.evaluation import judgement_files
from headwater.evaluation.alpaca_eval import read_answers
from headwater.evaluation.judge_client import JudgeRequest, votes
from headwater.evaluation.judges import AlpacaEval, Comparison, Pairwise
from headwater.evaluation.verdicts import line
from headwater.models import loading
from headwater.results import runs
from tests.support.serving import llama_server, write_gguf


def command(*arguments: object, code: int = 0) -> None:
    assert cli.main([str(argument) for argument in arguments]) == code


def test_candidates_are_drawn_and_selected(chat_server: str, served_policy: Path, tmp_path: Path) -> None:
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=6, seed=3)))
    draw = ("--n", 3, "--max-new-tokens", 6, "--endpoint", chat_server, "--model", served_policy)
    command("sample", "--input", tmp_path / "pairs.jsonl", "--output", tmp_path / "c.jsonl", *draw)
    rows = list(reading.stream(tmp_path / "c.jsonl"))
    assert rows and all(isinstance(row, Candidates) and len(row.responses) == 3 for row in rows)
    found = runs.load(tmp_path / "c.jsonl.run")
    assert found.metrics["different"] > len(rows)  # it sampled
    assert found.metrics["responses"] == 3 * len(rows) > found.metrics["complete"]


KNOWN, STRANGE = range(1, 4), 4
"""Prompts that the judge has learnt by heart, and one that it has never seen."""
EPOCHS = ("--num-train-epochs", 60, "--learning-rate", "1e-2", "--eval-fraction", 0, "--precision", "fp32")


def answers(path: Path, name: str) -> Path:
    rows = [
        {"instruction": f"Is {n} odd?", "output": "Perhaps." if name == "base" else "Yes." * n, "generator": name}
        for n in (*KNOWN, STRANGE)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained to say, of the known prompts, that the tuned model is better."""
    root = tmp_path_factory.mktemp("judge")
    sides = [read_answers(answers(root / f"{name}.json", name)).answers for name in ("base", "tuned")]
    known = [Comparison(*both) for both in zip(*sides, strict=True)][: len(KNOWN)]
    reading.write(root / "by-heart.jsonl", [_lesson(call) for call in votes(Pairwise("any"), known)])
    data = ("--data", root / "by-heart.jsonl", "--output", root / "m", "--model", "scratch(hidden=64, layers=2)")
    command("train-sft", *data, *EPOCHS)
    return root / "m"


def _lesson(call: JudgeRequest) -> Preference:
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in Pairwise("any").body(call.shown)["messages"])
    verdict = line(call.shown.mark, "A" if call.swapped else "B")
    return Preference(prompt=prompt, chosen=Response(verdict), rejected=Response("?"), id=verdict, source="test")


def test_a_judge_is_asked_reminded_and_believed(chat_server: str, judge: Path, tmp_path: Path) -> None:
    sides = ("--baseline", answers(tmp_path / "base.json", "base"), "--answers", answers(tmp_path / "t.json", "tuned"))
    asked = ("--judge", f"pairwise(model='{judge}', max_tokens=20)", "--endpoint", chat_server)
    given = (*sides, *asked, "--output", tmp_path / "judged")
    command("judge", *given)
    found = runs.load(tmp_path / "judged")
    assert found.row_counts[-1]["dropped"] == {"unparsed": 1}
    rate = found.metrics[f"win_rate/pairwise:{judge}/tuned"]
    assert (rate["value"], rate["n"], rate["clusters"]) == (1.0, 2 * len(KNOWN), len(KNOWN))
    journal = (tmp_path / "judged.ledger").read_bytes()
    assert journal.count(b"\n") == 1 + 2 * 4 + 2  # its header, both orders of four prompts, two reminders
    command("judge", *given, "--overwrite")
    assert (tmp_path / "judged.ledger").read_bytes() == journal
    command("compare", tmp_path / "judged", "--output", tmp_path / "compared")
    assert runs.load(tmp_path / "compared").metrics[f"win_rate/pairwise:{judge}/tuned"] == rate


def test_a_server_without_log_probabilities_is_named(
    chat_server: str, served_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = ("--baseline", answers(tmp_path / "base.json", "base"), "--answers", answers(tmp_path / "t.json", "tuned"))
    asked = ("--judge", f"alpaca_eval(model='{served_policy}')", "--endpoint", chat_server)
    command("judge", *sides, *asked, "--output", tmp_path / "judged", code=4)
    assert "the server gives no log-probabilities" in capsys.readouterr().err


def test_probabilities_of_names_are_those_of_the_model(tmp_path: Path) -> None:
    """AlpacaEval's judge at llama.cpp: its preference is the share of M in what the same weights give here."""
    import torch

    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    sides = [read_answers(answers(tmp_path / f"{name}.json", name)).answers for name in ("base", "tuned")]
    calls = list(votes(AlpacaEval("m"), [Comparison(*both) for both in zip(*sides, strict=True)]))
    asked = [AlpacaEval("m").body(call.shown)["messages"] for call in calls]
    lessons = [
        Preference(
            prompt=tuple(Message(turn["role"], turn["content"]) for turn in messages),
            chosen=Response("mM"[place % 2]),
            rejected=Response("?"),
            id=str(place),
            source="test",
        )
        for place, messages in enumerate(asked)
    ]
    reading.write(tmp_path / "names.jsonl", lessons)
    data = ("--data", tmp_path / "names.jsonl", "--output", tmp_path / "m", "--model", "scratch(hidden=64, layers=2)")
    command("train-sft", *data, *EPOCHS)
    model, tokenizer = loading.load(str(tmp_path / "m"), "policy", (), 0)
    names = [tokenizer.convert_tokens_to_ids(name) for name in "mM"]
    with llama_server(write_gguf(tmp_path / "m", tmp_path / "m.gguf"), tmp_path / "log.txt") as address:
        given = ("--baseline", tmp_path / "base.json", "--answers", tmp_path / "tuned.json", "--endpoint", address)
        command("judge", *given, "--judge", "alpaca_eval(model='m')", "--output", tmp_path / "judged")
    found = {one.prompt: one for one in judgement_files.read(tmp_path / "judged")[0]}
    shares = []
    for call, messages in zip(calls, asked, strict=True):
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            of_b = model(ids).logits[0, -1, names].double().softmax(dim=0)[1].item()
        shares.append(of_b)
        expected = 1 - of_b if call.swapped else of_b
        assert found[call.comparison.first.prompt].preference == pytest.approx(expected, abs=1e-3)
    assert max(shares) - min(shares) > 0.01
