"""What tests that hold the package against the oracles share: ingesting tiny genomes and comparing what came out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.config import GenomeConfig
from splicestore.genome import Genome
from splicestore.ingest import IngestOptions, ingest_genome
from splicestore.split.values import SplitOptions
from splicestore.splits import Split
from splicestore.storage import StoreRoot
from splicestore.store import Store, open_store
from splicestore.windows import WindowSet
from tests.oracles import genome_oracle, split_oracle, window_oracle
from tests.strategies import TinyGenome

OVERRIDE = IngestOptions(override_gates=True)
"""Random rows join random sites: the join gate has its own tests."""

USAGE = ("alpha", "beta", "sse")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of one example; hypothesis runs many examples in one test, so ``tmp_path`` would be shared."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def ingest_tiny(tiny: TinyGenome, folder: Path, name: str = "genome", store: str = "", **config: Any) -> Genome:
    """Write a tiny genome, ingest it and open what was published."""
    root = StoreRoot(store or str(folder / "store"))
    ingest_genome(root, GenomeConfig(**tiny.write(folder, name), **config), OVERRIDE)
    return open_store(root.url).genomes[name]


def open_tiny(folder: Path) -> Store:
    """The store that ``ingest_tiny`` wrote."""
    return open_store(str(folder / "store"))


def gene_table(genome: Genome) -> dict[str, dict[str, Any]]:
    """Stored genes as the oracle spells them; their ids must be distinct."""
    table = genome.genes.to_pandas()
    assert table["gene_id"].is_unique
    return {
        row.gene_id: {"contig": row.contig, "strand": {"+": 1, "-": -1}[row.strand], "start": row.start, "end": row.end}
        for row in table.itertuples()
    }


def site_table(genome: Genome) -> dict[genome_oracle.Site, set[str]]:
    """Stored sites as the oracle spells them; each (position, strand) must be one row, in order."""
    table = genome.sites.to_pandas()
    keys = list(zip(genome.site_position.tolist(), genome.site_strand.tolist(), strict=True))
    assert keys == sorted(set(keys))
    kinds = {"both": {"donor", "acceptor"}, "donor": {"donor"}, "acceptor": {"acceptor"}}
    return {(row.contig, row.position, {"+": 1, "-": -1}[row.strand]): kinds[row.kind] for row in table.itertuples()}


def site_genes(genome: Genome) -> dict[genome_oracle.Site, set[str]]:
    """Genes of every stored site."""
    ptr, index = genome.array("site_gene_ptr"), genome.array("site_gene_index")
    return {
        site: {genome.gene_ids[gene] for gene in index[ptr[row] : ptr[row + 1]]}
        for row, site in enumerate(site_table(genome))
    }


def transcript_table(genome: Genome) -> dict[str, tuple[str, list[tuple[int, int]]]]:
    """(gene, exons within the contig) of every stored transcript."""
    ptr, start, end = (genome.array(name) for name in ("transcript_exon_ptr", "exon_start", "exon_end"))
    found = {}
    for row, (name, gene_id) in enumerate(genome.transcript_genes().items()):
        offset = genome.contig_offset[genome.gene_contig[genome.gene_ids.index(gene_id)]]
        exons = slice(ptr[row], ptr[row + 1])
        found[name] = (
            gene_id,
            list(zip((start[exons] - offset).tolist(), (end[exons] - offset).tolist(), strict=True)),
        )
    return found


def window_list(windows: WindowSet) -> list[window_oracle.Window]:
    """A window set as the oracle spells it."""
    table = windows.to_pandas()
    assert (table["end"] - table["start"] == windows.window_size).all()
    return [
        (row.contig, row.start, {"+": 1, "-": -1}[row.strand], tuple(sorted(row.genes.split(","))) if row.genes else ())
        for row in table.itertuples()
    ]


def expected_windows(truth: genome_oracle.Genome, request: Mapping[str, Any]) -> list[window_oracle.Window]:
    """Windows that a request must give."""
    found = window_oracle.windows(
        truth, request["window_size"], region=request["region"], anchor=request["anchor"], geneless=request["geneless"]
    )
    if request["keep_empty"]:
        return found
    return [window for window in found if has_site(truth, window, request["window_size"])]


def has_site(truth: genome_oracle.Genome, window: window_oracle.Window, window_size: int) -> bool:
    """Whether a site of the window's strand lies in its centre."""
    contig, start, strand = window[:3]
    return any((contig, position, strand) in truth["sites"] for position in range(start, start + window_size))


CODES = {base: code for code, base in enumerate("ACGTN")}


