"""What a FASTA file and an annotation say, by strings and loops: transcripts, genes, introns, splice sites.

A genome is a plain dict (see `make_genome`). Positions are 0-based, strands are +1 and -1, a site is the
exon-boundary base: (contig, position, strand) -> set of "donor" and "acceptor".
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Site = tuple[str, int, int]
Genome = dict[str, Any]

FALLBACK_EXON_TYPES = {
    "cds",
    "utr",
    "five_prime_utr",
    "three_prime_utr",
    "5utr",
    "3utr",
    "start_codon",
    "stop_codon",
}
ID_PREFIXES = ("gene:", "transcript:", "gene-", "rna-")
CANONICAL_INTRONS = {"GT-AG", "GC-AG", "AT-AC"}
CANONICAL_DONORS = {"GT", "GC", "AT"}
CANONICAL_ACCEPTORS = {"AG", "AC"}


def read_lines(path: str | Path) -> list[str]:
    """All lines of a text file, gzip or not, without their ends."""
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8").splitlines()


def parse_fasta(path: str | Path) -> dict[str, str]:
    """Contigs in file order: name is the header up to the first blank, bases upper case, all but ACGT is N."""
    pieces: dict[str, list[str]] = {}
    name = ""
    for line in read_lines(path):
        if line.startswith(">"):
            name = line[1:].split()[0]
            if name in pieces:
                raise ValueError(f"contig {name} occurs twice")
            pieces[name] = []
        else:
            pieces[name].append(line.strip())
    contigs = {}
    for name, parts in pieces.items():
        contigs[name] = "".join(base if base in "ACGT" else "N" for base in "".join(parts).upper())
    return contigs


def reverse_complement(sequence: str) -> str:
    """The other strand read in its own direction; N stays N."""
    return complement(sequence)[::-1]


def complement(sequence: str) -> str:
    """The other strand read from left to right."""
    partner = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
    return "".join(partner[base] for base in sequence)


def strip_prefix(identifier: str) -> str:
    """Ensembl's gene: and transcript:, NCBI's gene- and rna- are no part of an id."""
    for prefix in ID_PREFIXES:
        if identifier.startswith(prefix):
            return identifier[len(prefix) :]
    return identifier


def merge_pieces(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted half-open pieces in which overlapping and touching ones have become one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Feature rows of a GTF or GFF3: nine tab-separated fields, comments and a FASTA part left out."""
    rows = []
    for line in read_lines(path):
        if line.startswith("##FASTA") or line.startswith(">"):
            break
        fields = line.split("\t")
        if line.startswith("#") or len(fields) != 9:
            continue
        rows.append(
            {
                "contig": fields[0],
                "type": fields[2],
                "start": int(fields[3]) - 1,
                "end": int(fields[4]),
                "strand": {"+": 1, "-": -1}.get(fields[6], 0),
                "attributes": fields[8].strip(),
            }
        )
    return rows


def gff3_attributes(text: str) -> dict[str, list[str]]:
    """`key=a,b;key=c` as lists of percent-decoded values."""
    attributes = {}
    for part in text.split(";"):
        if "=" in part:
            key, value = part.strip().split("=", 1)
            attributes[key] = [unquote(item) for item in value.split(",")]
    return attributes


def gtf_attributes(text: str) -> dict[str, str]:
    """`key "value"; key "value";` as a dict; the last of a repeated key wins; a bare id gives nothing."""
    attributes = {}
    inside = False
    part = ""
    parts = []
    for character in text:
        if character == '"':
            inside = not inside
        if character == ";" and not inside:
            parts.append(part)
            part = ""
        else:
            part += character
    parts.append(part)
    for part in parts:
        words = part.strip().split(None, 1)
        if len(words) == 2:
            attributes[words[0]] = words[1].strip().strip('"')
    return attributes


def is_gff3(rows: list[dict[str, Any]]) -> bool:
    """GFF3 when the ninth column speaks of ID= or Parent=, whatever the file is called."""
    return any("ID=" in row["attributes"] or "Parent=" in row["attributes"] for row in rows)


