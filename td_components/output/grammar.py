"""Reads an expanded component tree, strictly: anything that the format does not define is an error.

The counterpart of `expanded.py`, but written independently from the format. Which operators and parameters exist is
checked in `check.py`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from td_components.definition.graph import Graph
from td_components.definition.spec import Style
from td_components.output.lines import GrammarError, Lines

KINDS = ("n", "cparm", "parm", "network", "text")
"""Extensions of an operator's files, in the order of the table of contents."""

MODE, EXPRESSION, BIND = 3, 0x10, 0x200
READ_ONLY, CUSTOM, SINCE_2023 = 0x100, 0x40, 0x4000000
WORD_BASE, SECTION, HELP, ENABLE, MENU_SOURCE = 0x2E100000, 0x80000000, 0x40000, 0x20000, 0x40000000

TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
CUSTOM_NAME = re.compile(r"[A-Z][a-z0-9]*$")


@dataclass
class Tree:
    """What a folder holds.

    Attributes:
        graph: the component in its plain form.
        flags: operator path -> parameter name -> flags of its `.parm` line.
        errors: every violation of the format, in the order of the files.
    """

    graph: Graph
    flags: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: list[GrammarError] = field(default_factory=list)


def read(folder: Path) -> Tree:
    """Read an expanded component: `NAME.tox.dir`, with `NAME.tox.toc` beside it.

    Args:
        folder: the `.tox.dir` folder itself or the one that holds it.

    Returns:
        The tree; errors in single files are collected in its `errors`.

    Raises:
        GrammarError: if there is no tree to read at all.
    """
    root = folder if folder.name.endswith(".tox.dir") else None
    if root is None:
        found = sorted(folder.glob("*.tox.dir"))
        if len(found) != 1:
            raise GrammarError(str(folder), f"holds {len(found)} folders *.tox.dir, one is needed")
        root = found[0]
    name = root.name.removesuffix(".tox.dir")
    tree = Tree({"name": name, "comment": "", "pages": [], "parameters": [], "settings": {}, "nodes": {}})
    reader = _Reader(root, name, tree)
    reader.read()
    return tree


