"""The commands, a module a kind of work: arguments in, records out, no logic."""
