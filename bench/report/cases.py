"""What is said of cases: the table of every case, the pictured case's figures, and whom to credit for real cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_latup.bench.columns import Column
from edge_latup.bench.records import CaseDrift, DriftRecord, RegionDrift
from edge_latup.bench.store import LoadedRun
from edge_latup.bench.summary import volume_change
from edge_latup.bench.table import Table, make_table
from edge_latup.cases.identity import CaseOrigin
from edge_latup.spec import Region

BRATS_PREFIX: Final = "brats"
BRATS_CREDIT: Final = (
    "Cases named BraTS are taken to be from the RSNA-ASNR-MICCAI BraTS 2021 challenge data, CC BY 4.0 (The Cancer Imaging Archive), "
    "whose data usage policy applies downstream: never try to identify a participant.",
    "Baid U. et al. (2023) RSNA-ASNR-MICCAI-BraTS-2021 Dataset. The Cancer Imaging Archive. DOI 10.7937/jc8x-9874.",
    "Baid U. et al. (2021) arXiv:2107.02314.",
    "Menze B. H. et al. (2015) IEEE Transactions on Medical Imaging 34(10):1993-2024.",
    "Bakas S. et al. (2017) Scientific Data 4:170117.",
    "Clark K. et al. (2013) Journal of Digital Imaging 26:1045.",
)
PSEUDO_LABEL_CREDIT: Final = (
    "The pseudo-label of a BraTS case is not ground truth: it is the output of a winning algorithm of the 2023 challenge "
    "(Ferreira A. et al., arXiv:2402.17317)."
)


@dataclass(frozen=True, kw_only=True)
class CaseLine:
    """What a line of the case table is read from."""

    case: CaseDrift
    region: Region
    drift: RegionDrift


CASE_COLUMNS: Final[tuple[Column[CaseLine], ...]] = (
    Column(name="case", header="case", about="Name of the case.", value=lambda line: line.case.case),
    Column(name="origin", header="origin", about="Where image and label come from.", value=lambda line: line.case.origin),
    Column(name="region", header="region", about="WT, TC or ET.", value=lambda line: line.region),
    Column(
        name="dice_reference", header="Dice reference", about="With the label.", value=lambda line: line.drift.dice_reference, spec=".4f"
    ),
    Column(
        name="dice_candidate", header="Dice candidate", about="With the label.", value=lambda line: line.drift.dice_candidate, spec=".4f"
    ),
    Column(name="dice_drop", header="drop", about="Reference minus candidate.", value=lambda line: line.drift.dice_drop, spec="+.4f"),
    Column(
        name="agreement", header="agreement", about="Dice of candidate with reference.", value=lambda line: line.drift.agreement, spec=".4f"
    ),
    Column(
        name="hd95_reference_mm",
        header="HD95 reference",
        unit="mm",
        about="To the label.",
        value=lambda line: line.drift.hd95_reference_mm,
        spec=".2f",
    ),
    Column(
        name="hd95_candidate_mm",
        header="HD95 candidate",
        unit="mm",
        about="To the label.",
        value=lambda line: line.drift.hd95_candidate_mm,
        spec=".2f",
    ),
    Column(
        name="volume_reference_ml",
        header="volume reference",
        unit="mL",
        about="Of the reference's output.",
        value=lambda line: line.drift.volume_reference_ml,
        spec=",.2f",
    ),
    Column(
        name="volume_change_ml",
        header="change",
        unit="mL",
        about="Candidate minus reference.",
        value=lambda line: volume_change(line.drift),
        spec="+,.2f",
    ),
)


def case_tables(run: LoadedRun) -> list[Table]:
    """Every case and region of every candidate."""
    return [
        make_table(f"{name}: {len(record.cases)} cases", CASE_COLUMNS, list(_lines(record)), full=True)
        for name, record in run.drift.items()
    ]


def pictured(run: LoadedRun, artifact: str) -> CaseDrift | None:
    """A candidate's drift on the pictured case, where it was evaluated."""
    record = run.drift.get(artifact)
    return next((case for case in record.cases if case.case == run.record.pictured_case), None) if record else None


def pictured_origin(run: LoadedRun) -> CaseOrigin | None:
    """Where the pictured case comes from, where it was evaluated."""
    return next((case.origin for name in run.drift if (case := pictured(run, name)) is not None), None)


def attribution(run: LoadedRun) -> list[str]:
    """Attribution of the real cases in the run; empty where there is none."""
    real = {case.case: case.origin for record in run.drift.values() for case in record.cases if case.origin != "phantom"}
    brats = {name: origin for name, origin in real.items() if name.lower().startswith(BRATS_PREFIX)}
    lines = list(BRATS_CREDIT) if brats else []
    if "real, pseudo-label" in brats.values():
        lines.append(PSEUDO_LABEL_CREDIT)
    if others := sorted(real.keys() - brats.keys()):
        lines.append(f"Source and licence of {', '.join(others)} are not known to this software: state them wherever this report is shown.")
    return lines


def _lines(record: DriftRecord) -> list[CaseLine]:
    return [CaseLine(case=case, region=region, drift=drift) for case in record.cases for region, drift in case.regions.items()]
