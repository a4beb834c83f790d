"""What the pipeline raises on purpose: each message names the thing, what was expected, what was found.

ZipstageError
+-- ConfigError            wrong usage or config                                  exit code 2
+-- StoreError             storage said no: permission, disk full, no bucket      exit code 1
|   +-- NotFoundError      no such object
|   +-- ExistsError        a conditional put lost
|   +-- ChangedError       the object is not the one that was listed
|   +-- StoreRefusedError  it says no to whatever comes next as well               exit code 1
|   +-- StoreAwayError     storage can't be reached, beyond its patience          exit code 75
+-- ShardError             a shard that can't be read for sure                    exit code 1
+-- ClassifierError        the classifier refuses what the config says            exit code 2
|   +-- ClassifierAwayError   it doesn't answer                                   exit code 75
|       +-- RequestFailedError   it breaks down at this request each time         exit code 75
|       +-- SpentError           it may not be asked about more images in this run   exit code 75
+-- NotReadyError          the input's marker isn't there yet                     exit code 75
+-- LeaseError             another run is at work on the output                   exit code 75
+-- ClusterError           no Ray answers, or not any more, or it lost the job     exit code 75
+-- StalledError           the graph made no progress                             exit code 1; 75 without its nodes
+-- WorkerError            a worker was lost, or raised what nobody expected      its cause's exit code, else 1
"""

from __future__ import annotations

from zipstage.errors import ZipstageError

TRY_AGAIN = 75
"""The exit code that tells a scheduler to try again later (EX_TEMPFAIL of sysexits.h)."""


ALERT = 3
"""The exit code of a run that did all of its work, and whose answers flip in one class as if it were a target."""


class ConfigError(ZipstageError):
    """Wrong usage or config."""

    exit_code = 2


class StoreError(ZipstageError):
    """Storage said no."""


class NotFoundError(StoreError):
    """No such object."""


class ExistsError(StoreError):
    """A conditional put found the object there already."""


class ChangedError(StoreError):
    """The object is not the one that was listed."""


class StoreRefusedError(StoreError):
    """Storage says no, and will to whatever comes next: credentials, no bucket, a full or read-only disk."""


class StoreAwayError(StoreError):
    """Storage can't be reached."""

    exit_code = TRY_AGAIN


class ShardError(ZipstageError):
    """A shard whose members' boundaries or end are uncertain; `last_good_key` is where it was sure."""

    def __init__(self, message: str, last_good_key: str | None = None) -> None:
        super().__init__(message)
        self.last_good_key = last_good_key

    def __reduce__(self) -> tuple[type[ShardError], tuple[str, str | None]]:
        return type(self), (str(self), self.last_good_key)


class ClassifierError(ZipstageError):
    """The classifier refuses what it is asked, or answers what can't be understood."""

    exit_code = 2


class ClassifierAwayError(ClassifierError):
    """The classifier doesn't answer."""

    exit_code = TRY_AGAIN


class RequestFailedError(ClassifierAwayError):
    """The classifier was reached and broke down at this request, at each attempt; it may answer others."""


class SpentError(ClassifierAwayError):
    """As many images were asked about in this run as the settings allow."""


class NotReadyError(ZipstageError):
    """The input's producer has not said yet that it is complete."""

    exit_code = TRY_AGAIN


class LeaseError(ZipstageError):
    """Another run is at work on the output."""

    exit_code = TRY_AGAIN


class ClusterError(ZipstageError):
    """The cluster that a job was handed to doesn't answer, or lost it."""

    exit_code = TRY_AGAIN


class StalledError(ZipstageError):
    """The graph made no progress; 75 when it waits for nodes that were lost."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WorkerError(ZipstageError):
    """A worker of the graph was lost, couldn't start, or raised what nobody expected."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[WorkerError], tuple[str, int]]:
        return type(self), (str(self), self.exit_code)
