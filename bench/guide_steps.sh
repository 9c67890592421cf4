# The guide's own steps, typed by a script on a blank host: what a reader of it does by hand, with
# the least that current MLflow needs to start at all (mlflow[auth], a secret key, a password).
# Usage: guide_steps.sh STEP, with BUCKET and ENDPOINT in the environment.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
case $1 in
  packages) # the guide's AWS CLI v2 is Debian's package here: its own installer is a download
    sudo apt-get update -qq
    sudo -E apt-get install -y -qq python3 python3-pip python3-venv awscli htop tmux git curl > /dev/null
    ;;
  mlflow)
    mkdir -p ~/mlflow-server && cd ~/mlflow-server
    python3 -m venv venv
    venv/bin/pip install --quiet 'mlflow[auth]==3.17.2' boto3
    ;;
  configure)
    mkdir -p ~/.aws
    printf '[default]\naws_access_key_id = bench\naws_secret_access_key = bench\n' > ~/.aws/credentials
    printf '[default]\nregion = us-east-1\nendpoint_url = %s\n' "$ENDPOINT" > ~/.aws/config
    aws s3 ls "s3://$BUCKET/" --endpoint-url "$ENDPOINT"
    ;;
  service)
    cat > ~/mlflow-server/start_mlflow_server.sh <<EOF
#!/bin/bash
cd ~/mlflow-server
export MLFLOW_FLASK_SERVER_SECRET_KEY=bench MLFLOW_AUTH_ADMIN_USERNAME=admin
export MLFLOW_AUTH_ADMIN_PASSWORD=bench-bench-bench MLFLOW_S3_ENDPOINT_URL=$ENDPOINT
exec venv/bin/mlflow server --backend-store-uri sqlite:///mlflow.db \
  --artifacts-destination s3://$BUCKET/guide --host 0.0.0.0 --port 5000 --app-name basic-auth
EOF
    chmod +x ~/mlflow-server/start_mlflow_server.sh
    sudo tee /etc/systemd/system/mlflow-server.service > /dev/null <<EOF
[Unit]
After=network.target
[Service]
User=$USER
ExecStart=$HOME/mlflow-server/start_mlflow_server.sh
Restart=on-failure
[Install]
WantedBy=multi-user.target
EOF
    sudo systemctl daemon-reload
    sudo systemctl enable --quiet --now mlflow-server
    until curl -sf -o /dev/null http://localhost:5000/health; do sleep 0.5; done
    ;;
esac
