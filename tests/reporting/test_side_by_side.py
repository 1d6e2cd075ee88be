"""Answers of several models stand side by side: every text, in order, with the rewards that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headwater.files import write_json
from headwater.reporting import page
from headwater.reporting.side_by_side import MOST, ROOM, beside
from headwater.results import runs
from headwater.results.comparison import ComparedAnswers, ComparedPrompts
from headwater.results.runs import Run


@dataclass(frozen=True)
class Settings:
    model: tuple[str, ...] = ("base", "runs/dpo")


def answered(path: Path, prompts: int, models: tuple[str, ...] = ("base", "runs/dpo")) -> Run:
    writer = runs.start(path, "generate", Settings(models))
    for model in models:
        name = Path(model).name
        rows = [
            {"instruction": f"Why {i}?", "output": f"{name} says <b>{i}</b>", "generator": name, "tokens": i}
            | {"complete": i != 1}
            for i in range(prompts)
        ]
        write_json(path / f"{name}.json", rows)
    return runs.load(writer.finish())


def compared(path: Path, prompts: int) -> Run:
    writer = runs.start(path, "compare", Settings())
    rows = [
        ComparedAnswers("runs/judge", "dpo", "base", f"Why {i}?", "", 1.0, float(-i), float(i), 9, 9)
        for i in range(prompts)
    ]
    writer.write(ComparedPrompts(tuple(rows)))
    return runs.load(writer.finish())


def trained(path: Path, base: str) -> None:
    writer = runs.start(path, "train-dpo", Settings(), facts={"base": base})
    writer.finish()


def test_every_answer_stands_beside_the_others_with_its_own_reward(tmp_path: Path) -> None:
    (found,) = beside([answered(tmp_path / "a", 3), compared(tmp_path / "c", 3)])
    assert [row.prompt for row in found.rows] == ["Why 0?", "Why 1?", "Why 2?"]
    assert [answer.model for answer in found.rows[0].answers] == ["base", "dpo"]
    assert found.rows[2].answers[1].text == "dpo says <b>2</b>"
    assert found.rows[2].answers[0].under == "reward −2.00 by judge · 2 tokens"
    assert found.rows[2].answers[1].under == "reward 2.00 by judge · 2 tokens"
    assert found.rows[1].answers[1].under.endswith("cut off at the limit")
    assert found.says.startswith("3 prompts, in the order of the data")


def test_only_models_trained_from_the_first_are_called_after(tmp_path: Path) -> None:
    for base, title in (("base", "Answers before and after"), ("other", "Answers side by side")):
        trained(tmp_path / base / "dpo", base)
        run = answered(tmp_path / base / "a", 2, ("base", str(tmp_path / base / "dpo")))
        assert [each.title for each in beside([run])] == [title]


def test_one_model_alone_has_nothing_to_stand_beside(tmp_path: Path) -> None:
    assert beside([answered(tmp_path / "a", 3, ("base",))]) == []


def test_of_many_prompts_some_are_folded_and_evenly_spaced_ones_are_kept(tmp_path: Path) -> None:
    (found,) = beside([answered(tmp_path / "a", 3 * ROOM)])
    assert len(found.rows) == ROOM
    assert [row.prompt for row in found.rows[:3]] == ["Why 0?", "Why 3?", "Why 6?"]
    assert (len(found.shown), len(found.folded)) == (MOST, ROOM - MOST)
    assert found.says.startswith(f"{ROOM} of {3 * ROOM} prompts")


def test_the_page_opens_with_the_answers_as_plain_text(tmp_path: Path) -> None:
    text = page.render([answered(tmp_path / "a", 3)])
    assert text.index("Answers side by side</h2>") < text.index("<h2>Runs</h2>")
    assert "dpo says &lt;b&gt;0&lt;/b&gt;" in text
    assert "<b>0</b>" not in text
