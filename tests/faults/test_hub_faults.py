"""R14: a hub that does not give a model ends with exit 6, and says what to set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from headwater.data.tokenizers import load_tokenizer
from headwater.data.untrusted import check_model
from headwater.errors import ModelError, NetworkError

pytestmark = pytest.mark.fault("R14")


def _answer(kind: type[Exception], status: int) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, f"HTTP {status} of the hub")
    vars(error)["response"] = SimpleNamespace(status_code=status, headers={})
    return error


ANSWERS = {
    "429": (_answer(errors.HfHubHTTPError, 429), "asks to wait .*HF_TOKEN"),
    "503": (_answer(errors.HfHubHTTPError, 503), "HTTP 503 · repeat"),
    "gated": (_answer(errors.GatedRepoError, 403), "is gated .*ask for access.*HF_TOKEN"),
    "not shown": (_answer(errors.RepositoryNotFoundError, 401), "does not show it .*check the name.*HF_TOKEN"),
    "revision": (_answer(errors.RevisionNotFoundError, 404), "no such revision"),
    "no network": (ConnectionError("no route\nto host"), "not reached.*HTTPS_PROXY.*HF_HUB_OFFLINE=1"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_model_that_the_hub_does_not_give(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, expected = ANSWERS[answer]

    def failing(*names: str, **settings: Any) -> Any:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", failing)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", failing if answer != "no network" else huggingface_hub.hf_hub_download
    )
    with pytest.raises(NetworkError, match=expected) as caught:
        load_tokenizer("someone/model", ())
    assert "\n" not in str(caught.value)


def test_offline_a_model_in_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cached(name: str, file: str, local_files_only: bool) -> str:
        assert local_files_only
        if file != "config.json":
            raise errors.LocalEntryNotFoundError("not in the cache")
        (tmp_path / file).write_text("{}")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    check_model("someone/model")


@pytest.mark.parametrize("name", ["a/b/c", "../up", "no name", "x" * 300, "a\0b"])
def test_what_is_neither_a_folder_nor_a_name(name: str) -> None:
    with pytest.raises(ModelError, match="is no folder here, and no name of the hub's"):
        check_model(name)
