"""The house rules that no linter knows: imports go one way, and every file stays within reach of a reader."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tasks.cache.keys import code_digests
from tasks.exercises import modules

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "minigpt": {"minigpt"},
    "reports": {"reports"},
    "tasks": {"tasks", "minigpt", "reports"},
    "flows": {"flows", "tasks", "minigpt", "reports"},
}
FORBIDDEN = {
    "minigpt": {"prefect", "mlflow", "requests", "httpx", "huggingface_hub", "datasets", "pandas"},
    "reports": {"torch", "prefect", "mlflow", "transformers", "datasets"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            tops.add(node.module.split(".")[0])
    return tops


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name for name in full if is_module(name)} or {node.module}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    tops = imported(path)
    assert tops & set(MAY_IMPORT) <= MAY_IMPORT[package]
    assert not tops & FORBIDDEN.get(package, set())


@pytest.mark.parametrize("path", sorted((ROOT / "minigpt").glob("*.py")), ids=lambda path: path.stem)
def test_the_core_of_minigpt_stands_alone(path: Path) -> None:
    """It is to be read first, and is in the key of every training; to train, only what scores is needed beside it."""
    rooms = {file.parent.name for file in (ROOT / "minigpt").glob("*/__init__.py")}
    own = {name for name in imported_modules(path) if name.startswith("minigpt.")}
    around = {name for name in own if name.split(".")[1] in rooms}
    assert around <= {"minigpt.evaluation.evaluate"}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name == "__init__.py" and path.parent != ROOT / "tasks" / "exercises"],
    ids=lambda path: path.parent.name,
)
def test_packages_say_what_they_are_and_nothing_else(path: Path) -> None:
    """Keys leave ``__init__`` out: what it passed on could change, and a stored result would still count."""
    (docstring,) = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)


def test_reports_load_without_torch() -> None:
    code = "import pkgutil, sys, reports\n" + (
        "for m in pkgutil.walk_packages(reports.__path__, 'reports.'): __import__(m.name)\n"
        "sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_slow_to_import_is_imported_when_it_is_used() -> None:
    """Every command loads all exercises; Transformers' models alone take as long as all the rest."""
    code = "import sys; from flows.execution.graph import load_exercises; from tasks.exercises import modules\n" + (
        "load_exercises(tuple(modules()))\n"
        "slow = {'transformers', 'datasets', 'mlflow', 'pandas', 'matplotlib', 'scipy', 'prefect'} & set(sys.modules)\n"
        "sys.exit(', '.join(slow) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FOLDERS = sorted(path.parent for path in (ROOT / "tasks" / "exercises").glob("ex*/experiment.py"))
# What the files of an exercise may import of tasks, reports and flows, beside files of their own folder.
SAYS = {"reports", "reports.types", "reports.answers", "reports.words", "tasks.variants", "tasks.comparison"}
SAYS |= {"reports.live", "reports.live.listings", "tasks.nearness"}
MEASURES = {"tasks.exercise", "tasks.parts", "tasks.recipes.catalogue", "tasks.study", "tasks.variants"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_exercises_measure_and_say_apart(folder: Path) -> None:
    own = f"tasks.exercises.{folder.name}"
    said = {f"{own}.{stem}" for stem in ("answer", *(path.stem for path in folder.glob("answer_*.py")))}
    for path in sorted(folder.glob("*.py")):
        modules = imported_modules(path)
        of_project = {module for module in modules if module.split(".")[0] in ("tasks", "reports", "flows")}
        inner = {module for module in of_project if module.startswith(own)}
        saying = path.stem.startswith("answer")
        allowed = SAYS if saying else MEASURES
        assert of_project - inner <= allowed, f"{path.name} imports {of_project - inner - allowed}"
        assert saying or not inner & said, f"{path.name} measures, and must not depend on what is said"
        assert not {"prefect", "mlflow"} & {module.split(".")[0] for module in modules}
    lines = (folder / "answer.md").read_text(encoding="utf-8").splitlines()
    assert not [n for n, line in enumerate(lines, 1) if len(line) > 120], "answer.md has lines over 120 characters"
    assert len(ast.parse((folder / "__init__.py").read_text()).body) == 1, "__init__.py holds a docstring only"


def test_no_measurement_depends_on_words() -> None:
    """An edited sentence, filter or table must not run a step again."""
    for module in modules().values():
        words = [name for name in code_digests([module]) if name.startswith("reports.") or name.endswith(".answer")]
        assert not words, f"the key of {module} holds {words}"


def test_answers_load_without_torch() -> None:
    """An edited sentence is shown in a second, which PyTorch alone takes to load."""
    code = "import importlib, sys; from tasks.exercises import folders\n" + (
        "for package in folders().values(): importlib.import_module(package + '.answer')\n"
        "sys.exit('torch' in sys.modules or 'prefect' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_imported_is_declared() -> None:
    """A package that is there only because another one needs it goes when that one no longer does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name.lower().replace("_", "-") for line in project["dependencies"]}
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["quantization"]
    declared |= {Requirement(line).name.lower().replace("_", "-") for line in optional}
    owners = importlib.metadata.packages_distributions()
    used = set().union(*map(imported, FILES)) - set(sys.stdlib_module_names) - set(MAY_IMPORT)
    missing = [
        name
        for name in sorted(used)
        if name in owners and not declared & {n.lower().replace("_", "-") for n in owners[name]}
    ]
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_within_reach_of_a_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_rooms_hold_what_a_reader_can_survey() -> None:
    for folder in {path.parent for path in FILES}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 20, folder
