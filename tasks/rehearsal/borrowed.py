"""What a rehearsal host borrows from the machine it runs on, to reach the network the same way.

Package sources, proxies, name servers, private certificates and package indexes: read from the
machine's own configuration, as pure functions of text.
"""

from __future__ import annotations

import configparser
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

SUFFIXES = ("", "-updates", "-security")

# Proxies and settings that work from any address; one on the loopback would not.
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")

INDEXES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
)

PIP = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
)


def debian_sources(texts: Iterable[str], suite: str) -> list[str]:
    """Turn the machine's apt sources into those of a suite, one `deb …` line each.

    Only the Debian archive's own entries count (release, updates, security), in either of apt's
    formats; what else the machine installs from is its own affair. Empty when there are none.
    """
    lines = []
    for uri, name, components, signed_by in _entries(texts):
        suffix = _suffix(name)
        if suffix is None or "main" not in components or not _is_debian(uri, signed_by):
            continue
        lines.append(f"deb {uri} {suite}{suffix} main")
    return sorted(set(lines), key=lambda line: SUFFIXES.index(line.split()[2][len(suite) :]))


def mirror(sources: list[str], suite: str) -> str | None:
    """Name the URL that a suite's release itself comes from."""
    return next((line.split()[1] for line in sources if line.split()[2] == suite), None)


def apt_settings(dump: str) -> str:
    """Pick from `apt-config dump` what concerns reaching the archive: proxies, retries, dates."""
    wanted = r"Acquire::((https?|ftp)::|Check-|Retries|ForceIPv[46]).*"
    # A value that is a path (a proxy detector, a key) means nothing on another host.
    lines = [line for line in dump.splitlines() if re.fullmatch(wanted, line) and '"/' not in line]
    return "".join(f"{line}\n" for line in lines if '""' not in line)


def nameservers(*texts: str) -> str:
    """Keep from the first resolv.conf that has any the name servers that a host can reach.

    One on the machine's loopback cannot be; systemd-resolved names the real ones elsewhere.
    """
    for text in texts:
        lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
        reachable = [line for line in lines if not re.match(r"nameserver\s+(127\.|::1)", line)]
        if any(line.startswith("nameserver") for line in reachable):
            return "".join(f"{line}\n" for line in reachable)
    return ""


def private_certificates(bundle: str, public: str) -> list[str]:
    """List the certificates that the machine trusts beyond the distribution's own."""
    known = set(_certificates(public))
    return [block for block in dict.fromkeys(_certificates(bundle)) if block not in known]


def pip_settings(texts: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Collect pip's index settings; files first, then PIP_… variables, as pip itself does.

    An index that is a folder of the machine is left out.
    """
    found: dict[str, str] = {}
    for text in texts:
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(text)
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {k.replace("_", "-"): v for k, v in parser.items(section)}
    for key in PIP:
        variable = f"PIP_{key.upper().replace('-', '_')}"
        if variable in environment:
            found[key] = environment[variable]
    kept = {key: _remote(found[key]) for key in PIP if key in found}
    return {key: value for key, value in kept.items() if value}


def pip_conf(settings: Mapping[str, str], private: bool) -> str:
    """Spell /etc/pip.conf; empty when there is nothing to say."""
    lines = [f"{key} = {value}\n" for key, value in settings.items()]
    if private:
        lines.append(f"cert = {BUNDLE}\n")
    return "".join(["[global]\n", *lines]) if lines else ""


def environment(
    machine: Mapping[str, str], pip: Mapping[str, str], private: bool, near: str
) -> str:
    """Spell /etc/environment, which every session gets through PAM, also one without a login.

    `near` is what a proxy is never asked for: the hosts' own network. Empty when nothing is needed.
    """
    lower = {key.lower(): value for key, value in machine.items() if value}
    found = {key: lower[key] for key in PROXIES if key in lower and not _on_loopback(lower[key])}
    if found:
        direct = [lower.get("no_proxy", ""), "localhost", "127.0.0.1", near]
        found["no_proxy"] = ",".join(filter(None, direct))
        found |= {key.upper(): value for key, value in found.items()}
    found |= {key: machine[key] for key in INDEXES if _remote(machine.get(key, ""))}
    if "index-url" in pip and not any("INDEX" in key for key in found):
        found["UV_DEFAULT_INDEX"] = pip["index-url"]
    if private:
        bundles = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
        found |= dict.fromkeys(bundles, BUNDLE) | {"UV_SYSTEM_CERTS": "1"}
    return "".join(f'{key}="{value}"\n' for key, value in sorted(found.items()))


def kept_by_sudo(environment: str) -> str:
    """Spell the sudo rule that lets administrators' commands reach the network, too."""
    names = [line.partition("=")[0] for line in environment.splitlines()]
    return f'Defaults env_keep += "{" ".join(names)}"\n' if names else ""


def _entries(texts: Iterable[str]) -> Iterable[tuple[str, str, list[str], str]]:
    for text in texts:
        kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        yield from _one_line_entries(kept)
        yield from _deb822_entries(kept)


def _one_line_entries(text: str) -> Iterable[tuple[str, str, list[str], str]]:
    for options, uri, name, components in re.findall(
        r"^deb[ \t]+(?:\[([^]]*)\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]+(.*)$",
        text,
        re.MULTILINE,
    ):
        signed_by = re.search(r"signed-by=(\S+)", options)
        yield uri, name, components.split(), signed_by[1] if signed_by else ""


def _deb822_entries(text: str) -> Iterable[tuple[str, str, list[str], str]]:
    for stanza in re.split(r"\n\s*\n", text):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {
            key.lower(): value.strip()
            for key, separator, value in (line.partition(":") for line in unfolded.splitlines())
            if separator
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
            continue
        for uri in fields.get("uris", "").split():
            for name in fields.get("suites", "").split():
                components = fields.get("components", "").split()
                yield uri, name, components, fields.get("signed-by", "")


def _suffix(name: str) -> str | None:
    release, _, rest = name.partition("/")
    if rest == "updates":  # how the security suite was named up to Debian 10
        return "-security"
    base, dash, kind = release.partition("-")
    suffix = f"{dash}{kind}"
    return suffix if base.isalpha() and suffix in SUFFIXES and not rest else None


def _is_debian(uri: str, signed_by: str) -> bool:
    # …/debian, …/debian-security, or a dated snapshot of them. Others keep their packages under
    # such a path, too, but sign with a key of their own.
    archive = re.search(r"/debian(-security)?(/\d{8}T\d{6}Z)?/?$", uri)
    foreign = signed_by and "debian-archive" not in signed_by and "BEGIN PGP" not in signed_by
    return uri.startswith(("http:", "https:")) and bool(archive) and not foreign


def _certificates(bundle: str) -> list[str]:
    pattern = r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
    return [block.replace("\r", "") for block in re.findall(pattern, bundle, re.DOTALL)]


def _remote(value: str) -> str:
    return " ".join(word for word in value.split() if not re.match(r"file:|/|\./|~", word))


def _on_loopback(url: str) -> bool:
    return bool(re.search(r"//(.*@)?(localhost|127\.|\[::1\])", url))
