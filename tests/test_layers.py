"""Who may import whom: arrows point down, and gateway and shard never know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "common": {"common"},
    "gateway": {"gateway", "common"},
    "shard": {"shard", "common"},
    "cluster": {"cluster", "gateway", "shard", "common"},
}
OURS = set(MAY_IMPORT) | {"loadtests", "tests", "tools", "trackers"}
# Plain numbers, no code.
NUMBERS = {"common.counters", "common.frames", "shard.layout", "gateway.http_places", "gateway.http_texts"}
C_LIBRARY = {"cython", "libc.string"}
SYSTEM = {"contextlib", "errno", "libc.errno", "socket"}  # for the one that makes system calls
KERNELS = {
    "gateway.answerers": NUMBERS,
    "gateway.siphash": NUMBERS,
    "gateway.sources": NUMBERS,
    "gateway.records": NUMBERS | {"gateway.siphash"},
    "gateway.connections": NUMBERS | SYSTEM | {"gateway.sources", "gateway.system"},
    "gateway.http_addresses": NUMBERS,
    "gateway.http_request": NUMBERS | {"gateway.http_addresses", "gateway.sources"},
    "gateway.http_answer": NUMBERS | {"gateway.sources"},
    "gateway.http_codec": NUMBERS
    | {"gateway.connections", "gateway.http_answer", "gateway.http_request", "gateway.records", "gateway.sources"},
    "gateway.udp_codec": NUMBERS | {"gateway.records", "gateway.siphash", "gateway.sources"},
    "shard.arena": NUMBERS,
    "shard.directories": NUMBERS | {"shard.arena"},
    "shard.peers": NUMBERS | {"shard.arena", "shard.directories"},
    "shard.listing": NUMBERS | {"shard.directories", "shard.peers"},
    "shard.tables": NUMBERS | {"shard.arena"},
    "shard.ahead": NUMBERS
    | {"shard.arena", "shard.directories", "shard.listing", "shard.peers", "shard.prefetch", "shard.tables"},
    "loadtests.load.population": set(),  # it judges the tracker: nothing is shared with it
    "loadtests.load.udp_load": {"loadtests.load.population"},
    "shard.slice_store": NUMBERS | {"shard.ahead", "shard.arena", "shard.peers", "shard.listing", "shard.tables"},
}


def file_of(module):
    return ROOT / (module.replace(".", "/") + ".py")


def imported(path):
    """All modules that a file imports, wherever in it that stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found = {name for name in submodules if file_of(name).exists()}
            names |= found if found else {node.module}
    return {name.removeprefix("cython.cimports.") for name in names}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_down(package):
    assert sources(package)
    for path in sources(package):
        ours = {name.split(".")[0] for name in imported(path)} & OURS
        assert ours <= MAY_IMPORT[package], path


def test_all_kernels_are_known():
    """A file that imports cython is a kernel."""
    files = [path for package in (*MAY_IMPORT, "loadtests") for path in sources(package)]
    assert {path for path in files if "cython" in imported(path)} == {file_of(kernel) for kernel in KERNELS}


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_import_nothing_but_numbers_and_kernels(kernel):
    assert imported(file_of(kernel)) <= C_LIBRARY | KERNELS[kernel]


@pytest.mark.parametrize("module", sorted(NUMBERS))
def test_plain_numbers_import_nothing(module):
    assert imported(file_of(module)) <= NUMBERS | {"array"}


def test_the_rules_are_not_blind(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("def later():\n    from shard import service\n    import gateway.router as router\n")
    assert imported(planted) == {"shard.service", "gateway.router"}
