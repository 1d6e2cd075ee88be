from __future__ import annotations

import itertools
from pathlib import Path

from headwater.reporting.figures import figures
from headwater.reporting.plots import DATA_PLOTS
from headwater.reporting.plots.cloud import LARGEST, SMALLEST, extent, lay
from headwater.results import runs
from tests.reporting.test_inspected import inspect, pair


def boxes(placed: list[tuple[str, float, float, float]]) -> list[tuple[float, float, float, float]]:
    return [
        (x - extent(w) * size / 2, x + extent(w) * size / 2, y - size / 2, y + size / 2) for w, x, y, size in placed
    ]


def test_no_word_lies_over_another_or_outside() -> None:
    words = [(f"word{n}" if n % 3 else "日本語", 40.0 - n) for n in range(40)]
    placed = lay(words, 310, 300)
    assert 20 < len(placed) <= 40
    for one in boxes(list(placed)):
        assert one[0] >= 0 and one[1] <= 310 and one[2] >= 0 and one[3] <= 300
    for one, other in itertools.combinations(boxes(list(placed)), 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
    assert placed[0].size == LARGEST and all(a.size >= b.size > SMALLEST for a, b in itertools.pairwise(placed))
    assert (placed[0].x, placed[0].y) == (155, 150)


def test_what_finds_no_room_is_left_out_and_nothing_is_nothing() -> None:
    assert lay([("x" * 400, 1.0), ("a", 0.5)], 310, 300)[0].word == "a"
    assert lay([], 310, 300) == []


def told(tmp_path: Path, rows: list[object]) -> runs.Run:
    return inspect(tmp_path, "told", rows)


def test_the_words_of_both_sides_are_drawn_and_told(tmp_path: Path) -> None:
    run = told(tmp_path, [pair(n, f"好的 splendid {n}", f"ghastly {n} words") for n in range(30)])
    (figure,) = figures({"data-terms": DATA_PLOTS["data-terms"]}, [run])
    cloud, frequent, others, listed = figure.drawings
    assert ">splendid<" in frequent.svg and ">ghastly<" not in frequent.svg and ">ghastly<" in others.svg
    assert "frequent in chosen: " in frequent.alt and "splendid 30" in frequent.alt
    assert "splendid" in cloud.alt and "ghastly" in cloud.alt and "好的" in cloud.alt
    assert listed.alt.startswith("Words that distinguish chosen from rejected responses. 30 pairs, ")
    for drawing in (cloud, listed):
        assert ">splendid<" in drawing.svg and ">ghastly<" in drawing.svg and ">好的<" in drawing.svg
    fields = {tooltip["field"] for layer in cloud.spec["layer"] for tooltip in layer["encoding"]["tooltip"]}
    assert fields == {"term", "z", "log_odds", "chosen", "rejected"}


def test_pairs_whose_words_tell_nothing_have_no_figure(tmp_path: Path) -> None:
    run = told(tmp_path, [{"prompt": f"Why {n}?", "chosen": f"{n}.", "rejected": f"{n}!"} for n in range(9)])
    assert DATA_PLOTS["data-terms"].draw([run]) == []
