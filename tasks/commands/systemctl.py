"""systemctl, as root."""

from tasks.commands import sh


def start(*units: str) -> str:
    return sh("systemctl", "start", *units)


def stop(*units: str) -> str:
    return sh("systemctl", "stop", *units)


def restart(*units: str) -> str:
    return sh("systemctl", "restart", *units)
