"""Settings that come to name another place for artifacts lose no run its files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab import Host
from test_e2e_registry import as_client

pytestmark = pytest.mark.sampled

LOG = """
import json, sys
import mlflow
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_text("made before", "report.txt")
print(json.dumps({"run": run.info.run_id, "at": run.info.artifact_uri}))
"""
READ = """
import json, sys
import mlflow
print(json.dumps({"text": mlflow.artifacts.load_text(f"runs:/{sys.argv[1]}/report.txt")}))
"""
# Names that MLflow's own clients cut or decode, for whoever puts them there by another way.
STRANGE = ("#1.txt", "?.txt", "50%20.txt", "a b+ä.txt")


def findings(host: Host, **variables: str) -> dict[str, Any]:
    """Return what doctor finds, by its names."""
    said = host.fab("doctor", "--json", "--timeout", "60", code=None, **variables).out
    return {finding["key"]: finding for finding in json.loads(said)}


def test_another_prefix_is_refused_until_the_files_are_copied_there(host: Host) -> None:
    run = as_client(host, LOG, "elsewhere")
    s3, bucket = host.lab.s3(), host.lab.bucket
    former, latter = "mlflow-artifacts", "moved-artifacts"
    below = run["at"].partition(":/")[2].strip("/")
    for name in STRANGE:
        s3.put_object(Bucket=bucket, Key=f"{former}/{below}/{name}", Body=name.encode())
    moved = {"FABRIC_MLFLOW_PREFIX": latter}

    because = (f"under s3://{bucket}/{former}", f"s3://{bucket}/{latter}", "--move-artifacts")
    host.refused("deploy", because=because, **moved)
    assert latter in findings(host, **moved)["place-changes"]["what"]
    assert as_client(host, READ, run["run"])["text"] == "made before"

    said = host.fab("deploy", "--move-artifacts", **moved).out
    assert "copied and compared: " in said
    for name in ("report.txt", *STRANGE):
        copies = [
            s3.get_object(Bucket=bucket, Key=f"{prefix}/{below}/{name}")["Body"].read()
            for prefix in (former, latter)
        ]
        assert copies[0] == copies[1], name
    assert as_client(host, READ, run["run"], **moved)["text"] == "made before"
    assert not {"place-changes", "files-elsewhere"} & findings(host, **moved).keys()
    # Names that MLflow cuts are no obstacle for what looks through the bucket.
    assert "✓ verified" in host.fab("verify", **moved).out

    # And back, with what was made there.
    later = as_client(host, LOG, "elsewhere", **moved)
    host.refused("deploy", because=(f"under s3://{bucket}/{latter}",))
    host.fab("deploy", "--move-artifacts")
    for id in (run["run"], later["run"]):
        assert as_client(host, READ, id)["text"] == "made before"
