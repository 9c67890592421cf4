"""What is decided before a rehearsal host is booted. None of this needs root or a network."""

import os
import shutil
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from invoke.exceptions import Exit

from tasks.rehearsal import (
    Rehearsal,
    borrowed,
    image,
    network,
    nspawn,
    packages,
    processes,
    trees,
)
from tasks.rehearsal.machine import Machine, alias, ssh_config
from tasks.rehearsal.network import Network

SUBNET = IPv4Network("10.20.30.0/24")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def machine(number: int = 1) -> Machine:
    return Machine(
        name=f"sandbox-1a2b3c-{number}",
        alias=alias(number),
        address=f"10.20.30.{10 + number}",
        suite="bookworm",
        pid=4711,
        root=Path("/cache/machines") / f"sandbox-1a2b3c-{number}",
    )


def silent(line: str) -> None:
    """Take what would be said."""


# ------------------------------------------------------------------------------------------ names


def test_the_first_host_is_the_sandbox_and_the_others_are_counted() -> None:
    assert [alias(number) for number in (1, 2, 10)] == [
        "sandbox",
        "sandbox-2",
        "sandbox-10",
    ]


def test_two_clones_never_share_a_name(tmp_path: Path) -> None:
    one, other = Rehearsal(tmp_path / "one", silent), Rehearsal(tmp_path / "other", silent)
    assert one.network.bridge != other.network.bridge
    assert one.group == Rehearsal(tmp_path / "other" / ".." / "one", silent).group


def test_an_interface_name_is_as_short_as_linux_wants_it(tmp_path: Path) -> None:
    bridge = Rehearsal(tmp_path, silent).network.bridge
    assert "sandbox" in bridge
    assert len(bridge) <= 15


# --------------------------------------------------------------------------------------- ssh_config


def test_ssh_config_pins_one_host_one_key_and_nothing_of_the_operator() -> None:
    text = ssh_config([machine()], Path("/s/id_ed25519"), Path("/s/known_hosts"))
    assert (
        text
        == """\
Host sandbox
    HostName 10.20.30.11
    User ubuntu
    IdentityFile "/s/id_ed25519"
    IdentitiesOnly yes
    IdentityAgent none
    HostKeyAlias sandbox-1a2b3c-1
    UserKnownHostsFile "/s/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
"""
    )


@pytest.mark.skipif(not shutil.which("ssh"), reason="no OpenSSH client")
def test_openssh_reads_the_configuration_also_from_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my 100% clone"
    folder.mkdir()
    config = folder / "ssh_config"
    hosts = [machine(1), machine(2)]
    config.write_text(ssh_config(hosts, folder / "id_ed25519", folder / "known_hosts"))
    answer = subprocess.run(
        ["ssh", "-G", "-F", str(config), "sandbox-2"], text=True, capture_output=True, check=True
    ).stdout
    assert "hostname 10.20.30.12\n" in answer
    assert "hostkeyalias sandbox-1a2b3c-2\n" in answer
    identity = next(line for line in answer.splitlines() if line.startswith("identityfile "))
    assert identity.partition(" ")[2].replace("%%", "%") == str(folder / "id_ed25519")


# ------------------------------------------------------------------------------------------ network


def test_a_free_subnet_overlaps_nothing_that_the_machine_knows() -> None:
    first = network.free_subnet([], "1a2b3c")
    second = network.free_subnet([first], "1a2b3c")
    assert first.prefixlen == second.prefixlen == 24
    assert not first.overlaps(second)
    assert first.subnet_of(IPv4Network("10.0.0.0/8"))


def test_a_group_finds_the_same_subnet_again() -> None:
    assert network.free_subnet([], "1a2b3c") == network.free_subnet([], "1a2b3c")
    assert network.free_subnet([], "1a2b3c") != network.free_subnet([], "3c2b1a")


