"""Packed rows that share prompts give the numbers of separate forwards, for unmodified architectures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers

from headwater.data.tokens import PairTokens
from headwater.forward.attention import TREES, attend_with
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import RowFormat, collate
from headwater.forward.passes import score_pairs, token_values, with_reference
from headwater.forward.scores import ScoreFunction, policy_scores, reward_scores, token_log_probs, token_rewards
from headwater.losses import DPO, BradleyTerry
from tests.conftest import random_pairs

VOCAB = 61
LENGTHS = [(7, 5, 9), (3, 1, 1), (12, 8, 2), (1, 4, 3), (2, 2, 2)]
LAYERED = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
GROUPED = {"num_key_value_heads": 2, **LAYERED}
CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(vocab_size=VOCAB, **GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(vocab_size=VOCAB, **GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(vocab_size=VOCAB, head_dim=8, **GROUPED),
    "mistral": lambda: transformers.MistralConfig(vocab_size=VOCAB, sliding_window=4, **GROUPED),
    "phi3": lambda: transformers.Phi3Config(vocab_size=VOCAB, sliding_window=4, **GROUPED),
    "gemma2": lambda: transformers.Gemma2Config(
        vocab_size=VOCAB, sliding_window=4, head_dim=8, query_pre_attn_scalar=8, **GROUPED
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        vocab_size=VOCAB, sliding_window=4, head_dim=8, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"], **GROUPED,
    ),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_layer=2, n_head=4, n_embd=32, n_positions=64),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCAB, ffn_dim=48, word_embed_proj_dim=32, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(vocab_size=VOCAB, max_position_embeddings=64, **LAYERED),
    "cohere": lambda: transformers.CohereConfig(vocab_size=VOCAB, logit_scale=0.25, **LAYERED),
    "cohere2": lambda: transformers.Cohere2Config(vocab_size=VOCAB, sliding_window=4, logit_scale=0.25, **GROUPED),
}  # fmt: skip
UNLIKE: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "falcon": lambda: transformers.FalconConfig(
        vocab_size=VOCAB, num_hidden_layers=2, num_attention_heads=4, hidden_size=32
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCAB, n_layer=2, n_head=4, hidden_size=32),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4, time_step_rank=2
    ),
}
"""Architectures that see tokens their own way."""


def policy(
    name: str, dtype: torch.dtype = torch.float64, trees: bool = True, tied: bool | None = None
) -> torch.nn.Module:
    """A tiny causal model; without `trees` it attends as transformers has it, which is the oracle."""
    torch.manual_seed(0)
    config = {**CONFIGS, **UNLIKE}[name]()
    # Larger than the usual initial weights, so that a wrong mask shows in the numbers.
    config.initializer_range = 0.3
    config.pad_token_id = 0
    if tied is not None:
        config.tie_word_embeddings = tied
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if trees:
        attend_with(model, TREES)
    return model


def reward(name: str, dtype: torch.dtype = torch.float64, trees: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.initializer_range, config.pad_token_id, config.num_labels = 0.3, 0, 1
    model = transformers.AutoModelForSequenceClassification.from_config(config).to(dtype).eval()
    if trees:
        attend_with(model, TREES)
    return model


@pytest.fixture(autouse=True)
def softmax_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention of transformers (Gemma 2) takes its softmax in float32, also in the float64 oracle."""
    narrow = torch.nn.functional.softmax

    def wide(scores: torch.Tensor, dim: int, dtype: torch.dtype | None = None, **others: object) -> torch.Tensor:
        return narrow(scores, dim, dtype=scores.dtype if scores.dtype == torch.float64 else dtype)

    monkeypatch.setattr(torch.nn.functional, "softmax", wide)


def pairs_with_openings() -> list[PairTokens]:
    """Pairs of random tokens: two that begin alike, and one whose chosen response is how the rejected one begins."""
    alike, prefix, *others = random_pairs(LENGTHS, VOCAB)
    return [
        alike._replace(rejected=np.concatenate([alike.chosen[:2], alike.rejected])),
        prefix._replace(rejected=np.concatenate([prefix.chosen, prefix.rejected])),
        *others,
    ]


