"""What a metric is like: whether it is 0 or 1 per item, and which way is better. Used by scoring and by the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.spec import Spec


class MetricTraits(Spec):
    """How the values of one metric are to be read."""

    name: str
    continuous: bool = False
    """Any value per item; else every value is 0 or 1."""
    higher_is_better: bool = True
    sliceable: bool = True
    """The mean over some of the items means the same as the mean over all."""


_BUILT_IN = (
    MetricTraits(name="chrf", continuous=True),
    MetricTraits(name="heldout_loss", continuous=True, higher_is_better=False),
)


def traits_by_name(declared: Iterable[MetricTraits] = ()) -> Mapping[str, MetricTraits]:
    """Metric -> traits: the built-in ones that are not plain 0/1, and those declared. Ask with `traits_of`."""
    return {traits.name: traits for traits in (*_BUILT_IN, *declared)}


def traits_of(metric: str, known: Mapping[str, MetricTraits] | None = None) -> MetricTraits:
    """The traits of a metric; one that says nothing else is 0 or 1 per item, and higher is better.

    >>> traits_of("exact").continuous, traits_of("heldout_loss").higher_is_better
    (False, False)
    """
    return (traits_by_name() if known is None else known).get(metric) or MetricTraits(name=metric)
