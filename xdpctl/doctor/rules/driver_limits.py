"""What drivers refuse when XDP is attached, as a table to be held against their source line by line.

Each row is one check of a driver's ndo_bpf. MTU rows give the largest MTU as a formula over the names of
attach_drivers.sizes_of, the same text being computed and shown; condition rows name a test of
driver_conditions. Texts are the kernel's, verbatim; `heard` says whether they come back as extack, only
reach dmesg, or do not exist.
Read off drivers/net at 5.10, 6.1, 6.12 and 6.18.
"""

from __future__ import annotations

from xdpctl.records import dataclass

Version = tuple[int, ...]

EXTACK, DMESG, SILENT = "extack", "dmesg", "nowhere"


@dataclass(frozen=True, slots=True)
class MtuLimit:
    """The largest MTU with which a driver takes native XDP."""

    drivers: tuple[str, ...]
    largest: str
    """Formula in bytes over the names of attach_drivers.sizes_of."""
    errno: str
    text: str
    heard: str
    function: str
    since: Version = (0,)
    until: Version = (99,)
    """First kernel to which the row no longer applies."""
    frags: Version | None = None
    """From this kernel on, a frags-aware program lifts the limit."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A state of the device in which its driver refuses native XDP (or takes it at a price)."""

    drivers: tuple[str, ...]
    mistake: str
    """Key of attach_drivers.BY_KEY."""
    condition: str
    """Key of driver_conditions.CONDITIONS."""
    errno: str | None
    """None: it succeeds, with a consequence."""
    text: str
    heard: str
    function: str
    since: Version = (0,)
    until: Version = (99,)
    consequence: str | None = None


INTEL = "drivers/net/ethernet/intel/"
MLX = "drivers/net/ethernet/mellanox/"

