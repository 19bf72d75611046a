"""Simulated samples, read back from their file with plain h5py, and the truth beside it."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splicestore as ss
from splicestore.errors import ConfigError
from splicestore.normalize import FitOptions, fit_edges
from splicestore.simulate import CohortOptions, SimulateOptions, simulate_samples, simulate_study
from splicestore.simulate.archs4 import Cohort, CohortGenes, counts_file, write_cohort
from splicestore.simulate.cohort import ExpressionModel, SampleDesign, draw_sample
from splicestore.split.samples import split_samples
from splicestore.storage.outputs import output_folder
from tests.service.study import splicestore
from tests.unit.simulate.test_study import SMALL, read_table

OPTIONS = CohortOptions(samples=400, genes=5000, seed=3)
TISSUES = ["Brain", "Heart", "Liver", "Kidney", "Testis", "Cerebellum", "Ovary", "Lung"]


class Read:
    """A file and its truth, as plain arrays and rows."""

    def __init__(self, folder: Path, genome_id: str = "sim1") -> None:
        self.path = folder / "expression" / f"{genome_id}.h5"
        with h5py.File(self.path) as file:
            self.counts = file["data/expression"][:].T
            self.samples = {name: read_column(column) for name, column in file["meta/samples"].items()}
            self.genes = {name: read_column(column) for name, column in file["meta/genes"].items()}
        self.truth = {
            what: read_table(folder / "truth" / f"{genome_id}.expression.{what}.tsv")
            for what in ("samples", "genes", "modules", "series")
        }
        self.row = {name: i for i, name in enumerate(self.samples["geo_accession"])}
        self.tissue = np.array([row["tissue"] for row in self.truth["samples"]])
        self.is_cell = np.array([row["is_single_cell"] == "1" for row in self.truth["samples"]])
        self.module = np.array([row["module"] for row in self.truth["genes"]])
        self.score = np.log1p(self.counts * (1e6 / self.counts.sum(axis=1, keepdims=True)))


def read_column(column: h5py.Dataset) -> list:
    return column.asstr()[:].tolist() if h5py.check_string_dtype(column.dtype) else column[:].tolist()


def contents(path: Path) -> dict[str, list]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: np.asarray(value).tolist() for name, value in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "out"
    cohort = simulate_samples(out, OPTIONS)
    assert (cohort.n_samples, cohort.n_genes) == (400, 5000)
    assert cohort.counts == out / "expression" / "sim1.h5"
    return out


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Read:
    return Read(folder)


def test_the_file_is_laid_out_as_archs4_files_are(folder: Path) -> None:
    with h5py.File(folder / "expression" / "sim1.h5") as file:
        matrix = file["data/expression"]
        assert (matrix.shape, matrix.maxshape, matrix.chunks) == ((5000, 400), (5000, None), (2000, 1))
        assert (matrix.dtype.str, matrix.compression) == ("<u4", "gzip")
        assert sorted(file["meta/genes"]) == ["biotype", "ensembl_gene", "symbol"]
        assert sorted(file["meta/info"]) == ["author", "contact", "creation-date", "laboratory", "version"]
        samples = file["meta/samples"]
        assert {
            "geo_accession", "sample", "series_id", "title", "source_name_ch1", "characteristics_ch1", "library_source",
            "molecule_ch1", "organism_ch1", "platform_id",
        } < set(samples)  # fmt: skip
        for group, n_rows in (("meta/genes", 5000), ("meta/samples", 400)):
            for name, column in file[group].items():
                assert column.shape == (n_rows,)
                text = h5py.check_string_dtype(column.dtype)
                if name in ("singlecellprobability", "alignedreads"):
                    assert column.dtype.str == "<f8"
                else:
                    assert (text.encoding, text.length) == ("utf-8", None)
        assert samples["characteristics_ch1"].asstr()[0].startswith("tissue: ")


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        simulate_samples(tmp_path / name, CohortOptions(samples=70, genes=90, seed=seed))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 1 + 4 + 1 + 1
    assert files == sorted(p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*") if p.is_file())
    assert [f for f in files if (tmp_path / "one" / f).read_bytes() != (tmp_path / "two" / f).read_bytes()] == []
    same = [f.name for f in files if (tmp_path / "one" / f).read_bytes() == (tmp_path / "three" / f).read_bytes()]
    assert same == [".splicestore-output"]


def small_cohort(n_samples: int, seed: int = 2, n_genes: int = 40, n_tissues: int = 3) -> Cohort:
    family = np.arange(n_genes)
    genes = CohortGenes.name(seed, 0, [f"g{i}" for i in range(n_genes)], family)
    model = ExpressionModel.draw(seed, n_genes, n_tissues)
    return Cohort("x", n_samples, SampleDesign(seed, 0, n_tissues), genes, model)


@pytest.mark.parametrize("block_samples", [5, 47, 130])
def test_blocks_change_nothing(tmp_path: Path, block_samples: int) -> None:
    lines: list[str] = []
    for name, height in (("a", None), ("b", block_samples)):
        with output_folder(tmp_path / name) as output:
            write_cohort(output, small_cohort(130), lines.append, block_samples=height)
    for file in (tmp_path / "a" / "truth").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "truth" / file.name).read_bytes()
    assert contents(tmp_path / "a" / counts_file("x")) == contents(tmp_path / "b" / counts_file("x"))
    assert len(lines) == 1 + -(-130 // block_samples)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), first=st.integers(0, 200), n=st.integers(0, 150), n_tissues=st.integers(1, 20))
def test_a_sample_is_a_function_of_its_number(seed: int, first: int, n: int, n_tissues: int) -> None:
    cohort = small_cohort(1, seed, n_tissues=n_tissues)
    everything = list(cohort.design.samples(0, 400))
    some = list(cohort.design.samples(first, first + n))
    assert [s.number for s in everything] == list(range(400))
    assert some == everything[first : first + n]
    for copy in everything:
        if copy.copy_of is not None:
            origin = everything[copy.copy_of.number]
            assert origin.copy_of is None
            assert (origin.tissue, origin.is_single_cell) == (copy.tissue, copy.is_single_cell)
            assert not set(origin.series) & set(copy.series)
    for sample in some[:3]:
        ours, again = (draw_sample(cohort.design, cohort.model, s) for s in (sample, everything[sample.number]))
        assert ours.counts.tolist() == again.counts.tolist()
        assert ours.single_cell_probability == again.single_cell_probability


def test_a_small_study_is_the_start_of_a_large_one(tmp_path: Path, cohort: Read) -> None:
    simulate_samples(tmp_path / "small", CohortOptions(samples=53, genes=5000, seed=3))
    small = Read(tmp_path / "small")
    np.testing.assert_array_equal(small.counts, cohort.counts[:53])
    assert small.truth["samples"] == cohort.truth["samples"][:53]
    assert small.samples == {name: values[:53] for name, values in cohort.samples.items()}


def test_series_that_share_samples_are_the_components_of_the_truth(cohort: Read) -> None:
    """An independent union-find over the words of the file."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    series_of = [text.split(",") for text in cohort.samples["series_id"]]
    for names in series_of:
        for other in names[1:]:
            parent[root(other)] = root(names[0])
    size = Counter(name for names in series_of for name in names)
    assert [row["series"].split(",") for row in cohort.truth["samples"]] == series_of
    assert {row["series"]: int(row["samples"]) for row in cohort.truth["series"]} == size
    component = {row["series"]: row["component"] for row in cohort.truth["series"]}
    pairs = {(root(name), component[name]) for name in size}
    assert len(pairs) == len({r for r, _ in pairs}) == len({c for _, c in pairs}) < len(size)
    assert sum(len(names) > 1 for names in series_of) > 40
    assert any(
        len({cohort.row[name] // 48 for name in members}) > 1
        for members in members_of(cohort.samples["geo_accession"], [root(n[0]) for n in series_of]).values()
    ), "no component goes beyond one unit of the simulation"


def members_of(names: list[str], groups: list[str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, group in zip(names, groups, strict=True):
        found[group].append(name)
    return found


def test_copies_are_identical_lie_in_other_series_and_nothing_else_is_identical(cohort: Read) -> None:
    copies = {row["geo_accession"]: row["copy_of"] for row in cohort.truth["samples"] if row["copy_of"] != "."}
    profiles = members_of(cohort.samples["geo_accession"], [row.tobytes() for row in cohort.counts])
    assert sum(len(names) - 1 for names in profiles.values()) == len(copies) > 6
    for copy, origin in copies.items():
        mine, theirs = cohort.row[copy], cohort.row[origin]
        assert theirs < mine
        assert cohort.counts[mine].tolist() == cohort.counts[theirs].tolist()
        assert cohort.tissue[mine] == cohort.tissue[theirs]
        series = [set(cohort.samples["series_id"][i].split(",")) for i in (mine, theirs)]
        assert not series[0] & series[1]
        assert origin not in copies


def test_genes_and_their_repeated_symbols_are_those_of_the_truth(cohort: Read) -> None:
    rows = cohort.truth["genes"]
    assert cohort.genes["ensembl_gene"] == [row["gene_id"] for row in rows]
    assert len(set(cohort.genes["ensembl_gene"])) == 5000
    assert cohort.genes["biotype"] == [row["biotype"] for row in rows]
    times = Counter(cohort.genes["symbol"])
    assert [(row["symbol"], int(row["symbol_rows"])) for row in rows] == [(s, times[s]) for s in cohort.genes["symbol"]]
    assert sum(times[s] > 1 for s in cohort.genes["symbol"]) == 2 * 150


def test_counts_look_like_those_of_an_archive(cohort: Read) -> None:
    bulk = ~cohort.is_cell
    total, n_genes = cohort.counts.sum(axis=1), np.count_nonzero(cohort.counts, axis=1)
    assert 0.4 < np.mean(cohort.counts == 0) < 0.6
    assert 0.1 < cohort.is_cell.mean() < 0.25
    assert np.percentile(total[bulk], 90) > 3 * np.percentile(total[bulk], 10)
    assert np.median(n_genes[cohort.is_cell]) < 0.5 * np.median(n_genes[bulk])
    np.testing.assert_array_equal(np.array(cohort.samples["singlecellprobability"]) > 0.5, cohort.is_cell)
    assert (np.array(cohort.samples["alignedreads"]) > total).all()
    # Variance over samples of one tissue is far above the mean, as of real counts.
    brain = cohort.counts[bulk & (cohort.tissue == "Brain")].astype(float)
    seen = brain.mean(axis=0) > 5
    assert np.median(brain.var(axis=0)[seen] / brain.mean(axis=0)[seen]) > 5


def test_a_tissue_is_found_by_the_nearest_centroid_of_other_series(cohort: Read) -> None:
    component = {row["series"]: int(row["component"]) for row in cohort.truth["series"]}
    held_out = np.array([component[text.split(",")[0]] % 2 == 1 for text in cohort.samples["series_id"]])
    is_copy = np.array([row["copy_of"] != "." for row in cohort.truth["samples"]])
    assert sorted(set(cohort.tissue)) == sorted(TISSUES)
    fitted = ~held_out & ~cohort.is_cell
    centroid = np.stack([cohort.score[fitted & (cohort.tissue == t)].mean(axis=0) for t in TISSUES])
    for wanted, least in ((~cohort.is_cell, 0.98), (cohort.is_cell, 0.6)):
        asked = held_out & wanted & ~is_copy
        distance = np.stack([((cohort.score[asked] - one) ** 2).sum(axis=1) for one in centroid], axis=1)
        guess = np.array(TISSUES)[distance.argmin(axis=1)]
        assert asked.sum() > 15
        assert np.mean(guess == cohort.tissue[asked]) > least


def test_tissues_use_the_modules_that_the_truth_says_and_no_others(cohort: Read) -> None:
    rows = cohort.truth["modules"]
    assert Counter(row["tissue"] for row in rows) == dict.fromkeys(TISSUES, 2 * 8 + 4)
    assert all(row["is_used"] == "1" for row in rows if row["module"] == f"{row['tissue']}_signature")
    expressed = {}
    for row in rows:
        samples = ~cohort.is_cell & (cohort.tissue == row["tissue"])
        genes = cohort.module == row["module"]
        assert genes.sum() > 100
        expressed[row["tissue"], row["module"], row["is_used"]] = np.mean(cohort.counts[np.ix_(samples, genes)] > 0)
    used, unused = ([share for (_, _, u), share in expressed.items() if u == flag] for flag in "10")
    assert min(used) > 2 * max(unused)
    assert np.mean(cohort.module == ".") == pytest.approx(0.25, abs=0.03)


def test_genes_of_a_module_vary_together(cohort: Read) -> None:
    """Within a tissue, so that it is no effect of tissues."""
    samples = ~cohort.is_cell & (cohort.tissue == Counter(cohort.tissue[~cohort.is_cell]).most_common(1)[0][0])
    common = cohort.counts[samples].mean(axis=0) > 50
    modules = ["module17", "module18", "module19", "module20"]
    chosen = np.concatenate([np.flatnonzero(common & (cohort.module == m))[:40] for m in modules])
    correlation = np.corrcoef(cohort.score[np.ix_(samples, chosen)].T)
    same = cohort.module[chosen][:, None] == cohort.module[chosen]
    np.fill_diagonal(correlation, np.nan)
    assert np.nanmean(correlation[same]) > 0.4 > 4 * abs(np.nanmean(correlation[~same]))


def test_samples_are_ingested_judged_and_split_as_the_truth_says(tmp_path: Path, folder: Path, cohort: Read) -> None:
    url = str(tmp_path / "store")
    splicestore("ingest", "expression", url, "sim", str(folder / "expression" / "sim1.h5"), check=0)
    view = ss.open_store(url).expression["sim"]
    np.testing.assert_array_equal(view.read(slice(None)), cohort.counts)
    repeated = [row["symbol_rows"] != "1" for row in cohort.truth["genes"]]
    assert view.genes_to_pandas()["is_repeated"].tolist() == repeated
    fitted = fit_edges(ss.open_store(url), "bins", "sim", FitOptions(n_bins=50))
    total, n_genes = cohort.counts.sum(axis=1), np.count_nonzero(cohort.counts, axis=1)
    few = total < 1_000_000
    assert fitted.dropped["few_counts"] == few.sum() > 10
    assert fitted.dropped["single_cell"] == (cohort.is_cell & ~few).sum() > 5
    assert fitted.n_samples_fitted == (~few & ~cohort.is_cell & (n_genes > 2000)).sum() > 200
    split = split_samples(ss.open_store(url), "studies", "sim")
    origins = [row["copy_of"] for row in cohort.truth["samples"] if row["copy_of"] != "."]
    assert (split.n_identical, split.n_identical_across) == (len(origins) + len(set(origins)), 0)


def test_genomes_keep_their_bytes_and_give_their_genes_to_the_samples(tmp_path: Path) -> None:
    options = SimulateOptions(**SMALL)
    alone = simulate_study(tmp_path / "alone", options)
    study = simulate_study(tmp_path / "both", options, cohort=CohortOptions(samples=60, genes=200, tissues=3))
    assert dict(alone.counts) == {}
    for file in alone.root.rglob("*"):
        if file.is_file() and file.name != "study.json":
            assert file.read_bytes() == (study.root / file.relative_to(alone.root)).read_bytes()
    read = {genome_id: Read(study.root, genome_id) for genome_id in study.genome_ids}
    assert {name: one.path for name, one in read.items()} == dict(study.counts)
    for genome_id, one in read.items():
        rows = read_table(study.truth / f"{genome_id}.genes.tsv")
        assert one.genes["ensembl_gene"][: len(rows)] == [row["gene_id"] for row in rows]
        assert [r["ancestral_id"] for r in one.truth["genes"]][: len(rows)] == [row["ancestral_id"] for row in rows]
        assert len(one.genes["ensembl_gene"]) == 200
    assert not set(read["sim1"].row) & set(read["sim2"].row)
    # Genes of one family have one model in both genomes, those that no annotation has too.
    model = [{r["ancestral_id"]: (r["module"], r["loading"]) for r in one.truth["genes"]} for one in read.values()]
    shared = model[0].keys() & model[1].keys()
    assert len(shared) > 190
    assert all(model[0][family] == model[1][family] for family in shared)
    mean = [
        {r["ancestral_id"]: m for r, m in zip(one.truth["genes"], one.score.mean(axis=0), strict=True)}
        for one in read.values()
    ]
    assert np.corrcoef([[of[family] for family in sorted(shared)] for of in mean])[0, 1] > 0.9


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    peaks = {}
    for n_samples in (128, 1024):
        with output_folder(tmp_path / str(n_samples)) as output:
            tracemalloc.start()
            try:
                write_cohort(output, small_cohort(n_samples, n_genes=500), lambda line: None, block_samples=64)
                peaks[n_samples] = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert peaks[128] > 64 * 500 * 4
    # What remains of a sample is which series it is in.
    assert peaks[1024] < peaks[128] + 200 * 1024


@pytest.mark.parametrize("options", [(1, 1, 1), (49, 2, 1), (3, 2001, 30)])
def test_the_smallest_studies_can_be_made(tmp_path: Path, options: tuple[int, int, int]) -> None:
    samples, genes, tissues = options
    cohort = simulate_samples(tmp_path / "out", CohortOptions(samples=samples, genes=genes, tissues=tissues))
    with h5py.File(cohort.counts) as file:
        assert file["data/expression"].shape == (genes, samples)
        assert file["data/expression"].chunks == (min(genes, 2000), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, r"samples must lie in \[1, 10,000,000\], got 0"),
        ({"samples": 1, "tissues": 1001}, r"tissues must lie in \[1, 1,000\], got 1,001"),
        ({"samples": 1, "genes": 0}, r"genes of expression must lie in \[1, 500,000\], got 0"),
        ({"samples": 1, "seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_samples_that_cannot_be_simulated_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CohortOptions(**options)


def test_a_folder_with_other_samples_is_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    simulate_samples(out, CohortOptions(samples=5, genes=10))
    written = out.stat().st_mtime_ns
    lines: list[str] = []
    simulate_samples(out, CohortOptions(samples=5, genes=10), lines.append)
    assert (lines, out.stat().st_mtime_ns) == ([], written)
    with pytest.raises(ConfigError, match="holds a study of other options"):
        simulate_samples(out, CohortOptions(samples=6, genes=10))
    with pytest.raises(ConfigError, match="holds a study of other options"):
        simulate_study(out, SimulateOptions(**SMALL))
    with pytest.raises(ConfigError, match=r"sim1 has \d+ genes, got 3 genes of expression"):
        simulate_study(tmp_path / "few", SimulateOptions(**SMALL), cohort=CohortOptions(samples=5, genes=3))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tissues", "3"), "add --samples N"),
        (("--samples", "10", "--megabases", "1"), "with --samples add --genomes N"),
    ],
)
def test_options_of_what_is_not_simulated_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = splicestore("simulate", tmp_path / "out", *arguments, check=2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_commands_say_what_they_wrote(tmp_path: Path) -> None:
    few = ("--samples", "6", "--tissues", "2")
    alone = splicestore("simulate", tmp_path / "a", *few, "--expression-genes", "30", check=0).stdout
    assert alone.splitlines() == [
        f"simulated 6 samples of 30 genes in {tmp_path}/a",
        f"next: splicestore ingest expression STORE sim1 {tmp_path}/a/expression/sim1.h5",
    ]
    small = ("--genomes", "2", "--megabases", "0.12", "--genes", "10", "--conditions", "2")
    both = json.loads(splicestore("simulate", tmp_path / "b", *few, *small, "--json", check=0).stdout)
    assert both["genomes"] == ["sim1", "sim2"]
    assert both["expression"] == {name: f"{tmp_path}/b/expression/{name}.h5" for name in ("sim1", "sim2")}
    assert all(Path(path).is_file() for path in both["expression"].values())
    without = json.loads(splicestore("simulate", tmp_path / "c", *small, "--json", check=0).stdout)
    assert sorted(without) == ["config", "folder", "genomes", "orthologs"]
    assert not (tmp_path / "c" / "expression").exists()
