"""Where a response lies, for every kind of chat template, those that TRL ships included."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path

import pytest

from headwater.data import templates
from headwater.data.conversations import Chat
from headwater.data.generated import ResponseTexts
from headwater.data.preference import Message, Preference, Response
from headwater.data.sampling import Asked
from headwater.data.templates import SENTINEL
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import NOTES, PairTokens, encode, render, tokenize
from headwater.data.turns import turn_end
from headwater.errors import ModelError
from headwater.reporting.lens.pieces import pieces_of
from headwater.rewards.sampling import prompt_ids
from tests.data.chat_templates import TEMPLATES, with_template
from tests.support.endings import CHATML


def _installed() -> dict[str, str]:
    """The templates of public models that TRL holds; not those that it changed for training."""
    import importlib.util

    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        return {}
    files = sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files if not file.stem.endswith("_training")}


EVERY = TEMPLATES | _installed()
USER = Message("user", "What is it?\n  Say, 🦉!")
TALKS = {
    "one turn": (USER,),
    "several": (Message("user", "Hi"), Message("assistant", "Hello. "), USER),
    "a system turn": (Message("system", "Be brief."), USER),
}
ANSWERS = {
    "words": "Yes, it is the red one.",
    "letters of everywhere": "日本語, שלום 🦉 é",
    "white space": " \n Yes.\n  No. \n",
    "a letter": "<",
    "names of roles": "user: assistant\nmodel ASSISTANT: system",
    "our own mark": f"It is {SENTINEL}",
    "control tokens": "<|im_end|>\n<eos><|end|><|channel|>[/INST]<end_of_turn>",
}
THOUGHT = "<think>\nIt is an owl.\n</think>\n\nAn owl."


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    return with_template(EVERY[name])


def pair(name: str, talk: tuple[Message, ...], chosen: str, rejected: str = "No.", complete: bool = True) -> Preference:
    answer = Response(chosen, complete=complete)
    return Preference(prompt=talk, chosen=answer, rejected=Response(rejected), id="lab:1")


def tokens(name: str, one: Preference) -> PairTokens:
    (found,) = tokenize([one], tokenizer_of(name), 1 << 20).pairs
    return found


def turns(talk: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in talk]


@pytest.mark.parametrize("name", EVERY)
def test_prompt_is_that_of_generation_and_the_response_is_whole(name: str) -> None:
    tokenizer, chat = tokenizer_of(name), Chat(tokenizer_of(name))
    rows = [pair(name, talk, answer) for talk in TALKS.values() for answer in ANSWERS.values()]
    for one in rows:
        found = tokens(name, one)
        said = render(one, one.chosen, tokenizer, "complete")
        begin, end = said.body
        kept = said.text[begin:end]
        assert one.chosen.text[said.skipped : said.skipped + len(kept)] == kept
        assert kept.strip() == one.chosen.text.strip()
        assert tokenizer.decode(found.prompt) == said.text[: said.start]
        assert tokenizer.decode(found.chosen) == said.text[said.start :]
        assert found.chosen[-1] == turn_end(tokenizer).token
        assert said.text[end:] == turn_end(tokenizer).text or not said.text[end:].startswith(turn_end(tokenizer).text)
        assert tokenizer.decode(found.rejected).endswith(tokenizer.decode(found.chosen)[end - said.start :])
        plain = not {"system_in_user_turn", "head_of_past_answer"} & set(said.notes)
        if plain and one.prompt[0].role != "system":
            assert said.text[: said.start] == chat.render(turns(one.prompt), generate=True)


@pytest.mark.parametrize("name", EVERY)
def test_ids_are_those_of_the_template_unless_it_is_said(name: str) -> None:
    tokenizer = tokenizer_of(name)
    chat = Chat(tokenizer)
    for talk in (TALKS["one turn"], TALKS["several"]):
        for answer in ("words", "letters of everywhere", "white space"):
            one = pair(name, talk, ANSWERS[answer])
            said = render(one, one.chosen, tokenizer, "complete")
            (ours,) = encode([said], tokenizer)
            whole = chat.render([*turns(talk), {"role": "assistant", "content": one.chosen.text}])
            theirs = tokenizer(whole, add_special_tokens=False)["input_ids"]
            if "head_of_generation" in said.notes:
                assert not whole.startswith(said.text[: said.start])
            elif turn_end(tokenizer).text in whole[said.body[0] :]:
                assert ours.ids.tolist() == theirs[: len(ours.ids)]
            else:
                assert ours.ids.tolist() == [*theirs, tokenizer.eos_token_id]


@pytest.mark.parametrize("name", EVERY)
def test_thoughts_in_a_response_are_kept_and_opened_once(name: str) -> None:
    for talk in (TALKS["one turn"], TALKS["several"]):
        one = pair(name, talk, THOUGHT)
        said = render(one, one.chosen, tokenizer_of(name), "complete")
        before, final = said.text[: said.start].rstrip(), said.text[said.start :]
        assert final.count("<think>") + before.endswith("<think>") == final.count("</think>") == 1
        assert "It is an owl.\n</think>\n\nAn owl." in final
        assert "".join((THOUGHT[: said.skipped], said.text[slice(*said.body)])) == THOUGHT
        assert tokenizer_of(name).decode(tokens(name, one).chosen) == said.text[said.start :]


@pytest.mark.parametrize("name", EVERY)
def test_a_cut_response_has_no_end(name: str) -> None:
    one = pair(name, TALKS["several"], "Yes, it", complete=False)
    assert tokenizer_of(name).decode(tokens(name, one).chosen).endswith("Yes, it")


@pytest.mark.parametrize("name", EVERY)
def test_a_prompt_that_ends_in_an_assistant_turn_is_continued(name: str) -> None:
    tokenizer = tokenizer_of(name)
    whole = pair(name, (USER,), "Sure: the red one.")
    begun = pair(name, (USER, Message("assistant", "Sure: ")), "the red one.")
    said, found = render(begun, begun.chosen, tokenizer, "complete"), tokens(name, begun)
    assert tokenizer.decode(found.prompt).endswith("Sure: ")
    assert tokenizer.decode(found.chosen) == "the red one." + turn_end(tokenizer).text
    assert "answer_begun_in_prompt" in said.notes
    past = Chat(tokenizer).render([*turns((USER,)), {"role": "assistant", "content": "Sure: the red one."}])
    assert past.startswith(said.text[: said.body[1]])
    if "head_of_generation" not in render(whole, whole.chosen, tokenizer, "complete").notes:
        assert said.text == render(whole, whole.chosen, tokenizer, "complete").text


@pytest.mark.parametrize("name", EVERY)
def test_both_responses_share_the_prompt_that_is_drawn_from(name: str) -> None:
    from headwater.rewards.sampling import prompt_ids

    found = tokens(name, pair(name, TALKS["several"], "Yes.", THOUGHT))
    (drawn,) = prompt_ids([Asked(TALKS["several"], "lab:1", "lab")], tokenizer_of(name), 1 << 20)
    assert drawn is not None
    assert found.prompt.tolist() == drawn.tolist()


OPENINGS = {
    "Llama 2": " ",
    "ChatGLM, no end of a turn": "\n",
    "Command A, two tokens behind the response": "<|START_RESPONSE|>",
    "Qwen 3, an empty block of thoughts": "<think>\n\n</think>\n\n",
    "gpt-oss, channels": "<|channel|>final<|message|>",
    "Idefics, content in parts": " ",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_before_a_response_belongs_to_it(name: str) -> None:
    _, _, notes = tokenize([pair(name, (USER,), "Yes.")], tokenizer_of(name), 1 << 20)
    assert (
        tokenizer_of(name)
        .decode(tokens(name, pair(name, (USER,), "Yes.")).chosen)
        .startswith(OPENINGS.get(name, "") + "Yes.")
    )
    assert notes["template_opens_response"] == (2 if name in OPENINGS else 0)
    assert {note.partition(" (")[0] for note in notes} <= set(NOTES)


@pytest.mark.parametrize("name", EVERY)
def test_what_a_model_writes_is_read_as_it_was_written(name: str) -> None:
    """A response that is drawn and then read gives the tokens that were drawn."""
    tokenizer = tokenizer_of(name)
    for answer in ("Yes, it is.", "Ja: 🦉"):
        found = tokens(name, pair(name, (USER,), answer))
        end = tokenizer(turn_end(tokenizer).text, add_special_tokens=False)["input_ids"]
        drawn = found.chosen.tolist()[: -len(end)]
        said, same_tokens = ResponseTexts(tokenizer).of((USER,), found.prompt.tolist(), drawn)
        assert said == answer and same_tokens
        assert tokens(name, pair(name, (USER,), said)).chosen.tolist() == found.chosen.tolist()


def test_a_model_that_thinks_is_quoted_in_full() -> None:
    tokenizer = tokenizer_of("Qwen 3, an empty block of thoughts")
    opening = Chat(tokenizer).opening
    assert opening == "<think>\n\n</think>\n\n"
    prompt = tokens("Qwen 3, an empty block of thoughts", pair("…", (USER,), "Yes.")).prompt.tolist()
    for text in (THOUGHT, "<think>\n", "<", "Yes."):
        assert ResponseTexts(tokenizer).of((USER,), prompt, tokenizer(text)["input_ids"]).text == text
    assert ResponseTexts(tokenizer).of((USER,), prompt, tokenizer(opening)["input_ids"]).text == ""


def test_an_answer_behind_a_tag_is_kept_with_what_stands_before_it() -> None:
    final = "m.content.split('[FINAL ANSWER]')[-1].strip()"
    template = f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ {final} }}}}<|end|>{{% endfor %}}"
    tokenizer = with_template(template + "{% if add_generation_prompt %}<|assistant|>My steps: {% endif %}")
    one = pair("", (USER,), "One, two.\n[FINAL ANSWER]\nThree.")
    (found,) = tokenize([one], tokenizer, 512).pairs
    assert tokenizer.decode(found.prompt).endswith("<|assistant|>My steps: ")
    assert tokenizer.decode(found.chosen) == "One, two.\n[FINAL ANSWER]\nThree.<|end|>"
    with pytest.raises(ModelError, match="rewrites the response"):
        tokenize([one], with_template(template.replace("[FINAL ANSWER]", "two.")), 512)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("answer", [*ANSWERS.values(), THOUGHT])
def test_a_response_is_parted_into_its_pieces(name: str, answer: str) -> None:
    one, tokenizer = pair(name, TALKS["several"], answer), tokenizer_of(name)
    found = tokens(name, one)
    pieces = pieces_of(one, one.chosen, found.chosen, tokenizer, "complete")
    assert pieces is not None
    assert pieces.before + "".join(piece.text for piece in pieces.text) + pieces.after == answer
    assert pieces.tokens == len(found.chosen)
    assert "".join(piece.text for piece in pieces.closing) == turn_end(tokenizer).text


def test_the_head_of_generation_is_taken_where_a_past_answer_has_another() -> None:
    name = "DeepSeek R1, thoughts are opened for generation"
    found, notes = (
        tokens(name, pair(name, (USER,), "Yes.")),
        tokenize([pair(name, (USER,), "Yes.")], tokenizer_of(name), 1 << 20).notes,
    )
    assert tokenizer_of(name).decode(found.prompt).endswith("Say, 🦉!<|Assistant|><think>\n")
    assert tokenizer_of(name).decode(found.chosen) == "Yes.<eos>"
    assert notes["head_of_generation"] == 2


def test_the_head_of_a_past_answer_is_taken_where_the_template_has_no_other() -> None:
    name = "Vicuna, without a generation prompt"
    found = tokens(name, pair(name, (USER,), "Yes."))
    assert tokenizer_of(name).decode(found.prompt).endswith("Say, 🦉! ASSISTANT: ")
    assert tokenizer_of(name).decode(found.chosen) == "Yes.<eos>"


@pytest.mark.parametrize("name", ["Gemma", "system turns left out"])
def test_a_system_turn_that_the_template_does_not_take_is_put_before_the_question(name: str) -> None:
    with_system, without = (
        tokens(name, pair(name, TALKS["a system turn"], "Yes.")),
        tokens(name, pair(name, (Message("user", f"Be brief.\n\n{USER.content}"),), "Yes.")),
    )
    assert with_system.prompt.tolist() == without.prompt.tolist()
    notes = tokenize([pair(name, TALKS["a system turn"], "Yes.")], tokenizer_of(name), 1 << 20).notes
    assert notes["system_in_user_turn"] == 2


QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of Qwen 2: a system turn of its own where none is given."""


