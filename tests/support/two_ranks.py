"""Two processes of one training that compare what they hold, see `tasks.train.distributed.Replicas.check_in_step`."""

from pathlib import Path

from tasks.storage.files import write_json

CASES: dict[str, tuple[tuple[int, float], tuple[int, float]]] = {
    "equal": ((3, 0.5), (3, 0.5)),
    "equal, not a number": ((3, float("nan")), (3, float("nan"))),
    "other weights": ((3, 0.5), (3, 0.5000001)),
    "not a number in one": ((3, 0.5), (3, float("nan"))),
    "other steps": ((3, 0.5), (4, 0.5)),
}
"""Name -> step and one weight of each process."""


def compare(rank: int, folder: Path) -> None:
    """Be one of the two: write the message of each case's refusal, or null, to the folder."""
    import torch
    import torch.distributed as dist

    from schemas.errors import TrainingError
    from schemas.training import TrainSpec
    from tasks.train.distributed import join

    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    group = join(TrainSpec(base_model="x", processes=2))
    messages: dict[str, str | None] = {}
    for name, held in CASES.items():
        step, weight = held[rank]
        model = torch.nn.Linear(4, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.25)
            model.bias[1] = weight
        try:
            group.check_in_step(step, model)
            messages[name] = None
        except TrainingError as error:
            messages[name] = f"{error.code} {error.message}"
    write_json(folder / f"{rank}.json", messages)
    dist.destroy_process_group()
