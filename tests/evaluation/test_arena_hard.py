from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headwater.errors import DataError
from headwater.evaluation import arena_hard
from headwater.evaluation.arena_hard import AnswerStyle, read_styles, score, style_differences, style_of, upstream
from headwater.evaluation.judgements import Judgement


def vote(preference: float | None, weight: int = 1, prompt: str = "p") -> Judgement:
    return Judgement(prompt=prompt, judge="j", first="b", second="t", preference=preference, weight=weight)


def test_three_votes_count_three_times() -> None:
    judged = [vote(1.0, 3, "p1"), vote(0.5, 1, "p2"), vote(0.0, 1, "p3"), vote(None, 3, "p4")]
    found = score(judged)
    assert found.value == pytest.approx((3 + 0.5) / 5)
    assert (found.n, found.clusters) == (3, 3)


def test_upstream_resamples_votes_and_is_too_narrow() -> None:
    generator = np.random.default_rng(0)
    wins = (generator.random(100) < 0.5).astype(float)
    judged = [vote(win, 3, f"p{row}") for row, win in enumerate(wins.tolist()) for _ in range(2)]
    ours, theirs = score(judged), upstream(judged)
    assert theirs.n == 600
    assert theirs.value == pytest.approx(ours.value, abs=0.02)
    # 95 % over prompts against 90 % over votes that are six copies: about √6 · 1.96 / 1.645 as wide.
    assert (ours.high or 0) - (ours.low or 0) > 2 * ((theirs.high or 0) - (theirs.low or 0))
    assert upstream(judged) == theirs


def test_markdown_of_an_answer() -> None:
    answer = "# Title\n## Part\n1. one\n- two\n* three\n**bold** and __this__\n```\n# no title\n- none\n```\n"
    assert style_of(answer) == AnswerStyle(len(answer), 2, 3, 2)


def test_style_differences_by_hand() -> None:
    first, second = (
        [AnswerStyle(100, 1, 0, 0), AnswerStyle(100, 0, 0, 0)],
        [AnswerStyle(300, 0, 0, 0), AnswerStyle(100, 0, 0, 0)],
    )
    found = style_differences(first, second)
    # lengths 0.5 and 0, headers −0.01/1.01 and 0: standardised, two values are ±1/√2; the rest does not vary.
    assert found[:, 0] == pytest.approx([2**-0.5, -(2**-0.5)])
    assert found[:, 1] == pytest.approx([-(2**-0.5), 2**-0.5])
    assert not found[:, 2:].any()


def test_answers_of_the_benchmark_are_read(shared_data: Path) -> None:
    folder = shared_data / "arena_hard"
    found = read_styles([folder / "v0.1_gpt-4-0314.jsonl.gz", folder / "v0.1_gpt-3.5-turbo-0125.jsonl.gz"])
    assert len(found) == 1000
    means = {m: np.mean([seen.length for (name, _), seen in found.items() if name == m]) for m, _ in found}
    assert means["gpt-4-0314"] > means["gpt-3.5-turbo-0125"] > 500


def test_metadata_of_upstream_are_taken(tmp_path: Path) -> None:
    counts = {"header_count": {"h1": 1, "h2": 2}, "list_count": {"ordered": 3}, "bold_count": {"**": 4}}
    row = {"uid": "q", "model": "m", "messages": [], "metadata": {"token_len": 7} | counts}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    assert read_styles([path]) == {("m", "q"): AnswerStyle(7, 3, 3, 4)}
    path.write_text(json.dumps({"uid": "q", "model": "m", "messages": []}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:1"):
        read_styles([path])


def test_styles_are_named_in_the_order_of_the_columns() -> None:
    assert arena_hard.STYLES == ("length", "headers", "lists", "bold")