@pytest.mark.parametrize(
    ("used", "inside"),
    [
        (["10.0.0.0/8"], "172.16.0.0/12"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.0.0/16"),
        (["10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/11", "10.224.0.0/12"], "10.240.0.0/12"),
    ],
)
def test_a_vpn_that_claims_a_range_is_left_alone(used: list[str], inside: str) -> None:
    chosen = network.free_subnet([IPv4Network(text) for text in used], "1a2b3c")
    assert chosen.subnet_of(IPv4Network(inside))


def test_no_free_subnet_is_said_with_a_way_out() -> None:
    everything = [IPv4Network(wide) for wide in network.PRIVATE_RANGES]
    with pytest.raises(Exit, match=r"No private subnet is free.*VPN"):
        network.free_subnet(everything, "1a2b3c")


def test_addresses_routes_and_gateways_are_taken_but_the_default_route_claims_nothing() -> None:
    addresses = [{"local": "192.0.2.2", "prefixlen": 24}]
    routes = [
        {"dst": "default", "gateway": "192.0.2.1"},
        {"dst": "10.8.0.0/16", "dev": "tun0"},
        {"type": "local", "dst": "10.9.0.1"},
    ]
    assert [str(known) for known in network.known_networks(addresses, routes)] == [
        "192.0.2.0/24",
        "192.0.2.1/32",
        "10.8.0.0/16",
        "10.9.0.1/32",
    ]


def test_the_machine_is_the_first_address_and_hosts_come_after_the_tenth() -> None:
    assert str(network.gateway(SUBNET)) == "10.20.30.1"
    assert [str(network.address(SUBNET, number)) for number in (1, 2)] == [
        "10.20.30.11",
        "10.20.30.12",
    ]


def test_hosts_get_out_by_nat_but_never_reach_the_metadata_of_the_machine() -> None:
    text = network.table("sandbox_1a2b3c", "sandbox-1a2b3c", SUBNET)
    assert "ip saddr 10.20.30.0/24 ip daddr != 10.20.30.0/24 masquerade" in text
    assert 'iifname "sandbox-1a2b3c" ip daddr 169.254.0.0/16 reject' in text
    assert text.splitlines()[:2] == [
        "table ip sandbox_1a2b3c { }",
        "delete table ip sandbox_1a2b3c",
    ]


def chain(name: str, hook: str | None, policy: str = "accept", family: str = "ip") -> network.Entry:
    found = {"family": family, "table": "filter", "name": name, "policy": policy}
    return {"chain": found | ({"hook": hook} if hook else {})}


RULESET = [
    {"table": {"family": "ip", "name": "filter"}},
    chain("FORWARD", "forward", "drop"),
    chain("INPUT", "input", "drop", family="inet"),
    chain("OUTPUT", "output", "drop"),
    chain("DOCKER", None),
    chain("bridged", "forward", "drop", family="bridge"),
    chain("open", "forward"),
]


def test_a_firewall_that_drops_by_default_lets_the_bridge_pass_and_no_other_is_touched() -> None:
    assert [" ".join(rule) for rule in network.passes("sandbox-1a2b3c", RULESET)] == [
        'insert rule ip filter FORWARD iifname "sandbox-1a2b3c" accept comment "sandbox-1a2b3c"',
        'insert rule ip filter FORWARD oifname "sandbox-1a2b3c" accept comment "sandbox-1a2b3c"',
        'insert rule inet filter INPUT iifname "sandbox-1a2b3c" accept comment "sandbox-1a2b3c"',
    ]


def test_the_rules_of_a_bridge_are_found_again_by_their_comment() -> None:
    rule = {"family": "ip", "table": "filter", "chain": "FORWARD"}
    ruleset = [
        *RULESET,
        {"rule": rule | {"handle": 7, "comment": "sandbox-1a2b3c"}},
        {"rule": rule | {"handle": 8, "comment": "sandbox-ffffff"}},
        {"rule": rule | {"handle": 9}},
    ]
    assert network.rules_about("sandbox-1a2b3c", ruleset) == [("ip", "filter", "FORWARD", 7)]


def test_groups_are_told_from_every_other_table() -> None:
    tables = {"filter", "sandbox_1a2b3c", network.FORWARDING_WAS_OFF, "sandbox_1a2b3c4"}
    assert network.groups(tables) == ["1a2b3c"]
    assert Network("1a2b3c").table in tables


# ---------------------------------------------------------------------------------- booting a host


def test_nspawn_boots_a_folder_on_the_bridge_and_keeps_out_of_a_machine_without_systemd() -> None:
    root = Path("/cache/machines/sandbox-1a2b3c-1")
    words = nspawn.nspawn(root, root.name, "sandbox-1a2b3c", "1a2b3c/1", managed=False)
    assert words == [
        "systemd-nspawn",
        "--directory=/cache/machines/sandbox-1a2b3c-1",
        "--machine=sandbox-1a2b3c-1",
        "--boot",
        "--network-bridge=sandbox-1a2b3c",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--setenv=REMOTE_MLFLOW_SANDBOX=1a2b3c/1",
    ]
    managed = nspawn.nspawn(root, root.name, "sandbox-1a2b3c", "1a2b3c/1", managed=True)
    assert managed == [word for word in words if word != "--keep-unit"]


def test_a_host_is_booted_again_for_as_long_as_it_asks_for_it(tmp_path: Path) -> None:
    counter = tmp_path / "boots"
    program = f'echo boot >>"{counter}"; [ $(wc -l <"{counter}") -ge 3 ] && exit 0; exit 133'
    words = ["sh", "-c", nspawn.KEEP_BOOTING, "name", "0", "--", "sh", "-c", program]
    assert subprocess.run(words, timeout=20).returncode == 0
    assert counter.read_text() == "boot\n" * 3


def test_a_host_enters_its_control_groups_before_it_boots(tmp_path: Path) -> None:
    groups = [tmp_path / "one group", tmp_path / "two"]
    for group in groups:
        group.mkdir()
    words = ["sh", "-c", nspawn.KEEP_BOOTING, "name", "2", *map(str, groups), "--", "true"]
    assert subprocess.run(words, timeout=20).returncode == 0
    assert [(group / "cgroup.procs").read_text() for group in groups] == ["0\n", "0\n"]


@pytest.mark.parametrize(
    ("cgroup", "mounts", "expected"),
    [
        pytest.param(
            "0::/user.slice/session-1.scope\n",
            "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
            [("/sys/fs/cgroup", "/user.slice/session-1.scope")],
            id="v2",
        ),
        pytest.param(
            "9:name=systemd:/\n4:memory:/some/where\n0::/\n",
            "31 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "32 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
            "33 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            [("/sys/fs/cgroup/systemd", "/"), ("/sys/fs/cgroup/unified", "/")],
            id="hybrid",
        ),
        pytest.param("", "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n", [], id="none"),
    ],
)
def test_a_host_gets_control_groups_only_where_systemd_keeps_its_units(
    cgroup: str, mounts: str, expected: list[tuple[str, str]]
) -> None:
    found = [(str(top), path) for top, path in nspawn.group_paths(cgroup, mounts)]
    assert found == expected


# ----------------------------------------------------------------------- processes, folders, mounts


@linux_only
def test_only_processes_that_carry_the_mark_are_found_and_ended(tmp_path: Path) -> None:
    mark, log = f"test/{os.getpid()}", tmp_path / "log"
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        processes.detach(["sleep", "60"], mark, log, SOME="thing")
        while not (found := processes.marked(mark)) or "sleep" not in found[0].argv:
            pass
        assert [process.environment["SOME"] for process in found] == ["thing"]
        processes.end(mark)
        assert processes.marked(mark) == []
        assert bystander.poll() is None
    finally:
        processes.end(mark)
        bystander.kill()
        bystander.wait()


def test_the_operators_keys_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("MOTO_PORT", "1")
    environment = processes.environment("1a2b3c/1", MORE="x")
    assert not [key for key in environment if key.startswith(("AWS_", "MOTO_"))]
    assert (environment["REMOTE_MLFLOW_SANDBOX"], environment["MORE"]) == ("1a2b3c/1", "x")


MOUNTS = (
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "25 22 0:22 / /run rw - tmpfs tmpfs rw\n"
    "26 25 0:23 / /run/a\\040b rw shared:1 master:2 - ext4 /dev/vdb rw\n"
    "27 26 0:24 / /run/a\\040b/proc rw - proc proc rw\n"
    "28 22 0:25 / /running rw - proc proc rw\n"
)


def test_mounts_are_found_deepest_first_and_never_next_door() -> None:
    assert trees.mounted_in(Path("/run"), MOUNTS) == [
        Path("/run/a b/proc"),
        Path("/run/a b"),
        Path("/run"),
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/run/systemd/nspawn", "tmpfs"), ("/run/a b/c", "ext4"), ("/var", "ext4"), ("/runs", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert trees.filesystem(Path(path), MOUNTS) == kind


def test_a_folder_is_held_by_one_at_a_time_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "held"
    try_it = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(3)"
    )
    other = [sys.executable, "-c", try_it, str(folder)]
    with trees.alone(folder):
        assert subprocess.run(other).returncode == 3
    assert subprocess.run(other).returncode == 0
    assert list(folder.iterdir()) == []


def test_a_folder_may_go_while_it_is_held(tmp_path: Path) -> None:
    with trees.alone(tmp_path / "a" / "state"):
        (tmp_path / "a" / "state").rmdir()
    with trees.alone(tmp_path / "a" / "state"):
        assert (tmp_path / "a" / "state").is_dir()


# -------------------------------------------------------------------------------- the base image


def test_another_recipe_is_another_image() -> None:
    assert image.recipe([]) == image.recipe([])
    assert image.recipe([]) != image.recipe(["a certificate"])


def test_a_host_lacks_what_install_has_to_bring() -> None:
    assert not {"nginx", "git", "python3-venv", "htop", "tmux"} & set(image.PACKAGES)
    assert {"systemd", "openssh-server", "sudo", "python3"} <= set(image.PACKAGES)


def test_only_missing_packages_are_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyring = tmp_path / "debian-archive-keyring.gpg"
    monkeypatch.setattr(packages, "KEYRING", keyring)
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name == "nft" else f"/x/{name}")
    assert packages.missing() == ["nftables", "debian-archive-keyring"]
    keyring.touch()
    assert packages.missing() == ["nftables"]


