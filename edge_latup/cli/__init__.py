"""The command line. Each command file declares options, calls one library function and prints through `output`."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from edge_latup.cli.bench import bench
from edge_latup.cli.bench_case import bench_case
from edge_latup.cli.control import control
from edge_latup.cli.demo import demo
from edge_latup.cli.doctor import doctor
from edge_latup.cli.engine import engine
from edge_latup.cli.export import export
from edge_latup.cli.gate import gate
from edge_latup.cli.import_model import import_model
from edge_latup.cli.inspect import inspect
from edge_latup.cli.networks import networks
from edge_latup.cli.output import Mode, configure, output
from edge_latup.cli.package import package
from edge_latup.cli.phantom import phantom
from edge_latup.cli.predict import predict
from edge_latup.cli.quantize import quantize
from edge_latup.cli.report import report
from edge_latup.cli.segment import segment
from edge_latup.cli.targets import targets
from edge_latup.cli.train import train
from edge_latup.cli.verify import verify
from edge_latup.errors import EdgeLatupError

app = typer.Typer(name="edge-latup", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.callback()
def _options(
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings and errors.")] = False,
) -> None:
    """Take a trained 3-D brain-tumour segmentation network to the hardware a clinic has: export, compress, benchmark, segment."""
    configure(Mode.JSON if json else Mode.QUIET if quiet else Mode.HUMAN)


for command in (demo, phantom, train, export, inspect, quantize, bench, bench_case, gate, report, segment, doctor):
    app.command()(command)
app.command("import")(import_model)
app.command()(control)
app.add_typer(targets, name="targets")
app.command()(predict)
app.command()(verify)
app.add_typer(package, name="package")
app.command()(networks)
app.command()(engine)


def main() -> None:
    """Entry point: maps this package's errors to a message, a hint and an exit code; anything else is our bug."""
    try:
        app()
    except EdgeLatupError as error:
        output.error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception:  # noqa: BLE001  (the last line of defence; the traceback is kept)
        traceback.print_exc()
        output.warning("this is a bug in edge-latup; please report it with the traceback above")
        sys.exit(1)
