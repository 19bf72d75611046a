"""The orthology reader: every layout as a small written file, real tables, ids in all spellings, bad inputs."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splicestore.errors import InputError
from splicestore.readers.annotation import read_annotation
from splicestore.readers.orthology import FORMATS, Homology, detect_orthology_format, read_orthology

GENES = {"human": ["H1", "H2", "H3"], "mouse": ["M1", "M2", "M3"], "cow": ["C1", "C2"]}
TRANSCRIPTS = {"human": {"HT1": "H1", "HT2": "H2"}, "mouse": {"MT1": "M1", "MT2": "M2"}, "cow": {"CT1": "C1"}}
TWO_GROUPS = {frozenset({"human:H1", "mouse:M1"}), frozenset({"human:H2", "mouse:M2", "cow:C1"})}


def write(folder: Path, text: str, name: str = "table.tsv") -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def groups_of(homology: Homology, genes: dict[str, list[str]] = GENES) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in homology.group_names}
    for group, genome, gene in zip(homology.group, homology.genome, homology.gene, strict=True):
        genome_id = homology.genome_ids[genome]
        found[homology.group_names[group]].add(f"{genome_id}:{genes[genome_id][gene]}")
    return found


def sets_of(homology: Homology) -> set[frozenset[str]]:
    return {frozenset(members) for members in groups_of(homology).values()}


def reasons(homology: Homology) -> set[tuple[str, str, int]]:
    return {(row.identifier, row.reason, row.count) for row in homology.ledger}


LONG = """ortholog_group\tgenome_id\tgene_id
A\thuman\tH1
A\tmouse\tM1
B\thuman\tH2
B\tmouse\tM2
B\tcow\tC1
"""
COMPARA = """gene_stable_id\tprotein_stable_id\tspecies\tidentity\thomology_type\thomology_gene_stable_id\thomology_species\tdn
H1\tP1\thuman\t90\tortholog_one2one\tM1\tmouse\tNULL
M2\tP2\tmouse\t90\tortholog_one2one\tH2\thuman\t0.1
H2\tP3\thuman\t90\tortholog_one2one\tNULL\tcow\tNULL
"""
N0 = """HOG\tOG\tGene Tree Parent Clade\tHUMAN\tMouse\tcow\r
N0.HOG1\tOG1\tn1\tHT1\tMT1\t\r
N0.HOG2\tOG1\tn1\tHT2\tMT2\tC1, CT1\r
"""
EMAPPER = """## emapper-2.1.9
#query\tseed_ortholog\tevalue\tscore\teggNOG_OGs\tmax_annot_lvl
H1\ts\t0\t1\tR1@1|root,V1@7742|Vertebrata\tx
M1\ts\t0\t1\tR1@1|root,V1@7742|Vertebrata\tx
#query\tseed_ortholog\tevalue\tscore\teggNOG_OGs\tmax_annot_lvl
H2\ts\t0\t1\tR1@1|root,V2@7742|Vertebrata\tx
M2\ts\t0\t1\tR1@1|root,V2@7742|Vertebrata\tx
C1\ts\t0\t1\tR1@1|root,V2@7742|Vertebrata\tx
C2\ts\t0\t1\t-\tx
## 5 queries scanned
"""
OG_LIST = """H1\tV1@7742|Vertebrata
M1\tV1@7742|Vertebrata
H2\tV2@7742|Vertebrata
M2\tV2@7742|Vertebrata
C1\tV2@7742|Vertebrata
"""
AUGUSTUS = """# 0\thuman
# 1\tmouse
# 2\tcow
(0,HT1) (1,MT1)
(0,HT2) (1,MT2) (2,CT1)
"""
OG2GENES = """1at40674\t9606_0:00a1
1at40674\t10090_0:00b1
2at40674\t9606_0:00a2
2at40674\t10090_0:00b2
2at40674\t9913_0:00c1
"""
ORTHODB_GENES = """9606_0:00a1\t9606_0\tNP_1\t\tQ1\tH1\t11\tfirst
9606_0:00a2\t9606_0\tNP_2\tx;H2\tQ2\t\t12\tsecond
9606_0:ffff\t9606_0\tNP_9\t\t\tH3\t19\tnot asked for
10090_0:00b1\t10090_0\tMT1\t\t\t\t21\t
10090_0:00b2\t10090_0\tMT2\t\t\t\t22\t
9913_0:00c1\t9913_0\tNP_5\t\t\tENSX;C1\t31\t
"""
SAME_CONTENT = {
    "long": LONG,
    "groups": "H1\tM1\nH2\tM2\tC1\n",
    "orthofinder": "Orthogroup\thuman\tmouse\tcow\r\nOG1\tHT1\tMT1\t\r\nOG2\tHT2\tMT2\tCT1, C1\r\n",
    "augustus": AUGUSTUS,
    "eggnog": OG_LIST,
}


@pytest.mark.parametrize("layout", SAME_CONTENT)
@pytest.mark.parametrize("declared", [True, False])
def test_layouts_of_the_same_groups_read_alike(tmp_path: Path, layout: str, declared: bool) -> None:
    url = write(tmp_path, SAME_CONTENT[layout])
    homology = read_orthology(url, GENES, transcripts=TRANSCRIPTS, format=layout if declared else "auto")
    assert sets_of(homology) == TWO_GROUPS
    assert homology.ledger == []
    assert homology.group.dtype == np.int64
    assert homology.genome.dtype == homology.gene.dtype == np.int32


@pytest.mark.parametrize("layout", SAME_CONTENT)
def test_layouts_are_told_apart(tmp_path: Path, layout: str) -> None:
    assert layout in FORMATS
    assert detect_orthology_format(write(tmp_path, SAME_CONTENT[layout]), GENES, transcripts=TRANSCRIPTS) == layout


@pytest.mark.parametrize("group", ["ortholog_group", "orthogroup", "group_id"])
@pytest.mark.parametrize("genome", ["genome_id", "genome", "species"])
def test_long_tables_take_their_columns_in_any_order_and_from_csv(tmp_path: Path, group: str, genome: str) -> None:
    url = write(tmp_path, f'note,gene_id,{genome},{group}\n"a, b",H1,human,A\nx,M1,MOUSE,A\n')
    assert groups_of(read_orthology(url, GENES)) == {"A": {"human:H1", "mouse:M1"}}


def test_rows_are_unique_and_sorted_and_a_gene_counts_once_per_group(tmp_path: Path) -> None:
    url = write(tmp_path, LONG + "A\tmouse\tM1\nA\thuman\tHT1\n\nA\thuman\tH3\n")
    homology = read_orthology(url, GENES, transcripts=TRANSCRIPTS)
    rows = list(zip(homology.group.tolist(), homology.genome.tolist(), homology.gene.tolist(), strict=True))
    assert rows == sorted(set(rows))
    assert len(rows) == 6
    assert homology.matched == {"exact": 7, "transcript": 1, "deprefixed": 0, "deversioned": 0, "unmatched": 0}


def test_compara_rows_are_edges_and_null_is_no_gene(tmp_path: Path) -> None:
    homology = read_orthology(write(tmp_path, COMPARA), GENES)
    assert groups_of(homology) == {
        "line 2": {"human:H1", "mouse:M1"},
        "line 3": {"human:H2", "mouse:M2"},
        "line 4": {"human:H2"},
    }
    assert homology.ledger == []


@pytest.mark.parametrize("separator", ["\t", ","])
def test_biomart_columns_name_species(tmp_path: Path, separator: str) -> None:
    rows = [
        ["Gene stable ID", "Gene name", "Mouse gene stable ID", "Mouse homology type", "Cow gene stable ID"],
        ["H1", "n1", "M1", "ortholog_one2one", ""],
        ["H2", "n2", "M2", "ortholog_one2many", "C1"],
        ["H2", "n2", "M3", "ortholog_one2many", "C1"],
        ["H3", "n3", "", "", ""],
    ]
    url = write(tmp_path, "".join(separator.join(row) + "\n" for row in rows))
    homology = read_orthology(url, GENES, column_genomes={"Gene stable ID": "human"})
    assert groups_of(homology) == {
        "H1": {"human:H1", "mouse:M1"},
        "H2": {"human:H2", "mouse:M2", "mouse:M3", "cow:C1"},
        "H3": {"human:H3"},
    }
    assert groups_of(read_orthology(url, GENES)) == groups_of(homology)


def test_orthofinder_hogs_are_the_groups_of_n0(tmp_path: Path) -> None:
    homology = read_orthology(write(tmp_path, N0), GENES, transcripts=TRANSCRIPTS)
    assert groups_of(homology) == {
        "N0.HOG1": {"human:H1", "mouse:M1"},
        "N0.HOG2": {"human:H2", "mouse:M2", "cow:C1"},
    }
    assert homology.matched["transcript"] == 5


def test_column_genomes_names_proteomes(tmp_path: Path) -> None:
    url = write(tmp_path, "Orthogroup\tHomo_sapiens.pep\tmouse\nOG1\tH1\tM1\n")
    homology = read_orthology(url, GENES, column_genomes={"Homo_sapiens.pep": "human"})
    assert sets_of(homology) == {frozenset({"human:H1", "mouse:M1"})}


def test_orthodb_genes_table_translates_ids(tmp_path: Path) -> None:
    url, table = write(tmp_path, OG2GENES), write(tmp_path, ORTHODB_GENES, "genes.tab")
    organisms = {"9606": "human", "10090_0": "mouse", "9913": "cow"}
    homology = read_orthology(
        url, GENES, transcripts=TRANSCRIPTS, column_genomes=organisms, level="40674", genes_table=table
    )
    assert sets_of(homology) == TWO_GROUPS
    with pytest.raises(InputError, match="give OrthoDB's genes table with genes_table"):
        read_orthology(url, GENES, column_genomes=organisms)


def test_orthodb_reads_one_level(tmp_path: Path) -> None:
    organisms = {"9606": "human", "10090": "mouse", "9913": "cow"}
    genes = {
        "human": ["9606_0:00a1", "9606_0:00a2"],
        "mouse": ["10090_0:00b1", "10090_0:00b2"],
        "cow": ["9913_0:00c1"],
    }
    outer = "".join(f"9at2759\t{line.split()[1]}\n" for line in OG2GENES.splitlines())
    url = write(tmp_path, outer + OG2GENES)
    homology = read_orthology(url, genes, column_genomes=organisms, level="40674")
    assert homology.group_names == ["1at40674", "2at40674"]
    assert np.bincount(homology.group).tolist() == [2, 3]
    with pytest.raises(InputError, match=r"2 taxonomic levels \(2759, 40674\); choose one with level"):
        read_orthology(url, genes, column_genomes=organisms)
    with pytest.raises(InputError, match="no group of level '33208'; the file has 2759, 40674"):
        read_orthology(url, genes, column_genomes=organisms, level="33208")


@pytest.mark.parametrize("level", ["7742", "vertebrata"])
def test_emapper_reads_one_level_of_concatenated_files(tmp_path: Path, level: str) -> None:
    homology = read_orthology(write(tmp_path, EMAPPER), GENES, level=level)
    assert sets_of(homology) == TWO_GROUPS
    with pytest.raises(InputError, match=r"2 taxonomic levels \(.*7742\|Vertebrata.*\); choose one with level"):
        read_orthology(write(tmp_path, EMAPPER), GENES)


def test_two_columns_named_by_genomes_are_pairs(tmp_path: Path) -> None:
    homology = read_orthology(write(tmp_path, "human\tMouse\nH1\tM1\nH1\tM2\nH2\t\n"), GENES)
    assert groups_of(homology) == {
        "line 2": {"human:H1", "mouse:M1"},
        "line 3": {"human:H1", "mouse:M2"},
        "line 4": {"human:H2"},
    }
    assert homology.ledger == []  # a gene of two pairs is no finding


# -- ids -------------------------------------------------------------------------------------------------------


def test_ids_are_found_in_order_of_trust(tmp_path: Path) -> None:
    genes = {"a": ["G1.2", "G2", "G3.1", "G4", "TX"], "b": ["B1"]}
    transcripts = {"a": {"T2.7": "G2", "TX": "G4"}}
    ids = ["G1.2", "G2.9", "gene:G4", "gene-G3.1", "rna-T2.7", "transcript:T2.3", "TX", "G1", "NONE"]
    rows = "".join(f"g{n}\ta\t{identifier}\n" for n, identifier in enumerate(ids))
    url = write(tmp_path, "group_id\tgenome\tgene_id\n" + rows)
    homology = read_orthology(url, genes, transcripts=transcripts)
    meant = {name: next(iter(members)) for name, members in groups_of(homology, genes).items()}
    assert meant["g0"] == "a:G1.2"
    assert meant["g1"] == "a:G2"
    assert meant["g2"] == "a:G4"
    assert meant["g3"] == "a:G3.1"
    assert meant["g4"] == "a:G2"
    assert meant["g6"] == "a:TX"  # a gene before a transcript of that name
    # G1 and G1.2 stand side by side in the table, T2.7 and T2.3 too: their versions tell them apart.
    assert "g7" not in meant
    assert "g5" not in meant
    assert homology.matched == {"exact": 2, "transcript": 0, "deprefixed": 3, "deversioned": 1, "unmatched": 3}


def test_versions_are_dropped_only_where_one_gene_is_left(tmp_path: Path) -> None:
    genes = {"worm": ["F54D11.1", "F54D11.2", "E1.5"]}
    url = write(tmp_path, "group_id\tgenome\tgene_id\nA\tworm\tF54D11.9\nA\tworm\tE1\n")
    homology = read_orthology(url, genes)
    assert groups_of(homology, genes) == {"A": {"worm:E1.5"}}
    assert reasons(homology) == {("F54D11.9", "unmatched_gene", 1)}


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["human", "mouse", "cow", "yeti"]), st.integers(1, 4)),
        min_size=1,
        max_size=30,
    )
)
def test_every_row_is_matched_or_in_the_ledger(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    rows = [*rows, (0, "human", 1)]
    text = "".join(f"g{group}\t{genome}\t{genome[0].upper()}{n}\n" for group, genome, n in rows)
    url = write(tmp_path_factory.mktemp("law"), "group_id\tgenome_id\tgene_id\n" + text)
    homology = read_orthology(url, GENES)
    expected = {(g, s, f"{s[0].upper()}{n}") for g, s, n in rows if f"{s[0].upper()}{n}" in GENES.get(s, [])}
    found = {
        (int(homology.group_names[g][1:]), homology.genome_ids[s], GENES[homology.genome_ids[s]][i])
        for g, s, i in zip(homology.group, homology.genome, homology.gene, strict=True)
    }
    assert found == expected
    assert len(homology.group) == len(expected)
    count = {reason: sum(row.count for row in homology.ledger if row.reason == reason) for reason in
             ("unmatched_gene", "unknown_genome")}  # fmt: skip
    assert homology.matched["unmatched"] == count["unmatched_gene"]
    assert sum(homology.matched.values()) + count["unknown_genome"] == len(rows)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    url = write(tmp_path, LONG + "A\tyeti\tY1\nB\tyeti\tY2\nB\tcow\tC9\nA\tcow\tC9\nB\thuman\tHT1\n")
    homology = read_orthology(url, GENES, transcripts=TRANSCRIPTS)
    assert reasons(homology) == {
        ("yeti", "unknown_genome", 2),
        ("C9", "unmatched_gene", 2),
        ("H1", "gene_in_two_groups", 2),
    }
    details = {row.reason: row.detail for row in homology.ledger}
    assert details["unmatched_gene"] == "not a gene of cow; first at line 9"
    assert "A, B" in details["gene_in_two_groups"]
    assert groups_of(homology)["B"] >= {"human:H1", "human:H2"}


def test_two_genes_of_one_id_resolve_to_the_first(tmp_path: Path) -> None:
    homology = read_orthology(write(tmp_path, LONG), GENES | {"human": ["H0", "H1", "H1", "H2"]})
    assert sorted(homology.gene[homology.genome == 0].tolist()) == [1, 3]


# -- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data lines; a homology table was expected"),
        ("group_id\tgenome_id\tgene_id\n", "no gene in the file, read as long"),
        (LONG + "C\tcow\t\n", r"table\.tsv: line 7: gene_id is empty \(1 such lines\)"),
        (LONG + "\tcow\tC1\n", "line 7: ortholog_group is empty"),
        (LONG + "C\n", "line 7: genome_id is empty"),
        ("group_id\tgene_id\nA\tH1\n", "line 1: no column genome_id or genome or species; the header has group_id, gene_id"),
        ("cluster\torganism\tlocus\nA\thuman\tH1\nA\tmouse\tM1\n", r"line 1 \('cluster.*declare format, one of long"),
        ("group_id\tgenome\tgene_id\nA\thuman\tENSP1\n", "not one of 1 gene ids is known; the file has ENSP1, the genomes have human: H1, H2, H3"),
        ("group_id\tgenome\tgene_id\nA\tyeti\tY1\n", "names the genomes yeti, none of which is among human, mouse, cow; .*column_genomes"),
        ("Orthogroup\thuman\tmouse\nOG1\tH1\tM1\tC1\n", "line 2 has 4 columns, the header has 3"),
        ("Orthogroup\thuman\tmouse\n\tH1\tM1\n", "line 2: no group in column 'Orthogroup'"),
        (AUGUSTUS + "(7,HT1)\n", "line 6: genome index 7 has no"),
        (AUGUSTUS + "(0,HT1) nonsense\n", "line 6: .* is no list of"),
        ("H1\tV1@1|root\nH2\n", "line 2: 1 columns"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    layout = "eggnog" if text.startswith("H1") else "auto"
    with pytest.raises(InputError, match=message):
        read_orthology(write(tmp_path, text), GENES, transcripts=TRANSCRIPTS, format=layout)


def test_ids_of_two_genomes_need_a_table_that_names_genomes(tmp_path: Path) -> None:
    genes = {"a": ["jg1", "jg2"], "b": ["jg1"]}
    with pytest.raises(InputError, match=r"gene id 'jg1' is found in the genomes a, b \(1 such ids\)"):
        read_orthology(write(tmp_path, "jg1\tjg2\n"), genes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "ortofinder"}, "unknown homology format 'ortofinder'.*did you mean orthofinder"),
        ({"format": "compara"}, "no column gene_stable_id"),
        ({"format": "biomart"}, "a BioMart export needs the column 'Gene stable ID'"),
        ({"level": "7742"}, "level '7742' was given, but a table read as long has no levels"),
        ({"genes_table": "x"}, "genes_table belongs to OrthoDB, but this table is read as long"),
        ({"column_genomes": {"cow": "caw"}}, "maps 'cow' to genome 'caw', .* did you mean cow"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_orthology(write(tmp_path, LONG), GENES, **options)


def test_a_misspelt_species_is_noticed(tmp_path: Path) -> None:
    url = write(tmp_path, "Orthogroup\tHomo_sapiens\tmouse\nOG1\tH1\tM1\n")
    with pytest.raises(InputError, match="column_genomes names 'Homo_sapens', .* did you mean Homo_sapiens"):
        read_orthology(url, GENES, column_genomes={"Homo_sapens": "human"})


@pytest.mark.parametrize("text", [b"\xff\xfe", b"group_id\tgenome\tgene_id\nA\thuman\tH1\nA\thuman\t\xff\n"])
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"table\.tsv"):
        read_orthology(str(path), GENES)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv.gz"
    rows = "".join(f"g{n}\thuman\tX{n * 7919 % 100003}\n" for n in range(100_000))
    data = gzip.compress((LONG + rows).encode())
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(InputError, match="truncated"):
        read_orthology(str(path), GENES)


# -- real tables -----------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_vertebrate_orthogroups_match_every_predicted_gene(data_dir: Path) -> None:
    folder = data_dir / "vertebrates"
    names = [path.name.removesuffix(".cgp.gff.gz") for path in sorted(folder.glob("*.cgp.gff.gz"))]
    genes = {name: read_annotation(str(folder / f"{name}.cgp.gff.gz")).genes["gene_id"].tolist() for name in names}
    homology = read_orthology(str(folder / "orthogroups.tsv.gz"), genes)
    assert len(names) == 8
    assert len(homology.group_names) == 12
    assert len(homology.group) == 64
    assert homology.matched == {"exact": 64, "transcript": 0, "deprefixed": 0, "deversioned": 0, "unmatched": 0}
    assert homology.ledger == []
    sizes = np.bincount(homology.group)
    assert (sizes == 1).sum() == 3
    first = {f"{homology.genome_ids[s]}:{genes[homology.genome_ids[s]][g]}" for s, g in
             zip(homology.genome[homology.group == 0], homology.gene[homology.group == 0], strict=True)}  # fmt: skip
    assert first == {
        "bosTau8:jg1", "canFam3:jg9", "hg38:jg1", "mm10:jg8", "mm10:jg9", "monDom5:jg1", "rheMac3:jg1", "rn6:jg3",
    }  # fmt: skip


@pytest.mark.real_data
def test_yeast_ortholog_pairs_match_both_annotations(data_dir: Path) -> None:
    folder = data_dir / "yeast"
    files = {"S288C": "S288C.R64-2-1.gff3.gz", "CPG_1a": "CPG_1a.gff3.gz"}
    genes = {name: read_annotation(str(folder / file)).genes["gene_id"].tolist() for name, file in files.items()}
    url = str(folder / "orthologs.S288C_CPG_1a.tsv.gz")
    assert detect_orthology_format(url, genes) == "pairs"
    homology = read_orthology(url, genes)
    assert sum(homology.matched.values()) == 2 * 5857
    lost = {row.identifier for row in homology.ledger}
    assert lost.isdisjoint({*genes["S288C"], *genes["CPG_1a"]})
    assert homology.matched["exact"] + homology.matched["unmatched"] == 2 * 5857
    assert len(homology.group_names) == 5857
    with gzip.open(url, "rt") as stream:
        pairs = [tuple(line.rstrip("\n").split("\t")) for line in list(stream)[1:]]
    known = [set(genes["S288C"]), set(genes["CPG_1a"])]
    expected = [(0, a) for a, _ in pairs if a in known[0]] + [(1, b) for _, b in pairs if b in known[1]]
    found = [(int(s), genes[homology.genome_ids[s]][g]) for s, g in zip(homology.genome, homology.gene, strict=True)]
    assert sorted(found) == sorted(expected)
