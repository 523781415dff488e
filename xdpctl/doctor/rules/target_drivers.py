"""What each driver needs to transmit redirected frames (ndo_xdp_xmit): one row a driver, to be held against its source.

Read off drivers/net at 6.1, 6.12 and 6.18. From 6.3 the xdp-features of a device say the same for this moment;
the table says why, and what to do, and stands in where the features can't be read.
"""

from __future__ import annotations

from xdpctl.records import dataclass

ALWAYS, PROGRAM, NEVER = "always", "program", "never"


@dataclass(frozen=True, slots=True)
class Target:
    """How one driver takes redirected frames."""

    xmit: str
    """always: whenever the link is up; program: only while it has a native program; never: no ndo_xdp_xmit."""
    function: str
    """Its ndo_xdp_xmit, or what stands for its absence."""
    sg: bool = False
    """Transmits frames of several buffers (NETDEV_XDP_ACT_NDO_XMIT_SG)."""
    bare: str = "ENXIO"
    """Up to 6.2: errno of ndo_xdp_xmit without a program."""
    bare_worked: bool = False
    """Up to 6.2 it never looked for the program, and transmitted."""
    closing: str | None = None
    """errno while the driver is down or resetting; None: frames just vanish."""
    cpu_errno: str | None = None
    """errno on a CPU whose number is not below the number of transmit queues; None: queues are shared."""


