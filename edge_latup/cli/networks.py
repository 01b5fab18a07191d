"""`edge-latup networks`: the networks this package builds, their cost, and what the literature says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_latup.cli.output import output

if TYPE_CHECKING:
    from edge_latup.export.network_index import KnownNetwork

COLUMNS: Final = ("name", "reference", "outputs", "parameters", "GMAC, computed", "input")


def networks() -> None:
    """List the networks that can be trained, exported and inspected by name, with computed cost and remarks on published figures."""
    from edge_latup.export.network_index import known_networks

    known = known_networks()
    output.table("Networks (edge-latup train --network NAME, inspect --network NAME)", COLUMNS, [_row(one) for one in known], left=3)
    for one in known:
        output.line(f"{one.name}: {one.title}. {one.address}")
        for line in (f"reading: {one.reading}", *one.remarks(), f"licence: {one.licence}"):
            output.line(f"  {line}")
    output.result([{**one.model_dump(mode="json"), "outputs": one.outputs} for one in known])


def _row(one: KnownNetwork) -> list[str]:
    shape = "x".join(map(str, one.cost_input))
    return [one.name, one.reference, one.outputs, f"{one.parameters:,}", f"{one.macs / 1e9:,.2f}", shape]
