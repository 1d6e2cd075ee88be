"""R12, R13, S5: outputs that cannot be written, that are not ours to replace, or that another process writes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.cli import main
from headwater.errors import UsageError
from headwater.files import caches, destinations, locks
from headwater.results import runs
from headwater.results.outputs import free_places


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 1


def finished(path: Path) -> Path:
    writer = runs.start(path, "demo", Config())
    writer.log({"step": 1})
    return writer.finish()


# --- what is replaced ----------------------------------------------------------------------------------------------


@pytest.mark.fault("S5")
def test_a_run_is_replaced_and_a_run_alone(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run"):
        runs.check_free(run, overwrite=False)
    (run / "checkpoint-3").mkdir()
    (run / "checkpoint-3" / "optimizer.safetensors").touch()
    runs.check_free(run, overwrite=True)
    assert runs.start(run, "demo", Config(2)).finish() == run


FOREIGN = {
    "a text": lambda run: (run / "thesis.txt").write_text("mine"),
    "a file deep inside": lambda run: ((run / "a" / "b").mkdir(parents=True), (run / "a" / "b" / "x.json").touch()),
    "a link to a file": lambda run: (run / "link.json").symlink_to(run.parent / "mine.txt"),
    "a link to a folder": lambda run: (run / "reference").symlink_to(run.parent / "folder"),
    "a link in place of a file": lambda run: (
        (run / "metrics.json").unlink(missing_ok=True),
        (run / "metrics.json").symlink_to(run.parent / "mine.txt"),
    ),
    "a pipe": lambda run: os.mkfifo(run / "pipe.json"),
}


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.fault("S5")
def test_what_is_not_headwaters_is_never_deleted(what: str, done: bool, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.txt").write_text("mine")
    run = finished(tmp_path / "run")
    if not done:
        (run / "done").unlink()
        (run / "manifest.json").unlink()
    FOREIGN[what](run)
    if what == "a file deep inside":
        os.utime(run / "a" / "b" / "x.json", (1, 1))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="move it away"):
        runs.check_free(run, overwrite=True)
    with pytest.raises(UsageError, match="move it away"):
        runs.start(run, "demo", Config())
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "folder" / "inner.txt").read_text() == (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("environment", ["{}", "[]", "not json", '{"command": "demo"}', "[" * 10_000])
@pytest.mark.fault("S5")
def test_a_folder_with_an_environment_json_of_somebody_else_is_kept(environment: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "environment.json").write_text(environment)
    (folder / "data.json").write_text("[]")
    with pytest.raises(UsageError, match="holds files that are not a run"):
        runs.check_free(folder, overwrite=True)
    with pytest.raises(UsageError, match="holds files that are not a run"):
        runs.start(folder, "demo", Config())
    assert (folder / "data.json").exists()


@pytest.mark.fault("S5")
def test_links_are_not_followed(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    link = tmp_path / "link"
    link.symlink_to(run)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for place in (link, dangling):
        with pytest.raises(UsageError, match="is a link to"):
            runs.check_free(place, overwrite=True)
        with pytest.raises(UsageError, match="is a link to"):
            runs.start(place, "demo", Config())
    assert (run / "done").exists() and not (tmp_path / "nowhere").exists()


@pytest.mark.fault("S5")
def test_a_data_file_that_headwater_did_not_write_is_kept(tmp_path: Path) -> None:
    source, mine = tmp_path / "in.jsonl", tmp_path / "mine.jsonl"
    source.touch()
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"was not written by headwater: there is no mine\.jsonl\.run beside it"):
        free_places(mine, source, overwrite=True)
    link = tmp_path / "link.jsonl"
    link.symlink_to(mine)
    finished(tmp_path / "link.jsonl.run")
    with pytest.raises(UsageError, match="is a link to"):
        free_places(link, source, overwrite=True)
    finished(tmp_path / "mine.jsonl.run")
    assert free_places(mine, source, overwrite=True).target == mine


# --- what cannot be written ----------------------------------------------------------------------------------------

LONG = "x" * 300


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (LONG, "a name of 300 bytes"),
        (f"a/{LONG}/b", "a name of 300 bytes"),
        ("é" * 150, "a name of 300 bytes"),
        ("bad\udcff", "is no UTF-8"),
        ("line\nbreak", "control character"),
        ("file/run", "is no directory"),
        ("file", "is a file"),
        ("/proc/run", "is not writable"),
    ],
)
@pytest.mark.fault("R13")
def test_an_output_that_cannot_be_made_is_refused(name: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=found) as caught:
        runs.check_free(tmp_path / name, overwrite=True)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        destinations.check_file(tmp_path / name / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


COMMANDS = {
    "train-reward": ["--data", "DATA", "--model", "MODEL"],
    "train-dpo": ["--data", "DATA", "--model", "MODEL"],
    "evaluate": ["--dataset", "DATA", "--model", "MODEL"],
    "score": ["--input", "DATA", "--model", "MODEL"],
    "sample": ["--input", "DATA", "--model", "MODEL"],
    "generate": ["--prompts", "DATA", "--model", "MODEL"],
    "signal": ["DATA", "--model", "MODEL"],
    "divergence": ["--dataset", "DATA", "--model", "MODEL", "--reference", "MODEL"],
    "inspect": ["DATA"],
    "preprocess": ["--input", "DATA", "--truncate-percentage", "50"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("output", ["file/run", LONG, "link"])
@pytest.mark.fault("R13")
def test_every_command_refuses_it_before_it_loads_a_model(
    output: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"p{n}", "chosen": "a b", "rejected": "c"}) + "\n" for n in range(4)))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    # No model is there: a command that looks for it first ends otherwise.
    given = [part.replace("DATA", str(data)).replace("MODEL", "no-model") for part in COMMANDS[command]]
    assert main([command, *given, "--output", str(tmp_path / output)]) == 2
    printed = capsys.readouterr().err
    assert "--output" in printed and "Traceback" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pairs.jsonl"]


@pytest.mark.fault("R13")
def test_arguments_that_are_not_utf8_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "bad\udcff.jsonl"]) == 2
    assert "UTF-8" in capsys.readouterr().err


@pytest.mark.fault("S5")
def test_a_data_file_whose_name_is_not_utf8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad\udcff.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    assert main(["inspect", str(tmp_path / "data")]) == 2
    assert "bad<U+DCFF>.jsonl · is a name that is not UTF-8" in capsys.readouterr().err


# --- one writer ----------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from headwater.files import locks
locks.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path, cache: Path) -> subprocess.Popen[str]:
    """Another process that writes to tmp_path/run."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()