@pytest.mark.parametrize(
    ("platform", "user", "said"),
    [
        ("darwin", 0, "Rehearsal hosts need Linux. Use a Linux machine"),
        ("linux", 1000, "Rehearsal hosts need root. Run it again as root."),
    ],
)
def test_where_no_host_can_run_it_says_so_with_the_way_out(
    platform: str, user: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    group = Rehearsal(tmp_path, silent)
    assert str(group.why_not()).startswith(said)
    with pytest.raises(Exit, match=said):
        group.up()


@pytest.mark.parametrize(
    ("count", "suite", "said"),
    [(0, "bookworm", "--count is 0. Give 1 to"), (1, "hardy", "Choose one of bookworm, trixie")],
)
def test_what_cannot_be_had_is_refused_before_anything_is_made(
    count: int, suite: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = Rehearsal(tmp_path / "state", silent)
    monkeypatch.setattr(group, "why_not", lambda: None)
    with pytest.raises(Exit, match=said):
        group.up(count, suite)
    assert not group.state.exists()


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("one\n\x1b[0;1;31mFailed to boot.\x1b[0m\n \n", "Failed to boot"),
        ("", "no message"),
        ("E: no mirror", "E: no mirror"),
    ],
)
def test_the_last_line_of_a_log_is_told_without_its_colours(log: str, line: str) -> None:
    assert processes.last_line(log) == line


