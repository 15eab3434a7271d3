"""The demos: each applies an example to a plane of its own and shows what happens."""