def separate_log_probs(model: torch.nn.Module, pair: PairTokens) -> list[torch.Tensor]:
    """The oracle: one plain forward a response through the model's own head, shifted by one."""
    found = []
    for response in (pair.chosen, pair.rejected):
        ids = torch.tensor([[*pair.prompt.tolist(), *response.tolist()]])
        log_probs = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
        taken = log_probs.gather(1, ids[0, 1:, None])[:, 0]
        found.append(taken[len(pair.prompt) - 1 :])
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("row_format", ["shared", "packed", "padded"])
def test_token_log_probs_equal_separate_forwards(name: str, row_format: RowFormat) -> None:
    if (name, row_format) == ("gemma2", "padded"):
        pytest.skip("eager attention of transformers turns padding into NaN in float64; float32 is tested below")
    model, oracle, pairs = policy(name, trees=row_format != "padded"), policy(name, trees=False), pairs_with_openings()
    with torch.no_grad():
        found = token_log_probs(model, collate(pairs, row_format))
        expected = torch.cat([values for pair in pairs for values in separate_log_probs(oracle, pair)])
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("row_format", ["shared", "packed"])
def test_gradients_equal_separate_forwards(name: str, row_format: RowFormat) -> None:
    pairs = pairs_with_openings()

    def gradient(model: torch.nn.Module, total: Callable[[torch.nn.Module], torch.Tensor]) -> torch.Tensor:
        total(model).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    def rows(model: torch.nn.Module) -> torch.Tensor:
        scores = policy_scores(model, collate(pairs, row_format))
        return (scores.chosen.value - 2 * scores.rejected.value).sum()

    def separate(model: torch.nn.Module) -> torch.Tensor:
        sides = [separate_log_probs(model, pair) for pair in pairs]
        return sum((chosen.sum() - 2 * rejected.sum() for chosen, rejected in sides), torch.tensor(0.0))

    expected = gradient(policy(name, trees=False), separate)
    # Norms and rotary embeddings of the library compute in float32 also inside float64 models.
    assert torch.linalg.norm(gradient(policy(name), rows) - expected) <= 1e-7 * torch.linalg.norm(expected)


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gpt2"])
def test_rewards_equal_the_models_own_forward(name: str) -> None:
    model, oracle, pairs = reward(name), reward(name, trees=False), pairs_with_openings()
    with torch.no_grad():
        scores, by_token = reward_scores(model, collate(pairs)), iter(token_rewards(model, collate(pairs)))
        for index, pair in enumerate(pairs):
            for side, response in ((scores.chosen, pair.chosen), (scores.rejected, pair.rejected)):
                for end in range(1, len(response) + 1):
                    ids = torch.tensor([[*pair.prompt.tolist(), *response[:end].tolist()]])
                    expected = oracle(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]
                    assert abs(next(by_token) - expected) <= 1e-10
                assert abs(side.value[index] - expected) <= 1e-10
                assert side.tokens[index] == len(response)


def test_the_first_response_token_is_in_the_loss() -> None:
    """Changing only the first token of a response changes its score by what that token's log-probability says."""
    model, oracle, (pair, *_) = policy("llama"), policy("llama", trees=False), random_pairs([(6, 1, 1)], VOCAB)
    with torch.no_grad():
        scores = policy_scores(model, collate([pair]))
        after_prompt = oracle(input_ids=torch.tensor([pair.prompt.tolist()])).logits[0, -1].log_softmax(-1)
    assert scores.chosen.value.item() == pytest.approx(after_prompt[int(pair.chosen[0])].item(), abs=1e-10)
    assert scores.rejected.value.item() == pytest.approx(after_prompt[int(pair.rejected[0])].item(), abs=1e-10)


