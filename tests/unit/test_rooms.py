"""Imports point downward only, and nothing but ``storage`` opens URLs or writes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "splicestore"

# Who may import whom; a room may always import itself. Lower rooms come first.
ROOMS = {
    "errors": set(),
    "config": {"errors", "schema"},
    "schema": {"errors"},
    "memory": set(),
    "kernels": {"errors", "schema"},
    "storage": {"errors", "schema"},
    "cluster": {"errors"},
    "tasks": {"cluster", "errors", "memory", "storage"},
    "readers": {"errors", "schema", "kernels", "storage", "config"},
    "models": {"errors", "schema", "storage", "kernels"},
    "opened": {"errors", "storage"},
    "genome": {"errors", "schema", "kernels", "storage", "opened", "windows"},
    "windows": {"errors", "schema", "kernels", "genome"},
    "splits": {"genome", "opened", "schema", "storage"},
    "predictions": {"errors", "genome", "opened", "storage"},
    "expression": {"errors", "kernels", "opened", "schema", "storage"},
    "normalized": {"errors", "expression", "storage"},
    "store": {"errors", "expression", "genome", "normalized", "splits", "predictions", "storage"},
}
VIEWS = {"genome", "windows", "splits", "predictions", "expression", "normalized", "store"}
LOW = {"errors", "schema", "memory", "kernels", "storage", "cluster", "tasks", "config"}
SERVICES = {
    "ingest": LOW | {"readers", "expression"},
    "split": LOW | {"readers"} | VIEWS,
    "normalize": LOW | {"readers"} | VIEWS,
    "stream": LOW | VIEWS,
    "train": LOW | {"models", "stream"} | VIEWS,
    "predict": LOW | {"models", "stream"} | VIEWS,
    "export": LOW | {"models"} | VIEWS,
    "report": LOW | VIEWS,
    "maintenance": LOW | VIEWS,
    "alignments": LOW | {"readers"},
    "simulate": {"errors", "kernels", "schema", "storage", "memory"},
}
ALLOWED = ROOMS | SERVICES


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    rooms = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("splicestore.") and name.count(".") >= 1}
    return rooms


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    room = room_of(path)
    if room in ("cli", "__init__", "__main__"):
        return
    wrong = imported_rooms(ast.parse(path.read_text())) - ALLOWED[room] - {room}
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


WRITERS = {
    "write_text",
    "write_bytes",
    "mkdir",
    "touch",
    "unlink",
    "replace_file",
    "rmtree",
    "memmap",
    "savetxt",
    "to_csv",
    "save",
}
# Text buffers are no files: to_csv into a StringIO.
BUFFERED = {"export/splicevo.py": {"to_csv"}, "export/embeddings.py": {"save"}}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_storage_opens_and_writes(path):
    relative = str(path.relative_to(PACKAGE))
    if room_of(path) == "storage":
        return
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "open":
                found.append((node.lineno, "open"))
            if isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if owner == "output" or node.func.attr not in WRITERS:
                    continue
                if node.func.attr in BUFFERED.get(relative, set()) or (owner == "torch" and node.func.attr == "save"):
                    continue
                found.append((node.lineno, node.func.attr))
    assert not found, f"{relative}: {found}"


def test_import_is_light():
    code = (
        "import sys, splicestore\n"
        "heavy = [m for m in ('torch', 'distributed', 'h5py', 'matplotlib', 'numba', 'dask') if m in sys.modules]\n"
        "print(','.join(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_there():
    import splicestore

    assert sorted(splicestore.__all__) == splicestore.__all__
    for name in splicestore.__all__:
        assert getattr(splicestore, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = splicestore.nonsense
