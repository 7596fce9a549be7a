"""What is kept of a classifier beside its numbers: a manifest, as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Version(BaseModel):
    """A version, as it was trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1, lt=2**32)
    sha256: str = Field(pattern=r"[0-9a-f]{64}")
    """Of the file of its numbers."""
    trained: float
    """Seconds since 1970."""
    accuracy: float
    inputs: int
    labels: tuple[str, ...]


class Manifest(BaseModel):
    """A classifier: whose it is, and its versions, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str
    name: str
    current: int
    """The version that is served."""
    versions: tuple[Version, ...] = Field(min_length=1)

    def version(self, number: int) -> Version | None:
        """A version by its number."""
        return next((each for each in self.versions if each.version == number), None)

    @property
    def next(self) -> int:
        """The number of the next version: none is used twice, so long as the classifier lives."""
        return self.versions[-1].version + 1

    def added(self, version: Version, keep: int) -> Manifest:
        """With a new current version; of the others the newest are kept."""
        versions = (*self.versions, version)[-keep:]
        return self.model_copy(update={"current": version.version, "versions": versions})
