"""The house's order: who may import whom, what may be loaded when, and what stands at the top level."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layers from the bottom up; a line is a family. A module may import from lower layers and, without going in circles,
# from its own family. A package's modules belong to the package's line.
LAYERS = (
    (("errors", "values"),),
    (("radiographs",), ("metrics",), ("local_contrast", "backbones", "checkpoints", "starts"), ("phantoms",)),
    (("wrist",), ("datasets",), ("classifier",), ("figures",)),
    (("explain",), ("quality",), ("originals",)),
    (("reading", "results"), ("measured",)),
    (("predict",), ("evaluate", "train", "appraise")),
    (("benchmark",),),
)
PLACE = {module: (level, family) for level, families in enumerate(LAYERS) for family in families for module in family}

# Seconds to import, so imported inside functions.
SLOW = ("tensorflow", "keras", "tf_keras_vis")
NOT_ON_IMPORT = (*SLOW, "streamlit", "scipy", "sklearn", "pandas", "imagecodecs")
TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "checkpoints",
    "core",
    "pages",
    "requirements.txt",
    "streamlit_app.py",
    "tests",
}

CORE = sorted(path for path in (ROOT / "core").rglob("*.py") if "__pycache__" not in path.parts)
SCREEN = [ROOT / "streamlit_app.py", *sorted((ROOT / "pages").rglob("*.py"))]


def name_of(path: Path) -> str:
    """Return a module's dotted name: core.phantoms for core/phantoms/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(nodes, package: str = "core") -> set[str]:
    """Return the absolute dotted names that import statements among `nodes` may load."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def at_import(body):
    """Yield the statements that run when a module is imported: no functions, nothing for type checkers alone."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield node
        for inner in ("body", "orelse", "finalbody", "handlers"):
            yield from at_import(getattr(node, inner, []))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


def parts_of_core(path: Path) -> set[str]:
    """Return the modules of core that the module at `path` imports anywhere, a package counting as one."""
    names = imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), package_of(path))
    modules = {name.split(".")[1] for name in names if name.startswith("core.")}
    return {module for module in modules if (ROOT / "core" / module).is_dir() or (ROOT / f"core/{module}.py").exists()}


def violations(module: str, imports: set[str]) -> list[str]:
    level, family = PLACE[module]
    # A module without a place is reported by its own test.
    return sorted(other for other in imports - set(family) if other in PLACE and PLACE[other][0] >= level)


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_module_imports_only_from_lower_layers(path):
    module = name_of(path).partition(".")[2].partition(".")[0]
    if not module:
        assert not parts_of_core(path)
        return
    assert module in PLACE, f"core/{module} has no place among the layers of this test yet"
    assert violations(module, parts_of_core(path)) == []


def test_the_check_of_layers_sees_a_violation():
    assert violations("radiographs", {"errors", "values"}) == []
    assert violations("radiographs", {"classifier"}) == ["classifier"]
    assert violations("metrics", {"phantoms"}) == ["phantoms"]
    relative = ast.parse("def f():\n    from .. import explain\n    from ..wrist import x")
    assert {"core.explain", "core.wrist"} <= imported(ast.walk(relative), "core.phantoms")


def test_no_module_imports_in_circles():
    graph = {}
    for path in CORE:
        module = name_of(path).partition(".")[2].partition(".")[0]
        graph.setdefault(module, set()).update(parts_of_core(path) - {module})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", CORE + SCREEN, ids=name_of)
def test_slow_packages_are_not_imported_at_module_level(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loaded = {name.split(".")[0] for name in imported(at_import(tree.body))}
    assert not loaded & set(SLOW)
    if path in CORE:
        everywhere = {name.split(".")[0] for name in imported(ast.walk(tree))}
        assert "streamlit" not in everywhere


def test_the_check_of_module_level_sees_through_blocks():
    source = "try:\n    import keras\nexcept ImportError:\n    pass\nclass A:\n    import tensorflow as tf\n"
    assert imported(at_import(ast.parse(source).body)) == {"keras", "tensorflow"}
    hidden = "if TYPE_CHECKING:\n    import keras\ndef f():\n    import tensorflow\n"
    assert imported(at_import(ast.parse(hidden).body)) == set()


def test_importing_everything_and_asking_for_help_loads_no_tensorflow():
    modules = [name_of(path) for path in CORE if path.name != "__main__.py"]
    commands = [name_of(path) for path in CORE if path.name != "__main__.py" and "__main__" in path.read_text("utf-8")]
    commands += [name_of(path.parent / "__init__.py") for path in CORE if path.name == "__main__.py"]
    assert {"core.checkpoints", "core.phantoms", "core.predict"} <= set(commands)
    script = f"""
import contextlib, importlib, io, runpy, sys, warnings
warnings.simplefilter("ignore")
for name in {modules}:
    importlib.import_module(name)
for name in {commands}:
    sys.argv = [name, "--help"]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        print(name, "did not stop at --help")
    except SystemExit as end:
        if end.code or "usage" not in text.getvalue():
            print(name, "has no --help", end.code)
print("loaded", sorted(set(sys.modules) & set({NOT_ON_IMPORT})))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "loaded []\n"


def test_top_level_holds_what_the_layout_names():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {entry for entry in top if not entry.startswith(".")} <= TOP_LEVEL
