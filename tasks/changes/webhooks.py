"""What is done about webhooks whose secret the server cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from collections.abc import Sequence


def resetting(ids: Sequence[str] = ()) -> Change:
    """Return the step that names them, and takes the secrets of these."""
    script = (
        '(read_variables "$root/server.env"; '
        'exec "$root/venv/bin/python" "$here/reset_webhooks.py" root="$root")'
    )
    files = requested("reset_webhooks.py", ids=list(ids))
    return Change("take the secrets that cannot be read off webhooks", script, files)
