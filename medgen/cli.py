"""The `medgen` command: its groups of commands, and one line on stderr for every failure.

Knows which commands there are and the exit codes; what they take and show is in
`medgen.commands`, what they do in `medgen.graphs` and the rooms below, imported only when a
command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from medgen.commands import (
    dataset,
    doctor,
    drawing,
    feedback,
    importing,
    knowledge,
    measuring,
    planning,
    rlhf,
    serving,
    studio,
    synthesizing,
    tables,
    tracing,
    training,
)
from medgen.commands.shared import DEBUG, FAILED, UNACCEPTABLE_ARGUMENTS, examples
from medgen.console.text import one_line
from medgen.errors import MedgenError


def _fail(message: object, code: int) -> NoReturn:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.exit(code)


class OneLineErrors(TyperGroup):
    """A command group whose every failure is one line on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit: 0 done, 1 failure, 2 bad input, 3 fewer accepted."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except MedgenError as error:
            _fail(error, error.exit_code)
        except typer.Abort:
            _fail("interrupted", FAILED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except Exception as error:
            # Usage errors, known by their shape: some typer releases carry a click of their own.
            if hasattr(error, "format_message") and hasattr(error, "ctx"):
                context = error.ctx
                if context and not error.format_message().strip():  # a group without a command
                    typer.echo(context.get_help())
                    sys.exit(0)
                where = f" (see: {context.command_path} --help)" if context else ""
                _fail(f"{error.format_message()}{where}", UNACCEPTABLE_ARGUMENTS)
            hint = "" if os.environ.get(DEBUG) else f"; set {DEBUG}=1 to see the traceback"
            _fail(f"{type(error).__name__}: {error}{hint}", FAILED)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=examples(
        'medgen agent "cardiomegaly, chest X-ray"',
        'medgen generate "glioma, brain MRI" -n 4 --seed 7 --out pictures',
        "medgen doctor",
    ),
)
# The order is that of `medgen --help`.
for group in (drawing, planning, synthesizing, measuring, training, studio, serving, doctor):
    app.registered_commands.extend(group.commands.registered_commands)
knowledge.commands.add_typer(importing.commands, name="import")
app.add_typer(knowledge.commands, name="knowledge")
app.add_typer(tables.commands, name="data")
app.add_typer(dataset.commands, name="dataset")
app.add_typer(tracing.commands, name="trace")
app.add_typer(feedback.commands, name="feedback")
app.add_typer(rlhf.commands, name="rlhf")


@app.callback(invoke_without_command=True)
def medgen(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Synthetic medical images: reasoned about, drawn, checked by measurement, explained.

    For research and teaching, never for diagnosis.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"medgen {installed('medgen')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main() -> None:
    """Entry point of the `medgen` script."""
    # OpenMP's threads spin while they wait for each other; on a busy machine they wait for one that
    # is not running. So they spin briefly (tests/bench/waiting_threads.py). Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app()


if __name__ == "__main__":
    main()
