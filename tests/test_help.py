"""Help pages: short ones for people, whole ones on request, and the names by which options are known."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import MISSING

import pytest

from headwater import cli, config
from headwater.config.help import docs_of
from headwater.config.options import ALIASES, Options, as_flag
from headwater.errors import UsageError

CONFIGS = {name: importlib.import_module(command.module).Config for name, command in cli.COMMANDS.items()}
POSITIONAL = {
    "download-models": "[NAMES …]",
    "inspect": "DATA",
    "tokens": "DATA",
    "preprocess": "DATA",
    "sample": "MODEL DATA",
    "select": "DATA",
    "train-sft": "DATA",
    "train-reward": "DATA",
    "train-dpo": "DATA",
    "evaluate": "MODEL DATA",
    "score": "DATA",
    "generate": "PROMPTS",
    "judge": "ANSWERS …",
    "compare": "JUDGEMENTS …",
    "reward-bench": "MODEL DATA",
    "signal": "DATA",
    "sweep": "DATA",
    "divergence": "MODEL DATA",
    "decode": "MODEL DATA",
    "frontier": "MODEL DATA",
    "lens": "[MODEL] [DATA]",
    "report": "RUNS …",
    "run": "RECIPE",
}
SPELLINGS = {
    "--lr": {"train-sft", "train-reward", "train-dpo", "sweep"},
    "--epochs": {"train-sft", "train-reward", "train-dpo", "sweep"},
    "--batch-size": {"train-sft", "train-reward", "train-dpo", "sweep", "sample", "generate", "decode", "frontier"},
    "--max-len": {"train-dpo", "evaluate", "signal", "score", "lens", "divergence", "reward-bench", "tokens"},
    "--max-rows": {"train-dpo", "inspect", "evaluate", "signal", "decode", "preprocess"},
    "--model-name-or-path": {"train-dpo", "evaluate", "decode", "sample", "generate", "lens"},
    "--output-dir": set(POSITIONAL) - {"tokens"},
    "--out": set(POSITIONAL) - {"tokens"},
}
"""Flags that people type from habit, and commands that accept them."""


def page(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([name, flag]) == 0
    return capsys.readouterr().out


def shown(text: str) -> list[str]:
    return re.findall(r"^(?:  (?:[A-Z]+(?: …)?, )?|(?=--config ))(--[a-z][a-z-]*)", text, re.MULTILINE)


@pytest.mark.parametrize("name", CONFIGS)
def test_help_shows_at_most_20_options_and_help_all_every_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(CONFIGS[name])
    short, whole = shown(page(name, "--help", capsys)), shown(page(name, "--help-all", capsys))
    assert len(short) <= 20 + 1, "besides --config"
    assert len(short) == len(set(short)) and set(short) <= set(whole)
    assert sorted(whole) == sorted([*map(options.flag, options), *["--config"] * bool(options)])
    for option in options.values():
        if option.default is MISSING:
            assert options.flag(option.name) in short, "what must be given is always shown"


def test_no_help_page_needs_torch() -> None:
    code = (
        "import sys; from headwater import cli\n"
        "for name in cli.COMMANDS: assert cli.main([name, '--help']) == 0 and 'torch' not in sys.modules, name"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_is_described_in_a_sentence(name: str) -> None:
    docs = docs_of(CONFIGS[name])
    for field in Options(CONFIGS[name]):
        assert re.match(r"[A-Z`].*[.]$", docs.get(field, ""), re.DOTALL), f"{name} --{field}: {docs.get(field)}"
        assert "[" not in docs[field].split()[-1], f"{name} --{field}: the default is a sentence: Default: …"


@pytest.mark.parametrize("name", CONFIGS)
def test_inputs_can_be_given_without_a_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage = page(name, "--help", capsys).splitlines()[0]
    assert usage.startswith(f"usage: headwater {name} {POSITIONAL.get(name, '')}".rstrip())


@pytest.mark.parametrize("name", CONFIGS)
def test_examples_parse(name: str) -> None:
    for line in importlib.import_module(cli.COMMANDS[name].module).EXAMPLE.splitlines():
        program, command, *arguments = shlex.split(line.partition(" > ")[0])
        assert (program, command) == ("headwater", name)
        config.parse(CONFIGS[name], arguments)


def test_data_is_called_data_everywhere() -> None:
    for name, positional in POSITIONAL.items():
        if positional.endswith(("DATA", "DATA]")):
            names = Options(CONFIGS[name]).names
            assert names["data"] == names["dataset"] == names["input"] == names["dataset_name"], name


@pytest.mark.parametrize("flag", SPELLINGS)
def test_flags_typed_from_habit_are_accepted(flag: str) -> None:
    for name in SPELLINGS[flag]:
        assert flag.removeprefix("--").replace("-", "_") in Options(CONFIGS[name]).names, name


def test_aliases_stand_for_fields_that_exist() -> None:
    fields = {field for each in CONFIGS.values() for field in Options(each)}
    assert set(ALIASES) <= fields


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("judge", "--limit", "unknown flag --limit"),
        ("compare", "--models", "unknown flag --models"),
        ("report", "--ouput", r"did you mean --output\?"),
        ("train-dpo", "--xyzzy", "see headwater train-dpo --help-all"),
    ],
)
def test_other_flags_are_refused_with_a_hint(name: str, flag: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.parse(CONFIGS[name], [flag, "1"], f"headwater {name}")


def test_as_flag() -> None:
    assert as_flag("learning_rate") == "--learning-rate"
