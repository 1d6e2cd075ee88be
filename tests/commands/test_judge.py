"""`headwater judge`: answers in, annotations out; what it costs, what a crash costs, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message
from headwater.evaluation import judgement_files
from headwater.evaluation.alpaca_eval import answer_to, as_rows
from headwater.network import endpoint
from headwater.results import runs
from tests.evaluation.test_judges import prefers_tuned, said
from tests.support.scripted import Reply, Server, url

PAIRWISE = "pairwise(model='m')"


@pytest.fixture
def server(server: Server) -> Server:
    server.script = prefers_tuned
    return server


def outputs(path: Path, name: str, count: int, text: str) -> Path:
    rows = [{"instruction": f"Prompt {i}?", "output": f"{text} {i}", "generator": name} for i in range(count)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def answers(tmp_path: Path) -> dict[str, Path]:
    return {
        "base": outputs(tmp_path / "base.json", "b", 50, "base"),
        "tuned": outputs(tmp_path / "tuned.json", "t", 50, "tuned"),
    }


def flags(answers: dict[str, Path], output: Path, *more: object) -> list[str]:
    given = ("--baseline", answers["base"], "--answers", answers["tuned"], "--output", output, *more)
    return ["judge", *map(str, given)]


def test_win_rates_annotations_and_accounts(
    answers: dict[str, Path], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(answers["base"], "b", 52, "base")

    def script(body: dict[str, Any]) -> Reply:
        asked = body["messages"][1]["content"]
        return said("Hm.") if "Prompt 7?" in asked else prefers_tuned(body)

    server.script = script
    output = tmp_path / "judged"
    assert cli.main(flags(answers, output, "--judge", PAIRWISE, "--endpoint", url(server))) == 0
    run = runs.load(output)
    assert [(s["stage"], s["rows_in"], s["kept"], s["dropped"]) for s in run.row_counts] == [
        ("answers of t", 52, 50, {"unanswered": 2}),
        ("judged by pairwise:m", 50, 49, {"unparsed": 1}),
    ]
    rate = run.metrics["win_rate/pairwise:m/t"]
    assert (rate["value"], rate["n"], rate["clusters"]) == (1.0, 98, 49)
    assert run.metrics["prefers_first/pairwise:m"]["value"] == 0.5
    found, row_counts = judgement_files.read(output)
    assert len(found) == 98 and row_counts.dropped["unparsed"] == 1
    rows = json.loads((output / "annotations.json").read_text())
    assert {"instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator"} < set(rows[0])
    assert [row["preference"] for row in rows].count(None) == 1
    assert "pairwise:m" in capsys.readouterr().out


def test_bad_items_are_counted_by_reason(
    answers: dict[str, Path], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any]) -> Reply:
        asked = body["messages"][1]["content"]
        if "Prompt 7?" in asked:
            return 400, {}, b'{"error": {"message": "maximum context length is 4096 tokens"}}'
        return said("") if "Prompt 8?" in asked else prefers_tuned(body)

    server.script = script
    output = tmp_path / "judged"
    assert cli.main(flags(answers, output, "--judge", PAIRWISE, "--endpoint", url(server))) == 0
    row_counts = runs.load(output).row_counts[-1]
    assert (row_counts["kept"], row_counts["dropped"]) == (48, {"too_long": 1, "empty_reply": 1})
    assert "too_long 1" in capsys.readouterr().out
    found = [row.get("problem") for row in json.loads((output / "annotations.json").read_text())]
    assert sorted(filter(None, found)) == ["empty_reply", "too_long"]
    assert cli.main(["compare", str(output), "--output", str(tmp_path / "compared")]) == 0
    assert runs.load(tmp_path / "compared").row_counts[0]["dropped"] == {"too_long": 1, "empty_reply": 1}


def test_nothing_judged_is_an_error(
    answers: dict[str, Path], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = lambda body: (400, {}, b'{"error": {"message": "maximum context length is 40 tokens"}}')
    asked = ["--judge", PAIRWISE, "--endpoint", url(server)]
    assert cli.main(flags(answers, tmp_path / "judged", *asked)) == 6
    said_of_it = capsys.readouterr().err
    assert "no judgement holds a verdict: too_long 50" in said_of_it and "maximum context length is 40" in said_of_it
    assert "nan" not in said_of_it and not (tmp_path / "judged").exists()
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=30, seed=1)))
    model = ["--model", "scratch(hidden=32, layers=1, vocab=400)", "--output", str(tmp_path / "rm")]
    assert cli.main(["train-reward", "--data", str(tmp_path / "pairs.jsonl"), *model, "--precision", "fp32"]) == 0
    rewarded = ["--judge", f"reward(model='{tmp_path / 'rm'}', max_length=2)"]
    assert cli.main(flags(answers, tmp_path / "judged", *rewarded)) == 3
    assert "no judgement holds a verdict: too_long 50" in capsys.readouterr().err


@pytest.mark.fault("J3")
def test_killed_after_37_of_100_it_makes_63_more(answers: dict[str, Path], server: Server, tmp_path: Path) -> None:
    given = flags(answers, tmp_path / "judged", "--judge", PAIRWISE, "--endpoint", url(server), "--concurrency", "1")
    began: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def script(body: dict[str, Any]) -> Reply:
        if len(server.asked) == 38:  # the 38th request is never answered
            ready.wait(30)
            began[0].send_signal(signal.SIGKILL)
            began[0].wait()
        return prefers_tuned(body)

    server.script = script
    began.append(subprocess.Popen([sys.executable, "-m", "headwater", *given], stderr=subprocess.DEVNULL))
    ready.set()
    assert began[0].wait(120) == -signal.SIGKILL
    assert not (tmp_path / "judged" / "done").exists()
    server.asked.clear()
    assert cli.main(given) == 0
    assert len(server.asked) == 63
    assert runs.load(tmp_path / "judged").metrics["win_rate/pairwise:m/t"]["n"] == 100


def test_a_dry_run_counts_and_asks_nothing(
    answers: dict[str, Path], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "judged"
    judges = ("--judge", PAIRWISE, "alpaca_eval(model='m')", "--endpoint", url(server))
    assert cli.main(flags(answers, output, *judges, "--dry-run")) == 0
    told = capsys.readouterr().out
    assert server.asked == [] and not output.exists() and not output.with_name("judged.ledger").exists()
    lines = {line.split("│")[1].strip(): line for line in told.splitlines() if line.startswith("│")}
    assert [part.strip() for part in lines["pairwise:m"].split("│")[2:5]] == ["100", "0", "100"]
    assert [part.strip() for part in lines["alpaca_eval:m"].split("│")[2:5]] == ["50", "0", "50"]


@pytest.mark.parametrize("as_file", [False, True])
def test_answers_of_another_form_are_described(
    as_file: bool, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "base.jsonl", tmp_path / "tuned.jsonl"]
    for path in paths:
        rows = [{"question": f"Prompt {i}?", "reply": f"{path.stem} {i}"} for i in range(3)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("prompt: question\ncompletion: reply\n", encoding="utf-8")
    both = dict(zip(("base", "tuned"), paths, strict=True))
    given = ["--layout", tmp_path / "mine.yaml"] if as_file else ["--columns", "prompt=question, completion=reply"]
    call = flags(both, tmp_path / "judged", "--judge", PAIRWISE, "--endpoint", url(server))
    assert cli.main([*call, *map(str, given)]) == 0
    (run,) = judgement_files.read(tmp_path / "judged")[:1]
    assert {(one.first, one.second, one.prompt) for one in run} == {("base", "tuned", f"Prompt {i}?") for i in range(3)}
    assert cli.main([*call, "--overwrite"]) == 3
    assert "or describe it, such as --columns" in capsys.readouterr().err


def test_the_key_goes_to_the_server_and_stays_out_of_every_file_and_line(
    answers: dict[str, Path],
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(endpoint.KEY, "sk-very-secret")
    given = flags(answers, tmp_path / "judged", "--judge", PAIRWISE, "--endpoint", url(server))
    server.script = lambda body: (401, {}, b"wrong key: sk-very-secret")
    assert cli.main(given) == 6
    server.script = prefers_tuned
    assert cli.main(given) == 0
    assert cli.main(["compare", str(tmp_path / "judged"), "--output", str(tmp_path / "compared")]) == 0
    assert server.headers[-1]["Authorization"] == "Bearer sk-very-secret"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 15 and any(path.name == "judged.ledger" for path in files)
    assert not [path for path in files if b"sk-very-secret" in path.read_bytes()]
    told = capfd.readouterr()
    assert "wrong key: ***" in told.err and "sk-very-secret" not in told.err + told.out


def test_answers_that_were_cut_off_are_named(
    answers: dict[str, Path], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(answers["tuned"].read_text())
    cut = [row | {"complete": place > 2} for place, row in enumerate(rows)]
    answers["tuned"].write_text(json.dumps(cut), encoding="utf-8")
    assert cli.main(flags(answers, tmp_path / "j", "--judge", PAIRWISE, "--endpoint", url(server), "--dry-run")) == 0
    told = capsys.readouterr().err
    assert "t: 3 of 50 answers were cut off before their end" in told and "b: " not in told


def test_more_answers_cost_only_what_is_new(answers: dict[str, Path], server: Server, tmp_path: Path) -> None:
    more = ("--judge", PAIRWISE, "--endpoint", url(server))
    assert cli.main(flags(answers, tmp_path / "judged", *more)) == 0
    third = outputs(tmp_path / "third.json", "u", 5, "tuned too")
    server.asked.clear()
    given = flags(answers, tmp_path / "judged", *more, "--overwrite")
    given.insert(given.index(str(answers["tuned"])) + 1, str(third))
    assert cli.main(given) == 0
    assert len(server.asked) == 10
    assert runs.load(tmp_path / "judged").metrics["win_rate/pairwise:m/u"]["n"] == 10


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--judge", PAIRWISE], "needs a server"),
        (["--judge", "reward(model='r')", "--endpoint", "http://x/v1"], "--endpoint · has no effect"),
        (["--judge", "reward(model='r')", "--concurrency", "2"], "--concurrency · has no effect"),
        (["--judge", "reward(model='r')", "--dry-run"], "nothing to pay"),
        (["--judge", PAIRWISE, PAIRWISE, "--endpoint", "http://x/v1"], "names a judge twice"),
        (["--judge", PAIRWISE, "--endpoint", "http://x/v1", "--concurrency", "0"], "expected 1 or more"),
        (["--judge", "coin()"], "unknown judge coin"),
        (["--judge", "reward(model='r')", "--layout", "alpaca"], "expected a .yaml file"),
        (["--judge", "reward(model='r')", "--columns", "chosen=a"], "names chosen · expected prompt and completion"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    more: list[str], problem: str, answers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(flags(answers, tmp_path / "judged", *more)) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "judged").exists()


@pytest.mark.parametrize(
    ("name", "count", "problem"), [("b", 50, "as another file does"), ("t", 0, "holds no answers")]
)
def test_answers_that_compare_nothing_are_refused(
    name: str, count: int, problem: str, answers: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(answers["tuned"], name, count, "x")
    assert cli.main(flags(answers, tmp_path / "judged", "--judge", "reward(model='r')")) == 3
    assert problem in capsys.readouterr().err


MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.25"]


def test_reward_models_and_policies_judge_as_score_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The course report's question: is one model's answer better under two rewards? Their scores are `score`'s."""
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=48, seed=2)))
    sft, dpo, reward = (tmp_path / name for name in ("sft", "dpo", "reward"))
    data = ["--data", str(tmp_path / "pairs.jsonl"), *QUICK]
    assert cli.main(["train-reward", *data, "--output", str(reward), "--model", MODEL]) == 0
    assert cli.main(["train-sft", *data, "--output", str(sft), "--model", MODEL]) == 0
    assert cli.main(["train-dpo", *data, "--output", str(dpo), "--model", str(sft)]) == 0
    rows = list({row.prompt: row for row in generate(Corpus(pairs=24, seed=5))}.values())
    before = (Message("user", "Hi."), Message("assistant", "Hello."))
    rows = [replace(row, prompt=(*before, *row.prompt)) if place % 2 else row for place, row in enumerate(rows)]
    files = {}
    for side in ("rejected", "chosen"):
        files[side] = tmp_path / f"{side}.json"
        said = [answer_to(row.prompt, getattr(row, side).text, side) for row in rows]
        said.append(answer_to((Message("user", "What is equal?"),), "The same words in both.", side))
        files[side].write_text(json.dumps(as_rows(said)), encoding="utf-8")
    given = ["--baseline", str(files["rejected"]), "--answers", str(files["chosen"]), "--output", str(tmp_path / "j")]
    assert cli.main(["judge", *given, "--judge", f"reward(model='{reward}')", f"reward(model='{dpo}')"]) == 0
    found, _ = judgement_files.read(tmp_path / "j")
    equal = [one for one in found if one.prompt == "What is equal?"]
    assert [one.preference for one in equal] == [0.5, 0.5]
    assert all(one.scores and one.scores[0] == one.scores[1] for one in equal)
    assert all(one.noise is not None and 0 <= one.noise < 1e-4 for one in found)
    told = capsys.readouterr()
    assert f"(1 of {len(rows) + 1}) are identical to those of rejected: ties for every judge." in " ".join(
        told.out.split()
    )
    assert told.err.count("noise: scored again in another batch") == 2
    found = [one for one in found if one.prompt != "What is equal?"]
    assert {one.judge for one in found} == {str(reward), str(dpo)} and len(found) == 2 * len(rows)
    assert all(one.scores and one.preference == float(one.scores[1] > one.scores[0]) for one in found)
    reading.write(tmp_path / "few.jsonl", rows)
    for model in (reward, dpo):
        home = tmp_path / f"scored-{model.name}"
        given = ["--input", str(tmp_path / "few.jsonl"), "--output", str(home), "--model", str(model)]
        assert cli.main(["score", *given]) == 0
        scored = sorted(tuple(reversed(record["rewards"])) for record in runs.load(home).records())
        ours = sorted(one.scores for one in found if one.judge == str(model) and one.scores)
        assert len(ours) == len(rows) and len(set(ours)) > 1
        np.testing.assert_allclose(ours, scored, atol=1e-4)
