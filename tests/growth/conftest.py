"""The figures of tests of growth, as a table below all else."""

from growth import announcing


def pytest_terminal_summary(terminalreporter):
    """What was told, in the order of the tests."""
    if not announcing.told:
        return
    terminalreporter.section("growth")
    for row in (announcing.COLUMNS, ["---"] * len(announcing.COLUMNS), *announcing.told):
        terminalreporter.write_line(f"| {' | '.join(row)} |")