def parse_annotation(path: str | Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Transcripts {id, gene_id, contig, strand, exons} and the gene rows {gene_id: {contig, strand, start, end}}."""
    rows = read_rows(path)
    if is_gff3(rows):
        return parse_gff3_rows(rows)
    return parse_gtf_rows(rows)


def parse_gtf_rows(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """GTF: exon and CDS rows name their transcript and gene; a transcript or gene row may carry a bare id."""
    pieces: dict[str, dict[str, Any]] = {}
    gene_rows: dict[str, dict[str, Any]] = {}
    written: dict[str, tuple[int, int]] = {}
    for row in rows:
        attributes = gtf_attributes(row["attributes"])
        if row["type"] == "gene":
            gene_id = attributes.get("gene_id", row["attributes"])
            gene_rows[gene_id] = {key: row[key] for key in ("contig", "strand", "start", "end")}
            continue
        kind = row["type"].lower()
        if kind == "transcript":
            written[attributes.get("transcript_id", row["attributes"])] = (row["start"], row["end"])
        if "transcript_id" not in attributes or (kind != "exon" and kind not in FALLBACK_EXON_TYPES):
            continue
        add_piece(pieces, attributes["transcript_id"], attributes["gene_id"], row)
    return finish_transcripts(pieces, written), gene_rows


def parse_gff3_rows(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """GFF3: whatever exon, CDS or UTR rows name as Parent is a transcript; the gene feature above it is its gene.

    Every feature of a gene type is a gene, with or without transcripts. Pieces that hang on a gene itself are one
    transcript of the gene's name, unless the gene has transcripts. A transcript without Parent is its own gene.
    """
    features: dict[str, dict[str, Any]] = {}
    gene_rows: dict[str, dict[str, Any]] = {}
    for row in rows:
        attributes = gff3_attributes(row["attributes"])
        row["parents"] = attributes.get("Parent", [])
        if "ID" in attributes:
            features.setdefault(attributes["ID"][0], row)
            if is_gene_type(row["type"]):
                name = strip_prefix(attributes["ID"][0])
                gene_rows[name] = {key: row[key] for key in ("contig", "strand", "start", "end")}
    of_pieces = {
        parent
        for row in rows
        if row["type"].lower() == "exon" or row["type"].lower() in FALLBACK_EXON_TYPES
        for parent in row["parents"]
    }
    with_transcripts = {parent for name, row in features.items() if name in of_pieces for parent in row["parents"]}
    pieces: dict[str, dict[str, Any]] = {}
    written: dict[str, tuple[int, int]] = {}
    for row in rows:
        kind = row["type"].lower()
        if kind != "exon" and kind not in FALLBACK_EXON_TYPES:
            continue
        for parent in row["parents"]:
            if parent not in features or parent in with_transcripts:
                continue
            feature = features[parent]
            gene = (feature["parents"] or [parent])[0]
            name = strip_prefix(parent)
            written[name] = (feature["start"], feature["end"])
            add_piece(pieces, name, strip_prefix(gene), row)
    return finish_transcripts(pieces, written), gene_rows


def is_gene_type(feature_type: str) -> bool:
    """Gene, pseudogene and all that ends in _gene (tRNA_gene, transposable_element_gene)."""
    return feature_type.lower() in ("gene", "pseudogene") or feature_type.lower().endswith("_gene")


def add_piece(pieces: dict[str, dict[str, Any]], transcript_id: str, gene_id: str, row: dict[str, Any]) -> None:
    """Put one exon-like row with its transcript; two places for one transcript are outside this oracle."""
    entry = pieces.setdefault(
        transcript_id,
        {
            "id": transcript_id,
            "gene_id": gene_id,
            "contig": row["contig"],
            "strand": row["strand"],
            "exon": [],
            "other": [],
        },
    )
    if (entry["gene_id"], entry["contig"], entry["strand"]) != (gene_id, row["contig"], row["strand"]):
        raise ValueError(f"transcript {transcript_id} lies in two places")
    entry["exon" if row["type"].lower() == "exon" else "other"].append((row["start"], row["end"]))


def finish_transcripts(pieces: dict[str, dict[str, Any]], written: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Exons are the exon rows; only where there is none, the union of CDS, UTR and codon rows.

    A transcript that has nothing but start and stop codons keeps those; one without strand is left out. `row` is
    the span that a transcript's own row gives it, where there is one.
    """
    transcripts = []
    for entry in pieces.values():
        if entry["strand"] == 0:
            continue
        exons = merge_pieces(entry["exon"] if entry["exon"] else entry["other"])
        transcript = {key: entry[key] for key in ("id", "gene_id", "contig", "strand")} | {"exons": exons}
        if entry["id"] in written:
            transcript["row"] = written[entry["id"]]
        transcripts.append(transcript)
    return transcripts


def transcript_introns(transcript: dict[str, Any], min_intron: int = 5) -> list[tuple[int, int]]:
    """Gaps [start, end) between neighbouring exons that are at least `min_intron` long."""
    introns = []
    exons = sorted(transcript["exons"])
    for (_, left), (right, _) in zip(exons, exons[1:], strict=False):
        if right - left >= min_intron:
            introns.append((left, right))
    return introns


def intron_sites(intron: tuple[int, int], strand: int) -> dict[int, str]:
    """The two exon bases beside an intron: on + the left one is the donor, on - the right one."""
    left, right = intron[0] - 1, intron[1]
    if strand == 1:
        return {left: "donor", right: "acceptor"}
    return {left: "acceptor", right: "donor"}


def make_genes(transcripts: list[dict[str, Any]], gene_rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A gene spans its row and all exons of its transcripts.

    A gene row without transcripts is a gene too. A gene without row spans its transcripts and their rows.
    """
    genes = {gene_id: dict(row) for gene_id, row in gene_rows.items()}
    for transcript in transcripts:
        gene_id = transcript["gene_id"]
        spans = list(transcript["exons"])
        if gene_id not in gene_rows and "row" in transcript:
            spans.append(transcript["row"])
        start, end = min(span[0] for span in spans), max(span[1] for span in spans)
        place = {"contig": transcript["contig"], "strand": transcript["strand"]}
        gene = genes.setdefault(gene_id, {**place, "start": start, "end": end})
        if (gene["contig"], gene["strand"]) != (transcript["contig"], transcript["strand"]):
            raise ValueError(f"gene {gene_id} lies in two places")
        gene["start"] = min(gene["start"], start)
        gene["end"] = max(gene["end"], end)
    return genes


def make_genome(
    contigs: dict[str, str],
    transcripts: list[dict[str, Any]] | None = None,
    gene_rows: dict[str, dict[str, Any]] | None = None,
    min_intron: int = 5,
) -> Genome:
    """Everything the window oracle needs, with these keys.

    contigs {name: bases}; transcripts; genes {id: {contig, strand, start, end}}; introns, a set of (contig, start,
    end, strand); sites {(contig, position, strand): kinds}; site_genes {site: gene ids}; dropped, the ids of
    transcripts, and dropped_genes, the ids of genes that lie on no contig or reach beyond a contig's end: such a gene
    goes whole, with all its transcripts.
    """
    all_genes = make_genes(transcripts or [], gene_rows or {})
    genes = {
        gene_id: gene
        for gene_id, gene in all_genes.items()
        if gene["contig"] in contigs and 0 <= gene["start"] < gene["end"] <= len(contigs[gene["contig"]])
    }
    kept = [transcript for transcript in transcripts or [] if transcript["gene_id"] in genes]
    dropped = [transcript["id"] for transcript in transcripts or [] if transcript["gene_id"] not in genes]
    introns: set[tuple[str, int, int, int]] = set()
    sites: dict[Site, set[str]] = {}
    site_genes: dict[Site, set[str]] = {}
    for transcript in kept:
        contig, strand = transcript["contig"], transcript["strand"]
        for intron in transcript_introns(transcript, min_intron):
            introns.add((contig, intron[0], intron[1], strand))
            for position, kind in intron_sites(intron, strand).items():
                site = (contig, position, strand)
                sites.setdefault(site, set()).add(kind)
                site_genes.setdefault(site, set()).add(transcript["gene_id"])
    return {
        "contigs": contigs,
        "transcripts": kept,
        "genes": genes,
        "introns": introns,
        "sites": sites,
        "site_genes": site_genes,
        "dropped": dropped,
        "dropped_genes": sorted(set(all_genes) - set(genes)),
    }


def load_genome(fasta: str | Path, annotation: str | Path | None = None, min_intron: int = 5) -> Genome:
    """`make_genome` from files; without annotation there are only contigs."""
    if annotation is None:
        return make_genome(parse_fasta(fasta), min_intron=min_intron)
    transcripts, gene_rows = parse_annotation(annotation)
    return make_genome(parse_fasta(fasta), transcripts, gene_rows, min_intron)


def intron_motif(contigs: dict[str, str], intron: tuple[str, int, int, int]) -> str:
    """First and last two intron bases in transcript orientation, as in "GT-AG"; (contig, start, end, strand)."""
    contig, start, end, strand = intron
    bases = contigs[contig][start:end]
    if strand == -1:
        bases = reverse_complement(bases)
    return f"{bases[:2]}-{bases[-2:]}"


def site_motif(contigs: dict[str, str], site: Site, kind: str) -> str:
    """In transcript orientation the two bases after a donor, the two bases before an acceptor; N off the contig."""
    contig, position, strand = site
    follows = kind == "donor"
    on_the_right = follows == (strand == 1)
    offsets = (1, 2) if on_the_right else (-2, -1)
    bases = ""
    for offset in offsets:
        where = position + offset
        bases += contigs[contig][where] if 0 <= where < len(contigs[contig]) else "N"
    return bases if strand == 1 else reverse_complement(bases)


def site_is_canonical(contigs: dict[str, str], site: Site, kind: str) -> bool:
    """A donor before GT, GC or AT; an acceptor after AG or AC: what one site alone can show."""
    motif = site_motif(contigs, site, kind)
    return motif in (CANONICAL_DONORS if kind == "donor" else CANONICAL_ACCEPTORS)


def sites_of_canonical_introns(genome: Genome) -> dict[tuple[Site, str], bool]:
    """For each (site, kind): does at least one of its introns read GT-AG, GC-AG or AT-AC as a pair?"""
    answer: dict[tuple[Site, str], bool] = {}
    for intron in genome["introns"]:
        contig, start, end, strand = intron
        canonical = intron_motif(genome["contigs"], intron) in CANONICAL_INTRONS
        for position, kind in intron_sites((start, end), strand).items():
            key = ((contig, position, strand), kind)
            answer[key] = answer.get(key, False) or canonical
    return answer


def canonical_counts(genome: Genome, *, by_pair: bool) -> dict[tuple[str, int], tuple[int, int]]:
    """(kind, strand) -> (canonical sites, sites); by the site's own two bases, or by whole introns."""
    pairs = sites_of_canonical_introns(genome)
    counts: dict[tuple[str, int], tuple[int, int]] = {}
    for site, kinds in genome["sites"].items():
        for kind in kinds:
            good = pairs[(site, kind)] if by_pair else site_is_canonical(genome["contigs"], site, kind)
            canonical, total = counts.get((kind, site[2]), (0, 0))
            counts[(kind, site[2])] = (canonical + int(good), total + 1)
    return counts


def distinct_cds_gaps(path: str | Path) -> set[tuple[str, int, int, int]]:
    """Every gap (contig, start, end, strand) between neighbouring CDS rows of one GFF3 Parent, of any length >= 1."""
    by_parent: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(path):
        if row["type"] == "CDS":
            for parent in gff3_attributes(row["attributes"])["Parent"]:
                by_parent.setdefault(parent, []).append(row)
    gaps = set()
    for rows in by_parent.values():
        rows.sort(key=lambda row: row["start"])
        for left, right in zip(rows, rows[1:], strict=False):
            if right["start"] > left["end"]:
                gaps.add((left["contig"], left["end"], right["start"], left["strand"]))
    return gaps
