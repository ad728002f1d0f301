"""Who imports whom, read from the syntax trees of the sources; the name of a module in a string counts too."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "lazyneuron"

# room -> rooms, or parts of rooms, that it may import besides itself
ALLOWED = {
    "core": set(),
    "ops": {"core"},
    "blocks": {"core"},
    "measure": {"core", "blocks"},
    "explain": {"core", "blocks", "measure"},
    "induce": {"core", "ops", "blocks", "measure"},
    "train": {"core", "ops", "blocks", "measure", "induce"},
    "accelerate": {"core", "ops", "blocks", "measure"},
    "learn": {"core", "ops", "blocks"},
    "export": {"core", "ops", "blocks", "accelerate"},
    "generate": {"core", "blocks", "accelerate", "save", "pretrained"},
    "route": {"core", "ops", "blocks", "induce.recipe"},
    "report": {"core"},
    "data": {"core"},
}
PUBLIC = set(ALLOWED)
ALLOWED["save"] = {"core", "accelerate", "induce", "route"}  # whose verbs and recipes it replays
ALLOWED["pretrained"] = {"core", "save"}
ALLOWED["hf"] = {"core", "ops", "blocks", "accelerate", "generate", "save", "pretrained"}
ALLOWED["torchao"] = {"core", "blocks", "accelerate"}
ALLOWED["experiments"] = PUBLIC | {"save"}
ALLOWED["cli"] = PUBLIC | {"experiments", "hf", "save", "pretrained"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = PUBLIC | {"save", "pretrained"}  # the package's own __init__.py


def room_of(path: Path) -> str:
    """The room that a source file belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of all modules that a source imports, wherever in it; ``package`` resolves relative imports."""
    tree = ast.parse(source)
    names = _named_in_strings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} if module != "lazyneuron" else {f"lazyneuron.{alias.name}" for alias in node.names}
    return names


def _named_in_strings(tree: ast.Module) -> set[str]:
    """Strings that are nothing but the name of a module of ours, perhaps with an attribute; sentences do not count."""
    return {
        found.group(1)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (found := re.fullmatch(r"(lazyneuron(?:\.\w+)+)\.?(?::\w*)?", node.value))
    }


def modules() -> dict[str, Path]:
    """Every module of the package by its absolute name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["lazyneuron", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports itself; ``from package import module`` means the module."""
    graph = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        wanted = _named_in_strings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names}
        graph[name] = {found for w in wanted for found in _longest(w, known)} - {name}
    return graph


def _longest(name: str, known: Collection[str]) -> Iterator[str]:
    """The module that a dotted name leads to: itself, or that in which its last parts are defined."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    if name and name != "lazyneuron":
        yield name


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Sets of modules that import each other, by way of others too (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return [group for group in found if len(group) > 1]


def forbidden_imports(source: str, room: str, package: str) -> set[str]:
    """The imports of ours that the room's rule does not allow."""
    wrong = set()
    for name in imported_modules(source, package):
        parts = name.split(".")
        if parts[0] != "lazyneuron":
            continue
        target = parts[1] if len(parts) > 1 else "lazyneuron"
        if target in ("__version__", room) or {target, ".".join(parts[1:3])} & ALLOWED[room]:
            continue
        wrong.add(name)
    return wrong
