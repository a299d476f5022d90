"""The README's Python runs, and its commands are what CI calls."""

import re
from pathlib import Path

import pytest

from cep.rules import Rule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_in_the_readme_runs(number, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {"__name__": f"readme_{number}"}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
    if "@rule" in BLOCKS[number]:
        assert sum(isinstance(value, Rule) for value in names.values()) == 3


def test_each_command_stands_on_one_line_of_its_own():
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [line.rpartition(" && ")[2] for line in lines] == [
        ".venv/bin/cep demo",
        ".venv/bin/pytest -n 2 --dist loadfile",
    ]