@pytest.mark.parametrize(("make", "score"), [(policy, policy_scores), (reward, reward_scores)])
def test_scores_do_not_depend_on_company(make: Callable[..., torch.nn.Module], score: ScoreFunction) -> None:
    """The same score alone, in any batch and in any order, to 1e-5 in float32."""
    model, pairs = make("llama", torch.float32), random_pairs(LENGTHS * 3, VOCAB)
    loss = BradleyTerry()
    alone = score_pairs(model, score, loss, pairs, 1, "shared")
    together = score_pairs(model, score, loss, pairs, 1000, "shared")
    backwards = score_pairs(model, score, loss, pairs[::-1], 40, "shared")[::-1]
    assert abs(alone - together).max() <= 1e-5 * (1 + abs(alone).max())
    assert abs(alone - backwards).max() <= 1e-5 * (1 + abs(alone).max())


def test_stored_reference_log_probs_are_those_of_the_model() -> None:
    model, oracle, pairs = policy("qwen2"), policy("qwen2", trees=False), pairs_with_openings()
    for pair in with_reference(model, pairs, 30, "shared"):
        expected = separate_log_probs(oracle, pair)
        for found, wanted in zip((pair.chosen_reference, pair.rejected_reference), expected, strict=True):
            assert found is not None
            assert torch.allclose(torch.from_numpy(found).double(), wanted.detach(), atol=1e-5)


def test_token_values_come_in_the_order_of_the_pairs() -> None:
    model, pairs = policy("llama"), pairs_with_openings()
    values = token_values(model, token_log_probs, pairs, 25, "shared", "test")
    for pair, value in zip(pairs, values, strict=True):
        (alone,) = token_values(model, token_log_probs, [pair], 1, "shared", "test")
        assert np.allclose(value.chosen, alone.chosen, rtol=0, atol=1e-6)
        assert np.allclose(value.rejected, alone.rejected, rtol=0, atol=1e-6)


def test_dpo_of_a_policy_against_itself_is_log_2() -> None:
    model = policy("llama", torch.float32)
    pairs = with_reference(model, random_pairs(LENGTHS, VOCAB), 20, "shared")
    rewards = score_pairs(model, policy_scores, DPO(beta=0.1), pairs, 50, "shared")
    assert abs(rewards).max() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_the_self_check_lets_faithful_architectures_share(name: str) -> None:
    model, pairs = policy(name, torch.float32, trees=False), pairs_with_openings()
    assert row_format_for(model, pairs) == "shared"


@pytest.mark.parametrize("name", UNLIKE)
def test_the_self_check_catches_what_sees_otherwise_and_padded_rows_are_right(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, oracle = policy(name, torch.float32, trees=False), policy(name, torch.float32, trees=False)
    pairs = pairs_with_openings()
    row_format = row_format_for(model, pairs)
    assert row_format == "padded"
    assert f"{type(model).__name__} gets padded rows" in capsys.readouterr().err
    with torch.no_grad():
        found = token_log_probs(model, collate(pairs, row_format))
        expected = torch.cat([values for pair in pairs for values in separate_log_probs(oracle, pair)])
    assert torch.allclose(found, expected, atol=1e-4)


def test_padded_rows_of_gemma_2_are_right_in_float32() -> None:
    model, pairs = policy("gemma2", torch.float32, trees=False), pairs_with_openings()
    with torch.no_grad():
        found = token_log_probs(model, collate(pairs, "padded"))
        expected = torch.cat([values for pair in pairs for values in separate_log_probs(model, pair)])
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2"])
def test_bf16_is_no_worse_than_naive_bf16(name: str) -> None:
    """Against float64: log-probabilities under autocast, of packed rows and of plain forwards one by one."""
    pairs = random_pairs([(20, 30, 25), (9, 40, 35), (30, 12, 18)] * 4, VOCAB)
    with torch.no_grad():
        exact = torch.cat([v for pair in pairs for v in separate_log_probs(policy(name, trees=False), pair)])
        packed, plain = policy(name, torch.float32), policy(name, torch.float32, trees=False)
        with torch.autocast("cpu", torch.bfloat16):
            ours = token_log_probs(packed, collate(pairs))
            theirs = torch.cat([v for pair in pairs for v in separate_log_probs(plain, pair)])
    assert (theirs - exact).abs().mean() > 1e-4, "bf16 rounds"
    assert torch.linalg.norm(ours - exact) <= 1.1 * torch.linalg.norm(theirs - exact)
