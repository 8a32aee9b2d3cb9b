"""Anti-spoofing rules on a tap, by either of the kernel's two ways to filter a bridge port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from virtwarden.errors import CommandError, HostError
from virtwarden.system.run import run

NFT = "/usr/sbin/nft"
EBTABLES = "/usr/sbin/ebtables"
EBTABLES_RESTORE = "/usr/sbin/ebtables-restore"

_TAP = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True)
class TapFilter:
    """What the frames that come out of one tap are held to."""

    tap: str
    mac: str
    deny_mac_spoofing: bool
    deny_arp_spoofing: bool
    deny_vlan_tags: bool

    def __post_init__(self) -> None:
        """Both names are written into rules: nothing else may get in with them."""
        if not _TAP.fullmatch(self.tap):
            raise HostError(f"{self.tap!r} is no name of a network interface")
        if not _MAC.fullmatch(self.mac):
            raise HostError(f"{self.mac!r} is no MAC address in lower case")


class Backend(Protocol):
    """One way to filter; all of them promise the same."""

    name: str

    def works(self) -> bool:
        """Whether this host's kernel and tools can do it."""

    def render(self, promise: TapFilter) -> str:
        """The transaction that installs the rules, in place of any that this tap had."""

    def install(self, promise: TapFilter) -> None:
        """Have the kernel hold the tap to the promise. Raises CommandError."""

    def remove(self, tap: str) -> None:
        """Take the tap's rules away; harmless where there are none."""

    def missing(self, promise: TapFilter) -> str:
        """What the kernel does not do of the promise, by its own listing; empty where all is."""


def nft_rules(promise: TapFilter) -> tuple[str, ...]:
    """The rules of one tap as nft lists them; each drops what breaks one promise (nft(8))."""
    rules: list[str] = []
    if promise.deny_mac_spoofing:
        rules.append(f"ether saddr != {promise.mac} drop")
    if promise.deny_vlan_tags:
        # Bridges and hosts take a priority tag (VLAN 0) off and deliver what was behind it.
        rules.append("ether type { 8021q, 8021ad } drop")
    if promise.deny_arp_spoofing:
        # A header of other sizes would have the sender's address elsewhere than it is looked for.
        rules.append("arp htype != 1 drop")
        rules.append("arp hlen != 6 drop")
        rules.append("arp plen != 4 drop")
        rules.append(f"arp saddr ether != {promise.mac} drop")
        # RARP, by which QEMU announces a migrated guest, is laid out as ARP is (RFC 903).
        mac = int(promise.mac.replace(":", ""), 16)
        rules.append("ether type 0x8035 @nh,0,48 != 0x108000604 drop")
        rules.append(f"ether type 0x8035 @nh,64,48 != {mac:#x} drop")
    return tuple(rules)


class Nftables:
    """A netdev ingress chain on the tap: before the bridge, at a cost that is each tap's own."""

    name = "nftables"

    def works(self) -> bool:
        """See Backend."""
        if not Path(NFT).exists():
            return False
        try:
            run(NFT, "--check", "-f", "-", stdin=self._transaction("lo", ()))
        except CommandError:
            return False
        return True

    def render(self, promise: TapFilter) -> str:
        """See Backend."""
        return self._transaction(promise.tap, nft_rules(promise))

    def _transaction(self, tap: str, rules: tuple[str, ...]) -> str:
        table = f"netdev vmw-{tap}"
        # Deleting needs that it is there: added first, one text does for both cases.
        return f"add table {table}\ndelete table {table}\n{self._table(tap, rules)}"

    def _table(self, tap: str, rules: tuple[str, ...]) -> str:
        lines = [
            f"table netdev vmw-{tap} {{",
            "  chain ingress {",
            f'    type filter hook ingress device "{tap}" priority -500; policy accept;',
            *(f"    {rule}" for rule in rules),
            "  }",
            "}",
        ]
        return "\n".join(lines) + "\n"

    def install(self, promise: TapFilter) -> None:
        """See Backend.

        A tap that was just made has no rules: `create` is then done at once. It fails where there
        are any, and only then is deleted, for which the kernel waits until no frame on its way is
        looked at by the old ones, 10 ms and more.
        """
        table = self._table(promise.tap, nft_rules(promise))
        try:
            run(NFT, "-f", "-", stdin=f"create table netdev vmw-{promise.tap}\n{table}")
        except CommandError:
            run(NFT, "-f", "-", stdin=self.render(promise))

    def remove(self, tap: str) -> None:
        """See Backend."""
        table = f"netdev vmw-{tap}"
        run(NFT, "-f", "-", stdin=f"add table {table}\ndelete table {table}\n")

    def missing(self, promise: TapFilter) -> str:
        """See Backend."""
        table = f"netdev vmw-{promise.tap}"
        try:
            listed = run(NFT, "list", "table", *table.split())
        except CommandError:
            return f"nft knows no table {table}"
        there = [line.strip() for line in listed.splitlines()]
        while there and not _is_hook(there[0], promise.tap):
            del there[0]
        if not there:
            return f"no ingress chain of table {table} is bound to {promise.tap}"
        return _difference(nft_rules(promise), there[1 : there.index("}")], f"nft table {table}")


