"""Write the reference pages from the code: `python -m deploy.reference` (or `make docs`).

A test compares the pages with what is written here, so they cannot fall behind.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from deploy import cli, configs
from schemas import metric_names

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
_MADE: Final = "<!-- Made by `make docs` from the code; edit the code. -->\n"


def pages() -> dict[str, str]:
    """Give each page's file name and text."""
    return {"settings.md": _settings(), "commands.md": _commands(), "metrics.md": _metrics()}


def write(folder: Path = FOLDER) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        _MADE,
        "Every setting is an environment variable. A service that finds wrong ones lists them all, shows no secret,",
        "and ends with status 2. A `FLAGMETER_` variable that nothing reads counts as wrong, too: most likely it is",
        "misspelt. Options of a command win over the environment.",
    ]
    for heading, cls in configs.every():
        title = f"{heading}: {cls.__name__}" if len(list(_siblings(cls))) > 1 else heading
        lines += ["", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|"]
        for name, field in configs.fields(cls):
            shown = configs.default(field)
            text = _cell(field.description or "")
            lines.append(f"| `{configs.variable(cls, name)}` | {f'`{shown}`' if shown else ''} | {text} |")
    lines += ["", "## Everywhere", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(text)} |" for name, text in configs.OTHERS.items()]
    return "\n".join(lines) + "\n"


def _siblings(cls: type[Any]) -> Iterator[type[Any]]:
    yield from configs.classes(cls.__module__)


def _commands() -> str:
    lines = ["# Commands", "", _MADE, "`flagmeter --help` and `flagmeter <command> --help` say the same."]
    context = click.Context(cli.main, info_name="flagmeter")
    for name in cli.main.list_commands(context):
        command = cli.main.get_command(context, name)
        if command is None or command.hidden:
            continue
        lines += ["", f"## flagmeter {name}", "", *_prose(command.help or "")]
        rows = [_option(parameter) for parameter in command.params if isinstance(parameter, click.Option)]
        if rows:
            lines += ["", "| option | default | meaning |", "|---|---|---|", *rows]
        if isinstance(command, cli.Documented):
            lines += ["", f"Environment variables: {', '.join(f'`{each}`' for each in command.variables())}"]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> list[str]:
    """Turn a command's help into Markdown: what click is told not to wrap becomes a block of code."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            title, _, block = paragraph.removeprefix("\b\n").partition("\n")
            lines += [title, "", "```sh", *(line.removeprefix("  ") for line in block.split("\n")), "```", ""]
        else:
            lines += [paragraph, ""]
    return lines[:-1]


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    shown = f"`{option.default:g}`" if isinstance(option.default, float) else f"`{option.default}`"
    return f"| {names} | {shown if option.show_default else ''} | {_cell(option.help or '')} |"


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        _MADE,
        "Each service shows its own under `/metrics`, in Prometheus' text format. No label holds a token, a flag or an",
        "app: their number would grow with the fleet.",
        "",
        "Where a service runs several workers, each of them shows one page for all: counters and histograms summed,",
        "also over those that died; gauges of those that run now, as the fourth column says; and `process_…` of each,",
        "with the label `worker`.",
        "",
        "| metric | kind | labels | of several workers | meaning |",
        "|---|---|---|---|---|",
    ]
    for metric in metric_names.ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        together = {"sum": "the sum", "max": "the largest"}[metric.over_workers]
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {together} | {_cell(metric.help)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    write()
