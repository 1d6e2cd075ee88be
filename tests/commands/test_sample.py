"""`headwater sample` from a local model and from a server: what is written, and how a stopped job goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Candidates
from headwater.data.sampling import Asked, Drawn, Journal
from headwater.errors import UsageError
from headwater.models import loading
from headwater.results import runs
from headwater.rewards import sampling
from tests.support.scripted import Reply, Server, url

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.25"]
DRAW = ["--n", "3", "--max-new-tokens", "8"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a policy and a reward model."""
    root = tmp_path_factory.mktemp("sample")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=64, seed=2)))
    for command in ("train-sft", "train-reward"):
        given = ["--data", root / "pairs.jsonl", "--output", root / command, "--model", MODEL, *QUICK]
        assert cli.main([command, *map(str, given)]) == 0
    reading.write(root / "few.jsonl", generate(Corpus(pairs=12, seed=2)))
    return root


def sample(*arguments: object, code: int = 0) -> None:
    assert cli.main(["sample", *map(str, arguments)]) == code


def rows(path: Path) -> list[Candidates]:
    found = list(reading.stream(path))
    assert all(isinstance(row, Candidates) for row in found)
    return found  # type: ignore[return-value]


def test_from_a_model_scored_and_then_selected(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "candidates.jsonl"
    given = ("--input", study / "few.jsonl", "--output", output, "--model", study / "train-sft", *DRAW)
    sample(*given, "--reward-model", study / "train-reward")
    prompts = {row.prompt for row in generate(Corpus(pairs=12, seed=2))}
    found = rows(output)
    assert {row.prompt for row in found} == prompts
    assert all(len(row.responses) == 3 for row in found)
    scores = [response.score for row in found for response in row.responses if response.text.strip()]
    assert all(isinstance(score, float) for score in scores) and len(set(scores)) > 10
    run = runs.load(runs.beside(output))
    assert [stage["stage"] for stage in run.row_counts] == ["read", "prompts", "sample"]
    assert run.row_counts[1]["dropped"] == {"repeated_prompt": 12 - len(prompts)}
    assert run.metrics["responses"] == 3 * len(prompts)
    assert run.facts["temperature"] == 1.0
    assert not output.with_name("candidates.jsonl.ledger").exists()
    assert cli.main(["select", "--input", str(output), "--output", str(tmp_path / "s.jsonl"), "--budget", "50%"]) == 0
    assert len(rows(tmp_path / "s.jsonl")) == len(found) // 2


def test_two_reward_models_are_an_ensemble_for_select(study: Path, tmp_path: Path) -> None:
    given = ["--data", study / "pairs.jsonl", "--output", tmp_path / "other", "--model", MODEL, *QUICK, "--seed", "1"]
    assert cli.main(["train-reward", *map(str, given)]) == 0
    models = [str(study / "train-reward"), str(tmp_path / "other")]
    common = ("--input", study / "few.jsonl", "--model", study / "train-sft", *DRAW)
    sample(*common, "--output", tmp_path / "c.jsonl", "--reward-model", *models)
    run = runs.load(tmp_path / "c.jsonl.run")
    records = {(row["model"], row["id"]): row["rewards"] for row in run.records()}
    found = rows(tmp_path / "c.jsonl")
    assert set(records) == {(model, row.id) for model in models for row in found}
    for row in found:
        assert [response.score for response in row.responses] == records[models[0], row.id]
    given = [
        "--input",
        tmp_path / "c.jsonl",
        "--output",
        tmp_path / "s.jsonl",
        "--rewards",
        run.path,
        "--budget",
        "50%",
    ]
    assert cli.main(["select", *map(str, given)]) == 0
    summary = json.loads((tmp_path / "s.jsonl.run" / "selection.json").read_text("utf-8"))
    alone = [found["other"] for found in summary["agreement"]][-2:]
    assert alone == [f"the same, by {model} alone" for model in models]
    sample(*common, "--output", tmp_path / "d.jsonl", "--reward-model", models[0], models[0], code=2)


def test_prompts_without_responses(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    lines = [{"q": "What?", "id": "one"}, {"q": turns}, {"q": "What?"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("--input", tmp_path / "q.jsonl", "--model", study / "train-sft", *DRAW, "--column")
    sample(*given, "q", "--output", tmp_path / "c.jsonl")
    found = rows(tmp_path / "c.jsonl")
    assert [row.id for row in found] == ["one", "q.jsonl:2"]
    assert [message.content for message in found[1].prompt] == ["Be brief.", "Why?"]
    assert runs.load(tmp_path / "c.jsonl.run").row_counts[0]["dropped"] == {"repeated_prompt": 1}
    sample(*given, "prompt", "--output", tmp_path / "d.jsonl", code=3)
    assert "q.jsonl:1 · no column prompt · the row has q, id" in capsys.readouterr().err
    sample(*given, "q", "--output", tmp_path / "d.jsonl", "--format", "hh", code=2)
    (tmp_path / "q.jsonl").write_text(json.dumps({"q": [*turns, {"role": "assistant", "content": "So."}]}))
    sample(*given, "q", "--output", tmp_path / "d.jsonl", code=3)
    assert "ends with the turn of the assistant" in capsys.readouterr().err


def test_rewards_are_those_that_evaluate_gives(study: Path, tmp_path: Path) -> None:
    given = ["--model", study / "train-reward", "--dataset", study / "few.jsonl", "--output", tmp_path / "e"]
    assert cli.main(["evaluate", *map(str, given), "--allow-leakage"]) == 0
    expected = {
        row["id"]: [row["chosen_reward"], row["rejected_reward"]] for row in runs.load(tmp_path / "e").records()
    }
    model, tokenizer = loading.load(str(study / "train-reward"), "reward", (), 0)
    for preference in reading.load(study / "few.jsonl").preferences:
        better, worse = (Drawn(r.text, r.complete) for r in (preference.chosen, preference.rejected))
        one = Asked(preference.prompt, preference.id, "s")
        found = sampling.scores(model, tokenizer, one, [better, Drawn(" ", True), worse], 4096, 2)
        assert found[1] is None
        assert [found[0], found[2]] == pytest.approx(expected[preference.id], abs=1e-4)


def test_a_stopped_job_goes_on_and_gives_the_same(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole job writes a file, the stopped one a run directory."""
    given = ("--input", study / "few.jsonl", "--model", study / "train-sft", *DRAW, "--batch-size", 2)
    sample(*given, "--output", tmp_path / "whole.jsonl")

    honest, drawn = sampling.draw, []

    def stopped(*arguments: Any) -> Iterator[Any]:
        for count, one in enumerate(honest(*arguments)):
            if count == 5:
                raise OSError(28, "No space left on device")
            yield one

    output = tmp_path / "again"
    monkeypatch.setattr(sampling, "draw", stopped)
    sample(*given, "--output", output, code=7)
    assert not output.exists()
    journal = tmp_path / "again.ledger"
    assert len(journal.read_bytes().splitlines()) == 6
    with journal.open("ab") as handle:
        handle.write(b'{"key": "torn')

    def counted(model: Any, tokenizer: Any, prompts: Any, *rest: Any) -> Iterator[Any]:
        drawn.extend(prompts)
        return honest(model, tokenizer, prompts, *rest)

    monkeypatch.setattr(sampling, "draw", counted)
    sample(*given, "--output", output)
    assert "resumed: 5 of" in capsys.readouterr().err
    data = output / "preferences.jsonl"
    assert len(drawn) == len(rows(data)) - 5
    assert data.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_ledger_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "l", {"n": 1})
    journal.add("a", [Drawn("é\n", True)])
    journal.close()
    assert Journal(tmp_path / "l", {"n": 1}).drawn("a") == [Drawn("é\n", True)]
    with (tmp_path / "l").open("ab") as handle:
        handle.write(b'{"key": "b", "dra')  # a crash
    journal = Journal(tmp_path / "l", {"n": 1})
    assert "b" not in journal
    journal.add("c", [Drawn("x", False)])
    journal.close()
    again = Journal(tmp_path / "l", {"n": 1})
    assert (len(again), again.drawn("c")) == (2, [Drawn("x", False)])
    with pytest.raises(UsageError, match="was begun with other settings"):
        Journal(tmp_path / "l", {"n": 2})
    empty = Journal(tmp_path / "empty", {})
    empty.close()
    assert not (tmp_path / "empty").exists()


# --- from a server -------------------------------------------------------------------------------------------------


def choices(body: dict[str, Any]) -> Reply:
    text = f"{body['messages'][-1]['content']} {body['seed']}"
    choice = {"message": {"content": text}, "finish_reason": "stop" if body["seed"] % 2 else "length"}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


def test_from_a_server(server: Server, study: Path, tmp_path: Path) -> None:
    server.script = choices
    given = ("--input", study / "few.jsonl", "--model", "m", "--endpoint", url(server), *DRAW, "--concurrency")
    sample(*given, 3, "--output", tmp_path / "c.jsonl")
    found = rows(tmp_path / "c.jsonl")
    for row in found:
        assert len({response.text for response in row.responses}) == 3
        for response in row.responses:
            question, seed = response.text.rsplit(" ", 1)
            assert question == row.prompt[-1].content
            assert response.complete == bool(int(seed) % 2)
    body = server.asked[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("m", 8, 1.0, 1.0)
    assert len({body["seed"] for body in server.asked}) == len(server.asked) == 3 * len(found)
    sample(*given, 1, "--output", tmp_path / "d.jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes()


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": ["x"]}, {"choices": [{"text": "a completion"}]}])
def test_a_server_of_another_kind_is_named(
    server: Server, study: Path, tmp_path: Path, answer: object, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = lambda body: (200, {}, json.dumps(answer).encode())
    given = ("--input", study / "few.jsonl", "--model", "m", "--endpoint", url(server), *DRAW)
    sample(*given, "--output", tmp_path / "c.jsonl", code=6)
    assert "chat server" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_prompts_that_a_server_refuses_are_counted(
    server: Server, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    too_long = 400, {}, b'{"error": {"message": "maximum context length is 4096 tokens"}}'
    first: list[str] = []

    def script(body: dict[str, Any]) -> Reply:
        first.append(body["messages"][-1]["content"])
        if body["messages"][-1]["content"] == first[0]:
            return too_long
        message = {"content": [{"type": "text", "text": f"part {body['seed']}"}]}
        return 200, {}, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()

    server.script = script
    given = ("--input", study / "few.jsonl", "--model", "m", "--endpoint", url(server), *DRAW, "--concurrency", 1)
    sample(*given, "--output", tmp_path / "c.jsonl")
    row_counts = runs.load(runs.beside(tmp_path / "c.jsonl")).row_counts[-1]
    assert row_counts["dropped"] == {"too_long": 1} and row_counts["kept"] == row_counts["rows_in"] - 1
    assert all(response.text.startswith("part ") for row in rows(tmp_path / "c.jsonl") for response in row.responses)
    server.script = lambda body: too_long
    sample(*given, "--output", tmp_path / "none.jsonl", code=6)
    assert "no prompt was answered: too_long" in capsys.readouterr().err


def test_what_a_server_gave_before_it_refused_is_not_asked_again(
    server: Server, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = threading.Event()

    def script(body: dict[str, Any]) -> Reply:
        if len(server.asked) > 14:
            refused.set()
        return (401, {}, b"quota") if refused.is_set() else choices(body)

    server.script = script
    given = ("--input", study / "few.jsonl", "--model", "m", "--endpoint", url(server), *DRAW, "--concurrency", 1)
    sample(*given, "--output", tmp_path / "c.jsonl", code=6)
    assert "HTTP 401" in capsys.readouterr().err
    assert len(server.asked) == 15  # no storm
    server.asked.clear()
    server.script = choices
    sample(*given, "--output", tmp_path / "c.jsonl")
    assert len(server.asked) == 3 * (len(rows(tmp_path / "c.jsonl")) - 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "-1"], "--temperature -1.0 · expected 0 or more"),
        (["--temperature", "0"], "takes the most likely token · add --n 1"),
        (["--n", "0"], "--n 0 · expected 1 or more"),
        (["--top-p", "1.5"], "--top-p 1.5"),
        (["--concurrency", "2"], "has no effect on a local model"),
        (["--endpoint", "localhost"], "is no address"),
        (["--endpoint", "http://x", "--batch-size", "2"], "has no effect on a server"),
        (["--batch-size", "0"], "expected 1 or more"),
        (["--column", "q", "--columns", "prompt=q"], "has no effect with --column"),
    ],
)
def test_what_cannot_work_is_refused(
    flags: list[str], message: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--input", study / "few.jsonl", "--output", tmp_path / "c.jsonl", "--model", study / "train-sft")
    sample(*given, *flags, code=2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_room_for_a_response(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--input", study / "few.jsonl", "--output", tmp_path / "c.jsonl", "--model", study / "train-sft")
    sample(*given, "--max-new-tokens", 4095, code=3)
    assert "no prompt leaves room" in capsys.readouterr().err
    sample(*given, "--max-new-tokens", 4096, code=4)
    assert not list(tmp_path.iterdir())
