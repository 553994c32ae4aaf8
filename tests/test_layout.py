"""The rooms of the house: who may import whom, how large a file is, that everything is documented."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import grimp
import pytest
from conftest import ROOT

import contract.errors
import serving.settings
import training.settings
from contract.errors import BerthError

PACKAGES = [
    name
    for name in ("contract", "model", "training", "serving", "local_test", "deploy", "edge")
    if (ROOT / name / "__init__.py").exists()
]
PROGRAMS = {"train": "training", "serve": "serving", "start": None, "export": "edge"}

# design.md, "Who may import whom": a package and the packages of ours that it may import, itself apart.
MAY_IMPORT = {
    "contract": set(),
    "model": {"contract"},
    "training": {"contract", "model"},
    "serving": {"contract"},
    "local_test": {"contract"},
    "deploy": {"contract", "model"},
    "edge": {"contract"},
}
# What no module of serving may import: it would cost every worker a second and 100 MB.
TOO_HEAVY = {"pandas", "sklearn", "joblib", "skl2onnx", "scipy", "onnx", "matplotlib", "arro3", "ai_edge_litert"}
DECODER = "serving.arrow"
"""A process of its own, beside the server's."""


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def _imports_of(package: str) -> dict[str, set[str]]:
    """Return each module of a package with the top-level packages it imports."""
    graph = _graph()
    modules = {package, *graph.find_descendants(package)}
    return {
        module: {imported.split(".")[0] for imported in graph.find_modules_directly_imported_by(module)} for module in modules
    }


