"""What goes to the hub: a model that loads, when asked, and nothing of the data."""

from __future__ import annotations

import dataclasses
import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers

from headwater.commands import train_reward
from headwater.commands.train_reward import Config
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.errors import NetworkError, UsageError
from headwater.training.options import TrainingOptions


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=24, seed=3)))
    return Config(
        data=tmp_path / "pairs.jsonl",
        output=tmp_path / "run",
        model="scratch(hidden=32, layers=1, vocab=300)",
        training=TrainingOptions(push_to_hub="someone/judge", eval_fraction=0.0),
    )


class Hub:
    """Takes what the hub would take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Any] = []

    def create_repo(self, name: str, **settings: Any) -> None:
        self.made.append((name, settings))

    def upload_folder(
        self, repo_id: str, folder_path: Path, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> None:
        paths = (str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file())
        for name in huggingface_hub.utils.filter_repo_objects(
            paths, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes((folder_path / name).read_bytes())


def test_a_pushed_model_loads_and_no_text_of_the_data_goes_along(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "create_repo", hub.create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", hub.upload_folder)
    train_reward.run(config)
    assert hub.made == [("someone/judge", {"private": True, "exist_ok": True})]
    names = [str(path.relative_to(hub.folder)) for path in hub.folder.rglob("*") if path.is_file()]
    assert "README.md" in names
    assert not [
        name for name in names for kept in ("*.jsonl", "*.txt", "*.yaml", "f*.json") if fnmatch.fnmatch(name, kept)
    ]
    transformers.AutoModelForSequenceClassification.from_pretrained(hub.folder)
    assert len(transformers.AutoTokenizer.from_pretrained(hub.folder)) > 100


def test_a_hub_that_cannot_be_reached_costs_no_training(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*names: str, **settings: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "create_repo", unreachable)
    with pytest.raises(NetworkError, match="no network"):
        train_reward.run(config)
    assert (config.output / "done").exists()


def test_names_and_ensembles_that_cannot_be_pushed_are_refused_at_once(config: Config) -> None:
    named = dataclasses.replace(config, training=dataclasses.replace(config.training, push_to_hub="a//b"))
    with pytest.raises(UsageError, match="OWNER/NAME"):
        train_reward.run(named)
    with pytest.raises(UsageError, match="not an ensemble"):
        train_reward.run(dataclasses.replace(config, seeds=2))
    assert not config.output.exists()
