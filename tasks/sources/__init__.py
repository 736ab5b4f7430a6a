"""Where tickets come from: `registry.py` lists the kinds of `source.kind`; each has its own file here.

Others use `registry.py` (sources of any kind), `formats.py` and `readers/` (files and rows). A new kind is one file, a
subclass of `kind.SourceKind`, and one line of the registry.
"""
