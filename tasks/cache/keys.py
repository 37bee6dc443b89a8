"""Cache keys: what a step's result depends on, and nothing else.

A key is the SHA-256 of a step's name, its inputs as canonical JSON, the digests of its upstream
artifacts, and a digest of every project module that its code imports. Paths, hosts and
workers are not in it; device type, precision, thread count and torch's version are inputs of
the steps whose results depend on them.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.atomic import write_atomic

PROJECT = ("minigpt", "tasks", "reports", "flows")
# Values defined here reach every key as inputs already: an edited recipe changes the keys of its own steps only.
VALUES_ONLY = ("tasks.recipes.catalogue", "tasks.recipes.profiles")


def canonical(value: Any) -> Any:
    """``value`` as plain JSON types, equal for equal values.

    Raises:
        TypeError: a type of which equality cannot be told from outside (a tensor, a module, a path, …). It is
            raised here because Prefect would only log it and run the task uncached.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"float": repr(value)}
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"cannot make a cache key of a mapping with the key {key!r}: only strings can be keys")
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise TypeError(f"cannot make a cache key of a {type(value).__name__}: {value!r}")


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, in hexadecimal."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- The code that a step runs ---------------------------------------------------------------------------------


def _module_file(module: str) -> Path | None:
    """The file of a project module, or None. Found by path: ``find_spec`` would import the packages above it."""
    top, *rest = module.split(".")
    if top not in PROJECT:
        return None
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    candidates = (path.with_suffix(".py"), path / "__init__.py") if rest else (path / "__init__.py",)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


class _Normalise(ast.NodeTransformer):
    """Drops what does not change behaviour: docstrings, and imports that only type checkers see."""

    def _without_docstring(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _without_docstring

    def visit_If(self, node: ast.If) -> Any:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(child) for child in node.orelse]
        return self.generic_visit(node)


def _imports(tree: ast.AST, module: str) -> Iterable[str]:
    """Names of modules that an import statement in ``tree``, a module and not a package, may mean."""
    package = module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{parent}.{base}".rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a submodule, where it is one


# Module → SHA-256 of its source, digest of its syntax tree, names of the project that it may import.
_syntax: dict[str, tuple[str, str, tuple[str, ...]]] = {}


@functools.lru_cache(maxsize=1024)
def _parsed(source: bytes, module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree, and the project modules that it imports."""
    seen = hashlib.sha256(source).hexdigest()
    if _syntax.get(module, ("",))[0] != seen:
        tree = _Normalise().visit(ast.parse(source, filename=module))
        names = {name for name in _imports(tree, module) if name.partition(".")[0] in PROJECT}
        _syntax[module] = seen, hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(names))
    _, tree_digest, may_import = _syntax[module]
    return tree_digest, tuple(name for name in may_import if _module_file(name))


# Meanwhile, what ``_read`` has found; None: it looks again each time.
_found: dict[str, tuple[str, tuple[str, ...]] | None] | None = None


def _read(module: str) -> tuple[str, tuple[str, ...]] | None:
    """``_parsed`` of a module's file, or None if it has none or is a package."""
    if _found is not None and module in _found:
        return _found[module]
    file = _module_file(module)
    parsed = None if file is None or file.name == "__init__.py" else _parsed(file.read_bytes(), module)
    if _found is not None:
        _found[module] = parsed
    return parsed


@contextmanager
def syntax_kept_in(file: Path) -> Iterator[None]:
    """Meanwhile a module is read once, and parsed only if ``file`` does not know its source; at the end it does.

    Parsing the project takes as long as everything else that a plan does, and each step asks for the digests of a
    hundred modules. An edit while a run goes on changes none of its keys, as it does not change the code that the run
    has imported. What the file says holds for one version of Python and of this module; without that, or damaged, it
    counts for nothing.
    """
    global _found
    outer = _found
    maker = [sys.version, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()]
    before: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_bytes())
        if kept["maker"] == maker:
            before = {name: (str(s), str(d), tuple(map(str, names))) for name, (s, d, names) in kept["modules"].items()}
    _syntax.update(before)
    _found = {} if outer is None else outer
    try:
        yield
    finally:
        _found = outer
        if _syntax != before:
            with suppress(OSError):  # a folder that cannot be written is told of by what needs it
                write_atomic(file, json.dumps({"maker": maker, "modules": _syntax}).encode())


def code_digests(roots: Iterable[str]) -> dict[str, str]:
    """Digest of the syntax tree of each project module that ``roots`` import, directly or not, themselves included.

    Comments, docstrings and formatting do not count. Package ``__init__`` files and modules that only
    hold values (the catalogue, the profiles) are left out, and so is what they import.

    Raises:
        ValueError: a root is not a module of this project.
    """
    found: dict[str, str] = {}
    todo = list(roots)
    for root in todo:
        if _module_file(root) is None:
            raise ValueError(f"{root} is not a module of this project")
    while todo:
        module = todo.pop()
        if module in found or module in VALUES_ONLY or (read := _read(module)) is None:
            continue
        found[module], imported = read
        todo.extend(imported)
    return dict(sorted(found.items()))


# --- Steps -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One unit of cached work, ready to run: everything that it depends on is known.

    ``kind`` selects the function that does it; ``name`` tells a reader which one it is ("train small, seed 0").
    ``upstream`` are the records it reads, by role; ``local`` is what it may use but does not depend on (where
    the store is, where to write checkpoints): it is not in the key.
    """

    kind: str
    name: str
    inputs: Mapping[str, Any]
    upstream: Mapping[str, Mapping[str, Any]]
    code: Mapping[str, str]
    version: int = 1

    def ingredients(self) -> dict[str, Any]:
        """What the key is made of, in groups that ``plan`` can name when one of them changed."""
        artifacts = {
            role: {name: artifact["sha256"] for name, artifact in record["artifacts"].items()}
            for role, record in self.upstream.items()
        }
        return {
            "kind": self.kind,
            "version": self.version,
            "inputs": canonical(self.inputs),
            "upstream": canonical(artifacts),
            "code": canonical(self.code),
        }

    @functools.cached_property
    def key(self) -> str:
        """64 hexadecimal digits. The name is not part of it: two steps that do the same work share it."""
        return digest(self.ingredients())

    @property
    def name_elsewhere(self) -> str:
        """A name for what this step does on whatever machine: where time is measured, the key holds the machine's."""
        ingredients = self.ingredients()
        ingredients["inputs"] = portable(ingredients["inputs"])
        return f"{self.name} {digest(ingredients)[:16]}"


def portable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A step's inputs without those that say where it runs."""
    return {name: value for name, value in inputs.items() if name not in ("hardware", "environment")}


def explain(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Why ``new`` ingredients are not ``old`` ones: the inputs or modules that differ, in words."""
    if old is None:
        return "never run"
    reasons = []
    for group in ("version", "inputs", "upstream", "code"):
        for path in _differences(old.get(group), new.get(group)):
            label = {"code": "module", "inputs": "input", "upstream": "upstream"}.get(group, group)
            reasons.append(f"{label} {path}".strip() + " changed")
    return "; ".join(reasons[:4]) + (f"; and {len(reasons) - 4} more" if len(reasons) > 4 else "") or "result lost"


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in _differences(old.get(key), new.get(key), f"{path}/{key}" if path else key)
        ]
    if old == new:
        return []
    if isinstance(new, str | int | float | bool) and not (isinstance(new, str) and len(new) > 40):
        return [f"{path} ({old} → {new})" if path else f"({old} → {new})"]
    return [path]
