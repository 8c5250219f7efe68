"""How good restored photographs are: metrics with their protocol, tables, contact sheets and the report page."""
