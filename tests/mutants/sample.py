"""The mutants: small changes of the code that the tests should notice, and a seeded sample of them.

cosmic-ray finds the places and makes the changes. Which of its operators are used, and which places are left out, is
chosen here.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from parso.tree import NodeOrLeaf
from tqdm import tqdm

__all__ = ["FOLDERS", "Mutant", "places", "sample"]

FOLDERS = ("service/engine", "service/api", "service/bundle", "models")

COMPARISONS = (
    *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
)
"""Each comparison with its edge moved and with its sense turned."""
ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul")
LOGIC = ("AndWithOr", "OrWithAnd", "BreakWithContinue", "ContinueWithBreak")
OPERATORS = (
    *(f"core/ReplaceComparisonOperator_{name}" for name in COMPARISONS),
    *(f"core/ReplaceBinaryOperator_{name}" for name in ARITHMETIC),
    *(f"core/Replace{name}" for name in LOGIC),
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/NumberReplacer",
)
ARITHMETIC_PARENTS = {"arith_expr", "term", "power"}
EDGE_PARENTS = {"arith_expr", "term", "power", "comparison", "subscript", "subscriptlist"}
EDGE_NUMBERS = {"0", "1", "2"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Args:
        file: the path of the file, from the root.
        operator: the name of the operator of cosmic-ray.
        occurrence: the number of the place, among those that the operator finds in the file.
        line: the number of the first line that changes, from one.
        before: the lines that change, without indentation.
        after: the lines as they become.
    """

    file: str
    operator: str
    occurrence: int
    line: int
    before: str
    after: str


def sample(root: Path, count: int, seed: int) -> list[Mutant]:
    """Draw mutants, each as likely as any other.

    Args:
        root: the folder of the project.
        count: how many; all of them where there are fewer.
        seed: the same seed draws the same mutants of the same code.

    Returns:
        The mutants, in the order of their draw.
    """
    files = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    found = [(path, *place) for path in tqdm(files, desc="find places") for place in places(path.read_text())]
    drawn = random.Random(seed).sample(found, min(count, len(found)))
    return [described(root, *one) for one in drawn]


def places(source: str) -> Iterator[tuple[str, int]]:
    """Operator and occurrence of every mutant of a text."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(name)()
        found = [(node, way) for node in nodes for way, _ in enumerate(operator.mutation_positions(node))]
        yield from ((name, number) for number, (node, way) in enumerate(found) if is_wanted(name, node, way))


def described(root: Path, path: Path, operator: str, occurrence: int) -> Mutant:
    line, before, after = changed_lines(path.read_text(), operator, occurrence)
    return Mutant(path.relative_to(root).as_posix(), operator, occurrence, line, before, after)


def changed_lines(source: str, operator: str, occurrence: int) -> tuple[int, str, str]:
    old = source.splitlines()
    new = mutate_code(source, get_operator(operator)(), occurrence).splitlines()
    for tag, i, j, k, m in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag != "equal":
            return i + 1, " ".join(map(str.strip, old[i:j])), " ".join(map(str.strip, new[k:m]))
    raise ValueError(f"{operator} {occurrence} changes nothing")


def is_wanted(operator: str, node: NodeOrLeaf, way: int) -> bool:
    """Whether a change is one that a test should notice.

    Args:
        operator: the name of the operator of cosmic-ray.
        node: what it changes.
        way: which of the changes that it makes of a node; a number becomes larger, then smaller.
    """
    if "BinaryOperator" in operator and (
        node.parent.type not in ARITHMETIC_PARENTS  # the `*` and `/` of a signature, the `*` of an unpacking
        or any(child.type in {"string", "fstring"} for child in node.parent.children)  # a text or a path
    ):
        return False
    if operator == "core/NumberReplacer":
        if not is_edge(node):
            return False
        if way == 1 and node.value == "0" and node.parent.type == "trailer":
            return False  # `outputs[-1]` for `outputs[0]`: the same where there is one; `outputs[1]` is a mutant, too
    return not any(map(is_left_out, lineage(node)))


def is_edge(number: NodeOrLeaf) -> bool:
    """Whether a number is an edge: a small one that is compared, calculated with, indexed or counted with.

    Left out are defaults and constants that were tuned: no test should hold them.
    """
    node = number.parent if number.parent.type == "factor" else number
    around = node.parent
    if number.value not in EDGE_NUMBERS:
        return False
    if around.type == "arglist":
        around = around.parent
    if around.type == "trailer":
        called = around.get_previous_sibling()
        return around.children[0].value == "[" or getattr(called, "value", None) == "range"
    return node.parent.type in EDGE_PARENTS


def lineage(node: NodeOrLeaf) -> Iterator[tuple[NodeOrLeaf, NodeOrLeaf]]:
    """Each ancestor of a node, with the child of it that leads to the node."""
    while node.parent is not None:
        yield node.parent, node
        node = node.parent


def is_left_out(step: tuple[NodeOrLeaf, NodeOrLeaf]) -> bool:
    """Whether what lies in this child of this node is not held by tests."""
    node, child = step
    match node.type:
        case "fstring_expr" | "raise_stmt":  # the wording of an error or a log
            return True
        case "decorator" | "assert_stmt":  # options of dataclasses and commands; what a type checker is told
            return True
        case "annassign":  # a hint, as are the next two
            return child is node.children[1]
        case "tfpdef":
            return True
        case "funcdef":
            return child is node.annotation
        case "atom_expr" | "power":  # what is logged
            return node.children[0].type == "name" and node.children[0].value in {"_log", "log", "logger", "warnings"}
        case "if_stmt":
            return node.children[1].get_code().strip() in {"TYPE_CHECKING", '__name__ == "__main__"'}
    return False
