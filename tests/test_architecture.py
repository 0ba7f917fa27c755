"""The house's arrows: what each package may import, found by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("autotune", "objectives", "search_spaces")


def imports(path: Path) -> Iterator[str]:
    """Top-level names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: a relative import hides an arrow")


def imported_by(package: str) -> dict[str, set[str]]:
    return {str(p.relative_to(ROOT)): set(imports(p)) for p in (ROOT / package).rglob("*.py")}


def roots(package: str) -> set[str]:
    return {name.partition(".")[0] for names in imported_by(package).values() for name in names}


def test_objectives_travel_light() -> None:
    allowed = {"numpy", "onnxruntime", "onnxruntime_genai", "psutil", "objectives"} | set(sys.stdlib_module_names)
    assert roots("objectives") <= allowed


def test_search_spaces_are_pure_data() -> None:
    assert roots("search_spaces") <= {"yaml", "search_spaces"} | set(sys.stdlib_module_names)


def test_optuna_lives_in_the_loop_and_the_importances_alone() -> None:
    users = {file for file, names in imported_by("autotune").items() if any(n.startswith("optuna") for n in names)}
    assert users == {"autotune/search/study.py", "autotune/search/pairs.py", "autotune/search/ledger.py",
                     "autotune/search/proposals.py",
                     "autotune/search/asking.py", "autotune/search/optuna_study.py",
                     "autotune/report/importance.py"}


def test_no_module_imports_in_a_circle() -> None:
    modules = {str(p.relative_to(ROOT))[:-3].replace("/", ".").removesuffix(".__init__"): p
               for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    arrows = {name: {m for i in _at_load(path) for m in modules if i == m} - {name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' → '.join((*above, name))}"
        if name not in done:
            for other in arrows[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def _at_load(path: Path) -> set[str]:
    """Modules imported when a file is loaded; ``from a import b`` names both a and a.b."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


@pytest.mark.parametrize("forbidden", ["pickle", "torch.load", "trust_remote_code=True"])
def test_nothing_unsafe_is_called(forbidden: str) -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
            assert forbidden + "(" not in code
            assert f"import {forbidden}" not in code
            if forbidden.startswith("trust"):
                assert forbidden not in code


def test_a_study_is_checked_without_the_heavy_libraries() -> None:
    code = ("import sys, autotune.cli, autotune.config, autotune.preparation; "
            "print([m for m in ('torch', 'transformers', 'peft', 'optuna', 'datasets') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
