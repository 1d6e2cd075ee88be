from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import headwater
from headwater import cli
from headwater.reporting.ending import ENDINGS, SHOWN, ending

STORED = Path(__file__).parent / "runs_0_1"


@pytest.mark.parametrize(
    "name", ["compared", "decoded", "divergence", "dpo", "evaluation-reward", "judged", "selected"]
)
def test_a_command_ends_with_figures_place_and_next_command(name: str) -> None:
    figures, written, following = ending(STORED / name)
    assert 1 <= len(figures.split(" · ")) <= SHOWN
    assert "[" in figures and "n " in figures, "figures have an interval and n"
    assert written == f"written: {STORED / name}"
    command = following.removeprefix("next: headwater ").split()[0]
    assert command in cli.COMMANDS


def test_every_command_that_writes_a_run_has_an_ending() -> None:
    # those that write no run, or say it themselves
    without = {"demo", "demo-real", "run", "doctor", "download-models", "env", "inspect", "tokens", "report"}
    assert set(cli.COMMANDS) - set(ENDINGS) == without


def test_a_page_is_opened_and_other_results_have_no_ending(tmp_path: Path) -> None:
    assert ending(tmp_path / "report.html")[1] == f"next: open {tmp_path / 'report.html'} in a browser"
    assert ending(None) == ending(3) == ending(tmp_path / "judged") == []


def test_the_next_command_reads_the_data_as_it_was_described(tmp_path: Path) -> None:
    path = reward_run(tmp_path / "reward", [(0.7, 0.65)], (0.5, 0.9))
    before = (path / "config.yaml").read_text()
    kept = "".join(line for line in before.splitlines(True) if not line.startswith("columns"))
    (path / "config.yaml").write_text(kept + "columns: prompt=q, chosen=x\n")
    assert ending(path)[-1].endswith(" --columns 'prompt=q, chosen=x'")


def test_inspect_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"q": "Why?", "x": "So.", "y": "No."}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    given = "prompt=q, chosen=x, rejected=y"
    assert cli.main(["inspect", str(tmp_path / "a.jsonl"), "--columns", given]) == 0
    assert f"next: headwater signal {tmp_path / 'a.jsonl'} --columns '{given}'" in capsys.readouterr().err
    headwater.inspect([row], columns=given)
    assert "next:" not in capsys.readouterr().err, "data in memory has no name on a command line"


def test_data_inside_of_a_run_directory_has_the_ending_of_its_run(tmp_path: Path) -> None:
    shutil.copytree(STORED / "selected", tmp_path / "selected")
    data = tmp_path / "selected" / "preferences.jsonl"
    data.write_text('{"prompt": "Why?", "chosen": "So.", "rejected": "No."}\n')
    assert ending(data)[0] == ending(STORED / "selected")[0]
    assert ending(data)[1] == f"written: {data}"
    assert ending(data)[2] == f"next: headwater train-dpo {data} --output {tmp_path / 'dpo'}", "not inside of the run"


def test_rows_of_several_responses_are_made_pairs_of_before_training(tmp_path: Path) -> None:
    shutil.copytree(STORED / "selected", tmp_path / "selected")
    row = {
        "instruction": "Why?",
        "completions": [{"response": "So.", "overall_score": 1}, {"response": "No.", "overall_score": 0}],
    }
    (tmp_path / "selected" / "preferences.jsonl").write_text(json.dumps(row) + "\n")
    assert "select " in ending(tmp_path / "selected")[-1] and "--pairs best_worst" in ending(tmp_path / "selected")[-1]


@pytest.mark.parametrize(("longer", "said"), [(0.4, "shorter wins 0.600 [0.500, 0.700]"), (0.6, "longer wins 0.600")])
def test_length_alone_is_said_in_its_better_direction(longer: float, said: str, tmp_path: Path) -> None:
    shutil.copytree(STORED / "evaluation-reward", tmp_path / "e")
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    metrics["length_accuracy"] |= {"value": longer, "low": longer - 0.1, "high": longer + 0.1}
    (tmp_path / "e" / "metrics.json").write_text(json.dumps(metrics))
    assert said in ending(tmp_path / "e")[0]


def reward_run(path: Path, accuracies: list[tuple[float, float]], training: tuple[float, float]) -> Path:
    """A finished run of train-reward with these held-out accuracies (value, low) and accuracies in training."""
    shutil.copytree(STORED / "reward", path)
    rows = [{"step": step, "rewards/accuracies": value} for step, value in enumerate(training, start=1)]
    rows += [
        {"step": step, "eval_rewards/accuracies": value, "eval_rewards/accuracies_low": low}
        for step, (value, low) in enumerate(accuracies, start=1)
    ]
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = json.loads((path / "metrics.json").read_text())
    metrics |= {"eval_rewards/accuracies": accuracies[-1][0], "eval_rewards/accuracies_low": accuracies[-1][1]}
    (path / "metrics.json").write_text(json.dumps(metrics))
    return path


@pytest.mark.parametrize(
    ("accuracies", "training", "warning"),
    [
        ([(0.6, 0.55), (0.62, 0.57)], (0.5, 0.9), ""),
        ([(0.52, 0.47)], (0.5, 0.9), "not above chance"),
        ([(0.7, 0.65), (0.6, 0.55)], (0.5, 0.9), "fell below"),
        ([(0.7, 0.65), (0.66, 0.61)], (0.5, 0.9), ""),
        ([(0.7, 0.65), (0.6, 0.55), (0.7, 0.65)], (0.5, 0.9), ""),  # the weights of the best one were restored
        ([(0.7, 0.65), (0.6, 0.55)], (0.9, 0.8), ""),
    ],
)
def test_a_reward_model_at_chance_or_falling_is_told_so(
    tmp_path: Path, accuracies: list[tuple[float, float]], training: tuple[float, float], warning: str
) -> None:
    lines = ending(reward_run(tmp_path / "reward", accuracies, training))
    assert len(lines) == (4 if warning else 3)
    if warning:
        assert warning in lines[1] and "try" in lines[1] and " or " in lines[1]
