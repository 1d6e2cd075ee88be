"""S4, S8: configs, flags and constructor texts that are wrong, hostile or of absurd size end at once with exit 2."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Literal

import pytest

from headwater import config
from headwater.cli import main
from headwater.config import build, fraction, read_yaml, to_yaml
from headwater.data.reading.options import BadRows
from headwater.data.selection.choosing import Budget
from headwater.data.truncation import parse_keep, parse_percentage
from headwater.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Config:
    data: tuple[Path, ...]
    output: Path = Path("out")
    steps: int = 3
    rate: float | None = None
    deep: bool = False
    part: Literal["all", "half"] = "all"
    layers: tuple[int, ...] = ()
    name: str = "n"
    seed: int = 42


@dataclasses.dataclass(frozen=True)
class Shape:
    side: float = 1.0
    size: int = 1
    seed: int = 0
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Named:
    model: str


WRONG = {
    "unknown key": ("data: d\n\nstps: 5\n", r":3 · unknown key stps · did you mean steps\?"),
    "key of no flag": ("data: d\nconfig: other.yaml\n", ":2 · unknown key config"),
    "help": ("data: d\nhelp: true\n", ":2 · unknown key help"),
    "key twice": ("data: d\nsteps: 1\nname: x\nsteps: 2\n", ":4 · gives steps again · it is in line 2"),
    "key twice in two spellings": ("data: d\nsome-x: 1\nsome_x: 2\n", ":3 · gives some_x again"),
    "one flag by two names": ("data: d\ndataset: e\n", ":2 · dataset and data are one flag"),
    "number for a key": ("data: d\n1: x\n", ":2 · has the key 1"),
    "truth for a key": ("data: d\nyes: x\n", ":2 · has the key yes"),
    "list for a key": ("data: d\n? [a, b]\n: x\n", ":2 · has the key a list"),
    "nothing for a key": ("data: d\n: x\n", ":2:1 · is no YAML"),
    "text for a number": ("data: d\nsteps: five\n", ":2 · steps: five · expected a whole number"),
    "fraction for a count": ("data: d\nsteps: 1.5\n", ":2 · steps: 1.5 · expected a whole number"),
    "truth for a number": ("data: d\nsteps: true\n", ":2 · steps: True · expected a whole number"),
    "text for a truth": ("data: d\ndeep: maybe\n", ":2 · deep: maybe · expected true or false"),
    "unknown choice": ("data: d\npart: none\n", ":2 · part: none · expected all, half"),
    "text in a list": ("data: d\nlayers: [1, two]\n", ":2 · layers: two · expected a whole number"),
    "list for one": ("data: d\nsteps: [1, 2]\n", ":2 · steps holds a list"),
    "empty item": ("data: d\nlayers: [1, null]\n", ":2 · layers holds an empty item"),
    "mapping": ("data: d\nsteps: {a: 1}\n", ":2 · steps holds a mapping"),
    "list in a list": ("data: d\nlayers: [[1]]\n", ":2 · layers holds lists in a list"),
    "flag for a value": ("data: [--overwrite]\n", ":1 · data holds --overwrite"),
    "not a mapping": ("- a\n", ":1 · is not a mapping"),
    "text": ("just a text\n", ":1 · is not a mapping"),
    "open quote": ("data: d\nname: 'x\n", r":\d+:\d+ · is no YAML"),
    "tab": ("data: d\n\tname: x\n", r":2:1 · is no YAML"),
    "two documents": ("data: d\n---\ndata: e\n", r":2:1 · is no YAML"),
    "python tag": ("data: !!python/object/apply:os.system ['touch MARKER']\n", ":1 · holds a tag"),
    "tag": ("data: !!binary aGk=\n", ":1 · holds a tag"),
    "alias": ("data: d\nname: *a\n", ":2 · holds an alias"),
    "alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{n}: &b{n} [{'*a,' * 9}]\n" for n in range(20)),
        ":1 · holds an anchor",
    ),
    "merge": ("a: &a {x: 1}\n<<: *a\n", ":1 · holds an anchor"),
    "deep": ("data: " + "[" * 20_000 + "\n", "is too deep"),
    "control character": ("data: d\nname: a\x07b\n", "is no YAML"),
    "date that is none": ("data: d\nname: 2026-99-99\n", ":2 · name cannot be read"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.fault("S8")
def test_a_wrong_file_is_refused_by_its_line(kind: str, tmp_path: Path) -> None:
    text, message = WRONG[kind]
    file = tmp_path / "c.yaml"
    file.write_text(text.replace("MARKER", str(tmp_path / "marker")))
    began = time.process_time()
    with pytest.raises(UsageError, match=message) as caught:
        config.parse(Config, ["--config", str(file)])
    assert time.process_time() - began < 5 and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.fault("S4")
def test_what_is_no_small_text_is_not_read(tmp_path: Path) -> None:
    large, binary, pipe = tmp_path / "large.yaml", tmp_path / "binary.yaml", tmp_path / "pipe.yaml"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    binary.write_bytes(b"data: d\nname: \xff\n")
    os.mkfifo(pipe)
    for path, message in (
        (large, "larger than 1 MB"),
        (binary, "binary.yaml:2 · byte 14 is no UTF-8"),
        (pipe, "is no file"),
        (tmp_path, "is no file"),
        (Path("/dev/zero"), "is no file"),
        (tmp_path / "none.yaml", "No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            config.parse(Config, ["--config", str(path)])
    with pytest.raises(UsageError, match="is given twice"):
        config.parse(Config, ["--config", str(large), "--config=x"])


@pytest.mark.fault("S8")
def test_what_is_written_is_what_a_flag_takes(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "\ufeffdata: [a b, c]\noutput: -odd\nsteps: 1_000\nrate: 1e-5\ndeep: yes\nlayers: [-1, 2]\n"
        "name: 12:30\nseed: 7\n"
    )
    expected = Config((Path("a b"), Path("c")), Path("-odd"), 1000, 1e-5, True, "all", (-1, 2), "12:30", 7)
    assert config.parse(Config, ["--config", str(file)]) == expected
    file.write_text("data: a\nname: 2026-01-01\nrate: ~\ndeep: false\nlayers: []\n")
    found = config.parse(Config, ["--config", str(file), "--steps", "4"])
    assert found == Config((Path("a"),), steps=4, name="2026-01-01")
    file.write_text(to_yaml(config.flatten(expected)))
    assert config.parse(Config, [f"--config={file}"]) == expected
    assert read_yaml(file)["rate"] == 1e-5 and read_yaml(file)["layers"] == [-1, 2]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--seed", "-1"], "--seed -1 · is no seed"),
        (["--seed", "4294967296"], "is no seed"),
        (["--rate", "nan"], "is not finite"),
        (["--rate", "1e999"], "is not finite"),
        (["--steps", "9" * 40], "more than 64 bits"),
        (["--layers", "1", "9" * 40], "more than 64 bits"),
        (["--stpes", "1"], "did you mean --steps"),
        (["--step", "1"], "unknown flag --step"),
        (["--config"], "no file given"),
    ],
)
@pytest.mark.fault("S8")
def test_wrong_flags_are_refused(flag: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.parse(Config, ["--data", "d", *flag])


CALLS = {
    "long": "shape(side=" + "1" * 1_000_000 + ")",
    "many digits": "shape(side=" + "1" * 5_000 + ")",
    "deep": "shape(side=" + "(" * 4_000 + "1" + ")" * 4_000 + ")",
    "deep lists": "shape(side=" + "[" * 150 + "]" * 150 + ")",
    "long sum": "shape(side=" + "1+" * 4_000 + "1)",
    "many minuses": "shape(side=" + "-" * 5_000 + "1)",
    "power": "shape(side=9**9**9)",
    "infinite": "shape(side=1e999)",
    "not a number": "shape(side=1e999-1e999)",
    "huge": "shape(size=" + "9" * 100 + ")",
    "huge for a float": "shape(side=" + "9" * 400 + ")",
    "twice": "shape(side=1, side=2)",
    "set of a list": "shape(side={[1]})",
    "mapping of a mapping": "shape(side={{}: 1})",
    "complex": "shape(side=1j)",
    "negative seed": "shape(seed=-1)",
    "text for optional": "shape(rate='x')",
    "walrus": "shape(side=(x:=1))",
    "lambda": "(lambda: 1)()",
    "stars": "shape(**{'side': 1})",
    "zero byte": "shape(side=\0)",
    "spelling": "shape(side=1is)",
    "line break": "shape(\nsid=1)",
    "escape": "shape\x1b[31m()",
    "surrogate": "shape(side='\udcff')",
    "missing": "named()",
    "empty": "",
    "unknown of length": "x" * 9_000,
}


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.fault("S8")
def test_constructor_texts_of_any_kind_end_at_once(kind: str) -> None:
    began = time.process_time()
    with pytest.raises(UsageError) as caught:
        build(CALLS[kind], {"shape": Shape, "named": Named}, "shape")
    assert time.process_time() - began < 2
    message = str(caught.value)
    assert len(message) < 400 and message.isprintable()


def test_constructor_texts_that_are_right_pass() -> None:
    assert build(" shape( side = 2 , rate=None) ", {"shape": Shape}, "shape") == Shape(2)
    assert build("shape(side=-1e-3, seed=4294967295)", {"shape": Shape}, "shape") == Shape(-0.001, seed=2**32 - 1)


ABSURD = ["1e99999999", "1e-99999999", "9" * 1_000_000, "1/0", "nan", "1_0", "٣", "", "1e", "0x1"]


@pytest.mark.parametrize("text", ABSURD, ids=range(len(ABSURD)))
@pytest.mark.fault("S7")
def test_numbers_of_absurd_size_end_at_once(text: str) -> None:
    began = time.process_time()
    for read in (parse_keep, parse_percentage, BadRows.parse, Budget.parse):
        for unit in ("", "%", "tok"):
            with pytest.raises(UsageError) as caught:
                read(text + unit)
            assert len(str(caught.value)) < 400
    with pytest.raises(ValueError, match=r"is not a number|divides by zero"):
        fraction(text)
    assert time.process_time() - began < 5


@pytest.mark.fault("S7")
def test_the_command_line_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--input", str(tmp_path / "x.jsonl"), "--output", str(tmp_path / "y.jsonl")]
    assert main(["preprocess", *given, "--keep", "1e99999999"]) == 2
    assert main(["preprocess", *given, "--keep", "0.5", "--seed", "-1"]) == 2
    assert "Traceback" not in capsys.readouterr().err and not list(tmp_path.iterdir())
