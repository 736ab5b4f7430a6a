"""YAML 1.2, strictly and within caps: no text costs more than a moment or raises anything but ConfigErrors."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.diagnostics import ConfigErrors, SourceText
from schemas.load import load_file
from schemas.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_LINE, MAX_VALUES, Value, read_tree

Explain = Callable[..., str]


def plain(value: Value) -> object:
    """The value without its places."""
    if isinstance(value, dict):
        return {key: plain(entry.value) for key, entry in value.items()}
    return [plain(entry.value) for entry in value] if isinstance(value, list) else value


def read(text: str) -> object:
    return plain(read_tree(SourceText("f.yaml", text)))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("2026-06-01", "2026-06-01"),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ("5e-5", 5e-5),
        ("1.0e-3", 1e-3),
        (".5", 0.5),
        ("0123", 123),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("True", True),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_plain_values_follow_the_core_schema_of_yaml_1_2(written: str, meant: object) -> None:
    value = read(f"key: {written}\n")
    assert value == {"key": meant}
    assert isinstance(value, dict)
    assert type(value["key"]) is type(meant)


def test_a_directive_does_not_bring_yaml_1_1_back() -> None:
    assert read("%YAML 1.1\n---\nkey: no\n") == {"key": "no"}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("1: a\ntrue: b\n") == {"1": "a", "true": "b"}


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, project: Path) -> None:
    text = (project / "pipelines.yaml").read_text(encoding="utf-8")
    copy = tmp_path / "pipelines.yaml"
    copy.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_file(copy, environ={}).pipelines == load_file(project / "pipelines.yaml", environ={}).pipelines


def test_a_merge_key_brings_in_what_is_not_written_beside_it() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 0}\n"
    assert read(text)["c"] == {"x": 0, "y": 1, "z": 2}  # type: ignore[index]


def test_every_value_knows_where_it_is_written() -> None:
    tree = read_tree(SourceText("f.yaml", "a:\n  - b: 'x'\n    c: [1, 2]\n"))
    items = tree["a"].value
    assert isinstance(items, list)
    first = items[0].value
    assert isinstance(first, dict)
    entry = first["b"]
    assert (entry.path, entry.key, entry.span) == ("a[0].b", (2, 5, 1), (2, 8, 3))
    numbers = first["c"].value
    assert isinstance(numbers, list)
    assert [(item.path, item.key) for item in numbers] == [("a[0].c[0]", (3, 9, 1)), ("a[0].c[1]", (3, 12, 1))]


REFUSED = {
    "empty": ("", "the file is empty"),
    "comment alone": ("# nothing\n", "the file is empty"),
    "null": ("---\n", "the file is empty"),
    "list": ("- a\n", "the top level should be `key: value` lines"),
    "text": ("hello\n", "the top level should be `key: value` lines"),
    "two documents": ("a: 1\n---\nb: 1\n", "a second document starts here"),
    "tab": ("a:\n\tb: 1\n", "indent with spaces, not tabs"),
    "open bracket": ("a: [1,\n2\n", "got the end of the file while parsing a flow sequence"),
    "open quote": ("a: 'b\n", "a quote is not closed"),
    "reference in brackets": ("a: [${env:A}]\n", "quote `${...}` inside brackets and braces"),
    "reference in braces": ("a: {b: ${env:A}}\n", "quote `${...}` inside brackets and braces"),
    "uneven indentation": ("a:\n    b: 1\n  c: 1\n", "lines of one section start in the same column"),
    "escape": ('a: "\\d"\n', "use single quotes"),
    "impossible escape": ('a: "\\UFFFFFFFF"\n', "not YAML: "),
    "control character": ("a: \x01\n", "character U+0001 is not allowed in YAML"),
    "key that is a list": ("? [a]\n: b\n", "a key should be text"),
    "unknown anchor": ("a: *b\n", "anchor `b` is not defined above"),
    "anchor in itself": ("a: &a [*a]\n", "anchor `a` contains itself"),
    "merge of text": ("a: {<<: b}\n", "`<<` takes a mapping or a list of mappings"),
    "tag on a key": ("!!str a: b\n", "tags are refused"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_yaml_mapping_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    assert message in str(caught.value)
    assert {d.code for d in caught.value.diagnostics} == {"TG0107"}


def test_duplicate_keys_and_tags_are_reported_together() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read("a: 1\na: 2\nb: !x 1\nb: 2\n")
    assert [d.code for d in caught.value.diagnostics] == ["TG0107", "TG0107", "TG0107"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"more than {MAX_VALUES:,} values, counting what aliases refer to"),
        ("- a\n" * (MAX_VALUES + 1), f"more than {MAX_VALUES:,} values"),
        ("a: " + "[" * 5000, f"nested deeper than {MAX_DEPTH} levels"),
        ("? " * 5000, "a key should be text"),
        ("- " * 5000, f"nested deeper than {MAX_DEPTH} levels"),
        ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 50)), "nested deeper than"),
    ],
    ids=["aliases", "many values", "deep brackets", "deep keys", "deep dashes", "deep aliases"],
)
@pytest.mark.timeout(20)
def test_a_text_made_to_explode_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    assert message in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("character", ["!", "#", " ", "x", "\n", "%", "&", "'"])
def test_the_largest_file_of_one_character_is_answered_soon(explain: Explain, character: str) -> None:
    assert "error[TG01" in explain(character * (MAX_BYTES - 1))


def test_files_and_lines_beyond_the_caps_are_refused(explain: Explain) -> None:
    assert f"error[TG0109]: the file is larger than {MAX_BYTES:,} bytes" in explain("# a\n" * MAX_BYTES)
    rendered = explain("version: 1\n# " + "é" * MAX_LINE)
    assert "error[TG0109]: line 2 has 20,002 characters; at most 20,000 are read\n  --> pipelines.yaml:2:1" in rendered
    assert len(rendered) < 500


@pytest.mark.parametrize(
    ("data", "place"), [(b"version: 1\nname: \xff\n", "2:7"), ("a: 1".encode("utf-16"), "1:1"), (b"a: \xc3", "1:4")]
)
def test_bytes_that_are_not_utf_8_are_pointed_at(explain: Explain, data: bytes, place: str) -> None:
    rendered = explain(data)
    assert "is not UTF-8" in rendered
    assert f"  --> pipelines.yaml:{place}\n" in rendered
    assert "error[TG0110]" in rendered


def loads_or_explains(data: bytes) -> None:
    """Anything but a file or ConfigErrors ends the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipelines.yaml"
        path.write_bytes(data)
        rendered = "error[TG01"
        try:
            load_file(path, environ={"A": "1"})
        except ConfigErrors as error:
            rendered = str(error)
    assert rendered.startswith("error[TG01")


