"""What a trained network knows of its genes, as a table."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from splicestore.errors import ConfigError
from splicestore.models.genes import gene_embeddings
from splicestore.storage.outputs import write_file

ENDINGS = (".tsv", ".npy")


def export_embeddings(url: str, output: str, *, storage_options: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """Write the embedding of every gene of a trained network.

    Parameters
    ----------
    url
        Card of the network.
    output
        ``.tsv`` (a gene a line: id, then its values) or ``.npy`` (float32 (gene, width), the ids beside it as ``.genes.txt``).
    storage_options
        Passed to fsspec, for the card.

    Returns
    -------
    n_genes, width

    Raises
    ------
    ConfigError
        For another ending.
    ModelError
        If the card is of no network of genes.
    """
    if not output.endswith(ENDINGS):
        raise ConfigError(f"{output}: embeddings are written as {' or '.join(ENDINGS)}")
    genes, tensor = gene_embeddings(url, storage_options=storage_options)
    values = tensor.numpy()
    if output.endswith(".npy"):
        stream = io.BytesIO()
        np.save(stream, values)
        write_file(f"{output.removesuffix('.npy')}.genes.txt", "".join(f"{gene}\n" for gene in genes).encode())
        write_file(output, stream.getvalue())
    else:
        # As many digits as give a float32 back.
        lines = (
            "\t".join((gene, *(f"{value:.9g}" for value in row)))
            for gene, row in zip(genes, values.tolist(), strict=True)
        )
        write_file(output, "".join(f"{line}\n" for line in lines).encode())
    return values.shape[0], values.shape[1]
