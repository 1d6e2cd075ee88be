"""Parity and speed on a GPU, with nothing to download: models from configs, pairs of random tokens with HH's lengths.

    python benchmarks/gpu.py                              # 0.5 B, whole responses
    python benchmarks/gpu.py --size 1.5b --keep 0.4
    python benchmarks/gpu.py --size tiny                  # tries the script itself, on any machine

PolicyTokens the errors of log-probabilities against float32 padded rows: of headwater's rows in bf16, and of plain bf16
forwards, which is what they are to be compared with. Then the table of benchmarks/training.py. The peak that the
useful share is measured against is the best of three large bf16 matrix products.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import numpy as np
import torch
import training
import transformers

from headwater.data.corpus import Corpus, generate
from headwater.data.tokenizers import ScratchTokenizer, texts_of
from headwater.data.tokens import PairTokens
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import collate
from headwater.forward.scores import to_device, token_log_probs
from headwater.models import precision

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 176, "vocab_size": 4096},
    "0.5b": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
             "intermediate_size": 4864, "vocab_size": 151936},
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "intermediate_size": 8960, "vocab_size": 151936},
}  # fmt: skip
"""The shapes of Qwen2.5."""


def model_of(size: str, reward: bool) -> Any:
    """Return a model with random weights on the device."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**SIZES[size], tie_word_embeddings=True, max_position_embeddings=4096)
    config.pad_token_id, config.num_labels = 0, 1 if reward else config.num_labels
    auto = transformers.AutoModelForSequenceClassification if reward else transformers.AutoModelForCausalLM
    return auto.from_config(config).to(training.DEVICE)


def random_pairs(count: int, vocab: int, keep: float) -> list[PairTokens]:
    """Return pairs of random tokens; lengths are log-normal with HH harmless-base's means (126, 42 and 53 tokens)."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        prompt, chosen, rejected = (
            max(1, int(rng.lognormal(np.log(mean) - spread**2 / 2, spread) * share))
            for mean, spread, share in ((126, 0.8, 1), (42, 0.9, keep), (53, 0.9, keep))
        )
        ids = [rng.integers(5, vocab, min(n, 900)).astype(np.int32) for n in (prompt, chosen, rejected)]
        pairs.append(PairTokens(*ids, id=str(number), source="", conversation_id=str(number)))
    return pairs


def parity(model: Any, pairs: list[PairTokens]) -> None:
    """Print how far log-probabilities are from float32 padded rows, in bf16, packed and plain."""
    oracle, packed = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    row_format = row_format_for(packed, pairs)
    rows = {name: to_device(collate(pairs, name), training.DEVICE) for name in (row_format, "padded")}
    with torch.no_grad():
        exact = token_log_probs(oracle, rows["padded"])
        same = token_log_probs(packed, rows[row_format])
        with torch.autocast(training.DEVICE.type, torch.bfloat16):
            ours, plain = token_log_probs(packed, rows[row_format]), token_log_probs(oracle, rows["padded"])
    print(f"layout: {row_format}")
    for name, found in ((f"{row_format} float32", same), (f"{row_format} bf16", ours), ("padded bf16", plain)):
        off = (found - exact).abs()
        print(f"log-probabilities, {name:16s} against padded float32: mean {off.mean():.2e}, worst {off.max():.2e}")


def main() -> None:
    """Print parity, then speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="0.5b")
    parser.add_argument("--keep", default="1")
    parser.add_argument("--reward", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32, help="pairs an optimizer step")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    options.precision = precision.resolve("auto")
    options.vocab = SIZES[options.size]["vocab_size"]
    training.BATCH = options.batch
    if options.size != "tiny":
        training.SHAPES[:] = [(8192, 8192, 8192), (16384, 4096, 4096), (8192, 4096, 16384)]
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{name}, Qwen2.5 {options.size}, keep {options.keep}")
    pairs = random_pairs(max(400, options.steps * options.batch), options.vocab, float(options.keep))
    model = model_of(options.size, options.reward)
    if not options.reward:
        parity(model, pairs[:8])
    tokenizer = ScratchTokenizer(512).train(texts_of(generate(Corpus(pairs=50, seed=0))))
    training.compare(pairs, tokenizer, model, options)


if __name__ == "__main__":
    main()
