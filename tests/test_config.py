from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from headwater import config
from headwater.errors import UsageError


@dataclass(frozen=True)
class Group:
    learning_rate: float = 1.0
    deep: bool = False


@dataclass(frozen=True)
class Config:
    data: Path
    steps: int = 3
    names: tuple[str, ...] = ()
    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class Square:
    side: float = 1.0
    name: str = "s"


def parse(*arguments: str) -> Config:
    return config.parse(Config, arguments)


def test_flag_beats_yaml_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: from-yaml\nsteps: 5\nlearning_rate: 0.5\ndeep: true\n")
    parsed = parse("--config", str(file), "--steps", "7")
    assert parsed == Config(Path("from-yaml"), 7, (), Group(0.5, True))


def test_a_stored_config_repeats_the_run(tmp_path: Path) -> None:
    original = Config(Path("a b.jsonl"), 4, ("x", "y: z"), Group(1e-05, True))
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(config.flatten(original)))
    assert parse("--config", str(file)) == original


@pytest.mark.parametrize("spelling", ["--learning-rate", "--learning_rate"])
def test_dash_and_underscore_are_both_accepted(spelling: str) -> None:
    assert parse("--data", "d", spelling, "2").group.learning_rate == 2


def test_aliases_are_accepted_and_count_as_given() -> None:
    assert parse("--dataset", "d").data == Path("d")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "d", "--learning-rat", "2"], "did you mean --learning-rate"),
        (["--dat", "d"], "did you mean --data"),
        (["--learning", "2", "--data", "d"], "unknown flag --learning "),
        (["--steps", "2"], "--data is missing"),
    ],
)
def test_wrong_flags_are_refused_with_a_suggestion(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: d\nstep: 5\n", r"c\.yaml:2 · unknown key step · did you mean steps"),
        ("- a\n", "is not a mapping"),
        ("data: !!python/object/apply:os.system [ls]\n", r"c\.yaml:1 · holds a tag"),
        ("data: {a: 1}\n", "holds a mapping"),
        ("data: &a d\nnames: *a\n", "alias"),
        ("data: 'd\n", "c.yaml"),
    ],
)
def test_wrong_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse("--config", str(file))


def test_a_missing_yaml_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        parse("--config", str(tmp_path / "none.yaml"))


def test_a_constructor_call_builds_a_component() -> None:
    assert config.build("square(side=2, name='a')", {"square": Square}, "shape") == Square(2, "a")
    assert config.build("square", {"square": Square}, "shape") == Square()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("squar()", "did you mean square"),
        ("square(sid=2)", "did you mean side"),
        ("square(side='x')", "expected float"),
        ("square(side=True)", "expected float"),
        ("square(2)", "without a name"),
        ("square(side=__import__('os'))", "not a literal"),
        ("square(side=", "not a constructor call"),
        ("os.system('ls')", "not a constructor call"),
    ],
)
def test_wrong_calls_are_refused(call: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.build(call, {"square": Square}, "shape")


@dataclass(frozen=True)
class Placed:
    model: Annotated[str, config.POSITIONAL]
    data: Annotated[Path, config.POSITIONAL]
    steps: int = 3
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptionalModel:
    model: Annotated[str | None, config.POSITIONAL] = None
    data: Annotated[Path | None, config.POSITIONAL] = None


@dataclass(frozen=True)
class ManyRuns:
    runs: Annotated[tuple[Path, ...], config.POSITIONAL]
    output: Path = Path("o")


@pytest.mark.parametrize(
    "arguments",
    ["m d", "--steps 3 m d", "m --steps 3 d", "--model m d", "m --data d", "--input d m", "d --model=m"],
)
def test_positional_values_fill_the_fields_that_have_no_flag(arguments: str) -> None:
    assert config.parse(Placed, arguments.split()) == Placed("m", Path("d"))


def test_a_single_value_is_the_last_field(tmp_path: Path) -> None:
    assert config.parse(OptionalModel, ["d"]) == OptionalModel(None, Path("d"))
    assert config.parse(OptionalModel, ["m", "d"]) == OptionalModel("m", Path("d"))
    file = tmp_path / "c.yaml"
    file.write_text("model: m\ndata: d\n")
    assert config.parse(Placed, ["--config", str(file), "e"]) == Placed("m", Path("e"))
    assert config.parse(Placed, ["--config", str(file)]) == Placed("m", Path("d"))


def test_several_positional_values_are_one_field() -> None:
    expected = ManyRuns((Path("a"), Path("b")), Path("p"))
    for arguments in ("a b --output p", "--output p a b", "a --output p b", "--runs a b --output p"):
        assert config.parse(ManyRuns, arguments.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m", "d", "e"], "e · is one value too many"),
        (["m", "d", "--data", "e"], "d · is one value too many"),
        (["d", "--model", "m", "--dataset", "e"], "d · is one value too many"),
        (["m"], "--model is missing"),
        ([], "--model is missing"),
        (["m", "d", "--steps"], "--steps · has no value"),
        (["m", "d", "--steps", "--names"], "--steps · has no value"),
        (["m", "d", "--steps", "five"], "--steps five · expected a whole number"),
        (["m", "d", "-s", "5"], "unknown flag -s"),
    ],
)
def test_wrong_positional_values_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.parse(Placed, arguments)


def test_a_value_too_many_is_told_which_flags_take_a_path() -> None:
    @dataclass(frozen=True)
    class WithPaths:
        data: Annotated[Path, config.POSITIONAL]
        output: Path = Path("o")
        reference: str | None = None
        steps: int = 3

    with pytest.raises(
        UsageError, match=r"b · is one value too many · did you forget its flag\? --output, --reference"
    ):
        config.parse(WithPaths, ["a", "b"])


def test_a_switch_takes_no_value() -> None:
    assert parse("--data", "d", "--deep", "--no-deep").group.deep is False
    with pytest.raises(UsageError, match="is a switch"):
        parse("--data", "d", "--deep=true")


def test_none_is_a_value_of_an_optional_field() -> None:
    assert config.parse(OptionalModel, ["--model", "None", "--data", "d"]) == OptionalModel(None, Path("d"))


def test_configure_takes_values_of_python() -> None:
    assert config.configure(Config, {"dataset": "d", "deep": True}) == Config(Path("d"), group=Group(deep=True))
    assert config.configure(Placed, {"model": Path("m"), "data": "d", "names": "a"}) == Placed(
        "m", Path("d"), 3, ("a",)
    )
    with pytest.raises(UsageError, match="data is missing"):
        config.configure(Config, {})
    with pytest.raises(UsageError, match="is not finite"):
        config.configure(Config, {"data": "d", "learning_rate": float("nan")})
