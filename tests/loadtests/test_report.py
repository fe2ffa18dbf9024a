"""Reports of loads: tables as HTML and Markdown, rows of the results table."""

from html.parser import HTMLParser

import pytest

from loadtests import clusters
from loadtests.load import report
from loadtests.load.report import Report
from loadtests.load.scenarios import LATE, Latency, Result, Scenario, Verdict

PAGE = "<!DOCTYPE html>\n<html><body>\n<div>locust's</div></body></html>"


class Reader(HTMLParser):
    """The rows of all tables of a page, and whether every element is closed."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def found():
    announces = Latency(count=20_000, p50=1.5, p99=12)
    return Result(
        seconds=10.0,
        rate=2_000.0,
        latencies={"UDP announce": announces, LATE: Latency(count=9, p50=0.1, p99=0.3)},
        announces=announces,
        faults={"few": 2},
        totals={"first lost": 3, "lost": 1, "stray": 4},
        processor={"gateway": 0.1, "shard": 0.06},
        resident={"gateway": 30.0, "shard": 50.0},
        refused={"shoal_socket_drops_total": 7.0},
    )


@pytest.fixture
def make(found):
    def make(**more):
        fields = {
            "scenario": Scenario("steady", "all that <is> asked", (), ()),
            "found": {"load": found},
            "verdicts": [Verdict("every answer is right", False, "2 few"), Verdict("none is lost", True, "none")],
            "tracker": "embedded",
            "scale": 0.5,
            "workers": 2,
            "date": "2026-01-02 03:04",
            "commit": "abc1234",
            "machine": "2 cores, a | b",
            "command": "python -P -m loadtests.load.run steady",
        }
        return Report(**(fields | more))

    return make


def rows_of(markdown):
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_one_criterion_that_is_not_met_fails_the_whole(make):
    assert make().verdict == "failed"
    assert make(verdicts=[Verdict("none is lost", True, "none")]).verdict == "passed"


def test_the_page_is_locusts_with_our_tables_on_top(make):
    page = report.as_html(make(), PAGE)
    assert Reader(page).open == []
    assert page.index("Criteria") < page.index("locust's")
    assert page.startswith("<!DOCTYPE html>")


def test_the_page_shows_criteria_with_what_was_found(make):
    rows = Reader(report.as_html(make(), PAGE)).rows
    assert ["every answer is right", "2 few", "failed"] in rows
    assert ["none is lost", "none", "passed"] in rows


def test_words_on_the_page_are_no_markup(make):
    assert ["scenario", "steady: all that <is> asked"] in Reader(report.as_html(make(), PAGE)).rows


def test_processor_time_an_answer_share_of_a_core_and_memory_are_told_by_role(make):
    rows = Reader(report.as_html(make(), PAGE)).rows
    assert ["load", "gateway", "5.00", "1.0%", "30.0"] in rows
    assert ["load", "shard", "3.00", "0.6%", "50.0"] in rows
    assert ["load", "all", "8.00", "1.6%", "80.0"] in rows


def test_what_was_lost_and_wrong_is_told(make):
    assert ["load", "10.0", "2,000", "2,000", "3", "1", "4", "2 few"] in Reader(report.as_html(make(), PAGE)).rows


def test_the_delay_of_the_load_itself_is_told_apart(make):
    assert ["load", "the load itself was late", "9", "0.10", "0.30"] in Reader(report.as_html(make(), PAGE)).rows


def test_what_the_tracker_did_not_answer_is_told_in_words(make):
    told = "datagrams dropped by the system, as a socket's buffer was full"
    assert ["load", "7", told] in Reader(report.as_html(make(), PAGE)).rows


def test_of_a_tracker_that_is_not_ours_no_processes_are_told(make, found):
    found.processor, found.resident, found.refused = {}, {}, {}
    assert "Tracker's" not in report.as_markdown(make())
    assert "core" not in report.as_text(make())


def test_every_row_of_markdown_has_as_many_cells_as_its_head(make):
    for table in report.as_markdown(make()).split("\n\n"):
        assert len({row.replace("\\|", "").count("|") for row in rows_of(table)}) <= 1


def test_the_terminal_shows_each_criterion_and_the_verdict(make):
    lines = report.as_text(make()).splitlines()
    assert lines[0] == "failed: every answer is right: 2 few"
    assert "tracker, all: 8.00 us an answer, 1.6% of a core, 80.0 MiB resident" in lines
    assert lines[-1] == "steady, embedded: failed"


def test_a_results_table_is_made_and_grows_by_a_row_each_time(make, tmp_path):
    file = tmp_path / "results.md"
    report.append(file, make())
    report.append(file, make(tracker="cluster"))
    head, rule, first, second = rows_of(file.read_text())
    assert head.startswith("| date | scenario | tracker | scale | workers | answers/s | p50 ms | p99 ms |")
    assert first.startswith("| 2026-01-02 03:04 | steady | embedded | 0.5 | 2 | 2,000 | 1.50 | 12 | 1 | 2 | failed |")
    assert "| cluster |" in second
    assert head.count("|") == rule.count("|") == first.replace("\\|", "").count("|")


def test_the_commit_is_that_of_the_checkout_and_marked_if_code_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "ROOT", tmp_path)
    assert clusters.commit() == "unknown"
    (tmp_path / "docs").mkdir()
    files = [tmp_path / "code.py", tmp_path / "docs" / "results.md"]
    for file in files:
        file.write_text("old")
    named = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*named, "commit", "-q", "-m", "all"]):
        clusters.git(*words)
    head = clusters.git("rev-parse", "HEAD")
    files[1].write_text("new")
    assert clusters.commit() == head[:10]
    files[0].write_text("new")
    assert clusters.commit() == f"{head[:10]}-dirty"


def test_what_the_load_itself_costs_is_told(make):
    told = make()
    found = told.found[told.scenario.phase]
    found.load_processor = found.answers / 50_000
    (row,) = report.load_rows({"load": found})[1:]
    assert row[0] == "load"
    assert (row[1], row[3]) == ("20.00", "50,000")
    found.load_processor = 0
    assert report.load_rows({"load": found})[1:] == []
