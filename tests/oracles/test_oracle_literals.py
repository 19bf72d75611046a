"""The oracles against literals read off the real data with zcat, awk, cut and sha256sum, and against hand-made cases."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.oracles import genome_oracle, order_oracle, split_oracle, usage_oracle, window_oracle
from tests.oracles.splicevo_export_oracle import dense_arrays, one_hot

REFSEQ = ("vertebrates/hg38.fa.gz", "vertebrates/refseq.hg38.gtf.gz")
AUGUSTUS = ("vertebrates/hg38.fa.gz", "vertebrates/hg38.cgp.gff.gz")
ENSEMBL = ("vertebrates/mm10.fa.gz", "vertebrates/GRCm38.mm10.subset.gff3.gz")
S288C = ("yeast/S288C.R64-2-1.fa.gz", "yeast/S288C.R64-2-1.gff3.gz")
CPG_1A = ("yeast/CPG_1a.fa.gz", "yeast/CPG_1a.gff3.gz")


@pytest.fixture(scope="module")
def genome(data_dir: Path):
    loaded = {}

    def load(files: tuple[str, str]) -> genome_oracle.Genome:
        if files not in loaded:
            loaded[files] = genome_oracle.load_genome(data_dir / files[0], data_dir / files[1])
        return loaded[files]

    return load


# Per gene: contig, strand, [start, end), then every site of one transcript with the five bases around it on the +
# strand: the site is the middle one.
GENES = {
    "refseq plus": (
        REFSEQ,
        "NM_001176",
        ("chr16", 1, 93642, 96040),
        {
            93789: ("donor", "GAGGT"),
            94782: ("acceptor", "AGTCC"),
            94961: ("donor", "TGGGT"),
            95061: ("acceptor", "AGACC"),
            95144: ("donor", None),
            95333: ("acceptor", None),
            95409: ("donor", None),
            95503: ("acceptor", None),
            95566: ("donor", None),
            95651: ("acceptor", None),
        },
    ),
    "refseq minus": (
        REFSEQ,
        "NM_006428",
        ("chr16", -1, 180420, 183606),
        {
            180818: ("acceptor", None),
            181364: ("donor", None),
            181450: ("acceptor", None),
            181537: ("donor", None),
            181671: ("acceptor", None),
            182104: ("donor", None),
            182256: ("acceptor", None),
            182967: ("donor", None),
            183261: ("acceptor", None),
            183535: ("donor", None),
        },
    ),
    "ensembl plus, two transcripts": (
        ENSEMBL,
        "ENSMUSG00000024181",
        ("chr17", 1, 18581, 21675),
        {
            18910: ("donor", "AAGGT"),
            19617: ("acceptor", "AGCTC"),
            19769: ("donor", "AAGGC"),
            20318: ("acceptor", "AGACC"),
            20452: ("donor", "AGGGT"),
            20539: ("acceptor", "AGAGC"),
            20561: ("acceptor", "AGAGG"),
            20625: ("donor", "AAGGT"),
            21332: ("acceptor", "AGGAC"),
        },
    ),
    "ensembl minus, four transcripts": (
        ENSEMBL,
        "ENSMUSG00000024184",
        ("chr17", -1, 91060, 94149),
        {
            91187: ("acceptor", None),
            91285: ("donor", None),
            91392: ("acceptor", None),
            91481: ("donor", None),
            91662: ("acceptor", None),
            91743: ("donor", None),
            91845: ("acceptor", None),
            91863: ("acceptor", None),
            91953: ("donor", None),
            92150: ("acceptor", None),
            92223: ("donor", None),
            92348: ("acceptor", None),
            92494: ("donor", None),
            92610: ("acceptor", "AAACT"),
            92678: ("donor", "ACCTT"),
            92770: ("acceptor", "ATCCT"),
            92806: ("acceptor", None),
            92815: ("acceptor", None),
            92893: ("donor", "ACCTG"),
            93026: ("acceptor", "GCCCT"),
            93115: ("donor", "ACCTG"),
            93321: ("acceptor", "CATCT"),
            93887: ("donor", "ACAAA"),
        },
    ),
    "S288C plus": (
        S288C,
        "YAL030W",
        ("chrI", 1, 87285, 87752),
        {87386: ("donor", "GCTGT"), 87500: ("acceptor", "AGGAA")},
    ),
    "S288C minus": (
        S288C,
        "YBL091C-A",
        ("chrII", -1, 46564, 47180),
        {47057: ("acceptor", "GAGCT"), 47146: ("donor", "ACCCT")},
    ),
    "CPG_1a plus": (
        CPG_1A,
        "CPG_1a_G0000350",
        ("chrI", 1, 73888, 74355),
        {73989: ("donor", "GCTGT"), 74103: ("acceptor", "AGGAA")},
    ),
    "CPG_1a minus": (
        CPG_1A,
        "CPG_1a_G0000620",
        ("chrI", -1, 134211, 137784),
        {137623: ("acceptor", "TTTCT"), 137714: ("donor", "ACTTC")},
    ),
    "augustus plus": (
        AUGUSTUS,
        "jg6",
        ("chr16", 1, 93717, 96048),
        {
            93789: ("donor", "GAGGT"),
            94782: ("acceptor", "AGTCC"),
            94961: ("donor", "TGGGT"),
            95061: ("acceptor", "AGACC"),
            95144: ("donor", None),
            95333: ("acceptor", None),
            95409: ("donor", None),
            95503: ("acceptor", None),
            95566: ("donor", None),
            95651: ("acceptor", None),
        },
    ),
    "augustus minus": (
        AUGUSTUS,
        "jg2",
        ("chr16", -1, 44504, 47779),
        {44988: ("acceptor", "CACCT"), 47359: ("donor", "ACCTT")},
    ),
}


@pytest.mark.real_data
@pytest.mark.parametrize("case", GENES.values(), ids=GENES.keys())
def test_genes_and_sites_lie_where_the_shell_finds_them(genome, case):
    files, gene_id, place, sites = case
    loaded = genome(files)
    gene = loaded["genes"][gene_id]
    assert (gene["contig"], gene["strand"], gene["start"], gene["end"]) == place
    found = {
        site[1]: (next(iter(loaded["sites"][site])), site[2])
        for site, genes in loaded["site_genes"].items()
        if gene_id in genes
    }
    assert found == {position: (kind, place[1]) for position, (kind, _) in sites.items()}
    for position, (_, bases) in sites.items():
        if bases is not None:
            assert loaded["contigs"][place[0]][position - 2 : position + 3] == bases


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("files", "sites"),
    [
        (REFSEQ, {("donor", 1): 30, ("acceptor", 1): 32, ("donor", -1): 54, ("acceptor", -1): 52}),
        (ENSEMBL, {("donor", 1): 43, ("acceptor", 1): 44, ("donor", -1): 28, ("acceptor", -1): 30}),
    ],
    ids=["refseq", "ensembl"],
)
def test_every_distinct_site_is_counted_once(genome, files, sites):
    found = genome_oracle.canonical_counts(genome(files), by_pair=False)
    assert {stratum: total for stratum, (_, total) in found.items()} == sites


@pytest.mark.real_data
def test_cds_gaps_of_s288c_are_345_with_281_canonical_and_47_frameshifts(data_dir, genome):
    gaps = genome_oracle.distinct_cds_gaps(data_dir / S288C[1])
    contigs = genome(S288C)["contigs"]
    motifs = [genome_oracle.intron_motif(contigs, gap) for gap in gaps if gap[2] - gap[1] > 1]
    frameshifts = [contigs[gap[0]][gap[1]] for gap in gaps if gap[2] - gap[1] == 1]
    on_strand = [
        base if gap[3] == 1 else genome_oracle.complement(base)
        for base, gap in zip(frameshifts, [gap for gap in gaps if gap[2] - gap[1] == 1], strict=True)
    ]
    assert len(gaps) == 345
    assert (motifs.count("GT-AG"), motifs.count("GC-AG"), motifs.count("GT-AT")) == (273, 8, 3)
    assert {base: on_strand.count(base) for base in "ACGT"} == {"A": 37, "C": 6, "G": 2, "T": 2}
    assert min(gap[2] - gap[1] for gap in gaps if gap[2] - gap[1] > 1) == 31


@pytest.mark.real_data
def test_introns_of_the_yeasts(genome):
    s288c, cpg_1a = genome(S288C), genome(CPG_1A)
    motifs = [genome_oracle.intron_motif(cpg_1a["contigs"], intron) for intron in cpg_1a["introns"]]
    assert (len(s288c["genes"]), len(s288c["introns"])) == (7134, 298)
    assert (len(cpg_1a["genes"]), len(motifs)) == (5751, 383)
    assert motifs.count("GT-AG") + motifs.count("GC-AG") == 383


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("files", "n_genic", "n_geneless"),
    [
        (REFSEQ, 187, 211 - 184),
        (ENSEMBL, 127, 179 - 121),
        (AUGUSTUS, 154, None),
        (S288C, 14158, 12165 - 11730),
        (CPG_1A, 12865, 12129 - 11240),
    ],
    ids=["refseq", "ensembl", "augustus", "S288C", "CPG_1a"],
)
def test_number_of_grid_windows(genome, files, n_genic, n_geneless):
    loaded = genome(files)
    assert len(window_oracle.windows(loaded, 1000)) == n_genic
    if n_geneless is not None:
        assert len(window_oracle.windows(loaded, 1000, geneless=True)) == n_genic + n_geneless


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "starts"),
    [
        ("refseq plus", [93000, 94000, 95000, 96000]),
        ("refseq minus", [180000, 181000, 182000, 183000]),
        ("ensembl plus, two transcripts", [18000, 19000, 20000, 21000]),
        ("ensembl minus, four transcripts", [91000, 92000, 93000, 94000]),
        ("S288C plus", [87000]),
        ("S288C minus", [46000, 47000]),
        ("CPG_1a plus", [73000, 74000]),
        ("CPG_1a minus", [134000, 135000, 136000, 137000]),
        ("augustus plus", [93000, 94000, 95000, 96000]),
        ("augustus minus", [44000, 45000, 46000, 47000]),
    ],
)
def test_windows_of_one_gene(genome, case, starts):
    files, gene_id, place, _ = GENES[case]
    found = [window for window in window_oracle.windows(genome(files), 1000) if gene_id in window[3]]
    assert [window[:3] for window in found] == [(place[0], start, place[1]) for start in starts]


@pytest.mark.real_data
def test_a_cell_of_two_genes_is_one_window_with_two_links(genome):
    found = {window[:3]: window[3] for window in window_oracle.windows(genome(ENSEMBL), 1000)}
    assert found[("chr17", 18000, 1)] == ("ENSMUSG00000024180", "ENSMUSG00000024181")
    yeast = {window[:3]: window[3] for window in window_oracle.windows(genome(S288C), 1000)}
    assert yeast[("chrII", 47000, -1)] == ("YBL091C", "YBL091C-A")
    assert yeast[("chrI", 87000, -1)] == ("YAL029C", "YAL031C")
    assert yeast[("chrI", 87000, 1)] == ("YAL030W",)


@pytest.mark.real_data
def test_bases_and_labels_of_a_plus_and_a_minus_window(genome):
    loaded = genome(S288C)
    plus = window_oracle.input_sequence(loaded, ("chrI", 87000, 1, ()), 1000, 5)
    assert (plus[:10], plus[-10:]) == ("GGCTAGCAAC", "TGGCAAAGAC")
    minus = window_oracle.input_sequence(loaded, ("chrII", 47000, -1, ()), 1000, 5)
    assert (minus[-10:], minus[:10]) == ("AAGAGAGTTA", "TACTGTTTCC")
    first = window_oracle.input_sequence(loaded, ("chrI", 0, 1, ()), 15, 5)
    assert first[:20] == "NNNNN" + "CCACACCACACCCAC"
    labels = window_oracle.labels(loaded, ("chrI", 87000, 1, ()), 1000)
    assert {place: code for place, code in enumerate(labels) if code} == {386: 2, 500: 1}
    labels = window_oracle.labels(loaded, ("chrII", 47000, -1, ()), 1000)
    assert {place: code for place, code in enumerate(labels) if code} == {999 - 57: 1, 999 - 146: 2}
    last = window_oracle.labels(loaded, ("chrI", 230000, 1, ()), 1000)
    assert last == [0] * 218 + [255] * 782


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "window_size", "starts"),
    [
        ("S288C plus", 1000, [87386 - 442]),
        ("S288C plus", 116, [87386]),
        ("S288C plus", 115, [87386]),
        ("S288C plus", 114, [87386, 87500]),
        ("S288C plus", 60, [87386, 87446]),
        ("S288C plus", 40, [87386, 87466]),
        ("S288C minus", 1000, [47057 - 455]),
        ("refseq plus", 1000, [93789, 94789]),
    ],
)
def test_splicevo_preset_tiles_the_span_of_the_sites(genome, case, window_size, starts):
    files, gene_id, place, _ = GENES[case]
    found = window_oracle.splicevo_windows(genome(files), window_size)
    assert [window[1] for window in found if gene_id in window[3]] == starts
    assert {window[2] for window in found if gene_id in window[3]} == {place[1]}


@pytest.mark.real_data
def test_splicevo_minus_window_is_complemented_but_not_turned(genome):
    loaded = genome(S288C)
    shown = window_oracle.splicevo_window(loaded, ("chrII", 46602, -1, ()), 1000, 0)
    assert shown["sequence"][:10] == "ACTACTATTC"
    assert shown["sequence"][448:460] == "TTCCCCTCGACT"
    assert {place: code for place, code in enumerate(shown["labels"]) if code} == {455: 2, 544: 1}


@pytest.mark.real_data
def test_dense_export_repeats_the_windows(genome):
    loaded = genome(S288C)
    window = ("chrII", 46602, -1, ())
    counts = {("chrII", 47057, -1): {"a": (4.0, 3.0), "b": (6.0, 2.0)}}
    arrays = dense_arrays(loaded, 1000, 1, counts, ["a", "b"], window_list=[window])
    assert arrays["sequences"].shape == (1, 1002, 4)
    assert np.array_equal(arrays["sequences"][0, 1:6].argmax(axis=1), ["ACGT".index(base) for base in "ACTAC"])
    assert arrays["labels"].tolist() == [[2 if place == 455 else 1 if place == 544 else 0 for place in range(1000)]]
    assert arrays["usage_sse"].shape == (1, 1000, 2)
    assert arrays["usage_alpha"][0, 455].tolist() == [0.0, 6.0]
    assert arrays["usage_beta"][0, 455].tolist() == [0.0, 2.0]
    assert arrays["usage_sse"][0, 455].tolist() == [0.0, 0.75]
    assert np.isfinite(arrays["usage_sse"]).sum() == 2


def test_n_is_all_zero_in_one_hot():
    assert one_hot("ANT").tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


# --- a toy genome whose every base can be counted with a finger --------------------------------------------------


def toy(strand: int = 1, min_intron: int = 5) -> genome_oracle.Genome:
    transcript = {"id": "t", "gene_id": "g", "contig": "c", "strand": strand, "exons": [(0, 6), (12, 18)]}
    return genome_oracle.make_genome({"c": "ACCATGGTCTAGCATTGACA"}, [transcript], min_intron=min_intron)


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(row.replace("|", "\t") + "\n" for row in rows))
    return path


def test_gff3_takes_transcripts_first_and_pieces_of_the_gene_itself_where_it_has_none(tmp_path):
    path = write(
        tmp_path / "x.gff3",
        [
            "##gff-version 3",
            "c|s|CDS|5|10|.|+|0|Parent=transcript:T1",
            "c|s|gene|1|40|.|+|.|ID=gene:G1;Name=n",
            "c|s|mRNA|3|40|.|+|.|ID=transcript:T1;Parent=gene:G1",
            "c|s|CDS|20|30|.|+|0|Parent=transcript:T1",
            "c|s|exon|34|36|.|+|0|Parent=gene:G1",
            "c|s|five_prime_UTR|3|4|.|+|.|Parent=transcript:T1",
            "c|s|three_prime_UTR|31|42|.|+|.|Parent=transcript:T1",
            "c|s|transposable_element_gene|60|90|.|-|.|ID=TE",
            "c|s|CDS|60|70|.|-|0|Parent=TE",
            "c|s|CDS|80|90|.|-|0|Parent=TE",
            "c|s|tRNA_gene|95|99|.|-|.|ID=t%28A%29",
            "c|s|mRNA|50|58|.|+|.|ID=rna-T2",
            "c|s|exon|51|58|.|+|.|Parent=rna-T2",
            "##FASTA",
            ">c",
            "ACGT",
        ],
    )
    transcripts, gene_rows = genome_oracle.parse_annotation(path)

    def transcript(name, gene_id, strand, exons, row):
        return {"id": name, "gene_id": gene_id, "contig": "c", "strand": strand, "exons": exons, "row": row}

    assert transcripts == [
        transcript("T1", "G1", 1, [(2, 10), (19, 42)], (2, 40)),
        transcript("TE", "TE", -1, [(59, 70), (79, 90)], (59, 90)),
        transcript("T2", "T2", 1, [(50, 58)], (49, 58)),
    ]
    rows = {
        "G1": {"contig": "c", "strand": 1, "start": 0, "end": 40},
        "TE": {"contig": "c", "strand": -1, "start": 59, "end": 90},
        "t(A)": {"contig": "c", "strand": -1, "start": 94, "end": 99},
    }
    assert gene_rows == rows
    genome = genome_oracle.make_genome({"c": "A" * 100}, transcripts, gene_rows)
    widened = {**rows["G1"], "end": 42}
    assert genome["genes"] == {**rows, "G1": widened, "T2": {"contig": "c", "strand": 1, "start": 49, "end": 58}}
    assert genome["introns"] == {("c", 10, 19, 1), ("c", 70, 79, -1)}


def test_gtf_takes_exons_before_cds_and_a_short_gap_is_no_intron(tmp_path):
    path = write(
        tmp_path / "x.gtf",
        [
            '# gene_id "none";',
            "c|s|gene|1|50|.|-|.|g",
            "c|s|transcript|2|50|.|-|.|g.t1",
            'c|s|exon|2|10|.|-|.|transcript_id "g.t1"; gene_id "g"; note "a; b";',
            'c|s|exon|15|20|.|-|.|transcript_id "g.t1"; gene_id "g";',
            'c|s|exon|26|50|.|-|.|transcript_id "g.t1"; gene_id "g";',
            'c|s|CDS|4|8|.|-|0|transcript_id "g.t1"; gene_id "g";',
            'c|s|exon|90|101|.|-|.|transcript_id "h.t1"; gene_id "h";',
        ],
    )
    transcripts, gene_rows = genome_oracle.parse_annotation(path)
    assert transcripts[0]["exons"] == [(1, 10), (14, 20), (25, 50)]
    genome = genome_oracle.make_genome({"c": "A" * 100}, transcripts, gene_rows)
    assert genome["introns"] == {("c", 20, 25, -1)}
    assert genome["sites"] == {("c", 19, -1): {"acceptor"}, ("c", 25, -1): {"donor"}}
    assert genome["genes"] == {"g": {"contig": "c", "strand": -1, "start": 0, "end": 50}}
    assert genome["dropped"] == ["h.t1"]


def test_sites_of_the_toy_gene_on_both_strands():
    assert toy(1)["sites"] == {("c", 5, 1): {"donor"}, ("c", 12, 1): {"acceptor"}}
    assert toy(-1)["sites"] == {("c", 5, -1): {"acceptor"}, ("c", 12, -1): {"donor"}}
    assert toy(1, min_intron=7)["sites"] == {}
    assert toy(1, min_intron=6)["sites"] != {}


def test_motifs_are_read_in_transcript_orientation():
    contigs = {"c": "AAGTCCCAGAA", "d": "TTCTGGGACTT"}
    assert genome_oracle.intron_motif(contigs, ("c", 2, 9, 1)) == "GT-AG"
    assert genome_oracle.intron_motif(contigs, ("d", 2, 9, -1)) == "GT-AG"
    assert genome_oracle.site_motif(contigs, ("c", 1, 1), "donor") == "GT"
    assert genome_oracle.site_motif(contigs, ("c", 9, 1), "acceptor") == "AG"
    assert genome_oracle.site_motif(contigs, ("d", 9, -1), "donor") == "GT"
    assert genome_oracle.site_motif(contigs, ("d", 1, -1), "acceptor") == "AG"


def test_reverse_complemented_world_gives_the_same_windows():
    size = 20
    plus = toy(1)
    mirrored = {
        "id": "t",
        "gene_id": "g",
        "contig": "c",
        "strand": -1,
        "exons": [(size - end, size - start) for start, end in [(0, 6), (12, 18)]],
    }
    minus = genome_oracle.make_genome({"c": genome_oracle.reverse_complement(plus["contigs"]["c"])}, [mirrored])
    for start in (0, 10):
        here, there = ("c", start, 1, ()), ("c", size - start - 10, -1, ())
        assert window_oracle.input_sequence(plus, here, 10, 3) == window_oracle.input_sequence(minus, there, 10, 3)
        assert window_oracle.labels(plus, here, 10) == window_oracle.labels(minus, there, 10)


def test_a_base_of_both_kinds_is_masked():
    exons = [[(0, 6), (12, 13), (20, 26)], [(0, 6), (12, 26)]]
    genome = genome_oracle.make_genome(
        {"c": "A" * 30},
        [{"id": str(n), "gene_id": "g", "contig": "c", "strand": 1, "exons": rows} for n, rows in enumerate(exons)],
    )
    assert genome["sites"][("c", 12, 1)] == {"donor", "acceptor"}
    labels = window_oracle.labels(genome, ("c", 0, 1, ()), 30)
    assert {place: code for place, code in enumerate(labels) if code} == {5: 2, 12: 255, 20: 1}


def test_short_region_takes_the_odd_base_on_the_right():
    assert window_oracle.region_starts(10, 13, 10) == [7]
    assert window_oracle.region_starts(10, 14, 10) == [7]
    assert window_oracle.region_starts(2, 3, 10) == [-2]
    assert window_oracle.region_starts(10, 20, 10) == [10]
    assert window_oracle.region_starts(10, 21, 10) == [10, 20]
    assert window_oracle.grid_starts(9, 11, 10) == [0, 10]
    assert window_oracle.grid_starts(10, 20, 10) == [10]


def test_a_genome_without_annotation_is_tiled_on_plus():
    genome = genome_oracle.make_genome({"b": "A" * 25, "a": "C" * 10})
    places = [("b", 0, 1, ()), ("b", 10, 1, ()), ("b", 20, 1, ()), ("a", 0, 1, ())]
    assert window_oracle.windows(genome, 10) == places
    assert window_oracle.windows(genome, 10, geneless=True) == places


def test_usage_threshold_masks_only_sse():
    counts = {("c", 5, 1): {"x": (6.0, 3.0), "y": (6.0, 4.0), "z": (None, None)}}
    found = window_oracle.usage(("c", 0, 1, ()), 10, counts, ["x", "y", "z"])
    assert found["alpha"][5] == [6.0, 6.0, None]
    assert found["beta"][5] == [3.0, 4.0, None]
    assert found["sse"][5] == [None, 0.6, None]
    assert found["alpha"][4] == [None, None, None]
    zero = window_oracle.usage(("c", 0, 1, ()), 10, counts, ["x", "z"], alpha_threshold=7, min_reads=0)
    assert [zero[name][5] for name in ("alpha", "beta", "sse")] == [[0.0, None]] * 3


# --- usage -------------------------------------------------------------------------------------------------------


def junction_table(path: Path) -> list[usage_oracle.Junction]:
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
    return [(row[0], int(row[1]), int(row[2]), {"+": 1, "-": -1}.get(row[3], 0), float(row[4])) for row in rows]


@pytest.mark.real_data
def test_junction_usage_of_mrpl28(data_dir, genome):
    junctions = junction_table(data_dir / "vertebrates/mm10.junctions.tsv.gz")
    found = usage_oracle.junction_counts(junctions, genome(ENSEMBL)["sites"])
    assert {position: found[("chr17", position, 1)] for position in GENES["ensembl plus, two transcripts"][3]} == {
        18910: (1709, 0),
        19617: (1709, 0),
        19769: (1819 + 2 + 1, 0),  # the last one has no strand and one end on a site
        20318: (1819 + 25 + 10, 2 + 2 + 1),
        20452: (2257 + 2 + 43, 0),
        20539: (2257, 2 + 43),
        20561: (43, 0),
        20625: (2212, 0),
        21332: (2212, 0),
    }


@pytest.mark.real_data
def test_junction_usage_on_the_minus_strand(data_dir):
    junctions = junction_table(data_dir / "vertebrates/hg38.junctions.tsv.gz")
    sites = {
        ("chr16", 2375, -1): {"acceptor"},
        ("chr16", 2967, -1): {"donor"},
        ("chr16", 2983, -1): {"donor"},
        ("chr16", 181671, -1): {"acceptor"},
        ("chr16", 182104, -1): {"donor"},
        ("chr16", 183261, -1): {"acceptor"},
        ("chr16", 183535, -1): {"donor"},
    }
    assert list(usage_oracle.junction_counts(junctions, sites).values()) == [
        (163 + 4 + 570 + 7, 0),
        (163, 4 + 570 + 7),
        (4, 570 + 7),
        (698 + 1, 0),
        (698 + 2, 0),
        (200 + 1, 0),
        (200, 1),
    ]


def test_a_junction_of_the_other_strand_or_without_a_shared_end_is_no_competitor():
    sites = {("c", 9, 1): {"donor"}, ("c", 20, 1): {"acceptor"}, ("c", 99, 1): {"donor"}}
    junctions = [
        ("c", 10, 20, 1, 7.0),
        ("c", 5, 20, 1, 2.0),
        ("c", 5, 20, 1, 1.0),
        ("c", 5, 30, 1, 50.0),
        ("c", 5, 20, -1, 100.0),
        ("d", 5, 20, 1, 1000.0),
        ("c", 10, 25, 1, 4.0),
    ]
    found = usage_oracle.junction_counts(junctions, sites)
    # the donor's partners are 20 and 25: only [5, 20) reaches one of them across boundary 10
    assert found[("c", 9, 1)] == (11, 3)
    # the acceptor's partners are 10 and 5: [5, 30) and [10, 25) leave one of them and pass 20
    assert found[("c", 20, 1)] == (10, 54)
    assert found[("c", 99, 1)] == (None, None)


def test_spliser_and_splicevo_rows_find_the_same_sites():
    # intron [100, 200): SpliSER writes 100 and 200, 1-based intron ends are 101 and 200
    for strand, kinds in ((1, ("donor", "acceptor")), (-1, ("acceptor", "donor"))):
        sites = {("c", 99, strand): {kinds[0]}, ("c", 200, strand): {kinds[1]}}
        for convention, left in (("spliser", 100), ("splicevo", 101)):
            base = {"contig": "c", "strand": strand, "alpha": 8, "beta1": 1, "beta2": 1}
            rows = [{**base, "site": left, "partners": [200]}, {**base, "site": 200, "partners": [left]}]
            counts, joined = usage_oracle.join_spliser(rows, sites, convention)
            assert counts == dict.fromkeys(sites, (8, 2))
            assert joined == {"matched": 2, "ambiguous": 0, "unmatched": 0}


def test_a_row_without_partners_is_matched_only_when_one_reading_fits():
    row = {"contig": "c", "site": 100, "strand": 1, "alpha": 1, "beta1": 0, "beta2": 0}
    donor, acceptor = {("c", 99, 1): {"donor"}}, {("c", 100, 1): {"acceptor"}}
    assert usage_oracle.join_spliser([row], donor)[0] == {("c", 99, 1): (1, 0)}
    assert usage_oracle.join_spliser([row], acceptor)[0] == {("c", 100, 1): (1, 0)}
    assert usage_oracle.join_spliser([row], donor | acceptor)[1]["ambiguous"] == 1
    assert usage_oracle.join_spliser([row], {("c", 99, 1): {"acceptor"}})[1]["unmatched"] == 1


def test_samples_of_a_condition_are_summed_before_the_division():
    site, other, never = ("c", 1, 1), ("c", 2, 1), ("c", 3, 1)
    total = usage_oracle.sum_samples(
        [{site: (1, 9)}, {site: (9, 1), other: (4, 1)}], dict.fromkeys([site, other, never], {"donor"})
    )
    assert total == {site: (10, 10), other: (4, 1), never: (None, None)}
    assert usage_oracle.sse(*total[site]) == 0.5
    assert usage_oracle.sse(*total[other]) is None
    assert usage_oracle.sse(*total[other], min_reads=5) == 0.8
    assert usage_oracle.sse(0, 0, min_reads=0) is None
    assert usage_oracle.alpha_zero(4, 100, 5) == [0, 0, 0]
    assert usage_oracle.alpha_zero(5, 5, 5) == [5, 5, 0.5]


# --- split -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("salt", "seed", "genome_id", "gene_id", "first_eight_bytes"),
    [
        ("subset", 0, "hg38", "GENE1", 0xD6C556EF055C7A25),
        ("anchor", 0, "hg38", "GENE1", 0x8BCFBF9FEF8DA82E),
        ("anchor", 0, "mm10", "GENE1", 0x1B5DA4F624B3F5EB),
        ("subset", 0, "mm10", "GENE1", 0x0E0836B46526F677),
        ("subset", 7, "yeast", "YAL030W", 0x50A6EBC4195A74FF),
        ("geneless", 0, "hg38", "chr16:3", 0x189C34E37E17F460),
    ],
)
def test_hash_is_what_sha256sum_says(salt, seed, genome_id, gene_id, first_eight_bytes):
    assert split_oracle.hash_share(salt, seed, genome_id, gene_id) == first_eight_bytes / 2**64


A1, A2, A3, B1, B2, C1 = ("a", "A1"), ("a", "A2"), ("a", "A3"), ("b", "B1"), ("b", "B2"), ("c", "C1")


def test_components_chain_through_groups_and_ignore_unknown_members():
    found = split_oracle.components([A1, A2, A3, B1, B2, C1], [[A1, B1], [B1, C1], [A2, ("z", "Z")], [("z", "Z"), B2]])
    assert found == [{A1, B1, C1}, {A2}, {A3}, {B2}]


@pytest.mark.parametrize(
    ("sides", "conflict", "decision"),
    [
        (["test", "train", "train"], "test", ("test", "")),
        (["test", "train", "train"], "train", ("train", "")),
        (["test", "train", "train"], "majority", ("train", "")),
        (["test", "train"], "majority", ("test", "")),
        (["val", "train"], "test", ("val", "")),
        (["val", "test"], "drop", ("excluded", "conflict")),
        (["val", "val"], "drop", ("val", "")),
        (["val", "test"], "train", ("val", "")),
    ],
)
def test_conflicts(sides, conflict, decision):
    assert split_oracle.resolve_conflict(sides, conflict) == decision


def test_chromosome_mode_and_its_unassigned_genes():
    found = [{A1, B1}, {A2}, {B2, C1}]
    contigs = {A1: "1", A2: "2", B1: "7", B2: "7", C1: "7"}
    for policy, decision in (("train", ("train", "")), ("drop", ("excluded", "unassigned"))):
        made = split_oracle.assign_chromosomes(found, contigs, "a", ["1"], ["2"], unassigned=policy)
        assert made == {A1: ("test", ""), B1: ("test", ""), A2: ("val", ""), B2: decision, C1: decision}


def test_fraction_mode_is_decided_by_the_anchor():
    # sha256sum: anchor a/A1 f854.., b/B1 58b6..; subset a/A1 c2b6.. = 0.7606, b/B1 6b1f.. = 0.4184
    pair = [{A1, B1}]
    without = split_oracle.assign_fractions(pair, test_fraction=0.2, val_fraction=0.3)
    assert without == {A1: ("val", ""), B1: ("val", "")}
    with_reference = split_oracle.assign_fractions(pair, test_fraction=0.2, val_fraction=0.3, reference_genome="a")
    assert with_reference == {A1: ("train", ""), B1: ("train", "")}
    # seed 1: anchor is B1 again (1259.. < e2eb..), its subset 0d60.. = 0.0522
    assert split_oracle.assign_fractions(pair, test_fraction=0.1, val_fraction=0.3, seed=1)[A1] == ("test", "")


MODE_1 = {"name": "chromosomes", "reference_genome": "a", "test_chromosomes": ["1"], "val_chromosomes": ["2"]}
MODE_2 = {"name": "fractions", "seed": 0, "test_fraction": 0.5, "val_fraction": 0.2}


def test_geneless_windows():
    rows = [("a", "1", 0, 10, 1), ("a", "2", 0, 10, 1), ("a", "3", 0, 10, 1), ("b", "1", 0, 10, 1)]
    assert [split_oracle.geneless_subset(row, MODE_1) for row in rows] == ["test", "val", "train", "train"]
    # sha256sum: geneless a chr1:0 is 99c1.. = 0.6006, chr1:1 is 6e45.. = 0.4307
    rows = [("a", "chr1", 0, 10, 1), ("a", "chr1", 999_999, 1_000_009, 1), ("a", "chr1", 1_000_000, 1_000_010, 1)]
    assert [split_oracle.geneless_subset(row, MODE_2) for row in rows] == ["val", "val", "test"]


def test_guard_by_hand():
    # W 10; genes: A1 test in [40, 50), A2 train in [0, 40) and A3 train in [50, 90); context 10, 11 and none
    windows = [("a", "3", start, start + 10, 1) for start in range(0, 90, 10)] + [("b", "3", 40, 50, 1)]
    spans = {A1: ("3", 40, 50), A2: ("3", 0, 40), A3: ("3", 50, 90)}
    decisions = {A1: ("test", ""), A2: ("train", ""), A3: ("train", "")}

    plain = ["train"] * 4 + ["test"] + ["train"] * 5
    for context_size, guard in ((0, "centre"), (0, "input"), (10, "none")):
        table = split_oracle.window_table(windows, spans, decisions, MODE_1, context_size, guard)
        assert [subset for subset, _ in table] == plain
    table = split_oracle.window_table(windows, spans, decisions, MODE_1, 10, "centre")
    assert [row for row, decision in enumerate(table) if decision == ("excluded", "overlaps_test")] == [3, 5]
    assert table[4] == ("test", "")
    table = split_oracle.window_table(windows, spans, decisions, MODE_1, 11, "centre")
    assert [row for row, decision in enumerate(table) if decision[0] == "excluded"] == [2, 3, 5, 6]
    table = split_oracle.window_table(windows, spans, decisions, MODE_1, 10, "input")
    assert [row for row, decision in enumerate(table) if decision[0] == "excluded"] == [2, 3, 5, 6]
    assert table[9] == ("train", "")
    assert not split_oracle.leaks(windows, table, 10)
    counts = split_oracle.conservation(table)
    assert counts == {"in": 10, "train": 5, "val": 0, "test": 1, "excluded": 4, "reasons": {"overlaps_test": 4}}


def test_guard_between_val_and_train_and_on_the_other_strand():
    windows = [("a", "3", 0, 10, 1), ("a", "3", 10, 20, -1), ("a", "3", 20, 30, 1)]
    spans = {A1: ("3", 0, 10), A2: ("3", 10, 20), A3: ("3", 20, 30)}
    decisions = {A1: ("train", ""), A2: ("val", ""), A3: ("test", "")}
    table = split_oracle.window_table(windows, spans, decisions, MODE_1, 1, "centre")
    assert table == [("excluded", "overlaps_val"), ("excluded", "overlaps_test"), ("test", "")]


def test_a_window_takes_the_strongest_of_its_genes_on_either_strand():
    spans = {A1: ("3", 0, 5), A2: ("3", 5, 10), A3: ("3", 9, 30)}
    window = ("a", "3", 0, 10, 1)
    decisions = {A1: ("train", ""), A2: ("val", ""), A3: ("test", "")}
    assert split_oracle.window_decision(window, spans, decisions, MODE_1) == ("test", "")
    dropped = {A1: ("train", ""), A2: ("excluded", "conflict"), A3: ("excluded", "unassigned")}
    assert split_oracle.window_decision(window, spans, dropped, MODE_1) == ("excluded", "conflict")
    held_out = {**dropped, A1: ("val", "")}
    assert split_oracle.window_decision(window, spans, held_out, MODE_1) == ("val", "")
    assert split_oracle.window_decision(("a", "3", 6, 9, 1), spans, dropped, MODE_1) == ("excluded", "conflict")


def test_extend_moves_nothing_and_lists_bridges():
    old = {A1: ("test", ""), A2: ("train", ""), A3: ("excluded", "unassigned")}
    fresh = dict.fromkeys([A1, A2, A3, B1, B2, C1], ("val", ""))
    found = [{A1, A2, B1}, {A3, C1}, {B2}]
    decisions, bridges = split_oracle.extend(found, old, fresh)
    assert decisions == {**old, B1: ("excluded", "bridges_subsets"), C1: ("excluded", "unassigned"), B2: ("val", "")}
    assert bridges == [B1]
    assert split_oracle.extend([{A1, B1}], {A1: ("test", "")}, fresh)[0][B1] == ("test", "")


def test_gates_fail_from_two_hundred_on():
    for n, verdict in ((199, "warns"), (200, "fails")):
        windows = [("a", "1", start, start + 1, 1) for start in range(n)]
        table = [("excluded", "overlaps_test")] * 21 + [("train", "")] * (n - 21)
        found = [{("a", str(gene)) for gene in range(41)}] + [{("a", str(gene))} for gene in range(41, n)]
        said = split_oracle.gates(windows, table, found, ("train",))
        assert said == [("component", verdict), ("excluded", verdict)]
    assert ("empty", "fails") in split_oracle.gates(windows, table, found, ("train", "test"))


# --- order -------------------------------------------------------------------------------------------------------


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x64-10 (Salmon et al. 2011) written out, to hold numpy's stream against."""
    mask = 2**64 - 1
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (product1 >> 64) ^ c1 ^ k0, product1 & mask, (product0 >> 64) ^ c3 ^ k1, product0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_philox_known_answer():
    assert philox((0, 0), (0, 0, 0, 0)) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_draws_are_philox_with_the_counter_raised_before_each_four():
    expected = [value for count in (1, 2) for value in philox((42, 3), (count, 0, 17, 2))]
    assert order_oracle.raw_draws(42, 3, 17, 2, 6) == expected[:6]
    assert order_oracle.phase(42, 3, 17) == philox((42, 3), (1, 0, 17, 1))[0] // 2**48


