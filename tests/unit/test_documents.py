"""Docs say what is so: links lead somewhere, options exist, examples give what they print, the lock is portable."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import splicestore

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in t]
    assert [t for t in targets if not (page.parent / t).exists()] == []


def help_of(*command):
    done = subprocess.run(
        [sys.executable, "-m", "splicestore", *command, "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_option_in_the_docs_exists():
    commands = [("simulate",), ("ingest", "genomes"), ("split", "windows"), ("train",), ("evaluate",), ("predict",),
                ("export", "splicevo"), ("info",), ("ls",), ("explain",), ("ingest", "usage"), ("usage", "from-bam"), ("estimate",),
                ("verify",), ("copy",), ("prune",), ("finalise",), ("ingest", "expression"), ("normalize", "fit"), ("normalize", "apply"), ("split", "samples"),
                ("export", "generain"), ("export", "h5ad"), ("export", "parquet"), ("normalize", "tokens")]  # fmt: skip
    known = {" ".join(c): set(re.findall(r"--[a-z][a-z-]+", help_of(*c))) for c in commands}
    checked = 0
    for page in PAGES:
        for line in page.read_text().splitlines():
            for name, options in known.items():
                for usage in re.findall(rf"splicestore {name}\b[^`#|]*", line):
                    wanted = set(re.findall(r"--[a-z][a-z-]+", usage))
                    assert wanted <= options, f"{page.name}: {usage}"
                    checked += 1
    assert checked > 15


def test_examples_in_docstrings_give_what_they_print():
    attempted = 0
    for module in pkgutil.walk_packages(splicestore.__path__, "splicestore."):
        needs_lightning = module.name.endswith(".lightning") and importlib.util.find_spec("lightning") is None
        if module.name.endswith("__main__") or needs_lightning:
            continue
        result = doctest.testmod(importlib.import_module(module.name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert result.failed == 0, module.name
        attempted += result.attempted
    assert attempted > 10


def test_lock_serves_machines_with_and_without_a_gpu():
    lines = (ROOT / "requirements.lock").read_text().split()
    assert "torch==2.13.0" in lines
    assert [line for line in lines if "+" in line or re.match(r"nvidia|triton|cuda", line)] == []
    assert all(re.fullmatch(r"[a-z0-9.-]+==[^=]+", line) for line in lines)


def test_every_direct_dependency_is_in_the_lock_and_explained():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().split()}
    page = (ROOT / "docs" / "design" / "dependencies.md").read_text()
    for requirement in project["dependencies"]:
        name = re.match(r"[a-z0-9-]+", requirement).group()
        assert name in locked
        assert name in page, name


def stream_lines(by_case):
    """The README's table of streams, spelled from the rows."""
    warm, cold, peers = by_case["one process, warm"], by_case["one process, cold"], by_case["peers"]
    memory, human, many = (
        by_case[c] for c in ("memory limit", "first batch, a human-sized genome", "first batch, 1,000 genomes")
    )
    per_s, times = warm["figures"], warm["targets"]
    s3 = by_case["S3 at 30 ms, consumer at 50,000 windows/s"]["targets"]["s3_over_local"]["value"]
    entry = by_case["resume in an epoch"]["targets"]["slowest_entry_after_set_up"]["value"]

    def value(row, name):
        found = row["targets"].get(name, {}).get("value", row["figures"].get(name))
        return f"{found:,.0f}x" if found >= 20 else f"{found:.1f}x" if found >= 2 else f"{found:.2f}x"

    return [
        f"| windows per second, usage of 8 conditions included | {per_s['tokens_windows_per_s']:,.0f} | {per_s['one_hot_windows_per_s']:,.0f} |",
        f"| beside a bare copy of the same windows as float32 one-hot | {value(warm, 'tokens_over_memcpy')} | {value(warm, 'one_hot_over_memcpy')} |",
        f"| SplicEvo's dataset ({times['splicevo_reaches_its_own_speed']['value']:.0f} windows/s) | {value(warm, 'tokens_over_splicevo')} | {value(warm, 'one_hot_over_splicevo')} |",
        f"| whole batches out of a dense float32 file in memory (no usage) | {value(warm, 'tokens_over_gather_reused')} | {value(warm, 'one_hot_over_gather_reused')} |",
        f"| the same from disk | {value(cold, 'tokens_over_gather_reused_wall')} | {value(cold, 'one_hot_over_gather_reused_wall')} |",
        f"| the same where the file is 3.5 times the memory | {value(memory, 'tokens_over_limited_reads_wall')} | {value(memory, 'one_hot_over_dense_wall')} |",
        f"| GenVarLoader (bases only), with its one-hot | {value(peers, 'tokens_over_genvarloader')} | {value(peers, 'one_hot_over_genvarloader_one_hot')} |",
        f"| litdata, webdataset; ours read from the store anew | {value(peers, 'tokens_read_anew_over_litdata')}, {value(peers, 'tokens_read_anew_over_webdataset')} | |",
        f"| S3 at 30 ms beside local disk, for a consumer of 50,000 windows/s | {s3:.2f} | |",
        f"| first batch of a human-sized genome; of 1,000 genomes | {human['targets']['cold']['value']:.1f} s; {many['targets']['cold']['value']:.1f} s | |",
        f"| entry at any step of 10^9 windows | {entry:.1f} s | |",
    ]


def test_numbers_in_the_readme_come_from_benchmark_rows():
    rows = [row for p in sorted((ROOT / "benchmarks" / "results").glob("*.json")) for row in json.loads(p.read_text())]
    assert all({"machine", "versions", "measured"} <= row.keys() for row in rows)
    by_case = {row["case"]: row for row in rows}
    readme = (ROOT / "README.md").read_text()

    def cell(case, arm):
        found = by_case[case]["arms"][arm]
        return f"{found['wall_s']['median']:.1f} s", f"{found['peak_mib']:.0f} MiB"

    wall, peak = cell("genome_20mb", "ingest")
    assert f"| ingest 20 Mb, 800 genes, 8 conditions | {wall} | {peak} |" in readme
    small, large = cell("genome_sizes", "ingest_100mb"), cell("genome_sizes", "ingest_400mb")
    assert f"20 conditions | {small[0]} / {large[0]} | {small[1]} / {large[1]} |" in readme
    wall, peak = cell("two_genomes_20mb", "split")
    assert f"| split of two such 20 Mb genomes | {wall} | {peak} |" in readme
    wall, peak = cell("three_genomes_20000_genes", "split")
    assert f"61,000 genes | {wall} | {peak} |" in readme
    usage = by_case["usage_join"]["targets"]["us_per_transcript_site_and_condition"]["value"]
    assert f"| {usage:.1f} us of CPU |" in readme
    for line in stream_lines(by_case):
        assert line in readme, line
