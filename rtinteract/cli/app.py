"""The commands, gathered."""

from __future__ import annotations

import logging

import typer

from rtinteract.cli import demo, doctor, infer, tools, train

app = typer.Typer(
    help="Two-person motion in real time: one person's motion in, the other person's reaction out.\n\n"
         "Start with `rtinteract demo`; then `rtinteract react YOUR.bvh --out reaction.glb`.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _settings(verbose: bool = typer.Option(False, "--verbose", "-v", help="Say what readers assumed and mended.")) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


app.command()(demo.demo)
app.command()(infer.react)
app.command()(infer.generate)
app.command()(infer.stream)
app.add_typer(train.train_app, name="train")
app.add_typer(train.data_app, name="data")
app.command()(train.evaluate)
app.command("import-intermask")(tools.import_intermask)
app.command()(tools.view)
app.command()(doctor.doctor)
