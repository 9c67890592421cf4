"""Give a group of rehearsal hosts a network: one bridge, one subnet, one NAT rule.

What the kernel holds is the record. All names come from the group's, so that any later process
finds them again, and everything is gone by itself after a reboot of the machine.
"""

from __future__ import annotations

import json
import re
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit

from tasks.engine.records import dataclass
from tasks.rehearsal.trees import alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address

# One object of what `ip -json` or `nft --json` prints.
Entry = dict[str, Any]

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

# A table of this name means: forwarding was off before the first rehearsal host came.
FORWARDING_WAS_OFF = "sandbox_forwarding_was_off"

METADATA = "169.254.169.254"

PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")  # RFC 1918


@dataclass(frozen=True)
class Network:
    """The network of one group, known by the group's name alone."""

    group: str

    @property
    def bridge(self) -> str:
        """Name the bridge: 14 characters of the 15 that Linux allows for an interface."""
        return f"sandbox-{self.group}"

    @property
    def table(self) -> str:
        """Name the nftables table."""
        return f"sandbox_{self.group}"

    def subnet(self) -> IPv4Network | None:
        """Tell the subnet of the bridge as it stands, None when there is no bridge."""
        for link in _ip("address", "show"):
            if link.get("ifname") == self.bridge:
                for held in link["addr_info"]:
                    return IPv4Network(f"{held['local']}/{held['prefixlen']}", strict=False)
        return None

    def open(self) -> IPv4Network:
        """Make bridge, NAT rule and forwarding where they are missing; tell the subnet.

        Raises Exit when no private subnet is free or the kernel cannot do NAT.
        """
        with alone(Path("/run")):
            subnet = self.subnet()
            if subnet is None or self.table not in _tables():
                subnet = subnet or self._bridge(free_subnet(taken(), self.group))
                self._declare(subnet)
            _run("ip", "link", "set", self.bridge, "up")
            self._pass_firewalls()
            _forward()
        return subnet

    def lend_role(self, server: str | None) -> None:
        """Let ADDRESS:PORT answer for the instance metadata, as on EC2; nobody when None."""
        _run("nft", "flush", "chain", "ip", self.table, "role")
        if server:
            metadata = ["ip", "daddr", METADATA, "tcp", "dport", "80"]
            where = ["rule", "ip", self.table, "role", "iifname", f'"{self.bridge}"']
            _run("nft", "add", *where, *metadata, "dnat", "to", server)

    def close(self) -> None:
        """Take down whatever of it is there; the last group puts the machine back as it was."""
        with alone(Path("/run")):
            if _exists("ip", "link", "show", "dev", self.bridge):
                _run("ip", "link", "delete", self.bridge)
            if not _has_nft():
                return
            for family, table, chain, handle in rules_about(self.bridge, _ruleset()):
                _run("nft", "delete", "rule", family, table, chain, "handle", str(handle))
            tables = _tables()
            if self.table in tables:
                _run("nft", "delete", "table", "ip", self.table)
            if FORWARDING_WAS_OFF in tables and not groups(tables - {self.table}):
                FORWARDING.write_text("0")
                _run("nft", "delete", "table", "ip", FORWARDING_WAS_OFF)

    def _bridge(self, subnet: IPv4Network) -> IPv4Network:
        if not _exists("ip", "link", "show", "dev", self.bridge):
            _run("ip", "link", "add", self.bridge, "type", "bridge")
        _run(
            "ip",
            "address",
            "add",
            f"{gateway(subnet)}/{subnet.prefixlen}",
            "dev",
            self.bridge,
        )
        return subnet

    def _declare(self, subnet: IPv4Network) -> None:
        done = _nft(table(self.table, self.bridge, subnet))
        if done.returncode:
            raise Exit(
                "The kernel of this machine refuses an nftables NAT rule "
                f"({_last(done.stderr)}). Load the modules nf_tables, nft_masq and nft_reject, "
                "or use another machine."
            )

    def _pass_firewalls(self) -> None:
        ruleset = _ruleset()
        if not rules_about(self.bridge, ruleset):
            for rule in passes(self.bridge, ruleset):
                _run("nft", *rule)


def free_subnet(used: Iterable[IPv4Network], group: str) -> IPv4Network:
    """Choose a private /24 that overlaps nothing, preferably in 10.0.0.0/8.

    The search starts at a place that depends on the group, so that a group tends to find the
    same subnet again after a reboot. Raises Exit when all are taken.
    """
    used = list(used)
    for candidate in _candidates(int(group, 16)):
        if not any(candidate.overlaps(other) for other in used):
            return candidate
    raise Exit("No private subnet is free on this machine. Disconnect a VPN that claims them all.")


def taken() -> list[IPv4Network]:
    """List every IPv4 network that this machine already knows: addresses, routes, name servers."""
    addresses = [a for link in _ip("address", "show") for a in link.get("addr_info", [])]
    routes = _ip("route", "show", "table", "all")
    return [
        *known_networks(addresses, routes),
        *(IPv4Network(server) for server in _nameservers() if ":" not in server),
    ]


