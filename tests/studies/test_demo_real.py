"""The demo on a real model, with tiny ones: every step is there, is printed as one types it, and is done once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from headwater import cli
from headwater.config import parse
from headwater.data import reading
from headwater.data.topic_pairs import TopicPairs, generate
from headwater.results import runs
from headwater.studies.command_steps import COMMANDS
from headwater.studies.demo_real import Config
from headwater.studies.demo_real.pairs import MOST_CHARACTERS, write_parts
from headwater.studies.demo_real.steps import Plan
from tests.support.serving import save_policy

ARGUMENTS = [
    "demo-real",
    "--output",
    "demo-real",
    "--pairs",
    "36",
    "--prompts",
    "4",
    "--model",
    "policy",
    "--freeze-layers",
    "1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny policy, as `make models` would leave a real one."""
    folder = tmp_path_factory.mktemp("demo-real")
    parts = generate(TopicPairs(24))
    save_policy(folder / "policy", [*parts.judge, *parts.policy], "scratch(hidden=32, layers=2, vocab=400)")
    return folder


def test_the_demo_runs_from_pairs_to_answers_and_goes_on_where_it_was(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    # Figures of all runs take most of the time, and have tests of their own.
    monkeypatch.setattr(Plan, "shown", lambda plan: [plan.root / name for name in ("pairs", "answers", "compared")])
    arguments = [*ARGUMENTS, "--judge", "scratch_encoder(hidden=32, layers=1, vocab=400)"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    typed = [line.strip() for line in said.err.splitlines() if line.startswith("    headwater ")]
    assert [shlex.split(line)[1] for line in typed][-4:] == ["generate", "judge", "compare", "report"]
    for line in typed:
        command, *rest = shlex.split(line)[1:]
        parse(COMMANDS[command].Config, rest, f"headwater {command}")
    assert said.out.count("  policy:") == 2, "two prompts are shown at the end"
    root = place / "demo-real"
    keep = runs.facts_of(root / "dpo-cut").get("keep")
    assert keep == float(runs.facts_of(root / "signal").get("recommended_keep") or 0.5)
    page = (root / "report.html").read_text(encoding="utf-8")
    assert page.index("Answers before and after") < page.index("<h2>Runs</h2>")
    assert page.count('<article class="asked">') == 4
    assert page.count("<h4>dpo-cut</h4>") == 4

    done = (root / "reward" / "done").stat().st_mtime_ns
    (root / "compared" / "done").unlink()
    assert cli.main(arguments) == 0
    again = capsys.readouterr().err
    assert "[1/11] train a reward model that reads every prefix: done before" in again
    assert "    headwater compare demo-real/judged" in again
    assert (root / "reward" / "done").stat().st_mtime_ns == done

    assert cli.main([*arguments, "--seed", "7"]) == 2
    assert "was begun with 0 · choose another --output" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_refused_with_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo-real"]) == 4
    assert "make models" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pairs_of_the_user_are_divided_by_conversation_and_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {number % 50}", "chosen": f"good {number}", "rejected": "bad" if number else "b" * 2000}
        for number in range(100)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    write_parts(tmp_path / "mine.jsonl", tmp_path / "pairs", 90, 6, 0, Config())
    taken = next(stage for stage in runs.load(tmp_path / "pairs").row_counts if stage["stage"] == "take")
    assert taken["dropped"] == {"too_long": 1, "beyond_the_count": 9}, MOST_CHARACTERS
    parts = [reading.load(tmp_path / "pairs" / f"{name}.jsonl").preferences for name in ("judge", "policy", "heldout")]
    assert sum(map(len, parts)) == 90
    ids = [{row.conversation_id for row in part} for part in parts]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    asked = (tmp_path / "pairs" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["prompt"][0]["content"] for line in asked}) == len(asked) == 6
