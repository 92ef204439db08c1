"""The digest of the code that a stage runs: its body, and the modules that it imports, found by parsing imports.

The digest is part of a stage's key. So a change of a module reruns the stages that use this module, and no others.
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
from tasks.store.collector import no_search_for_cycles
from tasks.store.libraries import COMPUTING, versions
from tasks.store.shipped import ROOT

PACKAGES = ("tasks", "flows")
LEFT_OUT = ("tasks.settings", "tasks.errors")
"""Not digested: a key holds the settings by value, and an error leaves no result."""
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where statements hold other statements. An import is a statement, so expressions need not be looked through."""


def body_digest(body: Callable[..., None], reads: Iterable[str] = (), chosen: Iterable[str] = ()) -> str:
    """The digest of a stage's code: its body, the definitions of its module that it uses, and all that these import.

    Args:
        body: the stage's function. Its decorators and annotations do not count, nor does the rest of its module.
        reads: files that the code reads, relative to the project, such as `data/glossary.txt`.
        chosen: full names of modules that it imports dynamically, which parsing cannot find.
    """
    source, imports = _code_of(body)
    return code_digest([*imports, *chosen], source, reads)


def stage_imports(body: Callable[..., None]) -> list[str]:
    """The project's modules that a stage's body uses directly, sorted."""
    return sorted({module for name in _code_of(body)[1] for module in defined_in(name)})


def code_digest(imports: Iterable[str], source: str = "", reads: Iterable[str] = ()) -> str:
    """The digest of the modules reached from full names, of extra source, of files, and of library versions."""
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
    """The project's modules that define these full names (such as `tasks.store.Ref`), and all their imports, sorted.

    A name that a package re-exports is followed to its definition, so the package's other modules do not count. Imports
    inside functions count; imports under `TYPE_CHECKING` do not.
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
    """The project's module that defines a full name, as a tuple of one; empty if a library defines it."""
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
    """The full names that a module of the project imports, at module level or inside a function."""
    return tuple(_bound(_tree(module), within=True).values())


@cache
def module_libraries(module: str) -> frozenset[str]:
    """The libraries of `COMPUTING` that a module of the project imports."""
    return _libraries(module_imports(module))


def forget_code() -> None:
    """Clear the caches, so that code that has changed since this process read it is read again."""
    for known in (_parsed, defined_in, module_imports, module_libraries):
        known.cache_clear()


def _libraries(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.split(".")[0] for name in names) & COMPUTING.keys()


def _code_of(body: Callable[..., None]) -> tuple[str, list[str]]:
    """The source of a function and of the definitions of its module that it uses, and the full names that they import.

    The source is without decorators and annotations.
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
    """The imported full names, by local name; `within` adds imports inside functions, and line numbers to the keys."""
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
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            waiting += node.orelse
        elif within or not isinstance(node, ast.FunctionDef | ast.ClassDef):
            for block in BLOCKS:
                waiting += getattr(node, block, ())
    return found


def _is_for_types(test: ast.expr) -> bool:
    """Whether a condition is `TYPE_CHECKING`, which is false where code runs."""
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def _tree(module: str) -> ast.Module:
    return _parsed(_file(module))


@cache
def _parsed(path: Path) -> ast.Module:
    with no_search_for_cycles():
        return ast.parse(path.read_text(encoding="utf-8"))


def _exists(module: str) -> bool:
    return _file(module).exists()


def _file(module: str) -> Path:
    """The source file of a module or a package."""
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
