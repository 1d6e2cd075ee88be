"""A dozen architectures of every kind: the layout that is taken, and values that depend on no company.

`make architectures` examines all of them, and writes docs/architectures.md.
"""

from __future__ import annotations

import pytest

from benchmarks.architectures import POLICY, REWARD, examined

EXPECTED = {
    ("llama", POLICY): "shared",
    ("gemma2", POLICY): "shared",
    ("mixtral", POLICY): "shared",
    ("gptj", POLICY): "packed",
    ("gpt_neo", POLICY): "packed",
    ("bloom", POLICY): "padded",
    ("mamba2", POLICY): "padded",
    ("lfm2", POLICY): "padded",
    ("gpt_oss", POLICY): "padded",
    ("cpmant", POLICY): "single",
    ("llama, dynamic RoPE", POLICY): "single",
    ("phi3, longrope", REWARD): "single",
    ("qwen3", REWARD): "shared",
    ("bert", REWARD): "padded",
    ("roberta", POLICY): "refused",
}


@pytest.mark.fault("T5")
@pytest.mark.parametrize(("name", "kind"), EXPECTED)
def test_values_are_those_of_texts_read_alone(name: str, kind: str) -> None:
    row = examined(name, kind)
    assert row.row_format == EXPECTED[name, kind], row.reason
    if row.row_format == "refused":
        assert "head that headwater cannot compute" in row.reason
        return
    assert row.error is not None
    assert row.company is not None
    assert row.error <= 1e-5, "against one forward a text, relative to max(1, |value|) or the spread of rewards"
    assert row.company <= 1e-5, "passes of 64 and of 8192 tokens, and the other order"
