"""Layouts of message trees (OpenAssistant, arXiv:2304.07327): a prompt with ranked replies, which have replies again.

Every question of a tree becomes a record: the thread that leads to it, and its replies. The score of a reply is the
negative rank, 0 for the best: it orders replies, its differences mean nothing.

OpenAssistant flags messages that its moderators or authors took back (`deleted`). Such a reply is left out, and so are
the questions whose thread holds such a message.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from headwater.data.layouts.fields import boolean, items, kind, number, text
from headwater.data.layouts.layout import Broken, CandidatesDraft, Fields, NoPreference, Part, Together
from headwater.data.preference import Message, Response, Role

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}
DELETED_REPLIES = "deleted_replies"
"""Note that counts replies that were left out."""
DEEPEST = 200
"""Messages of the longest thread: a published tree has about ten."""


class _Node(NamedTuple):
    """A message of a tree."""

    id: str
    parent: str | None
    message: Message
    rank: float | None
    deleted: bool


def tree(fields: Fields) -> Part:
    """A tree a row: `message_tree_id`, and in `prompt` its first message, with its `replies`."""
    root = fields.get("prompt")
    if not isinstance(root, dict):
        raise Broken(f"prompt is {kind(root)}", "expected a message with replies")
    return _part(fields, list(_nodes(root, None, "0", 1)))


def message_row(fields: Fields) -> Part:
    """A message a row: `message_id`, `parent_id` (null for the first), `message_tree_id`, `role`, `text`, `rank`."""
    parent = fields.get("parent_id")
    if parent is not None:
        parent = text(fields, "parent_id") or None
    return _part(fields, [_Node(text(fields, "message_id"), parent, *_said(fields))])


def _part(fields: Fields, nodes: list[_Node]) -> Part:
    deleted = sum(node.deleted for node in nodes if node.message.role == "assistant")
    return Part(text(fields, "message_tree_id"), nodes, (DELETED_REPLIES,) * deleted)


def _nodes(item: Fields, parent: str | None, place: str, depth: int) -> Iterator[_Node]:
    if depth > DEEPEST:
        raise Broken(f"replies of replies, more than {DEEPEST} deep", "expected a thread of fewer messages")
    yield _Node(place, parent, *_said(item))
    if item.get("replies") is not None:
        for number_, reply in enumerate(items(item, "replies")):
            yield from _nodes(reply, place, f"{place}.{number_}", depth + 1)


def _said(item: Fields) -> tuple[Message, float | None, bool]:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise Broken(f"a message has the role {role!r}", f"expected {' or '.join(_ROLES)}", code="ROLE")
    deleted = item.get("deleted") is not None and boolean(item, "deleted")
    return Message(_ROLES[role], text(item, "text")), number(item, "rank"), deleted


def _join(parts: Sequence[list[_Node]]) -> list[CandidatesDraft | NoPreference]:
    """Return the questions of one tree with their replies, in the order of the data."""
    nodes = {node.id: node for part in parts for node in part}
    replies = defaultdict(list)
    for node in nodes.values():
        if node.message.role == "assistant" and not node.deleted:
            replies[node.parent].append(node)
    asked = [node for node in nodes.values() if node.message.role == "user"]
    drafts = [_question(_thread(node, nodes), replies[node.id]) for node in asked]
    known = {node.id for node in asked}
    alone = [each for parent, found in replies.items() if parent not in known for each in found]
    return drafts + [_question(_thread(node, nodes), []) for node in alone]


def _question(thread: Sequence[_Node], replies: Sequence[_Node]) -> CandidatesDraft | NoPreference:
    if any(node.deleted for node in thread):
        return NoPreference("deleted")
    return CandidatesDraft(tuple(node.message for node in thread), tuple(map(_response, replies)))


def _response(node: _Node) -> Response:
    return Response(node.message.content, None if node.rank is None else -node.rank)


def _thread(node: _Node, nodes: dict[str, Any]) -> list[_Node]:
    """Return the messages from the first one to `node`; where a parent is missing, those after it."""
    thread: list[_Node] = []
    one: _Node | None = node
    while one is not None and len(thread) < DEEPEST:
        thread.append(one)
        one = nodes.get(one.parent) if one.parent is not None else None
    return thread[::-1]


QUESTIONS_OF_TREES = Together(_join, "rows_read_as_trees")
