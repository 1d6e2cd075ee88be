"""The end of a turn in saved models: plain transformers stops there, and gives the reward that headwater gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headwater import cli
from headwater.data.tokenizers import Tokenizer
from headwater.data.turns import turn_end
from headwater.models import loading, saving
from headwater.models.turn_ends import end_rule, end_tokens
from tests.support.endings import ALPACA, CHATML, LLAMA3, llama, saying, tokenizer_of

ROWS = [
    {"prompt": "Why?", "chosen": "Because of scattering.", "rejected": "Eggs."},
    {"prompt": "Why is the sky blue?", "chosen": "The sky.", "rejected": "I think not eggs, the sky is odd."},
    {"prompt": "Is the number odd?", "chosen": "The number is odd. ", "rejected": "Why is the sky blue?"},
]
HEADERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def command(*arguments: object) -> None:
    assert cli.main([str(argument) for argument in arguments]) == 0


def written(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def saved(model: Any, tokenizer: Tokenizer, path: Path) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def plain_rewards(path: Path, texts: Sequence[str], side: str | None) -> list[float]:
    """Rewards of plain transformers: of each text alone, or of all in a batch that is padded on one side."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        if side is None:
            inputs = [tokenizer(text, add_special_tokens=False, return_tensors="pt") for text in texts]
            return [model(**each).logits[0, 0].item() for each in inputs]
        tokenizer.padding_side = side
        batch = tokenizer(list(texts), add_special_tokens=False, return_tensors="pt", padding=True)
        return [float(reward) for reward in model(**batch).logits[:, 0]]


SIDES_OF_ROWS = [(row, side) for row in ROWS for side in ("chosen", "rejected")]


def turns_of(row: dict[str, str], side: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]