def test_a_system_turn_of_the_template_gives_way_to_one_of_the_data() -> None:
    tokenizer = with_template(QWEN)
    given, default = (
        tokenize([pair("Gemma", TALKS[talk], "Yes.")], tokenizer, 1 << 20) for talk in ("a system turn", "one turn")
    )
    for found, system in ((given, "Be brief."), (default, "You are a helpful assistant.")):
        said = tokenizer.decode(found.pairs[0].prompt)
        assert said.startswith(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
        assert said.count("system") == 1
    assert not given.notes
    assert default.notes == {"system_prompt_of_template (You are a helpful assistant.)": 2}


def test_the_system_prompt_of_a_template_is_said_shortened_for_prompts_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant for everyone."
    tokenizer = with_template(QWEN.replace("You are a helpful assistant.", long))
    asked = [Asked(TALKS[talk], talk, "") for talk in TALKS]
    prompt_ids(asked, tokenizer, 1 << 20)
    said = f"system_prompt_of_template ({long[:59]}…): 2 prompts"
    assert capsys.readouterr().err.splitlines() == [said]


@pytest.mark.parametrize("name", EVERY)
def test_a_system_prompt_is_of_the_template_only_where_one_of_the_data_replaces_it(name: str) -> None:
    """An independent look: it stands in the conversation without a system turn, and not in the one with."""
    chat = Chat(tokenizer_of(name))
    alone = chat.render(turns(TALKS["one turn"]))
    if chat.own_system:
        assert chat.own_system in alone and chat.own_system not in chat.render(turns(TALKS["a system turn"]))
    else:
        assert "You are a helpful assistant" not in alone


@pytest.mark.parametrize("writes", [True, False])
def test_the_beginning_of_a_text_is_written_once(writes: bool) -> None:
    """By the template or not at all, though the tokenizer would put its own before every text."""
    from tokenizers.processors import TemplateProcessing

    template = "{{ bos_token }}" * writes + CHATML
    tokenizer = with_template(template)
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", begin)]
    )
    assert tokenizer("a")["input_ids"][0] == begin
    (found,) = tokenize([pair("Gemma", (USER,), "Yes.")], tokenizer, 1 << 20).pairs
    assert found.prompt.tolist().count(begin) == int(writes) and begin not in found.chosen
    (asked,) = prompt_ids([Asked((USER,), "a", "")], tokenizer, 1 << 20)
    assert asked is not None and asked.tolist() == found.prompt.tolist()


