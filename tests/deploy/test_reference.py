import click
import pytest

from deploy import cli, configs, reference
from schemas import metric_names


@pytest.mark.parametrize("name", reference.pages())
def test_the_reference_is_up_to_date(name):
    page = reference.FOLDER / name
    assert page.read_text(encoding="utf-8") == reference.pages()[name], "run `make docs`"


def test_every_variable_is_documented():
    text = reference.pages()["settings.md"]
    assert [name for name in configs.variables() if f"`{name}`" not in text] == []


def test_every_command_and_option_is_documented():
    text = reference.pages()["commands.md"]
    for name, command in cli.main.commands.items():
        assert f"## flagmeter {name}\n" in text
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"`{option.opts[0]}`" in text


def test_every_metric_is_documented():
    text = reference.pages()["metrics.md"]
    assert len(metric_names.ALL) > 20
    for metric in metric_names.ALL:
        assert f"| `{metric.name}` | {metric.kind} |" in text


def test_the_pages_do_not_depend_on_the_machine(monkeypatch):
    before = reference.pages()
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "1")
    monkeypatch.setenv("COLUMNS", "40")
    assert reference.pages() == before
    assert str(reference.FOLDER.parent.parent) not in "".join(before.values())


def test_pages_are_written_where_they_belong(tmp_path):
    reference.write(tmp_path / "a" / "b")
    assert sorted(page.name for page in (tmp_path / "a" / "b").iterdir()) == [
        "commands.md",
        "metrics.md",
        "settings.md",
    ]
