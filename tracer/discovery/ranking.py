"""Which functions could be split points, and in which order they are shown. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from radium.tracer.discovery.findings import Candidate, Node, Verdict

_ORDER: dict[Verdict, int] = {"ready": 0, "with guard": 1, "not yet": 2, "no": 3}
# A function that is nearly always called within another one, and brings nearly as much, is the better split point: it
# touches less. Arbitrary.
NEARLY = 0.9


def rank(candidates: Sequence[Candidate], tree: Node) -> list[Candidate]:
    """By verdict, then by what they bring; of nested ones that bring nearly the same, the innermost first."""
    within = enclosed(tree, {candidate.name for candidate in candidates})
    ranked = sorted(candidates, key=lambda one: (_ORDER[one.verdict], -worth(one)))
    for inner in list(ranked):
        at = ranked.index(inner)
        outer = next((i for i, one in enumerate(ranked[:at]) if _is_better(inner, one, within)), None)
        if outer is not None:
            ranked.insert(outer, ranked.pop(at))
    return ranked


def set_aside(candidates: Sequence[Candidate], tree: Node) -> None:
    """A function that nobody calls while the program runs, and whose work is done in another one that was tried, is none."""
    within = enclosed(tree, {candidate.name for candidate in candidates})
    tried = [one for one in candidates if one.there_s is not None]
    for outer in candidates:
        inner = next((one for one in tried if within.get((outer.name, one.name), 0) >= NEARLY), None)
        if outer.calls == 0 and inner is not None and inner.inclusive >= NEARLY * outer.inclusive:
            outer.verdict, outer.reason = "no", f"its work is done in {inner.function}"


def worth(candidate: Candidate) -> float:
    """The share of the time that would be spent elsewhere, less what the way takes of it."""
    if candidate.trial is None or not candidate.here_s:
        return candidate.inclusive
    return candidate.inclusive * (1 - min(candidate.trial.way_s / candidate.here_s, 1))


def _is_better(inner: Candidate, outer: Candidate, within: Mapping[tuple[str, str], float]) -> bool:
    if _ORDER[inner.verdict] != _ORDER[outer.verdict]:
        return False
    return within.get((outer.name, inner.name), 0) >= NEARLY and worth(inner) >= NEARLY * worth(outer)


def enclosed(tree: Node, names: Iterable[str]) -> dict[tuple[str, str], float]:
    """(outer, inner): the share of the inner one's samples that it has within the outer one."""
    wanted, total, inside = set(names), dict[str, int](), dict[tuple[str, str], int]()
    stack: list[tuple[Node, tuple[str, ...]]] = [(tree, ())]
    while stack:
        node, above = stack.pop()
        if node.name in wanted and node.name not in above:
            total[node.name] = total.get(node.name, 0) + node.samples
            for outer in above:
                inside[outer, node.name] = inside.get((outer, node.name), 0) + node.samples
            above = (*above, node.name)
        stack += [(child, above) for child in node.children]
    return {(outer, inner): count / total[inner] for (outer, inner), count in inside.items() if total[inner]}
