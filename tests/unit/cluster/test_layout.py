"""Addresses, names and paths fit what the kernel and Kubernetes allow."""

from ipaddress import ip_address, ip_network
from itertools import combinations

from localcluster import layout


def test_no_two_networks_overlap_and_one_rule_covers_all() -> None:
    names = (layout.MACHINE_NETWORK, layout.POD_NETWORK, layout.SERVICE_NETWORK)
    networks = [ip_network(name) for name in names]
    assert not any(a.overlaps(b) for a, b in combinations(networks, 2))
    whole = ip_network(layout.CLUSTER_NETWORK)
    assert all(network.subnet_of(whole) for network in networks)  # type: ignore[arg-type]


def test_each_node_has_pod_addresses_of_its_own() -> None:
    pods = [ip_network(str(node.pod_network)) for node in layout.NODES]
    assert not any(a.overlaps(b) for a, b in combinations(pods, 2))
    whole = ip_network(layout.POD_NETWORK)
    assert all(network.subnet_of(whole) for network in pods)  # type: ignore[arg-type]


def test_each_address_is_in_its_network_and_used_once() -> None:
    hosts = [layout.HOST_ADDRESS, *(machine.address for machine in layout.MACHINES)]
    assert len(set(hosts)) == len(hosts)
    assert all(ip_address(host) in ip_network(layout.MACHINE_NETWORK) for host in hosts)
    for service in (layout.API_SERVICE_ADDRESS, layout.DNS_ADDRESS):
        assert ip_address(service) in ip_network(layout.SERVICE_NETWORK)


def test_names_are_as_short_as_the_kernel_wants_them() -> None:
    for machine in layout.MACHINES:
        assert len(machine.device) <= 15
        assert len(str(machine.containerd_socket)) <= 107


def test_gpus_are_kept_for_those_who_tolerate_them() -> None:
    node = layout.node("gpu-0")
    assert [taint["effect"] for taint in node.taints] == ["NoSchedule"]
    assert not layout.node("cpu-0").taints