@pytest.mark.fault("R12")
def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"is being written by process {other.pid} on \S+, since 20") as caught:
        runs.check_free(tmp_path / "run", overwrite=False)
    assert caught.value.exit_code == 2
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is being written"):
        locks.hold(tmp_path / "link" / "run")  # the same place by another name
    locks.hold(tmp_path / "another")
    locks.release(tmp_path / "another")
    other.kill()
    other.wait()
    assert list((caches.home() / "locks").glob("*.lock")), "what a killed process leaves"
    runs.check_free(tmp_path / "run", overwrite=False)
    locks.release(tmp_path / "run")


@pytest.mark.fault("R12")
def test_a_process_takes_its_own_lock_again_and_leaves_none_behind(tmp_path: Path) -> None:
    before = set((caches.home() / "locks").glob("*"))
    with locks.released():
        locks.hold(tmp_path / "run")
        locks.hold(tmp_path / "run")
        assert len(set((caches.home() / "locks").glob("*")) - before) == 1
    assert set((caches.home() / "locks").glob("*")) <= before
    runs.check_free(tmp_path / "run", overwrite=False)
    runs.start(tmp_path / "run", "demo", Config()).finish()
    assert set((caches.home() / "locks").glob("*")) <= before


@pytest.mark.fault("R12")
def test_without_a_cache_to_write_to_the_lock_lies_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "file"))
    locks.hold(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    locks.release(tmp_path / "run")
