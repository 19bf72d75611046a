"""Usage from five real BAM files: junction tables as goldens, the oracle, SpliSER's walk, and the way into a store."""

from __future__ import annotations

import gzip
import json

import pytest
import yaml
from typer.testing import CliRunner

from splicestore.alignments import CountOptions, SampleFile, count_usage
from splicestore.alignments.service import RegionTask, _region, count_task
from splicestore.cli.usage import app
from splicestore.kernels.alignments import join_regions
from splicestore.readers.usage import SiteCounts, read_usage
from splicestore.store import open_store
from tests.oracles.bam_oracle import OracleOptions, OracleRead, count_sites, junction_table, spliser_process
from tests.service.study import splicestore
from tests.unit.alignments.bam_files import read_table

pysam = pytest.importorskip("pysam", reason="BAM files need pysam: pip install 'splicestore[bio]'")

BAMS = ("rheMac3.SRR636926", "hg38.isoseq", "mm10.ERR033015", "mm10.ERR033016", "mm10.16493_7_4")


@pytest.fixture(scope="module")
def folder(data_dir):
    return data_dir / "vertebrates"


def golden(folder, name):
    """{(start, end): (unique reads, multi reads, largest overhang, motif code)} of the derived SJ.tab."""
    with gzip.open(folder / f"{name}.SJ.tab.gz", "rt") as lines:
        rows = [line.split("\t") for line in lines]
    return {(int(f[1]) - 1, int(f[2])): (int(f[6]), int(f[7]), int(f[8]), int(f[4])) for f in rows}


def junctions_of(path, *, multi):
    options = CountOptions(multi_mapping="keep" if multi else "drop", min_mapping_quality=0)
    with pysam.AlignmentFile(path) as file:
        (contig,), (length,) = file.references, file.lengths
    regions = tuple(_region(contig, s, min(s + 50_000, length + 1), None, options) for s in range(0, length, 50_000))
    counts, _ = count_task(RegionTask((path,), None, options.read_filter(), regions))
    rows = join_regions(counts).junctions
    return {
        (a, b): (n, o)
        for a, b, n, o in zip(*(c.tolist() for c in (rows.start, rows.end, rows.reads, rows.overhang)), strict=True)
    }


def oracle_reads(path):
    with pysam.AlignmentFile(path) as file:
        return [
            OracleRead(
                r.reference_name, r.reference_start, r.cigarstring, r.flag, r.mapping_quality, dict(r.get_tags())
            )
            for r in file.fetch()
            if not r.is_unmapped
        ]


@pytest.mark.parametrize("name", BAMS)
def test_junctions_reproduce_the_goldens_unique_multi_and_overhang(folder, name):
    """Primary alignments, mates apart; multi: NH above 1; overhang: aligned bases of the read on the shorter side, over both."""
    unique = junctions_of(str(folder / f"{name}.bam"), multi=False)
    both = junctions_of(str(folder / f"{name}.bam"), multi=True)
    found = {j: (unique.get(j, (0, 0))[0], n - unique.get(j, (0, 0))[0], overhang) for j, (n, overhang) in both.items()}
    assert found == {j: row[:3] for j, row in golden(folder, name).items()}


@pytest.mark.parametrize(
    ("name", "of_reads", "of_junctions"),
    [("mm10.ERR033015", 0.474, 0.667), ("mm10.ERR033016", 0.524, 0.649), ("mm10.16493_7_4", 0.871, 0.797)],
)
def test_shares_of_gt_ag_are_what_the_data_say_of_themselves(folder, name, of_reads, of_junctions):
    """Unfiltered: of all reads, unique and multi. At 2 unique reads and overhang 10: of junctions, each once."""
    unique = junctions_of(str(folder / f"{name}.bam"), multi=False)
    both = junctions_of(str(folder / f"{name}.bam"), multi=True)
    is_gt_ag = {j for j, row in golden(folder, name).items() if row[3] in (1, 2)}
    reads = sum(n for n, _ in both.values())
    assert sum(n for j, (n, _) in both.items() if j in is_gt_ag) / reads == pytest.approx(of_reads, abs=5e-4)
    good = {j for j, (n, _) in unique.items() if n >= 2 and both[j][1] >= 10}
    assert len(good & is_gt_ag) / len(good) == pytest.approx(of_junctions, abs=5e-4)


@pytest.mark.parametrize("name", ["rheMac3.SRR636926", "hg38.isoseq"])
def test_counts_are_the_oracle_s(folder, tmp_path, name):
    path = str(folder / f"{name}.bam")
    out = tmp_path / "out.tsv"
    count_usage([SampleFile.parse(path)], str(out), region_size=30_000)
    wanted = count_sites([oracle_reads(path)], OracleOptions())
    found = read_table(out)
    assert {k[1:]: v[:3] for k, v in found.items()} == {k: counts[0] for k, (counts, _) in wanted.items()}
    assert len(found) == {"rheMac3.SRR636926": 118, "hg38.isoseq": 196}[name]


