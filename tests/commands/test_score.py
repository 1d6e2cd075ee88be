"""`headwater score`: the same rows with scores, whatever their company, and whatever came in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired
from headwater.evaluation import scoring
from headwater.results import runs
from headwater.rewards import responses
from headwater.rewards.responses import Reading, load_response_scorer
from tests.support.commands import succeed

MODEL = "scratch(hidden=32, layers=2, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.25"]


def read(path: Path) -> list[Any]:
    return list(reading.stream(path))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, candidates, and three models to score them with."""
    root = tmp_path_factory.mktemp("score")
    pairs = generate(Corpus(pairs=60, seed=5))
    reading.write(root / "pairs.jsonl", pairs)
    texts = [side.text for pair in pairs for side in (pair.chosen, pair.rejected)]
    candidates = [
        Candidates(
            prompt=pair.prompt,
            responses=tuple(Response(text, complete=n % 3 > 0) for n, text in enumerate(texts[k : k + 2 + k % 5])),
            id=f"c{k}",
            source="made",
        )
        for k, pair in enumerate(pairs[:20])
    ]
    reading.write(root / "candidates.jsonl", candidates)
    for name, seed in (("rm", 1), ("rm2", 2)):
        call = ["--data", root / "pairs.jsonl", "--output", root / name, "--model", MODEL, "--seed", seed]
        succeed("train-reward", *call, *QUICK)
    succeed("train-dpo", "--data", root / "pairs.jsonl", "--output", root / "dpo", "--model", MODEL, *QUICK)
    return root


def test_pairs_keep_their_order_and_get_the_rewards_that_evaluate_gives(study: Path, tmp_path: Path) -> None:
    succeed("score", "--input", study / "pairs.jsonl", "--output", tmp_path / "s.jsonl", "--model", study / "rm")
    before, after = read(study / "pairs.jsonl"), read(tmp_path / "s.jsonl")
    assert [(p.id, p.prompt, p.chosen.text) for p in after] == [(p.id, p.prompt, p.chosen.text) for p in before]
    call = ["--model", study / "rm", "--dataset", study / "pairs.jsonl", "--output", tmp_path / "e", "--allow-leakage"]
    succeed("evaluate", *call)
    expected = {r["id"]: (r["chosen_reward"], r["rejected_reward"]) for r in runs.load(tmp_path / "e").records()}
    for row in after:
        assert (row.chosen.score, row.rejected.score) == pytest.approx(expected[row.id], abs=1e-5)
    assert len({row.chosen.score for row in after}) > 40


def test_an_implicit_reward_is_that_of_plain_transformers(study: Path, tmp_path: Path) -> None:
    """β Σ (log π − log π_ref) over the response and the token that ends it (arXiv:2305.18290, eq. 5)."""
    call = ["--input", study / "pairs.jsonl", "--output", tmp_path / "s.jsonl", "--model", study / "dpo"]
    succeed("score", *call, "--beta", 0.5)
    policy = transformers.AutoModelForCausalLM.from_pretrained(study / "dpo").eval()
    reference = transformers.AutoModelForCausalLM.from_pretrained(study / "dpo" / "reference").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(study / "dpo")
    for row in read(tmp_path / "s.jsonl")[:8]:
        messages = [{"role": message.role, "content": message.content} for message in row.prompt]
        before = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(
            before + row.chosen.text + "<|im_end|>", add_special_tokens=False, return_tensors="pt"
        ).input_ids
        start = len(tokenizer(before, add_special_tokens=False).input_ids)
        sums = []
        for model in (policy, reference):
            with torch.no_grad():
                log_probs = model(ids).logits[0, :-1].double().log_softmax(-1)
            sums.append(log_probs.gather(1, ids[0, 1:, None])[start - 1 :].sum().item())
        assert row.chosen.score == pytest.approx(0.5 * (sums[0] - sums[1]), abs=1e-4)
        assert abs(row.chosen.score) > 1e-2


