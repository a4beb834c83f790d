"""What documents point to is there, and the command lines that they show are understood."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from commandlines import check, command_lines

from jobs.main import _COMMANDS, main
from pipeline.config import JobConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "infra").rglob("*.md"))]
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|\b(?:src|href)=\"([^\"]+)\"")
LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for block in FENCED.findall(page.read_text(encoding="utf-8"))
    for line in command_lines(block)
]
MENTIONS = sorted(
    {
        " ".join(mention.split())
        for page in PAGES
        for mention in re.findall(r"`(zipstage [^`]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))
    }
)


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, punctuation gone, dashes for spaces, a number for the next."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    seen: Counter[str] = Counter()
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def _broken(page: Path) -> list[str]:
    broken = []
    for groups in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        link = groups[0] or groups[1]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and (target.suffix != ".md" or anchor not in _anchors(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_relative_link_and_anchor_resolves(page: Path) -> None:
    assert _broken(page) == []


def test_links_are_found_and_broken_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_broken.__globals__, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c\n## A b c\n[x](#a-b-c) [y](#a-b-c-1) [z](#no) ![p](no.png) [w](http://x)")
    assert _broken(page) == ["#no", "no.png"]


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_is_understood(line: str) -> None:
    check(line)


@pytest.mark.parametrize("mention", MENTIONS)
def test_each_command_that_is_mentioned_has_the_flags_that_it_is_mentioned_with(
    mention: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = mention.split()[1:]
    if words[0].isupper():
        return
    assert words[0] in _COMMANDS
    named = [word.split("=")[0] for word in words if word.startswith("--")]
    command = [word for word in words[:2] if word.islower() and word.isalpha()] if words[0] == "prior" else words[:1]
    assert main([*command, "--help", "-v"]) == 0
    known = {"--help", *re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out)}
    assert [flag for flag in named if flag not in known and not flag.startswith("--purifier.")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_file_module_and_target_that_is_mentioned_is_there(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    files = re.findall(r"`((?:zipstage|pipeline|jobs|infra|docs|tests)/[\w./-]+\.\w+)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []
    modules = re.findall(r"python -m ((?:zipstage|pipeline|jobs)[\w.]*)", page.read_text(encoding="utf-8"))
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [target for target in re.findall(r"`make (\w+)`", text) if target not in targets] == []


def test_each_job_that_is_shown_is_one() -> None:
    """YAML that names fields of a job; other kinds of files are tested with these."""
    seen = 0
    for page in PAGES:
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            shown = yaml.safe_load(block)
            if isinstance(shown, dict) and {"input", "output"} <= shown.keys():
                JobConfig.model_validate(shown)
                seen += 1
    assert seen >= 2  # the README's, and the reference's


def test_there_are_commands_in_the_documents() -> None:
    assert len(LINES) >= 4
    assert len(MENTIONS) >= 10
