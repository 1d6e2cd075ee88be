"""`headwater select` as a user types it: candidates and pairs, budgets, runs as rewards, what is written, real data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.preference import Candidates, Message, Preference, Response
from headwater.data.selection import selecting
from headwater.data.tokenizers import Tokenizer
from headwater.results import runs

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def made(number: int, scores: Sequence[float | None]) -> Candidates:
    responses = tuple(Response(f"{WORDS[place]} of {number}", score) for place, score in enumerate(scores))
    question = (Message("user", f"What is {number} times {number}?"),)
    return Candidates(prompt=question, responses=responses, id=f"row:{number}", source="ab"[number % 2])


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    """20 prompts whose spread of scores grows with their number, one without any spread, one with a single score."""
    rows = [made(n, [0.0, n / 4, n / 2]) for n in range(1, 21)]
    path = tmp_path / "candidates.jsonl"
    reading.write(path, [*rows, made(21, [1.0, 1.0, 1.0]), made(22, [1.0, None, None])])
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        Preference(
            prompt=(Message("user", f"Why {n}?"),),
            chosen=Response("Because. " * (n % 3 + 1), n / 10),
            rejected=Response(f"No {n}.", 0.0),
            id=f"p:{n}",
            source="s",
        )
        for n in range(30)
    ]
    path = tmp_path / "pairs.jsonl"
    reading.write(path, rows)
    return path


def select(*arguments: object, code: int = 0) -> None:
    assert cli.main(["select", *map(str, arguments)]) == code


def ids(path: Path) -> list[str]:
    return [record.id for record in reading.stream(path)]


def scores_of(run: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pyarrow.parquet.read_table(run / "selection.parquet").to_pydict()
    return columns


@dataclasses.dataclass(frozen=True)
class Evaluation:
    model: str


def scored(path: Path, rewards: dict[str, list[float]], kind: str) -> Path:
    """A run as `evaluate` leaves it."""
    writer = runs.start(path, "evaluate", Evaluation(path.name), facts={"kind": kind})
    writer.write_records([{"id": n, "chosen_reward": c, "rejected_reward": r} for n, (c, r) in rewards.items()])
    return writer.finish()


def test_the_top_of_candidates(candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "selected.jsonl"
    select("--input", candidates, "--output", output, "--budget", "3prompts")
    assert ids(output) == ["row:18", "row:19", "row:20"]
    assert next(iter(reading.stream(output))) == made(18, [0.0, 4.5, 9.0])
    captured = capsys.readouterr()
    assert (
        "select: 22 rows in = 3 kept + 0 quarantined + 19 dropped (over_budget 18, undefined_score 1)" in captured.err
    )
    assert "no reward: 2 of 66 responses" in captured.err
    assert "top of pvar(tau=1.0): 3 of 22 rows" in captured.out

    run = runs.load(runs.beside(output))
    assert run.command == "select"
    assert [stage["stage"] for stage in run.row_counts] == ["read", "select"]
    columns = scores_of(run.path)
    assert len(columns["id"]) == 22
    assert columns["pvar"] == columns["score"]
    assert columns["score"][:20] == sorted(columns["score"][:20])
    assert columns["score"][20] == 0 and columns["score"][21] is None
    assert [columns["rank"][n] for n in (17, 18, 19, 0)] == [3, 2, 1, 0]
    assert run.metrics["score_all"]["n"] == 21
    assert run.metrics["score_taken"]["value"] == pytest.approx(np.mean(columns["score"][17:20]))
    assert run.facts["pvar_unit"] == 1.0
    summary = json.loads((run.path / "selection.json").read_text("utf-8"))
    assert [example["id"] for example in summary["examples"]["top"]] == ["row:20", "row:19", "row:18"]
    assert summary["examples"]["bottom"][0]["id"] == "row:21"
    assert summary["examples"]["top"][0]["best"] == {"text": "three of 20", "reward": 10.0}
    assert summary["examples"]["top"][0]["worst"] == {"text": "one of 20", "reward": 0.0}
    assert {found["other"] for found in summary["agreement"]} == {"reward_gap", "uncertainty", "length_gap"}
    assert summary["sources"] == {"b": [11, 1], "a": [11, 2]} or summary["sources"] == {"a": [11, 2], "b": [11, 1]}


def test_the_same_command_gives_the_same_files(candidates: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        select("--input", candidates, "--output", tmp_path / name, "--pairs", "random", "--take", "random")
    for file in ("preferences.jsonl", "selection.parquet", "metrics.json", "selection.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_run_repeats_itself_from_its_own_config(candidates: Path, tmp_path: Path) -> None:
    select("--input", candidates, "--output", tmp_path / "a", "--by", "random(seed=3)", "--budget", "25%")
    first = ids(tmp_path / "a" / "preferences.jsonl")
    assert len(first) == 5
    select("--config", tmp_path / "a" / "config.yaml", "--overwrite")
    assert ids(tmp_path / "a" / "preferences.jsonl") == first


def test_pairs_of_candidates_are_labelled_by_their_rewards(candidates: Path, tmp_path: Path) -> None:
    select("--input", candidates, "--output", tmp_path / "p.jsonl", "--budget", "100%", "--pairs", "all")
    found = reading.load(tmp_path / "p.jsonl").preferences
    assert len(found) == 60
    assert all(p.chosen.score > p.rejected.score for p in found)  # type: ignore[operator]
    assert len({p.id for p in found}) == 60
    assert found[0].id == "row:1:2>1"
    row_counts = {stage["stage"]: stage for stage in runs.load(tmp_path / "p.jsonl.run").row_counts}
    assert row_counts["select"]["dropped"] == {"undefined_score": 1, "no_pair": 1}
    assert row_counts["pairs"]["rows_in"] == row_counts["pairs"]["kept"] == 60


def test_ties_and_pairs_that_compare_nothing_are_counted(tmp_path: Path) -> None:
    same = [Response("a", 1.0), Response("b", 1.0), Response(" a ", 2.0), Response(" ", 0.0)]
    row = Candidates(prompt=(Message("user", "?"),), responses=tuple(same), id="r", source="s")
    reading.write(tmp_path / "c.jsonl", [row])
    select("--input", tmp_path / "c.jsonl", "--output", tmp_path / "p.jsonl", "--budget", "100%", "--pairs", "all")
    stage = runs.load(tmp_path / "p.jsonl.run").row_counts[-1]
    assert stage["rows_in"] == 6
    assert stage["kept"] == 1  # " a " over "b"
    assert stage["dropped"] == {"tie": 1, "identical_responses": 1, "empty_response": 3}


@pytest.mark.parametrize(("budget", "rows"), [("7pairs", 2), ("6pairs", 2), ("50%pairs", 10)])
def test_a_budget_in_pairs(candidates: Path, tmp_path: Path, budget: str, rows: int) -> None:
    select("--input", candidates, "--output", tmp_path / "p.jsonl", "--budget", budget, "--pairs", "all")
    assert len(ids(tmp_path / "p.jsonl")) == 3 * rows


def test_a_budget_in_tokens(candidates: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = ("--input", candidates, "--tokenizer", tmp_path / "tokenizer", "--pairs", "best_worst")
    select(*given, "--output", tmp_path / "p.jsonl", "--budget", "100tokens")
    found = reading.load(tmp_path / "p.jsonl").preferences

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    spent = [count(p.prompt[0].content) + count(p.chosen.text) + count(p.rejected.text) for p in found]
    assert 100 - max(spent) < sum(spent) <= 100
    run = runs.load(tmp_path / "p.jsonl.run")
    assert "response_tokens_all" in run.metrics


def test_every_source_keeps_its_share(candidates: Path, tmp_path: Path) -> None:
    select("--input", candidates, "--output", tmp_path / "s.jsonl", "--budget", "4prompts", "--per-source")
    assert ids(tmp_path / "s.jsonl") == ["row:17", "row:18", "row:19", "row:20"]
    select("--input", candidates, "--output", tmp_path / "l.jsonl", "--budget", "4prompts", "--take", "bottom")
    assert ids(tmp_path / "l.jsonl") == ["row:1", "row:2", "row:3", "row:21"]


def test_near_duplicate_prompts_are_dropped_below_the_best_of_them(tmp_path: Path) -> None:
    question = " ".join(f"word{n}" for n in range(50))
    rows = [
        Candidates(
            prompt=(Message("user", text),), responses=(Response("a", 0.0), Response("b", spread)), id=name, source="s"
        )
        for name, text, spread in (("x", question, 1.0), ("y", question + " more", 3.0), ("z", "another", 2.0))
    ]
    reading.write(tmp_path / "c.jsonl", rows)
    given = ("--input", tmp_path / "c.jsonl", "--budget", "2prompts")
    select(*given, "--output", tmp_path / "s.jsonl", "--drop-near-duplicates", "--take", "top")
    assert ids(tmp_path / "s.jsonl") == ["y", "z"]
    assert runs.load(tmp_path / "s.jsonl.run").row_counts[-1]["dropped"] == {"near_duplicate": 1}


def test_rewards_from_runs_and_an_ensemble(pairs: Path, tmp_path: Path) -> None:
    large = scored(tmp_path / "large", {f"p:{n}": [float(n % 7), 0.0] for n in range(30)}, "reward model")
    small = scored(tmp_path / "small", {f"p:{n}": [float(n % 5), 0.0] for n in range(30)}, "reward model")
    select("--input", pairs, "--output", tmp_path / "s.jsonl", "--rewards", large, small, "--budget", "2prompts")
    summary = json.loads((tmp_path / "s.jsonl.run" / "selection.json").read_text("utf-8"))
    alone = [found for found in summary["agreement"] if found["other"].startswith("the same")]
    assert [found["other"] for found in alone] == ["the same, by large alone", "the same, by small alone"]
    assert all(-1 <= found["correlation"]["value"] <= 1 and found["correlation"]["n"] == 30 for found in alone)
    by_hand = np.array([np.tanh([n % 7 / 2, n % 5 / 2]).mean() / 2 for n in range(30)]) ** 2
    np.testing.assert_allclose(scores_of(tmp_path / "s.jsonl.run")["score"], by_hand)


def test_implicit_rewards_of_models_that_left_out_their_own_training_rows(pairs: Path, tmp_path: Path) -> None:
    odd = scored(tmp_path / "odd", {f"p:{n}": [n / 10, 0.0] for n in range(0, 30, 2)}, "dpo")
    even = scored(tmp_path / "even", {f"p:{n}": [-n / 10, 0.0] for n in range(1, 29, 2)}, "dpo")
    given = ("--input", pairs, "--implicit", odd, even)
    select(*given, "--output", tmp_path / "easy.jsonl", "--by", "held_out_loss", "--budget", "5prompts")
    assert set(ids(tmp_path / "easy.jsonl")) == {f"p:{n}" for n in (20, 22, 24, 26, 28)}  # the loss is small
    select(*given, "--output", tmp_path / "hard.jsonl", "--by", "implicit_gap", "--budget", "2prompts")
    assert set(ids(tmp_path / "hard.jsonl")) == {"p:25", "p:27"}  # against their label
    row_counts = runs.load(tmp_path / "hard.jsonl.run").row_counts[-1]
    assert row_counts["dropped"] == {"undefined_score": 1, "over_budget": 27}  # nobody scored p:29
    select(*given, "--output", tmp_path / "dual.jsonl", "--by", "dual_margin", "--budget", "3prompts")
    assert set(ids(tmp_path / "dual.jsonl")) < {f"p:{n}" for n in range(14, 30, 2)}  # above a cap: ties


def test_what_people_judge_has_no_labels(candidates: Path, tmp_path: Path) -> None:
    queue = tmp_path / "queue.jsonl"
    given = ("--input", candidates, "--by", "random", "--budget", "100%", "--export-for-annotation", queue)
    select(*given, "--output", tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in queue.read_text("utf-8").splitlines()]
    kept = {record.id: record for record in reading.stream(tmp_path / "s.jsonl")}
    assert [row["id"] for row in rows] == list(kept)
    for row in rows:
        assert set(row) == {"id", "source", "instruction", "response_1", "response_2", "response_3", "order"}
        record = kept[row["id"]]
        assert isinstance(record, Candidates)
        assert [row[f"response_{n}"] for n in (1, 2, 3)] == [record.responses[place].text for place in row["order"]]
    assert len({tuple(row["order"]) for row in rows}) > 1


def test_unlabelled_candidates_can_be_chosen_before_anyone_judged_them(tmp_path: Path) -> None:
    reading.write(tmp_path / "c.jsonl", [made(n, [None, None]) for n in range(10)])
    given = ("--input", tmp_path / "c.jsonl", "--output", tmp_path / "s.jsonl", "--budget", "4prompts")
    select(*given, "--by", "random(seed=1)")
    assert len(ids(tmp_path / "s.jsonl")) == 4
    select(*given, "--overwrite", code=2)  # PVar needs rewards


REFUSED = [
    (["--by", "pvr"], "did you mean pvar?"),
    (["--by", "pvar(tau=0)"], "expected a temperature above 0"),
    (["--budget", "10"], "expected an amount with its unit"),
    (["--budget", "5%tokens"], "--tokenizer"),
    (["--budget", "5pairs"], "counts pairs, but none are made"),
    (["--pairs", "best"], "did you mean"),
    (["--by", "random", "--take", "bottom"], "has no effect on a random ranking"),
    (["--by", "implicit_gap"], "needs pairs of a chosen and a rejected response"),
    (["--tokenizer", "scratch(vocab=400)"], "is trained on data held in memory"),
    (["--pairs", "all", "--export-for-annotation", "q.jsonl"], "labels what --export-for-annotation"),
    (["--export-for-annotation", "q.csv"], "ends in .jsonl"),
    (["--scores", "reward", "--rewards", "."], "has no effect beside --rewards"),
    (["--rewards", "."], "is not a run directory"),
    (["--output", "s.xlsx"], "unknown kind of file"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    flags: list[str], message: str, candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    output = [] if "--output" in flags else ["--output", tmp_path / "s.jsonl"]
    select("--input", candidates, *output, *flags, code=2)
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_policy_that_is_none_is_refused_before_the_work(candidates: Path, tmp_path: Path) -> None:
    given = ("--input", candidates, "--output", tmp_path / "s.jsonl", "--measure-gradients", 4)
    select(*given, "--policy", tmp_path / "nothing", code=4)
    assert not (tmp_path / "s.jsonl").exists() and not (tmp_path / "s.jsonl.run").exists()


def test_what_pairs_cannot_serve_is_refused(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--input", pairs, "--output", tmp_path / "s.jsonl")
    reward = scored(tmp_path / "rm", {"p:1": [1.0, 0.0]}, "reward model")
    for flags, message in (
        (["--pairs", "all"], "holds pairs already"),
        (["--by", "dual_margin"], "needs implicit rewards"),
        (["--implicit", reward, "--by", "implicit_gap"], "scored with a reward model"),
        (["--implicit", scored(tmp_path / "dpo", {"p:1": [1.0, 0.0]}, "dpo")], "has no effect with --by pvar"),
    ):
        select(*given, *flags, code=2)
        assert message in capsys.readouterr().err
    select(*given, "--by", "pvar", "--scores", "probability", code=3)
    assert "expected a probability" in capsys.readouterr().err


def test_nothing_fits(candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    select("--input", candidates, "--output", tmp_path / "s.jsonl", "--budget", "1%", code=3)
    assert "no row fits into --budget 1%" in capsys.readouterr().err
    assert not (tmp_path / "s.jsonl").exists()


def test_its_own_input_is_not_replaced(candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = candidates.read_bytes()
    select("--input", candidates, "--output", candidates, "--overwrite", code=2)
    assert "would replace the data that is read" in capsys.readouterr().err
    assert candidates.read_bytes() == before
    select("--input", candidates, "--output", tmp_path / "run", "--budget", "50%")
    select("--input", tmp_path / "run", "--output", tmp_path / "run", "--overwrite", code=2)
    assert len(ids(tmp_path / "run" / "preferences.jsonl")) == 11
    select("--input", tmp_path / "run", "--output", tmp_path / "again.parquet", "--budget", "50%")
    assert len(ids(tmp_path / "again.parquet")) == 5


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_data_that_changes_while_it_is_read_is_refused(
    change: str, candidates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = candidates.read_bytes().splitlines(keepends=True)
    changed = {"shorter": lines[:-1], "longer": [*lines, lines[0].replace(b"1 times", b"99 times")], "other": lines[1:]}
    honest = selecting.choose

    def change_then_choose(*arguments: Any, **named: Any) -> Any:
        candidates.write_bytes(b"".join(changed[change]))
        return honest(*arguments, **named)

    monkeypatch.setattr(selecting, "choose", change_then_choose)
    select("--input", candidates, "--output", tmp_path / "s.jsonl", code=3)
    assert "changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "s.jsonl").exists()


def test_labelled_single_responses_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "u.jsonl").write_text(json.dumps({"prompt": "Why?", "completion": "So.", "label": True}))
    select("--input", tmp_path / "u.jsonl", "--output", tmp_path / "s.jsonl", code=3)
    assert "holds single responses with a label" in capsys.readouterr().err


# --- real data -----------------------------------------------------------------------------------------------------


def test_best_of_16(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_data / "rewardbench_bon16" / "tulu2_dpo_13b_n16.jsonl.gz"
    select("--input", path, "--output", tmp_path / "s.jsonl")
    run = runs.load(tmp_path / "s.jsonl.run")
    assert run.metrics["score_all"]["n"] == 805
    assert run.metrics["score_all"]["value"] == pytest.approx(0.146, abs=0.0005)
    assert run.metrics["score_std"]["value"] == pytest.approx(0.040, abs=0.0005)
    assert set(scores_of(run.path)["scored_responses"]) == {11}
    assert len(ids(tmp_path / "s.jsonl")) == 80
    assert "logit of a probability" in capsys.readouterr().err

    # What was written still holds probabilities, and is read as such although its layout no longer says so.
    select("--input", tmp_path / "s.jsonl", "--output", tmp_path / "again.jsonl", "--budget", "100%")
    assert "logit of a probability" in capsys.readouterr().err
    again = runs.load(tmp_path / "again.jsonl.run").metrics["score_all"]["value"]
    assert again == pytest.approx(run.metrics["score_taken"]["value"], rel=1e-12)


def test_the_report_shows_what_was_chosen(candidates: Path, tmp_path: Path) -> None:
    select("--input", candidates, "--output", tmp_path / "run", "--budget", "3prompts", "--by", "reward_gap")
    page = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path / "run"), "--output", str(page)]) == 0
    text = page.read_text("utf-8")
    assert "3 of 22 rows are taken, the top of reward_gap" in text
    assert "What is 20 times 20?" in text and "three of 20" in text
    for section in ("selection", "selection-effects", "selector-agreement", "examples"):
        assert f'id="{section}"' in text


def test_many_models_on_alpaca_eval(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "alpaca_eval2" / "multi_response_preferences.jsonl.gz"
    select("--input", path, "--output", tmp_path / "s.jsonl", "--pairs", "best_sigma(k=2.0)", "--per-source")
    run = runs.load(tmp_path / "s.jsonl.run")
    assert run.metrics["score_all"]["n"] == 805
    assert set(scores_of(run.path)["scored_responses"]) <= {28, 29}
    assert max(scores_of(run.path)["score"]) <= 0.25
    found = reading.load(tmp_path / "s.jsonl").preferences
    assert len(found) == 80
    assert all(p.chosen.score > p.rejected.score for p in found)  # type: ignore[operator]


def test_rated_pairs(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "ultrafeedback_binarized" / "train_clean.jsonl.gz"
    select("--input", path, "--output", tmp_path / "s.jsonl", "--budget", "5%")
    run = runs.load(tmp_path / "s.jsonl.run")
    assert run.metrics["reward_gap_taken"]["value"] > run.metrics["reward_gap_all"]["value"]
