"""What can be wrong with the machine itself: sudo, disks, clock, other units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.service import TIMED
from tasks.engine.facts import sudo_trouble
from tasks.engine.tables import counted, size_text
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding
    from tasks.findings.symptoms import Mount

# A disk with less than this is full for SQLite, nginx and the journal alike.
FULL_KB = 100 * 1024

NEARLY = 0.10  # of a file system's room; below, and below NEARLY_KB, it is nearly full

NEARLY_KB = 5 * 1024 * 1024

SCARCE = 0.05  # of the memory that can be had; below, the kernel evicts what programs run from

# AWS's documentation of RequestTimeTooSkewed: S3 takes 15 minutes; other AWS services take 5.
SKEW = 300


def host(case: Case) -> Iterator[Finding]:
    facts, symptoms = case.facts, case.symptoms
    if not facts.sudo:
        what, allowing = sudo_trouble(facts)
        yield case.finding(
            "sudo",
            f"{what}: much can neither be seen nor mended.",
            "`sudo -n true` on the host",
            Remedy(
                "Log in as a user whom it does not ask, or allow it:",
                type=(case.ssh(allowing, terminal=True),),
            )
            if allowing
            else Remedy("Log in as a user whom it lets, or fix that on the host."),
        )
    for mount in symptoms.mounts:
        yield from _disk(case, mount)
    yield from _clock(case)
    yield from _network(case)
    yield from _packages(case)
    yield from _kernel(case)
    ours = {f"{case.unit}-{name}.service" for name in TIMED}  # findings of their own
    if symptoms.renewal_failed:
        ours.add("certbot.service")
    if others := [name for name in symptoms.failed if name not in ours]:
        names = ", ".join(others)
        yield case.finding(
            "other-units",
            f"Other units of the host have failed: {names}.",
            "systemctl --failed",
            Remedy(
                "Look why, and fix or disable them.",
                type=tuple(case.ssh(f"systemctl status --no-pager {name}") for name in others[:3]),
            ),
            severity="note",
        )
    if symptoms.reboot:
        yield case.finding(
            "reboot",
            "The host wants a reboot after an update of its system.",
            "/run/reboot-required",
            Remedy("The server comes back by itself.", type=(case.ssh("sudo systemctl reboot"),)),
            severity="note",
        )


def _network(case: Case) -> Iterator[Finding]:
    symptoms = case.symptoms
    if not symptoms.routed:
        yield case.finding(
            "route-none",
            "The host has no default route: it reaches nothing beyond its own network.",
            "ip route show default",
            Remedy(
                "Bring the interface up anew by what manages it, or reboot; the server comes back "
                "by itself.",
                type=(case.ssh("ip -br address; ip route; networkctl --no-pager status"),),
            ),
        )
    if symptoms.unresolved:
        name, why = symptoms.unresolved["name"], symptoms.unresolved["why"]
        yield case.finding(
            "names-unresolved",
            f"No name server answers the host: apt, uv, certbot and AWS find no address ({why}).",
            f"the host asked for {name}",
            Remedy(
                "Fix what /etc/resolv.conf names, or the way there (UDP and TCP port 53); then:",
                type=(
                    case.ssh(
                        "cat /etc/resolv.conf; "
                        "systemctl is-active --quiet systemd-resolved && "
                        "sudo systemctl restart systemd-resolved; "
                        f"getent ahosts {name}"
                    ),
                ),
            ),
        )


def _packages(case: Case) -> Iterator[Finding]:
    symptoms = case.symptoms
    if symptoms.apt_holder:
        pid, name = symptoms.apt_holder
        yield case.finding(
            "apt-held",
            f"{name} (process {pid}) has held apt's lock for more than an hour: no update and no "
            "installation gets through.",
            "/proc/locks, ps",
            Remedy("End it if it hangs:", script=f"sudo kill {pid}", safe=False),
        )
    if symptoms.dpkg is not None:
        which = f": {symptoms.dpkg}" if symptoms.dpkg else ""
        yield case.finding(
            "dpkg-broken",
            f"An installation of packages was cut off{which}. apt installs nothing until it is "
            "finished.",
            "dpkg --audit, /var/lib/dpkg/updates",
            Remedy(
                script="sudo DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold "
                "--configure -a"
            ),
        )


def _kernel(case: Case) -> Iterator[Finding]:
    symptoms, memory = case.symptoms, case.symptoms.memory
    look = case.ssh("free -m; ps aux --sort=-rss | head -n 5")
    if memory and (
        memory.free_kb < SCARCE * memory.kb
        or (memory.swap_kb and memory.free_swap_kb < NEARLY * memory.swap_kb)
    ):
        swap = f", and {memory.free_swap_kb / 1024:.0f} of {memory.swap_kb / 1024:.0f} MB of swap"
        yield case.finding(
            "memory-scarce",
            "The host's memory is used up: everything on it becomes slow, and the kernel ends what "
            "takes the most.",
            f"/proc/meminfo: {memory.free_kb / 1024:.0f} of {memory.kb / 1024:.0f} MB can be had"
            + (swap if memory.swap_kb else ""),
            Remedy(
                "End what is not needed, set fewer `workers:` and deploy, or take a larger "
                "instance.",
                type=(look,),
            ),
        )
    # The server's own are a finding of its own.
    if symptoms.killed and not symptoms.out_of_memory:
        names = ", ".join(
            f"{name} ({counted(count, 'time')})" for name, count in symptoms.killed.items()
        )
        yield case.finding(
            "out-of-memory-beside",
            f"The kernel has ended programs for want of memory since yesterday: {names}.",
            "journalctl -k",
            Remedy("What the host does beside MLflow needs more than it has.", type=(look,)),
            severity="note",
        )
    if symptoms.disk_error:
        yield case.finding(
            "disk-errors",
            f"The kernel has met errors of a disk since yesterday: {symptoms.disk_error}",
            "journalctl -k",
            Remedy(
                "Make a backup now, take a snapshot of the volume, and replace it.",
                type=(case.fab("backup"),),
            ),
        )


def _disk(case: Case, mount: Mount) -> Iterator[Finding]:
    free = f"{mount.free_kb / 1024**2:.1f} of {mount.kb / 1024**2:.1f} GB"
    seen = f"df: {mount.path} has {free} free"
    if mount.inodes and mount.free_inodes / mount.inodes < NEARLY:
        seen += f", and {mount.free_inodes} of {mount.inodes} inodes"
    if mount.read_only:
        yield case.finding(
            "disk-read-only",
            f"The file system {mount.path} can only be read: often a disk that has failed.",
            "/proc/mounts says ro",
            Remedy(
                "Take a snapshot of the volume, then look at the kernel's log.",
                type=(case.ssh("sudo dmesg | tail -n 30"),),
            ),
        )
        return
    full = mount.free_kb < FULL_KB or mount.free_share < 0.001
    nearly = mount.free_share < NEARLY and (
        mount.free_kb < NEARLY_KB or mount.free_kb / max(mount.kb, 1) >= NEARLY
    )
    if not (full or nearly):
        return
    largest = [_size(line) for line in case.symptoms.large]
    where = f" The largest files: {', '.join(largest)}." if largest else ""
    yield case.finding(
        "disk-full" if full else "disk-nearly-full",
        f"The disk is {'full' if full else 'nearly full'}: {mount.path}.{where}",
        seen,
        Remedy(
            "Remove what is not needed (the lines below free what always may go), or enlarge the "
            "volume.",
            type=(case.ssh("sudo journalctl --vacuum-size=100M; sudo apt-get clean"),),
        ),
    )


def _size(line: str) -> str:
    size, _, path = line.partition(" ")
    return f"{path} ({size_text(int(size))})"


def _clock(case: Case) -> Iterator[Finding]:
    symptoms = case.symptoms
    against = "S3's clock" if symptoms.skew is not None else "this machine's clock"
    skew = symptoms.skew if symptoms.skew is not None else case.facts.now - case.here.now
    refused = (symptoms.bucket or {}).get("kind") == "clock"
    synchronise = (
        "sudo apt-get install -y systemd-timesyncd; sudo timedatectl set-ntp true; "
        "sudo systemctl restart systemd-timesyncd"
    )
    if abs(skew) > SKEW or refused:
        off = counted(round(abs(skew) / 60), "minute")
        way = "ahead" if skew > 0 else "behind"
        yield case.finding(
            "clock",
            f"The host's clock is {off} {way}: S3 refuses its requests.",
            f"compared with {against}",
            Remedy(script=synchronise),
        )
    elif not symptoms.synchronised:
        yield case.finding(
            "clock-alone",
            "Nothing keeps the host's clock right; S3 refuses it when it is off.",
            "timedatectl: NTPSynchronized=no",
            Remedy(script=synchronise),
            severity="note",
        )
