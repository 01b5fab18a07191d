"""Options of `edge-latup quantize` for exact rewrites of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edge_latup.cli.output import output
from edge_latup.errors import InputError

if TYPE_CHECKING:
    from edge_latup.quantize.surgery.plan import Rewriting

Passes = Annotated[
    str | None,
    typer.Option(help="Passes that rewrite tries, with commas between; all of them with all. Those that never add work unless given."),
]
Measure = Annotated[
    bool, typer.Option("--measure/--no-measure", help="Time each pass on the runtime and keep it only where it is not slower.")
]
TrustBatchNorm = Annotated[
    bool, typer.Option("--trust-batch-norm", help="Fold batch norms also where every mean is 0 and every variance 1.")
]
Rewrite = Annotated[
    str | None, typer.Option(help="auto: compress the graph as it is and rewritten, time both, keep the rewritten one unless it is slower.")
]


def rewriting_of(method: str, passes: str | None, measure: bool, trust: bool, rewrite: str | None) -> Rewriting | None:
    """What the options ask for; None where the method rewrites nothing.

    Raises:
        InputError: options of a rewrite without one, an unknown pass, or a --rewrite that is not auto.
    """
    from edge_latup.quantize.surgery.measure import Effort
    from edge_latup.quantize.surgery.passes import PASSES, choose_passes
    from edge_latup.quantize.surgery.plan import Rewriting

    if rewrite not in (None, "auto"):
        raise InputError(f"--rewrite {rewrite!r} is not known", "write --rewrite auto, or leave it out")
    if rewrite and method == "rewrite":
        raise InputError("--rewrite auto is for methods that compress", "leave it out: --method rewrite measures by itself")
    if method != "rewrite" and not rewrite:
        if passes or trust or not measure:
            raise InputError(
                f"{method} rewrites no graph", "leave out --passes, --no-measure and --trust-batch-norm, or add --rewrite auto"
            )
        return None
    if rewrite and not measure:
        raise InputError("--rewrite auto keeps what was measured to be faster", "leave out --no-measure")
    asked = tuple(PASSES) if passes == "all" else tuple(name.strip() for name in (passes or "").split(",") if name.strip())
    choose_passes(asked)
    return Rewriting(passes=asked, effort=Effort() if measure else None, trust_batch_norm=trust, tell=output.note)
