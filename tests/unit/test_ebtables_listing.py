"""What ebtables lists is understood in the spelling of each of its versions."""

from __future__ import annotations

import pytest

from virtwarden.system.netfilter import ebtables

MAC = "52:54:00:00:00:01"


@pytest.mark.parametrize(
    "spelled",
    [
        (f"-s ! {MAC} -j DROP", "-p IPv6 --ip6-proto ! 255 -j DROP "),
        (f"! -s {MAC} -j DROP", "-p IPv6 ! --ip6-proto 255 -j DROP "),
    ],
    ids=["1.8.9", "1.8.11"],
)
def test_a_rule_that_negates_is_the_same_rule_in_each_version(
    spelled: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "Bridge table: nat\n\nBridge chain: vnet0, entries: 2, policy: DROP\n"
    monkeypatch.setattr(ebtables, "run", lambda *_: header + "\n".join(spelled))
    negated = [f"-s ! {MAC} -j DROP", "-p IPv6 --ip6-proto ! 255 -j DROP"]
    assert ebtables.listed("nat") == {"vnet0": negated}
