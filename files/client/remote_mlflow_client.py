"""Have MLflow's client send a folder's files eight at a time, by MLflow's own way to extend it.

MLflow sends one after the other, and each waits for the way to the server, from there to S3, and
back: at 50 ms a folder of 2,000 files takes minutes of waiting, and a model of ten files a second.
Whoever has this installed where they train calls `log_artifacts` and `log_model` as before. Files
are found, named and sent by MLflow's own functions; only their order is not kept.
"""

from collections import deque
from contextvars import copy_context
from copy import copy
from threading import Semaphore, Thread

from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

# Of the ten connections that MLflow keeps; the others are for what is logged meanwhile.
AT_ONCE = 8

# The threads that may begin: a program's folders share them, should it log several at a time.
free = Semaphore(AT_ONCE - 1)


class ParallelArtifactsRepository(MlflowArtifactsRepository):
    """What MLflow makes for a URI that begins with `mlflow-artifacts:`."""

    def log_artifacts(self, local_dir, artifact_path=None):
        """Send all files of a folder; where one fails, begin no more, and raise what it raised."""
        files, errors = deque(self.found(local_dir, artifact_path)), []
        helpers = []
        try:
            while len(helpers) < min(AT_ONCE, len(files)) - 1:
                if not (helper := self.helper(files, errors)):
                    break
                helpers.append(helper)
            self.send(files, errors)
            for helper in helpers:
                helper.join()
        except BaseException:  # Ctrl-C waits for nobody: what is on its way ends by itself
            files.clear()
            raise
        if errors:
            raise errors[0]

    def helper(self, files, errors):
        """Begin a thread that sends what is left of the files; None where none may or can begin."""

        def send():
            try:
                context.run(self.send, files, errors)
            finally:
                free.release()

        if not free.acquire(blocking=False):
            return None
        context = copy_context()  # with what MLflow keeps in the caller's
        thread = Thread(name="log_artifacts", target=send, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # at a limit of threads, or as Python ends
            free.release()
            return None
        return thread

    def found(self, local_dir, artifact_path):
        """Return the files of a folder, as MLflow would give them to `log_artifact`."""
        files, finder = [], copy(self)
        finder.log_artifact = lambda *file: files.append(file)
        super(ParallelArtifactsRepository, finder).log_artifacts(local_dir, artifact_path)
        return files

    def send(self, files, errors):
        """Send what is left of the files; once one fails, nothing is."""
        while file := taken(files):
            try:
                self.log_artifact(*file)
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller raises it)
                errors.append(error)
                files.clear()


def taken(files):
    """Take the next file, or None once others have taken all."""
    try:
        return files.popleft()
    except IndexError:
        return None
