"""The report of an evaluated model: where it is right, and the rows it gets wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from headwater.data.corpus import Corpus, generate
from headwater.evaluation.diagnostics import ScoredPairs, diagnose
from headwater.reporting import page
from headwater.reporting.plots import diagnostics
from headwater.results import runs


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "m"


def test_a_page_shows_where_a_model_is_right_and_its_mistakes(tmp_path: Path) -> None:
    preferences = generate(Corpus(pairs=80, seed=0))
    rng = np.random.default_rng(0)
    rewards, lengths = rng.normal(0, 1, (80, 2)), rng.integers(10, 90, (80, 2)).astype(float)
    writer = runs.start(tmp_path / "judged", "evaluate", Config())
    writer.write(diagnose(ScoredPairs(preferences, rewards, lengths), {}, 0))
    run = runs.load(writer.finish())
    (block,) = diagnostics.diagnostic_panels([run])
    assert [panel.title for panel in block.panels] == ["Confidence", "Lengths", "Margin"]
    assert "on 80 pairs" in block.panels[0].says
    text = page.render([run])
    worst = preferences[int(np.argmin(rewards[:, 0] - rewards[:, 1]))]
    assert "most wrong" in text
    assert worst.chosen.text.split()[0] in text
    assert 'id="diagnostics"' in text
    plain = runs.start(tmp_path / "plain", "evaluate", Config())
    assert diagnostics.diagnostic_panels([runs.load(plain.finish())]) == []
    assert "Mistakes" not in page.render([runs.load(tmp_path / "plain")])
