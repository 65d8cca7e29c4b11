"""Loops of an assembly listing: its control flow graph, dominators, and what each natural loop holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One line of assembly, as far as control flow goes."""

    label: str | None = None  # by which branches name this place
    target: str | None = None  # label that it may branch to
    ends: bool = False  # never goes on to the next line: an unconditional branch, the end of the program


def _successors(code: list[Instruction]) -> list[set[int]]:
    position = {line.label: i for i, line in enumerate(code) if line.label is not None}
    following: list[set[int]] = []
    for i, line in enumerate(code):
        onward = {i + 1} if not line.ends and i + 1 < len(code) else set()
        if line.target in position:
            onward.add(position[line.target])
        following.append(onward)
    return following


def _blocks(code: list[Instruction]) -> tuple[list[int], list[set[int]]]:
    """Length and successors of the basic blocks, in the order of the listing."""
    following = _successors(code)
    starts = {0} | {j for i, onward in enumerate(following) for j in onward if onward != {i + 1}}
    starts |= {i + 1 for i, onward in enumerate(following) if onward != {i + 1} and i + 1 < len(code)}
    order = sorted(starts)
    block_of = {start: n for n, start in enumerate(order)}
    ends = [*order[1:], len(code)]
    return (
        [end - start for start, end in zip(order, ends, strict=True)],
        [{block_of[j] for j in following[end - 1]} for end in ends],
    )


def _dominators(successors: list[set[int]]) -> list[set[int]]:
    everything = set(range(len(successors)))
    predecessors: list[set[int]] = [set() for _ in successors]
    for block, onward in enumerate(successors):
        for j in onward:
            predecessors[j].add(block)
    dominators = [{0}] + [set(everything) for _ in successors[1:]]
    changed = True
    while changed:
        changed = False
        for block in range(1, len(successors)):
            before = [dominators[p] for p in predecessors[block]]
            new = {block} | (set.intersection(*before) if before else everything)
            changed |= new != dominators[block]
            dominators[block] = new
    return dominators


def loop_sizes(code: list[Instruction]) -> list[int]:
    """Instructions of each loop without those of the loops inside it, in the order of the listing."""
    if not code:
        return []
    lengths, successors = _blocks(code)
    dominators = _dominators(successors)
    bodies: dict[int, set[int]] = {}
    for tail, onward in enumerate(successors):
        for head in onward & dominators[tail]:
            body, pending = bodies.setdefault(head, {head}), [tail]
            while pending:
                block = pending.pop()
                if block not in body:
                    body.add(block)
                    pending += [p for p, out in enumerate(successors) if block in out]
    own = {
        head: body - set().union(*(other for h, other in bodies.items() if h != head and other < body))
        for head, body in bodies.items()
    }
    # A lone branch to itself fills the end of every program.
    return [
        sum(lengths[b] for b in own[head]) for head in sorted(own) if len(own[head]) > 1 or lengths[head] > 1
    ]
