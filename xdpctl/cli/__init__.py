"""Parse, call one function, render: one file a command."""