@pytest.mark.parametrize(("name", "sites", "apart"), [("rheMac3.SRR636926", 217, 1), ("hg38.isoseq", 198, 4)])
def test_spliser_s_walk_gives_the_same_counts(folder, tmp_path, name, sites, apart):
    """No filter on either side, primary alignments only; SpliSER knows no sides, so positions that are both are left out.

    What differs are right sites whose reads splice from the partner to a competitor before they splice across: SpliSER
    counts those reads nowhere, though it counts the mirror image of them at left sites.
    """
    reads = [r for r in oracle_reads(str(folder / f"{name}.bam")) if not r.flag & 0xF00]
    options = OracleOptions(0, 1, 1, 10**9, False)
    theirs = spliser_process(reads, {(a, b): n for (_, _, a, b), (n, _, _) in junction_table(reads, options).items()})
    out = tmp_path / "out.tsv"
    ours_options = CountOptions(0, "keep", min_overhang=1, min_intron=1, max_intron=10**9)
    count_usage([SampleFile.parse(str(folder / f"{name}.bam"))], str(out), ours_options)
    ours = {}
    for (_, _, position, _, _), row in read_table(out).items():
        ours.setdefault(position, []).append(row[:3])
    one_sided = {p: rows[0] for p, rows in ours.items() if len(rows) == 1}
    assert ours.keys() == theirs.keys()
    assert len(one_sided) == sites
    differ = {p: (theirs[p], row) for p, row in one_sided.items() if theirs[p] != row}
    assert len(differ) == apart
    assert all(t[:2] == o[:2] and t[2] < o[2] for t, o in differ.values())


@pytest.fixture(scope="module")
def table(folder, tmp_path_factory):
    """The three mouse libraries with the piece's annotation, through the command line."""
    out = tmp_path_factory.mktemp("bam") / "mouse.tsv"
    bams = [str(folder / f"{name}.bam") for name in BAMS if name.startswith("mm10")]
    done = CliRunner().invoke(
        app, ["from-bam", *bams, "-o", str(out), "--annotation", str(folder / "mm10.cgp.gff.gz"), "--json"]
    )
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_the_reader_reads_what_was_written(table):
    out, report = table
    counts = read_usage(str(out))
    assert isinstance(counts, SiteCounts)
    assert counts.sample_names == ("mm10.ERR033015", "mm10.ERR033016", "mm10.16493_7_4")
    assert len(counts.position) == 3 * report["n_sites"]
    rows = read_table(out)
    sides = {"L": -1, "R": 1}
    wanted = [(k[2], sides[k[4]], v[0], v[1] + v[2]) for k, v in rows.items()]
    found = zip(
        counts.position.tolist(), counts.side.tolist(), counts.alpha.tolist(), counts.beta.tolist(), strict=True
    )
    assert list(found) == wanted
    # The annotation alone knows strands here: these BAMs carry no XS tag.
    assert {k[3] for k in rows} == {"+", "-", "?"}


def test_the_table_joins_at_ingest_and_one_site_is_right(folder, table, tmp_path):
    out, _ = table
    samples = ("mm10.ERR033015", "mm10.ERR033016", "mm10.16493_7_4")
    config = {
        "genomes": [
            {
                "genome_id": "mm10",
                "fasta": str(folder / "mm10.fa.gz"),
                "annotation": str(folder / "mm10.cgp.gff.gz"),
                "usage": [{"file": str(out), "condition": "mouse", "format": "spliser", "convention": "spliser"}],
            }
        ]
    }
    (tmp_path / "genomes.yaml").write_text(yaml.safe_dump(config))
    splicestore("ingest", "genomes", tmp_path / "store", tmp_path / "genomes.yaml", "--override-gates", check=0)
    usage = open_store(str(tmp_path / "store")).genomes["mm10"].usage.to_pandas()
    # Every annotated site is measured, those without a split read too.
    assert len(usage) == 122
    rows = read_table(out)
    # Intron 19770-20318 on +, counted apart from everything here: 6 unique reads in one library, 2 that run across its end.
    assert [rows[s, "chr17", 20_318, "+", "R"][:3] for s in samples] == [(0, 0, 109), (0, 0, 214), (6, 2, 596)]
    acceptor = usage[(usage["position"] == 20_318) & (usage["strand"] == "+")].iloc[0]
    assert (acceptor["alpha"], acceptor["beta"]) == (6.0, 109.0 + 214.0 + 2.0 + 596.0)
    donor = usage[(usage["position"] == 19_769) & (usage["strand"] == "+")].iloc[0]
    assert (donor["alpha"], donor["beta"]) == (6.0, 98.0 + 201.0 + 594.0)
