"""Answer batches of prompts with actors of a Ray cluster; each loads the model once.

If an actor is lost, another answers its batch, with the same result: batches are independent.
"""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.errors import TrainingError
from tasks.cluster.connect import Failed, pack_error, translate_cluster_errors, unpack_error
from tasks.cluster.nodes import check_nodes, has_cards, n_workers, no_room, nodes_now
from tasks.cluster.shared import Shared, node_cache
from tasks.compute.spread import ClusterPlace
from tasks.model.answer_engine import Answer, Engine, Item
from tasks.model.generate import AnswerJob, Batch
from tasks.train.place import library_settings

RETRIES = 3
"""How often another actor retries a batch of a lost actor."""


class AnswerActor:
    """An actor with a loaded engine.

    Args:
        job: The driver's job.
        model: Address of the base model on the shared storage.
        trained: Address of the trained weights; None for the base alone.
        url: URL of the shared storage.
    """

    def __init__(self, job: AnswerJob, *, model: str, trained: str | None, url: str) -> None:
        self._job, self._model, self._trained, self._url = job, model, trained, url
        self._engine: Engine | None = None

    def ready(self) -> None:
        """Return once the actor is scheduled."""

    def answer(self, items: Sequence[Item]) -> list[Answer] | Failed:
        """Answer the items as one batch, in order; an error is returned as plain fields."""
        try:
            self._engine = self._engine or self._load()
            return self._engine.answer(items)
        except Exception as error:
            return pack_error(error)

    def _load(self) -> Engine:
        shared, trained = Shared(self._url), self._job.trained
        model = self._job.model.model_copy(update={"root": shared.cached(self._model)})
        # Weights trained on tickets must not stay on the node: they are deleted once loaded.
        with tempfile.TemporaryDirectory(dir=node_cache()) as place:
            if trained is not None and self._trained is not None:
                root = shared.download(self._trained, Path(place) / "trained")
                trained = trained.model_copy(update={"root": root})
            return replace(self._job, model=model, trained=trained).load()


@dataclass(frozen=True)
class AnsweringOnRay:
    """See `tasks.model.generate.BatchAnswering`."""

    place: ClusterPlace

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Generator[tuple[int, list[Answer]], None, None]:
        """Answer all batches, with one actor per batch as far as the nodes have room.

        Raises:
            TrainingError: TG0416, no node has enough CPUs for the threads; TG0407, a batch's actors were lost.
            TunegateError: as `tasks.cluster.nodes.check_nodes`.
        """
        if not batches:
            return
        with translate_cluster_errors("evaluate"):
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
    )(AnswerActor)
    return [actor.remote(job, model=model, trained=trained, url=url) for _ in range(min(room, n_batches))]


def _answered(actors: Sequence[Any], batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
    """Give each batch to a scheduled, idle actor, so that an actor still waiting to be scheduled delays none."""
    import ray

    left = list(reversed(batches))
    busy: dict[Any, tuple[Any, int | None]] = {actor.ready.remote(): (actor, None) for actor in actors}
    n_done = 0
    while n_done < len(batches):
        (done,), _ = ray.wait(list(busy), num_returns=1)
        actor, start = busy.pop(done)
        try:
            answers = ray.get(done)
        except ray.exceptions.RayActorError as error:
            raise TrainingError(
                f"the processes that answered a batch were lost {RETRIES + 1} times: {type(error).__name__}",
                code="TG0407",
                where="evaluate",
                hint="did the nodes run out of memory? lower evaluate.batch_size",
            ) from None
        if isinstance(answers, Failed):
            raise unpack_error(answers)
        if left:
            next_start, items = left.pop()
            busy[actor.answer.remote(items)] = (actor, next_start)
        else:
            ray.kill(actor)  # an actor of a lost node may be waiting for its resources
        if start is not None:
            n_done += 1
            yield start, answers


def _end(actors: Sequence[Any]) -> None:
    import ray

    for actor in actors:
        ray.kill(actor)
