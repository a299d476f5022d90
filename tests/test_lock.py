"""requirements.lock against pyproject.toml."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()


def name_of(requirement):
    return re.split(r"[\[<>=;! ]", requirement, maxsplit=1)[0]


def test_what_the_tests_need_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = set(project["dependencies"])
    for extra in ("dev", "notebook", "stats"):
        wanted |= set(extras[extra])
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, flags=re.MULTILINE))
    assert {name_of(requirement) for requirement in wanted} <= locked


def test_every_requirement_has_a_hash():
    entries = re.split(r"\n(?=\S)", LOCK)
    entries = [entry for entry in entries if not entry.startswith("#")]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_host_and_no_path_is_named():
    assert not re.search(r"https?:|index-url|find-links|^/|[ =]/", LOCK, re.MULTILINE)
