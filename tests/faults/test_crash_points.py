"""R1: killed at any file operation of a save, of a checkpoint or of the finished model; R6: the disk is full."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.commands import train_dpo
from headwater.errors import ModelError, ResourceError
from headwater.models import finished
from headwater.results import runs
from headwater.training import checkpoints, reference
from headwater.training import run as training_run
from tests.faults.training_runs import config_of, same_weights, write_pairs

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NAMES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_watch: Callable[[str, tuple[Any, ...]], None] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is not None and event in NAMES:
        _watch(event, arguments)


sys.addaudithook(_hook)


def crash_at(number: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do `work` in a child that dies at the given file operation in a folder; say whether it died there."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137
    try:
        global _watch
        left = number

        def count(torn: Path | None = None) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                if torn is not None and torn.exists():  # a library that writes by itself dies in the middle
                    os.truncate(torn, torn.stat().st_size // 2)
                os._exit(137)

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            reads = event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES)
            if not reads and str(arguments[0]).startswith(str(folder)):
                count()

        fsync_as_is, save_as_is = os.fsync, checkpoints.save_file

        def fsync(handle: int) -> None:
            count()
            fsync_as_is(handle)

        def save_file(tensors: Any, path: Path) -> None:
            save_as_is(tensors, path)
            count(path)

        os.fsync, checkpoints.save_file = fsync, save_file  # type: ignore[assignment]
        _watch = watch
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def points(folder: Path, work: Callable[[], object]) -> Iterator[int]:
    """Yield after a crash at every file operation of `work`; the folder is put back between them."""
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    number = 1
    while crash_at(number, folder, work):
        yield number
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        number += 1
    shutil.rmtree(folder)
    before.rename(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.mark.fault("R1")
def test_every_crash_in_a_save_leaves_a_run_that_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of them the newest whole checkpoint is the one before, or the new one, byte for byte what it would be.

    That a training goes on from either to the same weights is tested in test_checkpoints.py.
    """
    run = tmp_path / "run"
    save_as_is, finish_as_is = checkpoints.save, training_run._finish
    saves: list[tuple[str, bytes]] = []
    ends: list[str] = []

    def save(folder: Path, position: Any, *others: Any) -> Path:
        for _ in points(run, lambda: save_as_is(folder, position, *others)) if position.step == 6 else ():
            newest = checkpoints.latest(run)
            assert newest is not None
            saves.append((newest.name, (newest / "state.safetensors").read_bytes()))
        return save_as_is(folder, position, *others)

    def finish(*others: Any) -> Path:
        for _ in points(run, lambda: finish_as_is(*others)):
            newest = checkpoints.latest(run)
            if (run / "done").exists():
                finished.check(run)
                ends.append("done")
                continue
            assert newest is not None, "what it goes on from is there until it is done"
            with pytest.raises(ModelError, match="did not finish"):
                finished.check(run)
            ends.append(newest.name)
        return finish_as_is(*others)

    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(training_run, "_finish", finish)
    train_dpo.run(config_of(data, run))
    names = [name for name, _ in saves]
    assert len(names) > 10
    assert sorted(set(names)) == ["checkpoint-3", "checkpoint-6"]
    assert names == sorted(names), "the new one is the newest from some moment on"
    assert len(set(saves)) == 2, "either is the same, byte for byte, whenever the save was ended"
    assert len(ends) > 20
    assert (ends[0], ends[-1]) == ("checkpoint-8", "done")
    finished.check(run)


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """A function that limits the size of files, as a full disk would; the limit is lifted afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault("R6")
def test_a_checkpoint_without_room_ends_the_training_and_leaves_no_part_of_it(
    data: Path, tmp_path: Path, small_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last good one stays; with room again, the same command ends with the undisturbed weights."""
    whole = train_dpo.run(config_of(data, tmp_path / "whole"))
    config = config_of(data, tmp_path / "run")
    save_as_is = checkpoints.save

    def save(folder: Path, position: Any, *others: Any) -> Path:
        if position.step == 6:
            small_files(20_000)
        return save_as_is(folder, position, *others)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(ResourceError, match="there is no room to write it") as ended:
            train_dpo.run(config)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert ended.value.exit_code == 7
    left = [path.name for path in config.output.iterdir() if path.name.startswith((".tmp-", "checkpoint-"))]
    assert left == ["checkpoint-3"]
    assert same_weights(whole, train_dpo.run(config))


@pytest.mark.fault("R6")
def test_caches_without_room_are_done_without(
    data: Path, tmp_path: Path, small_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Token ids and reference values are computed and kept in memory; a mapped file would end in SIGBUS."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    whole = train_dpo.run(config_of(data, tmp_path / "whole"))
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "other"))
    fill_as_is = reference.Reference._fill

    def fill(self: Any, values: Any, *others: Any) -> None:
        small_files(-1)  # the run itself has room
        fill_as_is(self, values, *others)

    with monkeypatch.context() as patch:
        patch.setattr(reference.Reference, "_fill", fill)
        start_as_is = runs.start

        def start(*others: Any, **named: Any) -> Any:
            writer = start_as_is(*others, **named)
            small_files(20_000)
            return writer

        patch.setattr(training_run, "_keep_reference", lambda *others: None)
        patch.setattr(runs, "start", start)
        run = train_dpo.run(config_of(data, tmp_path / "run"))
    assert "the values are kept in memory alone" in capsys.readouterr().err
    assert same_weights(whole, run)
    assert not list((tmp_path / "other" / "reference").iterdir())
