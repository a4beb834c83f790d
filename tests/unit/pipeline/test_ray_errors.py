from __future__ import annotations

import pickle
import traceback

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError, RayTaskError

from pipeline.errors import StoreAwayError, WorkerError
from pipeline.ray_errors import cleaned, told
from zipstage.errors import PriorError, ZipstageError


def raised(function: str, cause: Exception) -> RayTaskError:
    """An error of a task, with the traceback that Ray would have sent."""
    last = "".join(traceback.format_exception_only(cause))
    text = f"Traceback (most recent call last):\n  File 'x', line 1\n{last}"
    return RayTaskError(function, text, cause, f"ray::{function}", 1, "127.0.0.1")


def of_a_task(cause: Exception) -> RayTaskError:
    """As Ray raises it: by class also the cause, with a traceback for its text."""
    return raised("stage", cause).as_instanceof_cause()


def test_an_error_of_ours_comes_out_as_it_was_raised():
    error = of_a_task(StoreAwayError("s3://b: away"))
    assert isinstance(error, ZipstageError)  # the trap: main would print it, traceback and all
    found = cleaned(error)
    assert type(found) is StoreAwayError
    assert (str(found), found.exit_code) == ("s3://b: away", 75)


def test_what_nobody_expected_is_one_line_with_its_kind():
    found = cleaned(of_a_task(ValueError("two\nlines")))
    assert type(found) is WorkerError
    assert str(found) == "a worker raised ValueError: two lines"
    assert found.exit_code == 1


def test_a_task_that_failed_for_another_tasks_error_tells_the_first():
    assert str(cleaned(of_a_task(of_a_task(PriorError("no weights"))))) == "no weights"


@pytest.mark.parametrize(
    ("cause", "line", "code"),
    [(PriorError("prior x: none"), "prior x: none", 2), (KeyError("x"), "a worker can't start: KeyError: 'x'", 1)],
)
def test_an_actor_that_cant_start_tells_what_was_raised(cause: Exception, line: str, code: int):
    error = ActorDiedError(raised("PurifyActor.__init__", cause))
    found = cleaned(error)
    assert (str(found), found.exit_code) == (line, code)


def test_a_lost_worker_is_one_line_without_colours():
    killed = OutOfMemoryError("\x1b[36mTask was killed\x1b[0m\nmany\nlines")
    for error in (ActorDiedError(), killed, ObjectLostError("00" * 28, "127.0.0.1", "")):
        found = str(cleaned(error))
        assert found.startswith("a worker was lost: ")
        assert "\n" not in found
        assert "\x1b" not in found


def test_within_told_rays_errors_are_ours_and_others_stay():
    with pytest.raises(StoreAwayError, match="away"), told():
        raise of_a_task(StoreAwayError("away"))
    with pytest.raises(KeyboardInterrupt), told():
        raise KeyboardInterrupt


def test_an_exit_code_survives_pickling():
    assert pickle.loads(pickle.dumps(WorkerError("x", 2))).exit_code == 2
