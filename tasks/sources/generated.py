"""`source.kind: generated`: the seeded, fictional help desk of `helpdesk/`, read as any export is."""

from collections.abc import Iterator

from schemas.file_reading import RowReading
from schemas.source import GeneratedSource
from tasks.sources.kind import Part, Place, SourceKind
from tasks.storage.files import sha256_json


class Generated(SourceKind[GeneratedSource]):
    """Tickets that are generated."""

    spec = GeneratedSource

    def describe(self, source: GeneratedSource) -> str:
        return "generated"

    def fingerprint(self, source: GeneratedSource, place: Place) -> str:
        """Digest of the settings; equal ones give equal tickets."""
        return sha256_json(source.model_dump(mode="json"))

    def parts(self, source: GeneratedSource, place: Place) -> Iterator[Part]:
        """The lines of its export."""
        from tasks.sources.helpdesk import generate_tickets
        from tasks.sources.readers.read_jsonl import parse_blocks
        from tasks.sources.readers.streams import blocks_of

        yield Part("generated", "generated", parse_blocks(blocks_of(generate_tickets(source))))

    def row_reading(self, source: GeneratedSource) -> RowReading:
        """The defaults: its columns have the canonical names."""
        return RowReading()


KIND = Generated()