# ------------------------------------------------------------- what a host borrows from the machine

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://old.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] https://m.example/debian/ trixie main
deb-src https://m.example/debian trixie main
deb https://m.example/debian-security trixie-security main
#deb https://m.example/debian trixie-updates main
deb https://snap.example/a/debian/20250520T000000Z trixie-updates main
"""
OTHERS = """\
deb https://packages.example/cloud cloud-sdk-bookworm main
deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb http://archive.example/ubuntu noble main
deb https://download.example/linux/debian bookworm stable
deb file:/srv/debian bookworm main
"""


@pytest.mark.parametrize(
    ("texts", "suite", "expected"),
    [
        pytest.param(
            [DEB822],
            "bookworm",
            [
                "deb http://mirror.example/debian bookworm main",
                "deb http://mirror.example/debian bookworm-updates main",
                "deb http://mirror.example/debian-security/ bookworm-security main",
            ],
            id="deb822",
        ),
        pytest.param(
            [ONE_LINE],
            "bookworm",
            [
                "deb https://m.example/debian/ bookworm main",
                "deb https://snap.example/a/debian/20250520T000000Z bookworm-updates main",
                "deb https://m.example/debian-security bookworm-security main",
            ],
            id="one line, another suite",
        ),
        pytest.param([OTHERS], "trixie", [], id="only others"),
        pytest.param([], "trixie", [], id="none"),
    ],
)
def test_only_the_debian_archives_own_sources_are_taken_over(
    texts: list[str], suite: str, expected: list[str]
) -> None:
    assert borrowed.debian_sources(texts, suite) == expected


def test_the_mirror_is_where_the_release_itself_comes_from() -> None:
    sources = borrowed.debian_sources([DEB822], "trixie")
    assert borrowed.mirror(sources, "trixie") == "http://mirror.example/debian"
    assert borrowed.mirror([], "trixie") is None


def test_proxies_of_apt_are_taken_over_and_what_means_nothing_elsewhere_is_not() -> None:
    dump = """\
