#!/bin/bash
# Start {{ unit }} with release {{ release }}. Written by `deploy`; changes made here are
# overwritten.
#
# The systemd unit runs this with a listening socket as standard input. By hand, the guide's way
# (./start_mlflow_server.sh, or nohup ./start_mlflow_server.sh > mlflow.log 2>&1 &), it serves
# through nginx all the same. Where that listens, nginx alone knows: another port restarts nothing.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
umask 077

if [ ! -S /dev/stdin ] && systemctl --quiet is-active {{ unit }}.socket; then
  echo "The unit {{ unit }} is running. Stop it first:" \
    "sudo systemctl stop {{ unit }}.socket {{ unit }}" >&2
  exit 1
fi
# What the unit has done before it confined itself, where nothing here can be written any more. A
# restore or upgrade that it finishes may bring another start script.
if [ -w . ] && [ "${1:-}" != ready ]; then
  exec ./ready_mlflow_server.sh ./start_mlflow_server.sh ready
fi

warn() { echo "$*" >&2; }
{{ variables }}
read_variables server.env
set -a
MLFLOW_AUTH_CONFIG_PATH=$PWD/.mlflow_auth_config
MLFLOW_ARTIFACTS_DESTINATION={{ destination }}
MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
MLFLOW_ENABLE_AI_GATEWAY={{ ai_gateway }}
# What encrypts providers' keys in the database; MLflow's own default is the same everywhere.
MLFLOW_CRYPTO_KEK_PASSPHRASE=$(printf 'gateway %s' "${MLFLOW_FLASK_SERVER_SECRET_KEY:-}" | sha256sum | cut -d' ' -f1)
# A request that holds a connection to the database asks for a second, and 40 of each worker's run
# at once. Of MLflow's 15 connections, 15 requests would hold all and wait for others in vain.
MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=20
MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=100
case ${MLFLOW_BACKEND_STORE_URI:-} in
  # PostgreSQL lets in 100 in all, unless it is told otherwise.
  postgresql*) MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=25 ;;
esac
MLFLOW_DISABLE_TELEMETRY=true
MLFLOW_MODEL_CATALOG_URI=
MLFLOW_SERVER_X_FRAME_OPTIONS=DENY
MLFLOW_SERVER_CORS_ALLOWED_ORIGINS='{{ allowed_origins }}'
# MLflow's app stands behind one of ours, where no login names a place to read or write. Nothing is
# imported from the folder that the server is started in.
PYTHONPATH={{ app }}
PYTHONSAFEPATH=1
AWS_PROFILE={{ profile }}
{{ aws }}
set +a
# A profile that is named but stands in no file hides the instance role.
if ! grep -qs "^\[\(profile \)\?$AWS_PROFILE\]" ~/.aws/credentials ~/.aws/config; then
  unset AWS_PROFILE
fi

if [ -S /dev/stdin ]; then
  # nginx notes who asked for what; the journal has room for what happened.
  listen="--fd 0 --no-access-log"
else
  listen="--uds /run/{{ unit }}/by-hand.sock"
  site={{ site }}
  address=$(sed -n 's/^ *listen \([0-9.]*:[0-9]*\);$/\1/p' "$site" 2> /dev/null | tail -n 1) || true
  echo "Serving http://$address (Ctrl-C ends it)"
fi
# Under this name, for whoever looks for `mlflow server` among the processes.
exec "$PWD/venv/bin/python" {{ app }}/bin/mlflow server \
  --app-name remote-mlflow \
  --workers {{ workers }} \
  --allowed-hosts '{{ allowed_hosts }}' \
  --uvicorn-opts "$listen --timeout-graceful-shutdown 60 --app-dir {{ app }}"
