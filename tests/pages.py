"""A page as a test reads it: a small tree by the standard library's parser, which trusts nothing that we wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link", "hr"}


@dataclass
class Node:
    """An element; its text is that of all below it, spaces made one."""

    tag: str
    attrs: dict[str, str | None] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        pieces = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(pieces).split())

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, **attrs: str) -> list[Node]:
        """Elements by tag and attributes; `class_` and `data_x` as Python spells them."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attrs.items()}
        return [
            node for node in self.walk() if node.tag == tag and all(node.attrs.get(n) == v for n, v in wanted.items())
        ]

    def one(self, tag: str, **attrs: str) -> Node:
        (found,) = self.all(tag, **attrs)
        return found

    def rows(self) -> list[list[str]]:
        """The cells of a table's body."""
        return [
            [cell.text for cell in row.children if isinstance(cell, Node)]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("page")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(page: str) -> Node:
    """The page as a tree; each element is closed, and in its turn."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def tiles(page: Node) -> dict[str, str]:
    """The totals at the top, by name; the figure alone."""
    found = {}
    for tile in page.all("div", class_="tile"):
        value = tile.one("dd").children[0]
        found[tile.one("dt").text] = value.strip() if isinstance(value, str) else value.text
    return found


def section(page: Node, title: str) -> Node:
    """The section below a heading."""
    return page.one("section", aria_labelledby=title)


def samples_of(page: Node, title: str) -> list[Node]:
    """The samples of a group, cards or rows, in the order of the page."""
    groups = page.all("section", aria_labelledby=title)
    return [node for group in groups for node in group.walk() if "data-sample" in node.attrs]
