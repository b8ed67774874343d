"""The commands, gathered."""

from __future__ import annotations

import logging

import typer

import rtinteract
from rtinteract.cli import ablations, bench, demo, doctor, evaluate, infer, live, prompts, quantize, tools, train


class _Plain(logging.Formatter):
    """`warning: ...`, in one line, as the errors look."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"


app = typer.Typer(
    help="Two-person motion in real time: one person's motion in, the other person's reaction out.\n\n"
         "Start with `rtinteract demo`; then `rtinteract react YOUR.bvh --out reaction.glb`. Every command explains itself: "
         "`rtinteract react --help`.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"rtinteract {rtinteract.__version__}")
        raise typer.Exit


@app.callback()
def _settings(verbose: bool = typer.Option(False, "--verbose", "-v", help="Say what readers assumed and mended."),
              version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True,
                                           callback=_version)) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


app.command()(demo.demo)
app.command()(infer.react)
app.command()(infer.generate)
app.command()(live.stream)
app.add_typer(train.train_app, name="train")
train.train_app.command()(ablations.ablations)
app.add_typer(train.data_app, name="data")
app.command()(evaluate.evaluate)
app.command("import-intermask")(tools.import_intermask)
app.command("import-clip")(tools.import_clip)
app.command("import-evaluator")(evaluate.import_evaluator)
app.add_typer(prompts.prompts_app, name="prompts")
app.command()(tools.view)
app.command()(quantize.quantize)
app.command()(bench.bench)
app.command()(doctor.doctor)
