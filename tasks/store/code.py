"""The code that a stage runs: the modules that its body imports, found by reading imports, and their digest.

A stage's key holds this digest. A change of one module makes again what that module has a part in, and nothing else.
"""

import ast
import copy
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from tasks.store import file_digest
from tasks.store.libraries import COMPUTING, versions

ROOT = Path(__file__).parents[2]
"""The folder that holds `tasks` and `flows`."""
PACKAGES = ("tasks", "flows")
LEFT_OUT = ("tasks.settings", "tasks.errors")
"""Settings are in a key by their values, and errors end in no result."""


def body_digest(body: Callable[..., None], reads: Iterable[str] = (), chosen: Iterable[str] = ()) -> str:
    """The digest of what a stage runs: its body, what this uses of its own module, and all that these import.

    Args:
        body: the stage's function. Decorators, annotations and what else stands in its module do not count.
        reads: files that the code reads, relative to the project, as `data/glossary.txt`.
        chosen: full names of modules that it imports by name, where reading its imports does not tell.
    """
    source, imports = _own_code(body)
    return code_digest([*imports, *chosen], source, reads)


def stage_imports(body: Callable[..., None]) -> list[str]:
    """The modules of the project whose names a stage's body uses itself, sorted."""
    return sorted({module for name in _own_code(body)[1] for module in defined_in(name)})


def code_digest(imports: Iterable[str], source: str = "", reads: Iterable[str] = ()) -> str:
    """The digest of the modules that full names lead to, of further source, of files, and of library versions."""
    imports = list(imports)
    modules = reached(imports)
    libraries = _libraries(imports).union(*(module_libraries(module) for module in modules))
    content = {
        "source": source,
        "modules": {module: file_digest(_file(module)) for module in modules},
        "reads": {name: file_digest(ROOT / name) for name in reads},
        "versions": versions(libraries),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reached(names: Iterable[str]) -> list[str]:
    """The project's modules that define these full names (`tasks.store.Ref`), and all that those import, sorted.

    A name that a package hands on is looked for where it is defined, so that a package's other modules do not count.
    Imports within functions count, those for type checkers alone do not.
    """
    waiting, seen = list(names), set[str]()
    while waiting:
        for module in defined_in(waiting.pop()):
            if module not in seen and not module.startswith(LEFT_OUT):
                seen.add(module)
                waiting += module_imports(module)
    return sorted(seen)


@cache
def defined_in(name: str) -> tuple[str, ...]:
    """The module of the project that defines a full name; none where it is of a library."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return ()
    known = [".".join(parts[:length]) for length in range(1, len(parts) + 1) if _exists(".".join(parts[:length]))]
    module, rest = known[-1], parts[len(known) :]
    if rest and _file(module).name == "__init__.py" and (origin := _bound(_tree(module)).get(rest[0])):
        return defined_in(origin)
    return (module,)


@cache
def module_imports(module: str) -> tuple[str, ...]:
    """The full names that a module of the project imports, at its head or within a function."""
    return tuple(_bound(_tree(module), within=True).values())


@cache
def module_libraries(module: str) -> frozenset[str]:
    """The libraries of `COMPUTING` that a module of the project imports."""
    return _libraries(module_imports(module))


def forget_code() -> None:
    """Read all code anew, where it may have changed since this process first did."""
    for known in (_parsed, defined_in, module_imports, module_libraries):
        known.cache_clear()


def _libraries(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.split(".")[0] for name in names) & COMPUTING.keys()


def _own_code(body: Callable[..., None]) -> tuple[str, list[str]]:
    """A function and each definition of its module that it uses, and the full names that these import.

    Without decorators and annotations.
    """
    source = inspect.getsourcefile(body)
    assert source
    module = _parsed(Path(source))
    bound = _bound(module)
    defined = {name: node for node in module.body for name in _defines(node)}
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(body))).body
    waiting, used, imports = [function], dict[str, ast.stmt](), list[str]()
    while waiting:
        node = _bare(waiting.pop())
        used[ast.unparse(node)] = node
        imports += _bound(node, within=True).values()
        for name in {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}:
            if name in bound:
                imports.append(bound[name])
            elif name in defined and ast.unparse(_bare(defined[name])) not in used:
                waiting.append(defined[name])
    return "\n".join(sorted(used)), sorted(set(imports))


def _bare(node: ast.stmt) -> ast.stmt:
    """A definition without its decorators and annotations."""
    node = copy.deepcopy(node)
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef):
            each.decorator_list, each.returns = [], None
        elif isinstance(each, ast.arg):
            each.annotation = None
    return node


def _defines(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))


def _bound(tree: ast.AST, within: bool = False) -> dict[str, str]:
    """The full names that are imported, by the name they have then; `within` functions too, by place."""
    found: dict[str, str] = {}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            for each in node.names:
                found[f"{each.asname or each.name}{node.lineno if within else ''}"] = each.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, "imports of this project name their module in full"
            for each in node.names:
                found[f"{each.asname or each.name}{node.lineno if within else ''}"] = f"{node.module}.{each.name}"
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        elif within or not isinstance(node, ast.FunctionDef | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return found


def _tree(module: str) -> ast.Module:
    return _parsed(_file(module))


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _exists(module: str) -> bool:
    return _file(module).exists()


def _file(module: str) -> Path:
    """Of a module or a package."""
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
