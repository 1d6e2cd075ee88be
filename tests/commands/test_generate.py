"""`headwater generate`: evaluation prompts in, one file of answers a model out; how a stopped job goes on."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.errors import DataError
from headwater.evaluation import prompts
from headwater.evaluation.alpaca_eval import read_answers
from headwater.results import runs
from tests.support.scripted import Handler, Reply, Server, url
from tests.support.serving import save_policy

SHORT = ("--max-new-tokens", "6")


@pytest.fixture(scope="module")
def models(corpus: list[Preference], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    tiny = "scratch(hidden=32, layers=1, vocab=400)"
    return {name: save_policy(root / name, corpus, tiny, seed) for seed, name in enumerate(("sft", "dpo"))}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"dataset": "ours", "instruction": f"Why {n}?", "output": "old", "generator": "x"} for n in range(5)]
    return write(tmp_path / "questions.json", rows)


def answer(*arguments: object, code: int = 0) -> None:
    assert cli.main(["generate", *map(str, arguments)]) == code


def test_models_answer_and_judges_read_what_they_wrote(
    models: dict[str, Path], questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("--prompts", questions, "--model", *models.values(), "--output", tmp_path / "a", *SHORT)
    run = runs.load(tmp_path / "a")
    found = {name: read_answers(run.path / f"{name}.json").answers for name in models}
    for name, answers in found.items():
        assert [one.prompt for one in answers] == [f"Why {n}?" for n in range(5)]
        assert {(one.model, one.category) for one in answers} == {(name, "ours")}
        assert all(one.tokens == 6 if one.complete is False else (one.tokens or 0) < 6 for one in answers)
        capped = sum(one.complete is False for one in answers) / 5
        assert run.metrics[f"capped/{name}"]["value"] == capped > 0
        characters = sum(len(one.text) for one in answers) / 5
        assert run.metrics[f"characters/{name}"]["value"] == pytest.approx(characters)
    assert found["sft"] != found["dpo"]
    assert [stage["stage"] for stage in run.row_counts] == ["prompts", "answers of sft", "answers of dpo"]
    assert "cut off" in capsys.readouterr().out
    # Greedy: what else is asked, and a seed, change nothing.
    answer("--prompts", questions, "--model", models["dpo"], "--output", tmp_path / "b", *SHORT, "--seed", 7)
    assert (tmp_path / "b" / "dpo.json").read_bytes() == (tmp_path / "a" / "dpo.json").read_bytes()
    answer("--prompts", questions, "--model", models["dpo"], "--output", tmp_path / "c", *SHORT, "--temperature", 1)
    assert (tmp_path / "c" / "dpo.json").read_bytes() != (tmp_path / "a" / "dpo.json").read_bytes()


def test_a_stopped_command_goes_on_and_may_name_more_models(
    models: dict[str, Path], questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.rewards import sampling

    given = ("--prompts", questions, "--output", tmp_path / "a", *SHORT, "--batch-size", 1, "--temperature", 1)
    draw, drawn = sampling.draw, list[str]()

    def counted(*arguments: Any) -> Any:
        for one in draw(*arguments):
            drawn.append(one[0].key)
            yield one
            if len(drawn) == 3:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(sampling, "draw", counted)
    answer(*given, "--model", models["sft"], code=7)
    assert not (tmp_path / "a").exists()
    answer(*given, "--model", *models.values())
    assert len(drawn) == 5 + 5 and len(set(drawn[:5])) == 5
    assert not (tmp_path / "a.ledger").exists()
    answer("--prompts", questions, "--output", tmp_path / "b", *SHORT, "--temperature", 1, "--model", models["sft"])
    assert (tmp_path / "b" / "sft.json").read_bytes() == (tmp_path / "a" / "sft.json").read_bytes()


def test_a_server_answers_as_the_model_does(
    models: dict[str, Path], questions: Path, chat_server: str, tmp_path: Path
) -> None:
    """Greedy, and from the same tokens: the same answers, lengths and cuts."""
    answer("--prompts", questions, "--model", models["sft"], "--output", tmp_path / "here", *SHORT)
    there = ("--output", tmp_path / "there", "--endpoint", chat_server)
    answer("--prompts", questions, "--model", models["sft"], *there, *SHORT)
    assert read_answers(tmp_path / "there" / "sft.json") == read_answers(tmp_path / "here" / "sft.json")


TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("row", "prompt", "source"),
    [
        ({"instruction": "Why?", "dataset": "koala"}, "Why?", "koala"),
        ({"uid": "u", "category": "hard", "cluster": "c", "prompt": "Why?"}, "Why?", "hard"),
        ({"question_id": "q", "category": "hard", "turns": [{"content": "Why?"}]}, "Why?", "hard"),
        ({"question_id": 81, "category": "writing", "turns": ["Why?"]}, "Why?", "writing"),
        ({"prompt": TURNS}, "[user]\nHi\n\n[assistant]\nHo\n\n[user]\nWhy?", "p.json"),
        ({"prompt": "Why?", "system": "Be brief."}, "[system]\nBe brief.\n\n[user]\nWhy?", "p.json"),
    ],
)
def test_prompts_are_read_from_what_holds_them(row: dict[str, Any], prompt: str, source: str, tmp_path: Path) -> None:
    (found,), stages, _ = prompts.read(write(tmp_path / "p.json", [row, row]))
    assert (prompts.as_text(found.prompt), found.source) == (prompt, source)
    assert stages["prompts"].dropped == {"repeated_prompt": 1}


def test_prompts_of_preferences_are_read_too(corpus: list[Preference], tmp_path: Path) -> None:
    reading.write(tmp_path / "pairs.jsonl", corpus)
    found, stages, _ = prompts.read(tmp_path / "pairs.jsonl")
    assert {one.prompt for one in found} == {row.prompt for row in corpus} and list(stages) == ["read", "prompts"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"instruction": 3}, "instruction is a int"),
        ({"question_id": 1, "turns": ["Why?", "And?"]}, "expected one: a second turn needs an answer"),
        ({"prompt": TURNS[:2]}, "ends with the turn of the assistant"),
        ({"prompt": ""}, "prompt is empty"),
        ({"text": "Why?", "level": 3}, "name its column, such as --columns prompt=text"),
    ],
)
def test_rows_without_a_prompt_are_refused(row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        prompts.read(write(tmp_path / "p.json", [row]))


def test_bad_rows_that_are_allowed_are_stored(models: dict[str, Path], tmp_path: Path) -> None:
    given = ("--prompts", write(tmp_path / "p.json", [{"prompt": 3}, {"prompt": "Why?"}]), "--model", models["sft"])
    answer(*given, "--output", tmp_path / "a", *SHORT, "--max-bad-rows", "50%")
    run = runs.load(tmp_path / "a")
    (left_out,) = map(json.loads, (run.path / reading.QUARANTINE).read_text(encoding="utf-8").splitlines())
    assert (left_out["line"], left_out["verdict"], left_out["code"]) == (1, "quarantined", "MALFORMED")
    (read, _) = run.row_counts
    assert (read["stage"], read["rows_in"], read["kept"], read["quarantined"]) == ("prompts", 2, 1, 1)
    assert list(run.environment["inputs"]) == [str(tmp_path / "p.json")]


def test_a_conversation_is_answered_and_stays_one(models: dict[str, Path], tmp_path: Path) -> None:
    given = ("--prompts", write(tmp_path / "p.json", [{"prompt": TURNS}]), "--model", models["sft"])
    answer(*given, "--output", tmp_path / "a", *SHORT)
    (one,) = read_answers(tmp_path / "a" / "sft.json").answers
    assert [message.content for message in one.conversation] == ["Hi", "Ho", "Why?"]
    (again,), *_ = prompts.read(tmp_path / "a" / "sft.json")
    assert again.prompt == one.conversation


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--model", "a", "a"], "names a model twice"),
        (["--model", "a", "--top-p", "0.5"], "takes the most likely token"),
        (["--model", "a", "--concurrency", "2"], "has no effect on a local model"),
        (["--model", "a", "--endpoint", "http://x", "--batch-size", "2"], "has no effect on a server"),
        (["--model", "a", "--batch-size", "0"], "expected 1 or more"),
        (["--model", "a", "--endpoint", "x"], "is no address"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    more: list[str], problem: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("--prompts", questions, "--output", tmp_path / "a", *more, code=2)
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "a.ledger").exists()


def test_a_prompt_that_a_server_refuses_is_counted(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        asked = body["messages"][-1]["content"]
        if asked == "Why 3?":
            return 400, {}, b'{"error": {"message": "prompt is too long"}}'
        message = {"content": None, "refusal": "I cannot."} if asked == "Why 2?" else {"content": asked}
        return 200, {}, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()

    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.headers, server.script = [], [], script
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answer("--prompts", questions, "--model", "m", "--endpoint", url(server), "--output", tmp_path / "a")
        found = json.loads((tmp_path / "a" / "m.json").read_text())
        assert [row["output"] for row in found] == ["Why 0?", "Why 1?", "I cannot.", "Why 4?"]
        assert runs.load(tmp_path / "a").row_counts[-1]["dropped"] == {"too_long": 1}
        server.script = lambda body: (413, {}, b"")
        answer("--prompts", questions, "--model", "m", "--endpoint", url(server), "--output", tmp_path / "b", code=6)
        assert "m answered no prompt: too_long 5" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()
