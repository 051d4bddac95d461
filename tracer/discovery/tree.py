"""Stacks added up: the call tree, and each function's share. Values only."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from radium.tracer.discovery.findings import Node
from radium.tracer.discovery.symbols import Frame, Stack


class Share(NamedTuple):
    """Of all samples, 0 to 1. inclusive: the function was in the stack, however often; exclusive: it ran itself."""

    inclusive: float
    exclusive: float


def build(stacks: Mapping[Stack, int], root: str) -> Node:
    """The tree of these stacks, under a node of that name; the most sampled come first."""
    top = Node(root, sum(stacks.values()))
    known: dict[Stack, Node] = {(): top}
    for stack, count in stacks.items():
        parent = top
        for depth in range(1, len(stack) + 1):
            node = known.get(stack[:depth])
            if node is None:
                node = known[stack[:depth]] = Node(stack[depth - 1].name, 0)
                parent.children.append(node)
            node.samples += count
            parent = node
    for node in known.values():
        node.children.sort(key=lambda child: (-child.samples, child.name))
    return top


def shares(stacks: Mapping[Stack, int]) -> dict[Frame, Share]:
    """Of each function that is in a stack."""
    total = sum(stacks.values())
    inclusive: Counter[Frame] = Counter()
    exclusive: Counter[Frame] = Counter()
    for stack, count in stacks.items():
        exclusive[stack[-1]] += count
        for frame in set(stack):
            inclusive[frame] += count
    return {frame: Share(inclusive[frame] / total, exclusive[frame] / total) for frame in inclusive}
