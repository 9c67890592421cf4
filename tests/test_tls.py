"""A name is certified, guarded and kept: what is decided, refused, sent and told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from invoke import Exit
from stand_ins import ROOT, SETTINGS, Reply, blank, configured, context, deployed, sha256

from tasks import tls
from tasks.changes import certificates
from tasks.changes import deploy as deploy_changes
from tasks.changes import tls as tls_changes
from tasks.changes.tls import Certified
from tasks.engine.facts import Facts, Managed, Tls
from tasks.engine.login import Login
from tasks.engine.settings import Settings

NAME = "mlflow.example.org"
ACME = Tls(NAME, tls_changes.LETS_ENCRYPT)
OWN = Tls(NAME, "own")
LOGIN = Login("admin", "a long password")
NOW = datetime.now(timezone.utc)
CERTIFICATE = "/etc/ssl/certs/mlflow-server.pem"
KEY = "/etc/ssl/private/mlflow-server.key"


def served(who: Tls = ACME, settings: Settings = SETTINGS, **values: Any) -> Facts:
    """A deployed host that serves a name, with a certificate for 60 days more."""
    facts = deployed(settings, tls=who)
    return replace(facts, **({"certificate_until": facts.now + 60 * 86400} | values))


# -- certificates made here --------------------------------------------------------------------


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signed(
    subject: str,
    of: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...] = (),
    days: tuple[int, int] = (-1, 30),
) -> bytes:
    """Make a certificate in PEM; `days` from now it begins and ends."""

    def called(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(called(subject))
        .issuer_name(called(issuer))
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(of: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    lock: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    return of.private_bytes(serialization.Encoding.PEM, form, lock)


SERVER, AUTHORITY = key(), key()
ROOT_OF_ALL = signed("root", AUTHORITY, "root", AUTHORITY)
GOOD = signed("server", SERVER, "root", AUTHORITY, (NAME,))


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Write certificate and key; returns their paths as they are typed."""

    def written(certificate: bytes, secret: bytes) -> tuple[str, str]:
        (tmp_path / "c.pem").write_bytes(certificate)
        (tmp_path / "k.pem").write_bytes(secret)
        return str(tmp_path / "c.pem"), str(tmp_path / "k.pem")

    return written