class _Reader:
    def __init__(self, root: Path, name: str, tree: Tree) -> None:
        self.root, self.name, self.tree = root, name, tree

    def read(self) -> None:
        graph, name = self.tree.graph, self.name
        listed = self.guard(self.table_of_contents) or []
        self.guard(self.build)
        head = self.guard(self.node, f"{name}.n")
        if head is not None:
            graph["comment"] = head["comment"]
            if head["type"] != "COMP:base":
                self.tree.errors.append(GrammarError(f"{name}.n", f"is a {head['type']}, not a COMP:base"))
        graph["pages"], graph["parameters"] = self.guard(self.cparm) or ([], [])
        graph["settings"] = self.guard(self.parm, f"{name}.parm", graph["parameters"]) or {}
        children = sorted({p.split("/", 1)[1].rsplit(".", 1)[0] for p in listed if p.startswith(f"{name}/")})
        for child in children:
            base = f"{name}/{child}"
            node = self.guard(self.node, f"{base}.n")
            if node is None:
                continue
            node.pop("comment")
            node["settings"] = {}
            if f"{base}.parm" in listed:
                node["settings"] = self.guard(self.parm, f"{base}.parm", []) or {}
            node["text"] = self.guard(self.text, f"{base}.text") if f"{base}.text" in listed else None
            graph["nodes"][child] = node
        if (self.root / f"{name}.network").is_file():
            self.guard(self.network)

    def guard(self, function: Any, *args: Any) -> Any:
        """Call the reader of one file; an error is recorded, and the other files are still read."""
        try:
            return function(*args)
        except GrammarError as error:
            self.tree.errors.append(error)
            return None

    def raw(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise GrammarError(path, "is missing") from None

    def lines(self, path: str) -> Lines:
        data = self.raw(path)
        if b"\r" in data:
            raise GrammarError(path, "has CR line ends; the format has LF", data[: data.index(b"\r")].count(b"\n") + 1)
        if not data.endswith(b"\n"):
            raise GrammarError(path, "does not end with a line end")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise GrammarError(path, f"is not UTF-8: {error.reason} at byte {error.start}") from None
        return Lines(path, text.split("\n")[:-1])

    def table_of_contents(self) -> list[str]:
        path = self.root.parent / f"{self.name}.tox.toc"
        if not path.is_file():
            raise GrammarError(path.name, "is missing")
        first, *listed = path.read_text(encoding="utf-8").splitlines() or [""]
        if first != "# 4 0 0 0 1":
            raise GrammarError(path.name, f"begins with {first!r}, not with '# 4 0 0 0 1'", 1)
        there = {p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()}
        for missing in [p for p in listed if p not in there]:
            self.tree.errors.append(GrammarError(path.name, f"lists {missing}, which is not there"))
        for extra in sorted(there - set(listed)):
            self.tree.errors.append(GrammarError(path.name, f"does not list {extra}"))
        if len(set(listed)) != len(listed):
            raise GrammarError(path.name, "lists a file twice")
        right = sorted(listed, key=self.archive_order)
        if listed != right:
            wrong = next(a for a, b in zip(listed, right, strict=True) if a != b)
            raise GrammarError(path.name, f"{wrong} stands at the wrong place")
        return listed

    def archive_order(self, path: str) -> tuple[Any, ...]:
        if path == ".build":
            return (0,)
        stem, _, kind = path.rpartition(".")
        depth, leaf = stem.count("/"), stem.rsplit("/", 1)[-1]
        return (1, depth, len(leaf), leaf, KINDS.index(kind) if kind in KINDS else len(KINDS))

    def build(self) -> None:
        lines = self.lines(".build")
        for key in ("version", "build", "time", "osname", "osversion"):
            if not lines.next().startswith(key + " "):
                raise lines.error(f"{key!r} was expected")
        lines.done()

    def node(self, path: str) -> dict[str, Any]:
        lines = self.lines(path)
        kind = lines.next()
        if not re.fullmatch(r"(TOP|CHOP|SOP|DAT|COMP|MAT|POP):[a-z0-9]+", kind):
            raise lines.error(f"{kind!r} is not an operator type")
        found: dict[str, Any] = {"type": kind, "tile": [], "inputs": [], "dock": "", "comment": ""}
        if lines.peek().startswith("v "):
            self.numbers(lines, "v", 3)
        if lines.peek().startswith("comment "):
            found["comment"] = self.tokens(lines, lines.next())[1]
        found["tile"] = [int(v) for v in self.numbers(lines, "tile", 4)]
        if not re.fullmatch(r"flags =  (\w+ \w+ )*viewer [01] parlanguage 0", lines.next()):
            raise lines.error("the flags are not understood")
        if lines.peek() == "inputs":
            found["inputs"] = self.inputs(lines)
        self.numbers(lines, "color", 3)
        if lines.peek().startswith("dock "):
            found["dock"] = lines.next().removeprefix("dock ")
        lines.expect("end")
        lines.done()
        return found

    def inputs(self, lines: Lines) -> list[str]:
        lines.expect("inputs")
        lines.expect("{")
        names: list[str] = []
        while (line := lines.next()) != "}":
            match = re.fullmatch(r"(\d+) \t(\S+)", line)
            if match is None or int(match.group(1)) != len(names):
                raise lines.error(f"{line!r} is not wire {len(names)}")
            names.append(match.group(2))
        return names

    def numbers(self, lines: Lines, key: str, count: int) -> list[float]:
        line = lines.next()
        words = line.split()
        if len(words) != count + 1 or words[0] != key:
            raise lines.error(f"{key} and {count} numbers were expected, {line!r} stands there")
        try:
            return [float(w) for w in words[1:]]
        except ValueError:
            raise lines.error(f"{line!r} has something else than numbers") from None

    def tokens(self, lines: Lines, line: str) -> list[str]:
        tokens, at = [], 0
        while at < len(line):
            match = TOKEN.match(line, at)
            if match is None or (match.group(2) or "").startswith('"'):
                raise lines.error("a quote is not closed")
            quoted, bare = match.groups()
            tokens.append(re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), quoted) if bare is None else bare)
            at = match.end()
            if at < len(line) and line[at] != " ":
                raise lines.error(f"a space is missing behind {match.group(0)}")
            while at < len(line) and line[at] == " ":
                at += 1
        return tokens

    def parm(self, path: str, custom: list[dict[str, Any]]) -> dict[str, list[str]]:
        lines = self.lines(path)
        lines.expect("?")
        settings: dict[str, list[str]] = {}
        flags_of = self.tree.flags.setdefault(path.removesuffix(".parm"), {})
        by_name = {p["name"]: p for p in custom}
        while (line := lines.next()) != "?":
            words = self.tokens(lines, line)
            if len(words) < 3 or not re.fullmatch(r"\d+", words[1]):
                raise lines.error("name, flags and value were expected")
            name, flags, value = words[0], int(words[1]), words[2]
            if name in flags_of:
                raise lines.error(f"{name} stands twice")
            extra = bool(flags & EXPRESSION) + bool(flags & BIND)
            if len(words) != 3 + extra:
                raise lines.error(f"the flags {flags} of {name} announce {3 + extra} words, {len(words)} stand there")
            if flags & MODE == 1 and not flags & EXPRESSION:
                raise lines.error(f"{name} is an expression without its text")
            if flags & ~(MODE | EXPRESSION | BIND | READ_ONLY | CUSTOM | SINCE_2023):
                raise lines.error(f"the flags {flags} of {name} are not understood")
            flags_of[name] = flags
            if bool(flags & CUSTOM) != (name in by_name):
                raise lines.error(f"{name} is {'not ' if flags & CUSTOM else ''}a custom parameter")
            if name in by_name:
                by_name[name]["read_only"] = bool(flags & READ_ONLY)
                by_name[name]["value"] = value
            else:
                settings[name] = ["", words[3]] if flags & MODE == 1 else [value, ""]
        lines.done()
        return settings

    def cparm(self) -> tuple[list[str], list[dict[str, Any]]]:
        lines = self.lines(f"{self.name}.cparm")
        lines.expect("?")
        words = self.tokens(lines, lines.next())
        if words[0] != "pages" or len(words) < 2 or not words[1].isdigit() or int(words[1]) != len(words) - 2:
            raise lines.error("the pages do not match their count")
        pages = words[2:]
        rows: list[dict[str, Any]] = []
        orders = dict.fromkeys(pages, 0)
        while (line := lines.next()) != "?":
            row, order = self.cparm_line(lines, self.tokens(lines, line))
            if row["page"] not in orders:
                raise lines.error(f"there is no page {row['page']!r}")
            if order != orders[row["page"]]:
                raise lines.error(f"{row['name']} has place {order} on its page, {orders[row['page']]} is next")
            if any(r["name"] == row["name"] for r in rows):
                raise lines.error(f"{row['name']} stands twice")
            orders[row["page"]] += 1
            rows.append(row)
        lines.done()
        return pages, rows

    def cparm_line(self, lines: Lines, words: list[str]) -> tuple[dict[str, Any], int]:
        try:
            code = int(words[0]) & 0xFFFFFFFF
            style = Style(code & 0xFF)
        except (ValueError, IndexError):
            raise lines.error(f"{words[0] if words else ''} is not the word of a parameter") from None
        known = SECTION | HELP | ENABLE | MENU_SOURCE
        if code & ~known & 0xFFFFFF00 & ~0xF000 & ~0xF00 != WORD_BASE & ~known:
            raise lines.error(f"the word {words[0]} is not understood")
        if (code >> 8) & 0xF != 1 or (code >> 12) & 0xF != 1:
            raise lines.error("only parameters of size 1 are understood")
        try:
            name, label, size = words[1], words[2], int(words[3])
            low_flag, low, _soft_low, high_flag, high, _soft_high = (float(w) for w in words[4:10])
            two, default = int(words[10]), float(words[11])
            text, _expression, page = words[12], words[13], words[14]
            at, menu = 15, []
            if style is Style.MENU:
                marker, count = int(words[at]), int(words[at + 1])
                if marker not in (1, 4097):
                    raise lines.error(f"the menu of {name} begins with {marker}")
                flat = words[at + 2 : at + 2 + 2 * count]
                menu = [[a, b] for a, b in zip(flat[::2], flat[1::2], strict=True)]
                at += 2 + 2 * count
            order = int(words[at])
            rest = words[at + 1 :]
        except (ValueError, IndexError):
            raise lines.error("the line has too few words or a word that is not a number") from None
        if not CUSTOM_NAME.match(name):
            raise lines.error(f"{name} is not a capital letter and then small letters and digits")
        if size != 1 or two != 2 or low_flag not in (1, 3) or high_flag not in (1, 3):
            raise lines.error(f"the numbers of {name} are not understood")
        if code & ENABLE:
            rest = rest[1:]
        help_text = ""
        if code & HELP:
            if len(rest) < 2 or rest[0] != "1":
                raise lines.error(f"the help of {name} is announced and missing")
            help_text, rest = rest[1], rest[2:]
        if code & MENU_SOURCE:
            rest = rest[2:]
        if rest:
            raise lines.error(f"{rest[0]!r} stands after the end of {name}")
        textual = style in (Style.STR, Style.FILE, Style.FOLDER)
        row = {
            "name": name,
            "label": label,
            "page": page,
            "style": style.name,
            "default": text if textual else menu[int(default)][0] if menu else default,
            "low": low if low_flag == 3 else None,
            "high": high if high_flag == 3 else None,
            "menu": menu,
            "help": help_text,
            "section": bool(code & SECTION),
            "read_only": False,
        }
        return row, order

    def text(self, path: str) -> str:
        data = self.raw(path)
        if data[:3] != b"2\n*" or len(data) < 27:
            raise GrammarError(path, "has no text header")
        *ones, length = struct.unpack(">6I", data[3:27])
        if ones != [1, 1, 1, 1, 2]:
            raise GrammarError(path, f"has the header {ones}")
        if length != len(data) - 27:
            raise GrammarError(path, f"announces {length} bytes of text, {len(data) - 27} follow")
        try:
            return data[27:].decode("utf-8")
        except UnicodeDecodeError as error:
            raise GrammarError(path, f"is not UTF-8: {error.reason}") from None

    def network(self) -> None:
        lines = self.lines(f"{self.name}.network")
        lines.expect("1")
        lines.expect("compinputs")
        lines.expect("{")
        count = 0
        while (line := lines.next()) != "}":
            if line != f'{count} \t""':
                raise lines.error(f"input {count} was expected")
            name, family = lines.next(), lines.next()
            if not name.startswith("\t") or not family.startswith("\t"):
                raise lines.error("a tab is missing")
            node = self.tree.graph["nodes"].get(name[1:])
            if node is None or node["type"] != f"{family[1:]}:in":
                raise lines.error(f"{name[1:]} is not an input of family {family[1:]}")
            count += 1
        lines.expect("end")
        lines.done()
