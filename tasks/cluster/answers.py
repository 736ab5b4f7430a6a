"""Batches of prompts answered on actors of a Ray cluster, each with the model loaded once.

A batch whose actor is lost is answered by another, with the same result: no batch depends on another. Made by
`flows/workspace/ray_cluster.py`, called by tasks/model/generate.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.errors import TrainingError
from tasks.cluster.connect import Failed, Place, named_cluster_errors, packed, unpacked
from tasks.cluster.nodes import check_nodes, has_cards, n_workers, no_room, nodes_now
from tasks.cluster.shared import Shared, node_cache
from tasks.model.answer_engine import Answer, Engine, Item
from tasks.model.generate import AnswerJob, Batch
from tasks.train.place import library_settings

RETRIES = 3
"""How often a batch whose actor is lost is given to another."""


class Answerer:
    """An actor: a loaded engine.

    Args:
        job: As on the driver.
        model: Address of the base model on the shared storage.
        trained: Address of the trained weights; None for the base alone.
        url: Of the shared storage.
    """

    def __init__(self, job: AnswerJob, *, model: str, trained: str | None, url: str) -> None:
        self._job, self._model, self._trained, self._url = job, model, trained, url
        self._engine: Engine | None = None

    def ready(self) -> None:
        """Returns when the actor has its place."""

    def answer(self, items: Sequence[Item]) -> list[Answer] | Failed:
        """Answer the items as one batch, in their order; an error as plain fields."""
        try:
            self._engine = self._engine or self._load()
            return self._engine.answer(items)
        except Exception as error:
            return packed(error)

    def _load(self) -> Engine:
        shared, trained = Shared(self._url), self._job.trained
        model = self._job.model.model_copy(update={"root": shared.cached(self._model)})
        # What learned from tickets does not stay on the node: it goes when it is loaded.
        with tempfile.TemporaryDirectory(dir=node_cache()) as place:
            if trained is not None and self._trained is not None:
                root = shared.bring(self._trained, Path(place) / "trained")
                trained = trained.model_copy(update={"root": root})
            return replace(self._job, model=model, trained=trained).load()


@dataclass(frozen=True)
class AnsweringOnRay:
    """See `tasks.model.generate.Answering`."""

    place: Place

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
        """As many actors as the nodes hold and there are batches.

        Raises:
            TrainingError: TG0416, no node has the CPUs that the threads need; TG0407, a batch's actors were lost.
            TunegateError: As `tasks.cluster.nodes.check_nodes`.
        """
        if not batches:
            return
        with named_cluster_errors("evaluate"):
            check_nodes(self.place)
            shared = Shared(self.place.shared)
            model = shared.put(job.model.root)
            trained = shared.put(job.trained.root) if job.trained is not None else None
            actors = _start(job, len(batches), model=model, trained=trained, url=shared.url)
            try:
                yield from _answered(actors, batches)
            finally:
                _end(actors)
                if trained is not None:
                    shared.remove(trained)


def _start(job: AnswerJob, n_batches: int, *, model: str, trained: str | None, url: str) -> list[Any]:
    import ray

    nodes = nodes_now()
    cards = has_cards(nodes)
    job = job if cards else job.of_one_batch()
    room = n_workers(nodes, job.threads, cards=cards)
    if not room:
        raise no_room(1, room, job.threads, cards=cards)
    settings = library_settings(threads=job.threads) | ({} if cards else {"CUDA_VISIBLE_DEVICES": ""})
    actor = ray.remote(
        num_cpus=job.threads,
        num_gpus=int(cards),
        max_restarts=-1,
        max_task_retries=RETRIES,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": settings},
    )(Answerer)
    return [actor.remote(job, model=model, trained=trained, url=url) for _ in range(min(room, n_batches))]


def _answered(actors: Sequence[Any], batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
    """Each batch goes to an actor that has its place and nothing to do: one that waits for a place holds none up."""
    import ray

    left = list(reversed(batches))
    busy: dict[Any, tuple[Any, int | None]] = {actor.ready.remote(): (actor, None) for actor in actors}
    n_done = 0
    while n_done < len(batches):
        (done,), _ = ray.wait(list(busy), num_returns=1)
        actor, start = busy.pop(done)
        try:
            told = ray.get(done)
        except ray.exceptions.RayActorError as error:
            raise TrainingError(
                f"the processes that answered a batch were lost {RETRIES + 1} times: {type(error).__name__}",
                code="TG0407",
                where="evaluate",
                hint="did the nodes run out of memory? lower evaluate.batch_size",
            ) from None
        if isinstance(told, Failed):
            raise unpacked(told)
        if left:
            next_start, items = left.pop()
            busy[actor.answer.remote(items)] = (actor, next_start)
        else:
            ray.kill(actor)  # its place may be what one from a lost node waits for
        if start is not None:
            n_done += 1
            yield start, told


def _end(actors: Sequence[Any]) -> None:
    import ray

    for actor in actors:
        ray.kill(actor)