def test_keys_by_hand():
    t = 2**20
    # one live block: windows of a block follow each other within [i*T, (i+1)*T)
    assert [order_oracle.window_key(0, r, 0, 2, 1, 2) for r in (0, 1)] == [0, t // 2]
    assert order_oracle.window_key(1, 0, 2**15, 1, 1, 2) == t + t // 2
    # two live: the block spreads over 2T and wraps at n*T
    assert [order_oracle.window_key(1, r, 0, 2, 2, 2) for r in (0, 1)] == [t, 0]
    assert order_oracle.window_key(2, 3, 2**15, 4, 3, 3) == (2 * t + 3 * t * 7 // 8) % (3 * t)
    assert order_oracle.window_key(0, 1, 1, 3, 1, 1) == (2**16 + 1) * t // (3 * 2**16) == 349_530


def test_one_live_block_reads_blocks_one_after_another():
    windows = [[10 * block + place for place in range(4)] for block in range(5)]
    (lane,) = order_oracle.epoch_lanes(windows, 1, 1, seed=5, epoch=2)
    blocks = [window // 10 for window in lane]
    dealt = order_oracle.stable_argsort([value for c in (1, 2) for value in philox((5, 2), (c, 0, 0, 0))][:5])
    assert blocks == [block for block in dealt for _ in range(4)]
    draws = philox((5, 2), (1, 0, dealt[0], 2))
    assert lane[:4] == [10 * dealt[0] + place for place in order_oracle.stable_argsort(draws)]


def test_blocks_go_to_the_lane_with_the_fewest_windows():
    sizes = [100, 1, 1, 1]
    dealt = order_oracle.deal(sizes, 2, seed=0, epoch=0)
    order = order_oracle.stable_argsort(philox((0, 0), (1, 0, 0, 0)))
    big = next(lane for lane in dealt if 0 in lane)
    assert dealt[0][0] == order[0]
    assert dealt[1][0] == order[1]
    assert big[-1] == 0 or order.index(0) < 2
    assert sorted(dealt[0] + dealt[1]) == [0, 1, 2, 3]


def test_live_blocks_are_capped():
    assert order_oracle.lane_live_blocks(64, 8, [10] * 100) == 8
    assert order_oracle.lane_live_blocks(64, 8, [10] * 3) == 3
    assert order_oracle.lane_live_blocks(4, 8, [10] * 3) == 1
    assert order_oracle.lane_live_blocks(256, 1, [2**20] * 300) == 127


@pytest.mark.parametrize("live", [1, 3, 1000])
@pytest.mark.parametrize("tail", ["short", "pad", "drop"])
def test_ranks_are_disjoint_and_together_the_global_batch(live, tail):
    sizes = [3, 1, 7, 2, 5, 11, 4, 1, 9]
    ids = iter(range(sum(sizes)))
    windows = [[next(ids) for _ in range(size)] for size in sizes]
    ordered = order_oracle.epoch_lanes(windows, 4, live, seed=1, epoch=0)
    whole = order_oracle.epoch_batches(ordered, 8, tail=tail)
    halves = [order_oracle.epoch_batches(ordered, 8, rank=rank, world=2, tail=tail) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(rows) for rows in whole]
    seen = sorted(window for rows in whole for window in rows if window >= 0)
    if tail == "drop":
        assert len(set(seen)) == len(seen)
        assert all(len(rows) == 8 for rows in whole)
    else:
        assert seen == list(range(sum(sizes)))
    if tail == "pad":
        assert all(len(rows) == 8 for rows in whole)


def test_block_of_a_window_is_where_its_input_starts_clamped_to_the_contig():
    million = 2**20
    assert order_oracle.window_block(0, 0, 450) == 0
    assert order_oracle.window_block(million, 0, 450) == 1
    assert order_oracle.window_block(million, 449, 450) == 1
    assert order_oracle.window_block(0, million + 449, 450) == 0
    assert order_oracle.window_block(0, million + 450, 450) == 1
    assert order_oracle.window_block(0, million + 450, 450, jitter=1) == 0
    assert order_oracle.block_table([(1, 0), (0, 5), (1, 0), (0, 2)]) == ([(0, 2), (0, 5), (1, 0)], [[3], [1], [0, 2]])