def test_a_score_is_that_of_plain_transformers(study: Path, tmp_path: Path) -> None:
    succeed(
        "score", "--input", study / "candidates.jsonl", "--output", tmp_path / "s.jsonl", "--model", study / "rm",
        "--end", "always",
    )  # fmt: skip
    model = transformers.AutoModelForSequenceClassification.from_pretrained(study / "rm").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(study / "rm")
    for row in read(tmp_path / "s.jsonl")[:6]:
        messages = [{"role": message.role, "content": message.content} for message in row.prompt]
        for response in row.responses:
            turns = [*messages, {"role": "assistant", "content": response.text}]
            text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            with torch.no_grad():
                assert model(**inputs).logits[0, 0].item() == pytest.approx(response.score, abs=1e-5)


@pytest.mark.parametrize("name", ["rm", "dpo"])
@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_a_score_does_not_depend_on_its_company(
    name: str, layout: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, with others, in any order, and in passes of any size: the same to 1e-5."""
    real = responses.row_format_for

    def chosen_layout(model: Any, pairs: Any, values: Any) -> str:
        own = model.config._attn_implementation
        assert real(model, pairs, values) == "shared"
        if layout == "padded":
            model.set_attn_implementation("sdpa" if own == "headwater" else own)
        return layout

    monkeypatch.setattr(responses, "row_format_for", chosen_layout)
    rows = read(study / "candidates.jsonl")
    together = load_response_scorer(str(study / name), None, None, Reading("complete", 512, 4096), 0)(rows)
    judge = load_response_scorer(str(study / name), None, None, Reading("complete", 512, 64), 0)
    backward = judge(rows[::-1])[::-1]
    alone = []
    for row in rows[:8]:
        alone.append(
            [judge([Unpaired(prompt=row.prompt, response=r, label=True, id="x")])[0][0] for r in row.responses]
        )
    assert np.ptp(np.concatenate([np.array(row, dtype=float) for row in together])) > 1e-2, "all alike: nothing tested"
    for row, other in zip(together, backward, strict=True):
        assert other == pytest.approx(row, abs=1e-5)
    for row, other in zip(together[:8], alone, strict=True):
        assert other == pytest.approx(row, abs=1e-5)


def test_a_prompt_is_read_once_for_all_its_responses(study: Path) -> None:
    prompt = (Message("user", "word " * 60),)
    row = Candidates(prompt=prompt, responses=tuple(Response(f"answer {n}") for n in range(8)))
    shared, separate = (
        load_response_scorer(str(study / "rm"), None, None, Reading("always", 512, max_tokens), 0)
        for max_tokens in (4096, 2)
    )
    shared([row])
    separate([row])
    assert separate.tokens > 4 * shared.tokens


def test_an_ensemble_gives_the_mean_and_keeps_its_members(study: Path, tmp_path: Path) -> None:
    call = ["score", "--input", study / "candidates.jsonl", "--model", study / "rm", study / "rm2"]
    succeed(*call, "--output", tmp_path / "both.jsonl")
    records = runs.load(tmp_path / "both.jsonl.run").records()
    by_model = {name: {r["id"]: r for r in records if r["model"] == str(study / name)} for name in ("rm", "rm2")}
    for row in read(tmp_path / "both.jsonl"):
        one, other = (by_model[name][row.id]["rewards"] for name in ("rm", "rm2"))
        assert one != pytest.approx(other, abs=1e-3)
        assert [r.score for r in row.responses] == pytest.approx(np.mean([one, other], axis=0), abs=1e-9)
        spread = by_model["rm"][row.id]["reward_std"]
        assert spread == pytest.approx(np.std([one, other], axis=0, ddof=1), abs=1e-9)
    metrics = runs.load(tmp_path / "both.jsonl.run").metrics
    assert metrics["ensemble_std"]["low"] < metrics["ensemble_std"]["value"] < metrics["ensemble_std"]["high"]


def test_select_takes_what_score_wrote(study: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    call = ["--input", study / "candidates.jsonl", "--model", study / "rm", study / "rm2"]
    succeed("score", *call, "--output", scored)
    succeed("select", "--input", scored, "--output", tmp_path / "a.jsonl", "--budget", "5prompts")
    ensemble = ["--rewards", f"{scored}.run", "--budget", "5prompts"]
    succeed("select", "--input", study / "candidates.jsonl", "--output", tmp_path / "b.jsonl", *ensemble)
    assert {row.id for row in read(tmp_path / "a.jsonl")} == {row.id for row in read(tmp_path / "b.jsonl")}


def test_a_stopped_command_goes_on_where_it_was(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scoring, "WINDOW", 25)
    call = ["score", "--input", str(study / "pairs.jsonl"), "--model", str(study / "rm"), "--output"]
    succeed(*call, tmp_path / "whole.jsonl")
    real, calls = responses.ResponseScorer.__call__, []

    def counted(self: Any, records: Any) -> Any:
        calls.append(len(records))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, records)

    monkeypatch.setattr(responses.ResponseScorer, "__call__", counted)
    assert cli.main([*call, str(tmp_path / "part.jsonl")]) == 130
    journal = tmp_path / "part.jsonl.ledger"
    with journal.open("ab") as handle:
        handle.write(b'{"key": "torn')
    assert cli.main([*call, str(tmp_path / "part.jsonl"), "--beta", "0.2"]) == 2
    assert "other settings" in capsys.readouterr().err
    succeed(*call, tmp_path / "part.jsonl")
    assert calls == [25, 25, 10, 10]
    assert not journal.exists()
    assert (tmp_path / "part.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_cannot_be_read_has_no_score_and_is_counted(study: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hello", "completion": "short", "label": True, "score": 3.0},
        {"prompt": "Hello", "completion": "long " * 300, "label": False, "score": 3.0},
    ]
    (tmp_path / "single.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["--input", tmp_path / "single.jsonl", "--output", tmp_path / "out.jsonl", "--max-length", 100]
    succeed("score", *call, "--model", study / "rm")
    short, long = read(tmp_path / "out.jsonl")
    assert short.response.score not in (None, 3.0)
    assert long.response.score is None
    metrics = runs.load(tmp_path / "out.jsonl.run").metrics
    assert (metrics["rows"], metrics["responses"], metrics["without_score"]) == (2, 2, 1)


BAD = {
    "a reference for a reward model": (["--reference", "x"], 2, "is a reward model"),
    "a model twice": (["--model", "RM", "RM"], 2, "names a model twice"),
    "a reference for several": (["--model", "RM", "RM2", "--reference", "x"], 2, "for 2 models"),
    "its own input": (["--output", "PAIRS", "--overwrite"], 2, "would replace the data"),
    "no room": (["--max-length", "1"], 2, "above 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused(
    case: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra, code, message = BAD[case]
    names = {"RM": study / "rm", "RM2": study / "rm2", "PAIRS": study / "pairs.jsonl"}
    call = ["score", "--input", study / "pairs.jsonl", "--output", tmp_path / "o.jsonl", "--model", study / "rm"]
    flags = [str(names.get(part, part)) for part in extra]
    call = call[:-2] if "--model" in flags else call
    call = call[:3] + call[5:] if "--output" in flags else call
    assert cli.main([*map(str, call), *flags]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pairs_and_records_are_what_they_were(study: Path, tmp_path: Path) -> None:
    succeed("score", "--input", study / "pairs.jsonl", "--output", tmp_path / "run", "--model", study / "rm")
    found = read(tmp_path / "run")
    assert all(isinstance(row, Preference) for row in found)
    assert len(found) == 60


# --- likelihoods, and what selection does with scores ----------------------------------------------------------------


def test_log_probabilities_are_those_of_plain_transformers(study: Path, tmp_path: Path) -> None:
    call = ["score", "--input", study / "pairs.jsonl", "--model", study / "dpo"]
    for value in ("log_prob", "mean_log_prob"):
        succeed(*call, "--value", value, "--output", tmp_path / f"{value}.jsonl")
    policy = transformers.AutoModelForCausalLM.from_pretrained(study / "dpo").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(study / "dpo")
    for row, mean in zip(
        *(read(tmp_path / f"{value}.jsonl")[:5] for value in ("log_prob", "mean_log_prob")), strict=True
    ):
        messages = [{"role": message.role, "content": message.content} for message in row.prompt]
        before = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        whole = before + row.chosen.text + tokenizer.eos_token
        ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        start = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = policy(ids).logits[0, start - 1 : -1].log_softmax(-1)
        each = logits.gather(1, ids[0, start:, None])
        assert row.chosen.score == pytest.approx(float(each.sum()), abs=1e-3)
        assert mean.chosen.score == pytest.approx(float(each.mean()), abs=1e-5)


def test_score_and_select_are_one_pipe(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = study / "candidates.jsonl"
    succeed("score", "--input", data, "--model", study / "dpo", "--output", tmp_path / "implicit.jsonl")
    likely = tmp_path / "likely.jsonl"
    succeed("score", "--input", data, "--model", study / "dpo", "--value", "mean_log_prob", "--output", likely)
    # PVar of the implicit reward, as the scored data has it and as the run has it
    both = ["--measure-gradients", 8, "--policy", study / "dpo"]
    succeed("select", "--input", tmp_path / "implicit.jsonl", "--output", tmp_path / "a", *both, "--budget", "30%")
    succeed("select", "--input", data, "--rewards", tmp_path / "implicit.jsonl.run", "--output", tmp_path / "b.jsonl")
    one, other = (runs.load(tmp_path / name).metrics["score_all"] for name in ("a", "b.jsonl.run"))
    assert one["value"] == pytest.approx(other["value"], rel=1e-9) and one["value"] > 0
    rows = json.loads((tmp_path / "a" / "selection.json").read_text("utf-8"))["gradients"]
    assert len(rows) == 8 and all(0 < row["norm"] <= row["bound"] * 1.00001 for row in rows)
    found = runs.load(tmp_path / "a").metrics
    assert found["gradient_over_bound"]["n"] == 8 and 0 < found["gradient_over_bound"]["value"] < 1
    succeed("report", tmp_path / "a", "--output", tmp_path / "page.html")
    assert 'id="gradients"' in (tmp_path / "page.html").read_text("utf-8")
    # the same log-likelihoods, as the data's scores and beside them
    succeed("select", "--input", likely, "--by", "likelihood", "--output", tmp_path / "c.jsonl")
    given = ["--input", data, "--by", "likelihood", "--likelihoods", tmp_path / "likely.jsonl.run"]
    succeed("select", *given, "--output", tmp_path / "d.jsonl")
    assert [row.id for row in read(tmp_path / "c.jsonl")] == [row.id for row in read(tmp_path / "d.jsonl")]
    refused = [
        (["--input", likely], "needs rewards"),
        (["--input", data, "--rewards", tmp_path / "likely.jsonl.run"], "recorded likelihoods"),
        (["--input", data, "--by", "likelihood", "--likelihoods", tmp_path / "implicit.jsonl.run"], "recorded rewards"),
        (["--input", tmp_path / "implicit.jsonl", "--policy", study / "dpo"], "without --measure-gradients"),
        (["--input", tmp_path / "implicit.jsonl", *both[:2], "--policy", study / "rm"], "is a reward model"),
    ]
    for call, message in refused:
        assert cli.main([str(each) for each in ["select", *call, "--output", tmp_path / "no.jsonl"]]) == 2
        assert message in capsys.readouterr().err


def test_likelihoods_have_no_reference_and_reward_models_none(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["score", "--input", study / "pairs.jsonl", "--output", tmp_path / "s.jsonl", "--value", "log_prob"]
    for more, code, message in (
        (["--model", study / "dpo", "--beta", 0.5], 2, "has no effect with --value log_prob"),
        (["--model", study / "rm"], 4, "is a reward model"),
    ):
        assert cli.main([str(each) for each in [*call, *more]]) == code
        assert message in capsys.readouterr().err
