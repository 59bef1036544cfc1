"""The HTTP API and the MCP server: the same agent as the command line, for other programs."""
