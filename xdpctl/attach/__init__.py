"""Programs onto interfaces and off again: XDP by link or netlink, TC by tcx, clsact or netkit."""
