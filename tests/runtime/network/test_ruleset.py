from swarmd.runtime.network import overlay, ruleset
from swarmd.runtime.network.ruleset import Balanced, PortRule
from swarmd.runtime.network.values import Endpoint, IngressPort, NodeEndpoint, Overlay, OverlayState, ServiceRoute

APP = Overlay("n1", "app", "10.7.0.0/24", 4097, "10.7.0.11", "198.18.0.1", ingress=True)
STATE = OverlayState(
    overlays=(APP,),
    endpoints=(
        Endpoint("n1", "10.7.0.21", "198.18.0.1", "web", ("web.1",), True),
        Endpoint("n1", "10.7.0.22", "198.18.0.2", "web", ("web.2",), True),
        Endpoint("n1", "10.7.0.24", "198.18.0.2", "web", ("web.3",), False),
    ),
    node_endpoints=(NodeEndpoint("n1", "10.7.0.12", "198.18.0.2"),),
    services=(
        ServiceRoute("web", ("web",), {"n1": "10.7.0.2"}, (IngressPort("tcp", 8080, 80),)),
        ServiceRoute("rr", ("rr",)),
    ),
)


def test_only_serving_tasks_take_traffic() -> None:
    assert overlay.balanced_ports(STATE)["ingress_tcp_8080"].backends == ("10.7.0.21", "10.7.0.22")
    assert overlay.service_addresses(STATE, {"n1"}) == {"10.7.0.2": ("10.7.0.21", "10.7.0.22")}
    assert overlay.service_addresses(STATE, {"other"}) == {}


def test_other_nodes_addresses_are_forwarded_own_ones_are_not() -> None:
    remote = {"10.7.0.22": "198.18.0.2", "10.7.0.24": "198.18.0.2", "10.7.0.12": "198.18.0.2"}
    assert overlay.remote_addresses(STATE, APP) == remote


def test_names_answer_the_service_address_and_its_tasks() -> None:
    names = overlay.names(STATE, "n1")
    assert names["web"] == ["10.7.0.2"]
    assert names["tasks.web"] == ["10.7.0.21", "10.7.0.22"]
    assert names["web.1"] == ["10.7.0.21"]


def test_an_unchanged_port_is_left_alone() -> None:
    port = Balanced("tcp", 80, 8080, ("10.0.0.1",))
    assert ruleset.ingress("t", {port.chain: port}, {port.chain: port}) == ""


def test_a_port_without_back_ends_refuses() -> None:
    port = Balanced("tcp", 80, 8080, ())
    assert ruleset.ingress("t", {}, {port.chain: port}) == "add element ip t idle { tcp . 80 }\n"


def test_published_ports_are_elements_not_rules() -> None:
    rules = [PortRule("tcp", "", 8080, "172.17.0.2", 80), PortRule("udp", "10.0.0.1", 53, "172.17.0.2", 53)]
    assert ruleset.ports("add", "t", rules).splitlines() == [
        "add element ip t ports { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element ip t ports_at { 10.0.0.1 . udp . 53 : 172.17.0.2 . 53 }",
    ]
    assert "add element ip t ports" not in ruleset.ports("delete", "t", rules)
