"""Write samples as ARCHS4 ships them: one HDF5 file of counts, genes in rows, with tables of genes and samples; the truth beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splicestore.errors import ConfigError
from splicestore.kernels.components import group_components
from splicestore.simulate.annotation import biotype_of
from splicestore.simulate.cohort import (
    NO_MODULE,
    DrawnSample,
    ExpressionModel,
    Sample,
    SampleDesign,
    draw_sample,
    tissue_names,
)
from splicestore.simulate.files import ByteSink
from splicestore.simulate.seeds import Stream, random_stream
from splicestore.simulate.tables import ancestral_id
from splicestore.storage.outputs import OutputFolder

Int64 = NDArray[np.int64]

CHUNK_GENES = 2_000
"""A chunk holds so many genes of one sample, as in ARCHS4 files."""
TABLE_CHUNK = 2_100
BLOCK_BYTES = 2**25
MAX_BLOCK_SAMPLES = 1_024
REPEATED_SYMBOLS = 0.03
"""Share of the genes that have the symbol of another one; in ARCHS4 it is 7%."""

GENES_HEADER = "gene_id\tsymbol\tsymbol_rows\tancestral_id\tbiotype\tmodule\tloading\n"
SAMPLES_HEADER = "geo_accession\ttissue\tis_single_cell\tseries\tcopy_of\n"
MODULES_HEADER = "tissue\tmodule\tis_used\tlevel\n"
SERIES_HEADER = "series\tcomponent\tsamples\n"

FIRST_SAMPLE, FIRST_SERIES = 1_000_000, 10_000
COHORT_ACCESSIONS = 10**8
"""Accessions of two genomes' samples are so far apart."""

_CONSTANT = {
    "channel_count": "1",
    "data_processing": "simulated",
    "instrument_model": "Simulator",
    "library_selection": "cDNA",
    "library_strategy": "RNA-Seq",
    "molecule_ch1": "total RNA",
    "platform_id": "GPL0",
    "status": "Simulated",
    "taxid_ch1": "0",
    "type": "SRA",
}
_INFO = {"author": "splicestore", "contact": "", "creation-date": "", "laboratory": "simulated", "version": "1"}


def counts_file(genome_id: str) -> str:
    """Name the file of counts, relative to the study."""
    return f"expression/{genome_id}.h5"


