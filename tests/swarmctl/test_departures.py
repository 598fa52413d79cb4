"""Leaving by force, and going on alone, as the user is told of them."""

from tests.agent.api.conftest import Api
from tests.swarmctl.conftest import Run


async def test_only_a_manager_goes_on_alone_and_keeps_its_settings(api: Api, swarmctl: Run) -> None:
    alone = ("swarm", "init", "--force-new-cluster")
    refused = await swarmctl(*alone)
    assert (refused.code, refused.err) == (1, "swarmctl: this node is not a swarm manager\n")
    await swarmctl("swarm", "init")
    refused = await swarmctl(*alone, "--cert-expiry", "48h")
    assert refused.code == 2
    assert "--cert-expiry does not go with --force-new-cluster" in refused.err
    assert not api.membership.cluster_made_anew
    made = await swarmctl(*alone)
    assert made.code == 0, made.err
    assert "is the only manager of the swarm now" in made.out
    assert api.membership.cluster_made_anew


async def test_docker_s_fields_of_a_new_cluster_do_not_change_the_old_one(api: Api) -> None:
    await api.call("POST", "/swarm/init", {})
    asked = {"ForceNewCluster": True, "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "SubnetSize": 24, "Spec": {}}
    status, node = await api.call("POST", "/swarm/init", asked)
    assert (status, node) == (200, api.membership.info().node_id)


async def test_what_stays_behind_of_a_manager_is_said(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    api.membership.left_behind = "its member stays behind"
    left = await swarmctl("swarm", "leave", "--force")
    assert (left.code, left.out, left.err) == (0, "Node left the swarm.\n", "WARNING: its member stays behind\n")
