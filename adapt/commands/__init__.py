"""What each command does, from its arguments to its files: one module a command, named as the command."""