# -- what was typed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("203.0.113.10", {"email": "a@b.c"}, "is an address"),
        ("2001:db8::1", {"email": "a@b.c"}, "is an address"),
        ("localhost", {"email": "a@b.c"}, "is no DNS name"),
        ("https://x.org", {"email": "a@b.c"}, "is no DNS name"),
        ("a b.org", {"email": "a@b.c"}, "is no DNS name"),
        ("-a.org", {"email": "a@b.c"}, "is no DNS name"),
        ("*.example.org", {"email": "a@b.c"}, "is no DNS name"),
        ("a.org; reboot", {"email": "a@b.c"}, "is no DNS name"),
        (f"{'a' * 64}.org", {"email": "a@b.c"}, "is no DNS name"),
        (NAME, {}, "Add --email you@example.org"),
        (NAME, {"email": "me"}, "Add --email you@example.org"),
        (NAME, {"email": "@"}, "Add --email you@example.org"),
        (NAME, {"certificate": "c.pem"}, "--certificate and --key belong together"),
        (NAME, {"key": "k.pem"}, "--certificate and --key belong together"),
        (NAME, {"certificate": "c", "key": "k", "email": "a@b.c"}, "Give one or the other"),
        (NAME, {"certificate": "c", "key": "k", "acme_url": "https://a"}, "Give one or the other"),
        (NAME, {"certificate": "/no/c", "key": "k"}, "--certificate /no/c cannot be read: No such"),
        (NAME, {"email": "a@b.c", "acme_url": "http://a"}, "Give the address of an ACME directory"),
        (NAME, {"email": "a@b.c", "acme_ca": "/no/ca"}, "--acme-ca /no/ca cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_connection(name, options, reason):
    assert tls.enable.options is tls.refuse_nonsense
    with pytest.raises(Exit, match=reason.replace("*", r"\*")):
        tls.refuse_nonsense(name, **options)


@pytest.mark.parametrize("name", [NAME, "MLflow.Example.ORG", "a.b", "xn--bcher-kva.example"])
def test_a_dns_name_and_an_address_for_warnings_are_enough(name):
    tls.refuse_nonsense(name, email="me@example.org")


def test_a_pair_that_fits_is_taken(files):
    certificate, secret = files(GOOD + ROOT_OF_ALL, pem(SERVER))
    tls.refuse_nonsense(NAME, certificate=certificate, key=secret)
    chain, read = certificates.own_pair(NAME, certificate, secret)
    assert (chain.encode(), read.encode()) == (GOOD + ROOT_OF_ALL, pem(SERVER))


OTHER = key()


@pytest.mark.parametrize(
    ("certificate", "secret", "reason"),
    [
        (GOOD, pem(OTHER), r"k.pem is not the key of .*c.pem"),
        (GOOD, GOOD, "holds no private key"),
        (pem(SERVER), pem(SERVER), "holds no certificate"),
        (b"\x30\x82", pem(SERVER), "is not PEM|cannot be read"),
        (GOOD, pem(SERVER, b"locked"), "locked with a passphrase.*openssl pkey"),
        (signed("s", SERVER, "root", AUTHORITY, ("other.org",)), pem(SERVER),
         f"is for other.org, not for {NAME}"),
        (signed(NAME, SERVER, "root", AUTHORITY), pem(SERVER), "is for no name at all"),
        (signed("s", SERVER, "root", AUTHORITY, (NAME,), (-30, -1)), pem(SERVER), "not today"),
        (signed("s", SERVER, "root", AUTHORITY, (NAME,), (1, 30)), pem(SERVER), "not today"),
        (GOOD + signed("stranger", OTHER, "stranger", OTHER), pem(SERVER),
         "is in disorder: after the certificate of CN=server must come that of CN=root"),
        (ROOT_OF_ALL + GOOD, pem(SERVER), "is not the key of"),
    ],
)  # fmt: skip
def test_a_pair_that_does_not_fit_is_named(files, certificate, secret, reason):
    with pytest.raises(Exit, match=reason):
        certificates.own_pair(NAME, *files(certificate, secret))


@pytest.mark.parametrize(
    ("known", "name", "wanted"),
    [
        (NAME, NAME.upper(), True),
        ("*.example.org", NAME, True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.b.example.org", False),
        ("*.org", NAME, False),
        ("other.example.org", NAME, False),
    ],
)
def test_a_star_stands_for_one_label(known, name, wanted):
    assert certificates.covers(known, name) is wanted


def test_one_name_is_not_given_to_two_hosts():
    assert tls.enable.check is tls.one_host
    with pytest.raises(Exit, match="A name belongs to one host"):
        tls.one_host([context(blank()).server, context(blank(), alias="b").server])


# -- enable ------------------------------------------------------------------------------------


def test_the_authority_is_asked_before_anything_is_shipped(capsys):
    c = context(deployed())
    tls.enable(c, NAME, email="me@example.org")
    (run,) = c.recorder.changes
    assert run.steps.index("certbot certonly") < run.steps.index('say "put $path"')
    assert f"name={NAME} email=me@example.org\n" in run.steps
    assert f"authority={tls_changes.LETS_ENCRYPT} addresses=" in run.steps
    assert f"server_name {NAME};" in run.files["challenge.conf"]
    places = run.files["places"].splitlines()
    assert [line.split("\t")[2] for line in places] == [
        "/etc/nginx/sites-available/mlflow-server",
        f"{ROOT}/start_mlflow_server.sh",
        f"{ROOT}/.tls",
    ]
    assert run.files["file2"] == f"{NAME} {tls_changes.LETS_ENCRYPT}\n"
    assert " restart=yes\n" in run.steps
    assert f"tls_name={NAME} certificate=/etc/letsencrypt/live/{NAME}/fullchain.pem" in run.steps
    out = capsys.readouterr().out
    assert f"✓ MLflow is at https://{NAME}" in out
    assert f"set `public_name: {NAME}` in fabric.yaml" in out


def test_the_same_again_is_nothing(capsys):
    c = context(served())
    tls.enable(c, NAME, email="me@example.org")
    tls.enable(c, NAME.upper(), email="me@example.org")
    assert c.recorder.runs == []
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        (served(certificate_until=None), True),
        (served(certificate_until=1_799_999_999), True),
        (served(Tls(NAME, "https://trial.example/dir")), True),
        (served(OWN), True),
        (served(Tls("former.example.org", tls_changes.LETS_ENCRYPT)), True),
        # Its certificate is good: only the server is put right.
        (served(well=None), False),
    ],
)
def test_a_certificate_is_asked_for_only_where_there_is_none_that_will_do(facts, asked):
    changes = tls_changes.enabling(SETTINGS, facts, LOGIN, Certified(ACME, email="me@example.org"))
    assert changes
    assert ("certbot certonly" in changes[0].script) is asked


