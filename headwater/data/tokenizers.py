"""Load a tokenizer by Hugging Face name or path, or train a byte-level BPE on the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from xxhash import xxh3_128_hexdigest

from headwater.config import build
from headwater.data import adapter_files, gguf_files, template_limits, untrusted
from headwater.data.preference import Record
from headwater.data.templates import CHATML, give
from headwater.errors import ModelError, UsageError, first_line

Tokenizer = Any
"""A fast Hugging Face tokenizer; the library's own types are of no use to a type checker."""


@dataclass(frozen=True, slots=True)
class ScratchTokenizer:
    """A byte-level BPE to be trained on the data: `scratch(vocab=4096)`."""

    vocab: int = 4096

    def __post_init__(self) -> None:
        if self.vocab < 300:
            raise UsageError(
                f"scratch(vocab={self.vocab})", "is below 300", "256 bytes and the special tokens come first"
            )

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Train on `texts` and return a fast tokenizer with a ChatML template; the same texts give the same ids."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        special = {"pad_token": "<|pad|>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            special_tokens=list(special.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return give(PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHATML, **special))


TOKENIZERS = {"scratch": ScratchTokenizer}


def texts_of(records: Iterable[Record]) -> Iterator[str]:
    """Yield every text of some rows, to train a tokenizer on."""
    for record in records:
        yield from (message.content for message in record.prompt)
        yield from (turn.content for response in record.responses for turn in response.turns)


def load_tokenizer(name: str, records: Iterable[Record]) -> Tokenizer:
    """Load a tokenizer by Hugging Face name or path, or train `scratch(vocab=…)` on rows of data.

    Errors: `ModelError` for one that cannot be loaded, is not fast (character offsets need a fast one) or is empty, or
    comes with code; `NetworkError` for a hub that does not give it.
    """
    template_limits.install()
    if is_call(name):
        return build(name, TOKENIZERS, "tokenizer").train(texts_of(records))
    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()  # it warns of texts that are too long, which are counted and dropped here
    path = Path(name)
    if path.exists() and not path.is_dir() and not gguf_files.is_gguf(name):
        raise UsageError(name, "is a file", "name a directory with a tokenizer, a GGUF file, or a Hugging Face name")
    untrusted.check_model(name)  # and the base of an adapter
    name = gguf_files.tokenizer_folder(adapter_files.tokenizer_of(name))
    try:
        # Without the flag, transformers asks on the terminal whether to run a repository's code.
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a damaged file raises anything, down to a bare Exception from the Rust side
        problem = f"no tokenizer: {first_line(error).strip()}"
        raise ModelError(name, problem, "name a directory with a fast tokenizer, or a Hugging Face name") from error
    if not tokenizer.is_fast:
        raise ModelError(
            name, "has no fast tokenizer", "headwater finds responses by character offsets; use a fast one"
        )
    _check_vocabulary(tokenizer, path)
    tokenizer = give(tokenizer)
    template_limits.check_templates(tokenizer.chat_template)
    return tokenizer


def _check_vocabulary(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse a tokenizer without a vocabulary, which transformers builds without a warning where files are missing."""
    known = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    if set(known) - set(tokenizer.all_special_tokens):
        return
    packed = sorted(file.name for file in path.glob("*.gz")) if path.is_dir() else []
    found = f"{', '.join(packed)}: packed" if packed else "every text would be no tokens"
    to_do = "unpack them with gunzip" if packed else "name a folder with the whole tokenizer"
    raise ModelError(str(path), "has no vocabulary", found, to_do)


SAMPLED = 8192
"""Ids of a fingerprint: two vocabularies that were trained apart differ in most ids."""
_vocabularies: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def vocabulary_of(tokenizer: Tokenizer) -> str:
    """Return a fingerprint of which token has which id, of up to `SAMPLED` ids, without tokens that were added later.

    These are left out because training adds a padding token where a model has none.
    """
    if tokenizer not in _vocabularies:
        backend = tokenizer.backend_tokenizer
        size = backend.get_vocab_size(with_added_tokens=False)
        sample = range(0, size, -(-size // SAMPLED) or 1)
        text = "\0".join([str(size), *(backend.id_to_token(each) or "" for each in sample)])
        _vocabularies[tokenizer] = xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
    return _vocabularies[tokenizer]


def is_call(name: str) -> bool:
    """Return whether a name is a constructor call (`scratch(hidden=256)`, `scratch_encoder()`)."""
    return name.split("(")[0].strip() in ("scratch", "scratch_encoder")
