"""rtnetlink, tc, ethtool and netdev, and namespaces: the only room that knows netlink messages.

Its records are NamedTuples where other rooms have frozen dataclasses: defining one costs a tenth (66 us against
770), and every `status` and `attach` pays for all of them before doing anything.
"""
