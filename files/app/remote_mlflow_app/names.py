"""What the artifact proxy takes for the name of a file."""

import posixpath

from mlflow.exceptions import MlflowException

LONGEST = 255  # bytes of a file's name on the disk that it passes


def name_of(artifact_path):
    """Return the name of a file; raise what MLflow answers with 400 where the path has none."""
    name = posixpath.basename(artifact_path or "")
    if name in ("", ".") or len(name.encode(errors="replace")) > LONGEST:
        raise MlflowException.invalid_parameter_value(f"This names no file: {artifact_path!r:.300}")
    return name