def test_what_the_former_name_needed_is_taken_away():
    former = served(Tls("former.example.org", tls_changes.LETS_ENCRYPT))
    assert "uncertified=former.example.org unused=''" in (
        tls_changes.enabling(SETTINGS, former, LOGIN, Certified(ACME))[-1].script
    )
    (change,) = tls_changes.forgetting(SETTINGS, served(OWN), ACME)
    assert f"unused='{CERTIFICATE} {KEY}'" in change.script
    (change,) = tls_changes.forgetting(SETTINGS, served(), OWN)
    assert f"uncertified={NAME} " in change.script
    assert tls_changes.forgetting(SETTINGS, served(OWN), OWN) == []
    assert tls_changes.forgetting(SETTINGS, deployed(), ACME) == []


def test_an_authority_s_own_ca_travels_with_it(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(ROOT_OF_ALL)
    c = context(deployed())
    tls.enable(c, NAME, email="a@b.c", acme_url="https://ca.example/dir", acme_ca=str(ca))
    (run,) = c.recorder.changes
    assert run.files["authority.pem"] == ROOT_OF_ALL.decode()
    assert "authority=https://ca.example/dir " in run.steps


def test_an_own_certificate_travels_on_standard_input_and_asks_nobody(files):
    certificate, secret = files(GOOD, pem(SERVER))
    c = context(deployed())
    tls.enable(c, NAME, certificate=certificate, key=secret)
    (run,) = c.recorder.changes
    assert "certbot certonly" not in run.steps
    assert f"\t600\t{KEY}\n" in run.files["places"]
    assert f"\t644\t{CERTIFICATE}\n" in run.files["places"]
    assert pem(SERVER).decode() in run.files.values()
    assert "PRIVATE" not in run.steps + run.command
    assert f"ssl_certificate_key {KEY};" in run.files["file0"]


@pytest.mark.parametrize(("there", "runs"), [(GOOD, 0), (ROOT_OF_ALL, 1)])
def test_a_new_own_certificate_is_a_reload_and_the_same_is_nothing(files, there, runs):
    certificate, secret = files(GOOD, pem(SERVER))
    lying = {CERTIFICATE: Managed(sha256(there.decode()), "644")}
    facts = served(OWN)
    c = context(replace(facts, files=facts.files | lying))
    tls.enable(c, NAME, certificate=certificate, key=secret)
    assert len(c.recorder.changes) == runs
    for run in c.recorder.changes:
        assert " restart=no\n" in run.steps


def test_a_name_that_the_settings_do_not_say_is_refused():
    settings = Settings(bucket="my-bucket", public_name="other.example.org")
    with pytest.raises(Exit, match=f"Set `public_name: {NAME}` under `mlflow:`"):
        tls.enable(context(deployed(settings), settings), NAME, email="a@b.c")


@pytest.mark.parametrize("facts", [blank(), configured()])
def test_a_host_without_a_server_gets_no_name(facts):
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        tls.enable(context(facts), NAME, email="a@b.c")


# -- what the name is kept by ------------------------------------------------------------------


def test_a_deploy_keeps_the_name_whatever_the_settings_say():
    facts = served()
    assert deploy_changes.changes(SETTINGS, facts, LOGIN) == []
    gone = replace(facts, files={k: v for k, v in facts.files.items() if "nginx" not in k})
    (change,) = deploy_changes.changes(SETTINGS, gone, LOGIN)
    assert f"server_name {NAME};" in str(change.files["file0"])
    assert f"tls_name={NAME} " in change.script


def test_without_a_name_nobody_looks_for_one():
    (change,) = deploy_changes.changes(SETTINGS, replace(deployed(), well=None), LOGIN)
    assert "\ntls_name= certificate=\n" in change.script


# -- disable, renew, show ----------------------------------------------------------------------


def test_disable_asks_and_says_what_it_means():
    c = context(served())
    with pytest.raises(Exit, match=f"Take https://{NAME} away from ec2 .* needs a confirmation"):
        tls.disable(c)
    assert c.recorder.runs == []


def test_disable_closes_the_doors_first_and_forgets_last(capsys):
    c = context(served())
    tls.disable(c, yes=True)
    (run,) = c.recorder.changes
    assert "listen 443" not in run.files["file0"]
    assert "tls_name= certificate=\n" in run.steps
    assert f"uncertified={NAME} " in run.steps
    assert f"unused='{tls_changes.authority_path(SETTINGS)} {ROOT}/.tls'" in run.steps
    assert run.steps.index("nginx -t") < run.steps.index("uncertified=")
    assert "the way in is the tunnel: ./fab -H ec2 tunnel" in capsys.readouterr().out


def test_disable_where_nothing_is_costs_nothing(capsys):
    c = context(deployed())
    tls.disable(c)
    assert c.recorder.runs == []
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("force", "report", "said"),
    [
        (False, "same\t1805184000", "nothing to change, mlflow.example.org's certificate holds 60"),
        (True, "new\t1807776000", "✓ a new certificate for mlflow.example.org, for 90 days"),
    ],
)
def test_renew_tells_whether_there_is_a_new_one(force, report, said, capsys):
    c = context(served())
    c.recorder.replies = [Reply(f"@report {report}\n@exit 0\n")]
    tls.renew(c, force=force)
    assert f"force={'yes' if force else 'no'}\n" in c.recorder.changes[0].steps
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (deployed(), "ec2 has no TLS. Type: ./fab tls.enable NAME --email"),
        (served(OWN), f"is your own. Give a new one: ./fab tls.enable {NAME} --certificate"),
    ],
)
def test_what_cannot_be_renewed_says_what_to_type(facts, reason):
    with pytest.raises(Exit, match=reason):
        tls.renew(context(facts))


