"""``ingest usage``: new conditions for a stored genome, as one more panel; nothing that is stored is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splicestore.cluster import open_executor
from splicestore.config import UsageFile
from splicestore.errors import ConfigError, PointerMovedError, StoreNotFoundError, close_names
from splicestore.ingest.inputs import IngestOptions, collect_usage
from splicestore.ingest.job import PanelTarget, write_panel
from splicestore.ingest.panel import PanelSites
from splicestore.ingest.reannotation import current_site_digest
from splicestore.ingest.tables import Contigs
from splicestore.kernels.sites import Sites
from splicestore.memory import observed_peak_bytes
from splicestore.readers.samples import read_sample_sheet
from splicestore.schema import check_name
from splicestore.storage import StoreRoot, read_group, read_pointer, write_lease
from splicestore.storage.arrays import read_arrays
from splicestore.storage.catalog import pointer_names


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What became of a panel."""

    genome_id: str
    panel: str
    status: str
    """published | replaced | unchanged."""
    generation: str
    conditions: tuple[str, ...]
    dropped: Mapping[str, int]
    seconds: float
    observed_peak_bytes: int

    def document(self) -> dict[str, Any]:
        """Spell the report for ``--json``."""
        return {
            "genome": self.genome_id,
            "panel": self.panel,
            "status": self.status,
            "generation": self.generation,
            "conditions": list(self.conditions),
            "dropped": dict(self.dropped),
            "seconds": round(self.seconds, 3),
            "observed_peak_bytes": self.observed_peak_bytes,
        }


def ingest_usage(
    root: StoreRoot,
    genome_id: str,
    panel: str,
    sheet: str | Sequence[UsageFile],
    options: IngestOptions | None = None,
    *,
    new_sites: str = "drop",
    mix_estimators: bool = False,
    replace: bool = False,
) -> UsageReport:
    """Join usage files to the sites of a stored genome and publish them as a panel.

    The same sheet again changes nothing. A sheet with more conditions, or changed files, replaces the panel.

    Parameters
    ----------
    sheet
        URL of a sample sheet, or its rows.
    new_sites
        What to do with rows that lie on no stored site: ``drop`` (counted in the ledger) or ``error``.
    replace
        Let conditions go that the panel has and the sheet has not.

    Raises
    ------
    StoreNotFoundError
        If the genome is not stored.
    ConfigError
        If a condition is in another panel of the genome already, or one of this panel is not in the sheet.
    InputError, GateError
        If a file is wrong or does not join.
    """
    options = options or IngestOptions()
    started = time.perf_counter()
    check_name(panel, "panel")
    if new_sites not in ("drop", "error"):
        raise ConfigError(f"--new-sites {new_sites!r}: use drop or error")
    target = stored_target(root, genome_id, panel, mix_estimators, allow_new_sites=new_sites == "drop")
    files = _sheet_rows(sheet, genome_id, options)
    _refuse_repeated_conditions(target, files)
    before = _panel_conditions(target, panel)
    gone = [name for name in before if name not in {f.condition_id for f in files}]
    if gone and not replace:
        raise ConfigError(
            f"panel {panel!r} of genome {genome_id} has {len(gone)} conditions that are not in the files given, first {gone[0]!r}: they "
            "would be gone; give the new conditions a panel of their own, add these to the sheet, or say --replace"
        )
    usage = collect_usage(genome_id, files, None, options)
    with write_lease(root, target.path, steal=options.steal) as lease:
        with open_executor(options.scheduler, urls=[root.url], profile=options.profile) as executor:
            written = write_panel(target, usage, options, executor)
        lease.check()
        switched = written.publication.switch()
        _check_sites_stand(target)
    return UsageReport(
        genome_id,
        panel,
        ("replaced" if before else "published") if switched else "unchanged",
        written.publication.generation,
        written.conditions,
        written.dropped,
        time.perf_counter() - started,
        observed_peak_bytes(),
    )