APT "";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "DIRECT";
Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
DPkg::Pre-Install-Pkgs:: "/usr/sbin/dpkg-preconfigure --apt || true";
"""
    assert borrowed.apt_settings(dump).splitlines() == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::Proxy "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["nameserver 192.0.2.53\nsearch example\n"], "nameserver 192.0.2.53\nsearch example\n"),
        (["# stub\nnameserver 127.0.0.53\n", "nameserver 192.0.2.1\n"], "nameserver 192.0.2.1\n"),
        (["nameserver 127.0.0.1\nnameserver 192.0.2.2\n"], "nameserver 192.0.2.2\n"),
        (["nameserver ::1\n"], ""),
    ],
)
def test_name_servers_on_the_machines_loopback_are_passed_over(
    texts: list[str], expected: str
) -> None:
    assert borrowed.nameservers(*texts) == expected


def certificate(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def test_private_certificates_are_those_that_the_distribution_does_not_know() -> None:
    bundle = f"# name\n{certificate('public')}{certificate('own')}{certificate('own')}"
    assert borrowed.private_certificates(bundle, certificate("public")) == [
        certificate("own").strip()
    ]


def test_pip_asks_the_same_index_but_never_a_folder_of_the_machine() -> None:
    files = [
        "[global]\nindex-url = https://pypi.example/simple\nfind-links = /opt/wheels\n",
        "[global]\nextra_index_url = file:///opt/a https://more.example/simple\n[list]\nx = 1\n",
    ]
    variables = {"PIP_TIMEOUT": "180", "PIP_FIND_LINKS": "/opt/wheels", "PIP_CERT": "/my/ca.pem"}
    assert borrowed.pip_settings(files, variables) == {
        "index-url": "https://pypi.example/simple",
        "extra-index-url": "https://more.example/simple",
        "timeout": "180",
    }


def test_pip_is_told_nothing_where_there_is_nothing_to_tell() -> None:
    assert borrowed.pip_conf({}, private=False) == ""
    assert borrowed.pip_conf({"timeout": "9"}, private=True) == (
        "[global]\ntimeout = 9\ncert = /etc/ssl/certs/ca-certificates.crt\n"
    )


@pytest.mark.parametrize(
    ("variables", "pip", "private", "expected"),
    [
        pytest.param({"HOME": "/root", "AWS_PROFILE": "real"}, {}, False, {}, id="plain"),
        pytest.param(
            {"HTTPS_PROXY": "http://proxy.example:1", "no_proxy": "intra"},
            {},
            False,
            {
                "HTTPS_PROXY": "http://proxy.example:1",
                "https_proxy": "http://proxy.example:1",
                "NO_PROXY": "intra,localhost,127.0.0.1,10.20.30.0/24",
                "no_proxy": "intra,localhost,127.0.0.1,10.20.30.0/24",
            },
            id="proxy",
        ),
        pytest.param({"http_proxy": "http://127.0.0.1:8080"}, {}, False, {}, id="loopback proxy"),
        pytest.param(
            {},
            {"index-url": "https://pypi.example/simple"},
            False,
            {"UV_DEFAULT_INDEX": "https://pypi.example/simple"},
            id="uv follows pip",
        ),
        pytest.param(
            {"UV_INDEX_URL": "https://uv.example/simple"},
            {"index-url": "https://pypi.example/simple"},
            False,
            {"UV_INDEX_URL": "https://uv.example/simple"},
            id="uv has its own",
        ),
        pytest.param(
            {},
            {},
            True,
            {
                "CURL_CA_BUNDLE": borrowed.BUNDLE,
                "PIP_CERT": borrowed.BUNDLE,
                "REQUESTS_CA_BUNDLE": borrowed.BUNDLE,
                "SSL_CERT_FILE": borrowed.BUNDLE,
                "UV_SYSTEM_CERTS": "1",
            },
            id="private certificates",
        ),
    ],
)
def test_sessions_on_a_host_reach_the_network_as_the_machine_does(
    variables: dict[str, str], pip: dict[str, str], private: bool, expected: dict[str, str]
) -> None:
    text = borrowed.environment(variables, pip, private, str(SUBNET))
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert found == {key: f'"{value}"' for key, value in expected.items()}


def test_sudo_keeps_what_a_session_has() -> None:
    assert borrowed.kept_by_sudo("") == ""
    assert borrowed.kept_by_sudo('A="1"\nB="2"\n') == 'Defaults env_keep += "A B"\n'