MTU_LIMITS: tuple[MtuLimit, ...] = (
    MtuLimit(
        ("virtio_net",),
        "page - headroom_with_info - 14",
        "EINVAL",
        "virtio_net: MTU too large to enable XDP without frags",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        since=(6, 3),
        frags=(6, 3),
    ),
    MtuLimit(
        ("virtio_net",),
        "page - 32",  # sizeof(struct padded_vnet_hdr), with the hash fields of virtio_net_hdr_v1_hash
        "EINVAL",
        "virtio_net: MTU too large to enable XDP",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        since=(5, 18),
        until=(6, 3),
    ),
    MtuLimit(
        ("virtio_net",),
        "page - 16",
        "EINVAL",
        "virtio_net: MTU too large to enable XDP",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        until=(5, 18),
    ),
    MtuLimit(
        ("ixgbe",), "intel_buffer - 22", "EINVAL", "", SILENT, INTEL + "ixgbe/ixgbe_main.c ixgbe_xdp_setup()"
    ),
    MtuLimit(
        ("ixgbevf",),
        "intel_buffer - 22",
        "EINVAL",
        "",
        SILENT,
        INTEL + "ixgbevf/ixgbevf_main.c ixgbevf_xdp_setup()",
    ),
    MtuLimit(
        ("i40e",),
        "i40e_buffer - 26",
        "EINVAL",
        "i40e: MTU too large for linear frames and XDP prog does not support frags",
        EXTACK,
        INTEL + "i40e/i40e_main.c i40e_xdp_setup()",
        since=(6, 4),
        frags=(6, 4),
    ),
    MtuLimit(
        ("i40e",),
        "intel_buffer - 22",
        "EINVAL",
        "i40e: MTU too large to enable XDP",
        EXTACK,
        INTEL + "i40e/i40e_main.c i40e_xdp_setup()",
        until=(6, 4),
    ),
    MtuLimit(
        ("ice",),
        "ice_buffer - 26",
        "EOPNOTSUPP",
        "ice: MTU is too large for linear frames and XDP prog does not support frags",
        EXTACK,
        INTEL + "ice/ice_main.c ice_xdp_setup_prog()",
        since=(6, 3),
        frags=(6, 3),
    ),
    MtuLimit(
        ("ice",),
        "ice_buffer - 26",
        "EOPNOTSUPP",
        "ice: MTU too large for loading XDP",
        EXTACK,
        INTEL + "ice/ice_main.c ice_xdp_setup_prog()",
        until=(6, 3),
    ),
    MtuLimit(
        ("igb",),
        "intel_buffer - 26",
        "EINVAL",
        "igb: The RX buffer size is too small for the frame size",
        EXTACK,
        INTEL + "igb/igb_main.c igb_xdp_setup()",
    ),
    MtuLimit(
        ("igc",),
        "1500",
        "EOPNOTSUPP",
        "igc: Jumbo frames not supported",
        EXTACK,
        INTEL + "igc/igc_xdp.c igc_xdp_set_prog()",
    ),
    MtuLimit(
        ("st_gmac", "st_xgmac"),
        "1500",
        "EOPNOTSUPP",
        "stmmac: Jumbo frames not supported",
        EXTACK,
        "drivers/net/ethernet/stmicro/stmmac/stmmac_xdp.c stmmac_xdp_set_prog()",
    ),
    MtuLimit(
        ("mlx5_core",),
        "page - shared_info - 256 - ip_align - 22",
        "EINVAL",
        "MTU(%d) > %d, too big for an XDP program not aware of multi buffer",
        DMESG,
        MLX + "mlx5/core/en_main.c mlx5e_params_validate_xdp()",
        since=(5, 19),
        frags=(5, 19),
    ),
    MtuLimit(
        ("mlx5_core",),
        "page - shared_info - 256 - ip_align - 22",
        "EINVAL",
        "XDP is not allowed with MTU(%d) > %d",
        DMESG,
        MLX + "mlx5/core/en_main.c mlx5e_xdp_allowed()",
        until=(5, 19),
    ),
    MtuLimit(
        ("mlx4_en",),
        "page - 14 - 8 - 256 - shared_info",
        "EOPNOTSUPP",
        "mtu:%d > max:%d when XDP prog is attached",
        DMESG,
        MLX + "mlx4/en_netdev.c mlx4_en_check_xdp_mtu()",
    ),
    MtuLimit(
        ("bnxt_en",),
        "page - 18 - ip_align - 256 - shared_info",
        "EOPNOTSUPP",
        "MTU %d larger than %d without XDP frag support.",
        DMESG,
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c bnxt_xdp_set()",
        since=(5, 19),
        frags=(5, 19),
    ),
    MtuLimit(
        ("bnxt_en",),
        "page - 18 - ip_align - 256 - shared_info",
        "EOPNOTSUPP",
        "MTU %d larger than largest XDP supported MTU %d.",
        DMESG,
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c bnxt_xdp_set()",
        until=(5, 19),
    ),
    MtuLimit(
        ("ena",),
        "page_16k - 14 - 4 - 4 - 256 - shared_info",
        "EINVAL",
        "ena: Failed to set xdp program, the current MTU is larger than the maximum allowed MTU."
        " Check the dmesg for more info",
        EXTACK,
        "drivers/net/ethernet/amazon/ena/ena_xdp.c ena_xdp_set()",
    ),
    MtuLimit(
        ("gve",),
        "2048 - 14",  # GQI takes 2 less (GVE_RX_PAD), which nothing tells from outside
        "EOPNOTSUPP",
        "XDP is not supported for mtu %d.",
        DMESG,
        "drivers/net/ethernet/google/gve/gve_main.c verify_xdp_configuration()",
    ),
    MtuLimit(
        ("mana",),
        "page - shared_info - 14 - 256",
        "EOPNOTSUPP",
        "mana: XDP: mtu too large",
        EXTACK,
        "drivers/net/ethernet/microsoft/mana/mana_bpf.c mana_xdp_set()",
    ),
    MtuLimit(
        ("hv_netvsc",),
        "whole_lines_of_page_less_256_less_info - 14",
        "EOPNOTSUPP",
        "hv_netvsc: XDP: mtu too large",
        EXTACK,
        "drivers/net/hyperv/netvsc_bpf.c netvsc_xdp_set()",
    ),
    MtuLimit(
        ("vmxnet3",),
        "page - 256 - ip_align - shared_info - 14 - 8 - 4",
        "EOPNOTSUPP",
        "vmxnet3: MTU %u too large for XDP",
        EXTACK,
        "drivers/net/vmxnet3/vmxnet3_xdp.c vmxnet3_xdp_set()",
        since=(6, 6),
    ),
    MtuLimit(
        ("vif", "xen_netfront"),
        "4096 - 256",  # XEN_PAGE_SIZE
        "EINVAL",
        "XDP requires MTU less than %lu",
        DMESG,
        "drivers/net/xen-netfront.c xennet_xdp_set()",
    ),
    MtuLimit(
        ("mvneta",),
        "page - headroom_with_info",
        "EOPNOTSUPP",
        "mvneta: prog does not support XDP frags",
        EXTACK,
        "drivers/net/ethernet/marvell/mvneta.c mvneta_xdp_setup()",
        since=(5, 18),
        frags=(5, 18),
    ),
    MtuLimit(
        ("mvneta",),
        "page - headroom_with_info",
        "EOPNOTSUPP",
        "mvneta: MTU too large for XDP",
        EXTACK,
        "drivers/net/ethernet/marvell/mvneta.c mvneta_xdp_setup()",
        until=(5, 18),
    ),
    MtuLimit(
        ("mvpp2",),
        "page - shared_info - 224",
        "EOPNOTSUPP",
        "mvpp2: MTU too large for XDP",
        EXTACK,
        "drivers/net/ethernet/marvell/mvpp2/mvpp2_main.c mvpp2_xdp_setup()",
    ),
    MtuLimit(
        ("rvu-nicpf", "rvu-nicvf"),
        "1530 - 22",
        "EOPNOTSUPP",
        "Jumbo frames not yet supported with XDP",
        DMESG,
        "drivers/net/ethernet/marvell/octeontx2/nic/otx2_pf.c otx2_xdp_setup()",
    ),
    MtuLimit(
        ("nicvf",),
        "1530 - 14 - 8",
        "EOPNOTSUPP",
        "Jumbo frames not yet supported with XDP, current MTU %d.",
        DMESG,
        "drivers/net/ethernet/cavium/thunder/nicvf_main.c nicvf_xdp_setup()",
    ),
    MtuLimit(
        ("ionic",),
        "page - 18 - 256 - shared_info",
        "EINVAL",
        "ionic: MTU is too large for XDP without frags support",
        EXTACK,
        "drivers/net/ethernet/pensando/ionic/ionic_lif.c ionic_xdp_config()",
        frags=(6, 9),
    ),
    MtuLimit(
        ("netdevsim",),
        "4000",
        "EINVAL",
        "netdevsim: MTU too large w/ XDP enabled",
        EXTACK,
        "drivers/net/netdevsim/bpf.c nsim_setup_prog_checks()",
        frags=(6, 15),
    ),
    MtuLimit(
        ("netsec",),
        "1500",
        "EOPNOTSUPP",
        "netsec: Jumbo frames not supported on XDP",
        EXTACK,
        "drivers/net/ethernet/socionext/netsec.c netsec_xdp_setup()",
    ),
    MtuLimit(
        ("mtk_soc_eth",),
        "page - 256 - shared_info",
        "EOPNOTSUPP",
        "mtk_soc_eth: MTU too large for XDP",
        EXTACK,
        "drivers/net/ethernet/mediatek/mtk_eth_soc.c mtk_xdp_setup()",
    ),
    MtuLimit(
        ("funeth",),
        "page - 192 - 18 - shared_info",
        "EINVAL",
        "funeth: Device MTU too large for XDP",
        EXTACK,
        "drivers/net/ethernet/fungible/funeth/funeth_main.c fun_xdp_setup()",
    ),
    MtuLimit(
        ("atlantic",),
        "2048",
        "EOPNOTSUPP",
        "atlantic: prog does not support XDP frags",
        EXTACK,
        "drivers/net/ethernet/aquantia/atlantic/aq_main.c aq_xdp_setup()",
        frags=(5, 19),
    ),
    MtuLimit(
        ("fbnic",),
        "hds_thresh - 14",
        "EOPNOTSUPP",
        "fbnic: MTU too high, or HDS threshold is too low for single buffer XDP",
        EXTACK,
        "drivers/net/ethernet/meta/fbnic/fbnic_netdev.c fbnic_bpf()",
        frags=(6, 18),
    ),
)

REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        ("ixgbe",),
        "receive-offload",
        "lro",
        "EINVAL",
        "",
        SILENT,
        INTEL + "ixgbe/ixgbe_main.c ixgbe_xdp_setup(): ring_is_rsc_enabled()",
    ),
    Refusal(
        ("ixgbe",),
        "sriov",
        "sriov",
        "EINVAL",
        "",
        SILENT,
        INTEL + "ixgbe/ixgbe_main.c ixgbe_xdp_setup(): IXGBE_FLAG_SRIOV_ENABLED",
    ),
    Refusal(
        ("ixgbe",),
        "cpus",
        "cpus_over_128",
        "ENOMEM",
        "",
        SILENT,
        INTEL + "ixgbe/ixgbe_main.c ixgbe_xdp_setup(): IXGBE_MAX_XDP_QS * 2",
        since=(5, 16),
    ),
    Refusal(
        ("ixgbe",),
        "cpus",
        "cpus_over_64",
        "ENOMEM",
        "",
        SILENT,
        INTEL + "ixgbe/ixgbe_main.c ixgbe_xdp_setup(): MAX_XDP_QUEUES",
        until=(5, 16),
    ),
    Refusal(
        ("mlx5_core",),
        "receive-offload",
        "lro_or_hw_gro",
        "EINVAL",
        "can't set XDP while HW-GRO/LRO is on, disable them first",
        DMESG,
        MLX + "mlx5/core/en_main.c mlx5e_xdp_allowed()",
        since=(5, 15),
    ),
    Refusal(
        ("mlx5_core",),
        "receive-offload",
        "lro",
        "EINVAL",
        "can't set XDP while LRO is on, disable LRO first",
        DMESG,
        MLX + "mlx5/core/en_main.c mlx5e_xdp_allowed()",
        until=(5, 15),
    ),
    Refusal(
        ("mlx5_core",),
        "striding-rq",
        "frags_over_striding_rq",
        "EINVAL",
        "XDP is not allowed with striding RQ and MTU(%d) > %d",
        DMESG,
        MLX + "mlx5/core/en_main.c mlx5e_params_validate_xdp()",
        since=(5, 19),
    ),
    Refusal(
        ("gve",),
        "receive-offload",
        "lro",
        "EOPNOTSUPP",
        "XDP is not supported when LRO is on.",
        DMESG,
        "drivers/net/ethernet/google/gve/gve_main.c verify_xdp_configuration()",
    ),
    Refusal(
        ("gve",),
        "header-split",
        "tcp_data_split",
        "EOPNOTSUPP",
        "XDP is not supported when header-data split is enabled.",
        DMESG,
        "drivers/net/ethernet/google/gve/gve_main.c verify_xdp_configuration()",
        since=(6, 14),
    ),
    Refusal(
        ("gve",),
        "queues",
        "gve_queues",
        "EINVAL",
        "XDP load failed: The number of configured RX queues %d should be equal to the number of configured TX queues"
        " %d and the number of configured RX/TX queues should be less than or equal to half the maximum number of"
        " RX/TX queues %d",
        DMESG,
        "drivers/net/ethernet/google/gve/gve_main.c verify_xdp_configuration()",
    ),
    Refusal(
        ("hv_netvsc",),
        "receive-offload",
        "lro",
        "EOPNOTSUPP",
        "hv_netvsc: XDP: not support LRO",
        EXTACK,
        "drivers/net/hyperv/netvsc_bpf.c netvsc_xdp_set()",
    ),
    Refusal(
        ("vmxnet3",),
        "receive-offload",
        "lro",
        None,
        "vmxnet3: LRO is not supported with XDP",
        EXTACK,
        "drivers/net/vmxnet3/vmxnet3_xdp.c vmxnet3_xdp_set()",
        since=(6, 6),
        consequence="the driver switches LRO off by itself; the attach succeeds in spite of what its extack says",
    ),
    Refusal(
        ("atlantic",),
        "receive-offload",
        "lro_without_frags",
        None,
        "LRO is not supported with single buffer XDP, disabling",
        DMESG,
        "drivers/net/ethernet/aquantia/atlantic/aq_main.c aq_xdp_setup()",
        consequence="the driver switches LRO off by itself",
    ),
    Refusal(
        ("bnxt_en",),
        "header-split",
        "tcp_data_split",
        "EOPNOTSUPP",
        "XDP is disallowed when HDS is enabled.",
        DMESG,
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c bnxt_xdp_set()",
        since=(6, 14),
    ),
    Refusal(
        ("bnxt_en",),
        "queues",
        "not_combined",
        "EOPNOTSUPP",
        "ethtool rx/tx channels must be combined to support XDP.",
        DMESG,
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c bnxt_xdp_set(): BNXT_FLAG_SHARED_RINGS",
    ),
    Refusal(
        ("ionic",),
        "queues",
        "not_combined",
        "EOPNOTSUPP",
        "ionic: XDP not available with split Tx/Rx interrupts",
        EXTACK,
        "drivers/net/ethernet/pensando/ionic/ionic_lif.c ionic_xdp_config(): IONIC_LIF_F_SPLIT_INTR",
    ),
    Refusal(
        ("ena",),
        "queues",
        "over_half_combined",
        "EINVAL",
        "ena: Failed to set xdp program, there is no enough space for allocating XDP queues,"
        " Check the dmesg for more info",
        EXTACK,
        "drivers/net/ethernet/amazon/ena/ena_xdp.h ena_xdp_legal_queue_count()",
    ),
    Refusal(
        ("mvpp2",),
        "queues",
        "tx_below_two_a_cpu",
        "EOPNOTSUPP",
        "mvpp2: XDP_TX needs two TX queues per CPU",
        EXTACK,
        "drivers/net/ethernet/marvell/mvpp2/mvpp2_main.c mvpp2_xdp_setup()",
    ),
    Refusal(
        ("fsl_enetc",),
        "queues",
        "tx_not_above_cpus",
        "EBUSY",
        "fsl_enetc: Reserving %d XDP TXQs leaves under %d for stack (total %d)",
        EXTACK,
        "drivers/net/ethernet/freescale/enetc/enetc.c enetc_setup_xdp_prog()",
        since=(6, 3),
    ),
    Refusal(
        ("idpf",),
        "queues",
        "all_combined_in_use",
        "ENOSPC",
        "idpf: No Tx queues available for XDP, please decrease the number of regular SQs",
        EXTACK,
        INTEL + "idpf/xdp.c idpf_xdp_setup_prog()",
        since=(6, 18),
    ),
    Refusal(
        ("nicvf",),
        "queues",
        "rx_and_tx_over_max",
        "ENOMEM",
        "Failed to attach BPF prog, RXQs + TXQs > Max %d",
        DMESG,
        "drivers/net/ethernet/cavium/thunder/nicvf_main.c nicvf_xdp_setup()",
    ),
    Refusal(
        ("igb",),
        "buffers",
        "igb_buffers_of_the_past",
        "EINVAL",
        "igb: The RX buffer size is too small for the frame size",
        EXTACK,
        INTEL + "igb/igb_main.c igb_xdp_setup(), igb_rx_bufsz()",
    ),
    Refusal(
        ("netdevsim",),
        "bound-program",
        "bound_only",
        "EINVAL",
        "netdevsim: attempt to load offloaded prog to drv",
        EXTACK,
        "drivers/net/netdevsim/bpf.c nsim_setup_prog_checks()",
    ),
    Refusal(
        ("virtio_net",),
        "hypervisor",
        "guest_offloads",
        "EOPNOTSUPP",
        "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set(): VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        since=(5, 13, 13),
    ),
    Refusal(
        ("virtio_net",),
        "hypervisor",
        "guest_offloads",
        "EOPNOTSUPP",
        "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set(): VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        since=(5, 10, 61),  # stable: "virtio-net: use NETIF_F_GRO_HW instead of NETIF_F_LRO"
        until=(5, 11),
    ),
    Refusal(
        ("virtio_net",),
        "hypervisor",
        "guest_offloads",
        "EOPNOTSUPP",
        "virtio_net: Can't set XDP while host is implementing LRO/CSUM, disable LRO/CSUM first",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set(): VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        since=(5, 11),
        until=(5, 13, 13),
    ),
    Refusal(
        ("virtio_net",),
        "hypervisor",
        "guest_offloads",
        "EOPNOTSUPP",
        "virtio_net: Can't set XDP while host is implementing LRO/CSUM, disable LRO/CSUM first",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set(): VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        until=(5, 10, 61),
    ),
    Refusal(
        ("virtio_net",),
        "hypervisor",
        "mergeable_without_any_layout",
        "EINVAL",
        "virtio_net: XDP expects header/data in single page, any_header_sg required",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set(): any_header_sg",
    ),
    Refusal(
        ("virtio_net",),
        "queues",
        "pairs_and_cpus_over_max",
        "ENOMEM",
        "virtio_net: Too few free TX rings available",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        until=(5, 10, 61),
    ),
    Refusal(
        ("virtio_net",),
        "queues",
        "pairs_and_cpus_over_max",
        "ENOMEM",
        "virtio_net: Too few free TX rings available",
        EXTACK,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        since=(5, 11),
        until=(5, 13),
    ),
    Refusal(
        ("virtio_net",),
        "queues",
        "pairs_and_cpus_over_max",
        None,
        "XDP request %i queues but max is %i. XDP_TX and XDP_REDIRECT will operate in a slower locked tx mode.",
        DMESG,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        since=(5, 10, 61),  # stable: "virtio-net: support XDP when not more queues"
        until=(5, 11),
        consequence="XDP_TX and redirects out of this device share its transmit queues under a lock",
    ),
    Refusal(
        ("virtio_net",),
        "queues",
        "pairs_and_cpus_over_max",
        None,
        "XDP request %i queues but max is %i. XDP_TX and XDP_REDIRECT will operate in a slower locked tx mode.",
        DMESG,
        "drivers/net/virtio_net.c virtnet_xdp_set()",
        since=(5, 13),
        consequence="XDP_TX and redirects out of this device share its transmit queues under a lock",
    ),
)
