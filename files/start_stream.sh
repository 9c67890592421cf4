#!/bin/bash
# Stream both databases of {{ unit }} to the bucket. Written by `backup.stream on`; changes made
# here are overwritten.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
umask 077

# Before the unit confines itself: each start begins a stream of its own. Litestream 0.5.17 does not
# notice that it has missed changes when the server's log has begun anew while nobody held it: what it
# then sends restores damaged.
if [ "${1:-}" = begin ]; then
  if [ ! -e .server-id ]; then
    python3 -c 'import secrets; print(secrets.token_hex(4))' > .server-id.part
    mv -n .server-id.part .server-id
  fi
  rm -rf {,data/}.{mlflow,basic_auth}.db-litestream
  # And the files that it follows, which others may take the place of.
  {
    echo "$(cat .server-id)/$(date -u +%Y%m%dT%H%M%SZ)"
    stat -c '%i %W' data/mlflow.db data/basic_auth.db | xargs
  } > .stream.part
  mv -f .stream.part .stream
  exit
fi
read -r STREAM < .stream

{{ keys }}
AWS_PROFILE={{ profile }}
# A profile that is named but stands in no file hides the instance role.
if grep -qs "^\[\(profile \)\?$AWS_PROFILE\]" "${AWS_SHARED_CREDENTIALS_FILE:-$HOME/.aws/credentials}" ~/.aws/config; then
  export AWS_PROFILE
else
  unset AWS_PROFILE
fi
# Litestream would ask for the bucket's region with a permission that nothing else here needs.
REGION={{ region }}
if [ -z "$REGION" ]; then
  REGION=$(venv/bin/python -c '
import boto3, sys
answer = boto3.client("s3").head_bucket(Bucket=sys.argv[1])
print(answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "us-east-1"))' {{ bucket }})
fi
export STREAM REGION
# With this variable it does not start (0.5.17); Go's own name for the same is the other one.
if [ -n "${AWS_CA_BUNDLE:-}" ]; then export SSL_CERT_FILE=$AWS_CA_BUNDLE; fi
unset AWS_CA_BUNDLE
exec stream/bin/litestream replicate -config stream.yml
