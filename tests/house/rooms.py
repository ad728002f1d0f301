"""Who imports whom, read from the syntax trees of the sources."""

import ast
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
    "train": {"core", "blocks", "measure", "induce"},
    "accelerate": {"core", "ops", "blocks", "measure"},
    "learn": {"core", "ops", "blocks"},
    "route": {"core", "ops", "blocks", "induce.recipe"},
    "report": {"core"},
    "data": {"core"},
}
PUBLIC = set(ALLOWED)
ALLOWED["save"] = {"core", "accelerate", "induce", "route"}  # whose verbs and recipes it replays
ALLOWED["pretrained"] = {"core", "save"}
ALLOWED["experiments"] = PUBLIC | {"save"}
ALLOWED["cli"] = PUBLIC | {"experiments", "save", "pretrained"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = PUBLIC | {"save", "pretrained"}  # the package's own __init__.py


def room_of(path: Path) -> str:
    """The room that a source file belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of all modules that a source imports, wherever in it; ``package`` resolves relative imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} if module != "lazyneuron" else {f"lazyneuron.{alias.name}" for alias in node.names}
    return names


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
