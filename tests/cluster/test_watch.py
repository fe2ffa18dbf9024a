"""`shoal status --watch`: on a terminal, in a pipe and for programs; and the bars that it draws."""

import json
import signal
import subprocess

import pytest
from processes import COMMAND, Cluster, shoal, shoal_json, shoal_refuses, until
from rich.console import Console
from terminal import Terminal
from told_shards import cluster as made
from told_shards import told

from cluster.moves import Moves


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A gateway and two shards."""
    with Cluster(tmp_path_factory.mktemp("watch"), gateways=1, shards=2) as cluster:
        until(lambda: shoal_json("status", "--config", cluster.file)[1]["ok"])
        yield cluster


class Piped:
    """A command whose output is read through a pipe."""

    def __init__(self, *arguments):
        command = [*COMMAND, "cluster", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def line(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line.rstrip("\n")

    def until(self, start):
        while not (line := self.line()).startswith(start):
            pass
        return line

    def interrupted(self):
        """Exit status and what is on standard error, after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error


# Looks


def test_in_a_pipe_one_status_follows_another(running):
    with Piped("status", "--watch", "--interval", "0.2", "--config", running.file) as piped:
        for _ in range(3):
            assert piped.until(f"{running.file}: version 1, 1 node, 1024 slices")
            assert piped.until("all is well")
            assert piped.until("shard1 ")
        assert piped.interrupted() == (0, "")


def test_programs_get_a_document_a_line(running):
    with Piped("status", "--watch", "--json", "--interval", "0.2", "--config", running.file) as piped:
        for _ in range(3):
            document = json.loads(piped.line())
            assert (document["ok"], len(document["shards"])) == (True, 2)
        assert piped.interrupted() == (0, "")


def test_on_a_terminal_it_is_drawn_in_place(running):
    with Terminal("status", "--watch", "--interval", "0.2", "--config", running.file) as terminal:
        for _ in range(3):
            terminal.until(r"all is well(.|\n)*shard2 +\d+")
        assert "\x1b[1A" in terminal.raw  # back to the first line of the last one
        terminal.interrupt()
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.shown


def test_a_terminal_that_cannot_go_back_gets_one_after_another(running):
    with Terminal("status", "--watch", "--interval", "0.2", "--config", running.file, kind="dumb") as terminal:
        for _ in range(2):
            terminal.until("all is well")
        assert "\x1b" not in terminal.raw
        terminal.interrupt()
        assert terminal.ended() == 0


def test_an_edit_of_the_file_is_followed(tmp_path):
    """A watch that compared with what the file was at its start would tell wrong of everybody."""
    arguments = ("status", "--watch", "--json", "--interval", "0.2", "--config", tmp_path / "vps1.yaml")
    with Cluster(tmp_path, gateways=1, shards=2) as cluster, Piped(*arguments) as piped:
        until(lambda: json.loads(piped.line())["ok"])
        text = cluster.file.read_text()
        cluster.file.write_text("version: [")
        broken = until(lambda: (look := json.loads(piped.line()))["problems"] and look)
        assert broken["problems"][0].startswith(f"{cluster.file}: ")
        assert (broken["ok"], broken["config"]["version"]) == (False, 1)
        cluster.file.write_text(json.dumps(json.loads(text) | {"version": 2}))
        until(lambda: (look := json.loads(piped.line()))["ok"] and look["config"]["version"] == 2)
        assert piped.interrupted() == (0, "")


def test_mistakes_end_it(running, tmp_path):
    assert "no such file" in shoal_refuses("status", "--watch", "--config", tmp_path / "no.yaml")
    assert "--node: expected " in shoal_refuses("status", "--watch", "--node", "x", "--config", running.file)


@pytest.mark.parametrize("interval", ["0", "0.1", "x", "-1", "1 week", ""])
def test_an_interval_that_is_none_is_refused(running, interval):
    ended = shoal("status", "--watch", "--interval", interval, "--config", running.file)
    assert ended.returncode == 2
    assert "--interval" in ended.stderr


# Bars


def drawn(moves, shards):
    console = Console(width=120)
    with console.capture() as capture:
        for part in moves.parts(shards):
            console.print(part)
    return capture.get()


def moving(left, of=0, leaving=0, part=None, boot="1", since_ms=0, uptime_s=1000, **counts):
    """What a shard says that fills so many slices, and has some to leave."""
    return {
        "copies": {"fill": {"of": of, "left": left, "since_ms": since_ms}, "counts": counts, "sources": []},
        "slices": {"full": 1, "part": left if part is None else part, "leaving": leaving, "wanted": 1},
        "boot": boot,
        "uptime_s": uptime_s,
    }


def test_nothing_is_drawn_when_nothing_moves():
    assert drawn(Moves(), told(made(2), shard1=moving(0), shard2=None)) == ""


def test_a_fill_is_drawn_with_what_came_since_the_look_before():
    moves, wanted = Moves(), made(2)
    assert drawn(moves, told(wanted, shard1=moving(0, bytes=1000, merged=10), shard2=moving(0))) == ""
    shown = drawn(moves, told(wanted, shard1=moving(30, of=40, bytes=3048, merged=17), shard2=moving(0)))
    assert "shard1 fills" in shown
    assert "10 of 40 slices 2.0 KiB, 7 peers" in shown
    shown = drawn(moves, told(wanted, shard1=moving(5, of=45, bytes=1000 + (5 << 20), merged=5010), shard2=moving(0)))
    assert "40 of 45 slices 5.0 MiB, 5,000 peers" in shown
    assert drawn(moves, told(wanted, shard1=moving(0, bytes=1 << 30), shard2=moving(0))) == ""
    shown = drawn(moves, told(wanted, shard1=moving(9, of=9, bytes=(1 << 30) + 10, merged=0), shard2=moving(0)))
    assert "0 of 9 slices 10 B" in shown


def test_all_that_a_new_shard_has_got_is_of_its_fill():
    """It began with its life: the watch may have begun later."""
    shown = drawn(Moves(), told(made(1), shard1=moving(30, of=40, since_ms=59_000, uptime_s=60, bytes=512, merged=1)))
    assert "10 of 40 slices 512 B, 1 peer" in shown
    shown = drawn(Moves(), told(made(1), shard1=moving(30, of=40, since_ms=9_000, uptime_s=60, bytes=512, merged=1)))
    assert "10 of 40 slices 0 B, 0 peers" in shown


def test_a_shard_that_starts_again_begins_anew():
    moves = Moves()
    drawn(moves, told(made(1), shard1=moving(0, bytes=5000)))
    again = moving(3, of=4, boot="2", since_ms=900, uptime_s=1, bytes=100, merged=2)
    assert "1 of 4 slices 100 B, 2 peers" in drawn(moves, told(made(1), shard1=again))


def test_what_leaves_is_drawn():
    moves = Moves()
    assert "shard1 hands over" in drawn(moves, told(made(1), shard1=moving(0, leaving=20, part=4)))
    shown = drawn(moves, told(made(1), shard1=moving(0, leaving=6)))
    assert "18 of 24 slices" in shown
    assert drawn(moves, told(made(1), shard1=moving(0))) == ""


def test_an_interval_without_a_watch_is_refused():
    assert shoal_refuses("status", "--interval", "3s") == "shoal: --interval: expected --watch beside it, found none"


def test_a_screen_that_is_too_low_says_so(running):
    with Terminal("status", "--watch", "--interval", "0.2", "--config", running.file, rows=10) as terminal:
        terminal.until(r"\.\.\. \d+ more lines: a higher terminal shows them, or a pipe")
        terminal.interrupt()
        assert terminal.ended() == 0
