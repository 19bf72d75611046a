"""Encoding damaged partitions again, from the inputs that a generation's manifest records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from splicestore.cluster import Executor, open_executor
from splicestore.config import GenomeConfig
from splicestore.errors import StoreError
from splicestore.ingest.inputs import IngestOptions, collect_inputs
from splicestore.ingest.job import read_genome, write_panel_parts, write_partitions
from splicestore.ingest.recorded import recorded_usage
from splicestore.ingest.usage import stored_target
from splicestore.storage import Part, StoreRoot, input_exists, read_sealed, write_lease
from splicestore.storage.partitions import part_key
from splicestore.storage.sealed import SEAL_KEY, seal_document


def reencode(
    root: StoreRoot, path: str, generation: str, parts: Sequence[str], options: IngestOptions | None = None
) -> None:
    """Encode partitions of a complete generation again, in place, each object overwritten whole.

    Parameters
    ----------
    path
        ``genomes/<id>`` or ``usage/<id>/<panel>``.
    parts
        Names of the damaged partitions; the others are not touched.

    Raises
    ------
    StoreError
        If another process writes it (``LeaseHeldError``), the generation is of another kind, a recorded
        input is missing or changed, or what comes out is not what
        the manifest records.
    """
    with write_lease(root, path, steal=(options or IngestOptions()).steal):
        _reencode_leased(root, path, generation, parts, options or IngestOptions())


def _reencode_leased(root: StoreRoot, path: str, generation: str, parts: Sequence[str], options: IngestOptions) -> None:
    base = f"{path}/{generation}"
    manifest = read_sealed(root, f"{base}/manifest.json")
    if manifest is None:
        raise StoreError(
            f"{root.url_of(base)}: has no manifest, so its inputs are not known; make it again from its command"
        )
    with open_executor(options.scheduler, urls=[root.url]) as executor:
        if path.startswith("genomes/"):
            _reencode_genome(root, base, manifest, parts, options, executor)
        elif path.startswith("usage/"):
            _reencode_panel(root, path, base, parts, options, executor)
        else:
            raise StoreError(f"{root.url_of(base)}: only genomes and usage are encoded again from their inputs")
    _accept(root, base, manifest, parts)


def _reencode_genome(
    root: StoreRoot,
    base: str,
    manifest: dict[str, Any],
    parts: Sequence[str],
    options: IngestOptions,
    executor: Executor,
) -> None:
    try:
        genome = GenomeConfig.model_validate(manifest["provenance"]["config"])
    except (KeyError, ValidationError) as error:
        raise StoreError(f"{root.url_of(base)}: its manifest does not record how it was made ({error})") from error
    _refuse_missing(root, base, [u for u in (genome.fasta, genome.annotation, genome.aliases) if u], options)
    inputs = collect_inputs(genome, options)
    plan = inputs.genome_plan(genome)
    if plan.generation != base.rsplit("/", 1)[-1]:
        recorded = {(i["role"], i["sha256"]) for i in manifest["provenance"]["inputs"]}
        changed = [d.role for d in inputs.digests if (d.role, d.sha256) not in recorded] or ["options"]
        raise StoreError(
            f"{root.url_of(base)}: cannot be repaired, its {', '.join(changed)} changed since it was ingested; put the old files "
            "back, or ingest again (a new generation)"
        )
    write_partitions(read_genome(root, genome, inputs, options), executor, parts)


def _reencode_panel(
    root: StoreRoot,
    path: str,
    base: str,
    parts: Sequence[str],
    options: IngestOptions,
    executor: Executor,
) -> None:
    _, genome_id, panel = path.split("/")
    recorded = recorded_usage(
        root,
        base,
        options,
        aliases=None,
        purpose=f"{root.url_of(base)}: is repaired from its recorded inputs",
        what_now="put it back, or ingest again (a new generation)",
    )
    target = stored_target(root, genome_id, panel, recorded.mix_estimators)
    write_panel_parts(target, recorded.inputs, base, parts, options, executor)


def _refuse_missing(root: StoreRoot, base: str, urls: Sequence[str], options: IngestOptions) -> None:
    missing = [url for url in urls if not input_exists(url, storage_options=options.storage_options)]
    if missing:
        raise StoreError(
            f"{root.url_of(base)}: cannot be repaired, its inputs are not there any more: {', '.join(missing)}; put them back"
        )


def _accept(root: StoreRoot, base: str, manifest: dict[str, Any], parts: Sequence[str]) -> None:
    """Record the new part documents, if together they hold the content that was recorded.

    Another build of zstd may store the same values in other bytes.
    """
    names = sorted(manifest["parts"])
    spelled = dict(zip(names, root.gather(lambda name: root.get(part_key(base, name)) or b"", names), strict=True))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in spelled.items()}
    if digests == manifest["parts"]:
        return
    content = hashlib.sha256("".join(Part.parse(spelled[name]).content for name in names).encode()).hexdigest()
    if content != manifest["content"]:
        raise StoreError(
            f"{root.url_of(base)}: partitions {', '.join(parts)} came out with other values than were published; the release that "
            "wrote them may encode differently: ingest again (a new generation)"
        )
    document = {key: value for key, value in manifest.items() if key != SEAL_KEY}
    root.put(f"{base}/manifest.json", seal_document({**document, "parts": digests}))
