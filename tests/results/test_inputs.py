"""A command whose inputs are not there is refused before its work, and before torch is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.cli import COMMANDS, main
from headwater.config import configure
from headwater.config.options import Options
from headwater.errors import ModelError
from headwater.results import inputs


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file of data and a run, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    path = Path("pairs.jsonl")
    path.write_text('{"prompt": "p", "chosen": "yes", "rejected": "no"}\n')
    Path("runs/sft").mkdir(parents=True)
    Path("runs/sft/environment.json").touch()
    return path


def test_every_path_of_every_command_is_checked_or_written() -> None:
    configs = [importlib.import_module(command.module).Config for command in COMMANDS.values()]
    paths = {one.name for config in configs for one in Options(config).values() if one.kind is Path}
    assert paths - set(inputs.DATA) - set(inputs.WRITTEN) == {
        *("answers", "baseline", "judgements", "lc_data", "lc_prompts", "against", "runs"),
        *("rewards", "likelihoods", "implicit", "wheels"),
    }, "a path that is new: is it data (DATA), written (WRITTEN), or a file or run that must exist?"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("train-dpo none.jsonl --output x", 2, "none.jsonl · no such file"),
        ("train-dpo pair.jsonl --output x", 2, "pair.jsonl · no such file or directory · did you mean pairs.jsonl?"),
        ("train-reward pairs.jsonl --eval-data none.jsonl --output x", 2, "none.jsonl · no such file"),
        ("sweep none.jsonl --output x", 2, "none.jsonl · no such file"),
        ("evaluate ./none pairs.jsonl", 4, "./none · no such file"),
        ("evaluate untrained(./none) pairs.jsonl", 4, "./none · no such file"),
        (
            "train-dpo pairs.jsonl --model runs/sfd --output x",
            4,
            "runs/sfd · no such file or directory · did you mean runs/sft?",
        ),
        ("frontier ./none pairs.jsonl --reward-model scratch()", 4, "./none · no such file"),
        ("compare none.json --output x", 2, "none.json · no such file"),
        ("evaluate some.model pairs.jsonl --against none", 2, "none · no such file"),
    ],
)
def test_what_is_not_there_is_refused(
    data: Path,
    arguments: str,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(arguments.split()) == code
    assert message in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {data.name, "runs"}, "a refused command leaves nothing behind"


def test_the_refusal_does_not_import_torch(data: Path) -> None:
    code = (
        "import sys; from headwater.cli import main; code = main(['train-dpo', 'none.jsonl', '--output', 'x']); "
        "sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 2


def test_models_of_a_server_are_left_to_the_server(data: Path) -> None:
    generate = importlib.import_module(COMMANDS["generate"].module).Config
    given = {"prompts": data, "model": ["./name"], "output": "x"}
    with pytest.raises(ModelError):
        inputs.check(configure(generate, given))
    inputs.check(configure(generate, given | {"endpoint": "http://127.0.0.1/v1"}))
