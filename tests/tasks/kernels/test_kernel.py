"""Kernels are compiled once, kept whole or not at all, and run without numba afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.kernels import kernel as kernel_module
from tasks.kernels.compiling import compile_function
from tasks.kernels.kernel import Flat, Kernel, Part, in_slices, n_threads, prefetch

FACTOR = np.int64(3)


@Part
def times(value: Any) -> Any:
    return value * FACTOR


def add_up(values: Any, table: Any, scale: Any) -> int:
    total = np.int64(0)
    for i in range(values.shape[0]):
        total += times(values[i])
        table[i, 1] = np.float64(values[i]) * scale
    return total


def fresh() -> Kernel:
    return Kernel(add_up, "i64[] f64[,] f64")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Two empty cache folders, and nothing compiled before."""
    (tmp_path / "program").mkdir()
    monkeypatch.setattr(kernel_module, "HERE", tmp_path / "program")
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "home"))
    return [tmp_path / "program" / "__pycache__", tmp_path / "home" / "kernels"]


def check(kernel: Kernel) -> None:
    table = np.zeros((3, 2))
    assert kernel(np.array([1, 2, 4]), table, 0.5) == 21
    assert table.tolist() == [[0, 0.5], [0, 1], [0, 2]]


def test_a_kernel_calls_its_parts_and_fills_arrays(folders: list[Path]) -> None:
    check(fresh())
    assert len(list(folders[0].glob("*.o"))) == 1


def test_a_kept_kernel_is_loaded_rather_than_compiled(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    check(fresh())
    monkeypatch.setattr("tasks.kernels.compiling.compile_function", None)
    check(fresh())


def test_a_damaged_file_is_compiled_again(folders: list[Path]) -> None:
    check(fresh())
    [kept] = folders[0].glob("*.o")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        kept.write_bytes(damaged)
        check(fresh())
        again = kept.read_bytes()  # not always as long: numba counts what it compiles, in names
        assert again != damaged
        assert hashlib.sha256(again[:-32]).digest() == again[-32:]


def test_a_folder_that_cannot_be_written_is_passed_over(folders: list[Path]) -> None:
    folders[0].write_text("a file where the folder should be")
    check(fresh())
    assert len(list(folders[1].glob("*.o"))) == 1
    folders[1].rename(folders[1].with_name("gone"))
    folders[1].write_text("and here")
    check(fresh())


def test_a_change_of_any_source_makes_another_file(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(place: str, **sources: str) -> set[str]:
        """Names of all files that are kept once a kernel of this folder has run, with these sources about it."""
        for number, text in enumerate(sources.values()):
            (tmp_path / place / str(number)).mkdir(parents=True)
            (tmp_path / place / str(number) / "source.py").write_text(text)
        monkeypatch.setattr(kernel_module, "HERE", tmp_path / place / "0")
        code = compile(sources["own"], str(tmp_path / place / "1" / "source.py"), "exec")
        names: dict[str, Any] = {"__name__": "source"}
        exec(code, names)  # noqa: S102 - it is the text below
        assert Kernel(names["first"], "i64[]")(np.array([7])) == 7
        return {path.name for path in tmp_path.rglob("*.o")}

    own = "def first(values):\n    return values[0]\n"
    assert len(compiled("one", program="a = 1", own=own)) == 1
    assert len(compiled("same", program="a = 1", own=own)) == 1
    assert len(compiled("program", program="a = 2", own=own)) == 2
    assert len(compiled("own", program="a = 1", own=f"{own}# other text")) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        (np.array([1], np.int32), np.zeros((1, 2)), 1.0),
        (np.array([1]), np.zeros(2), 1.0),
        (np.array([1, 2, 3, 4])[::2], np.zeros((2, 2)), 1.0),
    ],
)
def test_arrays_of_another_kind_are_refused(arguments: tuple[Any, ...], folders: list[Path]) -> None:
    with pytest.raises(TypeError, match="kernel wants"):
        fresh()(*arguments)


def test_a_function_that_needs_more_than_itself_is_refused() -> None:
    def chance(n: Any) -> int:
        return np.int64(np.random.random() * n)

    with pytest.raises(RuntimeError, match=r"form that is unknown: .*random"):
        compile_function(chance, ["i64"], "chance")


def add_ahead(values: Any, total: Any) -> int:
    total[0] = np.float32(0)
    for i in range(values.shape[0]):
        if i % 16 == 0:
            prefetch(values, i + 4096)
        total[0] += values[i]
    return 0


def test_a_hint_changes_nothing_wherever_it_points(folders: list[Path]) -> None:
    values, total = np.arange(100, dtype=np.float32), np.zeros(1, np.float32)
    Kernel(add_ahead, "f32[] f32[]")(values, total)
    assert total[0] == 4950
    with pytest.raises(TypeError, match="from kernels only"):
        prefetch(values, 0)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_sums_in_any_order_keep_what_is_not_finite(folders: list[Path], odd: float) -> None:
    values, total = np.ones(1000, np.float32), np.zeros(1, np.float32)
    reordering = Kernel(add_ahead, "f32[] f32[]", reorders=True)
    reordering(values, total)
    assert total[0] == 1000
    values[777] = odd
    reordering(values, total)
    assert np.array_equal(total[0], np.float32(odd), equal_nan=True)


def test_an_argument_made_once_serves_many_calls_and_keeps_its_array(folders: list[Path]) -> None:
    total = np.zeros(1, np.float32)
    kept = Flat.of(np.full(64, 2, np.float32), "f32[]")  # the array has no other name
    for _ in range(3):
        Kernel(add_ahead, "f32[] f32[]")(kept, total)
        assert total[0] == 128
    with pytest.raises(TypeError, match="kernel wants"):
        Flat.of(np.zeros(4), "f32[]")


def test_slices_cover_all_and_come_in_order() -> None:
    assert in_slices(lambda low, high: list(range(low, high)), [0, 3, 4, 9]) == [[0, 1, 2], [3], [4, 5, 6, 7, 8]]
    assert n_threads() >= 1