def test_one_row_that_the_template_refuses_costs_that_row_alone() -> None:
    odd = pair("Gemma", (USER, USER), "Yes.")
    good = pair("Gemma", (USER,), "Yes.")
    pairs, row_counts, _ = tokenize([odd, good, odd], tokenizer_of("Gemma"), 1 << 20)
    assert len(pairs) == 1
    assert row_counts.dropped == {"template_refuses": 2}
    reason = "Conversation roles must alternate user/assistant/user/assistant/..."
    assert row_counts.first == {"template_refuses": f"lab:1: {reason}"}


def test_the_date_stands_still_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Later:  # type: ignore[override]
            return cls(2031, 5, 17)

    name = "gpt-oss, channels"
    one = pair(name, (USER,), "Yes.")
    before = render(one, one.chosen, tokenizer_of(name), "complete").text
    monkeypatch.setattr(templates, "datetime", Later)
    assert render(one, one.chosen, tokenizer_of(name), "complete").text == before
    templates._dated.cache_clear()
    after = render(one, one.chosen, tokenizer_of(name), "complete")
    templates._dated.cache_clear()
    assert "Current date: 2031-05-17" in after.text
    assert "date_in_prompt" in after.notes


def test_a_template_that_never_writes_a_response_is_refused() -> None:
    tokenizer = with_template("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(ModelError, match="rewrites the response · give another: --chat-template"):
        tokenize([pair("", (USER,), "Yes.")], tokenizer, 512)


def test_several_templates_without_a_default_are_refused_with_their_names() -> None:
    tokenizer = with_template("")
    tokenizer.chat_template = {"rag": TEMPLATES["Zephyr"], "tool_use": TEMPLATES["Zephyr"]}
    with pytest.raises(ModelError, match="has chat templates without a default · rag, tool_use · choose one"):
        tokenize([pair("", (USER,), "Yes.")], tokenizer, 512)
    tokenizer.chat_template["default"] = TEMPLATES["Zephyr"]
    (found,) = tokenize([pair("", (USER,), "Yes.")], tokenizer, 512).pairs
    assert tokenizer.decode(found.chosen) == "Yes.<eos>"
