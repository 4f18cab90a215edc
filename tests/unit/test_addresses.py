"""Which addresses a blueprint may have an agent connect to."""

from __future__ import annotations

import pytest

from brain_clusters.domain.addresses import may_connect, parse_networks


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0",
        "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.0.192",
        "198.18.0.1", "192.0.2.1", "100.100.100.200", "192.88.99.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
        "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:1::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not may_connect(address, ())


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_the_public_internet_is_open(address: str) -> None:
    assert may_connect(address, ())


def test_what_an_operator_allows_is_open() -> None:
    allowed = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert may_connect("10.1.2.3", allowed)
    assert may_connect("::ffff:10.1.2.3", allowed)
    assert may_connect("64:ff9b::10.1.2.3", allowed)
    assert may_connect("fd12::1", allowed)
    assert not may_connect("10.2.0.1", allowed)
    assert not may_connect("fc00::1", allowed)


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits set"):
        parse_networks(["10.0.0.1/8"])