def expected_arrays(
    truth: genome_oracle.Genome,
    found: list[window_oracle.Window],
    request: Mapping[str, Any],
    counts: window_oracle.Usage | None = None,
    conditions: list[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """sequence, label, alpha, beta and sse of windows, window by window."""
    size, context, minus = request["window_size"], request["context_size"], request["minus"]
    codes = window_oracle.LABEL_CODES if request["label_order"] == "spliceai" else window_oracle.SPLICEVO_LABEL_CODES
    conditions = conditions or []
    arrays: dict[str, NDArray[Any]] = {
        "sequence": np.zeros((len(found), size + 2 * context), dtype=np.uint8),
        "label": np.zeros((len(found), size), dtype=np.uint8),
        **{name: np.full((len(found), size, len(conditions)), np.nan, dtype=np.float32) for name in USAGE},
    }
    for row, window in enumerate(found):
        text = window_oracle.input_sequence(truth, window, size, context, minus=minus, flank=request["flank"])
        arrays["sequence"][row] = [CODES[base] for base in text]
        arrays["label"][row] = window_oracle.labels(truth, window, size, minus=minus, codes=codes, both=request["both"])
        usage = window_oracle.usage(
            window,
            size,
            counts or {},
            conditions,
            min_reads=request["min_reads"],
            alpha_threshold=request["alpha_threshold"],
            minus=minus,
        )
        for name in USAGE:
            arrays[name][row] = np.array(usage[name], dtype=np.float32).reshape(size, len(conditions))
    return arrays


def stored_arrays(windows: WindowSet, first: int = 0, last: int | None = None) -> dict[str, NDArray[Any]]:
    """The same arrays as the package gives them."""
    usage = dict(zip(USAGE, windows.usage(first, last), strict=True))
    return {"sequence": windows.sequence(first, last), "label": windows.label(first, last), **usage}


def assert_same_arrays(
    found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], about: object = ""
) -> None:
    """Equal in dtype, shape and every value, NaN where NaN."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, (name, about)
        np.testing.assert_array_equal(found[name], array, err_msg=f"{name} {about}", strict=True)


def check_windows(
    genome: Genome,
    truth: genome_oracle.Genome,
    request: Mapping[str, Any],
    counts: window_oracle.Usage | None = None,
    conditions: list[str] | None = None,
) -> WindowSet:
    """Windows, links and arrays of one request equal the oracle's."""
    options = {name: value for name, value in request.items() if name not in ("window_size", "context_size")}
    windows = genome.windows(request["window_size"], request["context_size"], **options)
    expected = expected_windows(truth, request)
    assert window_list(windows) == expected
    assert_same_arrays(stored_arrays(windows), expected_arrays(truth, expected, request, counts, conditions), request)
    return windows


def store_listing(folder: Path) -> dict[str, bytes]:
    """Every file of a store with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- splits ----------------------------------------------------------------------------------------


def expected_split(
    truths: Mapping[str, genome_oracle.Genome], groups: list[list[split_oracle.Gene]], options: SplitOptions
) -> tuple[dict[split_oracle.Gene, split_oracle.Decision], list[split_oracle.WindowKey], list[split_oracle.Decision]]:
    """(gene decisions, windows in table order, their decisions) by the oracles."""
    genes = [(name, gene_id) for name, truth in truths.items() for gene_id in truth["genes"]]
    spans = {
        (name, gene_id): (gene["contig"], gene["start"], gene["end"])
        for name, truth in truths.items()
        for gene_id, gene in truth["genes"].items()
    }
    found = split_oracle.components(genes, groups)
    test, val = list(options.test_chromosomes), list(options.val_chromosomes)
    shares = {"seed": options.seed, "test_fraction": options.test_share, "val_fraction": options.val_share}
    if options.mode == "fractions":
        decided = split_oracle.assign_fractions(found, reference_genome=options.reference_genome, **shares)
        mode = {"name": "fractions", **shares}
    else:
        contig_of = {gene: span[0] for gene, span in spans.items()}
        policies = {"conflict": options.conflict, "unassigned": options.unassigned}
        decided = split_oracle.assign_chromosomes(
            found, contig_of, options.reference_genome, test, val, **policies, **shares
        )
        mode = {
            "name": "chromosomes",
            "reference_genome": options.reference_genome,
            "test_chromosomes": test,
            "val_chromosomes": val,
        }
    windows = [
        (name, contig, start, start + options.window_size, strand)
        for name, truth in truths.items()
        for contig, start, strand, _ in window_oracle.windows(truth, options.window_size, geneless=True)
    ]
    return (
        decided,
        windows,
        split_oracle.window_table(windows, spans, decided, mode, options.context_size, options.guard),
    )


def split_is_empty(table: list[split_oracle.Decision], options: SplitOptions) -> bool:
    """Whether a subset that was asked for has no window."""
    present = {subset for subset, _ in table}
    if options.mode == "chromosomes":
        wanted = {"test": bool(options.test_chromosomes), "val": bool(options.val_chromosomes), "train": True}
    else:
        left = 1 - options.test_share - options.val_share
        wanted = {"test": options.test_share > 0, "val": options.val_share > 0, "train": left > 0}
    return any(asked and subset not in present for subset, asked in wanted.items())


def check_split_table(
    split: Split,
    decided: dict[split_oracle.Gene, split_oracle.Decision],
    windows: list[split_oracle.WindowKey],
    table: list[split_oracle.Decision],
) -> None:
    """Every gene and window of a published split, in order, with subset and reason."""
    genes = split.genes_to_pandas()
    found = {(g.genome, g.gene_id): (g.subset, g.reason) for g in genes.itertuples()}
    assert found == decided
    frame = split.to_pandas()
    signs = {"+": 1, "-": -1}
    assert [(w.genome, w.contig, w.start, w.end, signs[w.strand]) for w in frame.itertuples()] == windows
    assert list(zip(frame["subset"], frame["reason"], strict=True)) == table