def known_networks(addresses: list[Entry], routes: list[Entry]) -> list[IPv4Network]:
    """Turn iproute2's addresses and routes into networks; the default route claims nothing."""
    networks = [
        IPv4Network(f"{held['local']}/{held['prefixlen']}", strict=False) for held in addresses
    ]
    for route in routes:
        if route["dst"] != "default":
            networks.append(IPv4Network(route["dst"], strict=False))
        if "gateway" in route:
            networks.append(IPv4Network(route["gateway"]))
    return networks


def gateway(subnet: IPv4Network) -> IPv4Address:
    """Name the machine's own address in the subnet: the first."""
    return subnet[1]


def address(subnet: IPv4Network, number: int) -> IPv4Address:
    """Name the address of host 1, 2, …: .11, .12, …"""
    return subnet[10 + number]


def table(name: str, bridge: str, subnet: IPv4Network) -> str:
    """Spell the table that lets the hosts out under the machine's address.

    Its own link-local services stay its own: on a cloud machine they hand out real keys.
    Declared, deleted and declared again in one transaction: right whether or not it was there.
    """
    return f"""\
table ip {name} {{ }}
delete table ip {name}
table ip {name} {{
  chain leave {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {subnet} ip daddr != {subnet} masquerade
  }}
  chain role {{
    type nat hook prerouting priority -100; policy accept;
  }}
  chain keep {{
    type filter hook forward priority 0; policy accept;
    iifname "{bridge}" ip daddr 169.254.0.0/16 reject
  }}
}}
"""


def passes(bridge: str, ruleset: list[Entry]) -> list[list[str]]:
    """Spell the accepting rules for each chain that drops what it does not know (Docker, ufw).

    An accept in a table of our own would not help: a packet must pass every chain of a hook.
    """
    rules = []
    for family, table, chain, hook in dropping(ruleset):
        sides = ("iifname", "oifname") if hook == "forward" else ("iifname",)
        for side in sides:
            where = ["insert", "rule", family, table, chain]
            rules.append([*where, side, f'"{bridge}"', "accept", "comment", f'"{bridge}"'])
    return rules


def dropping(ruleset: list[Entry]) -> list[tuple[str, str, str, str]]:
    """List (family, table, chain, hook) of the chains that drop by default what we need."""
    chains = [entry["chain"] for entry in ruleset if "chain" in entry]
    return [
        (chain["family"], chain["table"], chain["name"], chain["hook"])
        for chain in chains
        if chain.get("policy") == "drop"
        and chain.get("hook") in ("forward", "input")
        and chain["family"] in ("ip", "inet")
    ]


def rules_about(bridge: str, ruleset: list[Entry]) -> list[tuple[str, str, str, int]]:
    """List (family, table, chain, handle) of the rules that were added for a bridge."""
    rules = [entry["rule"] for entry in ruleset if "rule" in entry]
    return [
        (rule["family"], rule["table"], rule["chain"], rule["handle"])
        for rule in rules
        if rule.get("comment") == bridge
    ]


def groups(tables: Iterable[str]) -> list[str]:
    """List the groups of rehearsal hosts that have a table now."""
    return [table[8:] for table in sorted(tables) if re.fullmatch("sandbox_[0-9a-f]{6}", table)]


def others(network: Network) -> list[str]:
    """List the other groups that have a network on this machine now."""
    return [group for group in groups(_tables()) if group != network.group]


def firewalls() -> list[str]:
    """Name the chains of this machine that would drop the hosts' packets."""
    if not _has_nft():
        return []
    return [f"{family} {table} {chain}" for family, table, chain, _ in dropping(_ruleset())]


def _candidates(start: int) -> Iterator[IPv4Network]:
    for wide in PRIVATE_RANGES:
        base, count = IPv4Network(wide), 2 ** (24 - IPv4Network(wide).prefixlen)
        for step in range(count):
            yield IPv4Network((int(base[0]) + ((start + step) % count) * 256, 24))


def _forward() -> None:
    if FORWARDING.read_text().strip() == "0":
        _run("nft", "add", "table", "ip", FORWARDING_WAS_OFF)
        FORWARDING.write_text("1")


def _nameservers() -> list[str]:
    words = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]


def _tables() -> set[str]:
    if not _has_nft():
        return set()
    return {entry["table"]["name"] for entry in _json("nft", "--json", "list", "tables")}


def _ruleset() -> list[Entry]:
    return _json("nft", "--json", "--handle", "list", "ruleset")


def _has_nft() -> bool:
    return _exists("nft", "list", "tables")


def _json(*argv: str) -> list[Entry]:
    entries = json.loads(_run(*argv))["nftables"]
    return [entry for entry in entries if "metainfo" not in entry]


def _ip(*argv: str) -> list[Entry]:
    # iproute2 prints {} for an interface that another option has filtered out.
    return [entry for entry in json.loads(_run("ip", "-json", "-4", *argv) or "[]") if entry]


def _nft(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True)


def _exists(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _run(*argv: str) -> str:
    done = subprocess.run(argv, text=True, capture_output=True)
    if done.returncode:
        raise Exit(f"`{' '.join(argv)}` failed: {_last(done.stderr)}. Fix that and try again.")
    return done.stdout


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^~")]
    return lines[0] if lines else "no message"
