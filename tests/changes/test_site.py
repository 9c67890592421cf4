"""nginx's site has a door for each way in, and those to the network are guarded."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from invoke import Exit
from stand_ins import ROOT, SETTINGS, blank

from tasks.changes.files import files
from tasks.changes.site import (
    allowed_hosts,
    allowed_origins,
    challenge,
    challenge_file,
    named,
    pair,
    site,
)
from tasks.engine.facts import Facts, Managed, Nginx, Tls, refuse_closed_nginx, site_of
from tasks.engine.settings import Settings

NAME = "mlflow.example.org"
TLS = Tls(NAME, "https://acme.example/dir")
WIDE = Settings(bucket="my-bucket", bind="0.0.0.0")


def facts(*addresses: str, tls: Tls | None = TLS) -> Facts:
    return blank(addresses=addresses, tls=tls)


def servers(text: str) -> list[str]:
    """Split a site into its server blocks."""
    return re.findall(r"^server \{\n.*?^\}", text, re.M | re.S)


GOLDEN = Path(__file__).parent / "golden"
IPV6 = facts("10.0.0.5", "2001:db8::5")
SITUATIONS = {
    "plain": site(SETTINGS, facts("10.0.0.5", tls=None)),
    "open": site(WIDE, facts("10.0.0.5", tls=None)),
    "balancer": site(
        Settings(bucket="my-bucket", bind="10.0.0.5", balancer="10.0.1.10, 10.0.2.0/24"),
        facts("10.0.0.5", tls=None),
    ),
    "tls": site(SETTINGS, IPV6),
    "own-certificate": site(SETTINGS, facts("10.0.0.5", tls=Tls(NAME, "own"))),
    "environment": site(
        Settings(bucket="my-bucket", environment="staging", port=5002, artifact_access="direct"),
        facts("10.0.0.5", tls=None),
    ),
    "challenge": challenge(SETTINGS, IPV6, NAME),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_lands_is_what_a_reviewer_saw(situation: str, request: pytest.FixtureRequest):
    """After a change that is meant: pytest tests/changes/test_site.py --golden, and git diff."""
    seen = GOLDEN / f"{situation}.conf"
    if request.config.getoption("golden"):
        seen.write_text(SITUATIONS[situation])
    assert SITUATIONS[situation] == seen.read_text()


NGINX_ORG = Nginx("nginx", ("/etc/nginx/mime.types", "/etc/nginx/conf.d/*.conf"))
DEBIAN = "/etc/nginx/sites-available/mlflow-server"
FLAT = "/etc/nginx/conf.d/mlflow-server.conf"


@pytest.mark.parametrize(
    ("includes", "there", "file"),
    [
        (("/etc/nginx/sites-enabled/*",), (), DEBIAN),
        (("/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"), (), DEBIAN),
        (("/etc/nginx/conf.d/*.conf",), (), FLAT),
        # What is not included is of a former nginx.
        (("/etc/nginx/conf.d/*.conf",), (DEBIAN,), FLAT),
        # What has its place already keeps it.
        (("/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"), (FLAT,), FLAT),
        (("/etc/nginx/sites-enabled/*.conf", "/etc/nginx/conf.d/*.conf"), (), FLAT),
        ((), (), DEBIAN),
    ],
)
def test_the_site_lies_where_the_host_s_nginx_includes_it(includes, there, file):
    found = blank(
        nginx=Nginx("www-data", includes), files=dict.fromkeys(there, Managed("x", "644"))
    )
    assert site_of(SETTINGS, found).file == file


def test_an_nginx_that_includes_none_is_refused():
    with pytest.raises(Exit, match=r"Add `include /etc/nginx/conf\.d/\*\.conf;`"):
        refuse_closed_nginx(SETTINGS, blank(nginx=Nginx("nginx", ("/etc/nginx/mime.types",))))


def test_files_go_by_the_group_of_the_host_s_nginx():
    found = {file.path: file.text for file in files(SETTINGS, blank(nginx=NGINX_ORG))}
    assert FLAT in found
    assert "SocketGroup=nginx\n" in found["/etc/systemd/system/mlflow-server.socket"]
    assert " 2750 ubuntu nginx\n" in found["/etc/tmpfiles.d/mlflow-server.conf"]
    assert f"site={FLAT}\n" in found[f"{ROOT}/start_mlflow_server.sh"]


def test_the_answer_to_an_authority_lies_where_the_site_is_included():
    assert challenge_file(SETTINGS, blank()) == "/etc/nginx/sites-enabled/mlflow-server-challenge"
    assert challenge_file(SETTINGS, blank(nginx=NGINX_ORG)) == (
        "/etc/nginx/conf.d/mlflow-server-challenge.conf"
    )


def test_a_name_that_nginx_s_table_of_names_cannot_hold_is_a_pattern():
    assert named("a" * 46) == "a" * 46
    assert named("a-b." + "c" * 43) == '"~^a\\-b\\.' + "c" * 43 + '$"'
    name = "ec2-203-0-113-25.ap-southeast-2.compute.amazonaws.com"
    shown = site(SETTINGS, facts(tls=Tls(name, "own")))
    assert re.findall("server_name (.*);", shown) == ["_", named(name), named(name)]
    assert re.fullmatch(named(name)[2:-1], name)
    assert named(name) in challenge(SETTINGS, facts(), name)


def test_every_golden_file_is_a_situation():
    assert {path.stem for path in GOLDEN.iterdir()} == set(SITUATIONS)


def test_a_server_on_loopback_alone_has_no_guard():
    text = site(SETTINGS, facts(tls=None))
    assert len(servers(text)) == 1
    assert not re.search("auth_request|limit_req|ssl|{{", text)


def test_a_name_opens_80_for_the_way_to_443_and_443_with_all_rules():
    port, plain, tls = servers(site(SETTINGS, facts("10.0.0.5")))
    assert re.findall("listen (.*);", port + plain + tls) == ["127.0.0.1:5000", "80", "443 ssl"]
    assert f"return 301 https://{NAME}$request_uri;" in plain
    assert "/.well-known/acme-challenge/" in plain
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in tls
    assert tls.count('Strict-Transport-Security "max-age=31536000" always;') == 4
    assert "location ^~ /ajax-api/3.0/mlflow/assistant { return 403; }" in tls
    assert "server-info { return 404; }" in tls
    assert "Strict-Transport-Security" not in port + plain


def test_only_doors_to_the_network_ask_whether_a_login_may_be_tried():
    port, plain, tls = servers(site(SETTINGS, facts("10.0.0.5")))
    # Artifacts up and down, traces, the gateway, and all else.
    assert tls.count("auth_request /.login;") == 5
    assert "auth_request" not in port + plain
    assert "location = /.new-login {\n    if ($remote_addr != 127.0.0.1) { return 404; }" in port
    (port,) = servers(site(WIDE, facts("10.0.0.5", tls=None)))
    assert port.count("auth_request /.login;") == 5
    assert "location = /.new-login" in port


def test_what_is_kept_of_a_good_login_is_a_digest():
    text = site(SETTINGS, facts("10.0.0.5"))
    (kept,) = re.findall('proxy_cache_key "(.*)";', text)
    assert "authorization" not in kept
    assert kept.startswith("$remote_addr $remote_user ${mlflow_server_0}${mlflow_server_1}")
    assert len(re.findall(r"^split_clients .*6\.25% e; \* f; \}$", text, re.M)) == 8


def test_two_environments_share_no_name_in_nginx():
    staging = Settings(bucket="my-bucket", environment="staging", port=5002)
    names = re.compile(r"keys_zone=(\S+?):|zone=(\S+?):|^map \S+ (\S+)|^upstream (\S+)", re.M)
    first, second = (
        {name for found in names.findall(site(settings, facts("10.0.0.5"))) for name in found}
        for settings in (SETTINGS, staging)
    )
    assert first & second == {""}
    assert pair(SETTINGS, Tls(NAME, "own")) != pair(staging, Tls(NAME, "own"))


def test_a_host_with_ipv6_is_reached_by_it_and_one_without_has_no_such_line():
    both = facts("10.0.0.5", "2001:db8::5")
    assert "listen [::]:443 ssl;" in site(SETTINGS, both)
    assert "listen [::]:80;" in challenge(SETTINGS, both, NAME)
    assert "[::]" not in site(SETTINGS, facts("10.0.0.5"))


@pytest.mark.parametrize(
    ("values", "tls", "hosts", "origins"),
    [
        ({}, None, [], []),
        ({}, TLS, [NAME, f"{NAME}:*"], [f"https://{NAME}", f"https://{NAME}:*"]),
        ({"public_name": NAME}, TLS, [NAME, f"{NAME}:*"], [f"https://{NAME}", f"https://{NAME}:*"]),
        # Somebody else's TLS in front, or none.
        ({"public_name": "A.org"}, None, ["a.org", "a.org:*"],
         ["https://a.org", "https://a.org:*", "http://a.org", "http://a.org:*"]),
        ({"bind": "0.0.0.0"}, None,
         ["10.0.0.5", "10.0.0.5:*", "[2001:db8::5]", "[[]2001:db8::5]:*"],
         ["http://10.0.0.5", "http://10.0.0.5:*",
          "http://[2001:db8::5]", "http://[[]2001:db8::5]:*"]),
        ({"bind": "10.0.0.5", "port": 6000}, None, ["10.0.0.5", "10.0.0.5:*"],
         ["http://10.0.0.5", "http://10.0.0.5:*"]),
    ],
)  # fmt: skip
def test_whoever_gets_in_by_a_name_or_address_is_refused_nothing(values, tls, hosts, origins):
    settings = Settings(bucket="my-bucket", **values)
    host = facts("10.0.0.5", "2001:db8::5", tls=tls)
    assert allowed_hosts(settings, host)[3:] == hosts
    assert allowed_origins(settings, host) == origins


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("10.0.0.5:5000", True),
        ("10.0.0.5:80", True),
        ("10.0.0.5", True),  # whose port is 80
        ("[2001:db8::5]:5000", True),
        ("localhost:5001", True),
        ("10.0.0.55:5000", False),
        ("10.0.0.6:5000", False),
        ("10.0.0.5.evil.example:5000", False),
        ("evil.example:5000", False),
        ("d:5000", False),  # as a set of characters, [2001:db8::5] would mean this
    ],
)
def test_another_port_of_the_host_is_its_own_and_another_host_is_not(host, wanted):
    """MLflow compares by fnmatch what holds a * (mlflow/server/security_utils.py)."""
    allowed = allowed_hosts(WIDE, facts("10.0.0.5", "2001:db8::5", tls=None))
    assert any(fnmatch(host, each) if "*" in each else host == each for each in allowed) is wanted


def test_balancers_are_answered_at_every_port_without_a_login():
    (port,) = servers(site(SETTINGS, facts(tls=None)))
    (usable,) = re.findall(r"location = /usable \{.*?^  \}", port, re.M | re.S)
    assert "if (-f /run/mlflow-server.drain) { return 404; }" in usable
    assert not re.search("auth_request|limit_req", usable)
    # nginx would turn the answer to a drained server into the one of a broken one.
    assert "404" not in re.findall("error_page .* = @unusable", usable)[0]


def test_behind_a_balancer_guesses_are_counted_by_the_client_s_address():
    settings = Settings(bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10, 10.0.2.0/24")
    text = site(settings, facts("10.0.0.5", tls=None))
    assert "  set_real_ip_from 10.0.1.10;\n  set_real_ip_from 10.0.2.0/24;\n" in text
    assert "real_ip_header X-Forwarded-For;" in text
    assert "real_ip" not in site(WIDE, facts("10.0.0.5", tls=None))


def test_a_balancer_s_address_is_one_that_clients_name_and_a_network_is_not():
    settings = Settings(
        bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10,2001:db8::1,10.0.2.0/24"
    )
    hosts = allowed_hosts(settings, facts("10.0.0.5", tls=None))
    assert hosts[5:] == ["10.0.1.10", "10.0.1.10:*", "[2001:db8::1]", "[[]2001:db8::1]:*"]
    assert "http://10.0.1.10:*" in allowed_origins(settings, facts("10.0.0.5", tls=None))