@dataclass(frozen=True, slots=True, eq=False)
class CohortGenes:
    """Rows of a file."""

    gene_id: tuple[str, ...]
    family: Int64
    """(gene,)."""
    symbol: tuple[str, ...]
    """Some stand twice: those of genes of one family, and a few besides."""

    @classmethod
    def name(cls, seed: int, cohort: int, gene_id: Sequence[str], family: Int64) -> CohortGenes:
        """Give genes their symbols."""
        symbol = [f"SYM{i + 1}" for i in family.tolist()]
        rng = random_stream(seed, Stream.SYMBOL, cohort)
        n_repeated = min(max(1, round(REPEATED_SYMBOLS * len(symbol))), len(symbol) // 2)
        chosen = rng.choice(len(symbol), 2 * n_repeated, replace=False).tolist()
        for row, other in zip(chosen[:n_repeated], chosen[n_repeated:], strict=True):
            symbol[row] = symbol[other]
        return cls(tuple(gene_id), family, tuple(symbol))


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """All that a file of samples is drawn from."""

    genome_id: str
    n_samples: int
    design: SampleDesign
    genes: CohortGenes
    model: ExpressionModel
    """Of all families."""

    def truth(self, what: str) -> str:
        """Name a table of the truth, relative to the study."""
        return f"truth/{self.genome_id}.expression.{what}.tsv"

    def accession(self, sample: Sample) -> str:
        """Name a sample."""
        return f"GSM{self.design.cohort * COHORT_ACCESSIONS + FIRST_SAMPLE + sample.number}"

    def series(self, number: int) -> str:
        """Name a series."""
        return f"GSE{self.design.cohort * COHORT_ACCESSIONS + FIRST_SERIES + number}"


def write_cohort(
    output: OutputFolder,
    cohort: Cohort,
    progress: Callable[[str], None],
    *,
    block_samples: int | None = None,
) -> None:
    """Write the counts and the truth of a cohort, a block of samples at a time.

    Parameters
    ----------
    block_samples
        Samples held at once; by default as many as 32 MiB hold, at most 1,024. It changes no value, but where HDF5
        puts text within the file.
    """
    height = block_samples or max(1, min(MAX_BLOCK_SAMPLES, BLOCK_BYTES // (4 * len(cohort.genes.gene_id))))
    blocks = [(first, min(first + height, cohort.n_samples)) for first in range(0, cohort.n_samples, height)]
    model = cohort.model.of_genes(cohort.genes.family)
    members: list[Int64] = []
    with (
        output.local_path(counts_file(cohort.genome_id)) as path,
        _Archs4Writer(path, cohort) as archive,
        output.open_binary(cohort.truth("samples")) as stream,
        ByteSink(stream, compress=False) as table,
    ):
        table.write(SAMPLES_HEADER)
        for first, last in blocks:
            samples = list(cohort.design.samples(first, last))
            archive.write(samples, [draw_sample(cohort.design, model, sample) for sample in samples])
            members.append(np.array([(s.number, series) for s in samples for series in s.series], dtype=np.int64))
            table.write("".join(_sample_rows(cohort, samples)))
            progress(f"{cohort.genome_id}: {last:,} of {cohort.n_samples:,} samples")
    output.write_text(cohort.truth("genes"), GENES_HEADER + "".join(_gene_rows(cohort.genes, model)))
    output.write_text(cohort.truth("modules"), MODULES_HEADER + "".join(_module_rows(model)))
    output.write_text(cohort.truth("series"), SERIES_HEADER + "".join(_series_rows(cohort, np.concatenate(members))))


class _Archs4Writer:
    """An HDF5 file whose tables and matrix have their final shape from the start."""

    def __init__(self, path: Path, cohort: Cohort) -> None:
        try:
            import h5py
        except ImportError as error:
            raise ConfigError(f"{path}: HDF5 needs h5py: pip install 'splicestore[expression]'") from error
        self._cohort, self._text = cohort, h5py.string_dtype()
        self._tissues = tissue_names(cohort.model.n_tissues)
        self._file = h5py.File(path, "w")
        self._place = 0
        n_genes = len(cohort.genes.gene_id)
        self._matrix = self._file.create_dataset(
            "data/expression",
            shape=(n_genes, cohort.n_samples),
            maxshape=(n_genes, None),
            dtype=np.uint32,
            chunks=(min(CHUNK_GENES, n_genes), 1),
            compression="gzip",
        )
        biotype = [biotype_of(family) for family in cohort.genes.family.tolist()]
        for name, values in (
            ("symbol", cohort.genes.symbol),
            ("ensembl_gene", cohort.genes.gene_id),
            ("biotype", biotype),
        ):
            self._column(f"meta/genes/{name}", n_genes, self._text)[:] = _words(values)
        for name, value in _INFO.items():
            self._file[f"meta/info/{name}"] = value

    def write(self, samples: Sequence[Sample], drawn: Sequence[DrawnSample]) -> None:
        """Append samples."""
        rows = slice(self._place, self._place + len(samples))
        self._matrix[:, rows] = np.stack([one.counts for one in drawn], axis=1)
        for name, values in self._columns(samples, drawn).items():
            place = f"meta/samples/{name}"
            if place not in self._file:
                self._column(place, self._cohort.n_samples, self._text if values.dtype == object else values.dtype)
            self._file[place][rows] = values
        self._place = rows.stop

    def _column(self, place: str, n_rows: int, dtype: Any) -> Any:
        chunks = (min(TABLE_CHUNK, n_rows),)
        return self._file.create_dataset(place, shape=(n_rows,), maxshape=(None,), dtype=dtype, chunks=chunks)

    def _columns(self, samples: Sequence[Sample], drawn: Sequence[DrawnSample]) -> dict[str, NDArray[Any]]:
        """Fill the columns of the sample table that ARCHS4 takes from GEO, and its own two of numbers."""
        cohort = self._cohort
        accession = _words([cohort.accession(sample) for sample in samples])
        tissue = [self._tissues[sample.tissue] for sample in samples]
        material = ["single cell" if sample.is_single_cell else "tissue" for sample in samples]
        source = ["transcriptomic single cell" if s.is_single_cell else "transcriptomic" for s in samples]
        return {
            "geo_accession": accession,
            "sample": accession,
            "series_id": _words([",".join(map(cohort.series, sample.series)) for sample in samples]),
            "title": _words([f"{t} {s.number + 1}" for t, s in zip(tissue, samples, strict=True)]),
            "source_name_ch1": _words([t.lower() for t in tissue]),
            "characteristics_ch1": _words(
                [f"tissue: {t.lower()},material: {m}" for t, m in zip(tissue, material, strict=True)]
            ),
            "library_source": _words(source),
            "organism_ch1": _words([f"Simulata {cohort.genome_id}"] * len(samples)),
            **{name: _words([value] * len(samples)) for name, value in _CONSTANT.items()},
            "singlecellprobability": np.array([one.single_cell_probability for one in drawn]),
            "alignedreads": np.array([one.aligned_reads for one in drawn]),
        }

    def __enter__(self) -> _Archs4Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _words(values: Sequence[str]) -> NDArray[Any]:
    return np.array(values, dtype=object)


def _sample_rows(cohort: Cohort, samples: Sequence[Sample]) -> Iterator[str]:
    names = tissue_names(cohort.model.n_tissues)
    for sample in samples:
        series = ",".join(map(cohort.series, sample.series))
        origin = "." if sample.copy_of is None else cohort.accession(sample.copy_of)
        yield f"{cohort.accession(sample)}\t{names[sample.tissue]}\t{sample.is_single_cell:d}\t{series}\t{origin}\n"


def _gene_rows(genes: CohortGenes, model: ExpressionModel) -> Iterator[str]:
    rows = Counter(genes.symbol)
    for i, (gene_id, symbol, family) in enumerate(zip(genes.gene_id, genes.symbol, genes.family.tolist(), strict=True)):
        module = _module_name(model, int(model.module[i]))
        yield (
            f"{gene_id}\t{symbol}\t{rows[symbol]}\t{ancestral_id(family)}\t{biotype_of(family)}\t{module}\t"
            f"{model.loading[i]:.4f}\n"
        )


def _module_rows(model: ExpressionModel) -> Iterator[str]:
    for i, tissue in enumerate(tissue_names(model.n_tissues)):
        for module, level in enumerate(model.level[i].tolist()):
            yield f"{tissue}\t{_module_name(model, module)}\t{model.is_used[i, module]:d}\t{level:.4f}\n"


def _module_name(model: ExpressionModel, module: int) -> str:
    """Name a module: the tissue whose signature it is, or a number."""
    if module == NO_MODULE:
        return "."
    names = tissue_names(model.n_tissues)
    return f"{names[module]}_signature" if module < len(names) else f"module{module + 1}"


def _series_rows(cohort: Cohort, members: Int64) -> Iterator[str]:
    """List series with their component: series that share a sample, directly or through others.

    Parameters
    ----------
    members : (n, 2) int64
        Sample and series.
    """
    component = group_components(cohort.n_samples, members[:, 0], members[:, 1])
    numbers, first, size = np.unique(members[:, 1], return_index=True, return_counts=True)
    for number, sample, n in zip(numbers.tolist(), members[first, 0].tolist(), size.tolist(), strict=True):
        yield f"{cohort.series(number)}\t{component[sample]}\t{n}\n"
