"""Gene annotation, GTF or GFF3: genes, transcripts and their exons.

Which transcripts are read
--------------------------
Every transcript that has exon, CDS, UTR or codon rows, with one exception: transcripts of type or biotype
tRNA or rRNA with more than one exon (their introns are no spliceosomal introns) are left out and listed in
the ledger. SGD's ``noncoding_exon`` rows, which hang on tRNA, rRNA and snoRNA genes without a transcript, are
counted in the ledger and not read.

Where two rows disagree
-----------------------
A transcript on the contigs X and Y (pseudo-autosomal) is kept twice, the copy on Y as ``ID_PAR_Y``. On any
other two contigs, or on both strands, it is an error, unless the file declares it trans-spliced: then it is
dropped. A gene id on several contigs or strands (UCSC tables use symbols) becomes one gene for each; all but
the first are named ``ID@contig:strand``. All of this is in the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splicestore.errors import ConfigError, InputError, close_names
from splicestore.readers.features import first_lines
from splicestore.readers.gene_assembly import assemble_genes
from splicestore.readers.gff3 import collect_gff3
from splicestore.readers.gtf import collect_gtf
from splicestore.schema import LedgerRow

Int64 = NDArray[np.int64]

CODING_BIOTYPES = ("protein_coding", "mRNA")
"""Spellings of a coding transcript: Ensembl and GENCODE, NCBI and plain GFF3 types."""

_GOOD_SUPPORT = re.compile(r"(?:1|2|NA)(?!\d)")


@dataclass(frozen=True, slots=True)
class Annotation:
    """Genes and transcripts of one genome, on its contigs."""

    genes: pd.DataFrame
    """gene_id, symbol, contig, biotype (str, "" unknown), start, end (int64, 0-based half-open), strand (int8
    +1 or -1); in file order. A gene without gene row spans its transcripts."""
    transcripts: pd.DataFrame
    """transcript_id, gene (int32 row of ``genes``), biotype, tags (joined by commas), support_level."""
    exon_ptr: Int64
    """(n_transcripts + 1,) CSR into the exons."""
    exon_start: Int64
    """(n_exons,) 0-based on the contig; sorted, disjoint and not touching within a transcript."""
    exon_end: Int64
    """(n_exons,) excluded."""
    dialect: str
    """``gtf`` or ``gff3``, then ``:`` and the provider where it is recognised, as in ``gff3:ensembl``."""
    ledger: list[LedgerRow]


def read_annotation(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Annotation:
    """Read a GTF or GFF3 file.

    Exons of a transcript are its ``exon`` rows; where it has none, the union of its CDS, UTR and codon rows.
    Overlapping or touching exons are merged. The order of the rows means nothing.

    Parameters
    ----------
    url
        Plain or gzip.
    storage_options
        Passed to fsspec.

    Returns
    -------
    Annotation
        Ids lose the prefixes ``gene:``, ``transcript:``, ``gene-``, ``rna-``; versions stay as written.

    Raises
    ------
    InputError
        With file, line and value: not nine columns, a coordinate that is no integer, start < 1, start > end,
        an unstranded transcript with more than one exon, a transcript on two contigs or strands, a GTF part
        without transcript_id, or no gene at all.
    """
    dialect = detect_dialect(url, storage_options=storage_options)
    collect = collect_gtf if dialect.startswith("gtf") else collect_gff3
    models = collect(url, storage_options=storage_options)
    if len(models.parts.row) == 0 and len(models.genes) == 0:
        raise InputError(f"{url}: no gene, transcript or exon in this {dialect} file; check that it is the annotation")
    genes, transcripts, exon_ptr, exon_start, exon_end, ledger = assemble_genes(url, models, storage_options)
    return Annotation(genes, transcripts, exon_ptr, exon_start, exon_end, dialect, ledger)


def detect_dialect(url: str, *, storage_options: Mapping[str, Any] | None = None) -> str:
    """Tell GTF from GFF3 by the first rows, and name the provider where header, source or ids give it away.

    Returns
    -------
    dialect
        ``gtf`` or ``gff3``, with ``:ensembl``, ``:gencode``, ``:ncbi``, ``:sgd``, ``:augustus`` or ``:ucsc``.
    """
    comments, data = first_lines(url, 1000, storage_options=storage_options)
    fields = [line.split("\t") for line in data]
    attributes = [f[8] for f in fields if len(f) >= 9]
    if any(c.startswith("##gff-version") and "3" in c for c in comments):
        dialect = "gff3"
    elif any(re.match(r'\s*\w+\s+"', a) for a in attributes):
        dialect = "gtf"
    else:
        dialect = "gff3" if any(re.match(r"\s*\w+=", a) for a in attributes) else "gtf"
    provider = _provider("\n".join(comments), {f[1] for f in fields if len(f) >= 2}, "\n".join(attributes))
    return f"{dialect}:{provider}" if provider else dialect


def _provider(comments: str, sources: set[str], attributes: str) -> str:
    if "GENCODE" in comments or re.search(r"havana_gene|level[= ]\d", attributes) and "ENSEMBL" in sources:
        return "gencode"
    if "NCBI" in comments or "Dbxref=GeneID" in attributes or "BestRefSeq" in sources or "Gnomon" in sources:
        return "ncbi"
    if sources & {"ensembl", "ensembl_havana", "havana"} or "ID=gene:" in attributes:
        return "ensembl"
    if "SGD" in sources:
        return "sgd"
    if sources & {"AUGUSTUS", "GeneMark.hmm", "GeneMark.hmm3", "gmst"}:
        return "augustus"
    if any(s.endswith(("refGene", "ncbiRefSeq", "knownGene", "ensGene")) for s in sources):
        return "ucsc"
    return ""


def select_transcripts(annotation: Annotation, policy: str) -> NDArray[np.bool_]:
    """Choose the transcripts whose introns make splice sites.

    Parameters
    ----------
    annotation
        From ``read_annotation``.
    policy
        ``all``; ``protein_coding`` (by the transcript's biotype, or its gene's where it has none);
        ``canonical`` (the longest spliced transcript of each gene, the smallest id on ties); ``tag:NAME``
        (``tag:basic``, ``tag:MANE_Select``); ``splicevo``: coding where the file has transcript biotypes,
        and support level 1, 2 or NA where it has support levels. SplicEvo compares exactly, so it also drops
        ``1 (assigned to previous version 5)``; here text that starts with one of the three counts. As there,
        transcripts without a value are dropped where others have one.

    Returns
    -------
    selected : (n_transcripts,) bool

    Raises
    ------
    ConfigError
        If the policy is unknown.
    InputError
        If the file has no biotypes, or no transcript with the tag.
    """
    transcripts = annotation.transcripts
    if policy == "all":
        return np.ones(len(transcripts), dtype=bool)
    if policy == "protein_coding":
        return _coding(annotation)
    if policy == "canonical":
        return _longest(annotation)
    if policy == "splicevo":
        return _splicevo(transcripts)
    if policy.startswith("tag:") and len(policy) > len("tag:"):
        return _tagged(transcripts, policy.removeprefix("tag:"))
    raise ConfigError(
        f"transcripts: {policy!r} is no policy; choose all, protein_coding, canonical, splicevo or tag:NAME"
    )


def _coding(annotation: Annotation) -> NDArray[np.bool_]:
    own = annotation.transcripts["biotype"].to_numpy(dtype=object)
    genes = annotation.genes["biotype"].to_numpy(dtype=object)[annotation.transcripts["gene"].to_numpy()]
    biotype = np.where(own != "", own, genes)
    if len(biotype) and not (biotype != "").any():
        raise InputError(
            "transcripts: protein_coding was asked for, but no transcript or gene of the annotation has a biotype; "
            "use `all` or `canonical`"
        )
    return np.isin(biotype, CODING_BIOTYPES)


def _longest(annotation: Annotation) -> NDArray[np.bool_]:
    length = np.diff(np.concatenate(([0], np.cumsum(annotation.exon_end - annotation.exon_start)))[annotation.exon_ptr])
    transcripts = annotation.transcripts
    order = np.lexsort((_text_ranks(transcripts["transcript_id"]), -length, transcripts["gene"].to_numpy()))
    gene = transcripts["gene"].to_numpy()[order]
    selected = np.zeros(len(transcripts), dtype=bool)
    selected[order[np.flatnonzero(np.diff(gene, prepend=-1))]] = True
    return selected


def _text_ranks(values: pd.Series[Any]) -> NDArray[np.intp]:
    return np.unique(values.to_numpy(dtype=object), return_inverse=True)[1]


def _splicevo(transcripts: pd.DataFrame) -> NDArray[np.bool_]:
    selected = np.ones(len(transcripts), dtype=bool)
    biotype = transcripts["biotype"].to_numpy(dtype=object)
    if (biotype != "").any():
        selected &= np.isin(biotype, CODING_BIOTYPES)
    level = transcripts["support_level"]
    if (level != "").any():
        selected &= level.str.match(_GOOD_SUPPORT).to_numpy(dtype=bool)
    return selected


def _tagged(transcripts: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    tags = transcripts["tags"].str.split(",").explode()
    selected = np.zeros(len(transcripts), dtype=bool)
    selected[tags.index[tags == name]] = True
    if len(selected) and not selected.any():
        raise InputError(
            f"transcripts: no transcript has the tag {name!r}; {close_names(name, sorted(set(tags) - {''}))}"
        )
    return selected
