"""A host whose nginx is laid out as nginx.org packages it, and names that its table cannot hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from lab import ROOT, UNIT, Host, Lab

# As nginx.org's package has it: another user, and no sites-available.
CONFIGURATION = """
user  nginx;
worker_processes  auto;
error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;
events {
    worker_connections  1024;
}
http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    access_log  /var/log/nginx/access.log;
    include /etc/nginx/conf.d/*.conf;
}
"""
CHECKS_ALONE = '#!/bin/sh\n[ "$1" = -t ]\n'  # an nginx that finds its files well and does not start
LONG = "ec2-203-0-113-25.ap-southeast-2.compute.amazonaws.com"
OTHER = "server { listen 80; server_name other.example.org; location / { return 299; } }"


@contextmanager
def nginx_org(host: Host, configuration: str = CONFIGURATION) -> Iterator[None]:
    """Have nginx laid out otherwise for a while."""
    host.run("id nginx || useradd -r -s /usr/sbin/nologin nginx; "
             "cp -a /etc/nginx /root/nginx.debian; "
             "rm -r /etc/nginx/sites-enabled /etc/nginx/sites-available")  # fmt: skip
    try:
        host.run("cat > /etc/nginx/nginx.conf && systemctl restart nginx", stdin=configuration)
        yield
    finally:
        host.run("rm -r /etc/nginx; mv /root/nginx.debian /etc/nginx; systemctl restart nginx")
        host.fab("deploy", timeout=300)
        host.healthy()


def test_a_server_moves_to_where_nginx_org_s_nginx_includes_it(host: Host) -> None:
    with nginx_org(host):
        host.fab("deploy", timeout=300)
        host.healthy()
        assert host.run(f"stat -c %G /run/{UNIT}.sock /run/{UNIT}").split() == ["nginx", "nginx"]
        assert host.fab("plan").out.splitlines()[-1] == "nothing to change"
        areas = {row["area"] for row in json.loads(host.fab("doctor", "--json", code=None).out)}
        assert "nginx" not in areas
        host.fab("restart")
        host.healthy()


def test_an_nginx_that_includes_no_sites_is_refused_before_anything_changes(host: Host) -> None:
    closed = CONFIGURATION.replace("    include /etc/nginx/conf.d/*.conf;\n", "")
    with nginx_org(host, closed):
        before = host.run("find /etc/nginx /etc/systemd/system -type f | sort | xargs md5sum")
        host.refused("deploy", because=("includes neither", "include /etc/nginx/conf.d/*.conf;"))
        after = host.run("find /etc/nginx /etc/systemd/system -type f | sort | xargs md5sum")
        assert before == after


def test_a_long_name_lives_beside_another_site(host: Host) -> None:
    host.run("openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=x -keyout /root/k.pem "
             f"-out /root/c.pem -addext subjectAltName=DNS:{LONG}")  # fmt: skip
    for name in ("c.pem", "k.pem"):
        (host.home / name).write_text(host.run(f"cat /root/{name}") + "\n")
    host.fab("tls.enable", LONG, "--certificate", str(host.home / "c.pem"),
             "--key", str(host.home / "k.pem"), timeout=300)  # fmt: skip
    try:
        host.run("cat > /etc/nginx/conf.d/other.conf", stdin=OTHER)
        # A restart builds the table anew, and so does every reboot.
        host.run("nginx -t && systemctl restart nginx")
        ask = f"curl -sk --resolve {LONG}:443:127.0.0.1 https://{LONG}/health"
        assert host.run(ask) == "OK"
        said = host.run(
            f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Host: {LONG}' http://127.0.0.1/"
        )
        assert said == "301"
        other = "curl -s -o /dev/null -w '%{http_code}' -H 'Host: other.example.org'"
        assert host.run(f"{other} http://127.0.0.1/") == "299"
    finally:
        host.run("rm -f /etc/nginx/conf.d/other.conf; systemctl restart nginx")
        host.fab("tls.disable", "--yes", timeout=300)
    host.healthy()


def test_a_new_server_is_taken_back_where_nginx_does_not_start(lab: Lab) -> None:
    """It loads beside nginx, and has databases by then; the same command finishes the work."""
    with lab.blank() as host:
        host.fab("install", "configure", timeout=900)
        host.run(
            "systemctl stop nginx; cat > /root/nginx; chmod 755 /root/nginx", stdin=CHECKS_ALONE
        )
        host.run("mount --bind /root/nginx /usr/sbin/nginx")
        try:
            host.refused("deploy", because=("nginx does not start", "journalctl -u nginx"))
        finally:
            host.run("umount /usr/sbin/nginx")
        assert host.unit(f"{UNIT}.service", "LoadState") == "not-found"
        there = set(host.run(f"ls -A {ROOT}").split())
        assert not there & {"data", "mlflow.db", "basic_auth.db"}, "half made, as it may be"
        host.fab("deploy", timeout=300)
        host.healthy()
