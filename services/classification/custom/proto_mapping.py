"""What the contract says of a classifier."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from meshgate.v1 import classification_pb2 as pb
from services.classification.custom.storage import Manifest, Version


def classifier(manifest: Manifest) -> pb.CustomClassifier:
    """A classifier and its versions."""
    return pb.CustomClassifier(
        model=manifest.name, version=manifest.current, versions=[_version(each) for each in manifest.versions]
    )


def _version(version: Version) -> pb.ClassifierVersion:
    trained = Timestamp()
    trained.FromMilliseconds(round(version.trained * 1000))
    return pb.ClassifierVersion(
        version=version.version,
        trained=trained,
        accuracy=version.accuracy,
        inputs=version.inputs,
        labels=version.labels,
    )
