"""Route or review: what the certificate of a version says of one of its answers.

Certified are answers to the pipeline's own prompt, as long as the gate's. Every other answer goes to review, and so
does one of which anything is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from schemas.artifacts import LabelSet, ServedCertificate
from tasks.assess.fields import FieldPattern
from tasks.assess.label_probability import all_finite, label_probability
from tasks.model.chat_codec import ChatCodec
from tasks.model.label_likelihood import LabelFinder, LabelPlace


@dataclass(frozen=True)
class Routing:
    """What happens with an answer."""

    action: Literal["route", "review"]
    """route: as often right as certified; no person needs to look at its label."""
    probability: float | None
    """Of the written label, 0-1; None if it has none."""
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The answer's object `tunegate`."""
        return {"action": self.action, "probability": self.probability, "reason": self.reason}


class Router:
    """Decides by a version's certificate.

    Args:
        certificate: Of the version.
        codec: Of its model.
    """

    def __init__(self, certificate: ServedCertificate, codec: ChatCodec) -> None:
        self.certificate = certificate
        self._pattern = FieldPattern(certificate.pattern)
        field, pattern, labels = certificate.field, certificate.pattern, certificate.labels
        self.labels = LabelSet(root=Path(), field=field, pattern=pattern, labels=labels)
        self._finder = LabelFinder(self.labels, codec)

    def find(self, tokens: Sequence[int], text: str) -> LabelPlace | None:
        """Find the place in an answer at which `decide` needs the likelihoods of the labels; None if it has none.

        Args:
            tokens: All generated tokens, including the end token.
            text: Of these.
        """
        return self._finder.find(tokens, text)

    def decide(self, text: str, label_logs: Sequence[float] | None, *, uncertified: str) -> Routing:
        """Decide about an answer.

        Args:
            text: Of all generated tokens.
            label_logs: Log-likelihoods of the labels at the place that `find` finds, nats; None without a place.
            uncertified: Why the certificate is not about such an answer; empty if it is.
        """
        found = self._probability(text, label_logs)
        probability = found if isinstance(found, float) else None
        threshold = self.certificate.threshold
        if uncertified:
            return Routing("review", probability, uncertified)
        if isinstance(found, str):
            return Routing("review", None, found)
        if threshold is None:
            return Routing("review", found, self.certificate.sentence)
        if found < threshold:
            return Routing("review", found, f"probability {found:.4f} is below the certified {threshold:.4f}")
        return Routing("route", found, f"probability {found:.4f} is at least the certified {threshold:.4f}")

    def _probability(self, text: str, label_logs: Sequence[float] | None) -> float | str:
        """The probability of the label that was written, or why there is none."""
        certificate = self.certificate
        value = self._pattern.value_in(text, certificate.field)
        if value is None or label_logs is None:
            return f"the answer has no {certificate.field} of which the probability is known"
        if not all_finite(label_logs):
            return f"the likelihoods of {certificate.field} are no numbers"
        return label_probability(label_logs, certificate.labels.index(value), certificate.temperature)
