import pytest

from cep.cli import COMMANDS, main


def test_help_names_every_command_and_shows_an_example(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert "Example:" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: cep {name}" in shown
    assert f"  cep {name}" in shown.partition("Example")[2]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["repaly"], "error: No such command: 'repaly'"),
        (["--verbose"], "error: No such option: '--verbose'"),
        (["version", "--jsno"], "error: No such option: --jsno"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(words, line, capsys):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1


def test_a_mistyped_command_is_told_the_near_one(capsys):
    main(["repaly"])
    assert "Did you mean `cep replay`?" in capsys.readouterr().err


def test_cep_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("CEP_DEBUG", "1")
    with pytest.raises(ValueError, match="No such command: 'x'"):
        main(["x"])


def test_version_prints_ours_first(capsys):
    import cep

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"cep {cep.__version__}\npython 3")
