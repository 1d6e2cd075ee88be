"""The code on a reward model's card writes the text that headwater reads, for every kind of chat template."""

from __future__ import annotations

import pytest

from headwater.data.preference import Message, Preference, Response
from headwater.data.tokens import EndToken, render
from headwater.models.cards import _text
from tests.data.chat_templates import TEMPLATES, with_template

MESSAGES = [{"role": "user", "content": "What is a headwater?"}, {"role": "assistant", "content": "A source."}]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if "in parts" not in name])
@pytest.mark.parametrize("rule", ["complete", "never"])
def test_the_text_of_the_card_is_the_text_that_is_read(name: str, rule: EndToken) -> None:
    tokenizer = with_template(TEMPLATES[name])
    found = {"tokenizer": tokenizer, "messages": MESSAGES}
    exec(f"text = {_text(tokenizer, rule)}", found)
    answer = Response("A source.")
    row = Preference(prompt=(Message("user", "What is a headwater?"),), chosen=answer, rejected=answer)
    assert found["text"] == render(row, answer, tokenizer, rule).text
