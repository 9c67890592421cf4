"""What apt is asked for, and what goes on beside it."""

from __future__ import annotations

import shlex

from host_side import Machine

from tasks.engine.templates import source


def apt(machine: Machine, script: str, packages: str = "nginx git", beside: str = "") -> list[str]:
    """Install packages with an apt-get that answers as it is told; `beside` runs beside git."""
    for name, body in {
        "apt-get": script,
        "sudo": 'shift; exec "$@"',
        "sleep": "exit 0",
        "systemctl": f'echo "$*" >> "{machine.folder}/systemctl"',
        "dpkg-query": "exit 1",
        "dpkg": "exit 0",
    }.items():
        machine.stub(name, body)
    words = f"packages={shlex.quote(packages)} first=python3-venv\n"
    if beside:
        words += f"beside() {{\n{beside}\n}}\n"
    return machine.change(f"{words}{source('install_packages.sh')}")


def test_packages_are_installed_without_a_question(machine):
    lines = apt(
        machine,
        f'echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND $*" >> "{machine.folder}/apt"',
        "git curl",
    )
    assert lines[-1] == "@exit 0"
    update, install = (machine.folder / "apt").read_text().splitlines()
    assert update.startswith("noninteractive 1 -q -y ")
    assert update.endswith(" -o Acquire::Languages=none -o APT::Get::List-Cleanup=false update")
    assert install.endswith(" install --no-install-recommends git curl")
    assert "--force-confold" in install


def test_what_apt_is_doing_is_told_once_each_and_kept_out_of_its_output(machine):
    status = "printf '%s\\n' {} 'E: broken' && exit 100"
    lines = apt(
        machine,
        status.format(
            "'dlstatus:1:0.0:Retrieving file 1 of 2 (9s remaining)' "
            "'dlstatus:1:5.0:Retrieving file 1 of 2 (8s remaining)' "
            "'pmstatus:nginx:50.0:Unpacking nginx (amd64)'"
        ),
    )
    told = [line for line in lines if line.startswith("@now")]
    assert told == ["@now apt: retrieving file 1 of 2", "@now apt: unpacking nginx"]
    assert [line for line in lines if not line.startswith("@")] == ["E: broken"]
    assert lines[-1] == "@exit 1"


def test_a_held_apt_lock_is_waited_for_and_said_once(machine):
    held = (
        'n=$(cat "$0.n" 2>/dev/null || echo 0); echo $((n + 1)) > "$0.n"\n'
        'if [ "$n" -lt 3 ]; then echo "E: Could not get lock /var/lib/dpkg/lock-frontend. '
        'It is held by process 4711 (unattended-upgr)" >&2; exit 100; fi'
    )
    lines = apt(machine, held)
    assert lines[-1] == "@exit 0"
    assert [line for line in lines if "apt is busy" in line] == [
        "@say apt is busy with something else (process 4711 (unattended-upgr)), as on every new "
        "instance; waiting"
    ]


def test_a_host_without_network_is_told_so(machine):
    lines = apt(machine, 'echo "E: Temporary failure resolving archive.example.org"; exit 100')
    assert lines[-1] == "@exit 1"
    assert any(line.startswith("@fail The host cannot reach its package archive") for line in lines)


def test_environments_are_made_while_apt_installs_all_but_what_they_need(machine):
    noted = f'echo "$*" >> "{machine.folder}/apt"'
    lines = apt(
        machine,
        f'{noted}; case "$*" in *" git") until [ -e "$HOME/made" ]; do /bin/sleep 0.1; done;; esac',
        "python3-venv git",
        beside='echo one >> "$HOME/made"',
    )
    assert lines[-1] == "@exit 0"
    asked = [line.split()[-1] for line in (machine.folder / "apt").read_text().splitlines()]
    assert asked[:2] == ["update", "python3-venv"]
    assert (machine.home / "made").read_text() == "one\n", "once, while apt was at work"


def test_what_failed_beside_apt_is_done_again_and_says_why(machine):
    again = 'echo x >> "$HOME/tried"; [ "$(wc -l < "$HOME/tried")" = 2 ] || fail "no network"'
    assert apt(machine, "exit 0", "git", beside=again) == ["@say what", "@exit 0"]
    (machine.home / "tried").unlink()
    lines = apt(machine, "exit 0", "git", beside='echo x >> "$HOME/tried"; fail "no network"')
    assert lines[-2:] == ["@fail no network", "@exit 1"]
    assert (machine.home / "tried").read_text() == "x\nx\n"


def test_what_runs_beside_an_apt_that_fails_comes_to_its_end(machine):
    broken = 'case "$*" in *" git") exit 1;; esac'
    lines = apt(machine, broken, "git", beside='/bin/sleep 1; touch "$HOME/made"')
    assert lines[-1] == "@exit 1"
    assert (machine.home / "made").exists()


def test_a_fresh_nginx_never_starts_by_itself(machine):
    apt(machine, "exit 0")
    assert (machine.folder / "systemctl").read_text().splitlines() == [
        "mask --runtime --quiet nginx.service",
        "unmask --runtime --quiet nginx.service",
    ]