TARGETS: dict[str, Target] = {
    # a native program is required on the target
    "ena": Target(PROGRAM, "ena_xdp_xmit()", closing="ENETDOWN"),
    "bnxt_en": Target(PROGRAM, "bnxt_xdp_xmit()", sg=True, bare="EINVAL", closing="EINVAL"),
    "fec": Target(PROGRAM, "fec_enet_xdp_xmit()"),
    "funeth": Target(PROGRAM, "fun_xdp_xmit_frames()", sg=True),
    "gve": Target(PROGRAM, "gve_xdp_xmit()"),
    "i40e": Target(PROGRAM, "i40e_xdp_xmit()", sg=True, closing="ENETDOWN", cpu_errno="ENXIO"),
    "ice": Target(PROGRAM, "ice_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "idpf": Target(PROGRAM, "idpf_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "igb": Target(PROGRAM, "igb_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "igc": Target(PROGRAM, "igc_xdp_xmit()", sg=True, bare_worked=True, closing="ENETDOWN"),
    "ixgbe": Target(PROGRAM, "ixgbe_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "rvu-nicpf": Target(PROGRAM, "otx2_xdp_xmit()", closing="ENETDOWN"),
    "rvu-nicvf": Target(PROGRAM, "otx2_xdp_xmit()", closing="ENETDOWN"),
    "st_gmac": Target(PROGRAM, "stmmac_xdp_xmit()", bare_worked=True, closing="ENETDOWN"),
    "st_xgmac": Target(PROGRAM, "stmmac_xdp_xmit()", bare_worked=True, closing="ENETDOWN"),
    "virtio_net": Target(PROGRAM, "virtnet_xdp_xmit()", sg=True),
    "vmxnet3": Target(PROGRAM, "vmxnet3_xdp_xmit()"),
    # no program needed
    "mlx5_core": Target(ALWAYS, "mlx5e_xdp_xmit()", sg=True, closing="ENETDOWN", cpu_errno="ENXIO"),
    "atlantic": Target(ALWAYS, "aq_xdp_xmit()", sg=True),
    "tsnep": Target(ALWAYS, "tsnep_netdev_xdp_xmit()", sg=True),
    "fsl_dpa": Target(ALWAYS, "dpaa_xdp_xmit()"),
    "fsl_dpaa2_eth": Target(ALWAYS, "dpaa2_eth_xdp_xmit()"),
    "fsl_enetc": Target(ALWAYS, "enetc_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "mvneta": Target(ALWAYS, "mvneta_xdp_xmit()", sg=True, closing="ENETDOWN"),
    "mvpp2": Target(ALWAYS, "mvpp2_xdp_xmit()"),
    "mtk_soc_eth": Target(ALWAYS, "mtk_xdp_xmit()", sg=True),
    "lan966x-switch": Target(ALWAYS, "lan966x_xdp_xmit()"),
    "mana": Target(ALWAYS, "mana_xdp_xmit()"),
    "ionic": Target(ALWAYS, "ionic_xdp_xmit()", sg=True),
    "qede": Target(ALWAYS, "qede_xdp_transmit()"),
    "sfc": Target(ALWAYS, "efx_xdp_tx_buffers()", cpu_errno="EINVAL"),
    "netsec": Target(ALWAYS, "netsec_xdp_xmit()"),
    "cpsw": Target(ALWAYS, "cpsw_ndo_xdp_xmit()"),
    "cpsw-switch": Target(ALWAYS, "cpsw_ndo_xdp_xmit()"),
    "am65-cpsw-nuss": Target(ALWAYS, "am65_cpsw_ndo_xdp_xmit()"),
    "icssg-prueth": Target(ALWAYS, "emac_xdp_xmit()"),
    "hv_netvsc": Target(ALWAYS, "netvsc_ndoxdp_xmit()"),
    "xen_netfront": Target(ALWAYS, "xennet_xdp_xmit()"),
    "vif": Target(ALWAYS, "xennet_xdp_xmit()"),
    "tap": Target(ALWAYS, "tun_xdp_xmit()"),
    # never a target: native XDP, but no ndo_xdp_xmit
    "mlx4_en": Target(NEVER, "mlx4_netdev_ops has no ndo_xdp_xmit"),
    "nfp": Target(NEVER, "nfp_nfd3_netdev_ops has no ndo_xdp_xmit"),
    "ixgbevf": Target(NEVER, "ixgbevf_netdev_ops has no ndo_xdp_xmit"),
    "nicvf": Target(NEVER, "nicvf_netdev_ops has no ndo_xdp_xmit"),
    "fbnic": Target(NEVER, "fbnic_netdev_ops has no ndo_xdp_xmit"),
    "netdevsim": Target(NEVER, "nsim_netdev_ops has no ndo_xdp_xmit"),
    # never a target: no native XDP at all
    "loopback": Target(NEVER, "loopback_ops has no ndo_xdp_xmit"),
    "tun": Target(NEVER, "tun_netdev_ops has no ndo_xdp_xmit"),
    "bridge": Target(NEVER, "br_netdev_ops has no ndo_xdp_xmit"),
    "vlan": Target(NEVER, "vlan_netdev_ops has no ndo_xdp_xmit"),
    "macvlan": Target(NEVER, "macvlan_netdev_ops has no ndo_xdp_xmit"),
    "macvtap": Target(NEVER, "macvlan_netdev_ops has no ndo_xdp_xmit"),
    "ipvlan": Target(NEVER, "ipvlan_netdev_ops has no ndo_xdp_xmit"),
    "ipvtap": Target(NEVER, "ipvlan_netdev_ops has no ndo_xdp_xmit"),
    "ifb": Target(NEVER, "ifb_netdev_ops has no ndo_xdp_xmit"),
    "dummy": Target(NEVER, "dummy_netdev_ops has no ndo_xdp_xmit"),
    "vxlan": Target(NEVER, "vxlan_netdev_ether_ops has no ndo_xdp_xmit"),
    "geneve": Target(NEVER, "geneve_netdev_ops has no ndo_xdp_xmit"),
    "gretap": Target(NEVER, "gre_tap_netdev_ops has no ndo_xdp_xmit"),
    "ipip": Target(NEVER, "ipip_netdev_ops has no ndo_xdp_xmit"),
    "sit": Target(NEVER, "ipip6_netdev_ops has no ndo_xdp_xmit"),
    "ip6tnl": Target(NEVER, "ip6_tnl_netdev_ops has no ndo_xdp_xmit"),
    "gre": Target(NEVER, "ipgre_netdev_ops has no ndo_xdp_xmit"),
    "vrf": Target(NEVER, "vrf_netdev_ops has no ndo_xdp_xmit"),
    "team": Target(NEVER, "team_netdev_ops has no ndo_xdp_xmit"),
    "netkit": Target(NEVER, "netkit_netdev_ops has no ndo_xdp_xmit"),
    "wireguard": Target(NEVER, "wireguard netdev_ops have no ndo_xdp_xmit"),
    "nlmon": Target(NEVER, "nlmon_ops has no ndo_xdp_xmit"),
    "e1000": Target(NEVER, "e1000_netdev_ops has no ndo_xdp_xmit"),
    "e1000e": Target(NEVER, "e1000e_netdev_ops has no ndo_xdp_xmit"),
    "r8169": Target(NEVER, "rtl_netdev_ops has no ndo_xdp_xmit"),
    "tg3": Target(NEVER, "tg3_netdev_ops has no ndo_xdp_xmit"),
    "bnx2x": Target(NEVER, "bnx2x_netdev_ops has no ndo_xdp_xmit"),
}
"""By driver_of(link). bond and veth have rules of their own."""

NATIVE_SINCE: dict[str, tuple[int, int]] = {
    "veth": (4, 19),
    "bond": (5, 15),
    "igb": (5, 10),
    "igc": (5, 13),
    "st_gmac": (5, 13),
    "st_xgmac": (5, 13),
    "fec": (6, 2),
    "gve": (6, 4),
    "idpf": (6, 18),
    "ionic": (6, 9),
    "vmxnet3": (6, 6),
    "fbnic": (6, 18),
    "mana": (5, 17),
    "lan966x-switch": (6, 2),
    "mtk_soc_eth": (6, 0),
    "atlantic": (5, 19),
    "funeth": (5, 18),
    "rvu-nicpf": (5, 16),
    "am65-cpsw-nuss": (6, 10),
    "icssg-prueth": (6, 15),
    "fsl_dpa": (5, 11),
    "fsl_enetc": (5, 13),
    "hv_netvsc": (5, 6),
    "vif": (5, 9),
    "xen_netfront": (5, 9),
}
"""First kernel whose driver has ndo_bpf, where it is younger than 4.19: a weak fact, used only to explain."""

HAS_NDO_BPF: frozenset[str] = frozenset(
    name for name, row in TARGETS.items() if row.xmit != NEVER or name in NATIVE_SINCE
) | {"mlx4_en", "nfp", "ixgbevf", "nicvf", "netdevsim", "veth", "bond"}
"""Drivers with native XDP in some kernel."""

NO_NDO_BPF: frozenset[str] = frozenset(TARGETS) - HAS_NDO_BPF
"""Drivers known to have none, up to 6.19."""
