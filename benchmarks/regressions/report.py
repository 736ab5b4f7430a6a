"""The campaign in words: a row per scene, a row per seed beside the expected rate, and the last line's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.regressions.play import Played
from schemas.gates import GatesSpec
from schemas.verdicts import Finding
from tasks.assess.contract import PROMOTE, change_outcome, settle

N_DRAWS = 20_000


def scenes_table(played: Sequence[Played]) -> list[str]:
    """What was done to each candidate, and who said what."""
    lines = ["| candidate | right | verdict | said by | reason | as declared |", "|---|---:|---|---|---|---|"]
    for one in played:
        finding = one.finding
        cells = [
            one.scene.told, f"{100 * one.exact:.1f} %", one.decision.verdict, one.scene.part,
            (finding.reason if finding else one.decision.reason).replace("|", "\\|"),
            "yes" if one.as_declared else "NO",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def parts_table(played: Sequence[Played]) -> list[str]:
    """The worst deciding finding of every part, scene by scene: a planted fault may show in more than one."""
    order = ("PROMOTE", "HOLD", "BLOCK", "ERROR")
    parts = list(dict.fromkeys(finding.part for one in played for finding in one.decision.findings if finding.decides))
    lines = ["| candidate | " + " | ".join(parts) + " |", "|---|" + "---|" * len(parts)]
    for one in played:
        worst: dict[str, str] = {}
        for finding in one.decision.findings:
            if finding.decides:
                worst[finding.part] = max(worst.get(finding.part, "PROMOTE"), finding.verdict, key=order.index)
        lines.append(f"| {one.scene.name} | " + " | ".join(worst.get(part, "-") for part in parts) + " |")
    return lines


def seeds_table(kind: str, played: Mapping[int, Played]) -> tuple[list[str], dict[str, Any]]:
    """Every seed's verdict, and how often the same rule would promote, by the flips of all seeds together."""
    lines = [f"| {kind}, seed | right | won : lost | verdict | parts that are not met |", "|---|---:|---:|---|---|"]
    found = {seed: against_champion(one) for seed, one in played.items()}
    for seed, one in played.items():
        finding = found[seed]
        cells = [
            str(seed), f"{100 * one.exact:.1f} %", f"{finding.won} : {finding.lost}", one.decision.verdict, not_met(one)
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    won, lost, n = (
        sum(each) for each in zip(*((f.won or 0, f.lost or 0, f.n_items) for f in found.values()), strict=True)
    )
    rate = expected_rate(won / n, lost / n, n_items=n // len(found))
    verdicts = dict(Counter(one.decision.verdict for one in played.values()))
    figures = {"verdicts": verdicts, "won": won, "lost": lost, "rule_alone_expected": round(rate, 3)}
    return lines, figures


def not_met(one: Played) -> str:
    """Which parts hold or block, and with what."""
    told = (
        f"{each.part} {each.verdict}" for each in one.decision.findings if each.decides and each.verdict != "PROMOTE"
    )
    return ", ".join(dict.fromkeys(told))


def against_champion(one: Played) -> Finding:
    """The finding of the rule against the champion."""
    return next(each for each in one.decision.findings if each.part == "primary" and each.won is not None)


def expected_rate(won: float, lost: float, *, n_items: int, seed: int = 20260601) -> float:
    """Share of candidates with these true shares of flips that `improve` on the champion promotes, simulated."""
    import numpy as np

    alpha = 1 - GatesSpec.model_fields["confidence"].default
    shares = [won, lost, 1 - won - lost]
    drawn = np.random.default_rng(seed).multinomial(n_items, shares, size=N_DRAWS)
    outcome = change_outcome(drawn[:, 0], drawn[:, 1], n_items, margin=0.0, alpha=alpha)
    codes = settle(outcome.met[:, None], outcome.p_harm[:, None], alpha=alpha)
    return float((codes == PROMOTE).mean())
