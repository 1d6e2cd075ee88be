"""Small tokenizers of the kinds that public models have, trained in-process, with the tokens of Gemma's template."""

from __future__ import annotations

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from headwater.data.tokenizers import Tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "<start>", "<end>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<start>' + m['role'] + '\n' + m['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %}"
)
TEXTS = ["the end of a turn is the end of it, they say", "s>s>s>s </s </s ends <end <end end>", "user assistant"] * 30
SPACE = "▁"


def _trained(backend: Backend, trainer: trainers.Trainer) -> Backend:
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _bpe(vocab: int, alphabet: list[str]) -> trainers.Trainer:
    return trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)


def byte_level() -> Backend:
    """As GPT-2, Llama 3 and Qwen."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _trained(backend, _bpe(380, pre_tokenizers.ByteLevel.alphabet()))


def _byte_fallback() -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    return backend, trainer


def metaspace(prepend: str) -> Backend:
    """As Llama 2 and Mistral without `legacy`, Gemma: a space in front of the text (`first`, `always`, `never`)."""
    backend, trainer = _byte_fallback()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prepend, split=False)
    return _unspecial(_trained(backend, trainer))


def legacy() -> Backend:
    """As Llama 2 with `legacy`: a space in front of every stretch between control tokens."""
    backend, trainer = _byte_fallback()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return _unspecial(_trained(backend, trainer))


def _unspecial(backend: Backend) -> Backend:
    """Take the names of bytes out of the special tokens: a trainer puts them there, a model has them as pieces."""
    import json

    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in SPECIAL]
    return Backend.from_str(json.dumps(data))


def unigram() -> Backend:
    """As T5 and XLM-R; control tokens are pieces of the vocabulary, which a text could come to."""
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=True)
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="first")
    letters = sorted(set("".join(TEXTS) + "abcdefghijklmnopqrstuvwxyz<>/|.,?!\n" + SPACE))
    return _trained(
        backend,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=letters, show_progress=False
        ),
    )


def word_piece() -> Backend:
    """As BERT."""
    backend = Backend(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200,
        special_tokens=SPECIAL,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz<>/|.,?!"),
        show_progress=False,
    )
    return _trained(backend, trainer)


KINDS = {
    "byte-level": byte_level,
    "metaspace first": lambda: metaspace("first"),
    "metaspace always": lambda: metaspace("always"),
    "metaspace never": lambda: metaspace("never"),
    "legacy": legacy,
    "unigram": unigram,
    "word piece": word_piece,
}
LOSSLESS = ("byte-level", "metaspace never", "metaspace first", "metaspace always", "legacy")


def of_kind(kind: str) -> Tokenizer:
    """Return a tokenizer of one of `KINDS`."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](),
        chat_template=TEMPLATE,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start>", "<end>"]})
    return tokenizer
