"""Write the model card of a trained model: base, data, held-out results, and a snippet that runs.

It is built from the run's own files (`metrics.json`, `environment.json`), in the form that the Hugging Face hub reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headwater.data.templates import ChatTemplate
from headwater.data.tokenizers import Tokenizer
from headwater.data.turns import EndToken, turn_end

CARD = """---
{front}---

# {title}

Trained with [headwater](https://pypi.org/project/headwater/) (`{command}`).
`config.yaml` beside this card repeats the run; `metrics.json` holds its figures.

{sections}"""

REWARD = """## Use

The reward of the last answer of a conversation; higher is better, and only differences between answers to one prompt
mean something.

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

name = "{name}"
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSequenceClassification.from_pretrained(name).eval()
messages = [{{"role": "user", "content": "What is a headwater?"}}, {{"role": "assistant", "content": "A source."}}]
text = {text}
with torch.no_grad():
    reward = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0].item()
```

`headwater score` gives whole data sets their rewards, and reads each prompt once.
"""

POLICY = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "{name}"
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name).eval()
messages = [{{"role": "user", "content": "What is a headwater?"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1] :]
answer = tokenizer.decode(tokens, skip_special_tokens=True)
```
"""


def text_of(path: Path, card: Mapping[str, Any], rewards: bool, tokenizer: Tokenizer) -> str:
    """Return the card of the run at `path`; of a reward model where `rewards`.

    `card` has title, command, tags, base_model, and the facts of the run.
    """
    metrics, environment = (_json(path / name) for name in ("metrics.json", "environment.json"))
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if rewards else "text-generation",
        "tags": ["headwater", *card["tags"]],
    }
    if card.get("base_model"):
        front["base_model"] = card["base_model"]
    accuracy = metrics.get("eval_rewards/accuracies")
    inputs = environment.get("inputs", {})
    if accuracy is not None:
        front["model-index"] = [_index(card["title"], accuracy, inputs, rewards)]
    text = _text(tokenizer, card["facts"].get("end", "complete")) if rewards else ""
    usage = (REWARD if rewards else POLICY).format(name=card["title"], text=text)
    parts = (_frozen(card["facts"]), _results(metrics, card["facts"]), _data(inputs), usage)
    sections = [part for part in parts if part]
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        title=card["title"],
        command=card["command"],
        sections="\n".join(sections),
    )


def _text(tokenizer: Tokenizer, rule: EndToken) -> str:
    """Return code that renders a conversation as training did, to compute its reward."""
    if not ChatTemplate(tokenizer).has_another_head:
        return f"tokenizer.apply_chat_template(messages, tokenize=False){_through_end(tokenizer, rule)}"
    # Some templates render a past answer differently from one about to be generated; training used the latter.
    closing = turn_end(tokenizer)
    end = "" if rule == "never" else f" + {(closing.rest if rule == 'template' else closing.text)!r}"
    prompt = "tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)"
    return f'{prompt}\ntext += messages[-1]["content"]{end}'


def _through_end(tokenizer: Tokenizer, rule: EndToken) -> str:
    """Return code that cuts a rendered conversation after the token at which a complete response is rewarded."""
    end = turn_end(tokenizer)
    if rule == "template":
        return "  # with all that the template writes"
    if rule == "never":
        return f".removesuffix({end.rest!r})  # the model was trained without the token that closes the turn"
    said = "  # ends with the token that closes the turn"
    if not end.rest.startswith(end.text):
        return (f".removesuffix({end.rest!r})" if end.rest else "") + f" + {end.text!r}{said}"
    behind = end.rest.removeprefix(end.text)
    return (f".removesuffix({behind!r})" if behind else "") + said


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _results(metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the held-out figures; those without an interval stay in `metrics.json`."""
    low, high = (metrics.get(f"eval_rewards/accuracies_{bound}") for bound in ("low", "high"))
    if metrics.get("eval_rewards/auc") is not None:
        row = f"| desirable above undesirable (area under the ROC curve) | {metrics['eval_rewards/auc']:.4f} | |"
    elif low is not None and high is not None:
        row = f"| accuracy | {metrics['eval_rewards/accuracies']:.4f} | {low:.4f} to {high:.4f} |"
    else:
        return ""
    judged, trained = (_counted(metrics, part) for part in ("held_out", "train"))
    interval = (
        "`headwater evaluate` gives its interval" if low is None else "the interval is bootstrapped over conversations"
    )
    said = f"On {judged} held out, after training on {trained}; ties count ½, {interval}."
    best = facts.get("early_stopping")
    if best:
        said += (
            f" The weights are the best of {best['evaluations']} evaluations on these rows, which flatters the figure."
        )
    table = ["| figure | value | 95 % interval |", "|---|---|---|", row, ""]
    return "\n".join(["## Results", "", said, "", *table])


def _frozen(facts: Mapping[str, Any]) -> str:
    """Return which part of a model with frozen layers was trained; empty for any other."""
    sizes = facts.get("frozen")
    if not sizes:
        return ""
    count = sizes["trained_layers"]
    part = f"The last {count} of {sizes['layers']} layers, the final norm and the head" if count else "The head alone"
    trained, every = (sizes[name] / 1e6 for name in ("trained_weights", "weights"))
    return f"{part} were trained: {trained:.4g} of {every:.4g} M weights. The others are those of the base model.\n"


def _counted(metrics: Mapping[str, Any], part: str) -> str:
    if f"{part}_rows" in metrics:
        return f"{metrics[f'{part}_rows']:,} responses ({metrics[f'{part}_desirable']:,} desirable)"
    return f"{metrics.get(f'{part}_pairs', 0):,} pairs"


def _data(inputs: Mapping[str, str]) -> str:
    rows = [f"| {Path(file).name} | `{digest}` |" for file, digest in inputs.items()]
    return "\n".join(["## Data", "", "| file | sha256 |", "|---|---|", *rows, ""]) if rows else ""


def _index(title: str, accuracy: float, inputs: Mapping[str, str], rewards: bool) -> dict[str, Any]:
    """Return the results in the form of the hub's model index."""
    data = ", ".join(Path(file).name for file in inputs) or "preference pairs"
    return {
        "name": title,
        "results": [
            {
                "task": {"type": "text-classification" if rewards else "text-generation"},
                "dataset": {"type": "preference", "name": f"{data} (held-out pairs)"},
                "metrics": [{"type": "accuracy", "name": "preference accuracy", "value": round(accuracy, 6)}],
            }
        ],
    }
