"""Users of the load against trackers on real sockets: one that is right, others that are wrong on purpose."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from model_tracker import served

DRIVE = Path(__file__).with_name("drive.py")
PART = {"kind": "udp", "rate": 700, "torrents": 100, "sources": 4, "ports": 100, "stops": 0.1, "completes": 0.05}
RIGHT = ""
FILLED = "filled"  # over UDP, for a load over HTTP, by a tracker that is wrong
FOUND_AS = {
    "forgets": {"seeders", "leechers"},
    "strangers": {"stranger"},
    "half": {"few"},
    "own": {"own"},
    "twice": {"twice"},
    "departed": {"departed"},
    "roles": {"role"},
    "counts": {"leechers"},
    "errors": {"error"},
    "garbage": {"malformed"},
}
PARTS = {
    RIGHT: PART | {"scrapes": 0.1},
    "forgets": PART | {"ports": 300},  # one announce of a thousand
    FILLED: PART | {"kind": "http-oneshot", "fill_by_udp": True, "connects": 0, "rate": 1, "tries": 0},
}


def drive(parts):
    command = [sys.executable, "-P", DRIVE, "1.5", json.dumps(parts)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)


@pytest.fixture(scope="module")
def found():
    """What was found of each tracker, by its fault; all at once, as each takes a second or two."""
    with ExitStack() as stack:
        ports = {fault: stack.enter_context(served(fault)) for fault in (RIGHT, *FOUND_AS)}
        ports[FILLED] = stack.enter_context(served("twice"))
        told = drive({port: PARTS.get(fault, PART) for fault, port in ports.items()})
    return {fault: told[str(port)] for fault, port in ports.items()}


def test_a_right_tracker_has_no_faults(found):
    assert found[RIGHT]["faults"] == {}
    assert found[RIGHT]["present"] > 100


def test_every_answer_has_a_latency_of_its_own(found):
    kinds = found[RIGHT]["answers"]
    assert min(kinds["UDP connect"], kinds["UDP announce"], kinds["UDP scrape"]) > 0
    assert found[RIGHT]["total"] == kinds["UDP connect"] + kinds["UDP announce"] + kinds["UDP scrape"]
    assert kinds["load sent late"] == found[RIGHT]["totals"]["sent"]


def test_what_was_wrong_while_others_filled_is_told(found):
    assert found[FILLED]["faults"]["twice"] > 100


@pytest.mark.parametrize("fault", FOUND_AS)
def test_a_planted_fault_is_found(found, fault):
    assert FOUND_AS[fault] & set(found[fault]["faults"])
