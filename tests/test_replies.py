"""What a chat server's reply says, in its many forms, and which errors concern one request alone."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.network import replies


def reply(message: Any, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}]}


TEXTS = [
    ({"content": "Yes."}, "Yes."),
    ({"content": [{"type": "text", "text": "Yes"}, {"type": "text", "text": "."}]}, "Yes."),
    ({"content": [{"type": "thinking", "thinking": "No."}, {"type": "output_text", "text": "Yes."}]}, "Yes."),
    ({"content": ["Yes", "."]}, "Yes."),
    ({"content": {"type": "text", "text": "Yes."}}, "Yes."),
    ({"content": "Yes.", "reasoning_content": "No."}, "Yes."),
    ({"content": "Yes.", "tool_calls": [{"id": "1"}]}, "Yes."),
]


@pytest.mark.parametrize(("message", "text"), TEXTS)
def test_texts(message: dict[str, Any], text: str) -> None:
    found = replies.read(reply(message))
    assert (found.text, found.problem, found.complete) == (text, "", True)


PROBLEMS = [
    ({"content": ""}, "stop", "empty_reply"),
    ({"content": " \n"}, "stop", "empty_reply"),
    ({"content": None}, "stop", "empty_reply"),
    ({"content": []}, "stop", "empty_reply"),
    ({"content": [{"type": "image_url"}]}, "stop", "empty_reply"),
    ({"content": 3}, "stop", "empty_reply"),
    ({"reasoning_content": "Yes."}, "stop", "empty_reply"),
    ({"content": None, "reasoning_content": "Yes, bu"}, "length", "cut_off"),
    ({"content": None, "refusal": "I cannot."}, "stop", "refusal"),
    ({"content": [{"type": "refusal", "refusal": "I cannot."}]}, "stop", "refusal"),
    ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls", "tool_call"),
    ({"content": None, "function_call": {"name": "f"}}, "function_call", "tool_call"),
    ({"content": None}, "content_filter", "content_filter"),
]


@pytest.mark.parametrize(("message", "finish", "problem"), PROBLEMS)
def test_replies_without_a_text(message: dict[str, Any], finish: str, problem: str) -> None:
    found = replies.read(reply(message, finish))
    assert (found.text.strip(), found.problem) == ("", problem)
    assert found.refusal == ("I cannot." if problem == "refusal" else "")


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{}]}, {"choices": 3}, {"choices": ["text"]}])
def test_what_is_no_reply_of_a_chat_server(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="answered without a message"):
        replies.read(body)


ERRORS = [
    (400, "This model's maximum context length is 4096 tokens. However, you requested 5012 tokens", "too_long"),
    (400, "the request exceeds the available context size (512 tokens), try increasing it", "too_long"),
    (400, "Input length (9000 tokens) exceeds the maximum allowed length (8192 tokens) of max_model_len", "too_long"),
    (400, '{"error": {"code": "context_length_exceeded"}}', "too_long"),
    (400, "prompt is too long: 210000 tokens > 200000 maximum", "too_long"),
    (422, "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000 `inputs` tokens", "too_long"),
    (413, "Payload Too Large", "too_long"),
    (500, "litellm.ContextWindowExceededError: context window", "too_long"),
    (400, "The response was filtered due to Azure's content management policy", "content_filter"),
    (400, "temperature must be at most 2", ""),
    (400, "The model `gpt-9` does not exist", ""),
    (401, "Incorrect API key provided", ""),
    (404, "The model `j` does not exist: maximum context length", ""),
    (429, "Rate limit reached: too many tokens per minute; requests too large", ""),
    (500, "Internal Server Error", ""),
    (503, "the model's context length is being computed", ""),
]


@pytest.mark.parametrize(("status", "said", "problem"), ERRORS)
def test_errors_of_one_request_and_of_all(status: int, said: str, problem: str) -> None:
    assert replies.problem_of_error(status, said) == problem


def test_an_error_in_a_reply() -> None:
    assert replies.error_of({"error": {"message": "maximum context length is 4096"}}) == "too_long"
    assert replies.error_of({"error": "no such model"}) == ""
    with pytest.raises(ValueError, match="no such model"):
        replies.read({"error": "no such model"})


THOUGHTS = [
    ("Yes.", "Yes."),
    ("<think>\nNo.\n</think>\n\nYes.", "\n\nYes."),
    ("No.</think>Yes.", "Yes."),  # the template opened the thought
    ("<think>a</think>b<think>c</think>Yes.", "Yes."),
    ("[THINK]No.[/THINK]Yes.", "Yes."),
    ("<think>No", None),
    ("<think>No</think>Yes<think>no", None),
]


@pytest.mark.parametrize(("text", "after"), THOUGHTS)
def test_what_follows_the_thoughts(text: str, after: str | None) -> None:
    assert replies.after_thoughts(text) == after
