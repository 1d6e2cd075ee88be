"""`--chat-template`: named templates, files, what is refused; and that a command runs under it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import processors

from headwater.data.preference import Message, Preference, Response
from headwater.data.templates import CHATML, chosen_template, give, given_template, renders_conversations
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, load_tokenizer
from headwater.data.tokens import tokenize
from headwater.errors import ModelError, UsageError
from tests.data.tokenizers_of_kinds import of_kind

ROW = Preference(
    prompt=(Message("system", "Be brief."), Message("user", "Why?")),
    chosen=Response("It is so."),
    rejected=Response("No."),
    id="a",
)


@pytest.fixture
def base() -> Tokenizer:
    """A tokenizer as base models have it: no template, and no markers."""
    tokenizer = copy.deepcopy(of_kind("byte-level"))
    tokenizer.chat_template = None
    return tokenizer


def texts(tokenizer: Tokenizer) -> tuple[str, str]:
    (pair,) = tokenize([ROW], tokenizer, 512).pairs
    return tokenizer.decode(pair.prompt), tokenizer.decode(pair.chosen)


def test_a_tokenizer_without_a_template_is_refused_with_the_flag(base: Tokenizer) -> None:
    with pytest.raises(ModelError, match="has no chat template · give --chat-template chatml, plain, or a file"):
        tokenize([ROW], base, 512)


def test_plain_and_chatml_serve_a_base_model(base: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    with given_template("plain"):
        give(base)
    assert texts(base) == ("system\nBe brief.\n\nuser\nWhy?\n\nassistant\n", "It is so.</s>")
    with given_template("chatml"):
        give(base)
    prompt, chosen = texts(base)
    assert prompt.endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    assert chosen == "It is so.</s>", "the end marker is no token: EOS ends a turn"
    assert "<|im_start|> and <|im_end|> are ordinary text for" in capsys.readouterr().err.replace("\n", " ")


def test_chatml_ends_with_its_own_token_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = ScratchTokenizer(vocab=300).train([""])
    with given_template("chatml"):
        give(tokenizer)
    assert tokenizer.chat_template == CHATML
    assert texts(tokenizer)[1] == "It is so.<|im_end|>"
    assert capsys.readouterr().err == ""


def test_a_named_template_begins_as_the_tokenizer_begins_every_text(base: Tokenizer) -> None:
    base.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", base.bos_token_id)]
    )
    for name in ("plain", "chatml"):
        with given_template(name):
            give(base)
        (pair,) = tokenize([ROW], base, 512).pairs
        assert pair.prompt.tolist().count(base.bos_token_id) == 1
        assert pair.prompt[0] == base.bos_token_id


def test_an_encoder_has_its_own_tokens_in_plain() -> None:
    tokenizer = of_kind("word piece")
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    with given_template("plain"):
        give(tokenizer)
    (pair,) = tokenize([ROW], tokenizer, 512).pairs
    assert tokenizer.convert_ids_to_tokens(pair.prompt)[0] == "[CLS]"
    assert tokenizer.convert_ids_to_tokens(pair.chosen)[-1] == "[SEP]"


def test_a_file_is_read_and_one_of_several_templates_is_named(base: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    text = "{% for m in messages %}{% generation %}<{{ m.role }}>{{ m.content }}{% endgeneration %}</s>{% endfor %}"
    file.write_text(text, encoding="utf-8")
    assert chosen_template(str(file), base) == text
    base.chat_template = {"default": CHATML, "rag": text}
    assert chosen_template("rag", base) == text


@pytest.mark.parametrize("contents", [None, "{% for m in messages %}", b"\xff\xfe"])
def test_what_is_no_template_is_refused(contents: str | bytes | None, base: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    if contents is not None:
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    found = "is neither a template's name nor a file · names: chatml, plain" if contents is None else "is no Jinja"
    with pytest.raises(UsageError) as error:
        chosen_template(str(file), base)
    assert str(error.value).startswith(f"--chat-template {file} · {found}")


def test_a_command_runs_under_its_template_and_leaves_none_behind(base: Tokenizer, tmp_path: Path) -> None:
    base.save_pretrained(tmp_path)

    @dataclass(frozen=True)
    class Config:
        chat_template: str | None

    @renders_conversations
    def run(config: Config) -> Tokenizer:
        with given_template(None):
            assert load_tokenizer(str(tmp_path), ()).chat_template is None
        return load_tokenizer(str(tmp_path), ())

    under = run(Config("plain"))
    assert texts(under)[0].startswith("system\nBe brief.")
    assert load_tokenizer(str(tmp_path), ()).chat_template is None
    assert run(Config(None)).chat_template is None
    under.save_pretrained(tmp_path / "saved")
    assert texts(load_tokenizer(str(tmp_path / "saved"), ())) == texts(under)