def _check_sites_stand(target: PanelTarget) -> None:
    """Say so where the genome got other splice sites while the panel was joined to the old ones."""
    now = current_site_digest(target.root, target.genome_id)
    pointer = read_pointer(target.root, target.path)
    if now is not None and pointer is not None and pointer.generation(now) is None:
        raise PointerMovedError(
            f"{target.root.url_of(target.path)}: genome {target.genome_id} got other splice sites while this run joined its files to "
            "the old ones; run the same command again"
        )


def _sheet_rows(sheet: str | Sequence[UsageFile], genome_id: str, options: IngestOptions) -> list[UsageFile]:
    if not isinstance(sheet, str):
        return list(sheet)
    return read_sample_sheet(sheet, genome_id=genome_id, storage_options=options.storage_options)


def stored_target(
    root: StoreRoot, genome_id: str, panel: str, mix_estimators: bool, *, allow_new_sites: bool = True
) -> PanelTarget:
    """Read the sites and contigs of a stored genome's current generation.

    Raises
    ------
    StoreNotFoundError
        If there is no such genome.
    """
    pointer = read_pointer(root, f"genomes/{check_name(genome_id, 'genome')}")
    if pointer is None:
        known = pointer_names(root, "genomes")
        raise StoreNotFoundError(f"{root.url}: no genome {genome_id!r} is stored; {close_names(genome_id, known)}")
    base = f"genomes/{genome_id}/{pointer.current}"
    found = read_group(root, base)
    if found is None:
        raise StoreNotFoundError(f"{root.url_of(base)}: the genome's current generation is not there; run verify")
    names = ("contig_name", "contig_length", "alias_name", "alias_contig", "site_position", "site_strand", "site_kind")
    arrays = read_arrays(root, base, names)
    contigs = [str(name) for name in arrays["contig_name"]]
    plan = root.get_json(f"{base}/plan.json") or {}
    is_selection = plan.get("options", {}).get("chromosomes") is not None
    aliases = {str(a): contigs[int(row)] for a, row in zip(arrays["alias_name"], arrays["alias_contig"], strict=True)}
    n_sites = len(arrays["site_position"])
    sites = Sites(
        position=arrays["site_position"],
        strand=arrays["site_strand"],
        kind=arrays["site_kind"],
        gene_ptr=np.zeros(n_sites + 1, dtype=np.int64),
        gene_index=np.zeros(0, dtype=np.int32),
    )
    return PanelTarget(
        root=root,
        genome_id=genome_id,
        panel=panel,
        sites=PanelSites(Contigs(tuple(contigs), arrays["contig_length"], aliases, is_selection), sites),
        site_digest=str(found[0]["site_digest"]),
        mix_estimators=mix_estimators,
        allow_new_sites=allow_new_sites,
    )


def _panel_conditions(target: PanelTarget, panel: str) -> list[str]:
    """Conditions that a panel of the genome has now."""
    path = f"usage/{target.genome_id}/{panel}"
    pointer = read_pointer(target.root, path)
    generation = pointer.generation(target.site_digest) if pointer else None
    found = read_group(target.root, f"{path}/{generation}") if generation else None
    return list(found[0]["conditions"]) if found else []


def _refuse_repeated_conditions(target: PanelTarget, files: Sequence[UsageFile]) -> None:
    """A condition is its name: the same name in two panels would be two columns of one name."""
    given = {f.condition_id for f in files}
    for panel in pointer_names(target.root, f"usage/{target.genome_id}"):
        twice = sorted(given & set(_panel_conditions(target, panel))) if panel != target.panel else []
        if twice:
            raise ConfigError(
                f"condition {twice[0]!r} is in panel {panel!r} of genome {target.genome_id} already"
                f"{f' (and {len(twice) - 1} more)' if len(twice) > 1 else ''}; give it another name, or leave it out"
            )
