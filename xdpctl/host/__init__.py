"""One observation of the machine, across network namespaces: the Snapshot, its collectors, its JSON form."""
