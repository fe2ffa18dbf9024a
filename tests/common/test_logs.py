import io
import json
import logging
import subprocess
import sys
import time

import pytest

from common import logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def restored():
    """Logging and the hooks of the interpreter as they were."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:], logging.raiseExceptions)
    hooks = (sys.excepthook, sys.unraisablehook, logs.threading.excepthook)
    yield
    root.level, root.handlers[:], logging.raiseExceptions = before
    sys.excepthook, sys.unraisablehook, logs.threading.excepthook = hooks
    logs._show_private = False


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_pipe_gets_an_object_a_line(restored):
    stream = io.StringIO()
    logs.set_up("info", "auto", stream)
    logging.getLogger("gateway").warning("lost %d\nof %d", 3, 5)
    logging.getLogger("gateway").debug("not shown")
    (line,) = lines(stream)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "gateway", "lost 3\nof 5")
    assert line["time"].endswith("Z")


def test_a_terminal_gets_lines_for_people(restored):
    stream = Terminal()
    logs.set_up("info", "auto", stream)
    logging.getLogger("gateway").warning("lost %d\n\x1b[31mof", 3)
    assert stream.getvalue()[8:] == " warning gateway: lost 3\\n\\x1b[31mof\n"


def test_lines_say_which_process_speaks(restored):
    stream = Terminal()
    logs.set_up("info", "human", stream, process="shard1")
    logging.getLogger("shard").warning("all is well")
    logs.set_up("info", "json", stream, process="shard1")
    logging.getLogger("shard").warning("all is well")
    first, second = stream.getvalue().splitlines()
    assert first[8:] == " warning shard1 shard: all is well"
    assert json.loads(second)["process"] == "shard1"


def test_the_format_may_be_asked_for(restored):
    stream = Terminal()
    logs.set_up("info", "json", stream)
    logging.getLogger("a").info("b")
    assert lines(stream)[0]["message"] == "b"


def test_a_line_that_repeats_is_held_back(restored, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    logs.set_up("info", "json", stream)
    for number in range(25):
        logging.getLogger("a").info("again %d", number)
    logging.getLogger("a").info("something else")
    assert [line["message"] for line in lines(stream)] == [f"again {n}" for n in range(10)] + ["something else"]
    now += logs.PERIOD
    logging.getLogger("a").info("again %d", 25)
    assert [line["message"] for line in lines(stream)][11:] == ["suppressed 15 more of: again %d", "again 25"]


def test_what_was_held_back_is_told_at_the_end(restored):
    stream = io.StringIO()
    logs.set_up("info", "json", stream)
    for _ in range(12):
        logging.getLogger("a").info("again")
    logging.getLogger().handlers[0].close()
    assert lines(stream)[-1]["message"] == "suppressed 2 more of: again"


def test_many_kinds_of_line_take_bounded_memory(restored):
    limit = logs.RateLimit()
    assert all(limit.admits(("a", str(number)), 0.0) for number in range(5000))
    assert len(limit.seen) == logs.MOST_TEMPLATES


def test_addresses_are_shown_only_if_asked_for(restored):
    stream = io.StringIO()
    logs.set_up("info", "json", stream)
    logging.getLogger("a").info("from %s", logs.Private("10.0.0.1"))
    logs.set_up("info", "json", stream, addresses=True)
    logging.getLogger("a").info("from %s", logs.Private("10.0.0.1"))
    assert [line["message"] for line in lines(stream)] == ["from (hidden)", "from 10.0.0.1"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("1 / 0", 1),
        ("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", 0),
    ],
)
def test_uncaught_exceptions_are_logged(fault, status):
    code = f"from common import logs\nlogs.set_up('info', 'json')\n{fault}"
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == status
    assert json.loads(line)["message"] == "uncaught ZeroDivisionError"
    assert "1 / 0" in json.loads(line)["exception"] or "division by zero" in json.loads(line)["exception"]


def test_an_exception_that_nobody_could_take_is_logged_with_its_place_and_counted():
    code = (
        "from common import logs\nlogs.set_up('info', 'json')\n"
        "class Leaf:\n    def __del__(self): 1 / 0\nLeaf()\nprint(logs.kernel_faults())"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    (line,) = ended.stderr.splitlines()
    assert json.loads(line)["message"].startswith("ignored ZeroDivisionError")
    assert "Leaf.__del__" in json.loads(line)["message"]
    assert ended.stdout == "1\n"
