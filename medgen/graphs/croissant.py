"""Croissant metadata of a dataset: its files, columns and responsible-use notes as JSON-LD.

Source: MLCommons Croissant 1.0 and its Responsible AI vocabulary 1.0. Knows the manifest's columns;
measures nothing. `mlcroissant` reads it, see docs/datasets.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from medgen.data.dataset_figures import DatasetStats
from medgen.data.dataset_folder import Dataset
from medgen.data.dataset_rows import PARQUET, SCHEMA, TABLE, Row
from medgen.data.images import SYNTHETIC_NOTICE

FILE = "croissant.json"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", RAI]
_TYPES = {
    pa.string(): "sc:Text",
    pa.int64(): "sc:Integer",
    pa.float64(): "sc:Float",
    pa.bool_(): "sc:Boolean",
}
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(dataset: Dataset, stats: DatasetStats, licence: str, limits: list[str]) -> str:
    """The metadata as JSON text.

    Args:
        dataset: Opened; the manifests' hashes are taken of the files as they are.
        stats: Its counts.
        licence: URL of the licence of its images.
        limits: What it must not be used for, a sentence each.
    """
    modalities = ", ".join(stats.balance)
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": dataset.name,
        "description": f"{stats.images} synthetic images ({modalities}), labelled and checked by "
        f"measurement. {SYNTHETIC_NOTICE}",
        "conformsTo": CONFORMS_TO,
        "license": licence,
        "citeAs": f"{dataset.name}: synthetic images drawn with medgen, {dataset.created.year}",
        "version": "1.0.0",
        "datePublished": dataset.created.date().isoformat(),
        "keywords": ["synthetic", "medical imaging", *stats.balance],
        "isLiveDataset": False,
        "rai:dataCollection": "Drawn by a generative model from text prompts; no patient was "
        "imaged for it. Each image was verified by measurement against its prompt, and rejected "
        "candidates are kept apart.",
        "rai:dataLimitations": limits,
        "rai:dataBiases": "Labels and sources are confounded in the data that the generator "
        "learned from: a drawn class also carries its source's look.",
        "rai:personalSensitiveInformation": "None is intended. Images nearer to a training image "
        "than a calibrated distance were rejected; that lowers the risk of a copied training "
        "image and is no proof.",
        "distribution": _distribution(dataset),
        "recordSet": _record_sets(),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _distribution(dataset: Dataset) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    for name, kind in ((TABLE, "text/csv"), (PARQUET, "application/x-parquet")):
        path = dataset.folder / name
        if path.exists():
            files.append(
                {
                    "@type": "cr:FileObject",
                    "@id": name,
                    "name": name,
                    "contentUrl": name,
                    "contentSize": f"{path.stat().st_size} B",
                    "encodingFormat": kind,
                    "sha256": _sha256(path),
                }
            )
    images = {
        "@type": "cr:FileSet",
        "@id": "image-files",
        "name": "image-files",
        "description": "Accepted images; rejected candidates are in rejected/.",
        "encodingFormat": "image/png",
        "includes": "images/*/*.png",
    }
    return [*files, images]


def _record_sets() -> list[dict[str, Any]]:
    """The manifest's rows, a field a column; and the image files by their names."""
    told = _attributes()
    rows = {
        "@type": "cr:RecordSet",
        "@id": "manifest",
        "name": "manifest",
        "description": "One record an image, accepted and rejected.",
        "key": [{"@id": "manifest/id"}, {"@id": "manifest/attempt"}],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"manifest/{column.name}",
                "name": column.name,
                "description": told[column.name],
                "dataType": _TYPES[column.type],
                "source": {"fileObject": {"@id": TABLE}, "extract": {"column": column.name}},
            }
            for column in SCHEMA
        ],
    }
    pictures = {
        "@type": "cr:RecordSet",
        "@id": "pictures",
        "name": "pictures",
        "description": "The accepted images and their file names, ID.png.",
        "field": [
            _picture("file", "sc:Text", "filename", "The id and .png."),
            _picture("image", "sc:ImageObject", "content", "The image, 8-bit PNG."),
        ],
    }
    return [rows, pictures]


def _picture(name: str, kind: str, file_property: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"pictures/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
        "source": {
            "fileSet": {"@id": "image-files"},
            "extract": {"fileProperty": file_property},
        },
    }


def _attributes() -> dict[str, str]:
    """What each column is, from the docstring of `Row`."""
    told: dict[str, str] = {}
    name = ""
    for line in (Row.__doc__ or "").partition("Attributes:")[2].splitlines():
        word, colon, rest = line.strip().partition(":")
        if colon and word in Row.model_fields:
            name, told[word] = word, rest.strip()
        elif name and line.strip():
            told[name] += f" {line.strip()}"
    return told


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
