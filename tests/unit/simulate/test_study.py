"""The default study, read back from its files with plain Python."""

import csv
import gzip
import json
import math
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from splicestore.config import parse_genomes_config
from splicestore.errors import ConfigError
from splicestore.simulate import SimulatedStudy, SimulateOptions, simulate_study

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
SMALL = {"genomes": 2, "megabases": 0.12, "genes": 20, "contigs": 3, "conditions": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SimulatedStudy:
    return simulate_study(tmp_path_factory.mktemp("study"), SimulateOptions())


@pytest.fixture(scope="module")
def contigs(study: SimulatedStudy) -> dict[str, dict[str, str]]:
    return {g: read_fasta(study.root / "genomes" / f"{g}.fa.gz") for g in study.genome_ids}


def read_fasta(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        records: dict[str, list[str]] = {}
        for line in lines:
            if line.startswith(">"):
                parts = records[line[1:].strip()] = []
            else:
                parts.append(line.strip().upper())
    return {name: "".join(parts) for name, parts in records.items()}


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def read_exons(path: Path) -> dict[tuple[str, str, str], list[tuple[int, int]]]:
    """Exons, 0-based half-open, by (transcript, contig, strand), of a GTF or GFF3."""
    exons = defaultdict(list)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 9 and fields[2] == "exon":
                mark = 'transcript_id "' if "gtf" in path.name else "Parent=transcript:"
                name = fields[8].split(mark)[1].split('"')[0].split(";")[0]
                exons[name, fields[0], fields[6]].append((int(fields[3]) - 1, int(fields[4])))
    return exons


def annotated_sites(path: Path) -> set[tuple[str, int, str, str]]:
    sites = set()
    for (_, contig, strand), exons in read_exons(path).items():
        exons.sort()
        left, right = ("donor", "acceptor") if strand == "+" else ("acceptor", "donor")
        for (_, end), (start, _) in zip(exons, exons[1:], strict=False):
            sites |= {(contig, end - 1, strand, left), (contig, start, strand, right)}
    return sites


def intron_bases(contig: str, site: dict[str, str]) -> str:
    """The two intron bases beside a truth site, in transcript orientation."""
    position = int(site["position"])
    if (site["kind"] == "donor") == (site["strand"] == "+"):
        bases = contig[position + 1 : position + 3]
    else:
        bases = contig[position - 2 : position]
    return bases if site["strand"] == "+" else bases.translate(COMPLEMENT)[::-1]


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    options = SimulateOptions(**SMALL, annotation_format="gff3")
    first, second = (simulate_study(tmp_path / name, options) for name in ("one", "two"))
    simulate_study(tmp_path / "three", SimulateOptions(**SMALL, annotation_format="gff3", seed=1))
    files = sorted(p.relative_to(first.root) for p in first.root.rglob("*") if p.is_file())
    assert len(files) == 2 * (1 + 1 + 2 + 4 + 2) + 4 + 3 + 1
    assert files == sorted(p.relative_to(second.root) for p in second.root.rglob("*") if p.is_file())
    assert [f for f in files if (first.root / f).read_bytes() != (second.root / f).read_bytes()] == []
    assert (first.root / files[1]).read_bytes() != (tmp_path / "three" / files[1]).read_bytes()
    assert (first.root / "genomes" / "sim1.fa.gz").read_bytes()[4:8] == bytes(4), "gzip holds a time"


def test_sizes_are_as_asked_and_as_reported(study: SimulatedStudy, contigs: dict[str, dict[str, str]]) -> None:
    assert set(contigs) == {"sim1", "sim2", "sim3"}
    for genome_id, records in contigs.items():
        assert len(records) == 8
        n_bases = sum(map(len, records.values()))
        assert n_bases == study.n_bases[genome_id]
        assert abs(n_bases - 2e6) < 0.1e6
        assert len(read_table(study.truth / f"{genome_id}.genes.tsv")) == study.n_genes[genome_id]
        assert abs(study.n_genes[genome_id] - 200) < 25


def test_every_exon_lies_in_its_contig_and_makes_the_true_sites(
    study: SimulatedStudy, contigs: dict[str, dict[str, str]]
) -> None:
    for genome_id in study.genome_ids:
        path = study.root / "annotation" / f"{genome_id}.gtf.gz"
        for (_, contig, _), exons in read_exons(path).items():
            assert all(0 <= start < end <= len(contigs[genome_id][contig]) for start, end in exons)
            assert all(end - start >= 20 for start, end in exons)
        truth = read_table(study.truth / f"{genome_id}.sites.tsv")
        keys = [(row["contig"], int(row["position"]), row["strand"], row["kind"]) for row in truth]
        assert len(keys) == len(set(keys)) == study.n_sites[genome_id]
        assert set(keys) == annotated_sites(path)
        order = [(int(contig[3:]), position) for contig, position, _, _ in keys]
        assert order == sorted(order)


def test_gff3_and_gtf_tell_the_same_genes(tmp_path: Path) -> None:
    for kind in ("gtf", "gff3"):
        simulate_study(tmp_path / kind, SimulateOptions(**SMALL, annotation_format=kind, compress=False))
    gtf, gff3 = (read_exons(tmp_path / kind / "annotation" / f"sim1.{kind}") for kind in ("gtf", "gff3"))
    assert len(gtf) > 20
    assert gtf == gff3


def test_every_true_site_has_its_motif_on_its_strand(study: SimulatedStudy, contigs: dict[str, dict[str, str]]) -> None:
    seen: Counter[tuple[str, str, str]] = Counter()
    for genome_id in study.genome_ids:
        for site in read_table(study.truth / f"{genome_id}.sites.tsv"):
            assert intron_bases(contigs[genome_id][site["contig"]], site) == site["motif"], site
            seen[site["kind"], site["motif"], site["strand"]] += 1
    donors = {m: seen["donor", m, "+"] + seen["donor", m, "-"] for m in ("GT", "GC", "AT")}
    n = sum(donors.values())
    assert n == sum(count for (kind, _, _), count in seen.items() if kind == "donor")
    assert 0.003 < donors["GC"] / n < 0.025
    assert 0 < donors["AT"] / n < 0.008
    assert min(seen["donor", "GT", "+"], seen["donor", "GT", "-"]) > 0.3 * n


def test_ortholog_groups_are_gene_families(study: SimulatedStudy) -> None:
    family = {
        (g, row["gene_id"]): row["ancestral_id"]
        for g in study.genome_ids
        for row in read_table(study.truth / f"{g}.genes.tsv")
    }
    assert len({gene_id for _, gene_id in family}) == len(family)
    groups = defaultdict(set)
    for row in read_table(study.orthologs):
        groups[row["ortholog_group"]].add((row["genome_id"], row["gene_id"]))
    members = defaultdict(set)
    for gene, ancestor in family.items():
        members[ancestor].add(gene)
    for genes in groups.values():
        assert genes == members[family[next(iter(genes))]]
        assert len(genes) > 1
    grouped = set().union(*groups.values())
    assert 0.85 * len(family) < len(grouped) < len(family)
    assert any(len(genes) > len({g for g, _ in genes}) for genes in groups.values()), "no group with paralogs"


def test_study_has_every_kind_of_rearrangement_and_arrangement(study: SimulatedStudy) -> None:
    events = read_table(study.truth / "events.tsv")
    assert set(study.events) == {"inversion", "translocation", "duplication", "loss", "gain"}
    for kind, count in study.events.items():
        rows = [row for row in events if row["kind"] == kind]
        assert len(rows) == count
        assert any(row["ancestral_ids"] != "." for row in rows)
    genes = {g: read_table(study.truth / f"{g}.genes.tsv") for g in study.genome_ids}
    for rows in genes.values():
        assert {row["origin"] for row in rows} == {"ancestral", "duplicated", "gained"}
        assert {row["arrangement"] for row in rows} == {"single", "overlapping", "host", "nested"}
        assert {row["strand"] for row in rows} == {"+", "-"}
    on_leaf = {g: Counter(row["ancestral_id"] for row in rows) for g, rows in genes.items()}
    everywhere = set.union(*map(set, on_leaf.values()))
    assert any(set(found) != everywhere for found in on_leaf.values())
    assert any(max(found.values()) > 1 for found in on_leaf.values())
    strands = defaultdict(set)
    for rows in genes.values():
        for row in rows:
            if on_leaf["sim1"][row["ancestral_id"]] == 1:
                strands[row["ancestral_id"]].add(row["strand"])
    assert any(len(s) == 2 for s in strands.values()), "no gene was inverted"


def test_overlapping_and_nested_genes_lie_as_said(study: SimulatedStudy) -> None:
    path = study.root / "annotation" / "sim1.gtf.gz"
    introns = defaultdict(list)
    for (name, contig, _), exons in read_exons(path).items():
        exons.sort()
        introns[contig, name.split(".")[0].replace("T", "G")] += [
            (a[1], b[0]) for a, b in zip(exons, exons[1:], strict=False)
        ]
    rows = read_table(study.truth / "sim1.genes.tsv")
    for before, row in zip(rows, rows[1:], strict=False):
        start, end = int(row["start"]), int(row["end"])
        if row["arrangement"] == "nested":
            assert before["arrangement"] == "host"
            assert any(low < start and end < high for low, high in introns[row["contig"], before["gene_id"]])
        elif row["contig"] == before["contig"] and start < int(before["end"]):
            assert {before["arrangement"], row["arrangement"]} <= {"overlapping", "nested", "host"}
            if row["arrangement"] == "overlapping":
                assert before["strand"] != row["strand"]
    assert sum(row["arrangement"] == "overlapping" for row in rows) >= 2


def read_junctions(study: SimulatedStudy, genome_id: str) -> dict[str, dict[tuple[str, int, int, str], int]]:
    """Reads by sample and intron [start, end)."""
    result = {}
    for row in read_table(study.root / "samples.tsv"):
        if row["genome_id"] == genome_id:
            assert row["format"] == "star"
            lines = [line.split("\t") for line in (study.root / row["file"]).read_text().splitlines()]
            assert [(int(x[0][3:]), int(x[1])) for x in lines] == sorted((int(x[0][3:]), int(x[1])) for x in lines)
            result[row["sample"]] = {(x[0], int(x[1]) - 1, int(x[2]), "?+-"[int(x[3])]): int(x[6]) for x in lines}
            assert all(reads > 0 for reads in result[row["sample"]].values())
    return result


def combined_rows(study: SimulatedStudy, genome_id: str) -> list[dict[str, str]]:
    paths = sorted((study.root / "usage").glob(f"{genome_id}.*.combined.tsv"))
    assert len(paths) == 4
    return [row for path in paths for row in read_table(path)]


def test_counts_follow_the_spliser_definitions_on_the_junction_reads(study: SimulatedStudy) -> None:
    junctions = read_junctions(study, "sim1")
    by_site = defaultdict(list)
    for intron in set().union(*junctions.values()):
        contig, low, high, strand = intron
        by_site[contig, low, strand].append(intron)
        by_site[contig, high, strand].append(intron)
    rows = combined_rows(study, "sim1")
    n_with_beta2 = 0
    for row in rows:
        contig, site, strand, reads = row["Region"], int(row["Site"]), row["Strand"], junctions[row["Sample"]]
        own = by_site[contig, site, strand]
        assert int(row["alpha_count"]) == sum(reads.get(intron, 0) for intron in own)
        partners = {low if high == site else high for _, low, high, _ in own}
        spanning = {i for p in partners for i in by_site[contig, p, strand] if i[1] < site < i[2]}
        assert int(row["beta2Simple_count"]) == sum(reads.get(intron, 0) for intron in spanning)
        n_with_beta2 += int(row["beta2Simple_count"]) > 0
        total = sum(int(row[c]) for c in ("alpha_count", "beta1_count", "beta2Simple_count"))
        assert row["SSE"] == f"{int(row['alpha_count']) / total if total else 0:.3f}"
        assert json.loads(row["Partners"].replace("{", '{"').replace(": ", '": ').replace(", ", ', "')).keys() == {
            str(p) for p in partners
        }
    assert n_with_beta2 > 0.05 * len(rows)
    sites_with_rows = {(row["Region"], int(row["Site"]), row["Strand"]) for row in rows}
    assert sites_with_rows == set(by_site), "a junction end without a row, or a row without a junction"


def test_read_shares_scatter_around_the_true_usage_as_a_binomial_does(study: SimulatedStudy) -> None:
    truth = {}
    for site in read_table(study.truth / "sim1.sites.tsv"):
        left = (site["kind"] == "donor") == (site["strand"] == "+")
        truth[site["contig"], int(site["position"]) + left, site["strand"]] = site
    scores, n_unannotated, n_rows = [], 0, 0
    for row in combined_rows(study, "sim1"):
        n_rows += 1
        site = truth.get((row["Region"], int(row["Site"]), row["Strand"]))
        if site is None:
            n_unannotated += 1
            continue
        usage = float(site[row["Sample"].split(".")[1]])
        alpha = int(row["alpha_count"])
        total = alpha + int(row["beta1_count"]) + int(row["beta2Simple_count"])
        if total * usage * (1 - usage) > 4:
            scores.append((alpha - total * usage) / math.sqrt(total * usage * (1 - usage)))
    assert 0 < n_unannotated / n_rows < 0.08
    assert len(scores) > 800
    assert abs(np.mean(scores)) < 0.15
    assert 0.85 < np.std(scores) < 1.15


def test_usage_is_high_at_most_sites_and_varies_between_conditions_at_some(study: SimulatedStudy) -> None:
    rows = read_table(study.truth / "sim2.sites.tsv")
    usage = np.array([[float(row[name]) for name in study.condition_names] for row in rows])
    assert study.condition_names == ("Brain_1", "Brain_2", "Heart_1", "Heart_2")
    assert (usage >= 0).all()
    assert (usage <= 1).all()
    assert 0.6 < (usage.mean(axis=1) > 0.9).mean() < 0.9
    assert ((usage.max(axis=1) - usage.min(axis=1)) > 0.2).mean() > 0.05


def test_silent_genes_have_no_rows_and_some_sites_are_thinly_covered(study: SimulatedStudy) -> None:
    silent = {
        (row["gene_id"], name)
        for row in read_table(study.truth / "sim1.genes.tsv")
        for name in row["silent_conditions"].split(",")
        if name != "."
    }
    rows = combined_rows(study, "sim1")
    assert len(silent) > 20
    assert not silent & {(row["Gene"], row["Sample"].split(".")[1]) for row in rows}
    total = np.array([int(r["alpha_count"]) + int(r["beta1_count"]) + int(r["beta2Simple_count"]) for r in rows])
    assert 0.03 < (total < 10).mean() < 0.4


def test_both_configuration_documents_read_as_the_same_study(study: SimulatedStudy) -> None:
    configs = [
        parse_genomes_config(path.read_text(), str(path), lambda p: Path(p).exists())
        for path in (study.genomes_json, study.genomes_yaml)
    ]
    for config in configs:
        assert tuple(genome.genome_id for genome in config.genomes) == study.genome_ids
        for genome in config.genomes:
            assert Path(genome.fasta).is_file()
            assert Path(str(genome.annotation)).is_file()
            assert tuple(f.condition_id for f in genome.usage) == study.condition_names
            assert all(Path(f.file).is_file() for f in genome.usage)


def average_precision(is_site: np.ndarray, score: np.ndarray) -> float:
    hits = is_site[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def moving_sum(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Sum of ``values[i + low : i + high]`` for every i; what lies outside counts 0."""
    total = np.concatenate(([0], np.cumsum(values)))
    i = np.arange(len(values))
    return total[np.clip(i + high, 0, len(values))] - total[np.clip(i + low, 0, len(values))]


def test_a_matrix_alone_finds_few_donors_and_their_neighbourhood_finds_twice_as_many(
    study: SimulatedStudy, contigs: dict[str, dict[str, str]]
) -> None:
    sites = read_table(study.truth / "sim1.sites.tsv")
    is_donor = {c: np.zeros(len(s), dtype=bool) for c, s in contigs["sim1"].items()}
    for site in sites:
        if site["kind"] == "donor" and site["strand"] == "+":
            is_donor[site["contig"]][int(site["position"])] = True
    codes, labels = [], []
    for gene in read_table(study.truth / "sim1.genes.tsv"):
        start, end = int(gene["start"]), int(gene["end"])
        if gene["strand"] == "+":
            codes.append(np.array(["ACGT".find(b) for b in contigs["sim1"][gene["contig"]][start:end]]) % 5)
            labels.append(is_donor[gene["contig"]][start:end])
    code, label = np.concatenate(codes), np.concatenate(labels)
    columns = np.stack([np.roll(code, -offset) for offset in range(-2, 7)], axis=1)
    counts = np.stack([(columns[label] == base).sum(axis=0) for base in range(4)]) + 0.5
    log_odds = np.log2(counts / counts.sum(axis=0) / (np.bincount(code, minlength=5)[:4] / len(code))[:, None])
    log_odds = np.concatenate((log_odds, np.full((1, 9), -5.0)))
    matrix = log_odds[columns, np.arange(9)].sum(axis=1)
    purine_run = np.convolve((code == 0) | (code == 2), np.ones(6), mode="full")[5:] == 6
    g_run = np.convolve(code == 2, np.ones(3), mode="full")[2:] == 3
    context = moving_sum(purine_run, -58, -7) * 0.35 + moving_sum(g_run, 9, 70) * 0.8
    alone, together = average_precision(label, matrix), average_precision(label, matrix + context)
    assert label.sum() > 300
    assert alone < 0.4
    assert together > 1.6 * alone


def test_genes_stay_alike_while_intergenic_bases_drift(
    study: SimulatedStudy, contigs: dict[str, dict[str, str]]
) -> None:
    def words(genome_id: str, intervals: list[tuple[str, int, int]]) -> set[str]:
        found = set()
        for contig, start, end in intervals:
            bases = contigs[genome_id][contig][start:end]
            for strand in (bases, bases.translate(COMPLEMENT)[::-1]):
                found.update(strand[i : i + 16] for i in range(len(strand) - 15))
        return found

    shared = {}
    for part in ("exon", "between"):
        sets = []
        for genome_id in ("sim2", "sim3"):
            genes = read_table(study.truth / f"{genome_id}.genes.tsv")
            if part == "exon":
                exons = read_exons(study.root / "annotation" / f"{genome_id}.gtf.gz")
                chosen = [(c, s, e) for (name, c, _), x in exons.items() if name.endswith(".1") for s, e in x]
            else:
                chosen = [
                    (a["contig"], int(a["end"]), int(b["start"]))
                    for a, b in zip(genes, genes[1:], strict=False)
                    if a["contig"] == b["contig"] and int(a["end"]) < int(b["start"])
                ][:60]
            sets.append(words(genome_id, chosen))
        shared[part] = len(sets[0] & sets[1]) / len(sets[0])
    assert shared["exon"] > 0.2
    assert shared["exon"] > 4 * shared["between"]


def test_memory_does_not_grow_with_the_genome(tmp_path: Path) -> None:
    peaks = {}
    for megabases in (4, 60):
        options = SimulateOptions(genomes=1, megabases=megabases, genes=8, conditions=1, usage_format="star")
        tracemalloc.start()
        try:
            simulate_study(tmp_path / str(megabases), options)
            peaks[megabases] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peaks[60] < 50e6
    assert peaks[60] < 1.5 * peaks[4] + 5e6


def test_a_study_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    options = SimulateOptions(**SMALL)
    lines: list[str] = []
    study = simulate_study(tmp_path / "study", options, lines.append)
    assert len(lines) == 6
    assert lines[0].startswith("sim1: chr1 ")
    (study.root / "store").mkdir()
    study.orthologs.write_text("edited by hand")
    again = simulate_study(study.root, options, lines.append)
    assert again == study
    assert len(lines) == 6
    assert study.orthologs.read_text() == "edited by hand"
    assert (study.root / "store").is_dir()


def test_a_folder_of_another_study_or_of_other_files_is_refused(tmp_path: Path) -> None:
    options = SimulateOptions(**SMALL)
    study = simulate_study(tmp_path / "study", options)
    with pytest.raises(ConfigError, match="holds a study of other options; simulate into a new or empty folder"):
        simulate_study(study.root, SimulateOptions(**SMALL, seed=7))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="holds files that are not a simulated study"):
        simulate_study(tmp_path / "mine", options)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_run_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("sim2"):
            raise Stop

    with pytest.raises(Stop):
        simulate_study(tmp_path / "study", SimulateOptions(**SMALL), stop)
    assert list(tmp_path.iterdir()) == []


def test_star_only_and_spliser_only_studies_say_so_in_their_documents(tmp_path: Path) -> None:
    star = simulate_study(tmp_path / "star", SimulateOptions(**SMALL, usage_format="star"))
    spliser = simulate_study(tmp_path / "spliser", SimulateOptions(**SMALL, usage_format="spliser"))
    assert star.samples is not None
    assert json.loads(star.genomes_json.read_text())["usage_files"] == {}
    assert {p.name.split(".", 1)[1][-10:] for p in (star.root / "usage").iterdir()} == {"SJ.out.tab"}
    assert spliser.samples is None
    assert not (spliser.root / "samples.tsv").exists()
    entry = json.loads(spliser.genomes_json.read_text())["usage_files"]["sim2"]
    assert entry == {
        "pattern": "usage/sim2.{tissue}.{timepoint}.combined.tsv",
        "tissues": ["Brain", "Heart"],
        "timepoints": [1],
    }
