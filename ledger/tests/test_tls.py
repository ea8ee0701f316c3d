"""With WATCHKEEPER_LEDGER_CA a connection needs TLS and a certificate of that authority."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import HOST, KINDS, Server, running
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from trustme import CA

from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger import Ledger

SETTING = "WATCHKEEPER_LEDGER_CA"
OPTIONS = {
    "postgresql": ("-cssl=on", "-cssl_cert_file={certificate}", "-cssl_key_file={key}"),
    "mariadb": ("--ssl-cert={certificate}", "--ssl-key={key}"),
}
CIPHER = {
    "postgresql": "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mariadb": "SELECT variable_value FROM information_schema.session_status "
    "WHERE variable_name = 'Ssl_cipher'",
}


@pytest.fixture(scope="module", params=KINDS[1:])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as made:
        yield made


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CA:
    made = CA()
    trust(made, tmp_path / "ca.crt")
    monkeypatch.setenv(SETTING, str(tmp_path / "ca.crt"))
    return made


def trust(authority: CA, file: Path) -> None:
    file.write_bytes(authority.cert_pem.bytes())


def certify(server: Server, authority: CA, host: str) -> None:
    """Start a server again, with a certificate for a host."""
    made = authority.issue_cert(host)
    certificate = server.give("tls.crt", made.cert_chain_pems[0].bytes())
    key = server.give("tls.key", made.private_key_pem.bytes())
    options = OPTIONS[server.kind]
    server.options = [option.format(certificate=certificate, key=key) for option in options]
    server.restart()


def cipher(server: Server) -> str:
    """Return the cipher of a new connection."""
    ledger = Ledger(server.create())
    try:
        with ledger.read() as connection:
            return str(connection.execute(text(CIPHER[server.kind])).scalar_one())
    finally:
        ledger.close()


def test_a_server_without_tls_is_refused(own_server: Server, authority: CA) -> None:
    del authority
    own_server.options = []
    own_server.restart()
    with pytest.raises(OperationalError, match=r"SSL|TLS"):
        cipher(own_server)


def test_a_connection_is_encrypted(own_server: Server, authority: CA) -> None:
    certify(own_server, authority, HOST)
    assert cipher(own_server).startswith("TLS_")


def test_a_certificate_of_another_authority_is_refused_until_the_file_is_replaced(
    own_server: Server, authority: CA, tmp_path: Path
) -> None:
    del authority
    other = CA()
    certify(own_server, other, HOST)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        cipher(own_server)
    trust(other, tmp_path / "ca.crt")
    assert cipher(own_server)


def test_a_certificate_for_another_host_is_refused(own_server: Server, authority: CA) -> None:
    certify(own_server, authority, "other.example.com")
    with pytest.raises(OperationalError, match=r"does not match|not valid for"):
        cipher(own_server)


def test_a_missing_file_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SETTING, str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=f"{SETTING}={tmp_path}/none: there is no such file"):
        Ledger("postgresql+psycopg://user@host/ledger")
