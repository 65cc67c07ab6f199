import logging
from pathlib import Path

import pytest
import trustme

from clustersession.config import Address, Config, Lifetimes, TlsConfig
from clustersession.errors import ConfigError
from clustersession.settings import load_admin, load_settings, new_key, to_environ
from clustersession.settings import notes as notes_of
from clustersession.settings.notes import unresolved_peers

KEY = new_key(1)


def load(own: Lifetimes | None = None, /, **settings: str) -> Config:
    given = {"SECRET": KEY, "NODE": "a", **settings}
    environ = {f"CLUSTERSESSION_{name}": text for name, text in given.items() if text}
    return load_settings(environ, lifetimes=own, under_test=False)


def refusal(**settings: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(**settings)
    return caught.value


def test_a_secret_is_all_that_must_be_set() -> None:
    """With only the secret set, everything else has a default, and the host name is the node's."""
    config = load_settings({"CLUSTERSESSION_SECRET": KEY}, under_test=False)
    assert config == Config(secret=KEY, node=config.node)
    assert config.node


def test_settings_reach_their_fields() -> None:
    """Settings of every group are found in the config, parsed."""
    config = load(
        PEERS="b:1,dns://c",
        LISTEN="127.0.0.1:7",
        ADMIN_LISTEN="off",
        PRINCIPAL="user",
        COOKIE_NAME="__Secure-x,__Host-cs",
        COOKIE_SAMESITE="strict",
        MAX_SESSION_BYTES="128KiB",
        DEAD_TIMEOUT="9",
        UNAVAILABLE="Anonymous",
        COOKIE_MAX_AGE="14d",
        NOTICE="0",
        DRAIN_TIMEOUT="1m",
    )
    assert config.peers == ("b:1", "dns://c:10060")
    assert config.listen == Address(host="127.0.0.1", port=7)
    assert config.admin_listen is None
    assert config.principal_keys == ("user",)
    assert config.cookie.names == ("__Secure-x", "__Host-cs")
    assert config.cookie.samesite == "Strict"
    assert config.limits.session_bytes_max == 128 * 1024
    assert config.timeouts.dead_s == 9.0
    assert config.unavailable == "anonymous"
    assert config.cookie.max_age_s == 14 * 86400
    assert (config.timeouts.notice_s, config.timeouts.drain_s) == (0.0, 60.0)
    assert load(NOTICE="1500ms").timeouts.notice_s == 1.5


def test_an_empty_setting_counts_as_not_set() -> None:
    """Compose files pass on unset variables as empty ones."""
    config = load_settings(
        {"CLUSTERSESSION_SECRET": KEY, "CLUSTERSESSION_NODE": "a", "CLUSTERSESSION_PEERS": " "}, under_test=False
    )
    assert config.peers == ()


def test_advertise_without_a_port_takes_that_of_listen() -> None:
    """An address alone is advertised with the port on which the host listens."""
    assert load(ADVERTISE="10.0.0.3", LISTEN="0.0.0.0:7").advertise == Address(host="10.0.0.3", port=7)
    assert load(ADVERTISE="10.0.0.3:8", LISTEN="0.0.0.0:7").advertise == Address(host="10.0.0.3", port=8)
    assert load(ADVERTISE="10.0.0.3").advertise == Address(host="10.0.0.3", port=10060)


def test_an_insecure_cookie_loses_its_prefix() -> None:
    """Without Secure the cookie is called cs: browsers drop a __Host- cookie that is not secure."""
    assert load(COOKIE_SECURE="0").cookie.names == ("cs",)


# --- lifetimes -----------------------------------------------------------------------------------------------------


def test_a_frameworks_own_lifetimes_are_taken() -> None:
    """What the framework says of lifetimes is in force where the environment says nothing."""
    own = Lifetimes(idle_s=None, absolute_s=14 * 86400.0)
    config = load(own)
    assert (config.lifetimes, config.lifetimes_set) == (own, False)


def test_a_lifetime_in_the_environment_wins_over_the_frameworks() -> None:
    """A setting replaces the framework's own lifetime, and only that one."""
    config = load(Lifetimes(idle_s=None, absolute_s=99.0), IDLE_TIMEOUT="10m")
    assert (config.lifetimes, config.lifetimes_set) == (Lifetimes(idle_s=600.0, absolute_s=99.0), True)


def test_the_strict_profile_wins_over_the_frameworks_lifetimes() -> None:
    """PROFILE=strict means 30 minutes and 12 hours whatever the framework says."""
    config = load(Lifetimes(idle_s=None, absolute_s=None), PROFILE="strict")
    assert (config.lifetimes, config.lifetimes_set) == (Lifetimes(idle_s=1800.0, absolute_s=43200.0), True)


def test_no_limit_can_be_set() -> None:
    """`none` takes a limit away."""
    assert load(ABSOLUTE_TIMEOUT="none").lifetimes.absolute_s is None


# --- dev mode --------------------------------------------------------------------------------------------------------


def test_dev_mode_needs_nothing_and_opens_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Dev mode makes its own secret, keeps sessions in memory, has no port, and says so once."""
    first = load_settings({"CLUSTERSESSION_MODE": "dev"}, framework="Flask-of-this-test", under_test=False)
    load_settings({"CLUSTERSESSION_MODE": "dev"}, framework="Flask-of-this-test", under_test=False)
    assert (first.store, first.admin_listen, first.spawn) == ("memory", None, False)
    assert (first.cookie.secure, first.cookie.names) == (False, ("cs",))
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert "dev mode in this Flask-of-this-test app" in caplog.text


def test_under_pytest_dev_mode_is_the_default() -> None:
    """A user's test run needs no cluster: this very test shows it, as pytest is running."""
    assert load_settings({}).mode == "dev"


def test_under_pytest_a_mode_that_is_set_counts() -> None:
    """MODE=on is obeyed in a test run too."""
    assert load_settings({"CLUSTERSESSION_MODE": "on", "CLUSTERSESSION_SECRET": KEY}).mode == "on"


def test_dev_mode_keeps_a_secret_that_is_set() -> None:
    """A developer's own secret is used in dev mode as well."""
    assert load(MODE="dev").secret == KEY


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_refused_with_the_command_that_makes_one() -> None:
    """Without a secret nothing starts, and the error names what to do."""
    error = refusal(SECRET="")
    assert error.setting == "CLUSTERSESSION_SECRET"
    assert "not set" in error.problem
    assert "clustersession key new" in error.remedy


def test_a_frameworks_secret_key_is_not_mistaken_for_ours() -> None:
    """In a framework's app the error says that the framework's own key is not used."""
    with pytest.raises(ConfigError, match="the framework's own secret key is not used"):
        load_settings({}, framework="flask", under_test=False)


@pytest.mark.parametrize(
    ("settings", "setting", "problem"),
    [
        ({"SECRET": "short"}, "SECRET", "5 characters"),
        ({"SECRET": "changeme-changeme-changeme-12345678"}, "SECRET", "example"),
        ({"SECRET_FILE": "/nowhere/ring"}, "SECRET", "SECRET_FILE is set too"),
        (
            {"SECRET": "", "SECRET_FILE": "/nowhere/ring"},
            "SECRET_FILE",
            "/nowhere/ring cannot be read (No such file or directory)",
        ),
        ({"NODE": "a b"}, "NODE", "characters that it cannot have"),
        ({"MODE": "mirrored"}, "MODE", "there is no 'mirrored'"),
        ({"STORE": "memory"}, "STORE", "not shared between processes"),
        ({"ADOPT_IMPORTED": "1", "MODE": "mirror"}, "ADOPT_IMPORTED", "mode 'mirror' writes to it"),
        ({"IDLE_TIMEOUT": "30 minutes"}, "IDLE_TIMEOUT", "is not a duration"),
        ({"PEERS": "dns://app..internal"}, "PEERS", "'app..internal' is no host name"),
        ({"LISTEN": "here:there"}, "LISTEN", "is not an address"),
        ({"ADVERTISE": "0.0.0.0:10060"}, "ADVERTISE", "no address of one host"),
        ({"MIN_COPIES": "3"}, "MIN_COPIES", "neither 1 nor 2"),
        ({"COOKIE_DOMAIN": "example.com"}, "COOKIE_DOMAIN", "a cookie named '__Host-cs' can have no domain"),
        ({"COOKIE_PATH": "/shop"}, "COOKIE_PATH", "a cookie named '__Host-cs' can have no other path than '/'"),
        (
            {"COOKIE_NAME": "__host-cs", "COOKIE_DOMAIN": "a.test"},
            "COOKIE_DOMAIN",
            "'__host-cs' can have no domain",
        ),
        ({"COOKIE_NAME": "__SECURE-cs", "COOKIE_SECURE": "0"}, "COOKIE_NAME", "needs the Secure attribute"),
        ({"COOKIE_NAME": "cs", "COOKIE_DOMAIN": "https://a.test"}, "COOKIE_DOMAIN", "'https://a.test' is no domain"),
        ({"COOKIE_NAME": "cs", "COOKIE_DOMAIN": "a.test:8080"}, "COOKIE_DOMAIN", "'a.test:8080' is no domain"),
        ({"COOKIE_NAME": "cs", "COOKIE_DOMAIN": "a..test"}, "COOKIE_DOMAIN", "'a..test' is no domain"),
        ({"COOKIE_NAME": "cs", "COOKIE_PATH": "shop"}, "COOKIE_PATH", "'shop' does not begin with '/'"),
        ({"COOKIE_MAX_AGE": "100ms"}, "COOKIE_MAX_AGE", "shorter than a second"),
        ({"USER_SESSIONS_MAX": "0"}, "USER_SESSIONS_MAX", "no user could log in"),
        ({"COOKIE_NAME": "__Host-x", "COOKIE_SECURE": "0"}, "COOKIE_NAME", "needs the Secure attribute"),
        ({"COOKIE_SAMESITE": "None", "COOKIE_SECURE": "0"}, "COOKIE_SAMESITE", "only with the Secure attribute"),
        ({"COOKIE_PARTITIONED": "1", "COOKIE_SECURE": "0"}, "COOKIE_PARTITIONED", "only with the Secure attribute"),
        ({"MAX_SESSION_BYTES": "1GiB"}, "MAX_SESSION_BYTES", "more than one message can carry"),
        ({"ADMIN_LISTEN": "0.0.0.0:10061"}, "ADMIN_TOKEN", "open to other hosts"),
        ({"ADMIN_TOKEN": "short"}, "ADMIN_TOKEN", "too short"),
        ({"TLS_CERT": "/nowhere/cert.pem"}, "TLS_KEY", "it is not set"),
        ({"TLS_CERT": "/nowhere/c", "TLS_KEY": "/nowhere/k", "TLS_CA": "/nowhere/a"}, "TLS_CERT", "/nowhere/c cannot be read"),
        ({"CONNECT_TIMEOUT": "1s"}, "CONNECT_TIMEOUT", "1s is longer than CLUSTERSESSION_REQUEST_TIMEOUT"),
        ({"LEASE_TIMEOUT": "4s"}, "LEASE_TIMEOUT", "4s is longer than CLUSTERSESSION_DEAD_TIMEOUT"),
        ({"READY_TIMEOUT": "1999ms"}, "READY_TIMEOUT", "1.999s is too short"),
    ],
)
def test_a_wrong_setting_says_which_and_why(settings: dict[str, str], setting: str, problem: str) -> None:
    """Every mistake is an error that names the setting, the problem and a remedy."""
    error = refusal(**settings)
    assert error.setting == f"CLUSTERSESSION_{setting}"
    assert problem in error.problem
    assert error.remedy


@pytest.mark.parametrize("domain", ["example.com", ".example.com", "localhost", "a_b.xn--bcher-kva.example", "127.0.0.1"])
def test_a_domain_may_begin_with_a_dot(domain: str) -> None:
    """Browsers pass over it."""
    assert load(COOKIE_NAME="cs", COOKIE_DOMAIN=domain).cookie.domain == domain


def test_no_error_repeats_the_secret(tmp_path: Path) -> None:
    """A secret that is refused is not shown: errors end in logs."""
    assert "hunter2" not in str(refusal(SECRET="1:hunter2hunter2"))
    ring = tmp_path / "ring"
    ring.write_text("1:hunter2hunter2")
    assert "hunter2" not in str(refusal(SECRET="", SECRET_FILE=str(ring)))
    assert KEY not in repr(load())


# --- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    """A certificate with its key, and the authority's, as files."""
    authority, place = trustme.CA(), tmp_path_factory.mktemp("pems")
    issued = authority.issue_cert("a.example")
    authority.cert_pem.write_to_path(place / "ca.pem")
    issued.private_key_pem.write_to_path(place / "key.pem")
    issued.cert_chain_pems[0].write_to_path(place / "cert.pem")
    return TlsConfig(cert=str(place / "cert.pem"), key=str(place / "key.pem"), ca=str(place / "ca.pem"))


def test_tls_files_that_fit_are_taken(pems: TlsConfig) -> None:
    """All three files set and loadable make a TLS config."""
    assert load(TLS_CERT=pems.cert, TLS_KEY=pems.key, TLS_CA=pems.ca).tls == pems


def test_a_key_of_another_certificate_is_refused(pems: TlsConfig, tmp_path: Path) -> None:
    """A certificate and a key that do not belong together are found when the app is wrapped, not at the first peer call."""
    other = tmp_path / "other.key"
    trustme.CA().issue_cert("b.example").private_key_pem.write_to_path(other)
    assert "do not load" in refusal(TLS_CERT=pems.cert, TLS_KEY=str(other), TLS_CA=pems.ca).problem


def test_an_authority_that_is_no_certificate_is_refused(pems: TlsConfig) -> None:
    """The authority's file must hold a certificate."""
    assert "holds no certificate" in refusal(TLS_CERT=pems.cert, TLS_KEY=pems.key, TLS_CA=pems.key).problem


# --- notes -------------------------------------------------------------------------------------------------------------------


def test_an_unknown_setting_is_noted_with_the_nearest_name(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt setting is a warning that names the one that was meant."""
    load(COOKIE_NAMES="x")
    assert "no setting CLUSTERSESSION_COOKIE_NAMES; did you mean CLUSTERSESSION_COOKIE_NAME?" in caplog.text


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        ({"MIN_COPIES": "2"}, "nothing can be stored"),
        ({"PEERS": "127.0.0.1:1,10.0.0.5", "ADVERTISE": "localhost"}, "ADVERTISE is localhost:10060"),
        ({"PEERS": "dns://app", "LISTEN": "127.0.0.1"}, "LISTEN is 127.0.0.1:10060"),
    ],
)
def test_what_leaves_a_host_alone_is_noted(settings: dict[str, str], noted: str) -> None:
    """It may be right where others find this host, or for a trial; else nobody would see why there are no copies."""
    (note,) = notes_of({}, load(**settings))
    assert noted in note


def test_hosts_that_reach_each_other_are_not_noted() -> None:
    """On one machine for a trial, or on addresses of their own."""
    assert notes_of({}, load(PEERS="127.0.0.1:1,localhost:2", LISTEN="127.0.0.1:1", MIN_COPIES="2")) == []
    assert notes_of({}, load(PEERS="10.0.0.5", ADVERTISE="10.0.0.4")) == []


def test_a_secret_file_that_all_can_read_is_noted(tmp_path: Path) -> None:
    """Permissions of the secret's file that are too wide are a warning, and good ones are none."""
    ring = tmp_path / "ring"
    ring.write_text(KEY)
    ring.chmod(0o644)
    config = load(SECRET="", SECRET_FILE=str(ring))
    assert "chmod" in notes_of({}, config)[0]
    ring.chmod(0o400)
    assert notes_of({}, config) == []


def test_a_peer_without_an_address_is_found() -> None:
    """Names that do not resolve here are listed, addresses and good names are not."""
    found = unresolved_peers(load(PEERS="nothing.invalid,127.0.0.1:1,dns://localhost:2"))
    assert [each.split(": ")[0] for each in found] == ["nothing.invalid:10060"]


def test_asking_the_node_needs_no_secret() -> None:
    """The control listener's address and token can be had alone."""
    assert load_admin({"CLUSTERSESSION_ADMIN_LISTEN": "off"}) == (None, None)
    assert load_admin({}) == (Address(host="127.0.0.1", port=10061), None)
    assert load_admin({"CLUSTERSESSION_ADMIN_TOKEN": "x" * 20})[1] == "x" * 20


# --- back to text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"PEERS": "a,b:7", "ZONE": "z", "ADMIN_LISTEN": "off", "IDLE_TIMEOUT": "none", "MAX_BYTES": "64MiB", "SPAWN": "0"},
        {
            "PROFILE": "strict",
            "ADVERTISE": "[fd00::1]:5",
            "ADMIN_LISTEN": "0.0.0.0:1",
            "ADMIN_TOKEN": "t" * 16,
            "UNAVAILABLE": "anonymous",
        },
        {
            "COOKIE_SECURE": "0",
            "COOKIE_DOMAIN": "example.com",
            "COOKIE_MAX_AGE": "1d",
            "CONNECT_TIMEOUT": "33ms",
            "DATA_DIR": "/x",
        },
    ],
    ids=["defaults", "node", "open", "cookie"],
)
def test_a_config_survives_the_way_through_the_environment(settings: dict[str, str]) -> None:
    """The node that a worker starts reads the very settings that the worker has."""
    config = load(**settings)
    assert load_settings(to_environ(config), under_test=False) == config


def test_a_secret_in_a_file_stays_there(tmp_path: Path) -> None:
    """A secret file is handed on by name, so that its changes are seen and the secret is in no environment."""
    ring = tmp_path / "ring"
    ring.write_text(KEY + "\n")
    environ = to_environ(load(SECRET="", SECRET_FILE=str(ring)))
    assert KEY not in "".join(environ.values())
    assert load_settings(environ, under_test=False).secret == KEY
