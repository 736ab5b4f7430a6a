"""What the numbers of pipelines.yaml count. Used by `reference.py`; its test asks for a unit of every number."""

from __future__ import annotations

import re

_UNITS = {
    r"seed|version|snapshot_id": "-",
    r".*_minutes": "minutes",
    r"page_size": "rows",
    r"requests_per_minute": "pages",
    r".*_mb": "megabytes",
    r"max_files|parallel": "files",
    r".*_days": "days",
    r"n_weeks|defect_weeks": "weeks",
    r".*_s": "seconds",
    r"usd_per_1k_max": "dollars per 1,000 answers",
    r"price_per_hour": "your currency per hour",
    r"max_chars|(min|max)_(body|reply)": "characters",
    r"max_length|.*max_new_tokens": "tokens",
    r".*_ngram_words|shingle_words|max_words": "words",
    r"n_tickets|sample_tickets|min_tickets|min_new|window|validation_items|max_rows": "tickets",
    r"min_(fresh_)?held_out|min_items|max_items|n_items|min_slice_items": "held-out items",
    r"n_prompts": "prompts",
    r"(n|max)_customers": "customers",
    r"few_shot_examples|max_examples": "examples",
    r"batch_size": "examples",
    r"epochs": "epochs",
    r"max_steps|warmup_steps|save_every|validate_every": "optimiser steps",
    r"gradient_accumulation_steps": "batches",
    r"threads": "threads",
    r"processes": "processes",
    r"n_trials": "trainings",
    r"top_layers|layers": "layers",
    r"rank": "columns of a factor",
    r"alpha|learning_rate|weight_decay|adam_beta[12]|max_grad_norm": "-",
    r"patience": "validations",
    r"min_delta|bound|kl_max": "nats per token",
    r"exposure_max": "bits",
    r"alternatives|n": "secrets",
    r"repeats": "times",
    r"budget": "candidates",
    r"looks_max": "held-out sets",
    r"min_labels": "labels",
    r"min_suggestions": "suggestions",
    r"max_comparisons|max_pairs": "pairs",
    r"max_document_frequency": "rows",
    r"max_template_leftovers": "leftovers",
    r"max_perplexity": "perplexity",
    r"p95_ratio_max": "times the other's",
    r"value|value_threshold|hard_limit|margin|effect|spread": "the metric's",
    r"low|high": "the setting's",
}


def unit_of(key: str, kinds: list[tuple[str, float | None, float | None]]) -> str:
    """What a number counts; empty for what is no number.

    Args:
        kinds: Of each form the value may take: JSON type, least and largest value.

    >>> unit_of("cooldown_days", [("number", 0, 365)]), unit_of("dropout", [("number", 0, 1)]), unit_of("name", [])
    ('days', 'share, 0-1', '')
    """
    numbers = [(least, most) for kind, least, most in kinds if kind in ("integer", "number")]
    if not numbers:
        return ""
    named = next((unit for pattern, unit in _UNITS.items() if re.fullmatch(pattern, key)), None)
    if named is not None:
        return named
    return "share, 0-1" if all((least or 0) >= 0 and (most or 9) <= 1 for least, most in numbers) else "?"
