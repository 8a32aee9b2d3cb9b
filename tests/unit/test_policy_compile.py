# SPDX-License-Identifier: GPL-2.0-or-later
"""What the files say becomes the policy, or a line for each thing that is wrong with them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtwarden.errors import PolicyError
from virtwarden.paths import Paths
from virtwarden.policy import DiskRules, InvalidPolicy, KeySource, Mode, Policy
from virtwarden.policy.compile import compile_policy

SCHEMA = Path(__file__).parents[2] / "policy" / "schema.json"
DISK = '[[domain]]\nmatch = "a"\n[domain.disks.vda]\n'
ALLOW = "[[domain]]\nmatch = 'a'\nallow = ["


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "policy.d").mkdir(mode=0o700)
    return Paths(
        policy=tmp_path / "policy.toml",
        policy_dir=tmp_path / "policy.d",
        schema=SCHEMA,
        run=tmp_path,
    )


def write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)


def compiled(paths: Paths, text: str | bytes | None = None, **drop_ins: str) -> Policy:
    if text is not None:
        write(paths.policy, text)
    for name, content in drop_ins.items():
        write(paths.policy_dir / f"{name}.toml", content)
    return compile_policy(paths, os.getuid())


def problems(paths: Paths, text: str | bytes, **drop_ins: str) -> list[str]:
    """The problems' lines, each without the directory."""
    with pytest.raises(InvalidPolicy) as caught:
        compiled(paths, text, **drop_ins)
    return [line.removeprefix(f"{paths.policy.parent}/") for line in caught.value.problems]


def assert_told(paths: Paths, text: str | bytes, start: str) -> None:
    """A text has one problem, told in one line that starts like this, behind the file's name."""
    (problem,) = problems(paths, text)
    assert problem.startswith(f"policy.toml:{start}")
    assert problem.isprintable()


def test_without_any_file_the_built_in_defaults_hold_and_say_so(paths: Paths) -> None:
    paths.policy_dir.rmdir()
    policy = compiled(paths)
    assert policy.files == ()
    assert policy.manages("anything")
    assert policy.rules_for("a").mode is Mode.ENFORCING
    assert policy.rules_for("a").where("mode") == "built-in default"


def test_drop_ins_win_in_order_of_name(paths: Paths) -> None:
    policy = compiled(
        paths,
        'mode = "disabled"\n[network]\nbackend = "nftables"\nuntapped = "allow"\n'
        '[[domain]]\nmatch = "a"\nmode = "disabled"',
        b='\n[network]\nbackend = "auto"\n[[domain]]\nmatch = "a"\nmode = "enforcing"',
        a='mode = "permissive"\n[network]\nbackend = "ebtables"\n[console]\nlisten = ["unix"]',
    )
    rules = policy.rules_for("x")
    assert (rules.mode, rules.backend, rules.untapped) == (Mode.PERMISSIVE, "auto", "allow")
    assert rules.listen == ("unix",)
    assert rules.where("network.backend") == f"{paths.policy_dir}/b.toml:3"
    assert rules.where("network.untapped") == f"{paths.policy}:4"
    assert policy.rules_for("a").mode is Mode.ENFORCING
    assert policy.files == (
        str(paths.policy),
        *(f"{paths.policy_dir}/{n}.toml" for n in ("a", "b")),
    )


def test_only_files_that_end_in_toml_are_drop_ins(paths: Paths) -> None:
    for name in ("a.toml.dpkg-old", ".a.toml", "b.toml~", "README"):
        write(paths.policy_dir / name, "nonsense")
    assert compiled(paths).files == ()