def _files() -> list[Path]:
    """Return every Python file of ours but the tests, the programs of container/ among them."""
    return sorted(
        [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
        + [ROOT / "container" / name for name in PROGRAMS]
    )


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_file = pytest.mark.parametrize("path", _files(), ids=_name)
every_package = pytest.mark.parametrize("package", PACKAGES)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imported(tree: ast.AST, *, whole: bool) -> set[str]:
    """Return the top-level packages imported; with `whole` false only those outside functions."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif whole or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found |= _imported(node, whole=whole)
    return found


def test_every_folder_with_python_has_its_import_rule() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(MAY_IMPORT)
    assert {"contract", "model", "training", "serving", "local_test"} <= folders


@every_package
def test_a_package_imports_only_those_it_may(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = {
        module: sorted(imported & set(MAY_IMPORT) - allowed)
        for module, imported in _imports_of(package).items()
        if imported & set(MAY_IMPORT) - allowed
    }
    assert not wrong


def test_contract_imports_the_standard_library_only() -> None:
    imported = set().union(*_imports_of("contract").values())
    assert imported - {"contract"} <= sys.stdlib_module_names


@every_package
def test_no_package_imports_the_tests_or_the_programs(package: str) -> None:
    assert not {"tests", "conftest", "container"} & set().union(*_imports_of(package).values())


@pytest.mark.parametrize("path", sorted((ROOT / "serving").rglob("*.py")), ids=_name)
def test_serving_imports_nothing_heavy_when_it_starts(path: Path) -> None:
    if _name(path) != DECODER.replace(".", "/") + ".py":
        assert not _imported(_tree(path), whole=False) & TOO_HEAVY


def test_the_decoder_of_parquet_is_a_program_that_nothing_imports() -> None:
    assert not _graph().find_modules_that_directly_import(DECODER)


def test_serving_imports_joblib_only_where_a_pickle_was_asked_for() -> None:
    heavy = {module: imported & TOO_HEAVY for module, imported in _imports_of("serving").items() if imported & TOO_HEAVY}
    assert heavy == {"serving.predictor": {"joblib"}, DECODER: {"arro3"}}
    tree = _tree(ROOT / "serving" / "predictor.py")
    holders = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and "joblib" in _imported(node, whole=True)
    ]
    assert holders == ["SklearnPredictor"]


@pytest.mark.parametrize("module", ["serving.server", "serving.app"])
def test_a_serving_process_has_nothing_heavy_in_memory(module: str) -> None:
    probe = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & TOO_HEAVY


def test_before_its_signal_handler_train_loads_the_standard_library_only() -> None:
    probe = "import sys, training.train; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {probe}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names) - {"contract", "training"}
    assert not {name for name in loaded if not name.startswith(("_", "sitecustomize", "usercustomize"))}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_imports_its_own_part_only(name: str) -> None:
    imported = _imported(_tree(ROOT / "container" / name), whole=True)
    assert imported - sys.stdlib_module_names <= {PROGRAMS[name]}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_can_be_started(name: str) -> None:
    path = ROOT / "container" / name
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/usr/bin/env python3\n")


# Documentation


def _public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public classes and functions of a module, and the public methods of its classes."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    item
                    for item in node.body
                    if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and not item.name.startswith("_")
                )


@every_file
def test_every_module_and_all_that_is_public_has_a_docstring(path: Path) -> None:
    tree = _tree(path)
    assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
    assert not [node.name for node in _public(tree) if not ast.get_docstring(node)]


@every_file
def test_a_file_has_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@every_file
def test_a_function_has_at_most_50_lines(path: Path) -> None:
    functions = [node for node in ast.walk(_tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 50]


@pytest.mark.parametrize("module", [serving.settings, training.settings], ids=lambda module: module.__name__)
def test_every_setting_is_documented_with_its_variable(module) -> None:
    source = _tree(Path(module.__file__))
    body = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Settings").body
    documented = {
        field.target.id: text.value.value
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert list(documented) == [field.name for field in dataclasses.fields(module.Settings)]
    read = set(re.findall(r'"([A-Z][A-Z_]{3,})"', Path(module.__file__).read_text())) - {"PORT_VARIABLES"}
    named = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", " ".join(documented.values())))
    assert all(re.search(r"\b[A-Z][A-Z_]{3,}\b", text) for text in documented.values())
    assert read <= named


# Errors


def _subclasses(cls: type[BerthError]) -> Iterator[type[BerthError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


@pytest.fixture(scope="module")
def errors() -> dict[str, type[BerthError]]:
    """Every deliberate error of ours by name, wherever it is defined."""
    for package in PACKAGES:
        for path in (ROOT / package).glob("[a-z]*.py"):
            importlib.import_module(f"{package}.{path.stem}")
    return {cls.__name__: cls for cls in _subclasses(BerthError)}


def _drawn() -> dict[str, tuple[str, int, int]]:
    """Return name -> (parent, status, exit code) as the docstring of contract/errors.py draws them."""
    found: dict[str, tuple[str, int, int]] = {}
    above = {0: "BerthError"}
    for line in (contract.errors.__doc__ or "").splitlines():
        drawn = re.match(r"^    ([│ ]{4})*[├└]── (\w+) .*?(\d{3}) +(\d+)$", line)
        if drawn:
            depth = line.index("── ") // 4
            above[depth] = drawn[2]
            found[drawn[2]] = (above[depth - 1], int(drawn[3]), int(drawn[4]))
    return found


def test_every_error_is_drawn_in_the_tree_as_it_is(errors: dict[str, type[BerthError]]) -> None:
    assert _drawn() == {name: (cls.__bases__[0].__name__, cls.status, cls.exit_code) for name, cls in errors.items()}


def test_every_error_has_a_code_of_its_own(errors: dict[str, type[BerthError]]) -> None:
    codes = [cls.code for cls in errors.values()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z_]+", code) for code in codes)


def test_users_faults_exit_1_and_ours_exit_2(errors: dict[str, type[BerthError]]) -> None:
    for cls in errors.values():
        expected = 1 if issubclass(cls, contract.errors.UserError) else 143 if cls is contract.errors.Stopped else 2
        assert cls.exit_code == expected


# The tree


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    pattern = r"(^|[^A-Za-z0-9_.-])/(work|root|Users|tmp/t[0-9])(/|\b)"
    done = subprocess.run(
        ["git", "grep", "--untracked", "-nIE", pattern, "--", ":!requirements.lock", f":!tests/{Path(__file__).name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 128:
        pytest.skip("this is no clone, so git can't list its files")
    assert done.stdout.splitlines() == []
