"""Reward models on encoders: their rows are their own, their rewards those of plain transformers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Preference
from headwater.data.tokenizers import texts_of
from headwater.data.tokens import tokenize
from headwater.errors import ModelError
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import collate
from headwater.forward.scores import response_rewards, reward_scores, token_rewards
from headwater.models.positions import limit_of
from headwater.results import runs

SIZES = {
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
}
CONFIGS: dict[str, Any] = {
    "bert": (transformers.BertConfig, {"max_position_embeddings": 512}),
    "roberta": (transformers.RobertaConfig, {"max_position_embeddings": 514}),
    "modernbert": (transformers.ModernBertConfig, {"local_attention": 16, "global_attn_every_n_layers": 2}),
    "deberta": (transformers.DebertaV2Config, {"relative_attention": True, "position_biased_input": False}),
}
TRAIN = [
    "--precision",
    "fp32",
    "--eval-fraction",
    "0.25",
    "--learning-rate",
    "3e-3",
    "--per-device-train-batch-size",
    "16",
]


@pytest.fixture(scope="module")
def rows() -> list[Preference]:
    return generate(Corpus(pairs=60, seed=6))


@pytest.fixture(scope="module")
def wordpiece(rows: list[Preference]) -> Any:
    """A BERT tokenizer, which has no chat template."""
    special = {name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(special.values()), show_progress=False)
    backend.train_from_iterator(texts_of(rows), trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def encoder(name: str, tokenizer: Any, spread: float = 0.3) -> Any:
    """A tiny model; of untrained ones with weights of a small spread, all rewards are alike."""
    torch.manual_seed(0)
    config, more = CONFIGS[name]
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "cls", "sep")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    made = config(vocab_size=len(tokenizer), num_labels=1, initializer_range=spread, **ids, **SIZES, **more)
    return transformers.AutoModelForSequenceClassification.from_config(made).eval()


@pytest.fixture(scope="module")
def study(rows: list[Preference], wordpiece: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    reading.write(root / "pairs.jsonl", rows)
    encoder("bert", wordpiece, spread=0.02).save_pretrained(root / "bert")
    wordpiece.save_pretrained(root / "bert")
    call = ["train-reward", "--data", root / "pairs.jsonl", "--model", root / "bert", "--output", root / "rm", *TRAIN]
    assert cli.main([str(part) for part in call]) == 0
    return root


def changed(one: Path, other: Path) -> set[str]:
    """Name the weights in which two saved models differ."""
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    before, after = load(one).state_dict(), load(other).state_dict()
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


@pytest.mark.parametrize("name", CONFIGS)
def test_rewards_are_those_of_the_models_own_forward(name: str, rows: list[Preference], tokenizer: Any) -> None:
    """Alone and unpadded, response by response, against our batches of padded rows."""
    tokenizer.cls_token, tokenizer.sep_token = tokenizer.bos_token, tokenizer.eos_token
    model = encoder(name, tokenizer).double()
    pairs = tokenize(rows[:6], tokenizer, 256).pairs
    assert row_format_for(model, pairs) == "padded"
    batch = collate(pairs, "padded")
    assert int(batch["attention_mask"].sum(1).min()) < batch["input_ids"].shape[1], "no padding: nothing tested"
    with torch.no_grad():
        found = reward_scores(model, batch)
        for place, pair in enumerate(pairs):
            for side in ("chosen", "rejected"):
                ids = torch.tensor([[*pair.prompt, *getattr(pair, side)]])
                alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]
                assert getattr(found, side).value[place].item() == pytest.approx(alone.item(), abs=1e-9)
        ends = batch["lengths"].cumsum(0) - 1
        by_response = response_rewards(model, batch)[ends].view(-1, 2)
    assert torch.equal(by_response[:, 0], found.chosen.value)
    assert found.chosen.value.std() > 1e-4, "all alike: nothing tested"
    with pytest.raises(ModelError, match="is an encoder"):
        token_rewards(model, batch)


@pytest.mark.parametrize(
    ("name", "positions"), [("bert", 512), ("roberta", None), ("modernbert", None), ("deberta", None)]
)
def test_rows_that_a_model_has_no_positions_for_are_refused(name: str, positions: int | None, wordpiece: Any) -> None:
    model = encoder(name, wordpiece)
    if name == "roberta":
        positions = 514 - wordpiece.pad_token_id - 1
    assert limit_of(model) == positions
    if positions:
        ids = torch.full((1, positions), 9)
        model(input_ids=ids)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, positions + 1), 9))


def test_an_encoder_trains_scores_and_evaluates(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.load(study / "rm")
    assert run.facts["layout"] == "padded"
    for arguments in (
        ["evaluate", "--model", study / "rm", "--dataset", study / "pairs.jsonl", "--output", study / "judged"],
        ["score", "--model", study / "rm", "--input", study / "pairs.jsonl", "--output", study / "scored.jsonl"],
    ):
        assert cli.main([str(part) for part in arguments]) == 0
    accuracy = runs.load(study / "judged").metrics["accuracy"]
    assert accuracy["value"] == pytest.approx(run.metrics["eval_rewards/accuracies"])
    assert {"bert.embeddings.word_embeddings.weight", "classifier.weight"} <= changed(study / "bert", study / "rm")
    scored = {row.id: row for row in reading.load(study / "scored.jsonl").preferences}
    assert len({row.chosen.score for row in scored.values()}) > 30, "all alike: nothing tested"
    for row in runs.load(study / "judged").records():
        assert scored[row["id"]].chosen.score == pytest.approx(row["chosen_reward"], abs=1e-5)
    snippet = re.search(r"```python\n(.*?)```", (study / "rm" / "README.md").read_text(), re.DOTALL)
    assert snippet
    monkeypatch.chdir(study)
    for preference in list(scored.values())[:3]:
        turns = [{"role": message.role, "content": message.content} for message in preference.prompt]
        turns.append({"role": "assistant", "content": preference.chosen.text})
        lines = [f"messages = {turns!r}" if line.startswith("messages") else line for line in snippet[1].split("\n")]
        names: dict[str, Any] = {}
        exec("\n".join(lines), names)
        assert names["reward"] == pytest.approx(preference.chosen.score, abs=1e-5)


REFUSED = {
    "prefix training": (["train-reward", "--data", "PAIRS", "--model", "BERT", "--at", "0.5,1.0"], "is an encoder"),
    "a signal curve": (["signal", "PAIRS", "--model", "RM"], "is an encoder"),
    "no template": (["score", "--input", "PAIRS", "--model", "BERT"], "no chat template"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_encoder_cannot_do_is_refused(
    case: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"PAIRS": study / "pairs.jsonl", "BERT": study / "bert", "RM": study / "rm"}
    flags, message = REFUSED[case]
    output = tmp_path / ("out.jsonl" if flags[0] == "score" else "out")
    assert cli.main([*(str(names.get(flag, flag)) for flag in flags), "--output", str(output)]) == 4
    assert message in capsys.readouterr().err


def test_a_row_above_its_positions_is_dropped_and_counted(
    study: Path, rows: list[Preference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = dataclasses.replace(rows[0], chosen=dataclasses.replace(rows[0].chosen, text="kind words " * 300))
    reading.write(tmp_path / "long.jsonl", [*rows, long])
    call = ["evaluate", "--dataset", str(tmp_path / "long.jsonl"), "--model", str(study / "rm"), "--allow-leakage"]
    assert cli.main([*call, "--output", str(tmp_path / "a")]) == 0
    assert runs.load(tmp_path / "a").row_counts[-1]["dropped"] == {"too_long": 1}
    assert cli.main([*call, "--output", str(tmp_path / "b"), "--max-length", "600"]) == 2
    assert "the model has 512 positions" in capsys.readouterr().err


def test_adapters_train_an_encoder(study: Path, tmp_path: Path) -> None:
    call = ["train-reward", "--data", study / "pairs.jsonl", "--model", study / "bert", "--output", tmp_path / "rm"]
    assert cli.main([str(part) for part in (*call, *TRAIN, "--lora-r", 4)]) == 0
    found = changed(study / "bert", tmp_path / "rm")
    assert any("attention" in name for name in found)
    assert not any("embeddings" in name for name in found)
