"""rtnetlink, tc, ethtool and netdev, and namespaces: the only room that knows netlink messages."""
