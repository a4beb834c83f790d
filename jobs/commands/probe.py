"""`zipstage probe`: three images to the classifier, what came back, and how that was understood."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jobs.commands.options import Tokens, Verbose, job_command, note, show, wants_help

if TYPE_CHECKING:
    from pipeline.classifier_config import ClassifierConfig
    from pipeline.classifiers.base import Understood
    from pipeline.config import JobConfig
    from pipeline.probe import Reply

probe_app = job_command("probe")

_HELP = (
    "Send three images to the classifier, one of them the job's own where its input can be read, and show what came "
    "back and how it was understood. Writes nothing. 0: all three were answered; 2: the config or an answer is "
    "wrong; 75: nobody answers now."
)
_FIELDS = ("classifier.protocol", "classifier.url", "classifier.model")
_EXAMPLE = (
    "zipstage probe nightly.yaml\n"
    "zipstage probe --classifier.protocol open-inference-v2 \\\n"
    "    --classifier.url http://127.0.0.1:8000 --classifier.model signs"
)
_COLUMN = 12


@probe_app.default
def probe_command(*tokens: Tokens, verbose: Verbose = False) -> int:
    """Send three images to the classifier, and show how its answers are understood."""
    from jobs.arguments import read_job
    from jobs.help import job_help

    if wants_help(tokens):
        return show(
            job_help("probe [CONFIG.yaml] [--FIELD VALUE ...]", _HELP, "", _EXAMPLE, _FIELDS, everything=verbose)
        )
    from pipeline.probe import NO_INPUT

    return asyncio.run(_probe(read_job(tokens, os.environ, defaults={"input": NO_INPUT, "output": NO_INPUT})))


async def _probe(config: JobConfig) -> int:
    """Show each thing as soon as it is known: the next one may take its time, or fail."""
    from pipeline.black_box import asked_of
    from pipeline.classifiers import build
    from pipeline.probe import ask_each, choose_images, doubts

    of = asked_of(config)
    chosen, why = await asyncio.to_thread(choose_images, config)
    replies: list[Reply] = []
    async with build(of) as classifier:
        understood = classifier.understood()
        _show(of, _before(of, understood, classifier.max_batch))
        if why is not None:
            note(f"{why.rstrip('.')}. So the third image is drawn as well.")
        async for reply in ask_each(classifier, chosen):
            if not replies:
                show("")
            replies.append(reply)
            _show(of, _said(reply, understood))
    show("")
    _show(of, _understood(replies, understood))
    for doubt in doubts(replies):
        note(doubt)
    return 2 if any(reply.answers.errors[0] for reply in replies) else 0


def _before(of: ClassifierConfig, understood: Understood, max_batch: int) -> Iterator[str]:
    """What is known before an image is sent."""
    secrets = [*(["a token"] if of.token else []), *(f"the header {name}" for name in of.headers)]
    yield _line("protocol", of.protocol + (f", with {' and '.join(secrets)}" if secrets else ""))
    for name, text in understood.lines.items():
        yield _line(name, text)
    yield _line("batches", f"up to {max_batch} images a request; now one by one")


def _said(reply: Reply, understood: Understood) -> Iterator[str]:
    """One image and what was said of it."""
    height, width = reply.image.pixels.shape[:2]
    error = reply.answers.errors[0]
    index, scores = int(reply.answers.classes[0]), reply.scores
    labels = _labels(understood, reply)
    name = f" {labels[index]!r}" if 0 <= index < len(labels) else ""
    score = f", score {scores[index]:.4g}" if scores is not None and not error else ""
    found = f"no answer: {error}" if error else f"class {index}{name}{score}"
    yield f"{reply.image.name}, {height}x{width} px"
    yield _line("", f"{found}  ({reply.latency_ms:.0f} ms)")


def _understood(replies: list[Reply], understood: Understood) -> Iterator[str]:
    """What the answers are, taken together."""
    from pipeline.probe import kind_of_scores

    came = dict.fromkeys(reply.answers.came for reply in replies if reply.answers.came)
    if came:
        yield _line("came back", "; ".join(came))
    scores = [reply.scores for reply in replies if reply.scores is not None and not reply.answers.errors[0]]
    labels = _labels(understood, replies[0]) if replies else ()
    if scores:
        yield _line("classes", f"{len(scores[0])}{', with names' if labels else ''}; the one of the largest score")
        yield _line("scores", kind_of_scores(scores))
    elif any(not reply.answers.errors[0] for reply in replies):
        yield _line(
            "classes", f"{len(labels)}, by their names or indices" if labels else "indices; how many isn't said"
        )
        yield _line("scores", "none, so `suspicion` stays empty; flips are seen all the same")


def _labels(understood: Understood, reply: Reply) -> tuple[str, ...]:
    """Names of the classes; none where there are more or fewer than scores, as when a server's are something else."""
    labels = understood.labels or ()
    return labels if reply.scores is None or len(reply.scores) == len(labels) else ()


def _line(name: str, text: str) -> str:
    return f"{name:<{_COLUMN}}{text}"


def _show(of: ClassifierConfig, lines: Iterable[str]) -> None:
    """Print what a server wrote in part: no control characters, and no secret that it says back."""
    secrets = [secret.get_secret_value() for secret in (of.token, *of.headers.values()) if secret]
    for line in lines:
        plain = "".join(c if c.isprintable() else " " for c in line)
        for secret in filter(None, secrets):
            plain = plain.replace(secret, "***")
        show(plain)
