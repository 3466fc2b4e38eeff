"""The house of docs/architecture.md: imports point upwards in it, and no room grows too large."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "weakteach"
ROOMS = (
    "artifacts", "worlds", "preferences", "models", "statistics", "training", "labeling",
    "evaluation", "steps", "study", "results", "report", "run", "cli", "__main__",
)  # fmt: skip
MOST_LINES, LARGEST_SHARE = 400, 0.25
# Read by processes that only plan or look at results: neither may cost them seconds.
LIGHT = ("artifacts", "preferences/pair.py")
HEAVY = ("torch", "ray")
# Whoever gives one of these another name takes it from here.
MEAN_SEVERAL = {"Cost", "NodeType", "Part"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules that a module names in its imports, wherever they stand in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            assert node.module
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_import_from_rooms_above(path: Path) -> None:
    names = (name.split(".") for name in imported(path) if name.startswith("weakteach."))
    rooms = {parts[1] for parts in names} - {"__version__"}
    below = {room for room in rooms if ROOMS.index(room) > ROOMS.index(room_of(path))}
    assert not below, f"{path} imports from {below}, which lie below it"


def test_imports_go_in_no_circle() -> None:
    names = {name_of(path) for path in MODULES}
    graph = {name_of(path): imported(path) & names - {name_of(path)} for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("light", LIGHT)
def test_light_rooms_import_neither_torch_nor_ray(light: str) -> None:
    place = PACKAGE / light
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        assert not {name.split(".")[0] for name in imported(path)} & set(HEAVY), path


def test_no_file_and_no_room_is_too_large() -> None:
    tests = Path(__file__).parent.rglob("*.py")
    everywhere = {p: len(p.read_text().splitlines()) for p in (*MODULES, *tests)}
    assert {path: n for path, n in everywhere.items() if n > MOST_LINES} == {}
    lines = {path: everywhere[path] for path in MODULES}
    rooms: Counter[str] = Counter()
    for path, n in lines.items():
        rooms[room_of(path)] += n
    room, most = rooms.most_common(1)[0]
    assert most <= LARGEST_SHARE * rooms.total(), f"{room}/ holds a quarter of all lines"


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == MEAN_SEVERAL


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports each by its name alone."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
