"""Where tickets come from: `registry.py` lists the kinds of `source.kind`; each has a file of its own here.

Others use `registry.py` (which kind a source is), `ingest.py` (fetch what is not readable in place), `formats.py` and
`readers/` (files and rows). A new kind is one file, shaped as `kind.py` says, and one line of the registry.
"""
