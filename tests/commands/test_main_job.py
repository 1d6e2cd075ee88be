"""The four steps and the report, as a user types them, on data small enough for a test."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from headwater import cli
from headwater.commands import evaluate, preprocess, train_reward
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from headwater.training.options import TrainingOptions
from tests.support.commands import succeed

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.25"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, their halves, a reward model and a policy trained on the halves, both judged on the full pairs."""
    root = tmp_path_factory.mktemp("study")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=160, seed=2)))
    cut = root / "cut.jsonl"
    succeed("preprocess", "--input", root / "pairs.jsonl", "--output", cut, "--truncate-percentage", 50)
    succeed("train-reward", "--data", cut, "--output", root / "rm", "--model", MODEL, *QUICK)
    succeed("train-dpo", "--data", cut, "--output", root / "dpo", "--model", MODEL, *QUICK)
    succeed("evaluate", "--model", root / "rm", "--dataset", root / "pairs.jsonl")
    succeed("evaluate", "--model", root / "dpo", "--dataset", root / "pairs.jsonl", "--output", root / "dpo-eval")
    return root


def test_preprocess_cuts_responses_and_leaves_prompts(study: Path) -> None:
    full = {p.id: p for p in reading.load(study / "pairs.jsonl").preferences}
    cut = reading.load(study / "cut.jsonl").preferences
    assert len(cut) > 150
    for preference in cut:
        original = full[preference.id]
        assert preference.prompt == original.prompt
        for short, whole in ((preference.chosen, original.chosen), (preference.rejected, original.rejected)):
            assert whole.text.startswith(short.text)
            assert not short.complete
            assert 0.3 < len(short.text) / len(whole.text) < 0.7


def test_every_run_is_finished_and_accounted_for(study: Path) -> None:
    for name in ("cut.jsonl.run", "rm", "dpo", "rm-on-pairs", "dpo-eval"):
        run = runs.load(study / name)
        assert run.facts["keep"] == 0.5
        assert run.row_counts[0]["rows_in"] > 0
        for stage in run.row_counts:
            assert stage["rows_in"] == stage["kept"] + sum(stage["dropped"].values())


def test_nothing_leaks(study: Path) -> None:
    """The judged pairs share no conversation with the pairs trained on, and all of those are accounted for."""
    trained = set((study / "rm" / runs.TRAINED_ON).read_text().split())
    run = runs.load(study / "rm-on-pairs")
    judged = {record["conversation_id"] for record in run.records()}
    assert judged
    assert not trained & judged
    leaked = next(stage for stage in run.row_counts if stage["stage"] == "leakage")["dropped"]["seen_in_training"]
    assert leaked + len(run.records()) == 160


def test_the_models_load_with_transformers_alone(study: Path) -> None:
    reward = transformers.AutoModelForSequenceClassification.from_pretrained(study / "rm")
    assert reward.config.num_labels == 1
    transformers.AutoModelForCausalLM.from_pretrained(study / "dpo")
    tokenizer = transformers.AutoTokenizer.from_pretrained(study / "dpo")
    assert "<|im_start|>" in tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    pickles = [p for p in study.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".pth")]
    assert not pickles


