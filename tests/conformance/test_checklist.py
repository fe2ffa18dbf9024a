"""Every line of the checklist that this version serves has a test of its name."""

import re
from pathlib import Path

RANGES = ((1, 45), (47, 54), (56, 98), (100, 111), (131, 135), (137, 137), (139, 146))


def test_every_line_has_a_test():
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    tested = {int(number) for number in re.findall(r"^def test_c(\d+)_", text, re.M)}
    assert tested == {number for first, last in RANGES for number in range(first, last + 1)}