FOUND = {
    "issuer": "CN=R10,O=Let's Encrypt,C=US",
    "begins": "1799000000",
    "ends": "1805184000",
    "fingerprint": "AA:BB",
    "names": f"{NAME} www.example.org",
    "served": "AA:BB",
    "resolves": "203.0.113.10",
    "timer": "active",
    "failed": "inactive",
    "next": "1800040000",
}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({}, "holds until 2027-03-16 08:00 UTC, 60 days"),
        ({}, "renewal: on, next look 2027-01-15 19:06 UTC"),
        ({"served": "CC"}, "nginx does not show it (sudo systemctl reload nginx)"),
        ({"timer": "inactive"}, "renewal: OFF (sudo systemctl enable --now certbot.timer)"),
        ({"failed": "failed"}, "renewal: the last one FAILED"),
        ({"resolves": ""}, f"https://{NAME} (does not resolve)"),
    ],
)
def test_show_says_what_is_and_what_is_wrong(found, line):
    row = tls_changes.row_of(ACME, 1_800_000_000, FOUND | found)
    assert any(said.startswith(line) for said in tls.lines(row)), tls.lines(row)


def test_a_certificate_that_is_gone_is_said(capsys):
    row = tls_changes.row_of(OWN, 1_800_000_000, {"served": ""})
    assert row["days_left"] is None
    tls.show_tls({"ec2": row, "b": {"name": None}})
    out = capsys.readouterr().out
    assert "certificate: there is none" in out
    assert "renewal: yours to do" in out
    assert "no TLS: the way in is the tunnel" in out


def test_show_of_a_host_without_tls_costs_no_exec():
    c = context(deployed())
    assert tls.show(c) == {"name": None}
    assert c.recorder.runs == []


def test_show_looks_once():
    c = context(served())
    lines = "".join(f"@report {key}\t{value}\n" for key, value in FOUND.items())
    c.recorder.replies = [Reply(f"{lines}@exit 0\n")]
    row = tls.show(c, json=True)
    assert (row["days_left"], row["served"], row["names"][0]) == (60, True, NAME)
    assert len(c.recorder.runs) == 1
