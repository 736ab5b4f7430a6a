"""Refusals before anything is loaded: free memory, settings that would fit, and the report."""

import logging
import subprocess
from ctypes import CFUNCTYPE, POINTER, c_int, c_size_t, c_uint, c_void_p
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.train import memory
from tasks.train.cards import Card, cards_here, query
from tasks.train.memory import GIB, Forecast, Workload, check_memory, free_bytes, free_card_bytes, required_bytes
from tasks.train.model_shapes import known_dims

SMALL = Workload(known_dims("smollm2-135m"), stored=538_000_000, max_tokens=512)
LARGE = Workload(known_dims("llama-3.1-70b"), stored=141_000_000_000, max_tokens=512)


def forecast(work: Workload, spec: TrainSpec) -> Forecast:
    found = memory.forecast(work, spec)
    assert found is not None
    return found


def predict_parts(work: Workload, spec: TrainSpec, *, device: Literal["cpu", "cuda"]) -> dict[str, int]:
    found = memory.predict_parts(work, spec, device=device)
    assert found is not None
    return found


def _machine(root: Path, *, available_mib: int, groups: dict[str, tuple[str, int, int]], own: str) -> Path:
    """Write a fake file system with /proc and control groups: folder -> (memory.max, memory.current, inactive_file)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(f"4:memory:/old\n0::{own}\n")
    for name, (limit, current, inactive) in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return root


def test_the_tightest_parent_control_group_is_the_limit(tmp_path: Path) -> None:
    mib = 2**20
    groups = {
        "": ("max", 0, 0),
        "pod": (str(4096 * mib), 3000 * mib, 500 * mib),
        "pod/job": (str(8192 * mib), 100 * mib, 0),
        "pod/job/inner": ("max", 90 * mib, 0),
        "other": (str(mib), 0, 0),
    }
    root = _machine(tmp_path, available_mib=16_000, groups=groups, own="/pod/job/inner")
    assert free_bytes(root) == (4096 - 3000 + 500) * mib


def test_without_a_limit_the_kernels_available_memory_counts(tmp_path: Path) -> None:
    assert free_bytes(_machine(tmp_path / "none", available_mib=900, groups={}, own="/gone")) == 900 * 2**20
    over = _machine(tmp_path / "over", available_mib=900, groups={"x": ("5", 9, 0)}, own="/x")
    assert free_bytes(over) == 0


def test_in_a_container_with_a_host_path_the_mounted_group_counts(tmp_path: Path) -> None:
    root = _machine(tmp_path, available_mib=900, groups={"": (str(7 * 2**20), 2**20, 0)}, own="/host/docker/abc")
    assert free_bytes(root) == 6 * 2**20


def test_the_fullest_card_in_use_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = (Card(40_000 * 2**20, True), Card(24_000 * 2**20, False), Card(8_000 * 2**20, True))
    monkeypatch.setattr("tasks.train.memory.cards_here", lambda: cards)
    assert [free_card_bytes(n) for n in (1, 2, 3)] == [40_000 * 2**20, 24_000 * 2**20, 8_000 * 2**20]
    spec = TrainSpec(base_model="x", method="qlora", batch_size=1, gradient_checkpointing=True)
    found = forecast(LARGE, spec)
    assert (found.device, found.available, found.fits, found.remedy) == ("cuda", 40_000 * 2**20, False, None)
    two = forecast(SMALL, TrainSpec(base_model="x", processes=2))
    assert (two.device, two.available, two.fits) == ("cuda", 24_000 * 2**20, True)
    monkeypatch.setattr("tasks.train.memory.cards_here", tuple)
    assert free_card_bytes() is None


def test_a_context_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_AUTO_DTYPE", raising=False)
    monkeypatch.setattr("tasks.train.memory.cards_here", lambda: (Card(GIB, True),))
    parts = predict_parts(SMALL, TrainSpec(base_model="x"), device="cuda")
    assert parts["total"] - required_bytes(parts, TrainSpec(base_model="x"), "cuda") == memory.CONTEXT_GIB * GIB


def test_a_forecast_with_many_remedies_asks_the_cards_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("tasks.train.memory.cards_here", lambda: asked.append(1) or (Card(GIB, True),))
    monkeypatch.delenv("TUNEGATE_AUTO_DTYPE", raising=False)
    assert not forecast(LARGE, TrainSpec(base_model="x", batch_size=32)).fits
    assert len(asked) == 2  # for what is free, and for what they multiply


def test_auto_takes_four_bytes_on_a_card_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(dtype: str, *, bfloat16: bool) -> int:
        monkeypatch.setattr("tasks.train.memory.cards_here", lambda: (Card(2**40, bfloat16),))
        return predict_parts(SMALL, TrainSpec.model_validate({"base_model": "x", "dtype": dtype}), device="cuda")[
            "weights"
        ]

    monkeypatch.delenv("TUNEGATE_AUTO_DTYPE", raising=False)
    assert weights("auto", bfloat16=True) == weights("bfloat16", bfloat16=False)
    assert weights("auto", bfloat16=False) == weights("float32", bfloat16=True)
    assert weights("float32", bfloat16=True) - weights("bfloat16", bfloat16=True) == 2 * SMALL.dims.n_parameters
    monkeypatch.setenv("TUNEGATE_AUTO_DTYPE", "float32")
    assert weights("auto", bfloat16=True) == weights("float32", bfloat16=True)


def _driver(cards: list[tuple[int, int]], *, refused: str = "") -> SimpleNamespace:
    """A CUDA driver by its C interface, which ctypes calls as the real one: (free bytes, capability) of each card."""
    current: list[int] = []
    numbers, sizes = POINTER(c_int), POINTER(c_size_t)

    def fill(target: Any, value: int) -> int:
        target[0] = value
        return 0

    def retain(context: Any, device: int) -> int:
        context[0] = device + 1
        return 0

    functions: dict[str, Any] = {
        "cuInit": CFUNCTYPE(c_int, c_uint)(lambda _flags: 0),
        "cuDeviceGetCount": CFUNCTYPE(c_int, numbers)(lambda count: fill(count, len(cards))),
        "cuDeviceGet": CFUNCTYPE(c_int, numbers, c_int)(lambda device, index: fill(device, index)),
        "cuDeviceGetAttribute": CFUNCTYPE(c_int, numbers, c_int, c_int)(
            lambda value, which, device: fill(value, cards[device][1]) if which == 75 else 1
        ),
        "cuDevicePrimaryCtxRetain": CFUNCTYPE(c_int, POINTER(c_void_p), c_int)(retain),
        "cuCtxSetCurrent": CFUNCTYPE(c_int, c_void_p)(lambda context: current.append(context - 1) or 0),
        "cuMemGetInfo_v2": CFUNCTYPE(c_int, sizes, sizes)(lambda free, _total: fill(free, cards[current[-1]][0])),
        "cuDevicePrimaryCtxRelease_v2": CFUNCTYPE(c_int, c_int)(lambda _device: 0),
    }
    if refused:
        functions[refused] = lambda *_: 46
    return SimpleNamespace(**functions)


def test_the_driver_names_the_free_memory_and_the_age_of_each_card() -> None:
    assert query(_driver([(80 * GIB, 9), (15 * GIB, 7)])) == [Card(80 * GIB, True), Card(15 * GIB, False)]
    assert query(_driver([])) == []
    with pytest.raises(OSError, match="cuDevicePrimaryCtxRetain: CUDA error 46"):
        query(_driver([(GIB, 8)], refused="cuDevicePrimaryCtxRetain"))


def test_without_a_visible_card_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "2.9.0+cu128")
    assert cards_here() == ()
    noise = subprocess.CompletedProcess([], 0, stdout="a driver's remark\n[]")
    monkeypatch.setattr("subprocess.run", lambda *_args, **_settings: noise)
    assert cards_here() == ()


def test_the_smallest_change_that_fits_is_named_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.memory.free_card_bytes", lambda _processes: None)

    def remedy(gib: float, spec: TrainSpec) -> str | None:
        monkeypatch.setattr("tasks.train.memory.free_bytes", lambda: round(gib * GIB))
        return forecast(SMALL, spec).remedy

    wide = TrainSpec(base_model="x", batch_size=32, gradient_accumulation_steps=2, dtype="float32")
    deep = wide.model_copy(update={"gradient_checkpointing": True})
    assert str(remedy(4.0, wide)).startswith("train.gradient_checkpointing: true (")
    assert str(remedy(2.8, deep)).startswith("train.batch_size: 16, train.gradient_accumulation_steps: 4 (")
    full = TrainSpec(
        base_model="x", method="full", learning_rate=1e-5, batch_size=1, gradient_checkpointing=True, dtype="float32"
    )
    assert str(remedy(2.5, full)).startswith("train.method: lora (")
    assert remedy(0.5, full) is None
    two = wide.model_copy(update={"batch_size": 1, "processes": 2, "gradient_checkpointing": True})
    assert str(remedy(2.6, two)).startswith("train.processes: 1 (")


def test_a_training_is_refused_warned_about_or_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tasks.train.memory.free_card_bytes", lambda _processes: None)
    spec = TrainSpec(base_model="x", method="qlora", batch_size=1, gradient_checkpointing=True)
    with pytest.raises(TrainingError, match="does not fit") as caught:
        check_memory(LARGE, spec)
    assert "smaller base model" in str(caught.value.hint)
    with caplog.at_level(logging.WARNING, "tunegate.train"):
        check_memory(LARGE, spec.model_copy(update={"memory_check": "warn"}))
    assert "TG0405" in caplog.text
    caplog.clear()
    check_memory(LARGE, spec.model_copy(update={"memory_check": "off"}))
    check_memory(None, spec)
    assert not caplog.text


def test_sharding_divides_the_memory_of_each_process() -> None:
    alone = TrainSpec(base_model="x", method="full", learning_rate=1e-5, processes=4, dtype="bfloat16")
    cut = alone.model_copy(update={"sharding": "full"})
    devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
    for device in devices:
        whole, part = (predict_parts(SMALL, spec, device=device) for spec in (alone, cut))
        assert part["optimizer"] == whole["optimizer"] // 4
        assert part["total"] < whole["total"]
    experts = replace(SMALL, dims=known_dims("mixtral-8x7b"))
    weights = predict_parts(experts, cut.model_copy(update={"dtype": "float32"}), device="cuda")["weights"]
    assert weights < 1.2 * experts.dims.n_parameters  # a quarter of four bytes, and of the experts one layer
    # On a card the copies in 16 bits are whole, and so are one layer and the embeddings at a time.
    assert part["weights"] > SMALL.dims.n_parameters * (4 // 4 + 2) + 4 * SMALL.dims.n_other
