"""Take the grants on something back, which MLflow leaves where its store removes the thing itself.

Staged beside the programs that import it.
"""

import configparser
import os

from sqlalchemy import create_engine, text


def take_back(root, kind, name):
    """Remove all grants on an experiment, or on a registered_model.

    `name` is an experiment's number, which SQLite gives to the next one.
    """
    config = configparser.ConfigParser()
    config.read(os.path.join(root, ".mlflow_auth_config"))
    with create_engine(config["mlflow"]["database_uri"]).begin() as grants:
        grants.execute(
            text(
                "delete from role_permissions where resource_type = :kind "
                "and resource_pattern = :name"
            ),
            {"kind": kind, "name": str(name)},
        )