def _is_hook(line: str, tap: str) -> bool:
    return line.startswith("type filter hook ingress device") and f'"{tap}"' in line


def _difference(wanted: tuple[str, ...], there: list[str], place: str) -> str:
    lost = [rule for rule in wanted if rule not in there]
    if lost:
        return f"{len(lost)} of {len(wanted)} rules are gone from {place}, the first: {lost[0]}"
    if there != list(wanted):
        return f"{place} has rules that virt-warden did not put there"
    return ""


def ebtables_rules(promise: TapFilter) -> tuple[str, ...]:
    """The rules of one tap as ebtables lists them; they promise what `nft_rules` do."""
    rules: list[str] = []
    if promise.deny_mac_spoofing:
        rules.append(f"-s ! {promise.mac} -j DROP")
    if promise.deny_vlan_tags:
        rules.append("-p 802_1Q -j DROP")
        rules.append("-p S-TAG -j DROP")
    if promise.deny_arp_spoofing:
        # What passes is named, since ebtables takes no MAC or IP address out of a header of other
        # sizes, and then neither "is" nor "is not" fits; naming any IP address asks for its size.
        sizes = "--arp-htype 1 --arp-ptype 0x800 --arp-ip-src 0.0.0.0/0"
        for protocol in ("ARP", "RARP"):
            rules.append(f"-p {protocol} {sizes} --arp-mac-src {promise.mac} -j RETURN")
            rules.append(f"-p {protocol} -j DROP")
    return tuple(rules)


class Ebtables:
    """A chain of the tap's own, jumped to before the bridge decides where a frame goes."""

    name = "ebtables"

    def works(self) -> bool:
        """See Backend."""
        if not Path(EBTABLES_RESTORE).exists():
            return False
        try:
            run(EBTABLES, "-t", "nat", "-L", "PREROUTING")
        except CommandError:
            return False
        return True

    def render(self, promise: TapFilter) -> str:
        """See Backend."""
        chain = f"vmw-{promise.tap}"
        lines = [
            "*nat",
            f":{chain} RETURN",
            *(f"-A {chain} {rule}" for rule in ebtables_rules(promise)),
            f"-A PREROUTING -i {promise.tap} -j {chain}",
        ]
        return "\n".join(lines) + "\n"

    def install(self, promise: TapFilter) -> None:
        """See Backend."""
        self.remove(promise.tap)
        run(EBTABLES_RESTORE, "--noflush", stdin=self.render(promise))

    def remove(self, tap: str) -> None:
        """See Backend."""
        chain = f"vmw-{tap}"
        if not self._listed(chain):
            return
        jumps = [line for line in self._listed("PREROUTING") if line.endswith(f"-j {chain}")]
        lines = ["*nat", *(f"-D PREROUTING {jump}" for jump in jumps), f"-F {chain}", f"-X {chain}"]
        run(EBTABLES_RESTORE, "--noflush", stdin="\n".join(lines) + "\n")

    def _listed(self, chain: str) -> list[str]:
        try:
            return [line.strip() for line in run(EBTABLES, "-t", "nat", "-L", chain).splitlines()]
        except CommandError:
            return []

    def missing(self, promise: TapFilter) -> str:
        """See Backend."""
        chain = f"vmw-{promise.tap}"
        if f"-i {promise.tap} -j {chain}" not in self._listed("PREROUTING"):
            return f"ebtables does not send what comes from {promise.tap} to chain {chain}"
        there = [line for line in self._listed(chain) if line.startswith("-")]
        return _difference(ebtables_rules(promise), there, f"ebtables chain {chain}")


BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Nftables(), Ebtables())}