def test_a_plain_forward_of_the_saved_reward_model_gives_the_recorded_reward(study: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(study / "rm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(study / "rm")
    recorded = runs.load(study / "rm-on-pairs").records()[0]
    preference = next(p for p in reading.load(study / "pairs.jsonl").preferences if p.id == recorded["id"])
    messages = [{"role": m.role, "content": m.content} for m in preference.prompt]
    for text, expected in (
        (preference.chosen.text, recorded["chosen_reward"]),
        (preference.rejected.text, recorded["rejected_reward"]),
    ):
        whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": text}], tokenize=False)
        ids = tokenizer(whole.removesuffix("\n"), add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            assert model(**ids).logits[0, 0].item() == pytest.approx(expected, abs=1e-4)


def test_dpo_logs_what_is_promised(study: Path) -> None:
    run = runs.load(study / "dpo")
    names = {"loss", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/sum", "rewards/margins"}
    assert any(names | {"rewards/accuracies"} <= set(row) for row in run.history)
    for row in run.history:
        if "rewards/sum" in row:
            assert row["rewards/sum"] == pytest.approx(row["rewards/chosen"] + row["rewards/rejected"], abs=1e-9)
            assert row["rewards/margins"] == pytest.approx(row["rewards/chosen"] - row["rewards/rejected"], abs=1e-9)
    assert (study / "dpo" / "reference" / "model.safetensors").exists()


def test_figures_have_n_and_an_interval(study: Path) -> None:
    for name in ("rm-on-pairs", "dpo-eval"):
        run = runs.load(study / name)
        for figure in run.metrics.values():
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["n"] >= len(run.records())
        correct = [(r["chosen_reward"] > r["rejected_reward"]) for r in run.records()]
        assert run.metrics["accuracy"]["value"] == pytest.approx(sum(correct) / len(correct))


def test_a_stored_config_repeats_the_run_exactly(study: Path, tmp_path: Path) -> None:
    config = study / "rm" / "config.yaml"
    assert "learning_rate: 0.001" in config.read_text()
    succeed("train-reward", "--config", config, "--output", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (study / "rm" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def base(study: Path) -> Path:
    """A policy with a tokenizer that stays the same over several runs."""
    succeed("train-sft", "--data", study / "pairs.jsonl", "--output", study / "base", "--model", MODEL, *QUICK)
    return study / "base"


@pytest.mark.parametrize(
    "cut",
    [
        ["--keep", "40%"],
        ["--keep", "50%", "--cut", "equal"],
        ["--keep", "9words", "--boundary", "sentence"],
        ["--keep", "25%", "--part", "random-span", "--seed", "3"],
    ],
)
def test_cutting_while_training_equals_training_on_the_cut_file(
    cut: list[str], study: Path, base: Path, tmp_path: Path
) -> None:
    """Flags cut by the model's own tokenizer; with the same one, `preprocess` gives the same token ids."""
    common = ["--model", base, "--learning-rate", "1e-3", *QUICK]
    seed = cut[cut.index("--seed") :] if "--seed" in cut else []
    succeed("train-reward", "--data", study / "pairs.jsonl", *cut, "--output", tmp_path / "a", *common)
    written = tmp_path / "cut.parquet"
    succeed("preprocess", "--input", study / "pairs.jsonl", *cut, "--tokenizer", base, "--output", written)
    succeed("train-reward", "--data", written, "--output", tmp_path / "b", *common, *seed)
    one, other = (runs.load(tmp_path / name) for name in "ab")
    for name in ("keep", "kept", "cut", "part"):
        assert one.facts.get(name) == other.facts.get(name)
    losses = [[row.get("loss") for row in run.history] for run in (one, other)]
    assert losses[0] == losses[1]
    assert len([loss for loss in losses[0] if loss]) >= 1


def test_the_end_rule_of_training_is_the_end_rule_of_judging(study: Path, base: Path, tmp_path: Path) -> None:
    flags = ["--data", study / "cut.jsonl", "--model", base, "--end", "always", *QUICK]
    succeed("train-reward", *flags, "--output", tmp_path / "rm")
    succeed("evaluate", "--model", tmp_path / "rm", "--dataset", study / "cut.jsonl", "--output", tmp_path / "e")
    facts = runs.load(tmp_path / "e").facts
    assert (facts["end"], facts["evaluated_end"]) == ("always", "always")
    whole = runs.load(tmp_path / "e").records()[0]["chosen_tokens"]
    succeed(
        "evaluate", "--model", tmp_path / "rm", "--dataset", study / "cut.jsonl", "--output", tmp_path / "n",
        "--end", "never",
    )  # fmt: skip
    assert runs.load(tmp_path / "n").records()[0]["chosen_tokens"] == whole - 1


@pytest.mark.parametrize("flag", [["--beta", "0.2"], ["--weights", "mean()"], ["--reference", "x"]])
def test_flags_of_a_policy_are_refused_for_a_reward_model(
    flag: list[str], study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "--model", study / "rm", "--dataset", study / "pairs.jsonl", "--output", tmp_path / "e", *flag]
    assert cli.main([str(part) for part in call]) == 2
    assert f"{flag[0]} · " in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_token_weights_change_training_and_their_limit_does_not(study: Path, base: Path, tmp_path: Path) -> None:
    common = ["--data", study / "cut.jsonl", "--model", base, "--learning-rate", "1e-3", *QUICK]
    rewards = {}
    for name, weights in {"plain": "uniform()", "limit": "decay(gamma=1.0)", "decay": "decay(gamma=0.5)"}.items():
        succeed("train-dpo", *common, "--weights", weights, "--output", tmp_path / name)
        rewards[name] = [row.get("rewards/margins") for row in runs.load(tmp_path / name).history]
    assert rewards["plain"] == rewards["limit"] != rewards["decay"]


def test_tokens_shows_the_row_with_its_cut(study: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed("tokens", study / "pairs.jsonl", "--row", 2, "--tokenizer", base, "--keep", "30%", "--end", "always")
    shown = capsys.readouterr().out
    assert "not in the loss" in shown
    assert shown.count("with its end token") == 2
    assert shown.count("✂") == 2
    assert cli.main(["tokens", str(study / "pairs.jsonl"), "--row", "9999"]) == 2


def test_the_report_is_written_and_says_what_was_found(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    succeed("report", study / "rm", study / "rm-on-pairs", study / "dpo", study / "dpo-eval", "--output", page)
    text = page.read_text()
    accuracy = runs.load(study / "rm-on-pairs").metrics["accuracy"]["value"]
    assert f"{accuracy:.3f}" in text
    assert f"{accuracy:.3f}" in capsys.readouterr().out
    assert "default-src 'none'; " in text, "the page's own scripts run, by their digests, and nothing is fetched"


def test_verbs_are_plain_python_calls(study: Path, tmp_path: Path) -> None:
    cut = preprocess.run(preprocess.Config(input=study / "pairs.jsonl", output=tmp_path / "cut", keep="30%"))
    trained = train_reward.run(
        train_reward.Config(
            data=cut.parent, output=tmp_path / "rm", model=MODEL, training=TrainingOptions(eval_fraction=0.25)
        )
    )
    judged = evaluate.run(evaluate.Config(model=str(trained), dataset=study / "pairs.jsonl"))
    assert runs.load(judged).facts["keep"] == 0.3


@pytest.mark.parametrize("keep", ["1.0", "100%"])
def test_keeping_everything_is_the_identity(study: Path, tmp_path: Path, keep: str) -> None:
    succeed("preprocess", "--input", study / "pairs.jsonl", "--output", tmp_path / "all.jsonl", "--keep", keep)
    assert (tmp_path / "all.jsonl").read_bytes() == (study / "pairs.jsonl").read_bytes()


BAD = {
    "missing file": (["--data", "none.jsonl"], 2, "none.jsonl · no such file"),
    "wrong columns": (["--data", "columns.jsonl"], 3, "fit no known layout"),
    "torn last line": (["--data", "torn.jsonl"], 3, "the file looks cut"),
    "a ratio of 0": (["--keep", "0"], 2, "outside (0, 1]"),
    "a percentage without its sign": (["--keep", "40"], 2, "--keep 40% for a percentage"),
    "an unknown loss": (["--loss", "dppo()"], 2, "unknown loss dppo"),
    "no model at the path": (["--model", "nowhere/model"], 6, "nowhere/model · is no folder here"),
    "an odd scratch model": (["--model", "scratch(hidden=33)"], 2, "multiple of 32"),
    "a schedule nobody knows": (["--lr-scheduler-type", "wiggly"], 2, "wiggly"),
    "everything too long": (["--max-length", "5"], 3, "no row is left"),
    "an output that is a file": (["--output", "columns.jsonl"], 2, "is a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_a_code_and_nothing_half_done(
    case: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, code, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    pairs = (study / "pairs.jsonl").read_text()
    Path("pairs.jsonl").write_text(pairs)
    Path("torn.jsonl").write_text(pairs[: len(pairs) // 2])
    Path("columns.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    before = sorted(tmp_path.rglob("*"))
    defaults = {"--data": "pairs.jsonl", "--output": "out", "--model": MODEL}
    defaults.update(zip(arguments[::2], arguments[1::2], strict=True))
    flat = [part for pair in defaults.items() for part in pair]
    command = "train-dpo" if case != "an unknown loss" else "train-reward"
    assert cli.main([command, *flat]) == code
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("headwater: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_numerical_abort_exits_with_5_and_saves_no_model(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", study / "cut.jsonl", "--model", MODEL, "--output", tmp_path / "out", *QUICK]
    assert cli.main(["train-reward", *map(str, arguments), "--learning-rate", "1e38"]) == 5
    assert "step 2 · model.model.embed_tokens.weight holds values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "done").exists()


def test_a_model_with_broken_weights_is_refused_by_tensor(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = tmp_path / "poisoned"
    shutil.copytree(study / "rm", poisoned)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(poisoned)
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    model.save_pretrained(poisoned)
    arguments = ["--data", study / "cut.jsonl", "--model", poisoned, "--output", tmp_path / "out"]
    assert cli.main(["train-reward", *map(str, arguments), "--trust-files"]) == 4
    assert "not finite in model.norm.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_rows_can_be_set_aside_and_are_kept_in_the_run(study: Path, tmp_path: Path) -> None:
    lines = (study / "pairs.jsonl").read_text().splitlines()
    lines[4] = lines[4][:50]
    lines[9] = "[]"
    (tmp_path / "bad.jsonl").write_text("\n".join(lines) + "\n")
    call = ["train-reward", "--data", str(tmp_path / "bad.jsonl"), "--output", str(tmp_path / "rm"), "--model", MODEL]
    assert cli.main([*call, *QUICK]) == 3
    assert not (tmp_path / "rm").exists()
    succeed(*call, *QUICK, "--max-bad-rows", "2")
    run = runs.load(tmp_path / "rm")
    assert (run.row_counts[0]["kept"], run.row_counts[0]["quarantined"]) == (158, 2)
    set_aside = [json.loads(line) for line in (tmp_path / "rm" / "quarantine.jsonl").read_text().splitlines()]
    assert [(entry["line"], entry["code"]) for entry in set_aside] == [(5, "BROKEN_JSON"), (10, "NOT_OBJECT")]


def test_columns_and_formats_can_be_named(study: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (study / "pairs.jsonl").read_text().splitlines()]
    renamed = [{"q": r["prompt"], "good": r["chosen"], "bad": r["rejected"]} for r in rows]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    call = ["preprocess", "--input", tmp_path / "odd.jsonl", "--output", tmp_path / "cut.jsonl", "--keep", "1.0"]
    assert cli.main([str(part) for part in call]) == 3
    succeed(*call, "--columns", "prompt=q,chosen=good,rejected=bad")
    assert len(reading.load(tmp_path / "cut.jsonl").preferences) == 160


def test_an_existing_output_is_kept_unless_told_otherwise(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (study / "rm" / "done").read_bytes()
    arguments = ["train-reward", "--data", study / "cut.jsonl", "--output", study / "rm", "--model", MODEL]
    assert cli.main([str(a) for a in arguments]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (study / "rm" / "done").read_bytes() == before
    cut = ["preprocess", "--input", study / "pairs.jsonl", "--output", study / "cut.jsonl", "--keep", "0.5"]
    assert cli.main([str(a) for a in cut]) == 2


def test_a_policy_from_elsewhere_needs_its_reference_named(study: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(study / "dpo", bare, ignore=shutil.ignore_patterns("facts.json", "environment.json", "reference"))
    call = ["evaluate", "--model", str(bare), "--dataset", str(study / "pairs.jsonl"), "--output", str(tmp_path / "e")]
    assert cli.main(call) == 2
    succeed(*call, "--reference", study / "dpo" / "reference")
    expected = json.loads((study / "dpo-eval" / "metrics.json").read_text())["accuracy"]["value"]
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["accuracy"]["value"] == expected


def test_the_main_job_on_hh(shared_data: Path, tmp_path: Path) -> None:
    """The four steps on real dialogues run, and nothing leaks. (What they find is in docs/log.md.)"""
    source = shared_data / "hh" / "harmless-base_test.jsonl.gz"
    cut = tmp_path / "cut.jsonl.gz"
    succeed("preprocess", "--input", source, "--output", cut, "--truncate-percentage", 25)
    small = ["--model", "scratch(hidden=32, layers=1, vocab=1000)", "--max-length", "128", *QUICK]
    succeed("train-reward", "--data", cut, "--output", tmp_path / "rm", *small)
    succeed("evaluate", "--model", tmp_path / "rm", "--dataset", source, "--max-length", "128")
    run = runs.load(tmp_path / "rm-on-harmless-base_test")
    assert run.row_counts[0] == {
        "stage": "read",
        "rows_in": 2312,
        "kept": 2303,
        "quarantined": 0,
        "dropped": {"prompts_differ": 5, "empty_response": 4},
    }
    assert run.metrics["accuracy"]["n"] > 100