def test_an_entry_sets_all_that_is_a_domains(paths: Paths) -> None:
    rules = compiled(
        paths,
        """
        [[domain]]
        match = "a"
        mode = "permissive"
        exceptions = ["emulator", "qemu-commandline", "spice"]
        storage.shared_directories = "allow"
        [domain.network]
        backend = "ebtables"
        mac_spoofing = "allow"
        arp_spoofing = "allow"
        vlan_tags = "allow"
        untapped = "allow"
        [domain.console]
        listen = ["fe80::1%eth0", "0.0.0.0"]
        tls = "off"
        password = "off"
        """,
    ).rules_for("a")
    assert rules.exceptions == {"emulator", "qemu-commandline", "spice"}
    assert rules.shared_directories == rules.untapped == rules.vlan_tags == "allow"
    assert (rules.listen, rules.tls, rules.password) == (
        ("fe80::1%eth0", "0.0.0.0"),  # noqa: S104
        "off",
        "off",
    )
    assert rules.where("console.password") == f"{paths.policy}:16"


def test_what_files_say_of_a_named_table_is_merged_by_name_with_its_lines(paths: Paths) -> None:
    rules = compiled(
        paths,
        """
        [[domain]]
        match = "web*"
        [domain.disks.vda]
        luks = "/dev/vg0/web01"
        key.file = "/k"
        [domain.disks.vdb]
        luks = "/dev/vg0/b"
        """,
        a='[[domain]]\nmatch = "web01"\ndisks = {vda.key.clevis = "header", vdc.luks = "/c"}',
        b='[[domain]]\nmatch = "web01"\n[domain.disks]\nvda.mapper = "vmw-x"',
    ).rules_for("web01")
    key = KeySource("clevis", "header")
    assert rules.disks == {
        "vda": DiskRules("/dev/vg0/web01", key, "vmw-x"),
        "vdb": DiskRules("/dev/vg0/b"),
        "vdc": DiskRules("/c"),
    }
    told = {key: rules.where(key).rpartition("/")[2] for key in rules.origins}
    assert told["disks.vda.luks"] == "policy.toml:5"
    assert told["disks.vda.key"] == "a.toml:3"
    assert told["disks.vda.mapper"] == "b.toml:4"
    assert told["disks.vdb.luks"] == "policy.toml:8"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{DISK}luks = 'x'", '4: domain.disks.vda.luks: "x" is not allowed; it must be an abs'),
        (f"{DISK}luks = '/a/../b'", '4: domain.disks.vda.luks: "/a/../b" is not allowed; it must'),
        (f'{DISK}luks = "/a\\u001b"', "4: domain.disks.vda.luks: "),
        (f"{DISK}key.file = '/a//b'", '4: domain.disks.vda.key.file: "/a//b" is not allowed; it '),
        (f"{DISK}key.file = '/a'\nkey.ask = 5", "4: domain.disks.vda.key: "),
        (
            f"{DISK}key = {{}}",
            "4: domain.disks.vda.key: {} is not allowed; it must be exactly one of",
        ),
        (
            f"{DISK}key = '/a'",
            '4: domain.disks.vda.key: "/a" is not allowed; it must be exactly one ',
        ),
        (f"{DISK}key.ask = 0", "4: domain.disks.vda.key.ask: 0 is not allowed; it must be the sec"),
        (f"{DISK}key.ask = true", "4: domain.disks.vda.key.ask: true is not allowed"),
        (f"{DISK}key.clevis = 'x'", '4: domain.disks.vda.key.clevis: "x" is not allowed; it must'),
        (f"{DISK}key.passphrase = 'x'", "4: domain.disks.vda.key.passphrase: unknown key; known"),
        (f"{DISK}mapper = 'web01'", '4: domain.disks.vda.mapper: "web01" is not allowed; it must'),
        (f"{DISK}mapper = 'vmw-/x'", '4: domain.disks.vda.mapper: "vmw-/x" is not allowed; it mu'),
        (f"{DISK}lusk = '/a'", "4: domain.disks.vda.lusk: unknown key; did you mean luks?"),
        (DISK, "3: domain.disks.vda: {} is not allowed; it must be a table that is not empty"),
        (
            "[[domain]]\nmatch = 'a'\n[domain.disks.'v.a']\nluks = '/a'",
            '3: domain.disks.v.a: "v.a" is not allowed; it must be a disk\'s target',
        ),
        *(
            (
                f"[[domain]]\nmatch = 'a'\nnics.0.macs = ['{mac}']",
                f'3: domain.nics.0.macs: "{mac}" is not allowed; it must be the MAC address of one',
            )
            for mac in ("01:00:5e:00:00:12", "00:00:00:00:00:00", "00-00-5e-00-01-0a", "vrrp")
        ),
        ("[[domain]]\nmatch = 'a'\ndisks.vda = 1", "3: domain.disks.vda: 1 is not allowed; it mus"),
        ("[[domain]]\nmatch = 'a'\ndisks = 1", "3: domain.disks: 1 is not allowed; it must be ta"),
        ("[[domain]]\nmatch = 'a'\nluks = '/a'", "3: domain.luks: unknown key; did you mean the "),
        (
            "[[domain]]\nmatch = 'a'\nuntapped = 'allow'",
            "3: domain.untapped: unknown key; did you mean the one under [domain.network]?",
        ),
        (
            "[[domain]]\nmatch = 'a'\nhost_network = 'allow'",
            "3: domain.host_network: unknown key; did you mean the one under [domain.reach]?",
        ),
        (
            "[[domain]]\nmatch = 'a'\n[domain.network]\nmacs = []",
            "4: domain.network.macs: unknown key; did you mean the one under [domain.nics.NAME]?",
        ),
        ("[disks.vda]\nluks = '/a'", "1: disks: unknown key; did you mean [domain.disks.NAME]?"),
        ("[network]\nmac_spofing = 1", "2: network.mac_spofing: unknown key; did you mean mac_"),
        ("[x]\nuid_range = 1", "1: x: unknown key; known here: mode"),
        ('backend = "auto"', "1: backend: unknown key; did you mean the one under [network]"),
        ("[identity]\nmanaged = []", "2: identity.managed: unknown key; did you mean the one ab"),
        ('[[domain]]\nmatch = "a"\n[domain.identity]', "3: domain.identity: unknown key; did yo"),
        ("exceptions = []", "1: exceptions: unknown key"),
        ("\nmode = 5", '2: mode: 5 is not allowed; allowed: "enforcing", "permissive", "disab'),
        ("mode = []", "1: mode: [] is not allowed"),
        ("mode = 1979-05-27", '1: mode: "1979-05-27" is not allowed'),
        ("managed = '*'", '1: managed: "*" is not allowed; it must be a list of globs'),
        ("managed = ['!']", '1: managed: "!" is not allowed; it must be a glob'),
        ("managed = ['']", '1: managed: "" is not allowed'),
        ("network = 1", "1: network: 1 is not allowed; it must be a table, written [network]"),
        ("[domain]\nmatch='a'", '1: domain: {"match": "a"} is not allowed; it must be written [['),
        ("domain = [1]", "1: domain: 1 is not allowed; it must be a table"),
        ("\n[[domain]]\nmode='disabled'", "2: domain.match: it is missing; it must be a glob"),
        ('[[domain]]\nmatch = ""', '2: domain.match: "" is not allowed; it must be a glob on'),
        ('[[domain]]\nmatch="a"\nexceptions=["vnc"]', '3: domain.exceptions: "vnc" is not allow'),
        ("allow = []", "1: allow: unknown key"),
        (f"{ALLOW}'ubs 046d:c52b']", '3: domain.allow: "ubs 046d:c52b" is not allowed: there is n'),
        (
            f"{ALLOW}'ubs 1']",
            "3: domain.allow: \"ubs 1\" is not allowed: there is no kind 'ubs'; di",
        ),
        (f"{ALLOW}'usb 46d:c52b']", '3: domain.allow: "usb 46d:c52b" is not allowed: it must be'),
        (f"{ALLOW}'usb 046D:C52B']", '3: domain.allow: "usb 046D:C52B" is not allowed: it must '),
        (f"{ALLOW}'usb']", '3: domain.allow: "usb" is not allowed: it must be written like "usb 0'),
        (f"{ALLOW}'pci 65:00.0']", '3: domain.allow: "pci 65:00.0" is not allowed: it must be wri'),
        (f"{ALLOW}'device /etc/x']", '3: domain.allow: "device /etc/x" is not allowed: it must be'),
        (f"{ALLOW}'file /a/../b']", '3: domain.allow: "file /a/../b" is not allowed: it must be w'),
        (f"{ALLOW}'file  /a']", '3: domain.allow: "file  /a" is not allowed: it must be written l'),
        (f"{ALLOW}'']", '3: domain.allow: "" is not allowed; it must be a kind and a name, such'),
        (f"{ALLOW}1]", "3: domain.allow: 1 is not allowed; it must be a kind and a name, such as"),
        ("[identity]\nuid_range = [999, 2000]", "2: identity.uid_range: 999 is not allowed; it"),
        ("[identity]\nuid_range = [1000, 2147483647]", "2: identity.uid_range: 2147483647 is no"),
        ("[identity]\nuid_range = [70000]", "2: identity.uid_range: [70000] is not allowed; it "),
        ("[identity]\nuid_range = [2000, 1000]", "2: identity.uid_range: [2000, 1000] is empty;"),
        ("[identity]\nuid_range = [1000.0, 2000]", "2: identity.uid_range: 1000.0 is not allowe"),
        ("[identity]\nuid_range = [true, 2000]", "2: identity.uid_range: true is not allowed"),
        ("identity.user_prefix = 'Vm-'", '1: identity.user_prefix: "Vm-" is not allowed'),
        ("identity.user_prefix = 'vm'", '1: identity.user_prefix: "vm" is not allowed'),
        ('identity.user_prefix = "vm-\\n"', "1: identity.user_prefix: "),
        ("console.listen = ['localhost']", '1: console.listen: "localhost" is not allowed; it m'),
        ("console.listen = ['10.0.0.256']", '1: console.listen: "10.0.0.256" is not allowed; it'),
        ('[[domain]]\nmatch = "a\\u001b[0m"', '2: domain.match: "a\\u001b[0m" has a character'),
        ("mode = 'x'\nmode = 'y'", "2: mode: Cannot overwrite a value (at end"),
        ("\nmode = ", "2: mode: Invalid value (at end of document); allowed: key = "),
        ("mode = [\n", "1: mode: Invalid value (at end of document); allowed: key = "),
        (b"\nmode = '\xff'", "2: mode: this is not UTF-8 text; it must be"),
        ("a = " + "[" * 5000, "1: a: something in here is nested too deeply"),
        ("\n" + ".".join("a" * 50) + " = 1", "2: this is nested too deeply"),
        ("[a = " + "[" * 5000 + "x", "1: Expected ']' at the end of a table declaration"),
        ("\n" + "a." * 100_000 + "a = 1", "2: more than 256 dots in one line"),
        ("mode = " + "9" * 10_000, "1: mode: Exceeds the limit"),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_each_mistake_is_one_line_that_says_where_and_what_instead(
    paths: Paths, text: str | bytes, line: str
) -> None:
    assert_told(paths, text, line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mode = enforcing", "1: mode: Invalid value; allowed: key = "),
        ("[console]\r\ntls = on", "2: console.tls: Invalid value"),
        ("[console]\nlisten = [\n'::1'\n'unix'\n]", "4: console.listen: Unclosed array"),
        ("managed = ['*'\nmode = 'disabled'", "2: managed: Unclosed array"),
        ("[identity]\nuser_prefix = '''\nvm-\n", "2: identity.user_prefix: Expected"),
        (f"{DISK}key.file = /x", "4: domain.disks.vda.key.file: Invalid value"),
        (f"{DISK}[[domain]]\nmatch = a", "5: domain.match: Invalid value"),
        ("[network]\nmac_spoofing", "2: network: Expected '=' after a key"),
        ("mac_spoofing", "1: Expected '=' after a key"),
        ("[console\ntls = 'off'", "1: console: Expected ']'"),
        ("[[domain] # the first\nmatch = 'a'", "1: domain: Expected ']]'"),
        ("[console]\n[console]\n", "2: console: Cannot declare"),
        ("[con sole]", "1: Expected ']'"),
        ("[console]\n# mode = \0", "2: Found invalid character"),
        ("[console]\n= 'off'", "2: console: Invalid statement"),
        ("\u001b[1m = 1", "1: Invalid statement"),
        ("'\u202e' = x", "1: ?: Invalid value"),
        ("[network]\nx = " + "9" * 10_000 + "\n[console]\n", "2: network.x: Exceeds the limit"),
        ("[a]\nb = " + "[" * 5000 + "\nc = 1", "2: a.b: something in here is nested too"),
        (b"[console]\ntls = '\xff'", "2: console.tls: this is not UTF-8 text; it must be"),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_toml_is_told_with_its_key_or_else_its_table_if_there_is_one(
    paths: Paths, text: str | bytes, line: str
) -> None:
    assert_told(paths, text, line)


def test_all_mistakes_of_all_files_are_told_at_once_by_file_and_line(paths: Paths) -> None:
    found = problems(
        paths,
        'mode = "no"\n\n[console]\ntls = 1\nlisten = ["x", "y"]\n[identity]\nuid_range = [5, 1]\n',
        a="broken",
        b='\nmode = "maybe"',
    )
    assert [line.split(": ")[0] for line in found] == [
        *(f"policy.toml:{line}" for line in (1, 4, 5, 5, 7, 7)),
        "policy.d/a.toml:1",
        "policy.d/b.toml:2",
    ]


def test_a_refusal_is_one_line_with_every_mistake_and_what_mends_it(paths: Paths) -> None:
    with pytest.raises(PolicyError) as caught:
        compiled(paths, '\nmode = "no"\n[console]\ntls = 1', a="mode = 1")
    error = caught.value
    assert error.where == f"{paths.policy}:2"
    assert "\n" not in str(error)
    assert str(error).count("; also ") == 2
    assert str(error).endswith(
        f"fix: edit {paths.policy} {paths.policy_dir}/a.toml, then: virt-warden policy check"
    )


def test_a_refusal_of_a_thousand_mistakes_is_still_a_line_one_can_read(paths: Paths) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        compiled(paths, "".join(f"a{number} = 1\n" for number in range(1000)))
    assert len(caught.value.problems) == 1000
    assert "; also 980 more; fix:" in str(caught.value)


def test_keys_of_many_dots_are_refused_before_they_cost_time(paths: Paths) -> None:
    lines = (f"a{number}" + ".a" * 255 + " = 1" for number in range(480))
    before = time.process_time()
    assert "nested too deeply" in problems(paths, "\n".join(lines))[0]
    assert time.process_time() - before < 30


def test_a_schema_that_is_gone_is_an_error_of_the_policy(paths: Paths, tmp_path: Path) -> None:
    for broken in (tmp_path / "none.json", paths.policy):
        write(paths.policy, "mode = 1")
        with pytest.raises(PolicyError, match="schema"):
            compile_policy(Paths(schema=broken, policy=paths.policy), os.getuid())


KEYS = ["mode", "managed", "network", "domain", "console", "uid_range", "listen", "match", "é"]
KEYS += ["disks", "vda", "luks", "key", "file"]
SNIPPETS = [*KEYS, "[", "]", "[[", "]]", "=", ".", "\n", "\n", "'", '"', "'''", "1", "{", "}", "#"]
SNIPPETS += [",", "'unix'", "1e999", "nan", "1979-05-27", "\\", "\r\n", "\ufeff", "\0"]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=25).map("".join))
def test_whatever_a_file_says_it_is_a_policy_or_an_error_of_the_policy(
    paths: Paths, text: str
) -> None:
    try:
        compiled(paths, text).rules_for("a")
        found = ["fine"]
    except InvalidPolicy as error:
        found = list(error.problems)
    assert found
    assert all(problem.isprintable() for problem in found)


def test_the_lines_of_exceptions_that_change_nothing_any_more_are_known(paths: Paths) -> None:
    text = """
        [[domain]]
        match = "a"
        exceptions = ["spice", "emulator"]
        [[domain]]
        match = "b"
        exceptions = ["host-devices"]
    """
    made = compiled(paths, text)
    assert [origin.line for origin in made.idle] == [4]
    assert made.rules_for("a").exceptions == {"spice", "emulator"}
