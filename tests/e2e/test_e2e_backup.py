"""A backup that was taken while writers wrote is whole."""

from __future__ import annotations

import hashlib
import json
import re
import threading

from lab import Host
from waiting import until

from tasks.laptop.play import client_environment

WRITE = """
import sys
from mlflow import MlflowClient
client = MlflowClient()
number = 0
while True:
    run = client.create_run("0")
    client.log_param(run.info.run_id, "number", number)
    client.log_metric(run.info.run_id, "metric", number)
    number += 1
    print(number, flush=True)
"""


def test_a_backup_under_writers_is_served_with_every_run(host: Host) -> None:
    import subprocess
    import sys

    from tasks.engine.login import Login

    login = Login(*host.login())
    with host.tunnel() as uri:
        environment = client_environment(login, uri)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITE], env=environment, text=True,
                             stdout=subprocess.PIPE)
            for _ in range(2)
        ]  # fmt: skip
        counts = [0, 0]

        def count(n: int) -> None:
            for line in writers[n].stdout or ():
                counts[n] = int(line)

        readers = [threading.Thread(target=count, args=(n,)) for n in range(2)]
        for reader in readers:
            reader.start()
        try:
            until(lambda: min(counts) > 3, "both write")
            before = sum(counts)
            done = host.fab("backup")
            after = sum(counts)
            until(lambda: sum(counts) > after, "they go on writing")
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
            for reader in readers:
                reader.join()
    place = re.search(r"Backup complete: s3://([^/]+)/(\S+)/\n", done.out)
    assert place, str(done)
    bucket, prefix = place.groups()
    assert bucket == host.lab.bucket
    s3 = host.lab.s3()
    manifest = json.load(s3.get_object(Bucket=bucket, Key=f"{prefix}/manifest.json")["Body"])
    for entry in manifest["files"]:
        body = s3.get_object(Bucket=bucket, Key=f"{prefix}/{entry['name']}")["Body"].read()
        assert hashlib.sha256(body).hexdigest() == entry["sha256"]
    runs = manifest["databases"]["mlflow.db"]["counts"]["runs"]
    print(f"{runs} runs; {before} were written before it, {after} when it was done")
    assert before <= runs
    served = host.fab("backup.verify", "--id", prefix.rpartition("/")[2]).out
    assert f"  {runs} runs, 1 user," in served
    # The original is untouched, and goes on.
    host.healthy()


def test_a_backup_to_a_bucket_that_fails_is_one_line(host: Host) -> None:
    because = ("bucket no-such-bucket does not exist", "fabric.yaml")
    host.refused("backup", because=because, FABRIC_MLFLOW_BUCKET="no-such-bucket")
    with host.lab.bucket_denying("s3:PutObject") as bucket:
        because = (f"bucket {bucket} refuses the backup", "s3:PutObject", "backup again")
        host.refused("backup-db", because=because, FABRIC_MLFLOW_BUCKET=bucket)
