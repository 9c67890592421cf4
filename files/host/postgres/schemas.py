"""Have MLflow make its schemas as a server of this release does when it first starts.

Runs on the host, beside the program that imports it, in the release's environment. The functions
are internal to MLflow, and tested for each release.
"""

import logging
import os
import warnings


def make(tracking, auth):
    """Make both schemas in empty databases, by their SQLAlchemy URIs; yields nothing."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    engine = utils.create_sqlalchemy_engine(tracking)
    utils._initialize_tables(engine)
    engine.dispose()
    # MLflow refuses to load its login without a key; this one is for nothing else.
    os.environ.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", "unused")
    from mlflow.server.auth.db import utils as auth_utils

    engine = create_engine(auth)
    auth_utils.migrate(engine, "head")
    engine.dispose()
    yield from ()
