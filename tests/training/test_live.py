"""The live view of a training: what it draws, the page that serves it, and the notebook that shows it."""

from __future__ import annotations

import json
import re
import sys
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results.live import LiveView
from headwater.training import live
from headwater.training.live import ShowLive

STATE = types.SimpleNamespace(global_step=10, max_steps=40)
LOGS = {"loss": 0.6, "rewards/margins": 0.1, "rewards/chosen": 0.2, "rewards/rejected": 0.1, "eval_loss": 0.65}


def test_the_view_draws_lines_and_says_the_last_values() -> None:
    rows = [{"step": step, **LOGS, "loss": 0.7 - step / 100} for step in (1, 10, 20)]
    shown = LiveView("train-dpo <runs>", rows, 20, 40, "2 a second, 10 s left")._repr_html_()
    assert "train-dpo &lt;runs&gt;: step 20 of 40 · 2 a second, 10 s left" in shown
    assert "Loss: 0.5, held out 0.65" in shown and "Accuracy" not in shown
    first = re.search(r'points="([^"]*)"', shown)
    assert first and first.group(1).split()[0] == "60.0,8.0", "step 1 of 40, the largest value at the top"
    assert '<progress max="40" value="20">' in shown


def test_values_that_are_not_finite_or_alone_are_drawn_or_left_out() -> None:
    shown = LiveView("t", [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}], 2, 2)._repr_html_()
    assert "<circle" in shown and "nan" not in shown


def test_the_page_answers_with_the_view_and_only_itself() -> None:
    callback = ShowLive("train-dpo runs/x", page=True, inline=False)
    callback.on_train_begin(None, STATE, None)
    address = callback._server.address  # type: ignore[union-attr]
    assert "pair" in urllib.request.urlopen(address, timeout=5).read().decode()

    def asked() -> dict[str, Any]:
        request = urllib.request.Request(f"{address}pair", b"{}", {"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(urllib.request.urlopen(request, timeout=5).read())
        return found

    assert asked() == {"html": "", "ended": False}
    callback.on_log(None, STATE, None, logs=LOGS)
    assert "step 10 of 40" in asked()["html"]
    callback.on_train_end(None, STATE, None)
    assert asked()["ended"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(address[:-5] + "/", timeout=5)


def test_a_notebook_shows_the_view_and_updates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for IPython records what is displayed; without a kernel nothing is."""
    shown: list[LiveView] = []
    handle = types.SimpleNamespace(update=shown.append)

    def display(view: LiveView, display_id: bool) -> Any:
        shown.append(view)
        return handle

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))  # type: ignore[arg-type]
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=24)))
    tiny = "scratch(hidden=32, layers=1, vocab=300)"
    headwater.train_reward(tmp_path / "pairs.jsonl", tiny, output=tmp_path / "run", batch_size=8)
    assert shown[-1].ended and shown[-1].step == shown[-1].steps and shown[-1].rows[0]["loss"] > 0
    assert any("eval_rewards/accuracies" in row for row in shown[-1].rows)
    shell.kernel = None
    assert not live.in_notebook()
