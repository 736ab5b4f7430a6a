"""The suite `general`: items.jsonl, neutral.txt, VERSION and LICENSE; `make.py` rewrites the items."""
