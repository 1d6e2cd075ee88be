"""Decode prompts with a policy and its reference: choice of the decoder, and responses with statistics and rewards.

prompts, _ = asked(preferences)
decoded = decode("runs/dpo", prompts, "kl_threshold(threshold=0.5)", reward_models=["runs/reward"])
decoded.to_pandas()
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.config import build
from headwater.data.sampling import Asked
from headwater.decoding.decoders import Decoder, PairDecoder, RewardModels, load_pair
from headwater.decoding.options import DecodingOptions, ServerOptions
from headwater.decoding.sequential import SequentialDecoder
from headwater.decoding.servers import ServerDecoder
from headwater.decoding.strategies import STRATEGIES, LengthControl, Strategy
from headwater.errors import UsageError
from headwater.journal import Journal
from headwater.results.decoding import DecodedResponse, DecodedResponses


def decode(
    model: str,
    prompts: Sequence[Asked],
    strategy: str = "length_control(first=20)",
    *,
    reference: str | None = None,
    options: DecodingOptions | None = None,
    reward_models: Sequence[str] = (),
    draws: int = 0,
    seed: int = 42,
) -> DecodedResponses:
    """Return responses of a local policy and its reference (None: the one that its training run names).

    `strategy` is a constructor call, `draws` the number of Monte-Carlo draws a token. Errors: `UsageError`,
    `ModelError`.
    """
    options = options or DecodingOptions()
    decoder = PairDecoder(load_pair(model, reference, seed), prompts, options)
    scorers = RewardModels(reward_models, "", seed, options.batch_size)
    return decoded(decoder, build(strategy, STRATEGIES, "strategy"), scorers, seed, draws)


def decoded(
    decoder: Decoder, strategy: Strategy, reward_models: RewardModels, seed: int, draws: int = 0
) -> DecodedResponses:
    """Return every response of a decoder with its rewards, in the order of the prompts and their draws."""
    responses = decoder.responses(strategy, seed, draws)
    found: list[DecodedResponse] = [one.stored(reward_models.rewards(one)) for one in responses]
    return DecodedResponses(tuple(found))


def parse_strategy(text: str, servers: ServerOptions, release_policy: bool) -> Strategy:
    """Return the strategy of a constructor call. Errors: `UsageError`, also for one that the decoder cannot follow.

    Servers, and a policy that is released before the reference is loaded, follow only length control: every other
    strategy needs the distributions of both models for the same token.
    """
    strategy = build(text, STRATEGIES, "strategy")
    flag = "--endpoint" if servers.endpoint else "--release-policy"
    if (servers.endpoint or release_policy) and not isinstance(strategy, LengthControl):
        raise UsageError(f"--strategy {text}", f"is not for {flag}", "write length_control(first=…)")
    if release_policy and isinstance(strategy, LengthControl) and not strategy.first:
        raise UsageError("--release-policy", f"has no effect with {text}", "leave it out")
    return strategy


def load_decoder(
    model: str,
    reference: str | None,
    prompts: Sequence[Asked],
    options: DecodingOptions,
    seed: int,
    journal: Journal,
    *,
    servers: ServerOptions,
    release_policy: bool,
) -> Decoder:
    """Return a decoder of two servers, of one local model after the other, or of both in memory.

    Responses in the `journal` are not decoded again. Errors: `UsageError`, `ModelError`.
    """
    if servers.endpoint:
        return ServerDecoder((model, str(reference)), servers, prompts, options, journal)
    if release_policy:
        return SequentialDecoder(model, reference, prompts, options, seed, journal)
    return PairDecoder(load_pair(model, reference, seed), prompts, options, journal)
