"""`headwater decode` and `headwater frontier` as they are typed, on tiny models and a real one where it lies."""

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
from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.decoding.loop import Loop
from headwater.results import runs
from tests.decoding import stories
from tests.decoding.test_loop import nudged

STRATEGY = "kl_threshold(threshold=0.1)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, corpus: list[Preference], tokenizer: Tokenizer) -> Path:
    """A directory with a policy, its reference, a reward model and preferences."""
    path = tmp_path_factory.mktemp("decode")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )  # fmt: skip
    reference = transformers.LlamaForCausalLM(config).eval()
    for parameter in reference.parameters():
        if parameter.dim() > 1:
            parameter.data *= 3
    for name, model in {
        "reference": reference,
        "policy": nudged(reference),
        "reward": transformers.LlamaForSequenceClassification(config),
    }.items():
        model.save_pretrained(path / name)
        tokenizer.save_pretrained(path / name)
    reading.write(path / "pairs.jsonl", corpus[:12])
    return path


def decode(place: Path, output: Path, *more: str, strategy: str = STRATEGY) -> int:
    models = ["--model", str(place / "policy"), "--reference", str(place / "reference")]
    data = ["--input", str(place / "pairs.jsonl"), "--output", str(output), "--max-new-tokens", "12"]
    return cli.main(["decode", *models, *data, "--strategy", strategy, *more])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_decode_writes_responses_with_their_accounts(place: Path, tmp_path: Path) -> None:
    more = ("--n", "2", "--reward-model", str(place / "reward"), "--draws", "50")
    assert decode(place, tmp_path / "run", *more) == 0
    run, rows = runs.load(tmp_path / "run"), lines(tmp_path / "run" / "decoded.jsonl")
    kept = run.row_counts[-1]["kept"]
    assert len(rows) == 2 * kept
    for row in rows:
        tokens = row["response_tokens"]
        names = ("policy_share", "kl", "kl_policy", "log_ratio", "monte_carlo")
        assert {len(row[f"token_{name}"]) for name in names} == {tokens} == {len(row["tokens"])}
        assert row["kl"] == pytest.approx(sum(row["token_kl"]))
        assert row["same_tokens"] in (True, False) and row["token_ends"][-1] == len(row["response"])
    assert run.metrics["kl"]["n"] == len(rows)
    assert run.metrics["kl"]["value"] == pytest.approx(np.mean([row["kl"] for row in rows]))
    assert run.metrics["kl"]["low"] < run.metrics["kl"]["value"] < run.metrics["kl"]["high"]
    assert run.metrics["tokens"] == sum(row["response_tokens"] for row in rows)
    rewards = [row["rewards"][str(place / "reward")] for row in rows]
    scored = [reward for reward in rewards if reward is not None]
    assert run.metrics["reward_reward"]["value"] == pytest.approx(np.mean(scored))
    back = [json.loads(line) for line in (tmp_path / "run" / "preferences.jsonl").read_text("utf-8").splitlines()]
    assert [c["overall_score"] for row in back for c in row["completions"]] == rewards
    assert cli.main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report.html")]) == 0


def test_speed_changes_no_response(place: Path, tmp_path: Path) -> None:
    assert decode(place, tmp_path / "slow", "--draft", "1", "--batch-size", "1") == 0
    assert decode(place, tmp_path / "fast", "--draft", "16", "--batch-size", "6") == 0
    slow, fast = (lines(tmp_path / name / "decoded.jsonl") for name in ("slow", "fast"))
    assert [row["tokens"] for row in slow] == [row["tokens"] for row in fast]
    assert len({row["response"] for row in slow}) > 6


