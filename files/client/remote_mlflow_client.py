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
            self.begin(helpers, files, errors)
            while self.sent(files, errors):
                self.begin(helpers, files, errors)  # another folder may have ended meanwhile
            for helper in helpers:
                helper.join()
        except BaseException:  # Ctrl-C waits for nobody: what is on its way ends by itself
            files.clear()
            raise
        if errors:
            raise errors[0]

    def begin(self, helpers, files, errors):
        """Begin threads that send files as well, as far as there are files and free threads."""

        def send(context):
            try:
                while context.run(self.sent, files, errors):
                    pass
            finally:
                free.release()

        while len(files) > 1 and len(helpers) < AT_ONCE - 1 and free.acquire(blocking=False):
            context = copy_context()  # with what MLflow keeps in the caller's
            helper = Thread(name="log_artifacts", target=send, args=[context], daemon=True)
            try:
                helper.start()
            except RuntimeError:  # at a limit of threads, or as Python ends
                free.release()
                break
            helpers.append(helper)

    def found(self, local_dir, artifact_path):
        """Return the files of a folder, as MLflow would give them to `log_artifact`."""
        files, finder = [], copy(self)
        finder.log_artifact = lambda *file: files.append(file)
        super(ParallelArtifactsRepository, finder).log_artifacts(local_dir, artifact_path)
        return files

    def sent(self, files, errors):
        """Send the next file, and tell whether there was one; once one fails, none is left."""
        try:
            file = files.popleft()
        except IndexError:
            return False
        try:
            self.log_artifact(*file)
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller raises it)
            errors.append(error)
            files.clear()
        return True
