"""Take an experiment's grants back, which MLflow leaves where it removes the experiment itself.

Staged beside the programs that import it.
"""

import configparser
import os

from sqlalchemy import create_engine, text


def take_back(root, experiment):
    """Remove all grants on an experiment: SQLite gives its number to the next experiment."""
    config = configparser.ConfigParser()
    config.read(os.path.join(root, ".mlflow_auth_config"))
    with create_engine(config["mlflow"]["database_uri"]).begin() as grants:
        grants.execute(
            text(
                "delete from role_permissions where resource_type = 'experiment' "
                "and resource_pattern = :experiment"
            ),
            {"experiment": str(experiment)},
        )
