"""Read help articles and cut them into passages: Markdown by markdown-it, HTML by lxml, JSON Lines with either.

An article is cut at its headings; a part that is longer than a passage is cut between paragraphs, then between
sentences.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import orjson

from schemas.errors import DataError
from schemas.evaluation import ENDINGS, CorpusSpec
from schemas.source import FilesSource
from tasks.corpus.search import words_of
from tasks.sources.files import find_files
from tasks.sources.formats import SourceFile

HEADINGS = tuple(f"h{level}" for level in range(1, 7))
BLOCKS = frozenset(
    (*HEADINGS, "p", "div", "section", "article", "main", "li", "ul", "ol", "table", "tr", "pre", "blockquote", "dt",
     "dd", "figure", "figcaption", "br", "hr", "body", "header", "details", "summary")
)  # fmt: skip
NO_TEXT = ("script", "style", "noscript", "template", "svg", "nav", "aside", "footer", "form", "button", "iframe")
MAIN = "//main | //article | //*[@role='main']"
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_TITLE = re.compile(r"^title:\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*(?=\S)")


@dataclass(frozen=True)
class Passage:
    """A piece of an article, and where it is."""

    source: str
    """File, with `:` and the line in JSON Lines."""
    heading: str
    """Title and headings above it, joined by ` > `; may be empty."""
    text: str


@dataclass(frozen=True)
class Section:
    """A part of an article below its headings."""

    headings: tuple[str, ...]
    text: str


def article_files(corpus: CorpusSpec, root: Path) -> tuple[SourceFile, ...]:
    """The files of the corpus, each once, ordered by name.

    Raises:
        DataError: TG0201, a path matches no file; TG0221, a folder has no article.
        ConfigError, SecurityError: as `find_files`.
    """
    files: dict[str, SourceFile] = {}
    for path in corpus.paths:
        folder = root / Path(path).expanduser()
        patterns = [f"{path.rstrip('/')}/**/*.{ending}" for ending in ENDINGS] if folder.is_dir() else [path]
        found: list[SourceFile] = []
        for pattern in patterns:
            try:
                found += find_files(FilesSource(kind="files", paths=(pattern,)), root=root)
            except DataError:
                if len(patterns) == 1:
                    raise
        known = [file for file in found if _kind_of(file)]
        if not known:
            raise DataError(
                f"{path!r} has no article; read are files that end with .{', .'.join(ENDINGS)}", code="TG0201",
                where=str(folder),
            )  # fmt: skip
        files |= {file.name: file for file in known}
    return tuple(files[name] for name in sorted(files))


def read_passages(corpus: CorpusSpec, files: Iterable[SourceFile]) -> tuple[list[Passage], int]:
    """The passages of all files in order, and the number of articles.

    Raises:
        DataError: TG0202, a file is not UTF-8, or a line is not a JSON object with a text.
    """
    passages: list[Passage] = []
    n_articles = 0
    for file in files:
        for source, sections in _articles(file, corpus):
            n_articles += 1
            for section in sections:
                heading = " > ".join(section.headings)
                passages += [Passage(source, heading, text) for text in cut(section.text, corpus.passage_words)]
    return passages, n_articles


def _kind_of(file: SourceFile) -> str | None:
    return ENDINGS.get(file.path.suffix[1:].lower())


def _articles(file: SourceFile, corpus: CorpusSpec) -> Iterator[tuple[str, list[Section]]]:
    try:
        text = file.path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise DataError("the article is not UTF-8", code="TG0202", where=file.name, hint="save it as UTF-8") from None
    kind = _kind_of(file)
    if kind == "jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                title, body = _fields(line, corpus, f"{file.name}:{number}")
                is_html = body.lstrip().startswith("<")
                yield f"{file.name}:{number}", (html_sections if is_html else markdown_sections)(body, title)
    else:
        yield file.name, (html_sections if kind == "html" else markdown_sections)(text)


def _fields(line: str, corpus: CorpusSpec, where: str) -> tuple[str, str]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = None
    text = record.get(corpus.text_key) if isinstance(record, dict) else None
    if not isinstance(text, str):
        keys = f"; its keys: {', '.join(sorted(record))}" if isinstance(record, dict) else ""
        raise DataError(
            f"the line is not a JSON object with a text under {corpus.text_key!r}{keys}", code="TG0202", where=where,
            hint="name the keys of the articles: evaluate.corpus.title_key and text_key",
        )  # fmt: skip
    title = record.get(corpus.title_key)
    return title if isinstance(title, str) else "", text


def markdown_sections(text: str, title: str = "") -> list[Section]:
    """The parts of a Markdown text between headings, as written; the title of its front matter counts as a heading.

    >>> [(part.headings, part.text) for part in markdown_sections("# Refunds\\n## When\\nIn *five* days.")]
    [(('Refunds', 'When'), 'In *five* days.')]
    """
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(text)
    if front:
        named = _TITLE.search(front[1])
        title, text = title or (named[1] if named else ""), text[front.end() :]
    tokens = MarkdownIt("commonmark").parse(text)
    lines = text.split("\n")
    heads = [
        (token.map, int(token.tag[1]), " ".join(child.content for child in inline.children or () if child.content))
        for token, inline in pairwise(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map
    ]
    sections, above = [], [(0, title)] if title else []
    bounds = [*heads, ([len(lines), len(lines)], 0, "")]
    sections.append(Section(_names(above), "\n".join(lines[: bounds[0][0][0]])))
    for ((_, start), level, name), ((end, _), _, _) in pairwise(bounds):
        above = [*(each for each in above if each[0] < level), (level, name)]
        sections.append(Section(_names(above), "\n".join(lines[start:end])))
    return [section for section in sections if section.text.strip()]


def html_sections(text: str, title: str = "") -> list[Section]:
    """The parts of an HTML page between headings as plain text, of <main> or <article> if it has one, without menus.

    >>> [(part.headings, part.text) for part in html_sections("<h1>Refunds</h1><nav>Home</nav><p>In <b>five</b> days.")]
    [(('Refunds',), 'In five days.')]
    """
    from lxml import etree, html

    try:
        page = html.document_fromstring(text.encode(), parser=html.HTMLParser(encoding="utf-8"))
    except etree.ParserError:  # it has no element
        return []
    title = title or " ".join((page.findtext(".//title") or "").split())
    etree.strip_elements(page, etree.Comment, etree.ProcessingInstruction, *NO_TEXT, "head", with_tail=False)
    found = page.xpath(MAIN)
    blocks = list(_blocks(found[0] if found else page))
    above = [(0, title)] if title and not any(level == 1 for level, _ in blocks) else []
    sections: list[tuple[tuple[str, ...], list[str]]] = [(_names(above), [])]
    for level, block in blocks:
        if level:
            above = [*(each for each in above if each[0] < level), (level, block)]
            sections.append((_names(above), []))
        else:
            sections[-1][1].append(block)
    return [Section(names, "\n\n".join(texts)) for names, texts in sections if texts]


def _blocks(root: object) -> Iterator[tuple[int, str]]:
    """Yield the texts of blocks in order; with a heading's level, else 0."""
    from lxml import etree

    pieces: list[str] = []
    level = 0

    def take() -> Iterator[tuple[int, str]]:
        text = " ".join("".join(pieces).split())
        pieces.clear()
        if text not in ("", "-"):
            yield level, text

    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = str(element.tag)
        if tag in BLOCKS:
            yield from take()
            level = int(tag[1]) if event == "start" and tag in HEADINGS else 0
        if event == "start":
            pieces.append(("- " if tag == "li" else "") + (element.text or ""))
        else:
            pieces.append((" " if tag in ("td", "th") else "") + (element.tail or "" if element is not root else ""))
    yield from take()