@pytest.mark.parametrize("apart", [(), ("--release-policy",)])
def test_a_stopped_decode_goes_on_and_gives_the_same_file(
    place: Path, tmp_path: Path, apart: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("--batch-size", "2", *apart)
    strategy = "length_control(first=4)" if apart else STRATEGY
    assert decode(place, tmp_path / "whole", *call, strategy=strategy) == 0
    honest, done = Loop.run, []

    def stopped(self: Loop, decode_requests: Any) -> Any:
        for one in honest(self, decode_requests):
            if len(done) == 9 + 5 * bool(apart):  # the policy's 10 parts, and some of the reference's
                raise KeyboardInterrupt
            done.append(one)
            yield one

    monkeypatch.setattr(Loop, "run", stopped)
    assert decode(place, tmp_path / "run", *call, strategy=strategy) == 130
    assert not (tmp_path / "run").exists() and (tmp_path / "run.ledger").is_file()
    monkeypatch.setattr(Loop, "run", honest)
    assert decode(place, tmp_path / "run", "--batch-size", "3", *apart, strategy="reference") == 2  # other settings
    assert decode(place, tmp_path / "run", *call, strategy=strategy) == 0
    assert not (tmp_path / "run.ledger").exists()
    for name in ("decoded.jsonl", "preferences.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_commands_take_what_was_decoded(place: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert decode(place, one) == 0
    assert decode(place, other, strategy="reference") == 0
    reward = str(place / "reward")
    sides = ["--baseline", str(other), "--answers", str(one)]
    assert cli.main(["judge", *sides, "--judge", f"reward(model='{reward}')", "--output", str(tmp_path / "j")]) == 0
    assert runs.load(tmp_path / "j").row_counts[-1]["kept"] == 10
    assert cli.main(["compare", str(tmp_path / "j"), "--output", str(tmp_path / "c")]) == 0
    drawn = ("--n", "3", "--reward-model", reward)
    assert decode(place, tmp_path / "several", *drawn) == 0
    scored = ["score", "--input", str(tmp_path / "several"), "--model", reward, "--output", str(tmp_path / "s.jsonl")]
    assert cli.main(scored) == 0
    before, after = (reading.stream(path) for path in (tmp_path / "several", tmp_path / "s.jsonl"))
    for row, other in zip(before, after, strict=True):
        assert [r.score for r in row.responses] == pytest.approx([r.score for r in other.responses], abs=1e-5)
    select = ["select", "--input", str(tmp_path / "several"), "--pairs", "best_worst", "--budget", "100%"]
    assert cli.main([*select, "--output", str(tmp_path / "pairs")]) == 0
    data = ["--model", reward, "--dataset", str(tmp_path / "pairs"), "--output", str(tmp_path / "e")]
    assert cli.main(["evaluate", *data]) == 0
    assert runs.load(tmp_path / "e").metrics["accuracy"]["value"] == 1.0  # the pairs are ordered by this very model
    pages = [str(tmp_path / name) for name in ("one", "several", "c", "e")]
    assert cli.main(["report", *pages, "--output", str(tmp_path / "page.html")]) == 0
    assert 'id="decoded"' in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--strategy", "lenth_control(first=2)"), 2, "did you mean length_control"),
        (("--max-new-tokens", "300"), 4, "256 positions"),
        (("--temperature", "0", "--n", "2"), 2, "--temperature 0"),
        (("--model", "reward-model"), 4, "is a reward model"),
        (("--draws", "-1"), 2, "--draws -1"),
    ],
)
def test_what_cannot_work_is_refused(
    place: Path, tmp_path: Path, more: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tuple(str(place / "reward") if each == "reward-model" else each for each in more)
    assert decode(place, tmp_path / "run", *more) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def frontier(place: Path, output: Path, *more: str) -> int:
    models = ["--model", str(place / "policy"), "--reference", str(place / "reference")]
    data = ["--input", str(place / "pairs.jsonl"), "--output", str(output), "--max-new-tokens", "12"]
    grid = ["--first", "3", "6", "--thresholds", "0.1", "--weights", "0.5", "2"]
    return cli.main(["frontier", *models, *data, "--reward-model", str(place / "reward"), *grid, *more])


def test_a_frontier_goes_on_where_it_was_stopped(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "frontier"
    assert frontier(place, home) == 0
    rows = json.loads((home / "summary" / "frontier.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) == 8
    found = {row["name"]: row for row in rows}
    assert found["reference"]["kl"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["best_of(n=4)"]["kl"]["value"] == pytest.approx(np.log(4) - 0.75)
    assert found["best_of(n=4)"]["reward"]["value"] > found["reference"]["reward"]["value"]
    assert found["policy"]["gap"] is None and found["length_control(first=3)"]["gap"]["n"] > 0
    assert found["length_control(first=3)"]["kl"]["value"] < found["length_control(first=6)"]["kl"]["value"]
    metrics = runs.load(home / "summary").metrics
    assert metrics["recommended_by_reward"] in names
    assert metrics["kl_reward"]["value"] <= metrics["budget_reward"]
    kept = {path: path.stat().st_mtime_ns for path in (home / "points").iterdir()}
    again = home / "points" / "length_control-first=3.jsonl"
    before = again.read_bytes()
    again.unlink()
    capsys.readouterr()
    assert frontier(place, home) == 0
    assert "8 points, 7 done" in capsys.readouterr().err
    assert again.read_bytes() == before
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path != again)
    assert json.loads((home / "summary" / "frontier.json").read_text(encoding="utf-8")) == rows
    assert frontier(place, home, "--max-new-tokens", "13") == 2
    assert "was begun with 12" in capsys.readouterr().err
    (tmp_path / "figure4.json").write_text('{"baseline": [[2.0, -4.0], [1.0, -5.0]]}', encoding="utf-8")
    printed = f"{tmp_path / 'figure4.json'}:baseline"
    assert frontier(place, home, "--published", printed.replace("base", "bse")) == 2
    assert "did you mean baseline" in capsys.readouterr().err
    assert frontier(place, home, "--published", printed) == 0  # no point depends on it
    found = json.loads((home / "summary" / "published.json").read_text(encoding="utf-8"))
    assert found == {printed: [[1.0, -5.0], [2.0, -4.0]]}
    assert cli.main(["report", str(home / "summary"), "--output", str(tmp_path / "report.html")]) == 0
    assert "published, figure4.json:baseline" in (tmp_path / "report.html").read_text("utf-8")


def test_stories260k_says_what_it_must_greedily(shared_data: Path, tmp_path: Path) -> None:
    from headwater.config import build
    from headwater.decoding.loop import Loop, decode_requests
    from headwater.decoding.options import DecodingOptions
    from headwater.decoding.strategies import STRATEGIES

    path = stories.save(shared_data / "stories260K", tmp_path / "stories")
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    expected = stories.expected_text(shared_data / "stories260K")
    assert len(expected) > 500
    for text in ("policy", "length_control(first=40)", STRATEGY):
        options = DecodingOptions(temperature=0, max_new_tokens=256)
        loop = Loop(model, model, build(text, STRATEGIES, "strategy"), options, [1, 2], seed=0)
        (found,) = loop.run(decode_requests(["start"], [[1]], 1))
        assert tokenizer.decode(found.tokens) == expected, text


def test_a_whole_frontier_with_a_policy_fine_tuned_from_stories260k(shared_data: Path, tmp_path: Path) -> None:
    base = stories.save(shared_data / "stories260K", tmp_path / "stories")
    told = [
        Preference(
            prompt=(Message("user", f"Once upon a time, there was a {who}."),),
            chosen=Response(f" The {who} was happy and had fun with a friend."),
            rejected=Response(f" The {who} was sad and went away."),
            id=who,
            source="made",
        )
        for who in ("cat", "dog", "boy", "girl", "bird", "bear")
    ]
    reading.write(tmp_path / "told.jsonl", told)
    learn = ["--data", tmp_path / "told.jsonl", "--model", base, "--precision", "fp32", "--eval-fraction", 0]
    learn += ["--num-train-epochs", 6, "--learning-rate", 1e-3]
    for command, name in (("train-dpo", "dpo"), ("train-reward", "reward")):
        assert cli.main([str(each) for each in [command, *learn, "--output", tmp_path / name]]) == 0
    grid = ["--first", 2, 6, "--thresholds", 0.05, "--weights", 0.5, "--best-of", 2, "--max-new-tokens", 12, "--n", 2]
    call = ["frontier", "--model", tmp_path / "dpo", "--input", tmp_path / "told.jsonl", "--output", tmp_path / "f"]
    assert cli.main([str(each) for each in [*call, "--reward-model", tmp_path / "reward", *grid]]) == 0
    rows = json.loads((tmp_path / "f" / "summary" / "frontier.json").read_text(encoding="utf-8"))
    found = {row["name"]: row for row in rows}
    assert len(found) == 7 and found["policy"]["kl"]["value"] > 0.1
    gap = found["length_control(first=2)"]["gap"]
    assert gap["low"] < gap["high"] and gap["n"] == 12
    metrics = runs.load(tmp_path / "f" / "summary").metrics
    recommended = found[metrics["recommended_by_reward"]]
    assert recommended["kl"]["value"] <= found["policy"]["kl"]["value"] / 2