def texts_of(path: Path, end: str | None) -> list[str]:
    """Both conversations of every row by the saved chat template, through the last `end`, or before it (None)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    found = []
    for row, side in SIDES_OF_ROWS:
        text = tokenizer.apply_chat_template(turns_of(row, side), tokenize=False)
        last = end or row[side]
        found.append(text[: text.rindex(last) + len(last)])
    return found


def scores(path: Path, data: Path, output: Path, *flags: str) -> list[float]:
    command("score", "--model", path, "--input", data, "--output", output, *flags)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return [row[f"score_{side}"] for row in rows for side in ("chosen", "rejected")]


PADDED: dict[str, tuple[Callable[[], Tokenizer], str, str, str]] = {
    "one to spare": (
        lambda: tokenizer_of(
            LLAMA3,
            [*HEADERS, "<|end_of_text|>"],
            bos_token=HEADERS[0],
            eos_token="<|eot_id|>",
            pad_token="<|eot_id|>",
        ),
        "<|eot_id|>",
        "<|end_of_text|>",
        "",
    ),
    "none to spare": (
        lambda: tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|im_end|>"),
        "<|im_end|>",
        "<|pad|>",
        "",
    ),
    "none at all, adapters": (
        lambda: tokenizer_of(ALPACA, ["<|endoftext|>"], eos_token="<|endoftext|>"),
        "",
        "<|pad|>",
        "--lora-r 2",
    ),
}
"""A tokenizer, what ends turns, what pads in the end, and flags."""


@pytest.mark.fault("T5")
@pytest.mark.parametrize("kind", PADDED)
def test_plain_transformers_gives_the_rewards_of_a_model_whose_padding_ended_turns(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, end, padding, flags = PADDED[kind]
    tokenizer = make()
    base = saved(llama(tokenizer, pad_token_id=tokenizer.pad_token_id), tokenizer, tmp_path / "base")
    data, run = written(tmp_path / "pairs.jsonl", ROWS * 4), tmp_path / "rm"
    training = ("--learning-rate", "1e-2", "--precision", "fp32", "--eval-fraction", "0", *flags.split())
    command("train-reward", "--model", base, "--data", data, "--output", run, *training)
    said = capsys.readouterr()
    assert f"padding token: '{padding}'" in said.out + said.err
    kept = transformers.AutoTokenizer.from_pretrained(run)
    assert kept.pad_token == padding
    assert transformers.AutoConfig.from_pretrained(run).pad_token_id == kept.pad_token_id
    expected = scores(run, written(tmp_path / "rows.jsonl", ROWS), tmp_path / "scored.jsonl")
    texts = texts_of(run, end or None)
    texts = texts if end else [f"{text}<|endoftext|>" for text in texts]
    for side in (None, "right", "left"):
        assert plain_rewards(run, texts, side) == pytest.approx(expected, abs=1e-5), side
    snippet = re.search(r"```python\n(.*?)```", (run / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippet
    turns = [{"role": "user", "content": ROWS[2]["prompt"]}, {"role": "assistant", "content": ROWS[2]["chosen"]}]
    code = re.sub(r"(?m)^name = .*$", f"name = {str(run)!r}", snippet[1])
    names: dict[str, Any] = {}
    exec(re.sub(r"(?m)^messages = .*$", lambda _: f"messages = {turns!r}", code), names)
    assert names["reward"] == pytest.approx(expected[4], abs=1e-5)


def test_a_reward_model_of_others_is_read_where_transformers_reads_it(tmp_path: Path) -> None:
    tokenizer = PADDED["one to spare"][0]()
    model = llama(
        tokenizer, transformers.LlamaForSequenceClassification, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    path = saved(model, tokenizer, tmp_path / "theirs")
    rows = written(tmp_path / "rows.jsonl", ROWS)
    plain = plain_rewards(path, texts_of(path, "<|eot_id|>"), None)
    assert plain == pytest.approx(plain_rewards(path, texts_of(path, None), None), abs=1e-6)
    assert scores(path, rows, tmp_path / "s.jsonl") == pytest.approx(plain, abs=1e-5)
    asked = scores(path, rows, tmp_path / "t.jsonl", "--end", "complete")
    assert asked != pytest.approx(plain, abs=1e-3)
    # One that version 0.1 trained has the same padding token, and is read as it was trained.
    (path / "facts.json").write_text('{"end": "complete"}', encoding="utf-8")
    assert scores(path, rows, tmp_path / "u.jsonl") == asked
    model.config.pad_token_id = None
    assert end_rule(str(saved(model, tokenizer, tmp_path / "without"))) == "complete"


FORMS = {
    "a line break behind the end": (CHATML, "<|im_end|>", "template"),
    "a line break behind the end, which pads": (CHATML, "<|im_end|>", "template"),
    "the end alone": (LLAMA3, "<|eot_id|>", "complete"),
    "no end at all": (ALPACA, "", "template"),
}
"""Templates by what they write behind a response: template, end token, the rule of a reward model from elsewhere."""


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_is_read_at_the_last_token_of_the_template_or_at_the_end_of_the_turn(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of others is read where `AutoModelForSequenceClassification` reads the rendered conversation."""
    template, end, rule = FORMS[form]
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>", *HEADERS]
    pads = "<|im_end|>" if "pads" in form else "<|pad|>"
    tokenizer = tokenizer_of(template, special, bos_token=HEADERS[0], eos_token="<|endoftext|>", pad_token=pads)
    model = llama(tokenizer, transformers.LlamaForSequenceClassification, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    path, rows = saved(model, tokenizer, tmp_path / "theirs"), written(tmp_path / "rows.jsonl", ROWS)
    whole = [tokenizer.apply_chat_template(turns_of(row, side), tokenize=False) for row, side in SIDES_OF_ROWS]
    assert end_rule(str(path)) == rule
    plain = plain_rewards(path, whole, None)
    found = scores(path, rows, tmp_path / "s.jsonl")
    assert found == pytest.approx(plain, abs=1e-5)
    said = capsys.readouterr().err
    assert ("rewards: read after the" in said) == (rule == "template")
    assert scores(path, rows, tmp_path / "t.jsonl", "--end", "template") == pytest.approx(plain, abs=1e-5)
    if end and "pads" not in form:
        at_end = plain_rewards(path, texts_of(path, end), None)
        asked = scores(path, rows, tmp_path / "e.jsonl", "--end", "complete")
        assert asked == pytest.approx(at_end, abs=1e-5)
        assert (asked == pytest.approx(plain, abs=1e-4)) == (rule == "complete")


@pytest.mark.parametrize("end", ["complete", "template"])
def test_a_model_trained_here_keeps_its_choice(end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = tokenizer_of(CHATML, special, eos_token="<|im_end|>", pad_token="<|pad|>")
    base = saved(llama(tokenizer, pad_token_id=tokenizer.pad_token_id), tokenizer, tmp_path / "base")
    data, run = written(tmp_path / "pairs.jsonl", ROWS * 4), tmp_path / "rm"
    training = ("--learning-rate", "1e-2", "--precision", "fp32", "--eval-fraction", "0")
    command("train-reward", "--model", base, "--data", data, "--output", run, "--end", end, *training)
    place = "after the '\\n' that" if end == "template" else "at '<|im_end|>', before the '\\n' that"
    assert f"rewards: read {place} the template writes" in capsys.readouterr().err
    assert end_rule(str(run)) == end
    expected = scores(run, written(tmp_path / "rows.jsonl", ROWS), tmp_path / "scored.jsonl")
    texts = texts_of(run, "<|im_end|>\n" if end == "template" else "<|im_end|>")
    assert plain_rewards(run, texts, "right") == pytest.approx(expected, abs=1e-5)
    snippet = re.search(r"```python\n(.*?)```", (run / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippet
    code = re.sub(r"(?m)^name = .*$", f"name = {str(run)!r}", snippet[1])
    names: dict[str, Any] = {}
    exec(re.sub(r"(?m)^messages = .*$", lambda _: f"messages = {turns_of(ROWS[0], 'chosen')!r}", code), names)
    assert names["reward"] == pytest.approx(expected[0], abs=1e-5)


SAID = ("The", " number", "<|im_end|>", " sky")


@pytest.fixture(scope="module")
def base() -> Tokenizer:
    """The tokenizer of a base model: its EOS token is not what ends a turn."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return tokenizer_of(CHATML, special, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def policy(base: Tokenizer) -> Any:
    """Says `SAID` over and over."""
    tokens = [token for text in SAID for token in base(text, add_special_tokens=False)["input_ids"]]
    (line,) = base("\n", add_special_tokens=False)["input_ids"]
    return saying(base, line, tokens, pad_token_id=base.pad_token_id)


@pytest.fixture(scope="module", params=["saved here", "saved by others"])
def stopping(request: pytest.FixtureRequest, base: Tokenizer, policy: Any, tmp_path_factory: Any) -> Path:
    """A folder whose generation configuration names the end of a turn, and one, as of version 0.1, whose does not."""
    path: Path = tmp_path_factory.mktemp("stopping") / "p"
    if request.param == "saved here":
        saving.save(policy, base, path)
    else:
        eos = base.eos_token_id
        policy.config.eos_token_id = policy.generation_config.eos_token_id = eos
        saved(policy, base, path)
    return path


def test_a_saved_policy_names_what_stops_it(base: Tokenizer, policy: Any, tmp_path: Path) -> None:
    saving.save(policy, base, tmp_path / "p")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "p")
    both = sorted(base.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]))
    for config in (loaded.generation_config, loaded.config):
        assert (config.eos_token_id, config.pad_token_id) == (both, base.pad_token_id)
    ask = [{"role": "user", "content": "Why?"}]
    inputs = base.apply_chat_template(ask, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    (found,) = loaded.generate(**inputs, max_new_tokens=40, do_sample=False)
    assert base.decode(found[inputs["input_ids"].shape[1] :]) == "The number<|im_end|>"


def test_every_command_stops_there(stopping: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", ROWS)
    command("generate", "--prompts", data, "--model", stopping, "--output", tmp_path / "g", "--max-new-tokens", 40)
    answers = json.loads((tmp_path / "g" / "p.json").read_text(encoding="utf-8"))
    assert [(row["output"], row["complete"]) for row in answers] == [("The number", True)] * 3
    greedy = ("--temperature", 0, "--max-new-tokens", 40, "--model", stopping)
    command("sample", "--input", data, "--output", tmp_path / "s.jsonl", "--n", 1, *greedy)
    drawn = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(drawn) == 3 and '"The number"' in json.dumps(drawn)
    assert "im_end" not in json.dumps(drawn) and "false" not in json.dumps(drawn)
    two = ("--reference", stopping, "--strategy", "interpolate(weight=0.5)")
    command("decode", "--input", data, "--output", tmp_path / "d", *greedy, *two)
    rows = [json.loads(line) for line in (tmp_path / "d" / "decoded.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["response"], row["complete"]) for row in rows] == [("The number", True)] * 3
    both = ("--model", stopping, "--reference", stopping)
    command("divergence", "--dataset", data, *both, "--along", "samples", "--output", tmp_path / "k")
    profile = json.loads((tmp_path / "k" / "divergence.json").read_text(encoding="utf-8"))
    assert max(row["first"] for row in profile if row["what"] == "kl_a_token") < 10


def test_a_response_that_did_not_end_is_cut_off(stopping: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", ROWS[:1])
    command("generate", "--prompts", data, "--model", stopping, "--output", tmp_path / "g", "--max-new-tokens", 2)
    ((text, complete),) = [
        (row["output"], row["complete"]) for row in json.loads((tmp_path / "g" / "p.json").read_text(encoding="utf-8"))
    ]
    assert "The number".startswith(text) and not complete


def test_a_model_may_name_more_ends_and_a_tokenizer_none(base: Tokenizer) -> None:
    plain = tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"])
    model = llama(plain, eos_token_id=None)
    assert end_tokens(model, plain) == [turn_end(plain).token]
    model = llama(base)
    model.generation_config.eos_token_id = [5, base.eos_token_id]
    assert end_tokens(model, base) == sorted({5, *turn_end(base).stop_ids})


def test_a_policy_without_padding_gets_one(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    base = saved(llama(tokenizer), tokenizer, tmp_path / "base")
    data = written(tmp_path / "pairs.jsonl", ROWS * 4)
    command("train-sft", "--model", base, "--data", data, "--output", tmp_path / "p", "--eval-fraction", 0)
    kept, vocabulary = loading.load(str(tmp_path / "p"), "policy", (), 0)
    assert vocabulary.pad_token == "<|im_end|>" and vocabulary.get_vocab() == tokenizer.get_vocab()
    assert kept.config.pad_token_id == kept.generation_config.pad_token_id == vocabulary.pad_token_id