def _names(above: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for _, name in above if name.strip())


def cut(text: str, max_words: int) -> list[str]:
    """Cut a text into passages of at most so many words, between paragraphs if possible.

    >>> cut("One two.\\n\\nThree four five. Six.", 3)
    ['One two.', 'Three four five.', 'Six.']
    """
    paragraphs = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    return list(_joined(paragraphs, max_words, "\n\n", partial(_sentences, max_words=max_words)))


def _sentences(paragraph: str, *, max_words: int) -> Iterator[str]:
    yield from _joined(_SENTENCE_END.split(paragraph), max_words, " ", partial(_pieces, max_words=max_words))


def _pieces(sentence: str, *, max_words: int) -> Iterator[str]:
    n_words = len(words_of(sentence))
    yield from textwrap.wrap(sentence, width=max(1, len(sentence) * max_words // n_words))


def _joined(parts: Iterable[str], max_words: int, between: str, smaller: partial[Iterator[str]]) -> Iterator[str]:
    """Join neighbours while they fit; a part that does not fit alone is cut into smaller ones."""
    held: list[str] = []
    n_held = 0
    for part in parts:
        n_words = len(words_of(part))
        if held and n_held + n_words > max_words:
            yield between.join(held)
            held, n_held = [], 0
        if n_words > max_words:
            yield from smaller(part)
        else:
            held.append(part)
            n_held += n_words
    if held:
        yield between.join(held)
