"""RewardBench, RewardBench 2 and RM-Bench: published tables, statistics worked by hand, and the command end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Candidates, Message, Response
from headwater.data.reading import Row
from headwater.errors import DataError
from headwater.evaluation import reward_bench
from headwater.evaluation.benchmark import read_items
from headwater.evaluation.reward_bench import SECTIONS, Item, Spread, best_of, figures, matrix, read, ties_score
from headwater.results import runs
from tests.support.commands import headwater

CORE = {subset: weight for name, known in SECTIONS.items() if name != "Prior Sets" for subset, weight in known.items()}
ROWS = CORE | {"math-prm": 447}


def item(name: str, subset: str, correct: int, responses: int) -> Item:
    prompt = (Message("user", name),)
    texts = tuple(Response(f"{name} {n}") for n in range(responses))
    return Item(Candidates(prompt=prompt, responses=texts, id=name, source=subset), correct, subset)


@pytest.fixture(params=["GPM-Gemma-2B", "GPM-Gemma-2-2B", "GPM-Gemma-2-9B", "GPM-Llama-3.1-8B-Instruct"])
def published(request: pytest.FixtureRequest, shared_data: Path) -> dict[str, float]:
    table = json.loads((shared_data / "published_tables" / f"rewardbench_{request.param}.json").read_text())
    return {subset: table[subset] for subset in CORE}


def test_the_subsets_have_the_sizes_of_the_published_results(published: dict[str, float]) -> None:
    """A published accuracy times the right number of rows is a whole number, or a half where two scores tied."""
    assert len(ROWS) == 23
    assert sum(ROWS.values()) == 2985
    for subset, accuracy in published.items():
        assert 2 * accuracy * ROWS[subset] == pytest.approx(round(2 * accuracy * ROWS[subset]), abs=1e-6), subset


def test_published_results_row_by_row_give_their_sections(published: dict[str, float]) -> None:
    """From 2,985 rows, each won or lost as published: the sections, their average, and the plain accuracy."""
    items, rewards = [], []
    for subset, accuracy in published.items():
        for n in range(ROWS[subset]):
            items.append(item(f"{subset} {n}", subset, 1, 2))
            rewards.append([1.0, 0.0] if n < round(accuracy * ROWS[subset]) else [0.0, 1.0])
    found = figures("reward-bench", items, rewards, 0)
    sections = reward_bench.section_scores(published)
    by_hand = {
        "Chat": (100 * published["alpacaeval-easy"] + 95 * published["alpacaeval-length"]
                 + 95 * published["alpacaeval-hard"] + 28 * published["mt-bench-easy"]
                 + 40 * published["mt-bench-med"]) / 358,
        "Reasoning": (published["math-prm"] + np.mean([published[s] for s in CORE if s.startswith("hep-")])) / 2,
    }  # fmt: skip
    for section, score in by_hand.items():
        assert sections[section] == pytest.approx(score, abs=1e-12)
    for section, score in sections.items():
        assert found[f"section/{section}"].value == pytest.approx(score, abs=1e-12)
    assert found["section_average"].value == pytest.approx(np.mean(list(sections.values())), abs=1e-12)
    assert found["accuracy"].value == pytest.approx(sum(published[s] * n for s, n in ROWS.items()) / 2985)
    assert found["section_average"].n == 2985
    for estimate in found.values():
        assert estimate.low is not None
        assert estimate.low <= estimate.value <= estimate.high  # type: ignore[operator]


def test_the_leaderboard_weighs_prior_sets_by_half(shared_data: Path) -> None:
    """Every row of the published section table gives the published score, as far as both are printed: to 0.05 each."""
    text = (shared_data / "published_tables" / "rewardbench_sections_RLHFlow.md").read_text()
    rows = [re.sub(r"[*]", "", line).split("|")[4:-1] for line in text.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 6
    for score, *sections in ([float(cell) for cell in row] for row in rows):
        named = dict(zip(("Chat", "Chat Hard", "Safety", "Reasoning", "Prior Sets"), sections, strict=True))
        assert reward_bench.section_average(named) == pytest.approx(score, abs=0.1)


def test_the_two_averages_can_order_models_differently() -> None:
    """math-prm counts twice in a section: a model can gain accuracy and lose the average."""
    items = [item(f"{subset} {n}", subset, 1, 2) for subset in ("math-prm", "hep-go") for n in range(10)]
    right, wrong, tie = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    one = figures("reward-bench", items, [right] * 5 + [wrong] * 5 + [right] * 10, 0)
    other = figures("reward-bench", items, [right] * 9 + [wrong] + [right] * 5 + [tie] * 2 + [wrong] * 3, 0)
    assert one["section/Reasoning"].value == pytest.approx((984 * 0.5 + 164 * 1.0) / 1148)
    assert other["section/Reasoning"].value == pytest.approx((984 * 0.9 + 164 * 0.6) / 1148)
    assert one["accuracy"].value == other["accuracy"].value == pytest.approx(0.75)


def test_best_of_four_shares_the_point_among_ties() -> None:
    assert best_of([3.0, 1.0, 2.0, 0.0], 1) == 1.0
    assert best_of([3.0, 3.0, 2.0, 3.0], 1) == pytest.approx(1 / 3)
    assert best_of([1.0, 3.0, 2.0, 3.0], 1) == 0.0


@pytest.mark.parametrize(
    ("one", "many", "expected"),
    [
        ((0.0, 4.0), (2.0, 6.0), 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(1.0)),
        ((0.0, 1.0), (2.0, 6.0), 0.3 + 0.3 + 0.2 + 0.01 * np.tanh(-0.5)),
        ((0.0, -1.0), (2.0, 1.0), 0.3 + 0.01 * np.tanh(-1.5)),
        ((0.0, 1.0), (0.0, 1.0), 0.3 + 0.3 + 0.2 + 0.2 + 0.01),
        ((0.0, 0.0), (0.0, 0.0), 0.0),
    ],
)
def test_ties_by_hand(one: tuple[float, float], many: tuple[float, float], expected: float) -> None:
    assert ties_score(Spread(*one), Spread(*many)) == pytest.approx(expected)


def test_reward_bench_2_averages_its_subsets() -> None:
    items = [item(f"m{n}", "Math", 1, 4) for n in range(4)] + [item("s", "Safety", 1, 4)]
    items += [item("ref:1", "Ties", 1, 3), item("tied:1", "Ties", 2, 3), item("tied:2", "Ties", 2, 3)]
    rewards = [[2.0, 1, 0, 0], [2.0, 1, 0, 0], [2.0, 2, 0, 0], [0.0, 1, 0, 0], [1.0, 0, 0, 0]]
    rewards += [[4.0, 0, 0], [6.0, 4.0, 0], [0.0, 0, 0]]
    assert reward_bench.alone(items) == {"tied:2"}
    found = figures("reward-bench-2", items[:-1], rewards[:-1], 0)
    ties = 1 + 0.01 * np.tanh(4 / 2 - 1)
    assert found["subset/Ties"].value == pytest.approx(ties)
    assert found["subset/Math"].value == pytest.approx(2.5 / 4)
    assert found["subset_average"].value == pytest.approx((2.5 / 4 + 1 + ties) / 3)


def test_rm_bench_by_hand() -> None:
    """A model that pays for style alone: markdown beats detailed beats concise, right or wrong."""
    rewards = [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]
    assert matrix(rewards).tolist() == [[0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5]]
    items = [item(f"i{n}", domain, 3, 6) for n, domain in enumerate(("chat", "safety-refuse", "safety-response"))]
    found = figures("rm-bench", items, [rewards, rewards, [5.0, 5, 5, 0, 0, 0]], 0)
    levels = {name: found[f"level/{name}"].value for name in ("hard", "normal", "easy")}
    assert levels == {"hard": pytest.approx(0.25), "normal": pytest.approx(0.625), "easy": 1.0}
    assert found["domain/safety/hard"].value == 0.5
    assert found["domain_average"].value == pytest.approx((0.5 + 0.75) / 2)
    assert found["matrix/concise over markdown"].value == pytest.approx(1 / 3)


def row(**fields: Any) -> Row:
    return Row("file:1", {"id": "7", "prompt": "Q", **fields})


V1 = {"chosen": "a", "rejected": "b", "chosen_model": "m", "rejected_model": "n", "id": 30, "subset": "hep-go"}
V2 = {"chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1, "num_incorrect": 3, "total_completions": 4}
V2 |= {"models": ["m"] * 4, "subset": "Math", "additional_metadata": {"category": None}}
STYLES = {"chosen": ["a"] * 3, "rejected": ["b"] * 3}


@pytest.mark.parametrize(
    ("name", "fields", "subset", "correct"),
    [
        ("reward-bench", V1, "hep-go", 1),
        ("reward-bench", V1 | {"chosen": "[1, 2]"}, "hep-go", 1),
        ("reward-bench-2", V2, "Math", 1),
        ("reward-bench-2", V2 | {"id": "tied:3", "chosen": ["a", "e"], "num_correct": 2, "subset": "Ties"}, "Ties", 2),
        ("reward-bench-2", {"chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Focus"}, "Focus", 1),
        ("reward-bench-2", STYLES | {"num_correct": 3, "subset": "Ties"}, "Ties", 3),
        ("rm-bench", STYLES | {"domain": "chat"}, "chat", 3),
        ("rm-bench", STYLES | {"domain": "safety-refuse", "subset": "xstest-should-refuse"}, "safety-refuse", 3),
        ("rm-bench", STYLES | {"subset": "code"}, "code", 3),
        ("rm-bench", {side: json.dumps(texts) for side, texts in STYLES.items()} | {"domain": "math"}, "math", 3),
    ],
)
def test_a_benchmark_is_told_by_its_rows_as_they_are_published(
    name: str, fields: dict[str, Any], subset: str, correct: int
) -> None:
    found_name, found = read(row(**fields))
    assert (found_name, found.subset, found.correct) == (name, subset, correct)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "expected those of a benchmark"),
        ({"chosen": ["a"], "rejected": ["b", "c", "d"], "domain": "chat"}, "1 right and 3 wrong"),
        ({"chosen": 3, "rejected": "b", "subset": "hep-go"}, "something else than texts"),
        (V2 | {"num_correct": 2}, "num_correct is 2"),
    ],
)
def test_a_row_of_no_benchmark_is_refused_with_its_place(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"file:1 · .*{message}"):
        read(row(**fields))


def test_columns_of_a_benchmark_that_are_not_read_are_named_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "votes": 3, **V1}) + "\n")
    assert read_items(path, reading.ReadOptions()).row_counts.not_read == ["votes"]
    path.write_text(json.dumps({"prompt": "Q", "images": ["a.png"], **V1}) + "\n")
    with pytest.raises(DataError, match="images changes what the row means"):
        read_items(path, reading.ReadOptions())
    assert len(read_items(path, reading.ReadOptions(ignore_columns="images")).items) == 1


def test_the_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward model of the planted corpus, asked about the same corpus in the dress of each benchmark."""

    pairs = generate(Corpus(pairs=300, seed=4))
    reading.write(tmp_path / "pairs.jsonl", pairs[:240])
    train = ["--data", tmp_path / "pairs.jsonl", "--output", tmp_path / "rm", "--num-train-epochs", 4]
    headwater("train-reward", *train, "--model", "scratch(hidden=32, layers=1, vocab=400)", "--precision", "fp32")
    rest = pairs[240:]
    texts = [(pair.prompt[-1].content, pair.chosen.text, pair.rejected.text) for pair in rest]
    dressed = {
        "v1": [
            {"id": n, "prompt": p, "chosen": c, "rejected": r, "subset": ("hep-go", "mt-bench-easy")[n % 2]}
            for n, (p, c, r) in enumerate(texts)
        ],
        "v2": [
            {
                "id": str(n),
                "prompt": p,
                "chosen": [c],
                "rejected": [texts[n - k][2] for k in range(3)],
                "num_correct": 1,
            }
            | {"subset": "Math"}
            for n, (p, c, _) in enumerate(texts)
        ],
        "rm": [
            {"id": n, "prompt": p, "chosen": [c] * 3, "rejected": [r] * 3, "domain": "chat"}
            for n, (p, c, r) in enumerate(texts)
        ],
    }
    plain = {}
    for name, rows in dressed.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        call = ["reward-bench", "--model", tmp_path / "rm", "--dataset", tmp_path / f"{name}.jsonl"]
        assert headwater(*call, "--output", tmp_path / f"{name}-run") == 0
        run = runs.load(tmp_path / f"{name}-run")
        assert run.row_counts[0]["kept"] == len(run.records()) == 60
        plain[name] = {figure: each["value"] for figure, each in run.metrics.items()}
    rewards = np.array([record["rewards"] for record in runs.load(tmp_path / "v1-run").records()])
    accuracy = float(np.mean(rewards[:, 0] > rewards[:, 1]))
    assert accuracy > 0.6
    assert plain["v1"]["accuracy"] == pytest.approx(accuracy)
    assert plain["rm"]["domain/chat"] == plain["rm"]["level/hard"] == pytest.approx(accuracy)
    assert 0.25 < plain["v2"]["subset/Math"] <= accuracy + 0.05
    assert "section_average" in capsys.readouterr().out
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text((tmp_path / "v1.jsonl").read_text() + (tmp_path / "rm.jsonl").read_text())
    call = ["reward-bench", "--model", tmp_path / "rm", "--dataset", mixed, "--output", tmp_path / "bad"]
    assert headwater(*call) == 3
    assert "expected one benchmark" in capsys.readouterr().err
    short = ["--dataset", tmp_path / "v1.jsonl", "--max-length", 5, "--output", tmp_path / "bad"]
    assert headwater("reward-bench", "--model", tmp_path / "rm", *short) == 3
    assert not (tmp_path / "bad").exists()