@given(st.binary(max_size=200))
def test_any_bytes_load_or_raise_config_errors(data: bytes) -> None:
    loads_or_explains(data)


FRAGMENTS = [
    "version: 1\n", "defaults:\n", "pipelines:\n", "  a:\n", "  b: {extends: a}\n", "    extends: b\n", "    train:\n",
    "      epochs: ", "true\n", "5\n", "${env:A}\n", "${env:B}\n", "${\n", "null\n", "&x ", "*x\n", "<<: *x\n",
    "    source: {kind: files, paths: [a]}\n", "    source: {kind: duckdb, database: 1}\n",
    "    curate: {steps: [{uses: dedup, a: 1}]}\n",
    "    gates: {rules: [{metric: x, value_threshold: 1}, 3]}\n", "    register: {name: x}\n", "[", "]", "{", "}", "- ",
    "? ", ": ", "'", '"', "!", "|\n", "\t", "\x85", "\u2028", "é", "    train: {base_model: m}\n", "    source: 5\n",
    "    train: {adapter: {target_modules: [{}]}}\n", "    schema: null\n", "    evaluate: {fields: '(?P<body>x)'}\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
@example("version: 1\npipelines:\n  a: &x {train: {<<: *x}}\n")
@example("version: 1\npipelines: {a: {source: {kind: {}}}}\n")
@example("version: 1\npipelines: {a: {curate: {steps: {a: 1}}, gates: {rules: [[]]}}}\n")
def test_pieces_of_pipelines_in_any_order_load_or_raise_config_errors(text: str) -> None:
    loads_or_explains(text.encode())


@given(st.text(max_size=80))
def test_any_quoted_text_is_read_back(text: str) -> None:
    """Holds for every character that YAML allows in single quotes on one line."""
    kept = "".join(c for c in text if c.isprintable())
    assert read("key: '" + kept.replace("'", "''") + "'\n") == {"key": kept}
