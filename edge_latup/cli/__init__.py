"""The command line. Each command file declares options, calls one library function and prints through `output`."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from edge_latup.cli.bench import bench
from edge_latup.cli.bench_case import bench_case
from edge_latup.cli.bench_network import bench_network
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
from edge_latup.errors import EdgeLatupError, InputError

ANYWHERE: Final = ("--json", "--quiet")
NO_BUGS: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""What a file system refuses: for the user to mend, not for us."""
ROAD: Final = (
    "demo", "phantom", "train", "networks", "export", "import", "inspect", "quantize", "control", "bench", "bench-case", "bench-network",
    "gate", "predict", "report", "engine", "segment", "package", "verify", "targets", "doctor",
)  # fmt: skip
"""The order of the help: that in which a network takes them."""


class Road(TyperGroup):
    """Commands in the order of the road, and the application's own options behind a command's name too."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names as the help lists them; Typer by itself puts groups last."""
        return sorted(super().list_commands(ctx), key=ROAD.index)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options of the application stand before the command's name for the parser, wherever they were typed. Behind `--` all is data."""
        end = args.index("--") if "--" in args else len(args)
        own = [word for word in args[:end] if word in ANYWHERE]
        return super().parse_args(ctx, own + [word for word in args[:end] if word not in ANYWHERE] + args[end:])


app = typer.Typer(name="edge-latup", cls=Road, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _show_version(asked: bool) -> None:
    if asked:
        from edge_latup.versions import version_of

        typer.echo(f"edge-latup {version_of('edge-latup')}")
        raise typer.Exit


@app.callback()
def _options(
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; also behind the command's name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings and errors; also behind the command's name.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Take a trained 3-D brain-tumour segmentation network to the hardware a clinic has: export, compress, benchmark, segment."""
    configure(Mode.JSON if json else Mode.QUIET if quiet else Mode.HUMAN)


for command in (
    demo, phantom, train, networks, export, inspect, quantize, control, bench, bench_case, bench_network, gate, predict, report, engine,
    segment, verify, doctor,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_model)
app.add_typer(targets, name="targets")
app.add_typer(package, name="package")


def main() -> None:
    """Entry point: maps this package's errors to a message, a hint and an exit code; anything else is our bug."""
    try:
        app()
    except EdgeLatupError as error:
        output.error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_BUGS:
            _report_bug()
        where = f"{error.filename}: " if error.filename else ""
        remedy = "choose another file or folder, free some space, or ask for the rights"
        refusal = InputError(f"{where}{error.strerror or error}", remedy)
        output.error(refusal)
        sys.exit(refusal.exit_code)
    except Exception:  # noqa: BLE001  (the last line of defence; the traceback is kept)
        _report_bug()


def _report_bug() -> NoReturn:
    traceback.print_exc()
    output.warning("this is a bug in edge-latup; please report it with the traceback above")
    sys.exit(1)
