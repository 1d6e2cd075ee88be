"""`--chat-template` from training to scoring: what was trained carries it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headwater.commands import sample, tokens, train_sft
from headwater.data.sampling import Sampling
from headwater.data.tokenizers import load_tokenizer
from headwater.errors import UsageError
from headwater.rewards.drawing import SamplerOptions
from headwater.training.options import TrainingOptions

ROWS = '{"prompt": "Say %d.", "chosen": "It is %d.", "rejected": "No."}\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(ROWS % (n, n) for n in range(8)))
    return path


def test_a_trained_run_carries_the_template(data: Path, tmp_path: Path) -> None:
    model = train_sft.run(
        train_sft.Config(
            data=data,
            output=tmp_path / "sft",
            model="scratch(hidden=32, layers=1, vocab=300)",
            chat_template="plain",
            training=TrainingOptions(eval_fraction=0, precision="fp32"),
        )
    )
    assert yaml.safe_load((model / "config.yaml").read_text())["chat_template"] == "plain"
    shown = tokens.run(tokens.Config(data=data, tokenizer=str(model)))
    assert "user⏎Say 0.⏎⏎assistant⏎" in shown.replace("|", "")
    assert "im_start" not in load_tokenizer(str(model), ()).chat_template
    again = tokens.run(tokens.Config(data=data, tokenizer=str(model), chat_template="chatml"))
    assert "<|im_start|>|" in again


def test_a_server_has_its_own_template(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--chat-template · has no effect on a server"):
        sample.run(
            sample.Config(
                input=data,
                output=tmp_path / "s.jsonl",
                model="m",
                sampler=SamplerOptions(endpoint="http://127.0.0.1:9/v1"),
                chat_template="plain",
                sampling=Sampling(n=1),
            )
        )


def test_a_template_that_is_none_ends_a_command(data: Path) -> None:
    with pytest.raises(UsageError, match="--chat-template mine · is neither a template's name nor a file"):
        tokens.run(tokens.Config(data=data, chat_template="mine"))
