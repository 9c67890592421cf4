"""The guide's server as one would write it for pyinfra; the same steps as playbook.yml."""

from pathlib import Path

from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.operations import apt, files, server, systemd

ROOT = "/home/ubuntu/mlflow-server"
TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = "python3 python3-venv curl git htop tmux nginx ca-certificates zstd".split()
VALUES = {name: host.data.get(name) for name in ("bucket", "endpoint", "prefix", "listen")}


def template(name, dest, mode, **options):
    return files.template(
        src=str(TEMPLATES / name), dest=dest, mode=mode, root=ROOT, **VALUES, **options
    )


apt.packages(packages=PACKAGES, no_recommends=True, update=True, cache_time=86400, _sudo=True)
default = files.link(path="/etc/nginx/sites-enabled/default", present=False, _sudo=True)
for folder in (ROOT, "/home/ubuntu/.aws"):
    files.directory(path=folder, mode="700")
files.put(src=host.data.get("lock"), dest=f"{ROOT}/lock.txt", mode="644")
if not host.get_fact(File, path=f"{ROOT}/tools/bin/uv"):
    server.shell(f"cd {ROOT} && python3 -m venv tools && tools/bin/pip install --quiet uv")
environment = None
if not host.get_fact(File, path=f"{ROOT}/venv/whole"):
    environment = server.shell(
        f"cd {ROOT} && tools/bin/uv venv --quiet --python /usr/bin/python3 venv && "
        "tools/bin/uv pip install --quiet --python venv/bin/python --no-deps --require-hashes "
        "-r lock.txt && touch venv/whole"
    )
template("credentials.j2", "/home/ubuntu/.aws/credentials", "600")
template("config.j2", "/home/ubuntu/.aws/config", "600")
parts = [
    template("server.env.j2", f"{ROOT}/server.env", "600"),
    template("start.sh.j2", f"{ROOT}/start_mlflow_server.sh", "755"),
    template(
        "mlflow-server.service.j2", "/etc/systemd/system/mlflow-server.service", "644", _sudo=True
    ),
]
site = template("site.conf.j2", "/etc/nginx/sites-enabled/mlflow-server", "644", _sudo=True)
systemd.service(service="mlflow-server", running=True, enabled=True, _sudo=True)
systemd.service(service="nginx", running=True, enabled=True, _sudo=True)


def changed():
    return any(part.did_change() for part in parts)


systemd.service(
    service="mlflow-server", restarted=True, daemon_reload=True, _sudo=True, _if=changed
)
systemd.service(service="nginx", reloaded=True, _sudo=True, _if=site.did_change)
port = host.data.get("listen")
server.shell(
    f"for n in $(seq 120); do curl -sfo /dev/null http://127.0.0.1:{port}/health && exit; "
    "sleep 0.5; done; exit 1"
)
